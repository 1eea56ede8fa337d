//! One line of chunked framing.

/// A line, without its end, and its length with it.
pub(super) struct Line<'a> {
    pub(super) text: &'a [u8],
    pub(super) length: usize,
}

/// The line has no proper end, holds a control character, or is too long.
pub(super) struct Malformed;

impl<'a> Line<'a> {
    /// The first line of `bytes`; `None` where its end has not come yet.
    pub(super) fn first(bytes: &'a [u8], limit: usize) -> Result<Option<Self>, Malformed> {
        for (at, byte) in bytes.iter().enumerate() {
            if at >= limit {
                return Err(Malformed);
            }
            match byte {
                b'\r' => {
                    return match bytes.get(at + 1) {
                        None => Ok(None),
                        Some(b'\n') => Ok(bytes.get(..at).map(|text| Self { text, length: at + 2 })),
                        Some(_) => Err(Malformed),
                    };
                }
                b'\t' => {}
                0..=0x1f | 0x7f => return Err(Malformed),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// A number of bytes, from the first on, that hold no control character (RFC 5234's CTL): up to the first, or to fewer than
/// eight bytes from the end.
pub(super) fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    let (words, _) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // A high bit for each byte that is below a space, or DEL. The lowest is true; those above it may not be.
        let below = word.wrapping_sub(ONES * 0x20) & !word;
        let del = word ^ (ONES * 0x7f);
        let controls = (below | (del.wrapping_sub(ONES) & !del)) & HIGH;
        if controls != 0 {
            return at * 8 + usize::try_from(controls.trailing_zeros() / 8).unwrap_or_default();
        }
    }
    words.len() * 8
}

/// The place of the first control character that is not `but`.
pub(super) fn control(bytes: &[u8], but: u8) -> Option<usize> {
    let mut at = 0;
    loop {
        at += plain(bytes.get(at..).unwrap_or_default());
        match *bytes.get(at)? {
            byte if byte.is_ascii_control() && byte != but => return Some(at),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn controls_are_found_as_one_by_one(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x1e..0x22_u8, 0x7d..0x82_u8, Just(b'a'), Just(b'a')], 0..40)) {
            let slowly = bytes.iter().position(|b| (*b < 0x20 && *b != b'\t') || *b == 0x7f);
            prop_assert_eq!(control(&bytes, b'\t'), slowly);
            let first = bytes.iter().position(|b| *b < 0x20 || *b == 0x7f).unwrap_or(bytes.len());
            let words = bytes.len() / 8 * 8;
            prop_assert_eq!(plain(&bytes), if first < words { first } else { words });
        }
    }
}
