//! From what is wanted and the pods that exist to what is to be done: what Kubernetes' controllers and scheduler do.
//!
//! Pure: called after every change, it says the next steps and not all of them; what comes of them is the next change.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::{Owner, OwnerKey, OwnerKind, Shape, Wanted, letters};

/// How many pods a node may have.
const MAX_PODS: usize = 240;
/// How long the name of an owner may be in front of the letters that are added to it, as Kubernetes cuts it.
const MAX_BASE: usize = 58;

/// A pod that exists.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) owner: OwnerKey,
    pub(crate) hash: String,
    /// In what order its owner's pods were made.
    pub(crate) sequence: u32,
    pub(crate) node: u8,
    pub(crate) ready: bool,
    pub(crate) end: Option<End>,
    /// It is on its way out.
    pub(crate) leaving: bool,
}

/// How a pod ended that is not started again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Succeeded,
    Failed,
}

/// A pod to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NewPod {
    pub(crate) name: String,
    pub(crate) owner: OwnerKey,
    pub(crate) hash: String,
    pub(crate) sequence: u32,
    pub(crate) node: u8,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) create: Vec<NewPod>,
    /// Uids.
    pub(crate) delete: Vec<String>,
    /// Owners that want a pod for which there is no node, and why.
    pub(crate) unplaced: BTreeMap<OwnerKey, String>,
}

/// The next steps. `born` says how many pods each owner has made so far.
pub(crate) fn plan(wanted: &Wanted, pods: &[Seen], born: &BTreeMap<OwnerKey, u32>, nodes: &[String]) -> Plan {
    let mut planner = Planner {
        plan: Plan::default(),
        load: vec![0; nodes.len()],
        nodes,
        names: pods
            .iter()
            .map(|pod| (pod.owner.namespace.as_str(), pod.name.clone()))
            .collect(),
    };
    for pod in pods {
        planner.occupy(pod.node);
        if !wanted.owners.contains_key(&pod.owner) {
            planner.delete(pod);
        }
    }
    for (key, owner) in &wanted.owners {
        let own: Vec<&Seen> = pods.iter().filter(|pod| pod.owner == *key).collect();
        let next = born.get(key).copied().unwrap_or_default();
        planner.owner(key, owner, &own, next);
    }
    planner.plan
}

struct Planner<'a> {
    plan: Plan,
    load: Vec<usize>,
    nodes: &'a [String],
    names: BTreeSet<(&'a str, String)>,
}

impl<'a> Planner<'a> {
    fn occupy(&mut self, node: u8) {
        if let Some(load) = self.load.get_mut(usize::from(node)) {
            *load += 1;
        }
    }

    fn delete(&mut self, pod: &Seen) {
        if !pod.leaving {
            self.plan.delete.push(pod.uid.clone());
        }
    }

    fn create(&mut self, key: &'a OwnerKey, owner: &Owner, name: String, sequence: u32, node: Option<u8>) {
        let node = match node.map_or_else(|| self.place(owner), Ok) {
            Ok(node) => node,
            Err(why) => {
                self.plan.unplaced.insert(key.clone(), why);
                return;
            }
        };
        // The name is taken until the pod that has it is gone.
        if !self.names.insert((key.namespace.as_str(), name.clone())) {
            return;
        }
        self.occupy(node);
        self.plan.create.push(NewPod {
            name,
            owner: key.clone(),
            hash: owner.hash.clone(),
            sequence,
            node,
        });
    }

    /// The node with the fewest pods; of several the first.
    fn place(&self, owner: &Owner) -> Result<u8, String> {
        let spec = &owner.template.spec;
        let fits = |node: &str| {
            let named = spec.node_name.is_empty() || spec.node_name == node;
            named
                && spec.node_selector.iter().all(|(key, value)| match key.as_str() {
                    "kubernetes.io/hostname" => value == node,
                    "kubernetes.io/os" => value == "linux",
                    _ => false,
                })
        };
        let mut chosen: Option<(usize, u8)> = None;
        let mut some_fit = false;
        for ((index, node), load) in (0_u8..).zip(self.nodes).zip(&self.load) {
            if !fits(node) {
                continue;
            }
            some_fit = true;
            if *load < MAX_PODS && chosen.is_none_or(|(least, _)| *load < least) {
                chosen = Some((*load, index));
            }
        }
        chosen.map(|(_, index)| index).ok_or_else(|| {
            let nodes = self.nodes.join("`, `");
            if some_fit {
                format!("no node has room: {MAX_PODS} pods each are the most")
            } else {
                format!("its node name or selector fits no node; there are `{nodes}`")
            }
        })
    }

    fn owner(&mut self, key: &'a OwnerKey, owner: &Owner, own: &[&Seen], next: u32) {
        match &owner.shape {
            Shape::Replicas(replicas) => self.replicas(key, owner, own, next, *replicas),
            Shape::Ordinals { replicas, .. } => self.ordinals(key, owner, own, *replicas),
            Shape::PerNode => self.per_node(key, owner, own, next),
            Shape::UntilDone { .. } => self.until_done(key, owner, own, next),
            Shape::One => match own.first() {
                None => self.create(key, owner, key.name.clone(), next, None),
                Some(pod) if pod.hash != owner.hash => self.delete(pod),
                Some(_) => {}
            },
        }
    }

