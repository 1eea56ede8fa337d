//! A compiled world that can be asked: the snapshots of its nodes, and who stands behind which name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::Object;
use compiler::Compiled;
use model::ServiceName;
use policy::{PolicyId, PolicySet, PolicySpec};
use snapshot::{Authentication, Index, Mesh, Resource, Workload};

use crate::answer::place;
use crate::question::Target;

/// How many replicas are named where they decide differently.
const MAX_NAMED: usize = 5;

/// Why nothing can be said of a target.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unknown {
    /// There is no such workload.
    #[error("there is no workload `{0}`")]
    Workload(String),
    /// There is no such Service.
    #[error("there is no Service `{0}`")]
    Service(String),
    /// The Service selects no workload that is known.
    #[error("the Service `{0}` selects no workload")]
    NobodyBehind(String),
    /// The Service has no such port.
    #[error("the Service `{0}` has no port {1}: it has {2}")]
    Port(String, u16, String),
    /// There is more than one port, or none that is declared.
    #[error("say which port of `{0}` is meant: {1}")]
    WhichPort(String, String),
    /// The target names nothing.
    #[error("the target names neither a workload nor a Service nor labels")]
    Nothing,
    /// There are too many of them.
    #[error("more than {0} targets are given by labels alone")]
    TooMany(usize),
    /// The world has no settings.
    #[error("the world cannot be indexed: {0}")]
    Index(String),
}

/// Replicas that decide alike, and the port on them that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// One of them.
    pub(crate) workload: Arc<Workload>,
    /// The first few of them, by name.
    pub(crate) pods: Vec<String>,
    pub(crate) count: usize,
    /// What decides; `None` where no proxy stands before them.
    pub(crate) policies: Option<Arc<PolicySet>>,
    /// What requests are authenticated by.
    pub(crate) authentication: Option<Arc<Authentication>>,
    /// The workload port.
    pub(crate) port: u16,
    /// The Service that was asked for, by its host, with its port.
    pub(crate) service: Option<(Arc<str>, u16)>,
}

/// Who stands behind the names of a namespace.
#[derive(Debug, Default)]
struct Names {
    /// By pod and by owner; the ports are not known yet.
    workloads: HashMap<String, Vec<Found>>,
    services: HashMap<String, Behind>,
}

#[derive(Debug, Default)]
struct Behind {
    ports: BTreeMap<u16, Vec<Found>>,
}

/// A compiled world that can be asked.
#[derive(Debug)]
pub struct Known {
    pub(crate) mesh: Arc<Mesh>,
    specs: HashMap<PolicyId, Arc<PolicySpec>>,
    objects: Vec<Arc<Object>>,
    names: HashMap<String, Names>,
    /// Namespaces of which nothing says whether they are in the mesh, and that are taken to be.
    pub(crate) assumed: BTreeSet<String>,
}

impl Known {
    /// What was compiled, and the objects that it was compiled from, for the places of what is named.
    ///
    /// # Errors
    /// There is no node, or its snapshot is none that a proxy can serve from.
    pub fn new(compiled: &Compiled, objects: &[Arc<Object>]) -> Result<Self, Unknown> {
        let index = |resources| Index::build(resources).map_err(|e| Unknown::Index(e.to_string()));
        let nodes = compiled.nodes.iter();
        let nodes: BTreeMap<&str, Index> = nodes
            .map(|(node, resources)| Ok((node.as_str(), index(resources)?)))
            .collect::<Result<_, Unknown>>()?;
        let any = nodes.values().next();
        let any = any.ok_or_else(|| Unknown::Index("there is no node".to_owned()))?;
        let mut specs = HashMap::new();
        for (_, resource) in compiled.nodes.values().flat_map(|resources| resources.iter()) {
            if let Resource::Policy(spec) = resource.as_ref() {
                specs.insert(spec.id.clone(), Arc::clone(spec));
            }
        }
        let mut known = Self {
            mesh: Arc::clone(any.mesh()),
            specs,
            objects: objects.to_vec(),
            names: HashMap::new(),
            assumed: BTreeSet::new(),
        };
        known.workloads(any, &nodes);
        known.services(any, &nodes);
        Ok(known)
    }

    /// Only the node of a pod knows what may come in to it.
    fn workloads(&mut self, any: &Index, nodes: &BTreeMap<&str, Index>) {
        let mut all: Vec<_> = any.workloads().collect();
        all.sort_by(|a, b| a.pod.cmp(&b.pod));
        for workload in all {
            let found = found(workload, nodes, 0, None);
            let names = self.names.entry(workload.pod.namespace().to_owned()).or_default();
            let mut add = |name: &str| join(names.workloads.entry(name.to_owned()).or_default(), &found);
            add(workload.pod.name());
            if workload.workload.name() != workload.pod.name() {
                add(workload.workload.name());
            }
        }
    }

    fn services(&mut self, any: &Index, nodes: &BTreeMap<&str, Index>) {
        for service in any.services() {
            let host: Arc<str> = Arc::from(service.host.as_str());
            let mut behind = Behind::default();
            for port in &service.ports {
                let list = behind.ports.entry(port.port).or_default();
                for endpoint in &service.endpoints {
                    if let Some(target) = endpoint.ports.get(&port.port)
                        && let Some(workload) = any.workload(&endpoint.uid)
                    {
                        let asked = Some((Arc::clone(&host), port.port));
                        join(list, &found(workload, nodes, *target, asked));
                    }
                }
            }
            let names = self.names.entry(service.name.namespace().to_owned()).or_default();
            names.services.insert(service.name.name().to_owned(), behind);
        }
    }

