//! How a pod stands: what its task writes, and everybody reads.

use api::{PodIp, PodStatus};
use serde_json::{Value, json};

use super::Pod;
use crate::plan::End;
use crate::site::Site;

/// How a pod stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PodState {
    pub(crate) phase: Phase,
    /// Why it does not run; empty where it does.
    pub(crate) message: String,
    /// Whether the proxy has its certificate; always so outside the mesh.
    pub(crate) certified: bool,
    pub(crate) containers: Vec<ContainerState>,
}

/// How a container stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ContainerState {
    pub(crate) name: String,
    pub(crate) running: bool,
    pub(crate) ready: bool,
    pub(crate) restarts: u32,
    /// It waits before it is started again.
    pub(crate) backing_off: bool,
    /// Its last exit code.
    pub(crate) exit: Option<i32>,
    /// Why it does not run.
    pub(crate) message: String,
}

/// Kubernetes' phases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl PodState {
    pub(crate) fn new(containers: Vec<String>) -> Self {
        let state = |name| ContainerState {
            name,
            ..ContainerState::default()
        };
        Self {
            phase: Phase::Pending,
            message: String::new(),
            certified: false,
            containers: containers.into_iter().map(state).collect(),
        }
    }

    pub(crate) fn container(&mut self, name: &str) -> Option<&mut ContainerState> {
        self.containers
            .iter_mut()
            .find(|container| container.name == name)
    }

    /// How it ended, if it did for good.
    pub(crate) fn end(&self) -> Option<End> {
        match self.phase {
            Phase::Succeeded => Some(End::Succeeded),
            Phase::Failed => Some(End::Failed),
            Phase::Pending | Phase::Running => None,
        }
    }

    pub(crate) fn restarts(&self) -> u32 {
        self.containers
            .iter()
            .fold(0, |sum, container| sum.saturating_add(container.restarts))
    }

    /// As in `kubectl get pods`.
    pub(crate) fn shown(&self) -> &'static str {
        let backing_off = self.containers.iter().any(|container| container.backing_off);
        match self.phase {
            Phase::Pending | Phase::Running if backing_off => "CrashLoopBackOff",
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }

    /// Why it does not run as it should; empty where it does.
    pub(crate) fn why(&self) -> String {
        if !self.message.is_empty() {
            return self.message.clone();
        }
        let said = self
            .containers
            .iter()
            .filter(|container| !container.running && !container.message.is_empty());
        let said: Vec<String> = said
            .map(|c| format!("container `{}`: {}", c.name, c.message))
            .collect();
        said.join("; ")
    }
}

impl Pod {
    /// Whether it takes connections.
    pub(crate) fn ready(&self) -> bool {
        let state = self.state.borrow();
        let init = self.spec.init_containers.len();
        state.phase == Phase::Running
            && state.certified
            && !self.leaving()
            && state
                .containers
                .iter()
                .skip(init)
                .all(|container| container.ready)
    }
}

/// The pod as Kubernetes would store it.
pub(crate) fn as_kubernetes(site: &Site, pod: &Pod) -> Value {
    let ready = pod.ready();
    let state = pod.state.borrow().clone();
    let phase = match state.phase {
        Phase::Pending => "Pending",
        Phase::Running => "Running",
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
    };
    let node = site.node(pod.node);
    let host_ips = node.map(|node| node.ips().to_vec()).unwrap_or_default();
    let mut status = PodStatus {
        phase: phase.to_owned(),
        pod_ip: pod.ips.first().map(ToString::to_string).unwrap_or_default(),
        pod_ips: pod.ips.iter().map(|ip| PodIp { ip: ip.to_string() }).collect(),
        host_ip: host_ips.first().map(ToString::to_string).unwrap_or_default(),
        conditions: Vec::new(),
        container_statuses: state.containers.iter().map(container_status).collect(),
    };
    status.set_ready(ready);
    let mut spec = pod.spec.clone();
    spec.node_name = node.map(|node| node.name.clone()).unwrap_or_default();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": pod.meta,
        "spec": spec,
        "status": status,
    })
}

fn container_status(container: &ContainerState) -> Value {
    let state = match container.exit {
        _ if container.running => json!({"running": {}}),
        Some(code) if !container.backing_off => json!({"terminated": {"exitCode": code}}),
        _ => {
            let reason = if container.backing_off {
                "CrashLoopBackOff"
            } else {
                "ContainerCreating"
            };
            json!({"waiting": {"reason": reason, "message": container.message}})
        }
    };
    json!({
        "name": container.name,
        "ready": container.ready,
        "restartCount": container.restarts,
        "state": state,
    })
}
