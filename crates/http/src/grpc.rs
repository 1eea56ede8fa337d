//! Messages of gRPC, counted as they go by (gRPC over HTTP/2: "Length-Prefixed-Message").

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the messages of one direction. However a sender cuts them into frames, nothing of them is kept.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    count: u64,
    /// How many bytes of a head have come.
    head: u8,
    /// The length that a head says, as far as it has come.
    length: u32,
    /// Bytes of the message that are still to come.
    left: u32,
}

/// A flag, and the length in four bytes.
const HEAD: u8 = 5;

impl Messages {
    /// Takes the next bytes.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let within = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            if within > 0 {
                self.left = self
                    .left
                    .saturating_sub(u32::try_from(within).unwrap_or(u32::MAX));
                bytes = bytes.get(within..).unwrap_or_default();
                continue;
            }
            let Some((first, rest)) = bytes.split_first() else {
                return;
            };
            if self.head > 0 {
                self.length = (self.length << 8) | u32::from(*first);
            }
            self.head += 1;
            if self.head == HEAD {
                self.count = self.count.saturating_add(1);
                self.left = self.length;
                (self.head, self.length) = (0, 0);
            }
            bytes = rest;
        }
    }

    /// How many have begun, their heads whole.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// Counts the messages of one direction for somebody else to read.
#[derive(Clone, Debug)]
pub struct Tally {
    messages: Messages,
    to: Arc<AtomicU64>,
}

impl Tally {
    /// The number is kept in `to`.
    pub fn new(to: Arc<AtomicU64>) -> Self {
        Self {
            messages: Messages::default(),
            to,
        }
    }

    /// Takes the next bytes.
    pub fn take(&mut self, bytes: &[u8]) {
        self.messages.take(bytes);
        self.to.store(self.messages.count(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut bytes = Vec::new();
        for length in [0_u32, 3, 300] {
            bytes.push(0);
            bytes.extend(length.to_be_bytes());
            bytes.extend(vec![7; usize::try_from(length).unwrap()]);
        }
        for size in [1, 2, 5, 7, 100, bytes.len()] {
            let mut messages = Messages::default();
            bytes.chunks(size).for_each(|part| messages.take(part));
            assert_eq!(messages.count(), 3, "{size}");
        }
    }

    #[test]
    fn a_length_that_lies_is_only_a_length() {
        let mut messages = Messages::default();
        messages.take(&[1, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
        assert_eq!(messages.count(), 1);
        messages.take(&[0; 100]);
        assert_eq!(messages.count(), 1);
    }
}
