//! A world made of files alone: for each workload a pod, so that the compiler has something to decide for.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::sync::Arc;

use api::{Kind, Meta, Object, OwnerReference, Pod, PodIp, PodStatus, PodTemplate};
use compiler::{Compiled, Options, World};

use crate::known::{Known, Unknown};
use crate::question::{Labels, Target};

/// The one node of a world that runs nowhere.
const NODE: &str = "offline";
/// Where the addresses of its pods begin.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Targets that are given by labels alone and known at once; each is a pod of its own.
pub const MAX_LABELLED: usize = 2_000;

/// Stand-ins by namespace and labels: their places among the pods.
type StandIns = HashMap<String, HashMap<Labels<'static>, usize>>;

/// A world, compiled, ready to be asked.
#[derive(Debug)]
pub struct Offline {
    world: World,
    compiled: Compiled,
    known: Known,
    /// Whether namespaces that no object declares are taken to be in the mesh.
    assuming: bool,
    /// The pods that stand for labels: the last ones of the world's.
    labelled: StandIns,
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
            jwks: std::collections::BTreeMap::new(),
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
            labelled: StandIns::new(),
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
        let targets: Vec<&Target<'_>> = targets.filter(|target| by_labels(target).is_some()).collect();
        let mut new = unknown(&self.labelled, &targets);
        if new.is_empty() {
            return Ok(());
        }
        let known: usize = self.labelled.values().map(HashMap::len).sum();
        if known + new.len() > MAX_LABELLED {
            let stay = self.world.pods.len().saturating_sub(known);
            self.world.pods.truncate(stay);
            self.labelled.clear();
            new = unknown(&self.labelled, &targets);
        }
        if new.len() > MAX_LABELLED {
            return Err(Unknown::TooMany(MAX_LABELLED));
        }
        for (namespace, labels) in new {
            self.stand_for(namespace, labels);
        }
        let assumed = std::mem::take(&mut self.known.assumed);
        (self.compiled, self.known) = compile(&mut self.world, self.assuming)?;
        self.known.assumed.extend(assumed);
        Ok(())
    }

    fn stand_for(&mut self, namespace: &str, labels: &Labels<'_>) {
        let number = self.world.pods.len();
        let pairs = labels
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()));
        let mut pod = Pod {
            metadata: Meta {
                name: format!("labels-{number}"),
                namespace: namespace.to_owned(),
                labels: pairs.clone().collect(),
                ..Meta::default()
            },
            ..Pod::default()
        };
        place(&mut pod, number);
        self.world.pods.push(Arc::new(pod));
        let own = pairs.map(|(key, value)| (key.into(), value.into())).collect();
        self.labelled
            .entry(namespace.to_owned())
            .or_default()
            .insert(own, number);
    }

    /// The pod that stands for the labels of a target.
    pub(crate) fn stand_in(&self, target: &Target<'_>) -> Option<&str> {
        let number = place_of(&self.labelled, &target.namespace, by_labels(target)?)?;
        let pod = self.world.pods.get(number)?;
        Some(&pod.metadata.name)
    }
}

fn place_of(stand_ins: &StandIns, namespace: &str, labels: &Labels<'_>) -> Option<usize> {
    let known: &HashMap<Labels<'_>, usize> = stand_ins.get(namespace)?;
    known.get(labels).copied()
}

/// The labels of a target that has nothing else.
fn by_labels<'t, 'q>(target: &'t Target<'q>) -> Option<&'t Labels<'q>> {
    let labels = target.labels.as_ref();
    labels.filter(|_| target.workload.is_none() && target.service.is_none())
}

/// Those of the targets that nothing stands for, each once.
fn unknown<'t, 'q>(stand_ins: &StandIns, targets: &[&'t Target<'q>]) -> BTreeSet<(&'t str, &'t Labels<'q>)> {
    let named = targets
        .iter()
        .filter_map(|target| Some((&*target.namespace, by_labels(target)?)));
    named
        .filter(|(namespace, labels)| place_of(stand_ins, namespace, labels).is_none())
        .collect()
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
