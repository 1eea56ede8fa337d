//! A hash of what requests are looked up by. Not secret: policies are the mesh's own, and what collides is verified.

use std::hash::{BuildHasherDefault, Hasher};

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(state: u64, word: u64) -> u64 {
    (state.rotate_left(23) ^ word).wrapping_mul(MULTIPLIER)
}

fn finish(state: u64) -> u64 {
    let state = (state ^ (state >> 32)).wrapping_mul(MULTIPLIER);
    state ^ (state >> 29)
}

/// Each text with its length, so that no two lists of texts are the same stream.
fn text(mut state: u64, text: &[u8], fold: bool) -> u64 {
    state = mix(state, u64::try_from(text.len()).unwrap_or(u64::MAX));
    let mut words = text.chunks_exact(8);
    let load = |bytes: &[u8]| {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = if fold { from.to_ascii_lowercase() } else { *from };
        }
        u64::from_le_bytes(word)
    };
    for word in words.by_ref() {
        state = mix(state, load(word));
    }
    mix(state, load(words.remainder()))
}

pub(super) fn bytes(kind: u8, bytes: &[u8]) -> u64 {
    finish(text(mix(0, kind.into()), bytes, false))
}

pub(super) fn texts(kind: u8, parts: &[&str]) -> u64 {
    finish(
        parts
            .iter()
            .fold(mix(0, kind.into()), |h, part| text(h, part.as_bytes(), false)),
    )
}

/// Case does not count.
pub(super) fn folded(kind: u8, part: &str) -> u64 {
    finish(text(mix(0, kind.into()), part.as_bytes(), true))
}

pub(super) fn number(kind: u8, number: u128) -> u64 {
    let (high, low) = (number >> 64, number & u128::from(u64::MAX));
    let word = |half: u128| u64::try_from(half).unwrap_or_default();
    finish(mix(mix(mix(0, kind.into()), word(high)), word(low)))
}

/// For tables whose keys are hashes already.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = text(self.0, bytes, false);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

pub(super) type BuildIdentity = BuildHasherDefault<Identity>;
