//! How much one workload may ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Questions that one workload may ask within a [`WINDOW`].
const MAX_QUESTIONS: u32 = 2000;
const WINDOW: Duration = Duration::from_secs(1);

/// Questions of one workload that may be under way.
const MAX_UNDER_WAY: u32 = 64;

/// Workloads that are counted apart at one time.
const MAX_ASKERS: usize = 4096;

/// Who asks how much.
#[derive(Clone, Debug, Default)]
pub(super) struct Askers(Arc<Mutex<HashMap<u32, Asker>>>);

#[derive(Debug)]
struct Asker {
    since: Instant,
    asked: u32,
    under_way: u32,
    /// Whether it has been said in this window that there were too many.
    told: bool,
}

/// A question under way; over when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    askers: Askers,
    mark: u32,
}

/// A question too many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooMany {
    /// Whether it is the first one of its window, to be told of.
    pub(super) first: bool,
}

impl Askers {
    /// Takes a turn.
    pub(super) fn turn(&self, mark: u32) -> Result<Turn, TooMany> {
        let now = Instant::now();
        let mut askers = self.locked();
        if askers.len() >= MAX_ASKERS && !askers.contains_key(&mark) {
            askers.retain(|_, a| a.under_way > 0 || now.duration_since(a.since) < WINDOW);
            if askers.len() >= MAX_ASKERS {
                return Err(TooMany { first: false });
            }
        }
        let asker = askers.entry(mark).or_insert(Asker {
            since: now,
            asked: 0,
            under_way: 0,
            told: false,
        });
        if now.duration_since(asker.since) >= WINDOW {
            (asker.since, asker.asked, asker.told) = (now, 0, false);
        }
        if asker.asked >= MAX_QUESTIONS || asker.under_way >= MAX_UNDER_WAY {
            let first = !std::mem::replace(&mut asker.told, true);
            return Err(TooMany { first });
        }
        asker.asked = asker.asked.saturating_add(1);
        asker.under_way = asker.under_way.saturating_add(1);
        Ok(Turn {
            askers: self.clone(),
            mark,
        })
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<u32, Asker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(asker) = self.askers.locked().get_mut(&self.mark) {
            asker.under_way = asker.under_way.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_workload_cannot_ask_without_end_and_takes_nothing_from_another() {
        let askers = Askers::default();
        for _ in 0..MAX_QUESTIONS {
            drop(askers.turn(1).unwrap());
        }
        assert_eq!(askers.turn(1).unwrap_err(), TooMany { first: true });
        assert_eq!(askers.turn(1).unwrap_err(), TooMany { first: false });
        assert!(askers.turn(2).is_ok());
        tokio::time::advance(WINDOW).await;
        assert!(askers.turn(1).is_ok());
    }

    #[tokio::test]
    async fn what_is_under_way_is_bounded_and_given_back() {
        let askers = Askers::default();
        let mut turns: Vec<_> = (0..MAX_UNDER_WAY).map(|_| askers.turn(1).unwrap()).collect();
        assert!(askers.turn(1).is_err());
        turns.pop();
        assert!(askers.turn(1).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded() {
        let askers = Askers::default();
        for mark in 0..u32::try_from(MAX_ASKERS).unwrap() {
            drop(askers.turn(mark).unwrap());
        }
        assert!(askers.turn(u32::MAX).is_err());
        tokio::time::advance(WINDOW).await;
        assert!(askers.turn(u32::MAX).is_ok());
    }
}
