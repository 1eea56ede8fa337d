//! Services on demand: asked for when a workload first talks to them, followed while they are used, forgotten after.
//!
//! Whoever looks something up says what the snapshot lacked for it, and waits here until the control plane has answered;
//! that there is nothing is an answer too. Everybody who lacks the same thing waits for the same answer. What nobody has
//! used for [`IDLE`] is given back, and what does not exist after [`ABSENT`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::Reason;
use snapshot::ResourceName;
use tokio::time::{Instant, MissedTickBehavior};
use xds::client::Interest;

use super::Store;
use crate::shared::Shared;

/// How long an answer may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);

/// How long the control plane may be away before nobody waits for it any more.
const AWAY: Duration = Duration::from_secs(2);

/// How long who calls may be waited for: only names in logs and metrics depend on it.
const CALLER_TIMEOUT: Duration = Duration::from_millis(250);

/// How many may wait for answers at once.
const MAX_WAITING: usize = 2048;

/// How many of one workload may.
const MAX_WAITING_OF_ONE: usize = 256;

/// How many names may be asked for or held; less than a control plane takes ([`xds::MAX_QUESTIONS`]).
const MAX_NAMES: usize = 16_000;

/// How often it is looked what is in use.
const ROUND: Duration = Duration::from_secs(15);

/// How long something that exists is held without being used.
const IDLE: Duration = Duration::from_mins(5);

/// How long it is remembered that something does not exist, without being asked again.
const ABSENT: Duration = Duration::from_secs(30);

/// What is asked for, and who waits.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    interest: Interest,
    waiting: Arc<Mutex<Waiting>>,
    /// For how many rounds each has not been used.
    idle: Mutex<HashMap<ResourceName, u32>>,
}

#[derive(Debug, Default)]
struct Waiting {
    all: usize,
    /// By the mark of their interface.
    of_one: HashMap<u32, usize>,
}

/// Somebody who waits.
struct Place {
    waiting: Arc<Mutex<Waiting>>,
    mark: u32,
}

impl Demand {
    /// What the control plane is to be asked for.
    pub(crate) fn interest(&self) -> Interest {
        self.interest.clone()
    }

    /// Asks for what another proxy did, whose place is to be taken; what is too much is asked for when it is needed.
    pub(crate) fn inherit(&self, mut names: Vec<ResourceName>) {
        names.truncate(MAX_NAMES);
        if self.interest.add(&names).is_err() {
            tracing::debug!("nothing is asked for before it is needed");
        }
    }

    /// Something that is asked for and has not been answered.
    pub(crate) fn unanswered(&self, store: &Store) -> Option<ResourceName> {
        let index = store.current();
        let known = |name: &ResourceName| index.as_ref().is_some_and(|index| index.knows(name));
        self.interest.names().into_iter().find(|name| !known(name))
    }

    /// Returns once the snapshot in force knows the answers. `mark` is that of the workload for which they are.
    ///
    /// # Errors
    /// `CONTROL_PLANE_AWAY` where nobody answers in time; `LIMIT_REACHED`.
    pub(crate) async fn learn(&self, store: &Store, mark: u32, names: &[ResourceName]) -> Result<(), Reason> {
        if knows(store, names) {
            return Ok(());
        }
        self.wait(store, mark, names, TIMEOUT).await
    }

    /// As [`Self::learn`], of who calls: what is not known soon is done without.
    pub(crate) async fn learn_caller(&self, store: &Store, mark: u32, address: std::net::IpAddr) {
        let lacks = snapshot::Lacks::default();
        if let Some(index) = store.current() {
            index.need_caller(address, &lacks);
        }
        let names = lacks.into_names();
        if !names.is_empty() && self.interest.absence().is_none() {
            let _ = self.wait(store, mark, &names, CALLER_TIMEOUT).await;
        }
    }

    /// Asks, and waits for nothing.
    pub(crate) fn want(&self, store: &Store, names: &[ResourceName]) {
        if let Err(reason) = self.ask(store, names) {
            tracing::warn!(%reason, "something in use cannot be asked for");
        }
    }

