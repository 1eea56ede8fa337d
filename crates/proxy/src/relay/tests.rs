use std::future::pending;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;

fn tied(
    capacity: usize,
    closed: impl Future<Output = Reason> + Send + 'static,
) -> (DuplexStream, DuplexStream, JoinHandle<Relayed>) {
    let (client, a) = duplex(capacity);
    let (b, server) = duplex(capacity);
    (client, server, tokio::spawn(relay(a, b, closed)))
}

#[tokio::test]
async fn o_06_half_close_is_carried_through() {
    let (mut client, mut server, relayed) = tied(64, pending());
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut got = Vec::new();
    server.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"question");
    // The other direction is open still.
    server.write_all(b"the answer").await.unwrap();
    server.shutdown().await.unwrap();
    got.clear();
    client.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"the answer");
    let clean = Relayed {
        sent: 8,
        received: 10,
        reason: None,
    };
    assert_eq!(relayed.await.unwrap(), clean);
}

#[tokio::test]
async fn every_byte_arrives_in_order_both_ways_at_once() {
    const LENGTH: usize = 3 * 1024 * 1024 + 17;
    let (client, server, relayed) = tied(5000, pending());
    let pattern = |seed: usize| -> Vec<u8> {
        (0..LENGTH)
            .map(|n| u8::try_from((n * seed) % 251).unwrap())
            .collect()
    };
    let both = |stream: DuplexStream, out: Vec<u8>| async move {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut got = Vec::new();
        let (_, read) = tokio::join!(
            async {
                write.write_all(&out).await.unwrap();
                write.shutdown().await.unwrap();
            },
            read.read_to_end(&mut got)
        );
        read.unwrap();
        got
    };
    let (at_client, at_server) = tokio::join!(both(client, pattern(3)), both(server, pattern(7)));
    assert!(at_client == pattern(7), "the answer is not what was sent");
    assert!(at_server == pattern(3), "the question is not what was sent");
    let relayed = relayed.await.unwrap();
    let length = u64::try_from(LENGTH).unwrap();
    assert_eq!((relayed.sent, relayed.received), (length, length));
}

#[tokio::test]
async fn p_55_closed_ends_it_with_its_reason_and_what_was_carried() {
    let (close, closed) = tokio::sync::oneshot::channel::<()>();
    let (mut client, mut server, relayed) = tied(64, async move {
        let _ = closed.await;
        Reason::PolicyChanged
    });
    client.write_all(b"hello").await.unwrap();
    let mut got = [0; 5];
    server.read_exact(&mut got).await.unwrap();
    close.send(()).unwrap();
    let relayed = relayed.await.unwrap();
    assert_eq!(relayed.reason, Some(Reason::PolicyChanged));
    assert_eq!((relayed.sent, relayed.received), (5, 0));
    assert!(client.write_all(b"x").await.is_err());
}

#[tokio::test]
async fn what_must_be_closed_already_carries_nothing() {
    let (mut client, a) = duplex(64);
    let (b, mut server) = duplex(64);
    client.write_all(b"hello").await.unwrap();
    let relayed = relay(a, b, std::future::ready(Reason::DenyExplicit)).await;
    assert_eq!(relayed.sent, 0);
    assert_eq!(relayed.reason, Some(Reason::DenyExplicit));
    let mut got = Vec::new();
    server.read_to_end(&mut got).await.unwrap();
    assert!(got.is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_ends_it_and_a_byte_prolongs() {
    let begin = Instant::now();
    let (mut client, mut server, relayed) = tied(64, pending());
    tokio::time::sleep(IDLE_TIMEOUT / 2).await;
    client.write_all(b"x").await.unwrap();
    server.read_u8().await.unwrap();
    let relayed = relayed.await.unwrap();
    assert_eq!(relayed.reason, Some(Reason::Timeout));
    assert_eq!(begin.elapsed().as_secs(), (IDLE_TIMEOUT * 3 / 2).as_secs());
}

#[tokio::test]
async fn who_broke_is_told() {
    let (_client, a) = duplex(64);
    let relayed = relay(a, reset(), pending()).await;
    assert_eq!(relayed.reason, Some(Reason::UpstreamReset));
    let (_server, b) = duplex(64);
    let relayed = relay(reset(), b, pending()).await;
    assert_eq!(relayed.reason, Some(Reason::DownstreamReset));
}

/// A stream whose other end has reset it.
fn reset() -> impl AsyncRead + AsyncWrite + Unpin {
    struct Reset;
    impl AsyncRead for Reset {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }
    impl AsyncWrite for Reset {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    Reset
}

/// Gives what is asked for and takes what is given until `left` is carried, and counts both.
#[derive(Default)]
struct Endless {
    left: usize,
    /// The most that one read gives: a record, where it is TLS.
    piece: usize,
    reads: usize,
    writes: usize,
    flushed: bool,
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let given = space.remaining().min(self.piece).min(self.left);
        space.put_slice(&vec![b'x'; given]);
        self.left -= given;
        self.reads += 1;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        assert!(
            self.writes == 0 || self.flushed,
            "what is written does not wait for what was"
        );
        self.flushed = false;
        self.writes += 1;
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushed = true;
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_mebibyte_costs_few_reads_of_a_socket_and_few_writes() {
    const MIB: usize = 8;
    const RECORD: usize = 16 * 1024;
    for (piece, reads) in [(usize::MAX, 17), (RECORD, 85)] {
        let source = || Endless {
            left: MIB * 1024 * 1024,
            piece,
            ..Endless::default()
        };
        let (mut a, mut b) = (source(), source());
        let relayed = relay(&mut a, &mut b, pending()).await;
        assert_eq!(relayed.sent, u64::try_from(MIB * 1024 * 1024).unwrap());
        for end in [a, b] {
            assert!(end.reads <= reads * MIB, "{} reads of {piece}", end.reads);
            assert!(end.writes <= 17 * MIB, "{} writes", end.writes);
        }
    }
}

#[tokio::test]
async fn what_came_before_a_reader_broke_is_written() {
    struct Breaks(Endless);
    impl AsyncRead for Breaks {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            space: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match self.0.left {
                0 => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                _ => Pin::new(&mut self.0).poll_read(context, space),
            }
        }
    }
    let a = Endless {
        left: 100,
        piece: 30,
        ..Endless::default()
    };
    let a = tokio::io::join(Breaks(a), tokio::io::sink());
    let (b, mut server) = duplex(1024);
    let relayed = relay(a, b, pending()).await;
    assert_eq!(
        (relayed.sent, relayed.reason),
        (100, Some(Reason::DownstreamReset))
    );
    let mut got = Vec::new();
    server.read_to_end(&mut got).await.unwrap();
    assert_eq!(got.len(), 100);
}

#[tokio::test]
async fn one_direction_in_bulk_lets_everybody_else_have_a_turn() {
    let mut a = Endless {
        left: usize::MAX,
        piece: usize::MAX,
        ..Endless::default()
    };
    let mut b = Endless::default();
    let mut carrying = Box::pin(relay(&mut a, &mut b, pending()));
    // It comes back though there is always more, and says that it wants to go on.
    let woken = std::sync::Arc::new(Woken::default());
    let waker = std::task::Waker::from(std::sync::Arc::clone(&woken));
    assert!(
        carrying
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    assert!(woken.0.load(Ordering::Relaxed));
    drop(carrying);
    assert!(
        a.reads <= ROUNDS && usize::MAX - a.left <= ROUNDS * BUFFER,
        "{}",
        a.reads
    );
}

#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
