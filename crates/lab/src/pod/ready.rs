//! When a pod takes connections: its containers say so, or are seen to listen, and its proxy has its certificate.

use std::sync::Arc;
use std::time::Duration;

use capture::Netns;
use serde_json::Value;
use tokio::time::Instant;

use super::probe::Probe;
use super::resolve::Launch;
use super::{Pod, probe};
use crate::site::Site;

/// How soon it is looked again at first; twice that the next time, and so on.
const SOON: Duration = Duration::from_millis(5);
/// How often it is looked while it is not ready.
const WAIT: Duration = Duration::from_millis(100);
/// A container that declares a port and does not listen is ready after this: Kubernetes would not have waited.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer of the proxy may take.
const ANSWER: Duration = Duration::from_secs(2);

/// Watches whether a container is ready, until its end.
pub(super) async fn watch(pod: Arc<Pod>, netns: Arc<Netns>, launch: Arc<Launch>) {
    let set = |ready: bool| {
        pod.update(|state| {
            if let Some(container) = state.container(&launch.name) {
                container.ready = ready;
            }
        });
    };
    let Some(written) = &launch.readiness else {
        let mut pause = SOON;
        let since = Instant::now();
        while since.elapsed() < PATIENCE && !probe::listens(&netns, &pod.ips, &launch.ports).await {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(WAIT);
        }
        set(true);
        return;
    };
    let probe = Probe::read(written, &pod.spec, &launch.name);
    tokio::time::sleep(probe.initial_delay).await;
    let (mut good, mut bad, mut ready) = (0_u32, 0_u32, false);
    let mut pause = SOON;
    loop {
        if probe.holds(&pod, &netns, &launch).await {
            (good, bad) = (good.saturating_add(1), 0);
        } else {
            (good, bad) = (0, bad.saturating_add(1));
        }
        let now = if ready {
            bad < probe.failures
        } else {
            good >= probe.successes
        };
        if now != ready {
            ready = now;
            set(ready);
        }
        // A kubelet asks by its period from the start on; nobody wants to wait for it here.
        let next = if ready {
            probe.period
        } else {
            pause.min(probe.period)
        };
        tokio::time::sleep(next).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// Notes when the node's proxy has a certificate for the pod.
pub(super) async fn certificate(site: Arc<Site>, pod: Arc<Pod>) {
    if let (Some(identity), Some(node)) = (&pod.identity, site.node(pod.node)) {
        let identity = identity.to_string();
        let socket = site.run.proxy_socket(&node.name);
        let mut pause = SOON;
        loop {
            let asked = tokio::time::timeout(ANSWER, has_certificate(&socket, &identity));
            if asked.await.unwrap_or(false) {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(WAIT);
        }
    }
    pod.update(|state| state.certified = true);
}

async fn has_certificate(socket: &std::path::Path, identity: &str) -> bool {
    let Ok(answer) = admin::call(socket, "proxy", Value::Null, Vec::new()).await else {
        return false;
    };
    let Ok(value) = answer.finish().await else {
        return false;
    };
    let Ok(proxy) = serde_json::from_value::<admin::verbs::Proxy>(value) else {
        return false;
    };
    proxy.certificates.iter().any(|certificate| {
        certificate.get("id").and_then(Value::as_str) == Some(identity)
            && certificate.get("ready").and_then(Value::as_bool) == Some(true)
    })
}
