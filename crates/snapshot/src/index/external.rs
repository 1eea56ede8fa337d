//! Services that ServiceEntries declare: found by the address that was dialled, or by the host that is named.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::{Cidr, Protocol, Reason, canonical_ip};

use super::asker::Asker;
use super::outbound::{Destination, ServiceTarget, is_local};
use super::{Index, Lacks, names};
use crate::egress::covers;
use crate::{Egress, Resolution, Service};

/// All of them. One that a client's own namespace declares is preferred, so that no other namespace can take its traffic.
#[derive(Debug, Default)]
pub(super) struct Externals {
    by_address: HashMap<IpAddr, Vec<Arc<Service>>>,
    /// Blocks, in the order of the Services' names.
    blocks: Vec<(Cidr, Arc<Service>)>,
    by_host: HashMap<String, Vec<Arc<Service>>>,
    wildcards: Vec<Arc<Service>>,
    /// Those that say nothing of where they are.
    unlisted: Vec<Arc<Service>>,
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
        if service
            .external
            .as_ref()
            .is_some_and(crate::External::is_unlisted)
        {
            self.unlisted.push(Arc::clone(service));
        }
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
    pub(super) fn dialled(&self, asker: Asker<'_>, dialled: SocketAddr) -> Option<ServiceTarget> {
        let namespace = asker.namespace;
        let exact = self.by_address.get(&dialled.ip()).into_iter().flatten();
        let blocks = self
            .blocks
            .iter()
            .filter(|(block, _)| block.contains(dialled.ip()));
        let all = exact.chain(blocks.map(|(_, service)| service));
        let serving = all.filter(|service| asker.may_know(service));
        preferred(
            namespace,
            serving.filter(|s| s.ports.iter().any(|p| p.port == dialled.port())),
        )
        .and_then(|service| target(service, namespace, dialled.port()))
    }

    /// Those that say nothing of where they are and have the port, the client's own namespace's first.
    pub(super) fn unlisted<'a>(&'a self, asker: Asker<'a>, port: u16) -> Vec<ServiceTarget> {
        let known = self.unlisted.iter().filter(|service| asker.may_know(service));
        let targets = known.filter_map(|service| target(service, asker.namespace, port));
        let mut found: Vec<_> = targets.collect();
        found.sort_by_key(|target| target.service.name.namespace() != asker.namespace);
        found
    }

    /// Whether TLS on the port may lead somewhere by its name alone.
    fn names_port(&self, asker: Asker<'_>, port: u16) -> bool {
        let dynamic = |service: &&Arc<Service>| {
            let external = service.external.as_ref();
            external.is_some_and(|external| external.addresses.is_empty() && service.vips.is_empty())
        };
        let open = self.wildcards.iter().filter(dynamic).chain(&self.unlisted);
        open.filter(|service| asker.may_know(service))
            .any(|service| names_at(service, port))
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
fn lists(service: &Service, address: IpAddr) -> bool {
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
        Some(_) | None => Destination::Service(target),
    }
}

/// Whether it leads to what an entry registers.
pub(super) fn leads_out(destination: &Result<Destination, Reason>) -> bool {
    entry_of(destination).is_some()
}

fn entry_of(destination: &Result<Destination, Reason>) -> Option<&ServiceTarget> {
    let target = match destination {
        Ok(Destination::Service(target)) => target,
        Ok(Destination::Direct { service, .. }) => service.as_ref()?,
        Ok(Destination::External(_)) | Err(_) => return None,
    };
    target.service.external.is_some().then_some(target)
}

/// Whether connections to a port of that protocol may begin with TLS, whose name then counts.
fn may_name(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Tls | Protocol::Https | Protocol::Auto)
}

impl Destination {
    /// The entry by which it goes to the address that was dialled although the entry does not say so: who claims its host has
    /// to be held to where that is (R37, EG-17).
    pub fn unproven(&self) -> Option<&ServiceTarget> {
        match self {
            Self::Direct {
                service: Some(target),
                ..
            } => {
                let external = target.service.external.as_ref();
                external.filter(|external| external.is_unlisted()).map(|_| target)
            }
            _ => None,
        }
    }
}

impl Index {
    /// Whether it has to be known which name a connection's TLS asks for, and, if so, whether the port is declared as TLS: by
    /// where it goes by its address alone.
    pub fn asks_name(
        &self,
        asker: Asker<'_>,
        port: u16,
        by_address: &Result<Destination, Reason>,
    ) -> Option<bool> {
        match (entry_of(by_address), by_address) {
            (Some(target), _) if may_name(target.protocol) => Some(target.protocol != Protocol::Auto),
            // Nothing has the address: a name may still lead somewhere.
            (None, Err(_)) => self.externals.names_port(asker, port).then_some(false),
            _ => None,
        }
    }

