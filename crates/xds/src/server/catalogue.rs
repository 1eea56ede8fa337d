//! What proxies may ask for: every Service, who is at every address, and which namespaces have Services. No I/O.
//!
//! Changing it costs what the change touches: a Service, its endpoints, and their addresses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use model::{ServiceName, WorkloadUid, canonical_ip};
use snapshot::{Address, Delta, Resource, ResourceName, Service};

use crate::wire::Entry;

/// The resources that are sent when they are asked for, and what leads to them.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    /// Services and workloads.
    entries: HashMap<ResourceName, Arc<Entry>>,
    at: HashMap<IpAddr, At>,
    /// How many Services each has.
    namespaces: BTreeMap<String, usize>,
    /// How many Service ports declare each number as HTTP.
    http_ports: BTreeMap<u16, usize>,
}

/// Who is at an address.
#[derive(Clone, Debug, Default)]
struct At {
    vips: BTreeSet<ServiceName>,
    workloads: BTreeSet<WorkloadUid>,
    serving: BTreeSet<ServiceName>,
}

impl At {
    fn is_empty(&self) -> bool {
        self.vips.is_empty() && self.workloads.is_empty() && self.serving.is_empty()
    }

    fn caller(&self, address: IpAddr) -> Resource {
        Resource::Caller(Arc::new(Address {
            address,
            service: None,
            workloads: self.workloads.iter().cloned().collect(),
            serving: Vec::new(),
        }))
    }

    fn resource(&self, address: IpAddr) -> Resource {
        Resource::Address(Arc::new(Address {
            address,
            service: self.vips.first().cloned(),
            workloads: self.workloads.iter().cloned().collect(),
            serving: self.serving.iter().cloned().collect(),
        }))
    }
}

impl Catalogue {
    /// Carries a change out; returns the names of all whose answer may be another one now.
    pub(super) fn apply(&mut self, delta: &Delta) -> BTreeSet<ResourceName> {
        let mut touched = BTreeSet::new();
        for name in &delta.removed {
            self.replace(name.clone(), None, &mut touched);
        }
        for resource in &delta.updated {
            self.replace(resource.name(), Some(resource), &mut touched);
        }
        touched
    }

    fn replace(
        &mut self,
        name: ResourceName,
        new: Option<&Arc<Resource>>,
        touched: &mut BTreeSet<ResourceName>,
    ) {
        let old = self.entries.get(&name).map(|entry| Arc::clone(entry.resource()));
        if old.as_deref() == new.map(AsRef::as_ref) {
            return;
        }
        if let Some(old) = &old {
            self.link(old, false, touched);
        }
        match new {
            Some(new) => {
                self.link(new, true, touched);
                self.entries
                    .insert(name.clone(), Arc::new(Entry::new(Arc::clone(new))));
            }
            None => drop(self.entries.remove(&name)),
        }
        touched.insert(name);
    }

    /// Makes what leads to a resource, or undoes it.
    fn link(&mut self, resource: &Resource, there: bool, touched: &mut BTreeSet<ResourceName>) {
        match resource {
            Resource::Service(service) => self.link_service(service, there, touched),
            Resource::Workload(workload) => {
                for address in &workload.addresses {
                    self.at(*address, touched, |at| {
                        change(&mut at.workloads, &workload.uid, there);
                    });
                }
            }
            _ => {}
        }
    }

    fn link_service(&mut self, service: &Service, there: bool, touched: &mut BTreeSet<ResourceName>) {
        for vip in &service.vips {
            self.at(*vip, touched, |at| change(&mut at.vips, &service.name, there));
        }
        for address in service.endpoints.iter().flat_map(|e| &e.addresses) {
            self.at(*address, touched, |at| {
                change(&mut at.serving, &service.name, there);
            });
        }
        let namespace = service.name.namespace();
        if count(&mut self.namespaces, &namespace.to_owned(), there) {
            touched.insert(ResourceName::namespace(namespace));
        }
        for port in service.ports.iter().filter(|port| port.protocol.is_http()) {
            if count(&mut self.http_ports, &port.port, there) {
                touched.insert(ResourceName::http_ports());
            }
        }
    }

