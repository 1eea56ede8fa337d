//! What a proxy asks of its resources: immutable look-ups, built once each time a new set is swapped in.
//!
//! Everything is handed out behind an `Arc`, so that a connection keeps what it was decided by for as long as
//! it needs. Building is linear in the resources. An address that two resources claim goes to the one that
//! demands more of the caller: a mesh pod before a plain one.

mod asker;
mod authentication;
mod demand;
mod external;
mod names;
mod outbound;
mod transport;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::{ServiceName, WorkloadUid, canonical_ip};
use policy::path::Dialects;
use policy::{PolicyId, PolicySet, PolicySpec};

use crate::{Address, Mesh, Provider, Resource, ResourceName, Resources, Service, ServicePort, Workload};

use demand::{Known, Seen};

pub use asker::{Asker, Claim};
pub use authentication::Authentication;
pub use demand::Lacks;
pub use names::Answer;
pub use outbound::{Destination, ServiceTarget};
pub use transport::Transport;

/// Why a set of resources cannot be served from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IndexError {
    /// The set has no mesh settings, so that no default is known.
    #[error("the resources hold no mesh settings")]
    NoMesh,
}

/// The resources of one proxy, ready to be asked.
#[derive(Debug)]
pub struct Index {
    mesh: Arc<Mesh>,
    roots: Vec<String>,
    /// Namespace, then name: looked up by borrowed text.
    services: HashMap<String, HashMap<String, Known<Arc<Service>>>>,
    /// With the mark of the Service's use.
    vips: HashMap<IpAddr, (Arc<Service>, Seen)>,
    workloads: HashMap<WorkloadUid, Arc<Workload>>,
    pods: HashMap<IpAddr, Arc<Workload>>,
    /// Services that have the address among their endpoints, by name.
    served_by: HashMap<IpAddr, Vec<Arc<Service>>>,
    /// Of workloads with an inbound side; one set for all that have the same list of policies and read paths alike.
    policies: HashMap<WorkloadUid, Arc<PolicySet>>,
    /// As `policies`, of RequestAuthentications.
    authentications: HashMap<WorkloadUid, Arc<Authentication>>,
    providers: HashMap<String, Arc<Provider>>,
    /// Addresses that were asked for.
    addresses: HashMap<IpAddr, Known<Arc<Address>>>,
    /// Callers that were asked for.
    callers: HashMap<IpAddr, Known<()>>,
    /// Namespaces that were asked for.
    namespaces: HashMap<String, Known<()>>,
    /// Ports that some Service declares as HTTP.
    http_ports: Vec<u16>,
    /// Whether this is the whole mesh: what is not there does not exist.
    whole: bool,
    externals: external::Externals,
}

impl Index {
    /// Builds the index.
    ///
    /// # Errors
    /// The set is not one that a proxy can serve from; the proxy keeps what it had, or goes on refusing.
    pub fn build(resources: &Resources) -> Result<Self, IndexError> {
        Self::build_after(resources, None)
    }

