//! Services: cluster addresses, ports, and the endpoints behind them.

mod endpoints;
mod entries;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::{Kind, Object, Problem, ServiceType, Severity};
use model::{Host, Protocol, ServiceName, WorkloadUid, canonical_ip};
use snapshot::{Resolution, Service, ServicePort};

use crate::PlainService;
use crate::addresses::{Allotment, Claim, Claims};
use crate::authn::Effective;
use crate::destination::Ruling;
use crate::pods::PodFacts;
use crate::report::{Report, code};
use crate::view::{Of, View};

type Written<'a> = Of<'a, api::Service>;

/// A Service port that ends at a pod.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// The Service.
    pub(crate) service: Arc<Object>,
    /// Which of the Service's ports, as written.
    pub(crate) index: usize,
    /// The workload port.
    pub(crate) target: u16,
    pub(crate) protocol: Protocol,
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.service, &other.service)
            && (self.index, self.target, self.protocol) == (other.index, other.target, other.protocol)
    }
}

/// The pods of a namespace, what they accept, and where they are.
#[derive(Debug, Default)]
pub(crate) struct Population {
    pub(crate) pods: Vec<PodFacts>,
    /// Of each.
    pub(crate) modes: Vec<Effective>,
    /// Those that live. An address that two pods claim is the mesh pod's, as it is in the proxy.
    at: HashMap<IpAddr, usize>,
}

impl Population {
    pub(crate) fn new(pods: Vec<PodFacts>, modes: Vec<Effective>) -> Self {
        let mut at: HashMap<IpAddr, usize> = HashMap::new();
        for (index, pod) in pods.iter().enumerate().filter(|(_, pod)| pod.live) {
            for address in &pod.addresses {
                let held = at.entry(*address).or_insert(index);
                if pod.identity.is_some() && pods.get(*held).is_some_and(|held| held.identity.is_none()) {
                    *held = index;
                }
            }
        }
        Self { pods, modes, at }
    }

    /// The place of the pod at an address.
    pub(crate) fn at(&self, address: IpAddr) -> Option<usize> {
        self.at.get(&address).copied()
    }
}

/// A pod, and where it was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) population: &'a Population,
    pub(crate) index: usize,
}

impl<'a> Found<'a> {
    pub(crate) fn pod(&self) -> Option<&'a PodFacts> {
        self.population.pods.get(self.index)
    }
}

/// Where Services end.
#[derive(Debug, Default)]
pub(crate) struct Joins {
    /// For each pod of the namespace, the oldest Service first.
    pub(crate) own: Vec<Vec<Member>>,
    /// At pods of other namespaces, by namespace and uid; the oldest Service first.
    pub(crate) foreign: BTreeMap<Arc<str>, BTreeMap<WorkloadUid, Vec<Member>>>,
    /// Addresses that somebody lists.
    pub(crate) listed: BTreeSet<IpAddr>,
}

/// All Services of a namespace, and where they end.
#[derive(Debug)]
pub(crate) struct Services {
    /// By name.
    pub(crate) list: Vec<Arc<Service>>,
    pub(crate) joins: Joins,
}

/// What every Service is compiled with.
pub(crate) struct Ground<'x, 'a> {
    pub(crate) view: &'x View<'a>,
    pub(crate) own: &'x Population,
    pub(crate) ruling: Ruling<'x>,
    pub(crate) allotment: &'x Allotment,
    /// Who is at an address, in all namespaces.
    pub(crate) at: &'x dyn Fn(IpAddr) -> Option<Found<'x>>,
}

impl Ground<'_, '_> {
    pub(crate) fn all(&self, report: &mut Report) -> Services {
        let mut joins = Joins {
            own: self.own.pods.iter().map(|_| Vec::new()).collect(),
            ..Joins::default()
        };
        let mut list = Vec::new();
        for of in &self.view.services {
            self.tell_address(*of, report);
            if let Some(service) = self.service(*of, &mut joins, report) {
                list.push(Arc::new(service));
            }
        }
        let entries = self.entries(&mut joins.listed, report);
        list.extend(entries.into_iter().map(Arc::new));
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Services { list, joins }
    }
}

/// The hosts that a namespace declares, whatever becomes of them.
pub(crate) fn declared<'a>(
    objects: impl Iterator<Item = &'a Arc<Object>>,
    cluster_domain: &str,
) -> BTreeSet<Host> {
    let mut hosts = BTreeSet::new();
    for object in objects {
        match &object.kind {
            Kind::Service(_) => hosts.extend(host_of(object, cluster_domain)),
            Kind::ServiceEntry(body) => hosts.extend(body.hosts.iter().filter_map(|host| host.parse().ok())),
            _ => {}
        }
    }
    hosts
}

