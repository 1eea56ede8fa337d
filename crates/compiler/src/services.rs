//! Services: cluster addresses, ports, and the endpoints behind them.

mod endpoints;
mod entries;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::{Problem, ServiceType, Severity};
use model::{Host, Protocol, ServiceName, canonical_ip};
use snapshot::{Resolution, Service, ServicePort};

use crate::PlainService;
use crate::addresses::{self, Addresses};
use crate::authn::Effective;
use crate::destination::Rules;
use crate::pods::PodFacts;
use crate::report::{Report, code};
use crate::view::{Of, View};

type Written<'a> = Of<'a, api::Service>;

/// A Service port that ends at a pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) service: Written<'a>,
    /// Which of the Service's ports, as written.
    pub(crate) index: usize,
    /// The workload port.
    pub(crate) target: u16,
    pub(crate) protocol: Protocol,
}

/// All Services, and which of them end at each pod.
#[derive(Debug)]
pub(crate) struct Services<'a> {
    /// By name.
    pub(crate) list: Vec<Arc<Service>>,
    /// For each pod, the oldest Service first.
    pub(crate) members: Vec<Vec<Member<'a>>>,
}

/// What every Service is compiled with.
#[derive(Debug)]
struct Ground<'x, 'a> {
    view: &'x View<'a>,
    pods: &'x [PodFacts<'a>],
    modes: &'x [Effective],
    rules: &'x Rules<'a>,
    by_namespace: HashMap<&'a str, Vec<usize>>,
    by_address: HashMap<IpAddr, usize>,
}

pub(crate) fn all<'a>(
    view: &View<'a>,
    pods: &[PodFacts<'a>],
    modes: &[Effective],
    rules: &Rules<'a>,
    report: &mut Report,
) -> Services<'a> {
    let mut ground = Ground {
        view,
        pods,
        modes,
        rules,
        by_namespace: HashMap::new(),
        by_address: HashMap::new(),
    };
    for (index, pod) in pods.iter().enumerate().filter(|(_, pod)| pod.live) {
        ground
            .by_namespace
            .entry(pod.namespace())
            .or_default()
            .push(index);
        for address in &pod.addresses {
            // An address that two pods claim is the mesh pod's, as it is in the proxy.
            let held = ground.by_address.entry(*address).or_insert(index);
            if pod.identity.is_some() && pods.get(*held).is_some_and(|held| held.identity.is_none()) {
                *held = index;
            }
        }
    }
    let vips = cluster_addresses(view, report);
    let mut services = Services {
        list: Vec::new(),
        members: pods.iter().map(|_| Vec::new()).collect(),
    };
    for of in &view.services {
        if let Some(service) = ground.service(*of, &vips, &mut services.members, report) {
            services.list.push(Arc::new(service));
        }
    }
    let entries = ground.entries(&vips, report);
    services.list.extend(entries.into_iter().map(Arc::new));
    services.list.sort_by(|a, b| a.name.cmp(&b.name));
    services
}

/// The DNAT table for pods outside the mesh.
pub(crate) fn plain(services: &[Arc<Service>]) -> Vec<PlainService> {
    let mut out = Vec::new();
    // What is reached at the address that was dialled needs no other, and what is known by name is found by proxies.
    let direct = |service: &&Arc<Service>| {
        let external = service.external.as_ref();
        external.is_some_and(|external| external.resolution != Resolution::Static)
    };
    for service in services.iter().filter(|service| !direct(service)) {
        for (vip, port) in service
            .vips
            .iter()
            .flat_map(|vip| service.ports.iter().map(move |port| (*vip, port)))
        {
            let serving = service
                .endpoints
                .iter()
                .filter(|e| e.ready)
                .filter_map(|endpoint| {
                    let address = endpoint.addresses.iter().find(|a| a.is_ipv6() == vip.is_ipv6())?;
                    Some(SocketAddr::new(*address, *endpoint.ports.get(&port.port)?))
                });
            out.push(PlainService {
                service: service.name.clone(),
                vip,
                port: port.port,
                udp: port.protocol == Protocol::Udp,
                endpoints: serving.collect(),
            });
        }
    }
    out
}

fn name_of(of: Written<'_>) -> ServiceName {
    ServiceName::new(of.namespace(), of.name())
}

