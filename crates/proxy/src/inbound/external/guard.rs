//! What one authorizer may cost: how much may be under way to it, and when it is not asked any more for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use model::WorkloadUid;
use snapshot::Index;
use tokio::time::Instant;

use crate::outbound::Outbound;

/// Questions to one authorizer at once, of all workloads of the node.
pub(super) const MAX_UNDER_WAY: usize = 1024;

/// Questions in a row to which it could not be reached, or not in time, before it is not asked for a while.
pub(super) const MAX_FAILURES: u32 = 10;

/// How long it is then not asked. Afterwards one question tries.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Bytes that are held of bodies for authorizers to see, and of the questions that contain them.
pub(super) const MAX_HELD: usize = 64 * 1024 * 1024;

/// Of these, for requests to one workload: what is sent to it takes nobody else's room.
pub(super) const MAX_HELD_OF_ONE: usize = MAX_HELD / 8;

/// Authorizers that are counted; those that no snapshot knows any more make room.
const MAX_KNOWN: usize = 256;

/// External authorizers: how they are reached, and how they do.
#[derive(Debug, Default)]
pub(crate) struct Authorizers {
    outbound: OnceLock<Weak<Outbound>>,
    known: Mutex<HashMap<String, Arc<Authorizer>>>,
    held: Arc<Mutex<Held>>,
}

/// How much is held, of all and for each workload that has any.
#[derive(Debug, Default)]
struct Held {
    all: usize,
    each: HashMap<WorkloadUid, usize>,
}

/// What is held of one body. Dropped it is given back.
#[derive(Debug)]
pub(super) struct Room {
    held: Arc<Mutex<Held>>,
    workload: WorkloadUid,
    bytes: usize,
}

/// One of them.
#[derive(Debug, Default)]
pub(super) struct Authorizer {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    failures: u32,
    /// Until when it is not asked.
    paused: Option<Instant>,
    /// Whether somebody tries just now.
    probing: bool,
}

/// The right to ask once. Dropped without a word it has found out nothing: its caller has left.
#[derive(Debug)]
pub(super) struct Pass {
    authorizer: Arc<Authorizer>,
    probe: bool,
}

impl Authorizers {
    /// They are reached by this one. The first counts: where there is one for each family, any of them reaches both.
    pub(crate) fn reached_by(&self, outbound: &Arc<Outbound>) {
        let _ = self.outbound.set(Arc::downgrade(outbound));
    }

    pub(crate) fn outbound(&self) -> Option<Arc<Outbound>> {
        self.outbound.get()?.upgrade()
    }

    /// Room for the body of a request to this workload; none is taken yet.
    pub(super) fn room(&self, workload: &WorkloadUid) -> Room {
        Room {
            held: Arc::clone(&self.held),
            workload: workload.clone(),
            bytes: 0,
        }
    }

    pub(super) fn authorizer(&self, index: &Index, name: &str) -> Arc<Authorizer> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(authorizer) = known.get(name) {
            return Arc::clone(authorizer);
        }
        if known.len() >= MAX_KNOWN {
            known.retain(|name, _| index.provider(name).is_some());
        }
        let authorizer = Arc::new(Authorizer::default());
        if known.len() < MAX_KNOWN {
            known.insert(name.to_owned(), Arc::clone(&authorizer));
        }
        authorizer
    }
}

impl Room {
    /// Takes room for so many bytes that have come; false, and none is taken, where too much is held already.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let all = held.all.saturating_add(bytes);
        let one = held
            .each
            .get(&self.workload)
            .map_or(0, |one| *one)
            .saturating_add(bytes);
        if all > MAX_HELD || one > MAX_HELD_OF_ONE {
            return false;
        }
        held.all = all;
        held.each.insert(self.workload.clone(), one);
        self.bytes += bytes;
        true
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all = held.all.saturating_sub(self.bytes);
        if let Some(one) = held.each.get_mut(&self.workload) {
            *one = one.saturating_sub(self.bytes);
            if *one == 0 {
                held.each.remove(&self.workload);
            }
        }
    }
}

