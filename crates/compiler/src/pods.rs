//! Pods as the mesh sees them: who each is, where it is, and whether it is in.

pub(crate) mod injection;
pub(crate) mod outsider;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use api::{Pod, Problem, Severity};
use model::{SpiffeId, WorkloadId, WorkloadUid, canonical_ip};
use snapshot::Mesh;

use crate::report::{Place, Report, code};
use crate::view::View;
use injection::{PodLabels, injected};
use outsider::{Outsider, outsider};

/// What the rest of the compiler asks of a pod.
#[derive(Debug)]
pub(crate) struct PodFacts {
    pub(crate) pod: Arc<Pod>,
    pub(crate) uid: WorkloadUid,
    pub(crate) id: WorkloadId,
    /// `namespace/name`, for people.
    pub(crate) shown: Arc<str>,
    /// The node it runs on; empty where it has none yet.
    pub(crate) node: Arc<str>,
    /// What owns it, or itself.
    pub(crate) owner: WorkloadId,
    pub(crate) in_mesh: bool,
    /// The transport of a pod outside the mesh that brings a proxy of its own.
    pub(crate) outsider: Option<Outsider>,
    /// Of a pod in the mesh, and of one that brings a proxy of its own.
    pub(crate) identity: Option<SpiffeId>,
    /// IPv4 first.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether it can still take part: a pod that has ended gives its addresses back.
    pub(crate) live: bool,
    pub(crate) ready: bool,
}

impl PodFacts {
    pub(crate) fn namespace(&self) -> &str {
        &self.pod.metadata.namespace
    }

    pub(crate) fn labels(&self) -> &BTreeMap<String, String> {
        &self.pod.metadata.labels
    }

    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// Who it is, for people, and where.
    pub(crate) fn place(&self) -> Place<'_> {
        Place {
            shown: &self.shown,
            node: &self.node,
        }
    }

    /// Whether a proxy stands before it.
    pub(crate) fn is_served(&self) -> bool {
        self.in_mesh && self.live
    }

    /// Whether it is reached by HBONE.
    pub(crate) fn is_hbone(&self) -> bool {
        self.outsider == Some(Outsider::Hbone)
    }

    /// The first of these labels that is set.
    pub(crate) fn label(&self, keys: &[&str]) -> Option<&str> {
        let set = keys.iter().filter_map(|key| self.labels().get(*key));
        set.map(String::as_str).find(|value| !value.is_empty())
    }

    /// The name by which a headless Service of that name knows it.
    pub(crate) fn hostname(&self, service: &str) -> Option<&str> {
        let spec = &self.pod.spec;
        if !spec.hostname.is_empty() && spec.subdomain == service {
            return Some(&spec.hostname);
        }
        let stateful = self
            .pod
            .metadata
            .owner_references
            .iter()
            .any(|owner| owner.kind == "StatefulSet");
        stateful.then_some(self.pod.metadata.name.as_str())
    }
}

pub(crate) fn all(view: &View<'_>, mesh: &Mesh, report: &mut Report) -> Vec<PodFacts> {
    let mut nodes: HashMap<&str, Arc<str>> = HashMap::new();
    let each = view.pods.iter();
    each.map(|pod| {
        let node = nodes
            .entry(&pod.spec.node_name)
            .or_insert_with(|| Arc::from(pod.spec.node_name.as_str()));
        facts(view, mesh, pod, Arc::clone(node), report)
    })
    .collect()
}

fn facts(view: &View<'_>, mesh: &Mesh, pod: &Arc<Pod>, node: Arc<str>, report: &mut Report) -> PodFacts {
    let meta = &pod.metadata;
    let none = BTreeMap::new();
    let in_mesh = injected(
        PodLabels {
            namespace: &meta.namespace,
            namespace_labels: view.namespace.map_or(&none, |ns| &ns.meta.labels),
            labels: &meta.labels,
            annotations: &meta.annotations,
            host_network: pod.spec.host_network,
        },
        &view.options.injection,
    );
    let outsider = outsider(&meta.labels, &meta.annotations).filter(|_| !in_mesh);
    let mut addresses: Vec<_> = pod.status.addresses().into_iter().map(canonical_ip).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    let live = !matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
    PodFacts {
        pod: Arc::clone(pod),
        uid: uid(pod),
        id: WorkloadId::new(&meta.namespace, &meta.name),
        shown: Arc::from(format!("{}/{}", meta.namespace, meta.name)),
        node,
        owner: WorkloadId::new(&meta.namespace, owner(pod)),
        in_mesh,
        outsider,
        identity: (in_mesh || outsider.is_some())
            .then(|| identity(mesh, pod, report))
            .flatten(),
        addresses,
        live,
        ready: live && pod.status.ready(),
    }
}

fn uid(pod: &Pod) -> WorkloadUid {
    let meta = &pod.metadata;
    match meta.uid.as_deref().filter(|uid| !uid.is_empty()) {
        Some(uid) => WorkloadUid::new(uid),
        None => WorkloadUid::new(&format!("{}.{}", meta.namespace, meta.name)),
    }
}

/// The name of the controller; of a ReplicaSet that a Deployment made, the Deployment's.
fn owner(pod: &Pod) -> &str {
    let owners = &pod.metadata.owner_references;
    let controller = owners
        .iter()
        .find(|o| o.controller == Some(true))
        .or_else(|| owners.first());
    let Some(controller) = controller.filter(|o| !o.name.is_empty()) else {
        return &pod.metadata.name;
    };
    let hash = pod
        .metadata
        .labels
        .get("pod-template-hash")
        .filter(|_| controller.kind == "ReplicaSet");
    let deployment = hash.and_then(|hash| controller.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    deployment.unwrap_or(&controller.name)
}

fn identity(mesh: &Mesh, pod: &Pod, report: &mut Report) -> Option<SpiffeId> {
    let meta = &pod.metadata;
    let made = SpiffeId::new(
        mesh.trust_domain.clone(),
        &meta.namespace,
        pod.spec.service_account(),
    );
    if let Err(error) = &made {
        let message = format!(
            "the pod `{}/{}` gets no identity: {error}",
            meta.namespace, meta.name
        );
        report.tell_all(Problem::new(Severity::Error, code::IDENTITY, message));
    }
    made.ok()
}
