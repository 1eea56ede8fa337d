//! What ServiceEntries leave to names: where it is, is asked of DNS by the proxy, and never of the client (semantics 7.4, R37).
//!
//! An entry whose endpoints are names is filled with their addresses. One that lists no address leads to where the client dialled,
//! but only if the host that it claims is there: DNS, SNI and Host are one claim, and none of them is believed. Under
//! Istio's defaults it is, as upstream.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::{Reason, WorkloadUid, may_dial};
use snapshot::{Claim, Destination, Endpoint, Index, Lacks, Resolution, Service, ServiceTarget, Workload};

use super::{Client, MAX_ROUNDS, Outbound};
use crate::shared::Shared;

/// Hosts of entries that are asked about for one connection that names none.
const MAX_HOSTS: usize = 16;

/// What a destination needs before it can be gone to.
fn asks(index: &Index, destination: &Destination) -> bool {
    match destination {
        Destination::Service(target) => {
            let external = target.service.external.as_ref();
            external.is_some_and(|external| external.resolution.asks_names())
        }
        Destination::Direct { .. } => index.mesh().strict_hosts && destination.unproven().is_some(),
        Destination::External(_) => false,
    }
}

impl Outbound {
    /// The destination with what names stand for.
    ///
    /// # Errors
    /// `HOST_MISMATCH` or `EGRESS_UNKNOWN` where a host is not where the client says; what cannot be known, as [`Outbound::look_up`].
    pub(super) async fn by_names(
        &self,
        client: &Client,
        found: (Arc<Index>, Destination),
        claim: Claim<'_>,
    ) -> Result<(Arc<Index>, Destination), Reason> {
        let (index, destination) = found;
        if !asks(&index, &destination) {
            return Ok((index, destination));
        }
        match destination {
            Destination::Service(target) => self.filled(client, index, target, claim).await,
            Destination::Direct {
                address,
                workload,
                service: Some(target),
            } => {
                let service = self.proven(client, &index, target, claim, address).await?;
                let destination = Destination::Direct {
                    address,
                    workload,
                    service: Some(service),
                };
                Ok((index, destination))
            }
            other => Ok((index, other)),
        }
    }

    /// The entry by which an address may be gone to: one of its hosts is there.
    async fn proven(
        &self,
        client: &Client,
        index: &Index,
        target: ServiceTarget,
        claim: Claim<'_>,
        address: SocketAddr,
    ) -> Result<ServiceTarget, Reason> {
        let (names, servers) = (&self.shared.names, &self.shared.config.dns_upstreams);
        let ip = address.ip();
        may_dial(ip, &[]).map_err(|_| Reason::EgressUnknown)?;
        if let Some(name) = claim.name() {
            let there = names.is_at(servers, &name, ip).await;
            return there.then_some(target).ok_or(Reason::HostMismatch);
        }
        let asker = index.asker(&client.local.namespace, Some(&client.local.uid));
        for target in index.unlisted(asker, address.port()).into_iter().take(MAX_HOSTS) {
            let host = target.service.host.as_str();
            let there = match host.strip_prefix('*') {
                Some(suffix) => names.some_at(|name| name.len() > suffix.len() && name.ends_with(suffix), ip),
                None => names.is_at(servers, host, ip).await,
            };
            if there {
                return Ok(target);
            }
        }
        Err(Reason::EgressUnknown)
    }

    /// The entry with the addresses of its names as endpoints.
    async fn filled(
        &self,
        client: &Client,
        mut index: Arc<Index>,
        target: ServiceTarget,
        claim: Claim<'_>,
    ) -> Result<(Arc<Index>, Destination), Reason> {
        let named = named(&target, claim)?;
        let mut found: Vec<Found> = Vec::new();
        for _ in 0..MAX_ROUNDS {
            let lacks = Lacks::default();
            let namespace = &client.local.namespace;
            let of_mesh = |name: &Named| index.service_by_host(&name.0, namespace, &lacks);
            let inside: Vec<_> = named.iter().map(of_mesh).collect();
            let mut lacked = lacks.into_names();
            if lacked.is_empty() {
                if found.is_empty() {
                    found = self.find(&named, &inside).await;
                }
                let lacks = Lacks::default();
                let filled = fill(
                    &index,
                    client.dialled.is_ipv6(),
                    (&target, &named),
                    (&inside, &found),
                    &lacks,
                );
                lacked = lacks.into_names();
                if lacked.is_empty() {
                    let target = ServiceTarget {
                        service: Arc::new(filled),
                        ..target
                    };
                    return Ok((index, Destination::Service(target)));
                }
            }
            let Shared { store, demand, .. } = self.shared.as_ref();
            demand.learn(store, client.local.mark, &lacked).await?;
            index = store.current().ok_or(Reason::NotReady)?;
        }
        Err(Reason::LimitReached)
    }