    /// Whether some entry leads by that host to wherever the host is.
    pub fn leads_by_name(&self, host: &str) -> bool {
        let host = names::canonical(host);
        let open = self.externals.wildcards.iter().chain(&self.externals.unlisted);
        open.filter(|service| service.external.as_ref().is_some_and(|e| e.addresses.is_empty()))
            .any(|service| covers(&service.host, &host))
    }

    /// What a client in `asker`'s place may mean by an address on that port that nothing lists.
    pub fn unlisted(&self, asker: Asker<'_>, port: u16) -> Vec<ServiceTarget> {
        let mut found = self.externals.unlisted(asker, port);
        found.retain(|target| matches!(target.protocol, Protocol::Tcp | Protocol::Auto));
        found
    }

    /// Where a request, or TLS, for an entry's host goes, when an address was dialled that the entry lists (EG-17); or when it
    /// lists none, and so leads to where the name is, which the proxy finds out.
    pub(super) fn external(
        &self,
        asker: Asker<'_>,
        dialled: SocketAddr,
        service: &Arc<Service>,
        lacks: &Lacks,
    ) -> Option<Destination> {
        let external = service.external.as_ref()?;
        let port = service.ports.iter().find(|p| p.port == dialled.port())?;
        let ip = dialled.ip();
        if is_local(ip, self.mesh().strict_hosts) {
            return None;
        }
        // An address of a Service of the mesh is that Service's, whatever somebody's DNS says.
        let open = external.addresses.is_empty() && service.vips.is_empty() && self.vip(ip, 0).is_none();
        (lists(service, ip) || open).then(|| {
            let pod = self.pod_at(ip, lacks).cloned();
            destination(ServiceTarget::new(service, port, asker.namespace), dialled, pod)
        })
    }

    /// Where a connection goes whose TLS asks for that name: an entry's hosts are compared with it. Istio does so where the
    /// entry lists a block or nothing; under `strict_hosts` a single address is no exception.
    pub(super) fn by_sni(
        &self,
        asker: Asker<'_>,
        dialled: SocketAddr,
        (name, by_address): (Option<&str>, Result<Destination, Reason>),
        lacks: &Lacks,
    ) -> Result<Destination, Reason> {
        let named = name.and_then(|name| self.externals.named(asker.namespace, &names::canonical(name)));
        let named = named.filter(|service| asker.may_know(service));
        if let Some(service) = named.filter(|service| names_at(service, dialled.port()))
            && let Some(destination) = self.external(asker, dialled, service, lacks)
        {
            return Ok(destination);
        }
        let Some(target) = entry_of(&by_address) else {
            return by_address;
        };
        let strict = self.mesh().strict_hosts && name.is_some();
        let single = || {
            target
                .service
                .vips
                .iter()
                .any(|own| canonical_ip(*own) == dialled.ip())
        };
        let compared = match target.protocol {
            Protocol::Tls | Protocol::Https => strict || !single(),
            Protocol::Auto => strict,
            _ => false,
        };
        if compared {
            self.beside_entries(asker, dialled, lacks)
        } else {
            by_address
        }
    }

    /// Where bytes go that name nothing, to an address that nothing lists: an entry that lists none takes them (EG-07). Istio
    /// asks no more; under `strict_hosts` the proxy asks whether one of its hosts is there.
    pub(super) fn or_unlisted(
        &self,
        asker: Asker<'_>,
        dialled: SocketAddr,
        by_address: Result<Destination, Reason>,
        lacks: &Lacks,
    ) -> Result<Destination, Reason> {
        let strict = self.mesh().strict_hosts;
        let known = match &by_address {
            Err(Reason::EgressUnknown) => false,
            Err(_) | Ok(Destination::Service(_)) => true,
            Ok(Destination::External(_)) => strict && asker.egress == Egress::AllowAny,
            Ok(Destination::Direct { service, .. }) => {
                let headless = |target: &ServiceTarget| target.service.headless;
                strict || leads_out(&by_address) || service.as_ref().is_some_and(headless)
            }
        };
        if known || is_local(dialled.ip(), strict) || self.vip(dialled.ip(), 0).is_some() {
            return by_address;
        }
        match self.unlisted(asker, dialled.port()).into_iter().next() {
            Some(target) => {
                let pod = self.pod_at(dialled.ip(), lacks).cloned();
                Ok(destination(target, dialled, pod))
            }
            None => by_address,
        }
    }
}

fn names_at(service: &Service, port: u16) -> bool {
    service
        .ports
        .iter()
        .any(|p| p.port == port && may_name(p.protocol))
}
