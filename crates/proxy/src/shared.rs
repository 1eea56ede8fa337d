//! What all tasks of a proxy share.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::Config;
use crate::locals::Locals;
use crate::registry::Registry;
use crate::store::Store;

/// One proxy.
pub(crate) struct Shared {
    /// What it was started with.
    pub(crate) config: Config,
    /// What the control plane said.
    pub(crate) store: Store,
    /// Who stands behind which mark.
    pub(crate) locals: Locals,
    /// Certificates, and both ends of mutual TLS.
    pub(crate) identities: identity::Store,
    /// Open connections and requests.
    pub(crate) registry: Registry,
    /// Where events go.
    pub(crate) telemetry: telemetry::Telemetry,
    /// Becomes true when the proxy is told to stop: what is under way is finished, nothing new is begun.
    pub(crate) draining: watch::Receiver<bool>,
    /// Packets that capture dropped, by reason.
    pub(crate) dropped: Mutex<BTreeMap<String, u64>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Returns when the proxy is told to stop.
    pub(crate) fn told_to_drain(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut draining = self.draining.clone();
        // A sender that is gone is a proxy that is going.
        async move { draining.wait_for(|told| *told).await.map_or((), |_| ()) }
    }

    /// What is missing until workloads can be served: a snapshot, and a certificate for each identity here.
    pub(crate) fn missing(&self) -> Vec<String> {
        let snapshot = self
            .store
            .current()
            .is_none()
            .then(|| "no snapshot yet".to_owned());
        let identities = self.locals.identities();
        let certificates = identities
            .keys()
            .filter(|id| !self.identities.ready(id))
            .map(|id| format!("no certificate for {id}"));
        snapshot.into_iter().chain(certificates).collect()
    }

    /// Packets that capture dropped, by reason.
    pub(crate) fn drops(&self) -> BTreeMap<String, u64> {
        self.dropped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