    /// The addresses of names, in their order; none of those that are the mesh's own.
    async fn find(&self, named: &[Named], inside: &[Option<Arc<Service>>]) -> Vec<Found> {
        let mut found = Vec::new();
        for (name, inside) in named.iter().zip(inside) {
            let servers = &self.shared.config.dns_upstreams;
            found.push(match inside {
                Some(service) if service.external.is_none() => Found::default(),
                _ => self.shared.names.addresses(servers, &name.0).await,
            });
        }
        found
    }
}

/// A name, and the ports there by Service port.
type Named = (String, BTreeMap<u16, u16>);

/// The addresses of a name.
type Found = Arc<[IpAddr]>;

/// Which names an entry leads to.
fn named(target: &ServiceTarget, claim: Claim<'_>) -> Result<Vec<Named>, Reason> {
    let Some(external) = &target.service.external else {
        return Ok(Vec::new());
    };
    if external.resolution == Resolution::DynamicDns {
        let name = claim.name().ok_or(Reason::EgressUnknown)?;
        let ports = target.service.ports.iter().map(|port| (port.port, port.port));
        return Ok(vec![(name.into_owned(), ports.collect())]);
    }
    let each = external.names.iter();
    Ok(each
        .map(|named| (named.host.as_str().to_owned(), named.ports.clone()))
        .collect())
}

/// The entry's Service with what its names were found to be.
fn fill(
    index: &Index,
    v6: bool,
    (target, named): (&ServiceTarget, &[Named]),
    (inside, found): (&[Option<Arc<Service>>], &[Found]),
    lacks: &Lacks,
) -> Service {
    let mut service = Service::clone(&target.service);
    let external = target.service.external.as_ref();
    let one = external.is_some_and(|external| external.resolution == Resolution::DnsRoundRobin);
    for (((_, ports), inside), found) in named.iter().zip(inside).zip(found) {
        if let Some(inside) = inside.as_ref().filter(|inside| inside.external.is_none()) {
            service.endpoints.extend(of_service(inside, ports));
            continue;
        }
        let usable = |address: &IpAddr| may_go(index, *address);
        let mut found: Vec<_> = found.iter().copied().filter(usable).collect();
        if found.iter().any(|address| address.is_ipv6() == v6) {
            found.retain(|address| address.is_ipv6() == v6);
        }
        for address in found.into_iter().take(if one { 1 } else { usize::MAX }) {
            let pod = index.pod_at(address, lacks).map(AsRef::as_ref);
            let endpoint = endpoint(&target.service, address, ports.clone(), pod);
            service.endpoints.push(endpoint);
        }
    }
    let known = service.endpoints.iter().filter_map(|e| e.identity.clone());
    service.identities = known.collect();
    service.identities.sort();
    service.identities.dedup();
    service
}

/// Whether an address is gone to because DNS says so. Under Istio's defaults link-local ones are, as upstream.
fn may_go(index: &Index, address: IpAddr) -> bool {
    let local = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    // A cluster address is its Service's, which has a name of its own.
    !local
        && index.vip(address, 0).is_none()
        && (!index.mesh().strict_hosts || may_dial(address, &[]).is_ok())
}

/// Endpoints of a Service of the mesh, by the ports that an entry gives.
fn of_service(inside: &Service, ports: &BTreeMap<u16, u16>) -> Vec<Endpoint> {
    let each = inside.endpoints.iter().map(|endpoint| Endpoint {
        ports: ports
            .iter()
            .filter_map(|(own, there)| Some((*own, *endpoint.ports.get(there)?)))
            .collect(),
        ..endpoint.clone()
    });
    each.collect()
}

/// An address of a pod is that pod, with its identity; any other is a plain endpoint.
fn endpoint(
    service: &Service,
    address: IpAddr,
    ports: BTreeMap<u16, u16>,
    pod: Option<&Workload>,
) -> Endpoint {
    Endpoint {
        uid: match pod {
            Some(pod) => pod.uid.clone(),
            None => WorkloadUid::new(&format!("{}/{address}", service.name)),
        },
        workload: pod.map(|pod| pod.workload.clone()),
        addresses: vec![address],
        ports,
        ready: pod.is_none_or(|pod| pod.ready),
        node: pod.map(|pod| pod.node.clone()),
        identity: pod.and_then(|pod| pod.identity.clone()),
        plaintext_ports: pod.map(|pod| pod.plaintext_ports.clone()).unwrap_or_default(),
        mtls_ports: pod.map(|pod| pod.mtls_ports.clone()).unwrap_or_default(),
        hbone: pod.is_some_and(|pod| pod.hbone),
        hostname: None,
    }
}
