//! What every node is to know, and whom a change concerns. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use snapshot::{Delta, Resource, ResourceName, Resources};
use tokio::sync::watch;

use super::catalogue::Catalogue;
use crate::wire::{Entry, MAX_RESOURCES};

/// What a node holds, or is to hold, by name.
pub(crate) type Target = BTreeMap<ResourceName, Arc<Entry>>;

/// All that is published.
#[derive(Debug, Default)]
pub(crate) struct Board {
    version: u64,
    catalogue: Catalogue,
    http_ports: Option<Arc<Entry>>,
    nodes: BTreeMap<String, Node>,
    /// By name, the open streams that have it or ask for it: node and number.
    interested: HashMap<ResourceName, BTreeSet<(String, u64)>>,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    /// What belongs to it.
    own: Target,
    /// What `interested` says of each of its streams.
    follows: BTreeMap<u64, BTreeSet<ResourceName>>,
    /// The version that it is to have; told whenever there is something to look at.
    pub(crate) version: watch::Sender<u64>,
    /// Its open streams: that of its proxy, and those of proxies that leave.
    pub(crate) streams: watch::Sender<Streams>,
}

/// The streams of one node that are open.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    last: u64,
    open: BTreeSet<u64>,
}

impl Streams {
    /// Takes a number for a new one.
    pub(crate) fn begin(&mut self) -> u64 {
        self.last += 1;
        self.open.insert(self.last);
        self.last
    }

    /// Whether it was the only one.
    pub(crate) fn end(&mut self, number: u64) -> bool {
        self.open.remove(&number);
        self.open.is_empty()
    }

    /// How many were opened after one.
    pub(crate) fn newer_than(&self, number: u64) -> usize {
        self.open.range(number.saturating_add(1)..).count()
    }
}

impl Default for Node {
    fn default() -> Self {
        Self {
            own: Target::new(),
            follows: BTreeMap::new(),
            version: watch::Sender::new(0),
            streams: watch::Sender::default(),
        }
    }
}

/// A change of what is published, all of it at once.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// Of Services and workloads, which are sent to those that ask.
    pub shared: Delta,
    /// What belongs to a node, whole, of those nodes for which it may have changed.
    pub nodes: BTreeMap<String, Resources>,
}

impl Board {
    /// Carries a change out; returns the nodes that it concerns, with the version that they are to have, and those that are
    /// to know more than there may be, which keep what they had.
    pub(crate) fn apply(&mut self, update: &Update) -> (BTreeMap<String, u64>, BTreeMap<String, usize>) {
        let touched = self.catalogue.apply(&update.shared);
        let mut concerned: BTreeSet<String> = touched
            .iter()
            .filter_map(|name| self.interested.get(name))
            .flatten()
            .map(|(node, _)| node.clone())
            .collect();
        if touched.contains(&ResourceName::http_ports()) {
            let ports = self.catalogue.http_ports();
            self.http_ports = ports.map(|ports| Arc::new(Entry::new(Arc::new(ports))));
            concerned.extend(self.nodes.keys().cloned());
        }
        // Of what is the same on several nodes the bytes are made once.
        let mut made: HashMap<ResourceName, Arc<Entry>> = HashMap::new();
        let mut too_many = BTreeMap::new();
        for (name, resources) in &update.nodes {
            if resources.len() > MAX_RESOURCES {
                too_many.insert(name.clone(), resources.len());
                continue;
            }
            let is_new = !self.nodes.contains_key(name);
            let node = self.nodes.entry(name.clone()).or_default();
            let own = renew(&node.own, resources, &mut made);
            if is_new || !same(&node.own, &own) {
                node.own = own;
                concerned.insert(name.clone());
            }
        }
        if concerned.is_empty() {
            return (BTreeMap::new(), too_many);
        }
        self.version += 1;
        for name in &concerned {
            if let Some(node) = self.nodes.get(name) {
                node.version.send_replace(self.version);
            }
        }
        let versions = concerned.into_iter().map(|name| (name, self.version));
        (versions.collect(), too_many)
    }

