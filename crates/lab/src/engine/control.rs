//! The ways to and from the control plane, each taken anew when it breaks.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use admin::verbs::{Desired, Report};
use capture::services::{Protocol, ServiceDnat};
use compiler::PlainService;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};

use crate::process::with_source;
use crate::site::Site;

/// How long to wait before the next attempt.
const PAUSE: Duration = Duration::from_millis(20);
/// The same after several.
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// How long an answer to a report may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Follows what is wanted, for ever. `began` is told whenever the control plane begins to answer anew: it may have
/// forgotten what it was told.
pub(crate) async fn follow(socket: PathBuf, to: mpsc::Sender<Desired>, began: Arc<Notify>) {
    let mut pause = PAUSE;
    loop {
        if let Ok(mut answer) = admin::call(&socket, "desired", Value::Null, Vec::new()).await {
            let mut first = true;
            while let Some(item) = answer.item().await {
                match serde_json::from_value(item) {
                    Ok(desired) => {
                        pause = PAUSE;
                        if to.send(desired).await.is_err() {
                            return;
                        }
                        if std::mem::take(&mut first) {
                            began.notify_one();
                        }
                    }
                    Err(error) => tracing::error!(%error, "the control plane says what is not understood"),
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Reports the pods, for ever: the newest state, whenever it is another, and whenever the control plane began anew.
/// `heard` is what it has answered.
pub(crate) async fn report(
    socket: PathBuf,
    mut newest: watch::Receiver<Arc<Report>>,
    began: Arc<Notify>,
    heard: watch::Sender<Arc<Report>>,
) {
    // Nothing is known of any pod before the control plane has said what there is to run.
    began.notified().await;
    loop {
        let report = Arc::clone(&newest.borrow_and_update());
        let mut pause = PAUSE;
        loop {
            match send(&socket, &report).await {
                Ok(()) => {
                    heard.send_replace(report);
                    break;
                }
                Err(why) => tracing::debug!(why, "the pods could not be reported"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
            if newest.has_changed().unwrap_or(false) {
                break;
            }
        }
        tokio::select! {
            changed = newest.changed() => if changed.is_err() { return },
            () = began.notified() => {}
        }
    }
}

async fn send(socket: &Path, report: &Report) -> Result<(), String> {
    let body = serde_json::to_value(report).map_err(|error| error.to_string())?;
    let asking = async {
        let answer = admin::call(socket, "report", body, Vec::new())
            .await
            .map_err(|e| e.to_string())?;
        answer.finish().await.map_err(|failure| failure.message)
    };
    match tokio::time::timeout(ANSWER, asking).await {
        Ok(answered) => answered.map(drop),
        Err(_) => Err("no answer came in time".to_owned()),
    }
}

/// Has every node give pods outside the mesh the cluster addresses that are current, for ever. `served` are those that
/// every node has.
pub(crate) async fn services(
    site: Arc<Site>,
    mut newest: watch::Receiver<Arc<Vec<Value>>>,
    served: watch::Sender<Arc<Vec<Value>>>,
) {
    while newest.changed().await.is_ok() {
        let values = Arc::clone(&newest.borrow_and_update());
        let (site, given) = (Arc::clone(&site), Arc::clone(&values));
        let setting = tokio::task::spawn_blocking(move || {
            let table: Vec<ServiceDnat> = given.iter().filter_map(dnat).collect();
            let mut everywhere = true;
            for node in &site.nodes {
                let set = node
                    .netns
                    .run(|| capture::services::set(&table))
                    .and_then(|inner| inner);
                if let Err(error) = set {
                    everywhere = false;
                    tracing::error!(
                        node = node.name,
                        error = with_source(&error),
                        "cluster addresses are not current"
                    );
                }
            }
            everywhere
        });
        if setting.await.unwrap_or(false) {
            served.send_replace(values);
        }
    }
}

fn dnat(value: &Value) -> Option<ServiceDnat> {
    let service: PlainService = serde_json::from_value(value.clone())
        .map_err(|error| tracing::error!(%error, "a cluster address is not understood"))
        .ok()?;
    let v4 = service.vip.is_ipv4();
    Some(ServiceDnat {
        vip: service.vip,
        port: service.port,
        protocol: if service.udp { Protocol::Udp } else { Protocol::Tcp },
        backends: service
            .endpoints
            .into_iter()
            .filter(|endpoint| matches!(endpoint.ip(), IpAddr::V4(_)) == v4)
            .collect(),
    })
}