    /// Pods of the new template come first; one of the old ones goes for each that is ready.
    fn replicas(&mut self, key: &'a OwnerKey, owner: &Owner, own: &[&Seen], next: u32, replicas: u32) {
        let wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
        let (mut new, old): (Vec<&Seen>, Vec<&Seen>) = own
            .iter()
            .filter(|pod| !pod.leaving)
            .partition(|pod| pod.hash == owner.hash);
        // Those that are ready stay before those that are not, older before younger.
        new.sort_by_key(|pod| (!pod.ready, pod.sequence));
        for pod in new.iter().skip(wanted) {
            self.delete(pod);
        }
        let base = format!("{}-{}", cut(&key.name, MAX_BASE - 11), owner.hash);
        for sequence in (next..).take(wanted.saturating_sub(new.len())) {
            let name = format!("{base}-{}", suffix(key, &owner.hash, sequence));
            self.create(key, owner, name, sequence, None);
        }
        let ready = new.iter().take(wanted).filter(|pod| pod.ready).count();
        let mut keep = wanted.saturating_sub(ready);
        for pod in old {
            if pod.ready && keep > 0 {
                keep -= 1;
            } else {
                self.delete(pod);
            }
        }
    }

    /// One after the other: the next when all before it are ready; replaced from the end, one at a time.
    fn ordinals(&mut self, key: &'a OwnerKey, owner: &Owner, own: &[&Seen], replicas: u32) {
        for pod in own.iter().filter(|pod| pod.sequence >= replicas) {
            self.delete(pod);
        }
        for ordinal in 0..replicas {
            match own.iter().find(|pod| pod.sequence == ordinal) {
                None => {
                    self.create(key, owner, format!("{}-{ordinal}", key.name), ordinal, None);
                    return;
                }
                // A pod that will never be ready must not keep its own replacement from coming.
                Some(pod) if !pod.ready && pod.hash != owner.hash => {
                    self.delete(pod);
                    return;
                }
                Some(pod) if !pod.ready => return,
                Some(_) => {}
            }
        }
        let stale = own
            .iter()
            .filter(|pod| pod.sequence < replicas && pod.hash != owner.hash);
        if let Some(last) = stale.max_by_key(|pod| pod.sequence) {
            self.delete(last);
        }
    }

    fn per_node(&mut self, key: &'a OwnerKey, owner: &Owner, own: &[&Seen], next: u32) {
        let mut sequence = next;
        for node in (0_u8..).take(self.nodes.len()) {
            let here: Vec<&&Seen> = own
                .iter()
                .filter(|pod| pod.node == node && !pod.leaving)
                .collect();
            match here.split_first() {
                None => {
                    let name = format!(
                        "{}-{}",
                        cut(&key.name, MAX_BASE),
                        suffix(key, &owner.hash, sequence)
                    );
                    self.create(key, owner, name, sequence, Some(node));
                    sequence = sequence.saturating_add(1);
                }
                Some((first, _)) if first.hash != owner.hash => self.delete(first),
                Some((_, more)) => more.iter().for_each(|pod| self.delete(pod)),
            }
        }
    }

    fn until_done(&mut self, key: &'a OwnerKey, owner: &Owner, own: &[&Seen], next: u32) {
        let Shape::UntilDone {
            parallelism,
            completions,
            backoff_limit,
            suspended,
        } = owner.shape
        else {
            return;
        };
        // A Job's template cannot be changed; one that is another is another Job.
        let (current, stale): (Vec<&Seen>, Vec<&Seen>) = own.iter().partition(|pod| pod.hash == owner.hash);
        stale.into_iter().for_each(|pod| self.delete(pod));
        let count = |end| current.iter().filter(|pod| pod.end == Some(end)).count();
        let number = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let running: Vec<&&Seen> = current
            .iter()
            .filter(|pod| pod.end.is_none() && !pod.leaving)
            .collect();
        let given_up = count(End::Failed) > number(backoff_limit);
        if suspended || given_up {
            running.into_iter().for_each(|pod| self.delete(pod));
            return;
        }
        let left = number(completions).saturating_sub(count(End::Succeeded));
        let missing = left.min(number(parallelism)).saturating_sub(running.len());
        for sequence in (next..).take(missing) {
            let name = format!(
                "{}-{}",
                cut(&key.name, MAX_BASE),
                suffix(key, &owner.hash, sequence)
            );
            self.create(key, owner, name, sequence, None);
        }
    }
}

fn suffix(key: &OwnerKey, hash: &str, sequence: u32) -> String {
    letters(
        &[
            &key.namespace,
            key.kind.name(),
            &key.name,
            hash,
            &sequence.to_string(),
        ],
        5,
    )
}

fn cut(name: &str, most: usize) -> &str {
    let end = name.len().min(most);
    // Names are ASCII once they were accepted; anything else is left whole.
    name.get(..end).unwrap_or(name)
}

/// The name that a Deployment's ReplicaSet would have, the owner of its pods.
pub(crate) fn replica_set(owner: &OwnerKey, hash: &str) -> Option<String> {
    (owner.kind == OwnerKind::Deployment).then(|| format!("{}-{hash}", cut(&owner.name, MAX_BASE - 11)))
}

#[cfg(test)]
mod tests;
