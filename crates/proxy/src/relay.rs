//! Bytes both ways.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use model::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that one direction may hold.
const BUFFER: usize = 16 * 1024;
/// How long nothing may be said in either direction, as Envoy's TCP proxy has it.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// How two streams that were tied together ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Relayed {
    /// Bytes from the first to the second.
    pub(crate) sent: u64,
    /// Bytes from the second to the first.
    pub(crate) received: u64,
    /// Why it did not end cleanly, where it did not.
    pub(crate) reason: Option<Reason>,
}

/// Copies both ways until both have ended, half-closes carried through (O-06), or until `closed` returns.
/// Memory is bounded: one buffer a direction.
pub(crate) async fn relay<A, B>(mut a: A, mut b: B, closed: impl Future<Output = Reason>) -> Relayed
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
    let reason = {
        let mut there = Half::new(&sent);
        let mut back = Half::new(&received);
        let copying = poll_fn(|context| {
            // Each direction is asked each time: neither can starve the other.
            let one = there.poll(context, &mut a, &mut b).map_err(|at| match at {
                At::Source => Reason::DownstreamReset,
                At::Sink => Reason::UpstreamReset,
            })?;
            let two = back.poll(context, &mut b, &mut a).map_err(|at| match at {
                At::Source => Reason::UpstreamReset,
                At::Sink => Reason::DownstreamReset,
            })?;
            if one.is_ready() && two.is_ready() {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            }
        });
        let total = || sent.load(Ordering::Relaxed) + received.load(Ordering::Relaxed);
        let mut copying = pin!(copying);
        let mut closed = pin!(closed);
        loop {
            let before = total();
            tokio::select! {
                done = &mut copying => break done.err(),
                reason = &mut closed => break Some(reason),
                () = tokio::time::sleep(IDLE_TIMEOUT) => {
                    if total() == before {
                        break Some(Reason::Timeout);
                    }
                }
            }
        }
    };
    Relayed {
        sent: sent.into_inner(),
        received: received.into_inner(),
        reason,
    }
}

/// Whose stream failed.
enum At {
    Source,
    Sink,
}

/// One direction.
struct Half<'c> {
    buffer: Box<[u8]>,
    filled: usize,
    written: usize,
    unflushed: bool,
    ended: bool,
    shut: bool,
    count: &'c AtomicU64,
}

impl<'c> Half<'c> {
    fn new(count: &'c AtomicU64) -> Self {
        Self {
            buffer: vec![0; BUFFER].into_boxed_slice(),
            filled: 0,
            written: 0,
            unflushed: false,
            ended: false,
            shut: false,
            count,
        }
    }

    /// Ready when the source has ended and the sink knows.
    fn poll<R, W>(&mut self, context: &mut Context<'_>, source: &mut R, sink: &mut W) -> Poll<Result<(), At>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.shut {
            return Poll::Ready(Ok(()));
        }
        loop {
            // tokio's own budget ends this loop for a source that never runs dry.
            while self.written < self.filled {
                let rest = self.buffer.get(self.written..self.filled).unwrap_or_default();
                match ready!(Pin::new(&mut *sink).poll_write(context, rest)) {
                    Ok(count) if count > 0 => {
                        self.written += count;
                        self.unflushed = true;
                        let count = u64::try_from(count).unwrap_or(u64::MAX);
                        self.count.fetch_add(count, Ordering::Relaxed);
                    }
                    _ => return Poll::Ready(Err(At::Sink)),
                }
            }
            if self.ended {
                let shut = ready!(Pin::new(&mut *sink).poll_shutdown(context));
                self.shut = true;
                // A sink that went away after it got everything has lost nothing.
                return Poll::Ready(match shut {
                    Ok(()) => Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                    Err(_) => Err(At::Sink),
                });
            }
            let mut space = ReadBuf::new(&mut self.buffer);
            match Pin::new(&mut *source).poll_read(context, &mut space) {
                Poll::Ready(Ok(())) => {
                    self.filled = space.filled().len();
                    self.written = 0;
                    self.ended = self.filled == 0;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(At::Source)),
                Poll::Pending => {
                    if self.unflushed {
                        match ready!(Pin::new(&mut *sink).poll_flush(context)) {
                            Ok(()) => self.unflushed = false,
                            Err(_) => return Poll::Ready(Err(At::Sink)),
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn o_06_a_half_close_is_carried_through_and_the_answer_comes_back() {
        let (mut client, near) = duplex(64);
        let (far, mut server) = duplex(64);
        let relaying = tokio::spawn(relay(near, far, std::future::pending()));
        let talking = tokio::spawn(async move {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        server.write_all(&[7; 100_000]).await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(talking.await.unwrap().len(), 100_000);
        let relayed = relaying.await.unwrap();
        let expected = Relayed {
            sent: 8,
            received: 100_000,
            reason: None,
        };
        assert_eq!(relayed, expected);
    }

    #[tokio::test]
    async fn it_ends_when_told() {
        let (mut client, near) = duplex(64);
        let (far, _server) = duplex(64);
        client.write_all(b"abc").await.unwrap();
        let relayed = relay(near, far, async {
            tokio::task::yield_now().await;
            Reason::PolicyChanged
        })
        .await;
        assert_eq!(relayed.reason, Some(Reason::PolicyChanged));
        assert_eq!(relayed.sent, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it() {
        let (_client, near) = duplex(64);
        let (far, _server) = duplex(64);
        let relayed = relay(near, far, std::future::pending()).await;
        assert_eq!(relayed.reason, Some(Reason::Timeout));
    }

    #[tokio::test]
    async fn whose_end_broke_is_told() {
        let (client, near) = duplex(64);
        let (far, server) = duplex(64);
        drop(server);
        let mut client = client;
        client.write_all(b"x").await.unwrap();
        let relayed = relay(near, far, std::future::pending()).await;
        assert_eq!(relayed.reason, Some(Reason::UpstreamReset));
    }
}
