//! A new pod: what its owner's template, the addressing plan and Kubernetes' habits make of it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use api::{Meta, OwnerReference};
use capture::node::PodPort;
use capture::{FIRST_POD_MARK, plan};
use model::{SpiffeId, TrustDomain};

use crate::desired::{Owner, OwnerKind, Shape, uuid};
use crate::plan::{NewPod, replica_set};
use crate::pod::Pod;
use crate::site::{Site, pod_netns};

/// The addresses and marks of the nodes. An address is given again as late as can be, a mark never: who once held it may
/// still be known by it.
#[derive(Debug)]
pub(super) struct Places {
    nodes: Vec<Places1>,
}

#[derive(Clone, Debug)]
struct Places1 {
    taken: BTreeSet<u8>,
    next: u8,
    mark: u32,
}

/// Where a pod is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    node: u8,
    port: PodPort,
    host_network: bool,
}

impl Places {
    pub(super) fn new(nodes: usize) -> Self {
        let empty = Places1 {
            taken: BTreeSet::new(),
            next: 0,
            mark: FIRST_POD_MARK,
        };
        Self {
            nodes: vec![empty; nodes],
        }
    }

    /// A place on the node; `None` where it is full.
    pub(super) fn take(&mut self, node: u8, host_network: bool) -> Option<Place> {
        let places = self.nodes.get_mut(usize::from(node))?;
        let most = plan::MAX_PODS_PER_NODE;
        let number = (0..most)
            .map(|step| {
                u8::try_from((u16::from(places.next) + u16::from(step)) % u16::from(most)).unwrap_or(0)
            })
            .find(|number| !places.taken.contains(number))?;
        places.taken.insert(number);
        places.next = (number + 1) % most;
        let mark = places.mark;
        places.mark = places.mark.checked_add(1)?;
        let port = PodPort {
            mark,
            mac: plan::pod_mac(mark),
            v4: plan::pod_v4(node, number),
            v6: plan::pod_v6(node, number),
            mesh: false,
        };
        Some(Place {
            node,
            port,
            host_network,
        })
    }

    /// Gives an address back.
    pub(super) fn free(&mut self, node: u8, v4: Ipv4Addr) {
        if let Some(places) = self.nodes.get_mut(usize::from(node)) {
            places.taken.retain(|number| plan::pod_v4(node, *number) != v4);
        }
    }
}

pub(super) fn pod(
    site: &Site,
    trust_domain: &TrustDomain,
    nonce: &str,
    new: &NewPod,
    owner: &Owner,
    place: Place,
) -> Pod {
    let mut spec = owner.template.spec.clone();
    if let Shape::Ordinals { service, .. } = &owner.shape {
        spec.hostname.clone_from(&new.name);
        spec.subdomain.clone_from(service);
    }
    let identity = owner
        .mesh
        .then(|| SpiffeId::new(trust_domain.clone(), &new.owner.namespace, spec.service_account()).ok())
        .flatten();
    let port = PodPort {
        mesh: owner.mesh,
        ..place.port
    };
    let (ips, netns) = match site.node(place.node).filter(|_| place.host_network) {
        Some(node) => (
            node.ips().to_vec(),
            crate::site::node_netns(&site.mesh, place.node),
        ),
        None => (
            vec![IpAddr::V4(port.v4), IpAddr::V6(port.v6)],
            pod_netns(&site.mesh, place.node, port.mark),
        ),
    };
    let meta = meta(nonce, new, owner);
    let birth = (new.hash.clone(), new.sequence);
    Pod::new(
        new.owner.clone(),
        birth,
        meta,
        spec,
        (place.node, port),
        ips,
        identity,
        netns,
    )
}

fn meta(nonce: &str, new: &NewPod, owner: &Owner) -> Meta {
    let key = &new.owner;
    let template = &owner.template.metadata;
    let owner_uid = |name: &str| uuid(&[nonce, key.kind.name(), &key.namespace, name]);
    let mut labels = template.labels.clone();
    let mut label = |name: &str, value: &str| drop(labels.insert(name.to_owned(), value.to_owned()));
    let controller = match key.kind {
        OwnerKind::Deployment => {
            label("pod-template-hash", &new.hash);
            replica_set(key, &new.hash).map(|name| ("apps/v1", "ReplicaSet", name))
        }
        OwnerKind::StatefulSet => {
            label("statefulset.kubernetes.io/pod-name", &new.name);
            label("apps.kubernetes.io/pod-index", &new.sequence.to_string());
            label("controller-revision-hash", &format!("{}-{}", key.name, new.hash));
            Some(("apps/v1", "StatefulSet", key.name.clone()))
        }
        OwnerKind::DaemonSet => {
            label("controller-revision-hash", &new.hash);
            Some(("apps/v1", "DaemonSet", key.name.clone()))
        }
        OwnerKind::Job => {
            label("job-name", &key.name);
            label("batch.kubernetes.io/job-name", &key.name);
            Some(("batch/v1", "Job", key.name.clone()))
        }
        OwnerKind::Pod => None,
    };
    let reference = controller.map(|(api_version, kind, name)| OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        uid: owner_uid(&name),
        name,
        controller: Some(true),
    });
    Meta {
        uid: Some(uuid(&[
            nonce,
            &key.namespace,
            &new.name,
            &new.hash,
            &new.sequence.to_string(),
        ])),
        name: new.name.clone(),
        namespace: key.namespace.clone(),
        labels,
        annotations: template.annotations.clone(),
        creation: now_ms(),
        owner_references: reference.into_iter().collect(),
    }
}

fn now_ms() -> Option<u64> {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()?;
    u64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_again_late_and_a_mark_never() {
        let mut places = Places::new(1);
        let first = places.take(0, false).unwrap();
        assert_eq!(first.port.v4, Ipv4Addr::new(10, 77, 0, 2));
        assert_eq!(first.port.mark, FIRST_POD_MARK);
        places.free(0, first.port.v4);
        let mut marks = BTreeSet::from([first.port.mark]);
        for _ in 1..plan::MAX_PODS_PER_NODE {
            let next = places.take(0, false).unwrap();
            assert_ne!(next.port.v4, first.port.v4);
            assert!(marks.insert(next.port.mark));
        }
        assert_eq!(places.take(0, false).unwrap().port.v4, first.port.v4);
        assert!(places.take(0, false).is_none());
        assert!(places.take(1, false).is_none());
    }
}
