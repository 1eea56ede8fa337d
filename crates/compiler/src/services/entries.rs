//! ServiceEntry: what lies outside the cluster and is registered all the same (semantics 7.4).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::{EntryPort, Resolution, ServiceEntry};
use model::{Cidr, Host, Protocol, ServiceName, WorkloadUid, canonical_ip};
use snapshot::{Endpoint, External, NamedEndpoint, Service, ServicePort};

use super::Ground;
use super::endpoints::{is_local, of_pod};
use crate::report::{Report, tell_nothing_selected_of};
use crate::view::{Of, covers};

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
    let allocated = leads_to_endpoints(of.body.resolution) && of.body.addresses.is_empty();
    let hosts = if allocated { hosts(of) } else { Vec::new() };
    hosts
        .into_iter()
        .filter(|host| !host.as_str().starts_with('*'))
        .map(move |host| name_of(of, &host))
}

/// Whether traffic goes to endpoints, and not on to where the client says.
fn leads_to_endpoints(resolution: Resolution) -> bool {
    !matches!(resolution, Resolution::None | Resolution::DynamicDns)
}

/// Why an entry has no effect: where, what, and what would help. What is not acted on stays out of the registry, so that a mesh that
/// is closed to the rest stays closed.
fn why_not(entry: &ServiceEntry) -> Option<(&'static str, &'static str, &'static str)> {
    match entry.resolution {
        _ if entry
            .workload_selector
            .as_ref()
            .is_some_and(|s| s.labels.is_empty()) =>
        {
            Some((
                "spec.workloadSelector",
                "a `workloadSelector` without labels would take every pod of the namespace",
                "write `labels`",
            ))
        }
        Resolution::Static if entry.endpoints.is_empty() && entry.workload_selector.is_none() => Some((
            "spec.endpoints",
            "there are no endpoints to go to",
            "list `endpoints`, or select workloads",
        )),
        _ => None,
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
            let Some((endpoints, names)) = self.entry_endpoints(*of, listed, report) else {
                continue;
            };
            for host in hosts(*of) {
                let service = self.entry(*of, host, (&endpoints, &names), report);
                // Oldest first: the older of two that declare one host in a namespace stays.
                out.entry(service.name.clone()).or_insert(service);
            }
        }
        out.into_values().collect()
    }

    fn entry(
        &self,
        of: Written<'_>,
        host: Host,
        (endpoints, names): (&[Endpoint], &[NamedEndpoint]),
        report: &mut Report,
    ) -> Service {
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
                    Resolution::Static => snapshot::Resolution::Static,
                    Resolution::Dns => snapshot::Resolution::Dns,
                    Resolution::DnsRoundRobin => snapshot::Resolution::DnsRoundRobin,
                    Resolution::DynamicDns => snapshot::Resolution::DynamicDns,
                },
                names: match (of.body.resolution, endpoints) {
                    // Without endpoints it is its own host that is asked about.
                    (Resolution::Dns | Resolution::DnsRoundRobin, [])
                        if names.is_empty() && of.body.workload_selector.is_none() =>
                    {
                        vec![named(of.body, host.clone(), &BTreeMap::new())]
                    }
                    _ => names.to_vec(),
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

    /// What it leads to: endpoints, and names of some. An address of a pod is that pod, with its identity; any other is a plain
    /// endpoint. `None` closes it: something that is written is no endpoint.
    fn entry_endpoints(
        &self,
        of: Written<'_>,
        listed: &mut BTreeSet<IpAddr>,
        report: &mut Report,
    ) -> Option<(Vec<Endpoint>, Vec<NamedEndpoint>)> {
        let (mut out, mut names) = (Vec::new(), Vec::new());
        if !leads_to_endpoints(of.body.resolution) {
            return Some((out, names));
        }
        for (index, endpoint) in of.body.endpoints.iter().enumerate() {
            match endpoint.address.parse::<IpAddr>().map(canonical_ip) {
                Ok(address) if !is_local(address) => {
                    listed.insert(address);
                    out.push(self.entry_endpoint(of, address, &endpoint.ports));
                }
                Err(_) if of.body.resolution != Resolution::Static && is_name(&endpoint.address) => {
                    let host = endpoint.address.parse().ok();
                    names.extend(host.map(|host| named(of.body, host, &endpoint.ports)));
                }
                _ => {
                    let path = format!("spec.endpoints[{index}].address");
                    let why = format!("`{}` is no address of the network", endpoint.address);
                    report.unheeded(of.object, &path, &why, "write an address of the network");
                    return None;
                }
            }
        }
        if let Some(selector) = &of.body.workload_selector {
            out.extend(self.entry_selected(of, &selector.labels, report));
        }
        Some((out, names))
    }

    /// Pods of the entry's namespace that it selects.
    fn entry_selected(
        &self,
        of: Written<'_>,
        labels: &BTreeMap<String, String>,
        report: &mut Report,
    ) -> Vec<Endpoint> {
        let here = self
            .own
            .pods
            .iter()
            .zip(&self.own.modes)
            .filter(|(pod, _)| pod.live);
        let selected = here.filter(|(pod, _)| covers(labels, pod.labels()) && !pod.addresses.is_empty());
        let ports = port_numbers(of.body, &BTreeMap::new());
        let mut out: Vec<_> = selected
            .map(|(pod, modes)| of_pod(Some(modes), pod, ports.clone(), pod.ready, None))
            .collect();
        tell_nothing_selected_of(self.view, of.object, "spec.workloadSelector", labels, report);
        out.sort_by(|a, b| a.uid.cmp(&b.uid));
        out
    }

    fn entry_endpoint(&self, of: Written<'_>, address: IpAddr, own: &BTreeMap<String, u16>) -> Endpoint {
        let ports = port_numbers(of.body, own);
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

/// Service port -> port there: the endpoint's own of that name, else the port's target, else its number.
fn port_numbers(entry: &ServiceEntry, own: &BTreeMap<String, u16>) -> BTreeMap<u16, u16> {
    let target = |port: &EntryPort| {
        let own = own.get(&port.name).copied();
        (port.number, own.or(port.target_port).unwrap_or(port.number))
    };
    entry.ports.iter().map(target).collect()
}

fn named(entry: &ServiceEntry, host: Host, own: &BTreeMap<String, u16>) -> NamedEndpoint {
    NamedEndpoint {
        host,
        ports: port_numbers(entry, own),
    }
}

/// Whether an endpoint's address is a name that can be asked about.
fn is_name(address: &str) -> bool {
    !address.contains(['*', '/', ':']) && address.parse::<Host>().is_ok()
}

/// What the port says it speaks; else what its name does.
fn protocol(port: &EntryPort) -> Protocol {
    let written = port.protocol.to_ascii_lowercase();
    let declared = Some(written.as_str()).filter(|text| !text.is_empty());
    let name = Some(port.name.as_str()).filter(|text| !text.is_empty());
    Protocol::select(written == "udp", declared, name, port.number)
}
