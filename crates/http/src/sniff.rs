//! What a client's first bytes are (semantics 9): total, and blind to how they were cut into segments.

mod rewind;

use crate::front::METHODS;

pub use rewind::Rewind;

/// The first bytes of every HTTP/2 connection.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes after which a first line that is still not over is no first line.
pub const MAX_SNIFF: usize = 8 * 1024;

/// What the bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sniff {
    /// Not to be said yet.
    NeedMore,
    /// The first line of an HTTP/1.1 request.
    Http1,
    /// The first line of an HTTP/1.0 request.
    Http10,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// None of these.
    Other,
}

/// Looks at the first bytes of a connection.
pub fn classify(bytes: &[u8]) -> Sniff {
    if let Some(is) = preface(bytes) {
        return if is { Sniff::Http2 } else { first_line(bytes) };
    }
    Sniff::NeedMore
}

/// Whether the bytes are HTTP/2's preface; `None` where more are needed to say.
pub(crate) fn preface(bytes: &[u8]) -> Option<bool> {
    let seen = bytes.len().min(PREFACE.len());
    let same = bytes.get(..seen) == PREFACE.get(..seen);
    match same {
        false => Some(false),
        true if seen == PREFACE.len() => Some(true),
        true => None,
    }
}

fn first_line(bytes: &[u8]) -> Sniff {
    // One empty line before a request is tolerated, as by the codec.
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let Some(space) = bytes.iter().position(|b| *b == b' ') else {
        let begins = METHODS.iter().any(|method| method.as_bytes().starts_with(bytes));
        return if begins || bytes == b"\r" {
            Sniff::NeedMore
        } else {
            Sniff::Other
        };
    };
    let (method, rest) = bytes.split_at(space);
    if !METHODS.iter().any(|known| known.as_bytes() == method) {
        return Sniff::Other;
    }
    let Some(end) = rest.iter().position(|b| *b == b'\n') else {
        let plausible = rest.iter().all(|b| *b >= b' ' || *b == b'\r') && bytes.len() < MAX_SNIFF;
        return if plausible { Sniff::NeedMore } else { Sniff::Other };
    };
    let line = rest.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.ends_with(b" HTTP/1.1") {
        Sniff::Http1
    } else if line.ends_with(b" HTTP/1.0") {
        Sniff::Http10
    } else {
        Sniff::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whole_first_lines() {
        for (bytes, expect) in [
            (&b"GET / HTTP/1.1\r\n"[..], Sniff::Http1),
            (b"M-SEARCH * HTTP/1.1\r\n", Sniff::Http1),
            (b"GET / HTTP/1.0\r\n", Sniff::Http10),
            (PREFACE, Sniff::Http2),
            (b"get / HTTP/1.1\r\n", Sniff::Other),
            (b"\x00GET /admin HTTP/1.1\r\n", Sniff::Other),
            (b"\x16\x03\x01", Sniff::Other),
            (b"SSH-2.0-x\r\n", Sniff::Other),
            (b"GET\r\n", Sniff::Other),
            (b"GET / RTSP/1.0\r\n", Sniff::Other),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Sniff::Other),
            (b"", Sniff::NeedMore),
            (b"GE", Sniff::NeedMore),
            (b"GET /index", Sniff::NeedMore),
        ] {
            assert_eq!(classify(bytes), expect, "{bytes:?}");
        }
    }

    #[test]
    fn a_first_line_has_an_end() {
        let mut line = b"GET /".to_vec();
        line.resize(MAX_SNIFF, b'a');
        assert_eq!(classify(&line), Sniff::Other);
    }

    proptest! {
        /// PD-15: what is decided of a prefix stays decided.
        #[test]
        fn pd_15_fragmentation_changes_nothing(bytes in prop_oneof![
            Just(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
            Just(PREFACE.to_vec()),
            Just(b"POST /x HTTP/1.0\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..64),
        ]) {
            let mut decided = Sniff::NeedMore;
            for end in 0..=bytes.len() {
                let now = classify(&bytes[..end]);
                if decided == Sniff::NeedMore {
                    decided = now;
                } else {
                    prop_assert_eq!(now, decided);
                }
            }
        }
    }
}
