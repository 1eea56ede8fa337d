//! A world made of files alone: for each workload a pod, so that the compiler has something to decide for.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use api::{Kind, Meta, Object, OwnerReference, Pod, PodIp, PodStatus, PodTemplate};
use compiler::{Compiled, Options, World};
use model::ServiceName;
use snapshot::{Index, Workload};

use crate::question::Target;

/// The one node of a world that runs nowhere.
const NODE: &str = "offline";
/// Where the addresses of its pods begin.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Targets that are given by labels alone; each is a pod of its own.
const MAX_LABELLED: usize = 10_000;

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
    #[error("the Service `{0}` has no port {1}")]
    Port(String, u16),
    /// The target names nothing.
    #[error("the target names neither a workload nor a Service nor labels")]
    Nothing,
    /// There are too many of them.
    #[error("more than {MAX_LABELLED} targets are given by labels alone")]
    TooMany,
    /// The world has no settings.
    #[error("the world cannot be indexed: {0}")]
    Index(String),
}

/// A world, compiled, ready to be asked.
#[derive(Debug)]
pub struct Offline {
    world: World,
    compiled: Compiled,
    pub(crate) index: Index,
    /// Pods that stand for labels, by namespace and labels.
    labelled: BTreeMap<Target, String>,
}

/// A workload port that was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) workload: Arc<Workload>,
    pub(crate) port: u16,
    /// The Service that was asked for.
    pub(crate) service: Option<ServiceName>,
}

impl Offline {
    /// A world of these objects. Pods that exist may be given; workloads without one get one of their own.
    ///
    /// # Errors
    /// The compiler made nothing that can be asked.
    pub fn new(objects: Vec<Arc<Object>>, pods: Vec<Arc<Pod>>, options: Options) -> Result<Self, Unknown> {
        let mut world = World {
            objects,
            pods,
            nodes: vec![NODE.to_owned()],
            roots: Vec::new(),
            jwks: BTreeMap::new(),
            options,
        };
        let made = made_up(&world);
        world.pods.extend(made);
        for (number, pod) in world.pods.iter_mut().enumerate() {
            place(Arc::make_mut(pod), number);
        }
        let (compiled, index) = compile(&world)?;
        Ok(Self {
            world,
            compiled,
            index,
            labelled: BTreeMap::new(),
        })
    }

    /// What the compiler said: problems, effects, pods.
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// Makes targets that are given by labels alone known, all at once: each new one costs compiling the world again.
    ///
    /// # Errors
    /// There are too many.
    pub fn prepare<'t>(&mut self, targets: impl Iterator<Item = &'t Target>) -> Result<(), Unknown> {
        let mut new = false;
        for target in targets {
            let Some(labels) = &target.labels else { continue };
            let key = labelled(target);
            if self.labelled.contains_key(&key) {
                continue;
            }
            if self.labelled.len() >= MAX_LABELLED {
                return Err(Unknown::TooMany);
            }
            let name = format!("labels-{}", self.labelled.len());
            let mut pod = Pod {
                metadata: Meta {
                    name: name.clone(),
                    namespace: target.namespace.clone(),
                    labels: labels.clone(),
                    ..Meta::default()
                },
                ..Pod::default()
            };
            place(&mut pod, self.world.pods.len());
            self.world.pods.push(Arc::new(pod));
            self.labelled.insert(key, name);
            new = true;
        }
        if new {
            (self.compiled, self.index) = compile(&self.world)?;
        }
        Ok(())
    }

    pub(crate) fn find(&self, target: &Target) -> Result<Found, Unknown> {
        if let Some(service) = &target.service {
            return self.behind(target, service);
        }
        let name = match (&target.workload, &target.labels) {
            (Some(name), _) => name.as_str(),
            (None, Some(_)) => self
                .labelled
                .get(&labelled(target))
                .map(String::as_str)
                .ok_or(Unknown::Nothing)?,
            (None, None) => return Err(Unknown::Nothing),
        };
        let is = |w: &&Arc<Workload>| {
            w.pod.namespace() == target.namespace && (w.pod.name() == name || w.workload.name() == name)
        };
        let mut found: Vec<_> = self.index.workloads().filter(is).collect();
        found.sort_by(|a, b| a.uid.as_str().cmp(b.uid.as_str()));
        let workload = found
            .first()
            .ok_or_else(|| Unknown::Workload(format!("{}/{name}", target.namespace)))?;
        Ok(Found {
            workload: Arc::clone(workload),
            port: target.port,
            service: None,
        })
    }

    fn behind(&self, target: &Target, service: &str) -> Result<Found, Unknown> {
        let name = ServiceName::new(&target.namespace, service);
        let text = || format!("{}/{service}", target.namespace);
        let found = self
            .index
            .service(&name)
            .ok_or_else(|| Unknown::Service(text()))?;
        if !found.ports.iter().any(|p| p.port == target.port) {
            return Err(Unknown::Port(text(), target.port));
        }
        let mut endpoints = found.endpoints.iter();
        let hit = endpoints.find_map(|e| {
            let port = *e.ports.get(&target.port)?;
            Some((self.index.workload(&e.uid)?, port))
        });
        let (workload, port) = hit.ok_or_else(|| Unknown::NobodyBehind(text()))?;
        Ok(Found {
            workload: Arc::clone(workload),
            port,
            service: Some(name),
        })
    }

    /// Where an object was written.
    pub(crate) fn origin(&self, kind: &str, namespace: &str, name: &str) -> (String, u32) {
        let mut objects = self.world.objects.iter();
        let object =
            objects.find(|o| o.kind_name == kind && o.meta.namespace == namespace && o.meta.name == name);
        object.map_or_else(Default::default, |o| (o.origin.file.clone(), o.origin.line))
    }
}