impl Authorizer {
    /// The right to ask.
    ///
    /// # Errors
    /// Why it is not to be asked now.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Pass, &'static str> {
        let mut state = self.state();
        if state.under_way >= MAX_UNDER_WAY {
            return Err("too many questions to it are under way");
        }
        let probe = match state.paused {
            None => false,
            Some(until) if Instant::now() >= until && !state.probing => true,
            Some(_) => {
                return Err("it is not asked for a while, since it gave no answer several times in a row");
            }
        };
        state.probing |= probe;
        state.under_way += 1;
        drop(state);
        Ok(Pass {
            authorizer: Arc::clone(self),
            probe,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// It was reached, whatever it said: what callers make it say must not keep others from asking.
    pub(super) fn reached(self) {
        let mut state = self.authorizer.state();
        state.failures = 0;
        state.paused = None;
    }

    /// It was not reached, or not in time.
    pub(super) fn missed(self) {
        let mut state = self.authorizer.state();
        state.failures = state.failures.saturating_add(1);
        if state.failures >= MAX_FAILURES {
            state.paused = Some(Instant::now() + PAUSE);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.authorizer.state();
        state.under_way = state.under_way.saturating_sub(1);
        if self.probe {
            state.probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn p_59_one_that_does_not_answer_is_left_alone_for_a_while() {
        let authorizer = Arc::new(Authorizer::default());
        for _ in 0..MAX_FAILURES {
            authorizer.enter().unwrap().missed();
        }
        assert!(authorizer.enter().is_err());
        tokio::time::advance(PAUSE).await;
        let probe = authorizer.enter().unwrap();
        assert!(authorizer.enter().is_err(), "one tries, the others wait for it");
        // Whoever tried and left has found out nothing.
        drop(probe);
        authorizer.enter().unwrap().missed();
        assert!(authorizer.enter().is_err());
        tokio::time::advance(PAUSE).await;
        authorizer.enter().unwrap().reached();
        let two = (authorizer.enter(), authorizer.enter());
        assert!(two.0.is_ok() && two.1.is_ok());
    }

    #[tokio::test]
    async fn failures_count_only_in_a_row() {
        let authorizer = Arc::new(Authorizer::default());
        for _ in 0..3 * MAX_FAILURES {
            authorizer.enter().unwrap().missed();
            authorizer.enter().unwrap().reached();
        }
        assert!(authorizer.enter().is_ok());
    }

    #[tokio::test]
    async fn only_so_much_is_under_way() {
        let authorizer = Arc::new(Authorizer::default());
        let held: Vec<_> = (0..MAX_UNDER_WAY).map(|_| authorizer.enter().unwrap()).collect();
        assert!(authorizer.enter().is_err());
        drop(held);
        assert!(authorizer.enter().is_ok());
    }

    #[test]
    fn a_workload_has_its_part_of_the_room_and_all_have_no_more_than_there_is() {
        let authorizers = Authorizers::default();
        let uid = |n: usize| WorkloadUid::new(&format!("workload-{n}"));
        let mut first = authorizers.room(&uid(0));
        assert!(first.take(MAX_HELD_OF_ONE - 1) && first.take(1));
        assert!(!first.take(1) && !authorizers.room(&uid(0)).take(1));
        let mut others: Vec<_> = (1..8).map(|n| authorizers.room(&uid(n))).collect();
        assert!(others.iter_mut().all(|room| room.take(MAX_HELD_OF_ONE)));
        assert!(!authorizers.room(&uid(9)).take(1), "all of it is taken");
        drop(first);
        assert!(authorizers.room(&uid(9)).take(MAX_HELD_OF_ONE));
        drop(others);
        let held = authorizers.held.lock().unwrap();
        assert_eq!((held.all, held.each.len()), (0, 0));
    }
}
