//! The end of a proxy, stage by stage.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

/// How far the end of a proxy has come. Stages only follow one another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) enum Stage {
    /// What comes waits.
    Starting,
    /// It takes what comes.
    #[default]
    Running,
    /// It takes nothing new: what is open goes on.
    Draining,
    /// As that, and another proxy has its sockets: whoever asks anything is to ask that one.
    HandedOver,
    /// What is still open is broken off.
    Over,
}

/// The stage of a proxy, and what is to be waited for before the last.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    stage: Arc<watch::Sender<Stage>>,
    open: Arc<AtomicUsize>,
}

/// A connection that is carried, until dropped.
#[derive(Debug)]
pub(crate) struct Carried(Arc<AtomicUsize>);

impl Default for Ending {
    fn default() -> Self {
        Self {
            stage: Arc::new(watch::Sender::new(Stage::default())),
            open: Arc::default(),
        }
    }
}

impl Ending {
    /// Of a proxy that takes nothing yet.
    pub(crate) fn starting() -> Self {
        Self {
            stage: Arc::new(watch::Sender::new(Stage::Starting)),
            open: Arc::default(),
        }
    }

    /// The stage.
    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Goes on to a stage, or stays where it is further.
    pub(crate) fn advance(&self, to: Stage) {
        self.stage.send_if_modified(|stage| {
            let further = *stage < to;
            *stage = to.max(*stage);
            further
        });
    }

    /// Returns once it has come to a stage.
    pub(crate) fn reached(&self, wanted: Stage) -> impl Future<Output = ()> + Send + use<> {
        let mut stage = self.stage.subscribe();
        async move {
            // A sender that is gone is a proxy that is going.
            let _ = stage.wait_for(|stage| *stage >= wanted).await.map(|_| ());
        }
    }

    /// Counts a connection that is carried.
    pub(crate) fn carry(&self) -> Carried {
        self.open.fetch_add(1, Ordering::Relaxed);
        Carried(Arc::clone(&self.open))
    }

    /// How many connections are carried.
    pub(crate) fn carried(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stages_follow_one_another_and_none_comes_back() {
        let ending = Ending::default();
        let over = tokio::spawn(ending.reached(Stage::Over));
        ending.reached(Stage::Running).await;
        ending.advance(Stage::HandedOver);
        ending.reached(Stage::Draining).await;
        ending.advance(Stage::Draining);
        assert_eq!(ending.stage(), Stage::HandedOver);
        assert!(!over.is_finished());
        ending.advance(Stage::Over);
        over.await.unwrap();
    }

    #[test]
    fn what_is_carried_is_counted_until_it_ends() {
        let ending = Ending::default();
        let carried = ending.carry();
        assert_eq!(ending.carried(), 1);
        drop(carried);
        assert_eq!(ending.carried(), 0);
    }
}