/// The cluster addresses of all Services that have some: as given, and completed to both families.
fn cluster_addresses(view: &View<'_>, report: &mut Report) -> Addresses {
    let mut owners: HashMap<IpAddr, Written<'_>> = HashMap::new();
    let mut given = Addresses::new();
    for of in &view.services {
        if of.body.is_headless() || of.body.service_type == ServiceType::ExternalName {
            continue;
        }
        let texts = std::iter::once(&of.body.cluster_ip).chain(&of.body.cluster_ips);
        let mut own: Vec<IpAddr> = Vec::new();
        for ip in texts.filter_map(|text| text.parse().ok()).map(canonical_ip) {
            if !view.options.service_ranges.iter().any(|range| range.contains(ip)) {
                let message = format!(
                    "the cluster address {ip} lies outside of the mesh's Service ranges; another is chosen"
                );
                refuse_address(*of, message, report);
                continue;
            }
            let owner = *owners.entry(ip).or_insert(*of);
            if !owner.is(of) {
                let message = format!(
                    "the cluster address {ip} belongs to `{}`, which is older",
                    name_of(owner)
                );
                refuse_address(*of, message, report);
            } else if !own.iter().any(|held| held.is_ipv6() == ip.is_ipv6()) {
                own.push(ip);
            }
        }
        given.insert(name_of(*of), own);
    }
    given.extend(entries::to_allocate(view).map(|name| (name, Vec::new())));
    let complete = addresses::complete(given, &view.options.dns_vips);
    for of in &view.services {
        if complete.get(&name_of(*of)).is_some_and(|own| own.len() < 2) {
            let message = "no cluster address is left for this Service";
            report.tell(
                of.object,
                "metadata.name",
                Problem::new(Severity::Error, code::CLUSTER_ADDRESS, message),
            );
        }
    }
    complete
}

fn refuse_address(of: Written<'_>, message: String, report: &mut Report) {
    let problem = Problem::new(Severity::Error, code::CLUSTER_ADDRESS, message);
    report.tell_once(
        of.object,
        "spec.clusterIP",
        problem.remedy("leave `clusterIP` out: an address is chosen"),
    );
}

impl<'a> Ground<'_, 'a> {
    fn service(
        &self,
        of: Written<'a>,
        vips: &Addresses,
        members: &mut [Vec<Member<'a>>],
        report: &mut Report,
    ) -> Option<Service> {
        let name = name_of(of);
        let host: Host = format!(
            "{}.{}.svc.{}",
            of.name(),
            of.namespace(),
            self.view.options.cluster_domain
        )
        .parse()
        .ok()?;
        let external_name = (of.body.service_type == ServiceType::ExternalName)
            .then(|| self.external_name(of, report))
            .flatten();
        if of.body.service_type == ServiceType::ExternalName && external_name.is_none() {
            return None;
        }
        self.rules.applies(&name, &host, report);
        let endpoints = if external_name.is_none() {
            self.endpoints(of, members, report)
        } else {
            Vec::new()
        };
        let mut identities: Vec<_> = endpoints.iter().filter_map(|e| e.identity.clone()).collect();
        identities.sort();
        identities.dedup();
        Some(Service {
            vips: vips.get(&name).cloned().unwrap_or_default(),
            headless: of.body.is_headless(),
            ports: self.ports(of, &name, &host),
            external_name,
            endpoints,
            identities,
            external: None,
            host,
            name,
        })
    }

    fn external_name(&self, of: Written<'_>, report: &mut Report) -> Option<Host> {
        let parsed = of.body.external_name.parse();
        parsed
            .map_err(|error: model::HostError| {
                let problem = Problem::new(Severity::Error, code::NOT_FOUND, error.to_string());
                report.tell(of.object, "spec.externalName", problem.remedy("write a DNS name"));
            })
            .ok()
    }

    /// UDP last: a number that both transports use is looked up for TCP.
    fn ports(&self, of: Written<'_>, name: &ServiceName, host: &Host) -> Vec<ServicePort> {
        let mut ports: Vec<_> = of
            .body
            .ports
            .iter()
            .map(|port| {
                let tls = self.rules.for_port(name, host, port.port);
                ServicePort {
                    name: port.name.clone(),
                    port: port.port,
                    protocol: protocol(port),
                    tls: tls.tls,
                    tls_by_namespace: tls.by_namespace,
                }
            })
            .collect();
        ports.sort_by_key(|port| port.protocol == Protocol::Udp);
        ports
    }
}

/// What a Service port says it speaks (semantics 9).
fn protocol(port: &api::ServicePort) -> Protocol {
    let name = Some(port.name.as_str()).filter(|name| !name.is_empty());
    Protocol::select(port.is_udp(), port.app_protocol.as_deref(), name, port.port)
}

/// Service port -> workload port, by the ports as written; UDP first, so that TCP stays where both use a number.
fn port_map(
    ports: &[api::ServicePort],
    target: impl Fn(&api::ServicePort) -> Option<u16>,
) -> BTreeMap<u16, u16> {
    let (udp, tcp): (Vec<_>, Vec<_>) = ports.iter().partition(|port| port.is_udp());
    let all = udp.into_iter().chain(tcp);
    all.filter_map(|port| Some((port.port, target(port)?))).collect()
}
