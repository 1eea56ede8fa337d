//! Services that ServiceEntries declare: found by the address that was dialled, or by the host that is named.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::{Cidr, canonical_ip};

use super::outbound::{Destination, ServiceTarget};
use crate::egress::covers;
use crate::{Resolution, Service};

/// All of them. One that a client's own namespace declares is preferred, so that no other namespace can take its traffic.
#[derive(Debug, Default)]
pub(super) struct Externals {
    by_address: HashMap<IpAddr, Vec<Arc<Service>>>,
    /// Blocks, in the order of the Services' names.
    blocks: Vec<(Cidr, Arc<Service>)>,
    by_host: HashMap<String, Vec<Arc<Service>>>,
    wildcards: Vec<Arc<Service>>,
}

impl Externals {
    pub(super) fn add(&mut self, service: &Arc<Service>) {
        for address in &service.vips {
            let at = self.by_address.entry(canonical_ip(*address)).or_default();
            at.push(Arc::clone(service));
        }
        let external = service.external.iter().flat_map(|external| &external.addresses);
        self.blocks
            .extend(external.map(|block| (*block, Arc::clone(service))));
        match service.host.as_str() {
            host if host.starts_with('*') => self.wildcards.push(Arc::clone(service)),
            host => {
                let at = self.by_host.entry(host.to_owned()).or_default();
                at.push(Arc::clone(service));
            }
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_host.values().flatten().chain(&self.wildcards)
    }

    /// Where a client that dialled the address goes, among those that `knows` lets it know.
    pub(super) fn dialled(
        &self,
        namespace: &str,
        dialled: SocketAddr,
        knows: impl Fn(&Service) -> bool,
    ) -> Option<ServiceTarget> {
        let exact = self.by_address.get(&dialled.ip()).into_iter().flatten();
        let blocks = self
            .blocks
            .iter()
            .filter(|(block, _)| block.contains(dialled.ip()));
        let all = exact.chain(blocks.map(|(_, service)| service));
        let serving = all.filter(|service| service.is_exported_to(namespace) && knows(service));
        preferred(
            namespace,
            serving.filter(|s| s.ports.iter().any(|p| p.port == dialled.port())),
        )
        .and_then(|service| target(service, namespace, dialled.port()))
    }

    /// The Service that a client means by a host.
    pub(super) fn named(&self, namespace: &str, host: &str) -> Option<&Arc<Service>> {
        let exact = self.by_host.get(host).into_iter().flatten();
        let visible = |service: &&Arc<Service>| service.is_exported_to(namespace);
        preferred(namespace, exact.filter(visible)).or_else(|| {
            let wild = self
                .wildcards
                .iter()
                .filter(|service| covers(&service.host, host));
            // The longest says the most.
            wild.filter(visible).max_by_key(|service| {
                let own = service.name.namespace() == namespace;
                (service.host.as_str().len(), own)
            })
        })
    }
}

/// The client's own namespace's, else the first.
fn preferred<'a>(
    namespace: &str,
    mut services: impl Iterator<Item = &'a Arc<Service>> + Clone,
) -> Option<&'a Arc<Service>> {
    let own = services
        .clone()
        .find(|service| service.name.namespace() == namespace);
    own.or_else(|| services.next())
}

fn target(service: &Arc<Service>, namespace: &str, port: u16) -> Option<ServiceTarget> {
    let port = service.ports.iter().find(|p| p.port == port)?;
    Some(ServiceTarget::new(service, port, namespace))
}

/// Whether an address is among those that an entry lists, or that were chosen for it.
pub(super) fn lists(service: &Service, address: IpAddr) -> bool {
    let external = service.external.iter().flat_map(|external| &external.addresses);
    service.vips.iter().any(|own| canonical_ip(*own) == address)
        || external.clone().any(|block| block.contains(address))
}

/// Where traffic of an entry's port goes: to its endpoints, or on to the address that was dialled, which it lists.
pub(super) fn destination(
    target: ServiceTarget,
    dialled: SocketAddr,
    pod: Option<Arc<crate::Workload>>,
) -> Destination {
    let external = target.service.external.as_ref();
    match external.map(|external| external.resolution) {
        Some(Resolution::None) => Destination::Direct {
            address: dialled,
            workload: pod,
            service: Some(target),
        },
        Some(Resolution::Static) | None => Destination::Service(target),
    }
}