fn host_of(object: &Object, cluster_domain: &str) -> Option<Host> {
    let text = format!(
        "{}.{}.svc.{cluster_domain}",
        object.meta.name, object.meta.namespace
    );
    text.parse().ok()
}

/// Who of a namespace wants cluster addresses.
pub(crate) fn claims<'a>(objects: impl Iterator<Item = &'a Arc<Object>>, ranges: &[model::Cidr]) -> Claims {
    let mut claims = Claims::new();
    for object in objects {
        match &object.kind {
            Kind::Service(body) if !body.is_headless() && body.service_type != ServiceType::ExternalName => {
                let written = written_addresses(body);
                let wanted = written.filter(|ip| ranges.iter().any(|range| range.contains(*ip)));
                let claim = Claim {
                    object: Arc::clone(object),
                    wanted: wanted.collect(),
                };
                claims.insert(name_of(object), claim);
            }
            Kind::ServiceEntry(body) => {
                for name in entries::to_allocate(Of { object, body }) {
                    let claim = Claim {
                        object: Arc::clone(object),
                        wanted: Vec::new(),
                    };
                    claims.entry(name).or_insert(claim);
                }
            }
            _ => {}
        }
    }
    claims
}

fn written_addresses(body: &api::Service) -> impl Iterator<Item = IpAddr> {
    let texts = std::iter::once(&body.cluster_ip).chain(&body.cluster_ips);
    texts.filter_map(|text| text.parse().ok()).map(canonical_ip)
}

/// The DNAT table for pods outside the mesh.
pub(crate) fn plain(services: &[&Arc<Service>]) -> Vec<PlainService> {
    let mut out = Vec::new();
    // What is reached at the address that was dialled needs no other, and what is known by name is found by proxies.
    let direct = |service: &&&Arc<Service>| {
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

fn name_of(object: &Object) -> ServiceName {
    ServiceName::new(&object.meta.namespace, &object.meta.name)
}

fn refuse_address(object: &Object, message: String, report: &mut Report) {
    let problem = Problem::new(Severity::Error, code::CLUSTER_ADDRESS, message);
    report.tell(
        object,
        "spec.clusterIP",
        problem.remedy("leave `clusterIP` out: an address is chosen"),
    );
}

impl Ground<'_, '_> {
    /// Tells what a Service does not get of the addresses that it asks for.
    fn tell_address(&self, of: Written<'_>, report: &mut Report) {
        if of.body.is_headless() || of.body.service_type == ServiceType::ExternalName {
            return;
        }
        let ranges = &self.view.options.service_ranges;
        for ip in written_addresses(of.body).filter(|ip| !ranges.iter().any(|range| range.contains(*ip))) {
            let message = format!(
                "the cluster address {ip} lies outside of the mesh's Service ranges; another is chosen"
            );
            refuse_address(of.object, message, report);
        }
        let Some(share) = self.allotment.of(&name_of(of.object)) else {
            return;
        };
        for (ip, owner) in &share.refused {
            let message = format!("the cluster address {ip} belongs to `{owner}`, which is older");
            refuse_address(of.object, message, report);
        }
        if share.addresses.len() < 2 {
            let message = "no cluster address is left for this Service";
            let problem = Problem::new(Severity::Error, code::CLUSTER_ADDRESS, message);
            report.tell(of.object, "metadata.name", problem);
        }
    }

    fn vips(&self, name: &ServiceName) -> Vec<IpAddr> {
        let share = self.allotment.of(name);
        share.map(|share| share.addresses.clone()).unwrap_or_default()
    }

    fn service(&self, of: Written<'_>, joins: &mut Joins, report: &mut Report) -> Option<Service> {
        let name = name_of(of.object);
        let host = host_of(of.object, &self.view.options.cluster_domain)?;
        let external_name = (of.body.service_type == ServiceType::ExternalName)
            .then(|| self.external_name(of, report))
            .flatten();
        if of.body.service_type == ServiceType::ExternalName && external_name.is_none() {
            return None;
        }
        self.ruling.applies(&name, &host, report);
        let endpoints = if external_name.is_none() {
            self.endpoints(of, joins, report)
        } else {
            Vec::new()
        };
        let mut identities: Vec<_> = endpoints.iter().filter_map(|e| e.identity.clone()).collect();
        identities.sort();
        identities.dedup();
        Some(Service {
            vips: self.vips(&name),
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
                let tls = self.ruling.for_port(name, host, port.port);
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
