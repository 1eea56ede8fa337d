//! What all tasks of a proxy share.

mod ending;
mod sockets;
pub(crate) mod staleness;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::Config;
use crate::dns::Names;
use crate::inbound::{Apps, Authorizers, Denials, Open};
use crate::locals::Locals;
use crate::registry::Registry;
use crate::store::Store;
use crate::store::demand::Demand;

pub(crate) use ending::{Carried, Ending, Stage};
pub(crate) use sockets::{Offer, Purpose, Sockets};

/// One proxy.
pub(crate) struct Shared {
    /// What it was started with.
    pub(crate) config: Config,
    /// What the control plane said.
    pub(crate) store: Store,
    /// What it is asked for.
    pub(crate) demand: Demand,
    /// Who stands behind which mark.
    pub(crate) locals: Locals,
    /// Certificates, and both ends of mutual TLS.
    pub(crate) identities: identity::Store,
    /// Open connections and requests.
    pub(crate) registry: Registry,
    /// Connections to applications of this node.
    pub(crate) apps: Apps,
    /// Requests under way to each workload of this node.
    pub(crate) requests: Arc<Open>,
    /// Refusals of late, for whoever asks why.
    pub(crate) denials: Arc<Denials>,
    /// Tokens that were verified before.
    pub(crate) tokens: Arc<jwt::Memory>,
    /// External authorizers: how they are reached, and how they do.
    pub(crate) authorizers: Authorizers,
    /// What names outside the cluster stand for.
    pub(crate) names: Arc<Names>,
    /// Where events go.
    pub(crate) telemetry: telemetry::Telemetry,
    /// How far its end has come.
    pub(crate) ending: Ending,
    /// What it listens on, for whoever takes its place.
    pub(crate) sockets: Sockets,
    /// The link to the control plane, and what capture drops.
    pub(crate) standing: Arc<Standing>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What is known of what a proxy does not decide: its link to the control plane, and what capture drops. For those who ask.
#[derive(Debug)]
pub(crate) struct Standing {
    control: Mutex<Control>,
    drops: Mutex<BTreeMap<&'static str, u64>>,
}

#[derive(Clone, Copy, Debug)]
struct Control {
    connected: bool,
    heard: Instant,
}

impl Standing {
    /// Nothing has been heard and nothing dropped.
    pub(crate) fn new() -> Self {
        Self {
            control: Mutex::new(Control {
                connected: false,
                heard: Instant::now(),
            }),
            drops: Mutex::default(),
        }
    }

    /// The control plane's connection is there, and something came by it; or it is gone.
    pub(crate) fn control(&self, connected: bool) {
        let mut control = locked(&self.control);
        control.connected = connected;
        if connected {
            control.heard = Instant::now();
        }
    }

    /// How long ago something was heard of the control plane, while it is out of reach.
    pub(crate) fn control_silent(&self) -> Option<Duration> {
        let control = *locked(&self.control);
        (!control.connected).then(|| control.heard.elapsed())
    }

    /// Whether there is a connection to the control plane, and how long ago something was heard of it.
    pub(crate) fn link(&self) -> (bool, Duration) {
        let control = *locked(&self.control);
        (control.connected, control.heard.elapsed())
    }

    /// Replaces the counts of dropped packets by reason.
    pub(crate) fn dropped(&self, counts: impl IntoIterator<Item = (&'static str, u64)>) {
        *locked(&self.drops) = counts.into_iter().collect();
    }

    /// The counts of dropped packets by reason.
    pub(crate) fn drops(&self) -> BTreeMap<&'static str, u64> {
        locked(&self.drops).clone()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
