//! Where a connection or a request of a workload goes, from the address it dialled and the Host it names.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::{Protocol, Reason, canonical_ip, split_authority};

use super::asker::{Asker, Claim};
use super::names::Named;
use super::{Index, Lacks, external};
use crate::{ClientTls, Egress, Endpoint, Service, ServicePort, Workload};

/// One port of a Service, as a client in one namespace meets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceTarget {
    /// The Service.
    pub service: Arc<Service>,
    /// The Service port.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// What a DestinationRule demands of this client; `None` leaves it to auto-mTLS.
    pub tls: Option<ClientTls>,
}

/// Where a connection goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// To one of the Service's endpoints.
    Service(ServiceTarget),
    /// To the very address that was dialled, which the mesh knows. `workload` is the pod that has it; it is
    /// reached with identity wherever it takes mutual TLS, however it was addressed (O-01). A pod outside the mesh is
    /// such a destination only where it serves a headless Service, or all the world is (ALLOW_ANY).
    Direct {
        /// The address that was dialled.
        address: SocketAddr,
        /// The pod; `None` for an endpoint that is no pod.
        workload: Option<Arc<Workload>>,
        /// The Service port that the address answers for, where there is one.
        service: Option<ServiceTarget>,
    },
    /// Out of the registry, to the address that was dialled, as it comes.
    External(SocketAddr),
}

impl ServiceTarget {
    /// Endpoints that take new connections, each with its workload port.
    pub fn candidates(&self) -> Vec<(&Endpoint, u16)> {
        let serves = |e: &'_ Endpoint| e.ports.get(&self.port).copied();
        let ready = self.service.endpoints.iter().filter(|e| e.ready);
        ready.filter_map(|e| serves(e).map(|port| (e, port))).collect()
    }

    pub(super) fn new(service: &Arc<Service>, port: &ServicePort, namespace: &str) -> Self {
        Self {
            service: Arc::clone(service),
            port: port.port,
            protocol: port.protocol,
            tls: port.tls_for(namespace),
        }
    }
}

impl Index {
    /// Decides where a workload in `namespace` that dialled `dialled` goes. `authority` is the Host header or
    /// `:authority` of a request; a connection is decided without it first, and each of its requests with it. Of TLS that is
    /// carried as it is the name that it asks for counts where a ServiceEntry leads outside ([`Claim::Sni`]).
    ///
    /// Under `strict_hosts` the dialled address and the Host must belong to one Service, and a Host that names
    /// nothing known is traffic of what was dialled. Without, the Host alone chooses on ports that are declared
    /// HTTP, as upstream (O-01, O-02).
    ///
    /// # Errors
    /// The reason to refuse: `EGRESS_UNKNOWN`, `HOST_MISMATCH`, or `NO_ROUTE` for a cluster address with a port
    /// that its Service does not have.
    pub fn outbound(
        &self,
        namespace: &str,
        dialled: SocketAddr,
        authority: Option<&str>,
    ) -> Result<Destination, Reason> {
        let lacks = Lacks::default();
        let asker = self.asker(namespace, None);
        let found = self.find_outbound(asker, dialled, authority.into(), &lacks);
        // What is decided without all that it depends on could leave the mesh in plaintext.
        if lacks.is_empty() {
            found
        } else {
            Err(Reason::NotReady)
        }
    }

    /// [`Self::outbound`] of whoever asks, in an index that may lack something; then what is returned is not to be used.
    ///
    /// # Errors
    /// As [`Self::outbound`].
    pub fn find_outbound(
        &self,
        asker: Asker<'_>,
        dialled: SocketAddr,
        claim: Claim<'_>,
        lacks: &Lacks,
    ) -> Result<Destination, Reason> {
        let dialled = SocketAddr::new(canonical_ip(dialled.ip()), dialled.port());
        let by_address = self.by_address(asker, dialled, lacks);
        match claim {
            Claim::Nothing => self.or_unlisted(asker, dialled, by_address, lacks),
            Claim::Sni(name) => self.by_sni(asker, dialled, (name, by_address), lacks),
            Claim::Host(authority) => self.by_authority(asker, dialled, (authority, by_address), lacks),
        }
    }

