//! A world by namespaces. What of it is another one than before is seen by its pointers, so that nobody has to say what
//! has changed, and nobody can forget to.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::{Kind, Object, Pod};
use jwt::Jwks;

use crate::{Options, World};

/// The label that ties an EndpointSlice to its Service.
const SLICE_OF: &str = "kubernetes.io/service-name";

/// What lies in one namespace, with the Namespace object of that name; what lies in none is under the empty name.
#[derive(Debug, Default)]
pub struct Space {
    /// Oldest first, each name once.
    pub(crate) objects: Vec<Arc<Object>>,
    /// Objects of a kind and name that an older one has, and that one.
    pub(crate) duplicates: Vec<(Arc<Object>, Arc<Object>)>,
    /// By name and uid, each once.
    pub(crate) pods: Vec<Arc<Pod>>,
}

impl Space {
    /// Of objects and pods in any order.
    pub fn new(mut objects: Vec<Arc<Object>>, mut pods: Vec<Arc<Pod>>) -> Self {
        fn who(pod: &Arc<Pod>) -> (&str, Option<&str>) {
            (&pod.metadata.name, pod.metadata.uid.as_deref())
        }
        objects.sort_by(|a, b| age(a, b));
        let mut space = Self::default();
        let mut seen: HashMap<(String, String, String, String), Arc<Object>> = HashMap::new();
        for object in objects {
            let group = object.api_version.split_once('/').map_or("", |(group, _)| group);
            let meta = &object.meta;
            let key = (
                group.to_owned(),
                object.kind_name.clone(),
                meta.namespace.clone(),
                meta.name.clone(),
            );
            match seen.get(&key) {
                Some(used) => space.duplicates.push((object, Arc::clone(used))),
                None => {
                    seen.insert(key, Arc::clone(&object));
                    space.objects.push(object);
                }
            }
        }
        pods.sort_by(|a, b| who(a).cmp(&who(b)));
        pods.dedup_by(|a, b| who(a) == who(b));
        space.pods = pods;
        space
    }

    /// The namespace that an object is compiled with: its own, or the one that it is.
    pub fn of(object: &Object) -> &str {
        match &object.kind {
            Kind::Namespace(_) => &object.meta.name,
            _ => &object.meta.namespace,
        }
    }

    /// Whether a pod that exists, or that a workload would make, has the labels.
    pub(crate) fn has(&self, labels: &BTreeMap<String, String>) -> bool {
        let made = self.objects.iter().filter_map(|object| template(object));
        let there = self.pods.iter().map(|pod| &pod.metadata.labels);
        there.chain(made).any(|own| covers(labels, own))
    }
}

/// The labels of the pods that an object makes.
pub(crate) fn template(object: &Object) -> Option<&BTreeMap<String, String>> {
    match &object.kind {
        Kind::Pod(body) => Some(&body.metadata.labels),
        Kind::Deployment(body) | Kind::StatefulSet(body) | Kind::DaemonSet(body) => {
            Some(&body.template.metadata.labels)
        }
        Kind::Job(body) => Some(&body.template.metadata.labels),
        _ => None,
    }
}

/// The Service that an EndpointSlice belongs to.
pub(crate) fn slice_of(object: &Object) -> Option<&str> {
    object.meta.labels.get(SLICE_OF).map(String::as_str)
}

/// Whether a selector's labels are a subset of an object's.
pub(crate) fn covers(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Oldest first; of one age by name, then namespace (PA-13). An object of unknown age counts as the youngest. What
/// follows only keeps the order total, so that it does not depend on the input's.
pub(crate) fn age(a: &Object, b: &Object) -> Ordering {
    let key = |o: &'_ Object| (o.meta.creation.is_none(), o.meta.creation);
    key(a)
        .cmp(&key(b))
        .then_with(|| a.meta.name.cmp(&b.meta.name))
        .then_with(|| a.meta.namespace.cmp(&b.meta.namespace))
        .then_with(|| a.kind_name.cmp(&b.kind_name))
        .then_with(|| a.origin.file.cmp(&b.origin.file))
        .then_with(|| (a.origin.line, a.origin.column).cmp(&(b.origin.line, b.origin.column)))
        .then_with(|| a.json.to_string().cmp(&b.json.to_string()))
}

/// A [`World`] by namespaces. A clone costs little: nothing of what lies in the namespaces is copied.
#[derive(Clone, Debug, Default)]
pub struct Spaces {
    /// By namespace.
    pub by_name: BTreeMap<Arc<str>, Arc<Space>>,
    /// The nodes; each gets a snapshot.
    pub nodes: Arc<BTreeSet<String>>,
    /// PEM certificates that peers are verified against.
    pub roots: Arc<Vec<String>>,
    /// Keys that tokens are verified by; by [`Jwks::source`].
    pub jwks: Arc<BTreeMap<String, Arc<Jwks>>>,
    /// What the operator chose.
    pub options: Arc<Options>,
}

impl From<&World> for Spaces {
    fn from(world: &World) -> Self {
        type Parts = (Vec<Arc<Object>>, Vec<Arc<Pod>>);
        let mut parts: BTreeMap<&str, Parts> = BTreeMap::new();
        for object in &world.objects {
            let part = parts.entry(Space::of(object)).or_default();
            part.0.push(Arc::clone(object));
        }
        for pod in &world.pods {
            let part = parts.entry(&pod.metadata.namespace).or_default();
            part.1.push(Arc::clone(pod));
        }
        let each = parts.into_iter();
        Self {
            by_name: each
                .map(|(name, (objects, pods))| (Arc::from(name), Arc::new(Space::new(objects, pods))))
                .collect(),
            nodes: Arc::new(world.nodes.iter().cloned().collect()),
            roots: Arc::new(world.roots.clone()),
            jwks: Arc::new(world.jwks.clone()),
            options: Arc::new(world.options.clone()),
        }
    }
}
