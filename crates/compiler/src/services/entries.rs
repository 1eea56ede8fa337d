//! ServiceEntry: what lies outside the cluster and is registered all the same (semantics 7.4).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::{EntryEndpoint, EntryPort, Resolution, ServiceEntry};
use model::{Cidr, Host, Protocol, ServiceName, WorkloadUid, canonical_ip};
use snapshot::{Endpoint, External, Service, ServicePort};

use super::Ground;
use super::endpoints::{is_local, of_pod};
use crate::report::Report;
use crate::view::Of;

type Written<'a> = Of<'a, ServiceEntry>;

/// What the registry calls one host of an entry. Kubernetes' Services have no dot in their names, so the two never meet.
pub(super) fn name_of(of: Written<'_>, host: &Host) -> ServiceName {
    ServiceName::new(of.namespace(), host.as_str())
}

/// The hosts of an entry that is in force.
pub(super) fn hosts(of: Written<'_>) -> Vec<Host> {
    if why_not(of.body).is_some() {
        return Vec::new();
    }
    of.body
        .hosts
        .iter()
        .filter_map(|host| host.parse().ok())
        .collect()
}

/// What of an entry addresses are chosen for: where it leads to endpoints and is given none.
pub(super) fn to_allocate(of: Written<'_>) -> impl Iterator<Item = ServiceName> {
    let allocated = of.body.resolution == Resolution::Static && of.body.addresses.is_empty();
    let hosts = if allocated { hosts(of) } else { Vec::new() };
    hosts
        .into_iter()
        .filter(|host| !host.as_str().starts_with('*'))
        .map(move |host| name_of(of, &host))
}

/// Why an entry has no effect: where, what, and what would help. What is not acted on stays out of the registry, so that a mesh that
/// is closed to the rest stays closed.
fn why_not(entry: &ServiceEntry) -> Option<(&'static str, &'static str, &'static str)> {
    if entry.workload_selector.is_some() {
        return Some((
            "spec.workloadSelector",
            "a `workloadSelector` in a ServiceEntry is not acted on by this version",
            "list `endpoints`, or write a Service",
        ));
    }
    match entry.resolution {
        Resolution::None if entry.addresses.is_empty() => Some((
            "spec.addresses",
            "without addresses whoever names the host could reach any address (R37)",
            "list the `addresses` that clients dial",
        )),
        Resolution::None => None,
        Resolution::Static if entry.endpoints.is_empty() => Some((
            "spec.endpoints",
            "there are no endpoints to go to",
            "list `endpoints`",
        )),
        Resolution::Static => None,
        Resolution::Dns | Resolution::DnsRoundRobin | Resolution::DynamicDns => Some((
            "spec.resolution",
            "names are not resolved by proxies in this version",
            "write `resolution: STATIC` with endpoints, or NONE with `addresses`",
        )),
    }
}

impl Ground<'_, '_> {
    /// The entries in force, a Service a host.
    pub(super) fn entries(&self, listed: &mut BTreeSet<IpAddr>, report: &mut Report) -> Vec<Service> {
        let mut out: BTreeMap<ServiceName, Service> = BTreeMap::new();
        for of in &self.view.service_entries {
            if let Some((path, why, remedy)) = why_not(of.body) {
                report.unheeded(of.object, path, why, remedy);
                continue;
            }
            let Some(endpoints) = self.entry_endpoints(*of, listed, report) else {
                continue;
            };
            for host in hosts(*of) {
                let service = self.entry(*of, host, &endpoints, report);
                // Oldest first: the older of two that declare one host in a namespace stays.
                out.entry(service.name.clone()).or_insert(service);
            }
        }
        out.into_values().collect()
    }

