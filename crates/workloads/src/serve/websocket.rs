//! The little of RFC 6455 that an echo needs.

use base64::Engine as _;
use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest frame that is echoed.
const FRAME: u64 = 1024 * 1024;

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
pub(crate) fn accept_key(key: &str) -> String {
    let mut text = key.trim().to_owned();
    text.push_str("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// Sends every data frame back, answers pings, ends on close.
pub(crate) async fn echo<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO) -> io::Result<()> {
    loop {
        let (first, payload) = frame(&mut io).await?;
        let opcode = match first & 0x0f {
            9 => 10,
            8 => {
                write(&mut io, 0x88, &payload).await?;
                return io.shutdown().await;
            }
            10 => continue,
            other => other,
        };
        write(&mut io, first & 0x80 | opcode, &payload).await?;
    }
}

pub(crate) async fn frame<IO: AsyncRead + Unpin>(io: &mut IO) -> io::Result<(u8, Vec<u8>)> {
    let first = io.read_u8().await?;
    let second = io.read_u8().await?;
    let len = match second & 0x7f {
        126 => u64::from(io.read_u16().await?),
        127 => io.read_u64().await?,
        short => u64::from(short),
    };
    if second & 0x80 == 0 || len > FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "an unmasked or oversized frame",
        ));
    }
    let mut mask = [0; 4];
    io.read_exact(&mut mask).await?;
    let mut payload = vec![0; usize::try_from(len).unwrap_or_default()];
    io.read_exact(&mut payload).await?;
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Ok((first, payload))
}

pub(crate) async fn write<IO: AsyncWrite + Unpin>(io: &mut IO, first: u8, payload: &[u8]) -> io::Result<()> {
    let mut out = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => out.push(short),
        (_, Ok(long)) => {
            out.push(126);
            out.extend_from_slice(&long.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&u64::try_from(payload.len()).unwrap_or(u64::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    io.write_all(&out).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_6455_example_key() {
        assert_eq!(
            accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[tokio::test]
    async fn a_masked_frame_comes_back_unmasked() {
        let (mut near, far) = io::duplex(1024);
        let task = tokio::spawn(echo(far));
        near.write_all(&[0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2])
            .await
            .unwrap();
        let mut answer = [0; 4];
        near.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, &[0x81, 2, b'h', b'i']);
        near.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
        task.await.unwrap().unwrap();
    }
}
