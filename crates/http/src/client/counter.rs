//! Where requests are handed over to a connection of HTTP/1.

use std::sync::{Arc, PoisonError, RwLock};

/// The codec's channel loses what is put into it just while its reader is dropped: nobody would ever answer such a request.
/// So neither happens during the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Counter(Arc<RwLock<()>>);

impl Counter {
    /// Hands something over.
    pub(super) fn hand<T>(&self, over: impl FnOnce() -> T) -> T {
        let _open = self.0.read().unwrap_or_else(PoisonError::into_inner);
        over()
    }

    /// Drops who takes what is handed over: nothing is, meanwhile.
    pub(super) fn close<T>(&self, taker: T) {
        let _closed = self.0.write().unwrap_or_else(PoisonError::into_inner);
        drop(taker);
    }
}
