//! Random numbers that need not be secret: ids of requests, and the choice of an endpoint.

use std::cell::RefCell;

/// How many bytes a thread has in hand; the generator is asked for so many at once, since asking is what costs.
const POOL: usize = 512;

thread_local! {
    static IN_HAND: RefCell<([u8; POOL], usize)> = const { RefCell::new(([0; POOL], POOL)) };
}

/// Bytes that nobody has had before. Where the system gives none they are always the same, which breaks nothing.
pub(super) fn bytes<const N: usize>() -> [u8; N] {
    IN_HAND.with_borrow_mut(|(bytes, used)| {
        if used.saturating_add(N) > POOL {
            let _ = aws_lc_rs::rand::fill(bytes);
            *used = 0;
        }
        let taken = bytes.get(*used..).and_then(<[u8]>::first_chunk);
        *used = used.saturating_add(N);
        taken.copied().unwrap_or([0; N])
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_byte_is_handed_out_twice() {
        let all: HashSet<[u8; 16]> = (0..1000).map(|_| bytes()).collect();
        assert_eq!(all.len(), 1000);
    }
}
