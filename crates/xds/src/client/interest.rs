//! What a proxy asks for beside what belongs to its node. Said by level, not by edge: a stream that begins asks for all of
//! it, and one that is there says what has changed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use snapshot::ResourceName;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::wire::MAX_QUESTIONS;

/// What is asked for; clones are the same one.
#[derive(Clone, Debug)]
pub struct Interest(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    names: Mutex<BTreeSet<ResourceName>>,
    /// Grows with each change.
    changes: watch::Sender<u64>,
    /// Since when there has been no stream; `None` while there is one.
    away: Mutex<Option<Instant>>,
}

/// More would be asked for than may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("more than {MAX_QUESTIONS} names would be asked for")]
pub struct TooMany;

impl Default for Interest {
    fn default() -> Self {
        Self(Arc::new(Shared {
            names: Mutex::default(),
            changes: watch::Sender::new(0),
            away: Mutex::new(Some(Instant::now())),
        }))
    }
}

impl Interest {
    /// Asks for these from now on; what is asked for already changes nothing.
    ///
    /// # Errors
    /// There would be more than [`MAX_QUESTIONS`]; nothing is asked for.
    pub fn add(&self, names: &[ResourceName]) -> Result<(), TooMany> {
        let mut asked = self.locked();
        let new: BTreeSet<_> = names.iter().filter(|name| !asked.contains(*name)).collect();
        if new.is_empty() {
            return Ok(());
        }
        if asked.len() + new.len() > MAX_QUESTIONS {
            return Err(TooMany);
        }
        let new: Vec<_> = new.into_iter().cloned().collect();
        asked.extend(new);
        drop(asked);
        self.0.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Asks for these no longer.
    pub fn remove(&self, names: &[ResourceName]) {
        let mut asked = self.locked();
        let before = asked.len();
        for name in names {
            asked.remove(name);
        }
        let changed = asked.len() != before;
        drop(asked);
        if changed {
            self.0.changes.send_modify(|count| *count += 1);
        }
    }

    /// All that is asked for.
    pub fn names(&self) -> BTreeSet<ResourceName> {
        self.locked().clone()
    }

    /// How much is asked for.
    pub fn len(&self) -> usize {
        self.locked().len()
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.locked().is_empty()
    }

    /// How long the control plane has not been there; `None` while it is.
    pub fn absence(&self) -> Option<Duration> {
        let away = *self.0.away.lock().unwrap_or_else(PoisonError::into_inner);
        away.map(|since| since.elapsed())
    }

    /// Returns once something else is asked for than `told`; may be dropped and called again.
    pub(super) async fn changed(&self, told: &BTreeSet<ResourceName>) {
        let mut changes = self.0.changes.subscribe();
        while *self.locked() == *told {
            // The sender lives as long as this does.
            let _ = changes.changed().await;
        }
    }

    /// Says whether the control plane is there; the client does.
    pub fn connected(&self, connected: bool) {
        let mut away = self.0.away.lock().unwrap_or_else(PoisonError::into_inner);
        if connected {
            *away = None;
        } else {
            away.get_or_insert_with(Instant::now);
        }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeSet<ResourceName>> {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
