//! The snapshot in force: swapped whole, read without waiting.

use std::sync::Arc;

use snapshot::Index;
use tokio::sync::watch;

/// The one snapshot. A decision takes it once and sees nothing else.
#[derive(Debug)]
pub(crate) struct Store {
    index: arc_swap::ArcSwapOption<Index>,
    version: watch::Sender<u64>,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            index: arc_swap::ArcSwapOption::empty(),
            version: watch::Sender::new(0),
        }
    }

    /// What is in force; `None` before the first snapshot, and then everything is refused.
    pub(crate) fn current(&self) -> Option<Arc<Index>> {
        self.index.load_full()
    }

    /// Puts a snapshot into force.
    pub(crate) fn put(&self, index: Index, version: u64) {
        self.index.store(Some(Arc::new(index)));
        self.version.send_replace(version);
    }

    /// Puts a set into force.
    ///
    /// # Errors
    /// It is not one that can be served from; what was in force stays.
    #[cfg(test)]
    pub(crate) fn swap(&self, resources: &snapshot::Resources, version: u64) -> Result<(), String> {
        let index = Index::build(resources).map_err(|e| e.to_string())?;
        self.put(index, version);
        Ok(())
    }

    /// The version in force; 0 before the first. Changes after the snapshot has.
    pub(crate) fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}
