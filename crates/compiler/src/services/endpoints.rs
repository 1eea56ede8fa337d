//! Who answers for a Service: the pods that it selects, or the addresses that somebody lists for it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use api::{Problem, Severity, TargetPort};
use model::{WorkloadUid, canonical_ip};
use snapshot::Endpoint;

use super::{Found, Ground, Joins, Member, Written, port_map, protocol};
use crate::authn::Effective;
use crate::pods::PodFacts;
use crate::report::{Report, code, nothing_selected};
use crate::view::{Backing, covers};

/// One listed address.
struct Listed<'a> {
    address: IpAddr,
    ready: bool,
    hostname: Option<&'a str>,
    node: Option<&'a str>,
    /// Port name to number.
    ports: &'a BTreeMap<&'a str, u16>,
}

impl Ground<'_, '_> {
    /// The endpoints, ordered by uid; tells each pod among them that the Service ends there.
    pub(super) fn endpoints(&self, of: Written<'_>, joins: &mut Joins, report: &mut Report) -> Vec<Endpoint> {
        let mut found = BTreeMap::new();
        if of.body.selector.is_empty() {
            self.listed(of, joins, &mut found, report);
        } else {
            self.selected(of, joins, &mut found, report);
        }
        found.into_values().collect()
    }

    fn selected(
        &self,
        of: Written<'_>,
        joins: &mut Joins,
        found: &mut BTreeMap<WorkloadUid, Endpoint>,
        report: &mut Report,
    ) {
        for (index, pod) in self.own.pods.iter().enumerate() {
            if !pod.live || !covers(&of.body.selector, pod.labels()) {
                continue;
            }
            let ports = port_map(&of.body.ports, |port| target_port(port, pod));
            if let Some(members) = joins.own.get_mut(index) {
                members.extend(join(of, |port| target_port(port, pod)));
            }
            if !pod.addresses.is_empty() {
                let ready = pod.ready || of.body.publish_not_ready_addresses;
                let hostname = pod.hostname(of.name()).filter(|_| of.body.is_headless());
                let modes = self.own.modes.get(index);
                found.insert(pod.uid.clone(), of_pod(modes, pod, ports, ready, hostname));
            }
        }
        if !self.view.selects_something(false, &of.body.selector) {
            report.tell(of.object, "spec.selector", nothing_selected(&of.body.selector));
        }
        self.check_names(of, found, report);
    }

    /// A port that no selected pod has is most likely misspelt.
    fn check_names(&self, of: Written<'_>, found: &BTreeMap<WorkloadUid, Endpoint>, report: &mut Report) {
        for (index, port) in of.body.ports.iter().enumerate() {
            let TargetPort::Name(name) = port.target() else {
                continue;
            };
            if !found.is_empty()
                && found
                    .values()
                    .all(|endpoint| !endpoint.ports.contains_key(&port.port))
            {
                let message = format!("no selected pod has a container port named `{name}`");
                let problem = Problem::new(Severity::Warning, code::NOT_FOUND, message)
                    .remedy("name the port under `containers[].ports`, or give its number");
                report.tell(of.object, &format!("spec.ports[{index}].targetPort"), problem);
            }
        }
    }

