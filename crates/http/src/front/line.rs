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
