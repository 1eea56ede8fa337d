//! What all tasks of a proxy share.

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
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
