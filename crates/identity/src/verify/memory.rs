//! Chains that were judged before: what a chain comes to follows from its bytes, from what is believed, and from the time.
//!
//! A memory belongs to one state of what is believed ([`super::Trust`]); another state begins without any, so that nothing
//! outlives the roots, revocation lists and trust domains that it was judged by. Only what was found good is remembered, and
//! never past the first end of anything that may have been part of it. That the peer holds the leaf's key is no part of it:
//! each handshake proves that anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::path::{Anchors, Purpose};
use crate::pki::Facts;

/// The most chains that are remembered since the last time that there were so many, and as many from before.
pub(super) const MAX_REMEMBERED: usize = 2048;

/// What was found good.
#[derive(Debug)]
pub(crate) struct Known {
    /// What the leaf says of itself.
    pub(crate) facts: Facts,
    /// When it was judged, Unix seconds: a clock that goes back asks again.
    since: i64,
    /// The last second in which it holds.
    pub(crate) until: i64,
}

/// A chain and what it is to be used for: SHA-256 over both.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Chain([u8; 32]);

impl Chain {
    pub(crate) fn of(purpose: Purpose, leaf: &CertificateDer<'_>, sent: &[CertificateDer<'_>]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(match purpose {
            Purpose::Client => b"c",
            Purpose::Server => b"s",
        });
        for der in std::iter::once(leaf).chain(sent) {
            // With its length, so that no other division into certificates looks the same.
            context.update(&der.len().to_be_bytes());
            context.update(der);
        }
        let mut bytes = [0; 32];
        let digest = context.finish();
        bytes
            .iter_mut()
            .zip(digest.as_ref())
            .for_each(|(to, from)| *to = *from);
        Self(bytes)
    }
}

/// The memory.
#[derive(Default, Debug)]
pub(crate) struct Memory(Mutex<Generations>);

/// Those remembered lately, and those from before: the latter are forgotten when the former are many, unless they were asked
/// for meanwhile.
#[derive(Default, Debug)]
struct Generations {
    young: HashMap<Chain, Arc<Known>>,
    old: HashMap<Chain, Arc<Known>>,
}

impl Generations {
    fn insert(&mut self, chain: Chain, known: Arc<Known>) {
        if self.young.len() >= MAX_REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(chain, known);
    }
}

impl Memory {
    /// What a chain was found to be, where that still holds.
    pub(crate) fn recall(&self, chain: &Chain, now: UnixTime) -> Option<Arc<Known>> {
        let now = seconds(now);
        self.with(|kept| {
            let known = match kept.young.get(chain) {
                Some(known) => Arc::clone(known),
                None => {
                    let known = kept.old.remove(chain)?;
                    kept.insert(*chain, Arc::clone(&known));
                    known
                }
            };
            (known.since <= now && now <= known.until).then_some(known)
        })
    }

    /// Remembers what was found good just now by `anchors`.
    pub(super) fn keep(&self, chain: Chain, facts: Facts, now: UnixTime, until: i64) -> Arc<Known> {
        let known = Arc::new(Known {
            facts,
            since: seconds(now),
            until,
        });
        self.with(|kept| kept.insert(chain, Arc::clone(&known)));
        known
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.with(|kept| kept.young.len() + kept.old.len())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Generations) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// The last second in which a verdict of `anchors` that was good at `now` is good still: nothing ends before it that may have
/// been part of the path, certificate or list. What had ended by `now` was no part of it.
pub(super) fn good_until(
    anchors: &Anchors,
    leaf: &CertificateDer<'_>,
    sent: &[CertificateDer<'_>],
    now: UnixTime,
) -> i64 {
    let now = seconds(now);
    let certificates = std::iter::once(leaf)
        .chain(sent)
        .filter_map(|der| crate::pki::end(der));
    let ends = certificates.chain(anchors.ends());
    ends.filter(|end| *end >= now).min().unwrap_or(now)
}