    fn by_authority(
        &self,
        asker: Asker<'_>,
        dialled: SocketAddr,
        (authority, by_address): (&str, Result<Destination, Reason>),
        lacks: &Lacks,
    ) -> Result<Destination, Reason> {
        let named = match split_authority(authority) {
            Some((host, _)) => self.named(host, asker.namespace, lacks),
            None if authority.is_empty() || !self.mesh().strict_hosts => Named::Unknown,
            None => return Err(Reason::HostMismatch),
        };
        let named = match named {
            Named::Service(service) if !asker.may_know(&service) => Named::Unknown,
            Named::Service(service) => match self.external(asker, dialled, &service, lacks) {
                // Several entries may list one address: the host says which.
                Some(destination) => return Ok(destination),
                None => Named::Service(service),
            },
            other => other,
        };
        // A Host that is the very address that was dialled says nothing more.
        let same = matches!(&named, Named::Addresses(list) if list.contains(&dialled.ip()))
            || split_authority(authority)
                .is_some_and(|(host, _)| host.parse().map(canonical_ip) == Ok(dialled.ip()));
        if by_address.is_err() && same {
            by_address
        } else if self.mesh().strict_hosts {
            let foreign = named == Named::Unknown && !same && !authority.is_empty();
            if foreign && asker.egress == Egress::RegistryOnly && external::leads_out(&by_address) {
                // Another's name at a server that is registered: it may be one of many that answer there (7.2).
                return Err(Reason::EgressUnknown);
            }
            self.of_one_service(asker.namespace, by_address, &named)
        } else {
            match named {
                Named::Service(service) => by_host(asker.namespace, dialled, &service).map_or(by_address, Ok),
                Named::Addresses(_) => by_address,
                Named::Unknown => of_unknown_host(asker, by_address),
            }
        }
    }

    fn by_address(
        &self,
        asker: Asker<'_>,
        dialled: SocketAddr,
        lacks: &Lacks,
    ) -> Result<Destination, Reason> {
        if let Some((service, port)) = self.vip(dialled.ip(), dialled.port()) {
            if !asker.may_know(service) {
                return Err(Reason::EgressUnknown);
            }
            return port
                .map(|port| Destination::Service(ServiceTarget::new(service, port, asker.namespace)))
                .ok_or(Reason::NoRoute);
        }
        // No entry makes the node's own addresses anybody's.
        let local = is_local(dialled.ip(), self.mesh().strict_hosts);
        let listed = self.externals.dialled(asker, dialled);
        if let Some(target) = listed.filter(|_| !local) {
            let workload = self.pod_at(dialled.ip(), lacks).cloned();
            return Ok(external::destination(target, dialled, workload));
        }
        self.beside_entries(asker, dialled, lacks)
    }

    /// Where an address leads that no entry makes a Service's.
    pub(super) fn beside_entries(
        &self,
        asker: Asker<'_>,
        dialled: SocketAddr,
        lacks: &Lacks,
    ) -> Result<Destination, Reason> {
        let (mesh, egress) = (self.mesh(), asker.egress);
        let workload = self.pod_at(dialled.ip(), lacks).cloned();
        let service = self.serving(asker.namespace, dialled);
        // A plain pod's address is in no registry, Service of its own or not, unless that is headless (semantics 7.2).
        // One of the mesh is reached with its identity (O-01), but where Istio's defaults are to be as they are.
        let is_known = |w: &Arc<Workload>| {
            w.identity.is_some()
                && mesh.strict_hosts
                && asker
                    .scope
                    .is_none_or(|scope| scope.knows_all_of(w.pod.namespace()))
        };
        let registered = workload.as_ref().is_some_and(is_known)
            || service
                .as_ref()
                .is_some_and(|s| s.service.headless && asker.may_know(&s.service));
        if registered || (workload.is_some() && egress == Egress::AllowAny) {
            return Ok(Destination::Direct {
                address: dialled,
                workload,
                service,
            });
        }
        match egress {
            Egress::AllowAny if is_local(dialled.ip(), mesh.strict_hosts) => Err(Reason::EgressUnknown),
            Egress::AllowAny => Ok(Destination::External(dialled)),
            Egress::RegistryOnly => Err(Reason::EgressUnknown),
        }
    }

    /// The Service port that a dialled endpoint answers for: a headless Service's first, for its clients dial so
    /// by design; else the first by name, and then without its DestinationRule, which speaks of the Service's host.
    fn serving(&self, namespace: &str, dialled: SocketAddr) -> Option<ServiceTarget> {
        let serving = self.served_by.get(&dialled.ip())?;
        let target = |service: &Arc<Service>| {
            let port = port_of_endpoint(service, dialled)?;
            Some(ServiceTarget::new(service, port, namespace))
        };
        let headless = serving.iter().filter(|s| s.headless).find_map(target);
        headless.or_else(|| {
            let found = serving.iter().find_map(target)?;
            Some(ServiceTarget { tls: None, ..found })
        })
    }

