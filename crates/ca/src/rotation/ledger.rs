//! Until when whom certificates were issued to may still use one: in memory, by holder and root.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use identity::pki::Fingerprint;
use identity::token::Claims;

/// How many holders are told apart; what is issued to further ones counts for all that are not known.
const MAX_HOLDERS: usize = 4096;

/// What was issued.
#[derive(Debug)]
pub(crate) struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// When the last certificate ends, Unix seconds.
    ends: BTreeMap<(String, Fingerprint), i64>,
    /// The same, of whoever is not among them.
    unknown: i64,
}

/// Who holds what is issued for a token: the proxy of the node that it names, or its service account where it names none.
pub(crate) fn holder(claims: &Claims) -> &str {
    if claims.node.is_empty() {
        &claims.service_account
    } else {
        &claims.node
    }
}

impl Ledger {
    /// A ledger that knows nothing of what was issued before; that has ended by `unknown`, Unix seconds.
    pub(crate) fn new(unknown: i64) -> Self {
        Self {
            inner: Mutex::new(Inner {
                unknown,
                ..Inner::default()
            }),
        }
    }

    /// A certificate was issued.
    pub(crate) fn record(&self, holder: &str, root: Fingerprint, end: i64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let full = inner.ends.len() >= MAX_HOLDERS;
        match inner.ends.get_mut(&(holder.to_owned(), root)) {
            Some(last) => *last = end.max(*last),
            None if full => inner.unknown = end.max(inner.unknown),
            None => drop(inner.ends.insert((holder.to_owned(), root), end)),
        }
    }

    /// When the last certificate of a holder ends, whatever its root.
    pub(crate) fn end(&self, holder: &str) -> i64 {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let own = inner.ends.iter().filter(|((of, _), _)| of == holder);
        own.map(|(_, end)| *end).max().unwrap_or(0).max(inner.unknown)
    }

    /// When the last certificate of a root ends that is held by others than these; with who that is, `None` where that is
    /// not known.
    pub(crate) fn others(&self, root: Fingerprint, known: &[&str]) -> (i64, Option<String>) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let others = inner
            .ends
            .iter()
            .filter(|((of, by), _)| *by == root && !known.contains(&of.as_str()));
        match others.max_by_key(|(_, end)| **end) {
            Some(((of, _), end)) if *end > inner.unknown => (*end, Some(of.clone())),
            _ => (inner.unknown, None),
        }
    }

    /// Forgets what has ended.
    pub(crate) fn forget(&self, now: i64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.ends.retain(|_, end| *end > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_holder_is_that_of_its_last_certificate() {
        let (a, b) = (Fingerprint::of(b"a"), Fingerprint::of(b"b"));
        let ledger = Ledger::new(50);
        ledger.record("node-0", a, 100);
        ledger.record("node-0", a, 90);
        ledger.record("node-0", b, 120);
        assert_eq!(ledger.end("node-0"), 120);
        assert_eq!(ledger.end("node-1"), 50, "nothing is known of it");
        assert_eq!(ledger.others(a, &["node-1"]), (100, Some("node-0".to_owned())));
        assert_eq!(ledger.others(a, &["node-0"]), (50, None));
        ledger.forget(110);
        assert_eq!(ledger.others(a, &[]), (50, None));
        assert_eq!(ledger.end("node-0"), 120);
    }

    #[test]
    fn a_full_ledger_forgets_nobodys_end() {
        let root = Fingerprint::of(b"a");
        let ledger = Ledger::new(0);
        for n in 0..MAX_HOLDERS {
            ledger.record(&n.to_string(), root, 10);
        }
        ledger.record("one more", root, 99);
        assert_eq!(ledger.end("one more"), 99);
        assert_eq!(ledger.others(root, &[]), (99, None));
    }
}
