//! The one owner of all pods: takes what is wanted, does what the plan says, tells the control plane what there is.

mod control;
mod make;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use admin::verbs::{Desired, Report};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::desired::{OwnerKey, Wanted};
use crate::plan::{End, Plan, Seen, plan};
use crate::pod::{self, Order, Pod, as_kubernetes};
use crate::show::Notice;
use crate::site::Site;
use make::Places;

pub(crate) use control::{follow, report, services};

/// How many changes of what is wanted wait to be taken.
pub(crate) const QUEUE: usize = 4;

/// The pods, as everybody else sees them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overview {
    /// Ordered by namespace and name.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// What is not there yet, where something is not: a sentence each.
    pub(crate) waiting_for: Vec<String>,
    /// Whether the control plane has said what is wanted.
    pub(crate) told: bool,
}

impl Overview {
    /// Whether everything that is wanted is there and ready.
    pub(crate) fn ready(&self) -> bool {
        self.told && self.waiting_for.is_empty()
    }
}

/// Where the owner of the pods writes to.
#[derive(Debug)]
pub(crate) struct Outputs {
    pub(crate) overview: watch::Sender<Arc<Overview>>,
    pub(crate) report: watch::Sender<Arc<Report>>,
    pub(crate) services: watch::Sender<Arc<Vec<serde_json::Value>>>,
    pub(crate) notices: mpsc::Sender<Notice>,
}

/// The owner of the pods.
#[derive(Debug)]
pub(crate) struct Engine {
    site: Arc<Site>,
    out: Outputs,
    pods: BTreeMap<String, Arc<Pod>>,
    tasks: JoinSet<String>,
    /// How many pods each owner has made.
    born: BTreeMap<OwnerKey, u32>,
    places: Places,
    wanted: watch::Sender<Arc<Wanted>>,
    trust_domain: model::TrustDomain,
    changed: Arc<Notify>,
    told: bool,
    /// In every uid, so that none comes again with the next mesh.
    nonce: String,
}

