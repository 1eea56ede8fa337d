//! Open connections and requests, each with the question whether it may still be there.
//!
//! After every new snapshot each is asked again, and what is no longer admitted is closed (P55). Whoever carries one
//! registers it before it is decided, so that no change falls between deciding and registering: a snapshot that is
//! swapped in after the place was taken is asked about, and one from before is what decides.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use model::Reason;
use snapshot::Index;
use tokio::sync::watch;

/// How many may be open at once; more are refused with `LIMIT_REACHED`.
pub(crate) const MAX_OPEN: usize = 100_000;

/// Locks that places are spread over.
const SHARDS: usize = 16;

type Check = Box<dyn Fn(&Index) -> Result<(), Reason> + Send + Sync>;

/// One thing that is open.
struct Slot {
    check: Check,
    closed: watch::Sender<Option<Reason>>,
}

/// Open connections and requests.
#[derive(Default)]
pub(crate) struct Registry {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    shards: [Mutex<HashMap<u64, Arc<Slot>>>; SHARDS],
    next: AtomicU64,
    open: AtomicUsize,
}

/// A place in the registry, given back when dropped.
pub(crate) struct Entry {
    shared: Arc<Shared>,
    number: u64,
    slot: Arc<Slot>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("open", &self.len()).finish()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// Takes a place. `check` says of a later snapshot whether what it stands for may go on; it must not block.
    ///
    /// # Errors
    /// `LIMIT_REACHED`.
    pub(crate) fn register(
        &self,
        check: impl Fn(&Index) -> Result<(), Reason> + Send + Sync + 'static,
    ) -> Result<Entry, Reason> {
        if self.shared.open.fetch_add(1, Ordering::Relaxed) >= MAX_OPEN {
            self.shared.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Reason::LimitReached);
        }
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::new(Slot {
            check: Box::new(check),
            closed: watch::Sender::new(None),
        });
        self.shared
            .with(number, |shard| shard.insert(number, Arc::clone(&slot)));
        Ok(Entry {
            shared: Arc::clone(&self.shared),
            number,
            slot,
        })
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Asks everything that is open whether a snapshot still admits it. Linear in what is open; no lock is held while
    /// somebody is asked.
    pub(crate) fn recheck(&self, index: &Index) {
        for shard in &self.shared.shards {
            let slots: Vec<Arc<Slot>> = {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard.values().cloned().collect()
            };
            for slot in slots {
                if let Err(reason) = (slot.check)(index) {
                    slot.close(reason);
                }
            }
        }
    }
}

impl Slot {
    /// The first reason stays.
    fn close(&self, reason: Reason) {
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert(reason);
            first
        });
    }
}

impl Shared {
    fn with<T>(&self, number: u64, act: impl FnOnce(&mut HashMap<u64, Arc<Slot>>) -> T) -> Option<T> {
        let shards = u64::try_from(SHARDS).unwrap_or(1);
        let shard = self.shards.get(usize::try_from(number % shards).unwrap_or(0))?;
        Some(act(&mut shard.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Entry {
    /// Returns, with the reason, when what the entry stands for must be closed; at once where it already must. May be
    /// awaited, dropped and awaited again.
    pub(crate) async fn closed(&self) -> Reason {
        let mut closed = self.slot.closed.subscribe();
        let reason = closed.wait_for(Option::is_some).await.map(|reason| *reason);
        match reason {
            Ok(reason) => reason.unwrap_or(Reason::PolicyChanged),
            // The sender lives in the slot that this entry holds.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.with(self.number, |shard| shard.remove(&self.number));
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use super::*;

    fn index() -> Index {
        crate::tests::index()
    }

    #[tokio::test]
    async fn p55_what_a_snapshot_no_longer_admits_is_closed_and_the_rest_stays() {
        let registry = Registry::default();
        let denied = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&denied);
        let one = registry
            .register(move |_| {
                if told.load(Ordering::Relaxed) {
                    Err(Reason::PolicyChanged)
                } else {
                    Ok(())
                }
            })
            .unwrap();
        let other = registry.register(|_| Ok(())).unwrap();
        let index = index();
        registry.recheck(&index);
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, one.closed()).await.is_err());
        denied.store(true, Ordering::Relaxed);
        registry.recheck(&index);
        assert_eq!(one.closed().await, Reason::PolicyChanged);
        // Whoever asks again, or late, gets the same answer.
        assert_eq!(one.closed().await, Reason::PolicyChanged);
        assert!(tokio::time::timeout(soon, other.closed()).await.is_err());
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let registry = Registry::default();
        let mut held: Vec<_> = (0..MAX_OPEN)
            .map(|_| registry.register(|_| Ok(())).unwrap())
            .collect();
        assert_eq!(registry.register(|_| Ok(())).unwrap_err(), Reason::LimitReached);
        held.pop();
        let last = registry.register(|_| Ok(())).unwrap();
        assert_eq!(registry.len(), MAX_OPEN);
        drop((held, last));
        assert_eq!(registry.len(), 0);
        registry.recheck(&index());
    }

    #[tokio::test]
    async fn one_who_waits_is_woken() {
        let registry = Registry::default();
        let entry = registry.register(|_| Err(Reason::DenyExplicit)).unwrap();
        let waiting = tokio::spawn(async move { entry.closed().await });
        tokio::task::yield_now().await;
        registry.recheck(&index());
        assert_eq!(waiting.await.unwrap(), Reason::DenyExplicit);
        assert_eq!(registry.len(), 0);
    }
}