    fn listed(
        &self,
        of: Written<'_>,
        joins: &mut Joins,
        found: &mut BTreeMap<WorkloadUid, Endpoint>,
        report: &mut Report,
    ) {
        let backing = self.view.backing.get(of.name());
        for backing in backing.into_iter().flatten() {
            let mut add = |listed: Listed<'_>| {
                if is_local(listed.address) {
                    let message = format!(
                        "the listed address {} is local to a machine; it is left out",
                        listed.address
                    );
                    let problem = Problem::new(Severity::Error, code::LOCAL_ADDRESS, message);
                    report.tell(
                        of.object,
                        "metadata.name",
                        problem.remedy("list an address of the network"),
                    );
                } else {
                    self.add(of, &listed, joins, found);
                }
            };
            match backing {
                Backing::Endpoints(body) => body.subsets.iter().for_each(|subset| {
                    let ports = subset
                        .ports
                        .iter()
                        .map(|port| (port.name.as_str(), port.port))
                        .collect();
                    let ready = subset.addresses.iter().map(|address| (address, true));
                    let all = ready.chain(subset.not_ready_addresses.iter().map(|address| (address, false)));
                    all.for_each(|(address, ready)| {
                        let Ok(ip) = address.ip.parse() else { return };
                        add(Listed {
                            address: ip,
                            ready,
                            hostname: filled(&address.hostname),
                            node: filled(&address.node_name),
                            ports: &ports,
                        });
                    });
                }),
                Backing::Slice(body) => {
                    let ports = body.ports.iter();
                    let ports =
                        ports.filter_map(|port| Some((port.name.as_deref().unwrap_or_default(), port.port?)));
                    let ports = ports.collect();
                    for endpoint in &body.endpoints {
                        for ip in endpoint.addresses.iter().filter_map(|text| text.parse().ok()) {
                            add(Listed {
                                address: ip,
                                ready: endpoint.conditions.ready.unwrap_or(true),
                                hostname: endpoint.hostname.as_deref().and_then(filled),
                                node: endpoint.node_name.as_deref().and_then(filled),
                                ports: &ports,
                            });
                        }
                    }
                }
            }
        }
    }

    /// An address of a pod is that pod, with its identity; any other is a plain endpoint.
    fn add(
        &self,
        of: Written<'_>,
        listed: &Listed<'_>,
        joins: &mut Joins,
        found: &mut BTreeMap<WorkloadUid, Endpoint>,
    ) {
        let address = canonical_ip(listed.address);
        let target = |port: &api::ServicePort| listed.ports.get(port.name.as_str()).copied();
        let ports = port_map(&of.body.ports, target);
        joins.listed.insert(address);
        let pod = (self.at)(address).and_then(|there| Some((there, there.pod()?)));
        let ready = listed.ready || of.body.publish_not_ready_addresses;
        let endpoint = match pod {
            Some((there, pod)) => {
                if !found.contains_key(&pod.uid) {
                    self.join_listed(of, there, pod, target, joins);
                }
                // Only what was listed is an address of this Service.
                Endpoint {
                    addresses: vec![address],
                    ..of_pod(
                        there.population.modes.get(there.index),
                        pod,
                        ports,
                        ready,
                        listed.hostname,
                    )
                }
            }
            None => Endpoint {
                uid: WorkloadUid::new(&format!("{}.{}/{address}", of.namespace(), of.name())),
                workload: None,
                addresses: vec![address],
                ports,
                ready,
                node: listed.node.map(str::to_owned),
                identity: None,
                plaintext_ports: Vec::new(),
                mtls_ports: Vec::new(),
                hbone: false,
                hostname: listed.hostname.map(str::to_owned),
            },
        };
        let held = found
            .entry(endpoint.uid.clone())
            .or_insert_with(|| endpoint.clone());
        held.ports.extend(endpoint.ports);
        held.ready |= endpoint.ready;
        if !held.addresses.contains(&address) {
            held.addresses.push(address);
            held.addresses.sort();
        }
    }

    /// Tells a listed pod which ports of the Service end at it, wherever it is.
    fn join_listed(
        &self,
        of: Written<'_>,
        there: Found<'_>,
        pod: &PodFacts,
        target: impl Fn(&api::ServicePort) -> Option<u16>,
        joins: &mut Joins,
    ) {
        if std::ptr::eq(there.population, self.own) {
            if let Some(members) = joins.own.get_mut(there.index) {
                members.extend(join(of, target));
            }
            return;
        }
        let of_namespace = joins.foreign.entry(Arc::from(pod.namespace())).or_default();
        let members = of_namespace.entry(pod.uid.clone()).or_default();
        members.extend(join(of, target));
    }
}

pub(super) fn of_pod(
    modes: Option<&Effective>,
    pod: &PodFacts,
    ports: BTreeMap<u16, u16>,
    ready: bool,
    hostname: Option<&str>,
) -> Endpoint {
    let (plaintext_ports, mtls_ports) = match modes {
        Some(modes) if pod.identity.is_some() => modes.for_clients(),
        _ => (Vec::new(), Vec::new()),
    };
    Endpoint {
        uid: pod.uid.clone(),
        workload: Some(pod.owner.clone()),
        addresses: pod.addresses.clone(),
        ports,
        ready,
        node: filled(pod.node()).map(str::to_owned),
        identity: pod.identity.clone(),
        plaintext_ports,
        mtls_ports,
        hbone: pod.is_hbone(),
        hostname: hostname.map(str::to_owned),
    }
}

/// Which ports of the Service end at a pod; UDP is not carried.
fn join(of: Written<'_>, target: impl Fn(&api::ServicePort) -> Option<u16>) -> impl Iterator<Item = Member> {
    let tcp = of
        .body
        .ports
        .iter()
        .enumerate()
        .filter(|(_, port)| !port.is_udp());
    tcp.filter_map(move |(index, port)| {
        Some(Member {
            service: Arc::clone(of.object),
            index,
            target: target(port)?,
            protocol: protocol(port),
        })
    })
}

/// Where a Service port ends on a pod: the number, or the pod's own port of that name.
fn target_port(port: &api::ServicePort, pod: &PodFacts) -> Option<u16> {
    match port.target() {
        TargetPort::Number(number) => Some(number),
        TargetPort::Name(name) => {
            let spec = &pod.pod.spec;
            let mut ports = spec
                .containers
                .iter()
                .chain(&spec.init_containers)
                .flat_map(|c| &c.ports);
            let same_transport = |own: &str| (own == "UDP") == port.is_udp();
            ports
                .find(|own| own.name == name && same_transport(own.protocol.as_deref().unwrap_or("TCP")))
                .map(|own| own.container_port)
        }
    }
}

/// Addresses that mean another thing on the node, where the proxy dials, than where they were written.
pub(super) fn is_local(address: IpAddr) -> bool {
    let address = canonical_ip(address);
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast()
}

fn filled(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
