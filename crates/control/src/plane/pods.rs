//! The pods that are reported.

use std::collections::HashSet;
use std::sync::Arc;

use admin::Failure;

use super::Plane;
use crate::layers::Key;
use crate::verbs::MAX_PODS;
use crate::world::Reported;

impl Plane {
    pub(super) fn take_pods(&mut self, pods: Vec<Arc<Reported>>) {
        let named: HashSet<String> = pods.iter().map(|pod| pod.name()).collect();
        let there = self.pods.values().flat_map(|space| space.values());
        let gone: Vec<String> = there
            .map(|pod| pod.name())
            .filter(|name| !named.contains(name))
            .collect();
        self.put_pods(pods, &gone);
    }

    pub(super) fn change_pods(
        &mut self,
        changed: Vec<Arc<Reported>>,
        gone: &[String],
    ) -> Result<Vec<(Key, &'static str)>, Failure> {
        let there = |pod: &Reported| {
            self.pod(&pod.pod.metadata.namespace, &pod.pod.metadata.name)
                .is_some()
        };
        let new: HashSet<String> = changed
            .iter()
            .filter(|pod| !there(pod))
            .map(|pod| pod.name())
            .collect();
        if self.pods.values().map(|space| space.len()).sum::<usize>() + new.len() > MAX_PODS + gone.len() {
            return Err(Failure::input(format!("at most {MAX_PODS} pods may be reported")));
        }
        self.put_pods(changed, gone);
        Ok(Vec::new())
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<Reported>> {
        self.pods.get(namespace)?.get(name)
    }

    /// Puts pods in place of those of their names, and takes away what is gone (`namespace/name`).
    pub(super) fn put_pods(&mut self, changed: Vec<Arc<Reported>>, gone: &[String]) {
        let mut written = Vec::new();
        let names: HashSet<String> = changed.iter().map(|pod| pod.name()).collect();
        for name in gone.iter().filter(|name| !names.contains(*name)) {
            let Some((namespace, name)) = name.split_once('/') else {
                continue;
            };
            if self.pod(namespace, name).is_none() {
                continue;
            }
            let pods = Arc::make_mut(&mut self.pods);
            if let Some(space) = pods.get_mut(namespace) {
                Arc::make_mut(space).remove(name);
                if space.is_empty() {
                    pods.remove(namespace);
                }
            }
            self.touched.insert(Arc::from(namespace));
            written.push((format!("{namespace}/{name}"), None));
        }
        for reported in changed {
            let (namespace, name) = (&reported.pod.metadata.namespace, &reported.pod.metadata.name);
            if self
                .pod(namespace, name)
                .is_some_and(|held| held.text == reported.text)
            {
                continue;
            }
            let space: Arc<str> = Arc::from(namespace.as_str());
            self.touched.insert(Arc::clone(&space));
            written.push((reported.name(), Some(Arc::clone(&reported))));
            let of_space = Arc::make_mut(&mut self.pods).entry(space).or_default();
            Arc::make_mut(of_space).insert(name.clone(), reported);
        }
        if written.is_empty() {
            return;
        }
        self.dirty = true;
        let line = |(name, pod): (String, Option<Arc<Reported>>)| match pod {
            Some(pod) => format!("{}\n", pod.text),
            None => format!("{}\n", serde_json::Value::String(name)),
        };
        let lines: String = written.into_iter().map(line).collect();
        let written = self
            .pod_journal
            .as_mut()
            .map_or(Ok(()), |journal| journal.add(&lines));
        self.note(written);
    }
}
