//! The socket of whoever keeps the pods: `ps`, `exec`, `logs`, `info`, `down`.

pub(crate) mod exec;
mod logs;
mod pages;
mod ports;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use admin::verbs::{Exec, Info, Logs, Part, PodRow, Sockets as Wanted};
use admin::{Call, Failure, Handler};
use compiler::PodView;
use serde_json::Value;
use tokio::sync::{broadcast, oneshot, watch};

use crate::desired::OwnerKind;
use crate::engine::Overview;
use crate::parts::{Orders, Pids, Sockets};
use crate::pod::{Order, Pod};
use crate::site::Site;

/// How long the control plane may take to say how the pods stand in the mesh; without, that part stays empty.
const ANSWER: Duration = Duration::from_millis(1500);

/// Who answers.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) site: Arc<Site>,
    pub(crate) profile: model::Profile,
    pub(crate) sources: Vec<PathBuf>,
    pub(crate) overview: watch::Receiver<Arc<Overview>>,
    /// Whether everything was ready and in force at some time.
    pub(crate) settled: watch::Receiver<bool>,
    pub(crate) pids: Pids,
    /// Where orders to single parts go.
    pub(crate) parts: Orders,
    /// The listening sockets of the proxies.
    pub(crate) sockets: Sockets,
    pub(crate) order: watch::Sender<Order>,
    /// The steps of taking everything down.
    pub(crate) steps: broadcast::Sender<String>,
    /// Whether nothing is left.
    pub(crate) down: watch::Receiver<bool>,
}

impl Handler for Desk {
    async fn call(&self, mut call: Call) -> Result<Value, Failure> {
        match call.verb.as_str() {
            "ps" => value(&self.ps().await),
            "exec" => {
                let wanted: Exec = call.parse()?;
                let pod = self.find(&wanted.namespace, &wanted.target)?;
                value(&exec::answer(&pod, &wanted, &mut call).await?)
            }
            "logs" => {
                let wanted: Logs = call.parse()?;
                let pod = self.find(&wanted.namespace, &wanted.target)?;
                logs::answer(&pod, &wanted, &mut call).await?;
                Ok(Value::Null)
            }
            "info" => value(&self.info()),
            "part" => {
                let wanted: Part = call.parse()?;
                self.part(&wanted).await
            }
            "sockets" => {
                let wanted: Wanted = call.parse()?;
                let broken = |error: std::io::Error| Failure::undecided(error.to_string());
                let (labels, sockets) = self.sockets.of(&wanted.node).map_err(broken)?;
                let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
                call.items.send_with(&labels, &sockets).await.map_err(broken)?;
                Ok(Value::Null)
            }
            "page" => {
                let wanted = call.parse()?;
                value(&pages::fetch(&self.site, wanted).await?)
            }
            "down" => self.down(&mut call).await,
            other => Err(Failure::usage(format!(
                "`{other}` is nothing that can be asked here"
            ))),
        }
    }
}

fn value(answer: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(answer).map_err(|error| Failure::undecided(error.to_string()))
}

impl Desk {
    async fn ps(&self) -> Vec<PodRow> {
        let overview = Arc::clone(&self.overview.borrow());
        let views = tokio::time::timeout(ANSWER, views(&self.site))
            .await
            .ok()
            .flatten()
            .unwrap_or_default();
        overview
            .pods
            .iter()
            .map(|pod| self.row(pod, views.get(pod.uid())))
            .collect()
    }

    fn row(&self, pod: &Pod, view: Option<&PodView>) -> PodRow {
        let state = pod.state.borrow().clone();
        PodRow {
            namespace: pod.meta.namespace.clone(),
            name: pod.meta.name.clone(),
            workload: pod.owner.name.clone(),
            service_account: pod.spec.service_account().to_owned(),
            ip: pod.ips.iter().copied().find(std::net::IpAddr::is_ipv4),
            ip6: pod.ips.iter().copied().find(std::net::IpAddr::is_ipv6),
            identity: pod.identity.as_ref().map(ToString::to_string),
            in_mesh: pod.port.mesh,
            mtls: view.and_then(|view| view.mtls.clone()),
            ready: pod.ready(),
            netns: format!("/run/netns/{}", pod.netns),
            policies: view.and_then(|view| view.policies.clone()),
            node: self
                .site
                .node(pod.node)
                .map(|node| node.name.clone())
                .unwrap_or_default(),
            phase: if pod.leaving() {
                "Terminating".to_owned()
            } else {
                state.shown().to_owned()
            },
            restarts: state.restarts(),
            message: state.why(),
        }
    }