    /// [`Self::build`], where the resources are mostly those of an index that is there: its policies are not compiled again,
    /// and a compiled [`Authentication`] that would come out the same is the one that `before` has, so that nobody who was
    /// authenticated by it needs to be again.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn build_after(resources: &Resources, before: Option<&Self>) -> Result<Self, IndexError> {
        Self::build_of(resources, before, true)
    }

    /// [`Self::build_after`], of what a proxy has asked for and nothing else.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn build_on_demand(resources: &Resources, before: Option<&Self>) -> Result<Self, IndexError> {
        Self::build_of(resources, before, false)
    }

    fn build_of(resources: &Resources, before: Option<&Self>, whole: bool) -> Result<Self, IndexError> {
        let mesh = resources.get(&ResourceName::mesh());
        let Some(Resource::Mesh(mesh)) = mesh.map(AsRef::as_ref) else {
            return Err(IndexError::NoMesh);
        };
        let mut index = Self {
            mesh: Arc::clone(mesh),
            roots: Vec::new(),
            services: HashMap::new(),
            vips: HashMap::new(),
            workloads: HashMap::new(),
            pods: HashMap::new(),
            served_by: HashMap::new(),
            policies: HashMap::new(),
            authentications: HashMap::new(),
            providers: HashMap::new(),
            addresses: HashMap::new(),
            callers: HashMap::new(),
            namespaces: HashMap::new(),
            http_ports: Vec::new(),
            whole,
            externals: external::Externals::default(),
        };
        for (_, resource) in resources.iter() {
            match resource.as_ref() {
                Resource::Roots(roots) => index.roots.clone_from(roots),
                Resource::Service(service) => index.add_service(service, before),
                Resource::Workload(workload) => index.add_workload(workload),
                Resource::Provider(provider) => {
                    index
                        .providers
                        .insert(provider.name.clone(), Arc::clone(provider));
                }
                Resource::HttpPorts(ports) => index.http_ports.clone_from(ports),
                Resource::Address(_) | Resource::Caller(_) | Resource::Namespace(_) | Resource::Absent(_) => {
                    index.add_answer(resource, before);
                }
                Resource::Mesh(_) | Resource::Policy(_) | Resource::Authentication(_) | Resource::Jwks(_) => {
                }
            }
        }
        index.policies = compile_policies(&index, resources, before);
        index.authentications = authentication::compile(&index, resources, before);
        Ok(index)
    }

    /// Settings of the mesh.
    pub fn mesh(&self) -> &Arc<Mesh> {
        &self.mesh
    }

    /// PEM certificates that peers are verified against.
    pub fn roots(&self) -> &[String] {
        &self.roots
    }

    /// A Service by name.
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.service_at(name.namespace(), name.name(), &Lacks::default())
    }

    /// The Service that has the cluster address, and its port of that number. A known address with a port that
    /// the Service does not have is `Some((service, None))`.
    pub fn vip(&self, address: IpAddr, port: u16) -> Option<(&Arc<Service>, Option<&ServicePort>)> {
        let (service, seen) = self.vips.get(&canonical_ip(address))?;
        seen.set();
        Some((service, service.ports.iter().find(|p| p.port == port)))
    }

    /// The pod that has the address, in the mesh or not.
    pub fn pod(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.pods.get(&canonical_ip(address))
    }

    /// A pod by id.
    pub fn workload(&self, uid: &WorkloadUid) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The policies that decide what may come in to a pod; `None` where the proxy does not stand before it.
    pub fn policies(&self, uid: &WorkloadUid) -> Option<&Arc<PolicySet>> {
        self.policies.get(uid)
    }

    /// What requests to a pod are authenticated by; `None` where the proxy does not stand before it.
    pub fn authentication(&self, uid: &WorkloadUid) -> Option<&Arc<Authentication>> {
        self.authentications.get(uid)
    }

    /// An external authorizer, by its whole name (R16).
    pub fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers.get(name)
    }

    /// The port of a Service as a target of clients in `namespace`; `None` where there is no such Service or port.
    pub fn target(&self, name: &ServiceName, port: u16, namespace: &str) -> Option<ServiceTarget> {
        let service = self.service(name)?;
        let port = service.ports.iter().find(|p| p.port == port)?;
        Some(ServiceTarget::new(service, port, namespace))
    }

    /// All pods, in no particular order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// All that ServiceEntries declare, in no particular order.
    pub fn externals(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.externals.all()
    }

    /// All Services that are there, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        let known = self.services.values().flat_map(HashMap::values);
        known.filter_map(|known| known.value.as_ref())
    }

    /// Whether some Service of the mesh declares the port as HTTP.
    pub fn declares_http(&self, port: u16) -> bool {
        let here = |p: &ServicePort| p.port == port && p.protocol.is_http();
        self.http_ports.binary_search(&port).is_ok()
            || (self.whole && self.services().flat_map(|s| &s.ports).any(here))
            || self.externals().flat_map(|s| &s.ports).any(here)
    }

    fn add_service(&mut self, service: &Arc<Service>, before: Option<&Self>) {
        if service.external.is_some() {
            return self.externals.add(service);
        }
        let seen = before
            .and_then(|before| before.known_service(&service.name))
            .map_or_else(Seen::new, |known| known.seen.clone());
        for vip in &service.vips {
            self.vips
                .entry(canonical_ip(*vip))
                .or_insert_with(|| (Arc::clone(service), seen.clone()));
        }
        for address in service.endpoints.iter().flat_map(|e| &e.addresses) {
            let serving = self.served_by.entry(canonical_ip(*address)).or_default();
            if serving.last().is_none_or(|last| last.name != service.name) {
                serving.push(Arc::clone(service));
            }
        }
        self.services
            .entry(service.name.namespace().to_owned())
            .or_default()
            .insert(
                service.name.name().to_owned(),
                Known {
                    value: Some(Arc::clone(service)),
                    seen,
                },
            );
    }

    fn add_workload(&mut self, workload: &Arc<Workload>) {
        for address in &workload.addresses {
            self.pods
                .entry(canonical_ip(*address))
                .and_modify(|held| {
                    if held.identity.is_none() && workload.identity.is_some() {
                        *held = Arc::clone(workload);
                    }
                })
                .or_insert_with(|| Arc::clone(workload));
        }
        self.workloads.insert(workload.uid.clone(), Arc::clone(workload));
    }
}

/// Compiles each distinct list of policies once for each way to read paths. A policy that is named and not there denies (R34).
fn compile_policies(
    index: &Index,
    resources: &Resources,
    before: Option<&Index>,
) -> HashMap<WorkloadUid, Arc<PolicySet>> {
    let policies = resources
        .iter()
        .filter_map(|(_, resource)| match resource.as_ref() {
            Resource::Policy(spec) => Some(spec),
            _ => None,
        });
    let mut specs: Vec<&Arc<PolicySpec>> = policies.collect();
    specs.sort_by(|a, b| a.id.cmp(&b.id));
    let context = index.mesh().policy_context();
    let mut sets: HashMap<(&[PolicyId], &Dialects), Arc<PolicySet>> = HashMap::new();
    let mut out = HashMap::new();
    for workload in index.workloads.values() {
        let Some(inbound) = &workload.inbound else {
            continue;
        };
        let (wanted, dialects) = (inbound.policies.as_slice(), &inbound.path_dialects);
        let set = sets.entry((wanted, dialects)).or_insert_with(|| {
            let (mut known, mut missing) = (Vec::with_capacity(wanted.len()), Vec::new());
            let mut next = 0;
            for id in wanted {
                // Names come in order, so that the next one is mostly the next.
                let here = specs.get(next).is_some_and(|spec| spec.id == *id);
                let found = match here {
                    true => Ok(next),
                    false => specs.binary_search_by(|spec| spec.id.cmp(id)),
                };
                match found.ok().and_then(|at| Some((at, specs.get(at)?))) {
                    Some((at, spec)) => {
                        known.push(Arc::clone(spec));
                        next = at + 1;
                    }
                    None => missing.push(id.clone()),
                }
            }
            Arc::new(match before.and_then(|before| before.policies(&workload.uid)) {
                Some(held) => held.update(&known, &missing, &context, dialects),
                None => PolicySet::compile_for(&known, &missing, &context, dialects),
            })
        });
        out.insert(workload.uid.clone(), Arc::clone(set));
    }
    out
}

#[cfg(test)]
mod tests;