fn labelled(target: &Target) -> Target {
    Target {
        namespace: target.namespace.clone(),
        labels: target.labels.clone(),
        ..Target::default()
    }
}

fn compile(world: &World) -> Result<(Compiled, Index), Unknown> {
    let compiled = compiler::compile(world);
    let resources = compiled.nodes.get(NODE).cloned().unwrap_or_default();
    let index = Index::build(&resources).map_err(|e| Unknown::Index(e.to_string()))?;
    Ok((compiled, index))
}

/// A pod for each workload that has none.
fn made_up(world: &World) -> Vec<Arc<Pod>> {
    let mut out = Vec::new();
    for object in &world.objects {
        let template: &PodTemplate = match &object.kind {
            Kind::Deployment(body) | Kind::StatefulSet(body) | Kind::DaemonSet(body) => &body.template,
            Kind::Job(body) => &body.template,
            Kind::Pod(pod) => {
                if !world.pods.iter().any(|p| same(&p.metadata, &object.meta)) {
                    out.push(Arc::new(pod.as_ref().clone()));
                }
                continue;
            }
            _ => continue,
        };
        let owned = |pod: &Arc<Pod>| {
            pod.metadata.namespace == object.meta.namespace
                && pod.metadata.owner_references.iter().any(|o| {
                    o.name == object.meta.name || o.name.starts_with(&format!("{}-", object.meta.name))
                })
        };
        if world.pods.iter().any(owned) {
            continue;
        }
        let metadata = Meta {
            name: format!("{}-0", object.meta.name),
            namespace: object.meta.namespace.clone(),
            labels: template.metadata.labels.clone(),
            annotations: template.metadata.annotations.clone(),
            owner_references: vec![OwnerReference {
                kind: object.kind_name.clone(),
                name: object.meta.name.clone(),
                controller: Some(true),
                ..OwnerReference::default()
            }],
            ..Meta::default()
        };
        out.push(Arc::new(Pod {
            metadata,
            spec: template.spec.clone(),
            ..Pod::default()
        }));
    }
    out
}

fn same(a: &Meta, b: &Meta) -> bool {
    a.namespace == b.namespace && a.name == b.name
}

/// On the one node, with an address of its own, ready.
fn place(pod: &mut Pod, number: usize) {
    pod.spec.node_name = NODE.to_owned();
    if pod.status.addresses().is_empty() {
        let offset = u32::try_from(number).unwrap_or(u32::MAX);
        let address = IpAddr::V4(Ipv4Addr::from(u32::from(FIRST_ADDRESS).saturating_add(offset)));
        pod.status = PodStatus {
            phase: "Running".to_owned(),
            pod_ip: address.to_string(),
            pod_ips: vec![PodIp {
                ip: address.to_string(),
            }],
            ..PodStatus::default()
        };
    }
    pod.status.set_ready(true);
}