    fn entry(&self, of: Written<'_>, host: Host, endpoints: &[Endpoint], report: &mut Report) -> Service {
        let name = name_of(of, &host);
        self.ruling.applies(&name, &host, report);
        let addresses: Vec<Cidr> = of
            .body
            .addresses
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect();
        let single = of
            .body
            .addresses
            .iter()
            .filter_map(|text| text.parse::<IpAddr>().ok());
        let mut own: Vec<IpAddr> = single.map(canonical_ip).collect();
        if own.is_empty() {
            own = self.vips(&name);
        }
        let mut identities: Vec<_> = endpoints.iter().filter_map(|e| e.identity.clone()).collect();
        identities.sort();
        identities.dedup();
        let own_namespace = |text: &String| {
            if text == "." {
                of.namespace().to_owned()
            } else {
                text.clone()
            }
        };
        Service {
            ports: self.entry_ports(of.body, &name, &host),
            vips: own,
            headless: false,
            external_name: None,
            endpoints: endpoints.to_vec(),
            identities,
            external: Some(External {
                resolution: match of.body.resolution {
                    Resolution::None => snapshot::Resolution::None,
                    _ => snapshot::Resolution::Static,
                },
                addresses,
                export_to: match of.body.export_to.iter().any(|to| to == "*") {
                    true => Vec::new(),
                    false => of.body.export_to.iter().map(own_namespace).collect(),
                },
            }),
            host,
            name,
        }
    }

    fn entry_ports(&self, entry: &ServiceEntry, name: &ServiceName, host: &Host) -> Vec<ServicePort> {
        let ports = entry.ports.iter().map(|port| {
            let tls = self.ruling.for_port(name, host, port.number);
            ServicePort {
                name: port.name.clone(),
                port: port.number,
                protocol: protocol(port),
                tls: tls.tls,
                tls_by_namespace: tls.by_namespace,
            }
        });
        ports.collect()
    }

    /// An address of a pod is that pod, with its identity; any other is a plain endpoint.
    fn entry_endpoints(
        &self,
        of: Written<'_>,
        listed: &mut BTreeSet<IpAddr>,
        report: &mut Report,
    ) -> Option<Vec<Endpoint>> {
        if of.body.resolution != Resolution::Static {
            return Some(Vec::new());
        }
        let mut out = Vec::new();
        for (index, endpoint) in of.body.endpoints.iter().enumerate() {
            let address = endpoint.address.parse().ok().map(canonical_ip);
            let Some(address) = address.filter(|address| !is_local(*address)) else {
                let path = format!("spec.endpoints[{index}].address");
                let why = "an endpoint is no address of the network";
                report.unheeded(of.object, &path, why, "write an IP address");
                return None;
            };
            listed.insert(address);
            out.push(self.entry_endpoint(of, endpoint, address));
        }
        Some(out)
    }

    fn entry_endpoint(&self, of: Written<'_>, endpoint: &EntryEndpoint, address: IpAddr) -> Endpoint {
        let target = |port: &EntryPort| {
            let own = endpoint.ports.get(&port.name).copied();
            (port.number, own.or(port.target_port).unwrap_or(port.number))
        };
        let ports: BTreeMap<u16, u16> = of.body.ports.iter().map(target).collect();
        let pod = (self.at)(address).and_then(|there| Some((there, there.pod()?)));
        match pod {
            Some((there, pod)) => Endpoint {
                addresses: vec![address],
                ..of_pod(
                    there.population.modes.get(there.index),
                    pod,
                    ports,
                    pod.ready,
                    None,
                )
            },
            None => Endpoint {
                uid: WorkloadUid::new(&format!("{}.{}/{address}", of.namespace(), of.name())),
                workload: None,
                addresses: vec![address],
                ports,
                ready: true,
                node: None,
                hbone: false,
                identity: None,
                plaintext_ports: Vec::new(),
                mtls_ports: Vec::new(),
                hostname: None,
            },
        }
    }
}

/// What the port says it speaks; else what its name does.
fn protocol(port: &EntryPort) -> Protocol {
    let written = port.protocol.to_ascii_lowercase();
    let declared = Some(written.as_str()).filter(|text| !text.is_empty());
    let name = Some(port.name.as_str()).filter(|text| !text.is_empty());
    Protocol::select(written == "udp", declared, name, port.number)
}