    async fn wait(
        &self,
        store: &Store,
        mark: u32,
        names: &[ResourceName],
        limit: Duration,
    ) -> Result<(), Reason> {
        if self.interest.absence().is_some_and(|absence| absence > AWAY) {
            // It is told all the same, as soon as it is back.
            self.ask(store, names)?;
            return Err(Reason::ControlPlaneAway);
        }
        let _place = self.place(mark)?;
        let mut version = store.version();
        version.borrow_and_update();
        self.ask(store, names)?;
        let until = Instant::now() + limit;
        while !knows(store, names) {
            match tokio::time::timeout_at(until, version.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(Reason::ControlPlaneAway),
            }
        }
        Ok(())
    }

    /// Where there is no room, what does not exist or is not in use makes some.
    fn ask(&self, store: &Store, names: &[ResourceName]) -> Result<(), Reason> {
        if self.interest.len() + names.len() > MAX_NAMES {
            let asked = self.interest.names();
            if let Some(index) = store.current() {
                let unused = index.unused(&asked);
                let unused: Vec<_> = unused.into_iter().map(|(name, _)| name).collect();
                self.interest.remove(&unused);
                let absent = index.absent(&asked);
                self.interest.remove(&absent);
            }
            if self.interest.len() + names.len() > MAX_NAMES {
                return Err(Reason::LimitReached);
            }
        }
        self.interest.add(names).map_err(|_| Reason::LimitReached)
    }

    fn place(&self, mark: u32) -> Result<Place, Reason> {
        let mut waiting = locked(&self.waiting);
        let own = waiting.of_one.get(&mark).copied().unwrap_or_default();
        if waiting.all >= MAX_WAITING || own >= MAX_WAITING_OF_ONE {
            return Err(Reason::LimitReached);
        }
        waiting.all += 1;
        waiting.of_one.insert(mark, own + 1);
        drop(waiting);
        Ok(Place {
            waiting: Arc::clone(&self.waiting),
            mark,
        })
    }

    /// Ends a round: what has not been used for long enough is given back.
    fn round(&self, store: &Store) {
        let Some(index) = store.current() else {
            return;
        };
        // Without a control plane nothing could be had again.
        if self.interest.absence().is_some() {
            return;
        }
        let asked = self.interest.names();
        let unused = index.unused(&asked);
        index.begin_round();
        let mut idle = locked(&self.idle);
        let before = std::mem::take(&mut *idle);
        let mut over = Vec::new();
        for (name, absent) in unused {
            let rounds = before.get(&name).copied().unwrap_or_default() + 1;
            let limit = if absent { ABSENT } else { IDLE };
            // The first round of which nothing is seen may have had its last use at any time.
            if ROUND * rounds > limit {
                over.push(name);
            } else {
                idle.insert(name, rounds);
            }
        }
        drop(idle);
        if !over.is_empty() {
            tracing::debug!(count = over.len(), "names are not asked for any more");
            self.interest.remove(&over);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = locked(&self.waiting);
        waiting.all = waiting.all.saturating_sub(1);
        let own = waiting.of_one.get(&self.mark).copied().unwrap_or_default();
        if own > 1 {
            waiting.of_one.insert(self.mark, own - 1);
        } else {
            waiting.of_one.remove(&self.mark);
        }
    }
}

/// Forgets what is not used, for as long as the proxy runs.
pub(crate) async fn forget(shared: Arc<Shared>) -> Result<(), String> {
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        if let Some(index) = shared.store.current() {
            // What is open uses where it goes: it is told of changes for as long as it is.
            shared.registry.recheck(&index).await;
        }
        shared.demand.round(&shared.store);
    }
}

fn knows(store: &Store, names: &[ResourceName]) -> bool {
    store
        .current()
        .is_some_and(|index| names.iter().all(|name| index.knows(name)))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