impl Engine {
    pub(crate) fn new(site: Arc<Site>, out: Outputs) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            places: Places::new(site.nodes.len()),
            trust_domain: site.trust_domain.clone(),
            site,
            out,
            pods: BTreeMap::new(),
            tasks: JoinSet::new(),
            born: BTreeMap::new(),
            wanted: watch::Sender::default(),
            changed: Arc::default(),
            told: false,
            nonce: format!("{}-{}", now.as_nanos(), std::process::id()),
        }
    }

    /// Runs until the order is given to end, and then until no pod is left.
    pub(crate) async fn run(
        mut self,
        mut desired: mpsc::Receiver<Desired>,
        mut order: watch::Receiver<Order>,
    ) {
        loop {
            tokio::select! {
                Some(desired) = desired.recv() => self.take(desired),
                () = self.changed.notified() => {}
                Some(gone) = self.tasks.join_next(), if !self.tasks.is_empty() => self.forget(gone),
                _ = order.wait_for(|order| *order != Order::Run) => break,
            }
            self.reconcile();
        }
        loop {
            let now = *order.borrow_and_update();
            for pod in self.pods.values() {
                pod.order
                    .send_if_modified(|order| std::mem::replace(order, now) != now);
            }
            tokio::select! {
                gone = self.tasks.join_next() => match gone {
                    Some(gone) => self.forget(gone),
                    None => return,
                },
                changed = order.changed() => if changed.is_err() { return },
            }
        }
    }

    fn forget(&mut self, gone: Result<String, tokio::task::JoinError>) {
        if let Ok(uid) = gone
            && let Some(pod) = self.pods.remove(&uid)
        {
            self.places.free(pod.node, pod.port.v4);
        }
    }

    fn take(&mut self, desired: Desired) {
        if let Ok(domain) = desired.trust_domain.parse() {
            self.trust_domain = domain;
        }
        self.told = true;
        self.wanted.send_replace(Arc::new(Wanted::read(&desired)));
        self.out.services.send_if_modified(|services| {
            let changed = **services != desired.plain_services;
            *services = Arc::new(desired.plain_services);
            changed
        });
        for problem in desired.problems {
            // Nobody may hold up the pods by reading slowly.
            let _ = self.out.notices.try_send(Notice::Problem(problem));
        }
    }

    fn reconcile(&mut self) {
        let wanted = Arc::clone(&self.wanted.borrow());
        let plan = if self.told {
            self.plan(&wanted)
        } else {
            Plan::default()
        };
        for uid in &plan.delete {
            if let Some(pod) = self.pods.get(uid) {
                pod.order.send_replace(Order::Stop);
            }
        }
        for new in &plan.create {
            if let Some(owner) = wanted.owners.get(&new.owner) {
                self.born
                    .insert(new.owner.clone(), new.sequence.saturating_add(1));
                self.create(new, owner);
            }
        }
        self.born.retain(|key, _| wanted.owners.contains_key(key));
        self.publish(&wanted, &plan);
    }

    fn plan(&self, wanted: &Wanted) -> Plan {
        let seen: Vec<Seen> = self.pods.values().map(|pod| seen(pod)).collect();
        plan(wanted, &seen, &self.born, &self.site.node_names())
    }

    fn create(&mut self, new: &crate::plan::NewPod, owner: &crate::desired::Owner) {
        let Some(place) = self.places.take(new.node, owner.template.spec.host_network) else {
            return;
        };
        let pod = Arc::new(make::pod(
            &self.site,
            &self.trust_domain,
            &self.nonce,
            new,
            owner,
            place,
        ));
        let uid = pod.uid().to_owned();
        self.pods.insert(uid.clone(), Arc::clone(&pod));
        let notices = self.out.notices.clone();
        let living = pod::live(
            Arc::clone(&self.site),
            Arc::clone(&pod),
            self.wanted.subscribe(),
            Arc::clone(&self.changed),
        );
        self.tasks.spawn(async move {
            let telling = tokio::spawn(crate::show::follow(pod, notices));
            // Should it break, the pod is gone all the same, and the next plan makes another.
            if let Err(error) = tokio::spawn(living).await {
                tracing::error!(uid, %error, "the task of a pod broke");
            }
            telling.abort();
            uid
        });
    }

    fn publish(&self, wanted: &Wanted, plan: &Plan) {
        // Before the report: it says no less than what is waited for.
        let waiting_for = self.waiting_for(wanted, plan);
        let mut pods: Vec<Arc<Pod>> = self.pods.values().cloned().collect();
        pods.sort_by(|a, b| (&a.meta.namespace, &a.meta.name).cmp(&(&b.meta.namespace, &b.meta.name)));
        let report = Report {
            pods: pods.iter().map(|pod| as_kubernetes(&self.site, pod)).collect(),
        };
        self.out.report.send_if_modified(|last| {
            let changed = **last != report;
            *last = Arc::new(report);
            changed
        });
        let overview = Overview {
            waiting_for,
            pods,
            told: self.told,
        };
        self.out.overview.send_replace(Arc::new(overview));
    }

    fn waiting_for(&self, wanted: &Wanted, plan: &Plan) -> Vec<String> {
        let mut missing = Vec::new();
        for pod in self.pods.values() {
            // A copy: to borrow it twice at once would wait for a writer that waits for the first.
            let state = pod.state.borrow().clone();
            let leaving = pod.leaving();
            let done = state.end() == Some(End::Succeeded);
            let owned = wanted.owners.get(&pod.owner);
            let given_up = state.end() == Some(End::Failed);
            if leaving && owned.is_none() || done || !leaving && pod.ready() {
                continue;
            }
            let why = match state.why() {
                _ if leaving => "it is being replaced".to_owned(),
                why if !why.is_empty() => why,
                _ if given_up => "it has failed".to_owned(),
                _ if state.phase != pod::Phase::Running => "it is being started".to_owned(),
                _ if !state.certified => "its certificate is not there yet".to_owned(),
                _ => "its containers are not ready".to_owned(),
            };
            missing.push(format!("{}: {why}", pod.shown()));
        }
        for (key, why) in &plan.unplaced {
            missing.push(format!("{}/{}: {why}", key.namespace, key.name));
        }
        missing.sort();
        missing
    }
}

fn seen(pod: &Pod) -> Seen {
    Seen {
        uid: pod.uid().to_owned(),
        name: pod.meta.name.clone(),
        owner: pod.owner.clone(),
        hash: pod.hash.clone(),
        sequence: pod.sequence,
        node: pod.node,
        ready: pod.ready(),
        end: pod.state.borrow().end(),
        leaving: pod.leaving(),
    }
}
