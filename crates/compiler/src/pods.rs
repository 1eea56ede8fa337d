//! Pods as the mesh sees them: who each is, where it is, and whether it is in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{Pod, Problem, Severity};
use model::{SpiffeId, WorkloadId, WorkloadUid, canonical_ip};
use snapshot::Mesh;

use crate::injection::{PodLabels, injected};
use crate::outsider::{Outsider, outsider};
use crate::report::{Report, code};
use crate::view::View;

/// What the rest of the compiler asks of a pod.
#[derive(Debug)]
pub(crate) struct PodFacts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) uid: WorkloadUid,
    pub(crate) id: WorkloadId,
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

impl<'a> PodFacts<'a> {
    pub(crate) fn namespace(&self) -> &'a str {
        &self.pod.metadata.namespace
    }

    pub(crate) fn labels(&self) -> &'a BTreeMap<String, String> {
        &self.pod.metadata.labels
    }

    pub(crate) fn node(&self) -> &'a str {
        &self.pod.spec.node_name
    }

    /// Whether it is reached by HBONE.
    pub(crate) fn is_hbone(&self) -> bool {
        self.outsider == Some(Outsider::Hbone)
    }

    /// The first of these labels that is set.
    pub(crate) fn label(&self, keys: &[&str]) -> Option<&'a str> {
        let set = keys.iter().filter_map(|key| self.labels().get(*key));
        set.map(String::as_str).find(|value| !value.is_empty())
    }

    /// The name by which a headless Service of that name knows it.
    pub(crate) fn hostname(&self, service: &str) -> Option<&'a str> {
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

pub(crate) fn all<'a>(view: &View<'a>, mesh: &Mesh, report: &mut Report) -> Vec<PodFacts<'a>> {
    let none = BTreeMap::new();
    view.pods
        .iter()
        .map(|pod| facts(view, mesh, pod, &none, report))
        .collect()
}

fn facts<'a>(
    view: &View<'a>,
    mesh: &Mesh,
    pod: &'a Pod,
    none: &BTreeMap<String, String>,
    report: &mut Report,
) -> PodFacts<'a> {
    let meta = &pod.metadata;
    let in_mesh = injected(
        PodLabels {
            namespace: &meta.namespace,
            namespace_labels: view
                .namespaces
                .get(meta.namespace.as_str())
                .map_or(none, |ns| &ns.meta.labels),
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
        pod,
        uid: uid(pod),
        id: WorkloadId::new(&meta.namespace, &meta.name),
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
