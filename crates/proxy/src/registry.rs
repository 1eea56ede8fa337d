//! Open connections and requests, each with the question whether it may still be there.
//!
//! After every new snapshot each is asked again, and what is no longer admitted is closed (P55). Whoever carries one
//! registers it before it is decided, so that no change falls between deciding and registering: a snapshot that comes
//! into force before the place was taken is the one that the decision sees, and any later one asks the place.

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use foldhash::HashMap;
use model::Reason;
use snapshot::Index;

use crate::store::Store;

/// How many may be open at once; more are refused with `LIMIT_REACHED`.
pub(crate) const MAX_OPEN: usize = 100_000;

/// Parts that are locked apart from one another.
const SHARDS: usize = 64;

/// How many are asked before other tasks get their turn.
const BATCH: usize = 256;

type Check = dyn Fn(&Index) -> Result<(), Reason> + Send + Sync;

/// Open connections and requests.
#[derive(Debug)]
pub(crate) struct Registry {
    places: Arc<Places>,
    limit: usize,
}

struct Places {
    shards: [Mutex<HashMap<u64, Weak<Slot>>>; SHARDS],
    open: AtomicUsize,
    next: AtomicU64,
}

/// A place in the registry, given back when the last that holds it is dropped. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Entry(Arc<Slot>);

/// One piece of memory with its check.
struct Slot<C: ?Sized = Check> {
    id: u64,
    places: Arc<Places>,
    reason: OnceLock<Reason>,
    waiting: Mutex<Waiting>,
    check: C,
}

/// Who is told of the end: the task that carries it, and for a request those to which its body went. Tasks are remembered
/// until then, so that there is one for each attempt at most.
#[derive(Default)]
struct Waiting {
    few: [Option<Waker>; 2],
    more: Vec<Waker>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::with_limit(MAX_OPEN)
    }
}

impl Registry {
    fn with_limit(limit: usize) -> Self {
        let places = Places {
            shards: std::array::from_fn(|_| Mutex::default()),
            open: AtomicUsize::new(0),
            next: AtomicU64::new(0),
        };
        Self {
            places: Arc::new(places),
            limit,
        }
    }

    /// Takes a place. `check` says of a later snapshot whether what it stands for may go on; it must not block.
    ///
    /// # Errors
    /// `LIMIT_REACHED`.
    pub(crate) fn register(
        &self,
        check: impl Fn(&Index) -> Result<(), Reason> + Send + Sync + 'static,
    ) -> Result<Entry, Reason> {
        let places = &self.places;
        let below = |open| (open < self.limit).then(|| open + 1);
        if places
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below)
            .is_err()
        {
            return Err(Reason::LimitReached);
        }
        let id = places.next.fetch_add(1, Ordering::Relaxed);
        let slot: Arc<Slot> = Arc::new(Slot {
            id,
            places: Arc::clone(places),
            reason: OnceLock::new(),
            waiting: Mutex::default(),
            check,
        });
        places.shard(id).insert(id, Arc::downgrade(&slot));
        Ok(Entry(slot))
    }

    /// Tells all that are open to end.
    pub(crate) fn close(&self, reason: Reason) {
        for shard in &self.places.shards {
            let open: Vec<_> = locked(shard).values().cloned().collect();
            for slot in open.iter().filter_map(Weak::upgrade) {
                slot.end(reason);
            }
        }
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.places.open.load(Ordering::Relaxed)
    }

    /// Asks all that are open of the snapshot, and tells those that it no longer admits.
    pub(crate) async fn recheck(&self, index: &Index) {
        for shard in &self.places.shards {
            // Checks run without the lock, so that nobody waits for them to take or give back a place.
            let open: Vec<_> = locked(shard).values().cloned().collect();
            for batch in open.chunks(BATCH) {
                for slot in batch.iter().filter_map(Weak::upgrade) {
                    slot.ask(index);
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Asks all that are open after every snapshot that comes into force, for as long as the store is there.
    pub(crate) async fn follow(&self, store: &Store) {
        let mut version = store.version();
        loop {
            // What came into force while others were asked is the next change.
            version.borrow_and_update();
            if let Some(index) = store.current() {
                self.recheck(&index).await;
            }
            if version.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Places {
    fn shard(&self, id: u64) -> MutexGuard<'_, HashMap<u64, Weak<Slot>>> {
        let [first, ..] = &self.shards;
        let at = usize::try_from(id).unwrap_or_default() % SHARDS;
        locked(self.shards.get(at).unwrap_or(first))
    }
}

/// A shard is whole at all times, whatever its last user ran into.
fn locked<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    fn ask(&self, index: &Index) {
        if self.reason.get().is_none()
            && let Err(reason) = (self.check)(index)
        {
            self.end(reason);
        }
    }

    fn end(&self, reason: Reason) {
        if self.reason.set(reason).is_err() {
            return;
        }
        let Waiting { few, more } = std::mem::take(&mut *locked(&self.waiting));
        few.into_iter().flatten().chain(more).for_each(Waker::wake);
    }
}

impl Waiting {
    fn add(&mut self, waker: &Waker) {
        for place in &mut self.few {
            match place {
                None => return *place = Some(waker.clone()),
                Some(known) if known.will_wake(waker) => return,
                Some(_) => {}
            }
        }
        if !self.more.iter().any(|known| known.will_wake(waker)) {
            self.more.push(waker.clone());
        }
    }
}

impl Entry {
    /// Ready, with the reason, when what the entry stands for must be closed.
    pub(crate) fn poll_closed(&self, context: &mut Context<'_>) -> Poll<Reason> {
        let slot = &self.0;
        if slot.reason.get().is_none() {
            let mut waiting = locked(&slot.waiting);
            // Looked at under the lock: whoever ends it later finds who waits.
            if slot.reason.get().is_none() {
                waiting.add(context.waker());
            }
        }
        slot.reason
            .get()
            .map_or(Poll::Pending, |reason| Poll::Ready(*reason))
    }

    /// Returns, with the reason, when what the entry stands for must be closed; at once where it already must. May be
    /// awaited, dropped and awaited again.
    pub(crate) async fn closed(&self) -> Reason {
        poll_fn(|context| self.poll_closed(context)).await
    }
}

impl<C: ?Sized> Drop for Slot<C> {
    fn drop(&mut self) {
        self.places.shard(self.id).remove(&self.id);
        self.places.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places").field("open", &self.open).finish()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("reason", &self.reason).finish()
    }
}

#[cfg(test)]
mod tests;
