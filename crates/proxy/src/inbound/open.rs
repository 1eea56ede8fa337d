//! How many connections, and how many requests, each workload has open: what the proxy as a whole may have open must not
//! be one workload's to use up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;

/// Connections to one workload at once, and requests apart from them; more are refused with `LIMIT_REACHED`.
pub(super) const MAX_OPEN_OF_ONE: usize = 20_000;

/// Open connections, or requests, by the mark of their workload.
#[derive(Debug)]
pub(crate) struct Open {
    counts: Mutex<HashMap<u32, usize>>,
    limit: usize,
}

/// The share of one, given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    open: Arc<Open>,
    mark: u32,
}

impl Default for Open {
    fn default() -> Self {
        Self {
            counts: Mutex::default(),
            limit: MAX_OPEN_OF_ONE,
        }
    }
}

impl Open {
    /// A share for one more; `None` where the workload has all that it may have.
    pub(super) fn share(self: &Arc<Self>, mark: u32) -> Option<Share> {
        let mut counts = self.counts();
        let count = counts.entry(mark).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Share {
            open: Arc::clone(self),
            mark,
        })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.open.counts();
        if let Some(count) = counts.get_mut(&self.mark) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.mark);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_workload_cannot_take_what_another_needs() {
        let open = Arc::new(Open {
            limit: 2,
            ..Open::default()
        });
        let (first, second) = (open.share(1).unwrap(), open.share(1).unwrap());
        assert!(open.share(1).is_none());
        assert!(open.share(2).is_some());
        drop(first);
        assert!(open.share(1).is_some());
        drop(second);
        assert!(open.counts().is_empty());
    }
}