    fn at(&mut self, address: IpAddr, touched: &mut BTreeSet<ResourceName>, change: impl FnOnce(&mut At)) {
        let address = canonical_ip(address);
        let at = self.at.entry(address).or_default();
        change(at);
        if at.is_empty() {
            self.at.remove(&address);
        }
        touched.insert(ResourceName::address(address));
        touched.insert(ResourceName::caller(address));
    }

    /// Ports that some Service declares as HTTP; `None` where there is none.
    pub(super) fn http_ports(&self) -> Option<Resource> {
        let ports: Vec<_> = self.http_ports.keys().copied().collect();
        (!ports.is_empty()).then_some(Resource::HttpPorts(ports))
    }

    /// Adds the answer to a question, and all that it needs to be of use: a Service comes with the workloads behind it.
    pub(super) fn answer(&self, question: &ResourceName, into: &mut BTreeMap<ResourceName, Arc<Entry>>) {
        let kind = question.as_str().split_once('/');
        match kind {
            Some(("service", _)) if self.entries.contains_key(question) => self.service(question, into),
            Some(("caller", text)) => match self.find(text).filter(|(_, at)| !at.workloads.is_empty()) {
                Some((address, at)) => {
                    put(at.caller(address), into);
                    self.workloads(at, into);
                }
                None => absent(question, into),
            },
            Some(("address", text)) => {
                let Some((address, at)) = self.find(text) else {
                    return absent(question, into);
                };
                put(at.resource(address), into);
                self.workloads(at, into);
                for name in at.vips.iter().take(1).chain(&at.serving) {
                    self.service(&ResourceName::service(name), into);
                }
            }
            Some(("namespace", name)) if self.namespaces.contains_key(name) => {
                put(Resource::Namespace(name.to_owned()), into);
            }
            _ => absent(question, into),
        }
    }

    fn find(&self, address: &str) -> Option<(IpAddr, &At)> {
        let address = address.parse().ok()?;
        Some((address, self.at.get(&address)?))
    }

    fn workloads(&self, at: &At, into: &mut BTreeMap<ResourceName, Arc<Entry>>) {
        for uid in &at.workloads {
            self.take(&ResourceName::workload(uid), into);
        }
    }

    fn service(&self, name: &ResourceName, into: &mut BTreeMap<ResourceName, Arc<Entry>>) {
        let Some(entry) = self.take(name, into) else {
            return;
        };
        let Resource::Service(service) = entry.resource().as_ref() else {
            return;
        };
        for address in service.endpoints.iter().flat_map(|e| &e.addresses) {
            if let Some(at) = self.at.get(&canonical_ip(*address)) {
                self.workloads(at, into);
            }
        }
    }

    /// What belongs to the node is there already, and says more.
    fn take(
        &self,
        name: &ResourceName,
        into: &mut BTreeMap<ResourceName, Arc<Entry>>,
    ) -> Option<&Arc<Entry>> {
        let entry = self.entries.get(name)?;
        into.entry(name.clone()).or_insert_with(|| Arc::clone(entry));
        Some(entry)
    }
}

fn put(resource: Resource, into: &mut BTreeMap<ResourceName, Arc<Entry>>) {
    into.insert(resource.name(), Arc::new(Entry::new(Arc::new(resource))));
}

fn absent(question: &ResourceName, into: &mut BTreeMap<ResourceName, Arc<Entry>>) {
    put(Resource::Absent(question.clone()), into);
}

fn change<T: Clone + Ord>(set: &mut BTreeSet<T>, of: &T, there: bool) {
    if there {
        set.insert(of.clone());
    } else {
        set.remove(of);
    }
}

/// Counts one more or one less; says whether there is one now and was none, or the other way round.
fn count<K: Clone + Ord>(counts: &mut BTreeMap<K, usize>, of: &K, there: bool) -> bool {
    let before = counts.remove(of).unwrap_or_default();
    let now = if there {
        before + 1
    } else {
        before.saturating_sub(1)
    };
    if now > 0 {
        counts.insert(of.clone(), now);
    }
    (before == 0) != (now == 0)
}
