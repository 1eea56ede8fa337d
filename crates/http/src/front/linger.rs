//! The end of a connection. The kernel answers a close with unread bytes by a reset, which overtakes what was written last:
//! an answer, or the word which requests were not looked at. So what a peer still sends is read first, for a while.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::limits::{LINGER, LINGER_BYTES};

/// How many bytes are read at once.
const READ: usize = 4096;

/// How far the end of one connection has come.
#[derive(Debug, Default)]
pub(super) struct Linger(Option<(Pin<Box<Sleep>>, usize)>);

impl Linger {
    /// Shuts a stream down, then reads and throws away what comes until its other end is closed too, for [`LINGER`] and
    /// [`LINGER_BYTES`] at most.
    pub(super) fn poll_shutdown<IO>(&mut self, io: &mut IO, context: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        if self.0.is_none() {
            ready!(Pin::new(&mut *io).poll_shutdown(context))?;
        }
        let (timer, room) = self
            .0
            .get_or_insert_with(|| (Box::pin(sleep(LINGER)), LINGER_BYTES));
        let mut sink = [0_u8; READ];
        while *room > 0 && timer.as_mut().poll(context).is_pending() {
            let mut part = ReadBuf::new(&mut sink);
            match Pin::new(&mut *io).poll_read(context, &mut part) {
                Poll::Ready(Ok(())) if !part.filled().is_empty() => {
                    *room = room.saturating_sub(part.filled().len());
                }
                Poll::Ready(_) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A stream that lingers when it is shut down.
#[derive(Debug)]
pub(crate) struct Lingering<IO> {
    inner: IO,
    linger: Linger,
}

impl<IO> Lingering<IO> {
    pub(crate) fn new(inner: IO) -> Self {
        Self {
            inner,
            linger: Linger::default(),
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Lingering<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.linger.poll_shutdown(&mut this.inner, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Both ends of a connection, the second with what the first has sent and nobody has read.
    async fn unread() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (mut client, (server, _)) = (client.unwrap(), listener.accept().await.unwrap());
        client.write_all(b"nobody reads this").await.unwrap();
        server.readable().await.unwrap();
        (client, server)
    }

    #[tokio::test]
    async fn what_was_written_last_arrives_although_bytes_are_unread() {
        let (mut client, server) = unread().await;
        let mut server = Lingering::new(server);
        let end = tokio::spawn(async move {
            server.write_all(b"the last word").await.unwrap();
            server.shutdown().await.unwrap();
        });
        // The end is seen, and no reset, even by whoever still writes.
        let mut read = Vec::new();
        client.write_all(b"more").await.unwrap();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"the last word");
        assert!(!end.is_finished(), "it waits for the other end");
        drop(client);
        end.await.unwrap();
    }

    #[tokio::test]
    async fn nobody_is_waited_for_longer_than_a_while_or_read_from_without_end() {
        let (client, server) = unread().await;
        let mut server = Lingering::new(server);
        let begin = tokio::time::Instant::now();
        server.shutdown().await.unwrap();
        assert!(begin.elapsed() >= LINGER);
        drop(client);
        let (mut client, server) = unread().await;
        let mut server = Lingering::new(server);
        let sends = tokio::spawn(async move { while client.write_all(&[0; READ]).await.is_ok() {} });
        server.shutdown().await.unwrap();
        drop(server);
        sends.await.unwrap();
    }
}
