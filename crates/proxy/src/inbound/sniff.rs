//! The first bytes of a connection, as far as they are needed (semantics 9).

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use identity::sniff as tls;
use meshward_http::Rewind;
use meshward_http::limits::HEAD_TIMEOUT;
use meshward_http::sniff as http;
use model::{MtlsMode, Protocol};
use tokio::io::{AsyncRead, ReadBuf};

/// How long a port without a declared protocol waits for its client, where the mesh sets no limit. Then the connection
/// goes on as TCP, or is refused where TLS is demanded (PD-19).
const DETECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a port that is declared TCP and takes both waits for a ClientHello: mesh clients send it at once, and a
/// server that speaks first must not be kept waiting.
const TLS_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that are read at once: more than a ClientHello with a key share of X25519MLKEM768 has.
const AT_ONCE: usize = 4096;

/// What came first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum First {
    /// A ClientHello.
    Tls { sni: Option<String>, alpn: Vec<Vec<u8>> },
    /// HTTP/1.1 or HTTP/2 in plaintext.
    Http,
    /// HTTP/1.0.
    Http10,
    /// Something else.
    Other,
    /// Nothing, in time.
    Silent,
    /// Nothing, and nothing will.
    Ended,
    /// It was not looked at: nothing depends on it.
    Unread,
}

impl First {
    pub(super) fn sni(&self) -> Option<&str> {
        match self {
            Self::Tls { sni, .. } => sni.as_deref(),
            _ => None,
        }
    }

    pub(super) fn offers(&self, protocol: &[u8]) -> bool {
        matches!(self, Self::Tls { alpn, .. } if alpn.iter().any(|a| a == protocol))
    }
}

/// Whether TLS, and whether HTTP, has to be told apart; and how long that may take.
fn needs(mode: MtlsMode, protocol: Protocol, limit: Option<Duration>) -> (bool, bool, Duration) {
    let tls = mode != MtlsMode::Disable;
    let http = !protocol.is_http() && !protocol.is_opaque();
    let patience = match (mode, protocol) {
        (MtlsMode::Permissive, p) if p.is_opaque() => limit.unwrap_or(TLS_TIMEOUT).min(TLS_TIMEOUT),
        (_, p) if p.is_http() => HEAD_TIMEOUT,
        _ => limit.unwrap_or(DETECTION_TIMEOUT),
    };
    (tls, http, patience)
}

/// Reads as much as is needed; the stream begins anew with it.
///
/// # Errors
/// The stream failed.
pub(super) async fn first<S: AsyncRead + Unpin>(
    mut stream: S,
    mode: MtlsMode,
    protocol: Protocol,
    limit: Option<Duration>,
) -> io::Result<(Rewind<S>, First)> {
    let (tls, http, patience) = needs(mode, protocol, limit);
    if !tls && !http {
        return Ok((Rewind::new(bytes::Bytes::new(), stream), First::Unread));
    }
    let mut bytes = BytesMut::new();
    let reading = async {
        loop {
            if let Some(first) = told(&bytes, mode, tls, http) {
                return io::Result::Ok(first);
            }
            if more(&mut stream, &mut bytes).await? == 0 {
                return Ok(if bytes.is_empty() {
                    First::Ended
                } else {
                    First::Other
                });
            }
        }
    };
    let first = match tokio::time::timeout(patience, reading).await {
        Ok(read) => read?,
        Err(_) if bytes.is_empty() => First::Silent,
        Err(_) => First::Other,
    };
    Ok((Rewind::new(bytes.freeze(), stream), first))
}

/// Reads as much as a ClientHello needs at once, and holds no more than has come.
async fn more<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|context| {
        let mut space = [0; AT_ONCE];
        let mut space = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut space))?;
        bytes.extend_from_slice(space.filled());
        Poll::Ready(Ok(space.filled().len()))
    })
    .await
}

/// `None` where more bytes are needed. The first byte decides that something is not TLS (O-05), and where TLS is
/// demanded that is all there is to know.
fn told(bytes: &[u8], mode: MtlsMode, tls: bool, http: bool) -> Option<First> {
    if bytes.is_empty() {
        return None;
    }
    if tls {
        match tls::client_hello(bytes) {
            tls::Sniff::NeedMore if bytes.len() < tls::LIMIT => return None,
            tls::Sniff::ClientHello { sni, alpn } => return Some(First::Tls { sni, alpn }),
            tls::Sniff::NeedMore | tls::Sniff::NotTls => {}
        }
        if mode == MtlsMode::Strict || !http {
            return Some(First::Other);
        }
    }
    match http::classify(bytes) {
        http::Sniff::NeedMore => None,
        http::Sniff::Http1 | http::Sniff::Http2 => Some(First::Http),
        http::Sniff::Http10 => Some(First::Http10),
        http::Sniff::Other => Some(First::Other),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    async fn seen(mode: MtlsMode, protocol: Protocol, bytes: &[u8]) -> First {
        let (mut client, server) = duplex(1024);
        client.write_all(bytes).await.unwrap();
        let read = first(server, mode, protocol, None).await.unwrap();
        drop(client);
        read.1
    }

    #[tokio::test(start_paused = true)]
    async fn o_05_the_first_byte_decides_whether_it_can_be_tls() {
        use MtlsMode::{Disable, Permissive, Strict};
        for (mode, protocol, bytes, expect) in [
            (Permissive, Protocol::Tcp, &b"x"[..], First::Other),
            (Strict, Protocol::Auto, b"G", First::Other),
            (Permissive, Protocol::Http, b"G", First::Other),
            (Permissive, Protocol::Auto, b"GET / HTTP/1.1\r\n", First::Http),
            (Disable, Protocol::Auto, b"GET / HTTP/1.0\r\n", First::Http10),
            (Disable, Protocol::Auto, b"\x16\x03\x01", First::Other),
            (Permissive, Protocol::Tcp, b"", First::Silent),
            (Permissive, Protocol::Auto, b"GE", First::Other),
            (Disable, Protocol::Tcp, b"x", First::Unread),
            (Disable, Protocol::Http, b"x", First::Unread),
        ] {
            assert_eq!(
                seen(mode, protocol, bytes).await,
                expect,
                "{mode} {protocol:?} {bytes:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_client_hello_costs_one_read() {
        struct Counted<'b>(&'b [u8], usize);
        impl AsyncRead for Counted<'_> {
            fn poll_read(
                mut self: Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                space: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                self.1 += 1;
                Pin::new(&mut self.0).poll_read(context, space)
            }
        }
        // The beginning of one as long as ours are, of which the last bytes never come.
        let mut bytes = vec![0; 1500];
        bytes[..9].copy_from_slice(b"\x16\x03\x01\x05\xdf\x01\x00\x05\xdb");
        let mut client = Counted(&bytes, 0);
        let (_, first) = first(&mut client, MtlsMode::Strict, Protocol::Tcp, None)
            .await
            .unwrap();
        // All of it, and its end.
        assert_eq!((first, client.1), (First::Other, 2));
    }
}
