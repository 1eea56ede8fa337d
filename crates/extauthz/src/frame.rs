//! gRPC's framing of the one message of a unary call.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of an answer over gRPC.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// Bytes before a message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// Why bytes are not one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// It ends too early, or goes on after its end.
    #[error("the answer is not one message")]
    Length,
    /// It is compressed, which nobody asked for.
    #[error("the answer is compressed")]
    Compressed,
    /// It is longer than [`MAX_MESSAGE`].
    #[error("the answer is too long")]
    TooLong,
}

/// A message as it goes over the wire.
pub fn frame(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD + message.len());
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(message);
    out.freeze()
}

/// The message of a body.
///
/// # Errors
/// It is not exactly one.
pub fn unframe(body: &[u8]) -> Result<&[u8], FrameError> {
    let (head, message) = body.split_at_checked(HEAD).ok_or(FrameError::Length)?;
    let [compressed, length @ ..] = head else {
        return Err(FrameError::Length);
    };
    let length = length
        .iter()
        .fold(0usize, |sum, byte| (sum << 8) | usize::from(*byte));
    if *compressed != 0 {
        return Err(FrameError::Compressed);
    }
    if length > MAX_MESSAGE {
        return Err(FrameError::TooLong);
    }
    if length != message.len() {
        return Err(FrameError::Length);
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_and_nothing_else_is_an_answer() {
        assert_eq!(unframe(&frame(b"abc")), Ok(&b"abc"[..]));
        assert_eq!(unframe(&frame(b"")), Ok(&b""[..]));
        for (bytes, error) in [
            (&b""[..], FrameError::Length),
            (b"\0\0\0\0", FrameError::Length),
            (b"\0\0\0\0\x02a", FrameError::Length),
            (b"\0\0\0\0\x01ab", FrameError::Length),
            (b"\x01\0\0\0\x01a", FrameError::Compressed),
            (b"\0\xff\xff\xff\xff", FrameError::TooLong),
        ] {
            assert_eq!(unframe(bytes), Err(error), "{bytes:?}");
        }
    }
}
