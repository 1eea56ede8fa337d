//! A pod: its place, its containers, and its life from the first attempt to its last trace.

mod container;
mod network;
mod probe;
mod ready;
mod resolve;
mod state;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{Meta, PodSpec};
use capture::Netns;
use capture::node::PodPort;
use model::SpiffeId;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::desired::{OwnerKey, Wanted};
use crate::process::Inside;
use crate::process::logbook::Logbook;
use crate::site::Site;
use container::{Ended, Keeper};
use resolve::{Resolved, Restart};

pub(crate) use container::terminate;
pub(crate) use state::{ContainerState, Phase, PodState, as_kubernetes};

/// How long a pod that is to end may take where it does not say.
const GRACE: Duration = Duration::from_secs(30);

/// How long to wait before a pod is attached again that could not be.
const ATTACH_PAUSE: Duration = Duration::from_secs(1);

/// Whether a pod is to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// It is.
    Run,
    /// It is to end, and may take as long as it asks for.
    Stop,
    /// It is to end soon: everything does.
    StopSoon,
    /// It is to end at once.
    Kill,
}

/// A pod that exists, as everybody but its own task sees it.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) owner: OwnerKey,
    pub(crate) hash: String,
    pub(crate) sequence: u32,
    /// With name, namespace, uid, labels and owner.
    pub(crate) meta: Meta,
    pub(crate) spec: PodSpec,
    /// The index of its node.
    pub(crate) node: u8,
    pub(crate) port: PodPort,
    /// IPv4 first; the node's for one in the node's network.
    pub(crate) ips: Vec<IpAddr>,
    /// In the mesh.
    pub(crate) identity: Option<SpiffeId>,
    /// The name of its network namespace.
    pub(crate) netns: String,
    pub(crate) state: watch::Sender<PodState>,
    pub(crate) order: watch::Sender<Order>,
    /// Containers that run, and the logs of all.
    live: Mutex<BTreeMap<String, Live>>,
    logs: Mutex<BTreeMap<String, Arc<Logbook>>>,
}

/// A container that runs: what `exec` needs.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) inside: Arc<Inside>,
    pub(crate) launch: Arc<resolve::Launch>,
}

impl Pod {
    pub(crate) fn new(
        owner: OwnerKey,
        (hash, sequence): (String, u32),
        meta: Meta,
        spec: PodSpec,
        (node, port): (u8, PodPort),
        ips: Vec<IpAddr>,
        identity: Option<SpiffeId>,
        netns: String,
    ) -> Self {
        let names: Vec<String> = spec
            .init_containers
            .iter()
            .chain(&spec.containers)
            .map(|c| c.name.clone())
            .collect();
        Self {
            owner,
            hash,
            sequence,
            meta,
            spec,
            node,
            port,
            ips,
            identity,
            netns,
            state: watch::Sender::new(PodState::new(names)),
            order: watch::Sender::new(Order::Run),
            live: Mutex::default(),
            logs: Mutex::default(),
        }
    }

    /// `namespace/name`.
    pub(crate) fn shown(&self) -> String {
        format!("{}/{}", self.meta.namespace, self.meta.name)
    }

    pub(crate) fn uid(&self) -> &str {
        self.meta.uid.as_deref().unwrap_or_default()
    }

    /// Whether it is on its way out.
    pub(crate) fn leaving(&self) -> bool {
        *self.order.borrow() != Order::Run
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<String, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container that runs: the one of that name, or the first of the pod.
    pub(crate) fn container(&self, name: Option<&str>) -> Option<Live> {
        let name = self.container_name(name)?;
        self.live().get(name).cloned()
    }

    /// What a container has printed; that of the first where no name is given.
    pub(crate) fn log(&self, name: Option<&str>) -> Option<Arc<Logbook>> {
        let name = self.container_name(name)?;
        self.logs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    fn container_name<'a>(&'a self, name: Option<&'a str>) -> Option<&'a str> {
        name.or_else(|| self.spec.containers.first().map(|c| c.name.as_str()))
    }

    /// The names of its containers.
    pub(crate) fn container_names(&self) -> Vec<&str> {
        self.spec
            .init_containers
            .iter()
            .chain(&self.spec.containers)
            .map(|c| c.name.as_str())
            .collect()
    }

    /// The book of a container, made with its first use.
    fn book(&self, site: &Site, name: &str) -> Result<Arc<Logbook>, String> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(book) = logs.get(name) {
            return Ok(Arc::clone(book));
        }
        let path = site
            .run
            .logs()
            .join(format!("{}_{}_{name}.log", self.meta.namespace, self.meta.name));
        let book =
            Logbook::new(path.clone()).map_err(|e| format!("cannot make `{}`: {e}", path.display()))?;
        logs.insert(name.to_owned(), Arc::clone(&book));
        Ok(book)
    }

    fn update(&self, change: impl FnOnce(&mut PodState)) {
        self.state.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            *state != before
        });
    }

    /// How long it may take to end.
    fn grace(&self) -> Duration {
        self.spec
            .termination_grace_period_seconds
            .map_or(GRACE, Duration::from_secs)
    }
}