    /// Each kind of replica that the target stands for; at least one.
    pub(crate) fn find(&self, target: &Target<'_>, labelled: Option<&str>) -> Result<Vec<&Found>, Unknown> {
        let names = self.names.get(&*target.namespace);
        if let Some(service) = &target.service {
            return behind(names, target, service);
        }
        let name = match (&target.workload, labelled) {
            (Some(name), _) => &**name,
            (None, Some(pod)) => pod,
            (None, None) => return Err(Unknown::Nothing),
        };
        names
            .and_then(|names| names.workloads.get(name))
            .map(|found| found.iter().collect())
            .ok_or_else(|| Unknown::Workload(format!("{}/{name}", target.namespace)))
    }

    /// As [`Self::find`], of all ports: each kind of replica once.
    pub(crate) fn whatever_port(
        &self,
        target: &Target<'_>,
        labelled: Option<&str>,
    ) -> Result<Vec<&Found>, Unknown> {
        let names = self.names.get(&*target.namespace);
        let behind = target
            .service
            .as_ref()
            .and_then(|service| names?.services.get(&**service));
        let Some(behind) = behind.filter(|behind| behind.ports.len() > 1) else {
            return self.find(target, labelled);
        };
        let mut found: Vec<&Found> = Vec::new();
        for one in behind.ports.values().flatten() {
            if !found.iter().any(|known| known.pods == one.pods) {
                found.push(one);
            }
        }
        match found.is_empty() {
            true => self.find(target, labelled),
            false => Ok(found),
        }
    }

    /// The ports of a pod that Services or PeerAuthentications name.
    pub(crate) fn declared(&self, namespace: &str, pod: &str) -> Vec<u16> {
        let found = self
            .names
            .get(namespace)
            .and_then(|names| names.workloads.get(pod));
        let inbound = found
            .into_iter()
            .flatten()
            .filter_map(|found| found.workload.inbound.as_ref());
        inbound
            .flat_map(|inbound| &inbound.ports)
            .map(|port| port.port)
            .collect()
    }

    /// A policy as it travels to the proxies.
    pub(crate) fn spec(&self, id: &PolicyId) -> Option<&PolicySpec> {
        self.specs.get(id).map(AsRef::as_ref)
    }

    /// Where a rule was written, else the policy.
    pub(crate) fn rule_at(&self, id: &PolicyId, rule: Option<usize>) -> Option<String> {
        let spec = self.spec(id)?;
        let line = rule.and_then(|rule| spec.rules.get(rule)).map(|rule| rule.line);
        place(
            &spec.origin.file,
            line.filter(|line| *line > 0).unwrap_or(spec.origin.line),
        )
    }

    /// Where an object was written.
    pub(crate) fn origin(&self, kind: &str, namespace: &str, name: &str) -> (String, u32) {
        let mut objects = self.objects.iter();
        let object =
            objects.find(|o| o.kind_name == kind && o.meta.namespace == namespace && o.meta.name == name);
        object.map_or_else(Default::default, |o| (o.origin.file.clone(), o.origin.line))
    }

    /// The settings of the mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }
}

fn behind<'k>(
    names: Option<&'k Names>,
    target: &Target<'_>,
    service: &str,
) -> Result<Vec<&'k Found>, Unknown> {
    let text = || ServiceName::new(&target.namespace, service).to_string();
    let behind = names
        .and_then(|names| names.services.get(service))
        .ok_or_else(|| Unknown::Service(text()))?;
    let listed = || {
        let ports: Vec<_> = behind.ports.keys().map(u16::to_string).collect();
        ports.join(", ")
    };
    let found = match (target.port, behind.ports.len()) {
        (0, 1) => behind.ports.values().next(),
        (0, 0) => return Err(Unknown::NobodyBehind(text())),
        (0, _) => return Err(Unknown::WhichPort(text(), listed())),
        (port, _) => behind.ports.get(&port),
    };
    match found {
        None => Err(Unknown::Port(text(), target.port, listed())),
        Some(found) if found.is_empty() => Err(Unknown::NobodyBehind(text())),
        Some(found) => Ok(found.iter().collect()),
    }
}

fn found(
    workload: &Arc<Workload>,
    nodes: &BTreeMap<&str, Index>,
    port: u16,
    service: Option<(Arc<str>, u16)>,
) -> Found {
    let own = nodes.get(workload.node.as_str());
    let known = own
        .and_then(|index| index.workload(&workload.uid))
        .unwrap_or(workload);
    Found {
        policies: own.and_then(|index| index.policies(&workload.uid)).cloned(),
        authentication: own.and_then(|index| index.authentication(&workload.uid)).cloned(),
        pods: vec![workload.pod.to_string()],
        count: 1,
        workload: Arc::clone(known),
        port,
        service,
    }
}

/// Adds a replica to those that decide as it does, else as a kind of its own.
fn join(list: &mut Vec<Found>, new: &Found) {
    let alike = |old: &&mut Found| {
        let same = match (&old.policies, &new.policies) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a.names().eq(b.names()),
            (None, None) => old.workload.identity.is_some() == new.workload.identity.is_some(),
            _ => false,
        };
        same && old.port == new.port && old.workload.inbound == new.workload.inbound
    };
    match list.iter_mut().find(alike) {
        Some(old) => {
            if old.pods.len() < MAX_NAMED {
                old.pods.extend(new.pods.iter().cloned());
            }
            old.count += 1;
        }
        None => list.push(new.clone()),
    }
}
