//! Taking the place of another proxy: its sockets, and the moment from which it takes nothing new.
//!
//! The new one is ready before it takes anything: it has a snapshot, with all that the other has asked the control plane for,
//! and a certificate for each identity that the other has one for, with keys of its own. Until it says so the other goes on, so that an attempt that fails costs nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use admin::verbs::{Listening, Proxy, Sockets as Wanted};
use serde_json::Value;
use snapshot::ResourceName;
use tokio::time::{Instant, timeout};

use crate::Config;
use crate::shared::{Offer, Shared};

/// How long another process may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a proxy may take to be ready where another one goes on until then; afterwards it gives up.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long captured connections wait for a proxy that starts; afterwards it takes and refuses them.
const START_PATIENCE: Duration = Duration::from_secs(3);
/// And how long it waits for answers to all that the other one had asked: what is not known then is asked when needed.
const ANSWERS_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether it is ready.
const POLL: Duration = Duration::from_millis(5);

/// What there was before.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) offer: Offer,
    /// The identities that a proxy which runs has certificates for; `None` where none runs.
    ready: Option<BTreeSet<String>>,
    /// What it asks the control plane for.
    pub(super) names: Vec<ResourceName>,
}

impl Before {
    /// Asks the proxy that runs, and whoever keeps sockets where none does.
    pub(super) async fn ask(config: &Config) -> Self {
        if !config.take_over {
            return Self::default();
        }
        match running(&config.socket).await {
            Ok(before) => return before,
            Err(why) => tracing::debug!(why, "no proxy to take over from"),
        }
        let Some(keeper) = &config.keeper else {
            return Self::default();
        };
        let body = serde_json::to_value(Wanted {
            node: config.node.clone(),
        });
        match sockets(keeper, body.unwrap_or_default()).await {
            Ok(offer) => Self {
                offer,
                ..Self::default()
            },
            Err(why) => {
                tracing::info!(why, "no sockets are kept");
                Self::default()
            }
        }
    }

    /// Whether a proxy runs whose place is to be taken.
    pub(super) fn is_running(&self) -> bool {
        self.ready.is_some()
    }

    /// Waits until the proxy is ready to carry.
    ///
    /// # Errors
    /// It is not in time, and another one goes on.
    pub(super) async fn ready(&self, shared: &Shared) -> Result<(), String> {
        let limit = match self.ready {
            Some(_) => TAKE_OVER_TIMEOUT,
            None => START_PATIENCE,
        };
        let since = Instant::now();
        while let Some(missing) = self.missing(shared, since.elapsed()) {
            if since.elapsed() >= limit {
                if self.is_running() {
                    return Err(format!(
                        "not ready after {} s, the proxy that runs goes on: {missing}",
                        limit.as_secs()
                    ));
                }
                tracing::warn!(missing, "not ready yet, and captured connections wait no longer");
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn missing(&self, shared: &Shared, waited: Duration) -> Option<String> {
        if shared.store.current().is_none() {
            return Some("no snapshot".to_owned());
        }
        if !shared.locals.are_read() {
            return Some("the workloads of the node are not known".to_owned());
        }
        // What the other one could not get either is not waited for.
        let mut wanted = shared
            .locals
            .all()
            .into_iter()
            .filter_map(|local| local.identity.clone())
            .filter(|id| {
                self.ready
                    .as_ref()
                    .is_none_or(|ready| ready.contains(&id.to_string()))
            });
        if let Some(id) = wanted.find(|id| !shared.identities.ready(id)) {
            return Some(format!("no certificate of {id}"));
        }
        if waited >= ANSWERS_TIMEOUT {
            return None;
        }
        let lacked = shared.demand.unanswered(&shared.store);
        lacked.map(|name| format!("nothing has been heard of {}", name.as_str()))
    }
}

/// Tells the proxy at a socket that its place is taken.
pub(super) async fn leave(socket: &Path) {
    let told = timeout(ANSWER, async {
        let answer = admin::call(socket, "leave", Value::Null, Vec::new())
            .await
            .map_err(|error| error.to_string())?;
        answer.finish().await.map_err(|failure| failure.message)
    });
    match told.await {
        Ok(Ok(_)) => tracing::info!("the sockets are taken over"),
        Ok(Err(why)) => tracing::warn!(
            why,
            "the proxy that ran before does not hear that its place is taken"
        ),
        Err(_) => tracing::warn!("the proxy that ran before does not answer"),
    }
}

async fn running(socket: &Path) -> Result<Before, String> {
    let ready = timeout(ANSWER, async {
        let answer = admin::call(socket, "proxy", Value::Null, Vec::new())
            .await
            .map_err(|error| error.to_string())?;
        let proxy = answer.finish().await.map_err(|failure| failure.message)?;
        serde_json::from_value::<Proxy>(proxy).map_err(|error| error.to_string())
    });
    let proxy = ready.await.map_err(|_| "no answer in time".to_owned())??;
    let is_ready = |c: &&Value| c.get("ready").and_then(Value::as_bool) == Some(true);
    let ready = proxy
        .certificates
        .iter()
        .filter(is_ready)
        .filter_map(|c| Some(c.get("id")?.as_str()?.to_owned()));
    Ok(Before {
        ready: Some(ready.collect()),
        offer: sockets(socket, Value::Null).await?,
        // One that is older than this question goes without.
        names: names(socket).await.unwrap_or_default(),
    })
}

/// What a proxy asks the control plane for.
async fn names(socket: &Path) -> Option<Vec<ResourceName>> {
    let asked = timeout(ANSWER, async {
        let answer = admin::call(socket, "names", Value::Null, Vec::new()).await.ok()?;
        serde_json::from_value(answer.finish().await.ok()?).ok()
    });
    asked.await.ok()?
}

/// The sockets that are offered at a path.
async fn sockets(path: &Path, body: Value) -> Result<Offer, String> {
    let asked = timeout(ANSWER, async {
        let mut answer = admin::call(path, "sockets", body, Vec::new())
            .await
            .map_err(|error| error.to_string())?;
        let labels = answer.item().await;
        let sockets = answer.take_fds();
        answer.finish().await.map_err(|failure| failure.message)?;
        let labels: Vec<Listening> =
            serde_json::from_value(labels.unwrap_or_default()).map_err(|error| error.to_string())?;
        Ok::<_, String>(Offer::new(labels, sockets))
    });
    let offer = asked.await.map_err(|_| "no answer in time".to_owned())??;
    if offer.is_empty() {
        return Err("none are offered".to_owned());
    }
    Ok(offer)
}
