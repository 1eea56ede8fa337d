//! Tokens that were verified before, so that a signature is computed once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest;

use crate::claims::Claims;
use crate::token::MAX_TOKEN;

/// The most tokens that are remembered.
pub const MAX_REMEMBERED: usize = 8192;

/// The longest token that is remembered, bytes; a longer one is verified each time.
pub const MAX_REMEMBERED_TOKEN: usize = MAX_TOKEN / 4;

/// Parts that are locked apart.
const SHARDS: usize = 16;

/// Of a rule with its keys, or of a token under it.
pub(crate) type Digest = [u8; 32];

/// Tokens that were verified before: bounded, keyed by digest, never past `exp` or the removal of a key.
///
/// The key is SHA-256 of the token and of everything that the verdict depends on: the rule and the text of its keys. So
/// a rule that changed, or keys that did, find nothing. Only success is remembered, and only of tokens that have an
/// `exp`. The token itself is not kept.
pub struct Memory {
    shards: [Mutex<Shard>; SHARDS],
    hits: AtomicU64,
    signatures: AtomicU64,
}

#[derive(Default)]
struct Shard {
    entries: BTreeMap<Digest, Entry>,
    /// By last use, oldest first.
    order: BTreeMap<u64, Digest>,
    clock: u64,
}

struct Entry {
    used: u64,
    not_before: u64,
    expires: u64,
    claims: Arc<Claims>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hits: AtomicU64::new(0),
            signatures: AtomicU64::new(0),
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("len", &self.len())
            .field("hits", &self.hits())
            .field("signatures", &self.signatures())
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// How many tokens are remembered, at most [`MAX_REMEMBERED`].
    pub fn len(&self) -> usize {
        let count = |shard: &Mutex<Shard>| shard.lock().unwrap_or_else(PoisonError::into_inner).entries.len();
        self.shards.iter().map(count).sum()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many tokens were accepted from memory, since the start.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// How many signatures were verified, good or bad, since the start.
    pub fn signatures(&self) -> u64 {
        self.signatures.load(Ordering::Relaxed)
    }

    pub(crate) fn count_signatures(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.signatures.fetch_add(count, Ordering::Relaxed);
    }

    /// The key of a token under a rule.
    pub(crate) fn key(rule: &Digest, token: &str) -> Digest {
        digest_of(&[rule, token.as_bytes()])
    }

    /// The claims of a token that was verified, while it is valid without regard to the skew of clocks. An entry that is
    /// past its end is dropped.
    pub(crate) fn find(&self, key: &Digest, now: u64) -> Option<Arc<Claims>> {
        let mut shard = self.shard(key)?.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = shard.entries.get(key)?;
        if now > entry.expires {
            shard.forget(key);
            return None;
        }
        if now < entry.not_before {
            return None;
        }
        let claims = Arc::clone(&entry.claims);
        shard.touch(key);
        drop(shard);
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(claims)
    }

    /// Remembers a token of `length` bytes that was verified at `now`, if it ends, and later than that.
    pub(crate) fn remember(
        &self,
        key: &Digest,
        length: usize,
        now: u64,
        times: (Option<u64>, Option<u64>),
        claims: &Arc<Claims>,
    ) {
        let (not_before, Some(expires)) = times else {
            return;
        };
        if length > MAX_REMEMBERED_TOKEN || now > expires {
            return;
        }
        let Some(shard) = self.shard(key) else {
            return;
        };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.forget(key);
        if shard.entries.len() >= MAX_REMEMBERED / SHARDS
            && let Some((_, oldest)) = shard.order.pop_first()
        {
            shard.entries.remove(&oldest);
        }
        let entry = Entry {
            used: 0,
            not_before: not_before.unwrap_or(0),
            expires,
            claims: Arc::clone(claims),
        };
        shard.entries.insert(*key, entry);
        shard.touch(key);
    }

    fn shard(&self, key: &Digest) -> Option<&Mutex<Shard>> {
        let first = key.first().copied().unwrap_or_default();
        self.shards.get(usize::from(first) % SHARDS)
    }
}

impl Shard {
    fn touch(&mut self, key: &Digest) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        self.order.remove(&entry.used);
        self.clock += 1;
        entry.used = self.clock;
        self.order.insert(self.clock, *key);
    }

    fn forget(&mut self, key: &Digest) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
        }
    }
}

/// SHA-256 of the parts, each with its length before it.
pub(crate) fn digest_of(parts: &[&[u8]]) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Arc<Claims> {
        Arc::new(Claims::new(serde_json::Map::new(), &[]))
    }

    fn key(number: u32) -> Digest {
        Memory::key(&[0; 32], &number.to_string())
    }

    #[test]
    fn it_never_holds_more_than_its_limit_and_the_oldest_goes() {
        let memory = Memory::default();
        for number in 0..40_000 {
            memory.remember(&key(number), 10, 0, (None, Some(100)), &claims());
            // What is used stays.
            assert!(number < 1 || memory.find(&key(0), 1).is_some());
        }
        assert_eq!(memory.len(), MAX_REMEMBERED);
        assert!(memory.find(&key(1), 1).is_none());
        assert!(memory.find(&key(39_999), 1).is_some());
        for shard in &memory.shards {
            let shard = shard.lock().unwrap();
            assert_eq!(shard.entries.len(), shard.order.len());
        }
    }

    #[test]
    fn an_entry_does_not_outlive_exp_nor_come_before_nbf() {
        let memory = Memory::default();
        memory.remember(&key(1), 10, 60, (Some(50), Some(100)), &claims());
        assert!(memory.find(&key(1), 49).is_none());
        assert!(memory.find(&key(1), 100).is_some());
        assert!(memory.find(&key(1), 101).is_none());
        assert!(memory.is_empty(), "dropped when it was found past its end");
    }

    #[test]
    fn what_does_not_end_has_ended_or_is_long_is_not_remembered() {
        let memory = Memory::default();
        memory.remember(&key(1), 10, 0, (None, None), &claims());
        memory.remember(&key(2), 10, 101, (None, Some(100)), &claims());
        memory.remember(&key(3), MAX_REMEMBERED_TOKEN + 1, 0, (None, Some(100)), &claims());
        assert!(memory.is_empty());
    }

    #[test]
    fn parts_of_a_digest_do_not_run_into_one_another() {
        assert_ne!(digest_of(&[b"ab", b"c"]), digest_of(&[b"a", b"bc"]));
        assert_ne!(digest_of(&[b"a"]), digest_of(&[b"a", b""]));
    }
}