/// The life of a pod. Returns when nothing of it is left. `changed` is told of each change of its state.
pub(crate) async fn live(
    site: Arc<Site>,
    pod: Arc<Pod>,
    wanted: watch::Receiver<Arc<Wanted>>,
    changed: Arc<Notify>,
) {
    let told = {
        let (mut states, changed) = (pod.state.subscribe(), Arc::clone(&changed));
        tokio::spawn(async move {
            while states.changed().await.is_ok() {
                changed.notify_one();
            }
        })
    };
    if let Some(resolved) = resolved(&site, &pod, wanted).await {
        if let Some(netns) = attached(&site, &pod).await {
            run(&site, &pod, resolved, netns).await;
        }
        network::detach(&site, &pod).await;
    }
    told.abort();
    remove_logs(&pod);
}

/// Waits until everything that the pod refers to is there; `None` where it is to end before.
async fn resolved(site: &Site, pod: &Pod, mut wanted: watch::Receiver<Arc<Wanted>>) -> Option<Resolved> {
    let mut order = pod.order.subscribe();
    loop {
        let now = Arc::clone(&wanted.borrow_and_update());
        match resolve::resolve(site, pod, &now) {
            Ok(resolved) => {
                pod.update(|state| state.message.clear());
                return Some(resolved);
            }
            Err(why) => pod.update(|state| state.message = why),
        }
        tokio::select! {
            _ = order.wait_for(|order| *order != Order::Run) => return None,
            changed = wanted.changed() => changed.ok()?,
        }
    }
}

/// Attaches the pod, again and again until that is possible; `None` where it is to end before.
async fn attached(site: &Arc<Site>, pod: &Arc<Pod>) -> Option<Arc<Netns>> {
    loop {
        match network::attach(Arc::clone(site), Arc::clone(pod)).await {
            Ok(netns) => {
                pod.update(|state| state.message.clear());
                return Some(netns);
            }
            Err(why) => pod.update(|state| state.message = why),
        }
        network::detach(site, pod).await;
        tokio::select! {
            () = tokio::time::sleep(ATTACH_PAUSE) => {}
            () = ordered(pod) => return None,
        }
    }
}

async fn ordered(pod: &Pod) {
    let mut order = pod.order.subscribe();
    let _ = order.wait_for(|order| *order != Order::Run).await;
}

async fn run(site: &Arc<Site>, pod: &Arc<Pod>, resolved: Resolved, netns: Arc<Netns>) {
    let keeper = |launch: resolve::Launch, restart: Restart| Keeper {
        site: Arc::clone(site),
        pod: Arc::clone(pod),
        netns: Arc::clone(&netns),
        launch: Arc::new(launch),
        restart,
    };
    let mut running = JoinSet::new();
    for launch in resolved.init {
        if launch.sidecar {
            running.spawn(keeper(launch, Restart::Always).keep());
            continue;
        }
        let restart = if resolved.restart == Restart::Never {
            Restart::Never
        } else {
            Restart::OnFailure
        };
        match keeper(launch, restart).keep().await {
            Ended::Ordered => return finish(running).await,
            Ended::Code(0) => {}
            Ended::Code(_) => {
                pod.update(|state| state.phase = Phase::Failed);
                ordered(pod).await;
                return finish(running).await;
            }
        }
    }
    pod.update(|state| state.phase = Phase::Running);
    let certificate = tokio::spawn(ready::certificate(Arc::clone(site), Arc::clone(pod)));
    let sidecars = running;
    let mut running = JoinSet::new();
    for launch in resolved.main {
        running.spawn(keeper(launch, resolved.restart).keep());
    }
    let (mut failed, mut told) = (false, false);
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok(Ended::Code(0)) => {}
            Ok(Ended::Ordered) => told = true,
            Ok(Ended::Code(_)) | Err(_) => failed = true,
        }
    }
    certificate.abort();
    if !told {
        let phase = if failed { Phase::Failed } else { Phase::Succeeded };
        pod.update(|state| state.phase = phase);
        ordered(pod).await;
    }
    finish(sidecars).await;
}

/// Those that are left see the order themselves.
async fn finish(mut running: JoinSet<Ended>) {
    while running.join_next().await.is_some() {}
}

fn remove_logs(pod: &Pod) {
    for book in pod.logs.lock().unwrap_or_else(PoisonError::into_inner).values() {
        let _ = std::fs::remove_file(book.path());
        let _ = std::fs::remove_file(book.path().with_extension("log.1"));
    }
}