    /// The version that each node is to have.
    pub(crate) fn versions(&self) -> BTreeMap<String, u64> {
        let each = self.nodes.iter();
        each.map(|(name, node)| (name.clone(), *node.version.borrow()))
            .collect()
    }

    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// What the peer of a node's stream is to hold now, by what it asks for, and the version of that. From then on the node is
    /// concerned by changes of it.
    pub(crate) fn target(
        &mut self,
        name: &str,
        stream: u64,
        questions: &BTreeSet<ResourceName>,
    ) -> (u64, Target) {
        let Some(node) = self.nodes.get(name) else {
            return (0, Target::new());
        };
        let mut target = node.own.clone();
        if let Some(entry) = &self.http_ports {
            target.insert(ResourceName::http_ports(), Arc::clone(entry));
        }
        // Whom its workloads must ask is needed before anybody can.
        let providers: BTreeSet<_> = node
            .own
            .values()
            .filter_map(|entry| match entry.resource().as_ref() {
                Resource::Provider(provider) => Some(ResourceName::service(&provider.service)),
                // Who gets its spans, too.
                Resource::Workload(workload) => {
                    let tracing = workload.inbound.as_ref()?.telemetry.tracing.as_ref()?;
                    Some(ResourceName::service(&tracing.provider.service))
                }
                _ => None,
            })
            .collect();
        for question in questions.iter().chain(&providers) {
            self.catalogue.answer(question, &mut target);
        }
        let follows: BTreeSet<_> = target
            .keys()
            .chain(questions)
            .chain(&providers)
            .filter(|name| !node.own.contains_key(*name))
            .cloned()
            .collect();
        let version = *node.version.borrow();
        self.follow(name, stream, follows);
        (version, target)
    }

    /// Has the changes of these concern a node, for one of its streams, and no others that did for that one.
    fn follow(&mut self, name: &str, stream: u64, follows: BTreeSet<ResourceName>) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        let before = node.follows.remove(&stream).unwrap_or_default();
        let who = (name.to_owned(), stream);
        for gone in before.difference(&follows) {
            if let Some(streams) = self.interested.get_mut(gone) {
                streams.remove(&who);
                if streams.is_empty() {
                    self.interested.remove(gone);
                }
            }
        }
        for new in follows.difference(&before) {
            let streams = self.interested.entry(new.clone()).or_default();
            streams.insert(who.clone());
        }
        if !follows.is_empty() {
            node.follows.insert(stream, follows);
        }
    }

    /// A node's stream has ended: nothing of what it asked for concerns the node any more. Says whether it was the only one.
    pub(crate) fn leave(&mut self, name: &str, stream: u64) -> bool {
        self.follow(name, stream, BTreeSet::new());
        let mut last = false;
        if let Some(node) = self.nodes.get(name) {
            node.streams.send_modify(|open| last = open.end(stream));
        }
        last
    }
}

/// The entries of resources, those from before where they are the same.
fn renew(before: &Target, resources: &Resources, made: &mut HashMap<ResourceName, Arc<Entry>>) -> Target {
    let mut target = Target::new();
    for (name, resource) in resources.iter() {
        let is_same =
            |entry: &&Arc<Entry>| Arc::ptr_eq(entry.resource(), resource) || entry.resource() == resource;
        let entry = match before.get(name).filter(is_same) {
            Some(entry) => Arc::clone(entry),
            None => match made.get(name).filter(is_same) {
                Some(entry) => Arc::clone(entry),
                None => Arc::new(Entry::new(Arc::clone(resource))),
            },
        };
        made.insert(name.clone(), Arc::clone(&entry));
        target.insert(name.clone(), entry);
    }
    target
}

fn same(a: &Target, b: &Target) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|((name, one), (other, two))| name == other && Arc::ptr_eq(one, two))
}