    /// The pod that is meant: by its own name, its workload's, `KIND/NAME` or the label `app`. Of several one that is
    /// ready, the first by name.
    fn find(&self, namespace: &str, target: &str) -> Result<Arc<Pod>, Failure> {
        let overview = Arc::clone(&self.overview.borrow());
        let here: Vec<&Arc<Pod>> = overview
            .pods
            .iter()
            .filter(|pod| pod.meta.namespace == namespace)
            .collect();
        let kind = target
            .split_once('/')
            .and_then(|(word, name)| Some((OwnerKind::parse(word)?, name)));
        let best = |fits: &dyn Fn(&Pod) -> bool| {
            let fitting = here.iter().filter(|pod| fits(pod));
            fitting
                .min_by_key(|pod| (pod.leaving(), !pod.ready(), pod.state.borrow().end().is_some()))
                .map(|pod| Arc::clone(pod))
        };
        let found = match kind {
            Some((OwnerKind::Pod, name)) => best(&|pod| pod.meta.name == name),
            Some((kind, name)) => best(&|pod| pod.owner.kind == kind && pod.owner.name == name),
            None => best(&|pod| pod.meta.name == target)
                .or_else(|| best(&|pod| pod.owner.name == target))
                .or_else(|| best(&|pod| pod.meta.labels.get("app").is_some_and(|app| app == target))),
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = here.iter().map(|pod| pod.meta.name.as_str()).collect();
            let known = match names.as_slice() {
                [] => "the namespace has no pods".to_owned(),
                names => format!("its pods are `{}`", names.join("`, `")),
            };
            Failure::no(format!(
                "there is no pod or workload `{target}` in namespace `{namespace}`: {known}"
            ))
        })
    }

    async fn part(&self, wanted: &Part) -> Result<Value, Failure> {
        let Some(part) = self.parts.get(&wanted.name) else {
            let names: Vec<&str> = self.parts.keys().map(String::as_str).collect();
            return Err(Failure::no(format!(
                "there is no part `{}`: there are `{}`",
                wanted.name,
                names.join("`, `")
            )));
        };
        let (tell, done) = oneshot::channel();
        let over = || Failure::undecided("the mesh is being taken down");
        part.send((wanted.order, tell)).await.map_err(|_| over())?;
        done.await.map_err(|_| over())?.map_err(Failure::undecided)?;
        Ok(Value::Null)
    }

    fn info(&self) -> Info {
        let overview = Arc::clone(&self.overview.borrow());
        let settled = *self.settled.borrow();
        let mut processes = self.pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
        processes.insert("up".to_owned(), std::process::id());
        let mut waiting_for = overview.waiting_for.clone();
        if !overview.told {
            waiting_for.push("the control plane".to_owned());
        } else if waiting_for.is_empty() && !settled {
            waiting_for.push("the proxies: they do not have the newest configuration yet".to_owned());
        }
        Info {
            name: self.site.mesh.clone(),
            profile: self.profile.to_string(),
            nodes: self.site.node_names(),
            processes,
            ready: waiting_for.is_empty(),
            waiting_for,
            sources: self.sources.clone(),
            ports: ports::ports(&self.site),
        }
    }

    async fn down(&self, call: &mut Call) -> Result<Value, Failure> {
        let mut steps = self.steps.subscribe();
        let mut down = self.down.clone();
        self.order.send_if_modified(|order| {
            let first = *order == Order::Run;
            if first {
                *order = Order::StopSoon;
            }
            first
        });
        loop {
            tokio::select! {
                biased;
                step = steps.recv() => match step {
                    // Who does not listen any more still wants it done.
                    Ok(step) => drop(call.items.send(&step).await),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                ended = wait(&mut down) => {
                    if !ended {
                        return Err(Failure::undecided("it broke off while it was taken down"));
                    }
                    break;
                }
            }
        }
        Ok(Value::Null)
    }
}

async fn wait(down: &mut watch::Receiver<bool>) -> bool {
    down.wait_for(|down| *down).await.is_ok()
}

async fn views(site: &Site) -> Option<BTreeMap<String, PodView>> {
    let answer = admin::call(&site.run.control_socket(), "pods", Value::Null, Vec::new())
        .await
        .ok()?;
    let views: Vec<PodView> = serde_json::from_value(answer.finish().await.ok()?).ok()?;
    Some(views.into_iter().map(|view| (view.uid.clone(), view)).collect())
}