    /// O-02: the dialled address and the Host must belong to one Service.
    fn of_one_service(
        &self,
        namespace: &str,
        by_address: Result<Destination, Reason>,
        named: &Named,
    ) -> Result<Destination, Reason> {
        if *named == Named::Unknown || by_address == Err(Reason::NoRoute) {
            return by_address;
        }
        let destination = by_address.map_err(|_| Reason::HostMismatch)?;
        let agree = match (&destination, named) {
            (Destination::Service(target), Named::Service(service)) => target.service.name == service.name,
            (Destination::Service(target), Named::Addresses(list)) => {
                list.iter().any(|address| belongs(&target.service, *address))
            }
            (Destination::Direct { address, .. }, Named::Service(service)) => belongs(service, address.ip()),
            (Destination::Direct { address, .. }, Named::Addresses(list)) => self.one_pod(address.ip(), list),
            (Destination::External(_), _) | (_, Named::Unknown) => false,
        };
        match (agree, destination, named) {
            (false, ..) => Err(Reason::HostMismatch),
            (
                true,
                Destination::Direct {
                    address,
                    workload,
                    service,
                },
                Named::Service(named),
            ) => {
                let own =
                    port_of_endpoint(named, address).map(|port| ServiceTarget::new(named, port, namespace));
                Ok(Destination::Direct {
                    address,
                    workload,
                    service: own.or(service),
                })
            }
            (true, destination, _) => Ok(destination),
        }
    }

    /// Whether an address and one of a list are of one pod, in either family.
    fn one_pod(&self, address: IpAddr, list: &[IpAddr]) -> bool {
        let own = self
            .pod(address)
            .map(|w| w.addresses.as_slice())
            .unwrap_or_default();
        list.iter().any(|a| *a == address || own.contains(a))
    }
}

/// Addresses that would mean the node itself if its proxy dialled them. Link-local ones are kept by Istio, whose
/// workloads reach metadata services so.
pub(super) fn is_local(address: IpAddr, strict: bool) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    (strict && link_local) || address.is_loopback() || address.is_unspecified() || address.is_multicast()
}

/// As upstream's listeners for HTTP: under REGISTRY_ONLY a Host that no virtual host has is refused (semantics 7.2).
fn of_unknown_host(asker: Asker<'_>, by_address: Result<Destination, Reason>) -> Result<Destination, Reason> {
    let protocol = match &by_address {
        Ok(Destination::Service(target)) => Some(target.protocol),
        Ok(Destination::Direct { service, .. }) => service.as_ref().map(|target| target.protocol),
        _ => None,
    };
    let routed = protocol.is_some_and(Protocol::is_http);
    match asker.egress {
        Egress::RegistryOnly if routed => Err(Reason::EgressUnknown),
        _ => by_address,
    }
}

/// Where Istio's wildcard HTTP listeners send a request, by its Host alone; headless Services keep the address.
fn by_host(namespace: &str, dialled: SocketAddr, service: &Arc<Service>) -> Option<Destination> {
    let port = service
        .ports
        .iter()
        .find(|p| p.port == dialled.port() && p.protocol.is_http())?;
    // What leads on to the address that was dialled leads to those that it lists (EG-17).
    let direct = service
        .external
        .as_ref()
        .is_some_and(|e| e.resolution == crate::Resolution::None);
    (!service.headless && !direct).then(|| Destination::Service(ServiceTarget::new(service, port, namespace)))
}

/// The port of the Service that ends at this endpoint address and workload port.
fn port_of_endpoint(service: &Service, address: SocketAddr) -> Option<&ServicePort> {
    let at = |e: &&Endpoint| e.addresses.iter().any(|a| canonical_ip(*a) == address.ip());
    let mut endpoints = service.endpoints.iter().filter(at);
    endpoints.find_map(|endpoint| {
        let ends_here = |p: &&ServicePort| endpoint.ports.get(&p.port) == Some(&address.port());
        service.ports.iter().find(ends_here)
    })
}

/// Whether an address is one of the Service's, cluster address or endpoint.
fn belongs(service: &Service, address: IpAddr) -> bool {
    let mut endpoints = service.endpoints.iter().flat_map(|e| &e.addresses);
    service.vips.iter().any(|a| canonical_ip(*a) == address) || endpoints.any(|a| canonical_ip(*a) == address)
}
