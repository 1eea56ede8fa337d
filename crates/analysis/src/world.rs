//! A world made of files alone: for each workload a pod, so that the compiler has something to decide for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::sync::Arc;

use api::{Kind, Meta, Object, OwnerReference, Pod, PodIp, PodStatus, PodTemplate};
use compiler::{Compiled, Options, World};

use crate::known::{Known, Unknown};
use crate::question::Target;

/// The one node of a world that runs nowhere.
const NODE: &str = "offline";
/// Where the addresses of its pods begin.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Targets that are given by labels alone and known at once; each is a pod of its own.
pub const MAX_LABELLED: usize = 2_000;

/// A target that is given by labels: its namespace, and they.
type Labels = (String, BTreeMap<String, String>);

/// A world, compiled, ready to be asked.
#[derive(Debug)]
pub struct Offline {
    world: World,
    compiled: Compiled,
    known: Known,
    /// Whether namespaces that no object declares are taken to be in the mesh.
    assuming: bool,
    /// How many of the world's pods stand for labels: the last ones.
    labelled: BTreeMap<Labels, String>,
}

impl Deref for Offline {
    type Target = Known;

    fn deref(&self) -> &Known {
        &self.known
    }
}

impl Offline {
    /// A world of these objects. Pods that exist may be given; workloads without one get one of their own.
    ///
    /// # Errors
    /// The compiler made nothing that can be asked.
    pub fn new(objects: Vec<Arc<Object>>, pods: Vec<Arc<Pod>>, options: Options) -> Result<Self, Unknown> {
        Self::of(objects, pods, options, false)
    }

    /// As [`Self::new`], for questions about policies whose namespaces stand elsewhere: a namespace that no object
    /// declares is taken to be in the mesh.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn assuming(
        objects: Vec<Arc<Object>>,
        pods: Vec<Arc<Pod>>,
        options: Options,
    ) -> Result<Self, Unknown> {
        Self::of(objects, pods, options, true)
    }

    fn of(
        objects: Vec<Arc<Object>>,
        pods: Vec<Arc<Pod>>,
        options: Options,
        assuming: bool,
    ) -> Result<Self, Unknown> {
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
        let (compiled, known) = compile(&mut world, assuming)?;
        Ok(Self {
            world,
            compiled,
            known,
            assuming,
            labelled: BTreeMap::new(),
        })
    }

    /// What the compiler said: problems, effects, pods.
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// The objects.
    pub fn objects(&self) -> &[Arc<Object>] {
        &self.world.objects
    }

    /// The pods, those included that stand for workloads.
    pub(crate) fn pods(&self) -> &[Arc<Pod>] {
        &self.world.pods
    }

    /// Makes targets that are given by labels alone known, all at once: new ones cost compiling the world again.
    ///
    /// Where there are more than [`MAX_LABELLED`], those of earlier calls are forgotten.
    ///
    /// # Errors
    /// There are too many of them in this one call.
    pub fn prepare<'t>(&mut self, targets: impl Iterator<Item = &'t Target<'t>>) -> Result<(), Unknown> {
        let wanted: BTreeSet<Labels> = targets.filter_map(labels).collect();
        let new = |known: &BTreeMap<Labels, String>| {
            let new = wanted.iter().filter(|labels| !known.contains_key(*labels));
            new.cloned().collect::<Vec<_>>()
        };
        let mut add = new(&self.labelled);
        if add.is_empty() {
            return Ok(());
        }
        if wanted.len() > MAX_LABELLED {
            return Err(Unknown::TooMany(MAX_LABELLED));
        }
        if self.labelled.len() + add.len() > MAX_LABELLED {
            let stay = self.world.pods.len().saturating_sub(self.labelled.len());
            self.world.pods.truncate(stay);
            self.labelled.clear();
            add = new(&self.labelled);
        }
        for (namespace, labels) in add {
            let name = format!("labels-{}", self.labelled.len());
            let mut pod = Pod {
                metadata: Meta {
                    name: name.clone(),
                    namespace: namespace.clone(),
                    labels: labels.clone(),
                    ..Meta::default()
                },
                ..Pod::default()
            };
            place(&mut pod, self.world.pods.len());
            self.world.pods.push(Arc::new(pod));
            self.labelled.insert((namespace, labels), name);
        }
        let assumed = std::mem::take(&mut self.known.assumed);
        (self.compiled, self.known) = compile(&mut self.world, self.assuming)?;
        self.known.assumed.extend(assumed);
        Ok(())
    }

    /// The pod that stands for the labels of a target.
    pub(crate) fn stand_in(&self, target: &Target<'_>) -> Option<&str> {
        self.labelled.get(&labels(target)?).map(String::as_str)
    }
}

fn labels(target: &Target<'_>) -> Option<Labels> {
    if target.workload.is_some() || target.service.is_some() {
        return None;
    }
    let labels = target.labels.clone()?;
    Some((target.namespace.to_string(), labels))
}

fn compile(world: &mut World, assuming: bool) -> Result<(Compiled, Known), Unknown> {
    let assumed = if assuming { declare(world) } else { BTreeSet::new() };
    let compiled = compiler::compile(world);
    let mut known = Known::new(&compiled, &world.objects)?;
    known.assumed = assumed;
    Ok((compiled, known))
}

/// Declares the namespaces of pods that no object declares, as in the mesh.
fn declare(world: &mut World) -> BTreeSet<String> {
    let mut missing: BTreeSet<String> = world
        .pods
        .iter()
        .map(|pod| pod.metadata.namespace.clone())
        .collect();
    for object in &world.objects {
        if matches!(object.kind, Kind::Namespace(..)) {
            missing.remove(&object.meta.name);
        }
    }
    for namespace in &missing {
        let text = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {"istio-injection": "enabled"}},
        });
        let parsed = api::parse("", text.to_string().as_bytes());
        world.objects.extend(parsed.objects.into_iter().map(Arc::new));
    }
    missing
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
