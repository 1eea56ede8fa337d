//! Ciphertext that is read ahead of TLS.
//!
//! rustls asks its stream for 4 KiB at a time, and for no more than a record in the end. What comes in bulk costs a system
//! call for each then, and the kernel tells the sender as often how far it may go on. So as much as has come is read at
//! once, and handed on in the pieces that are asked for. A buffer is held only while it has bytes: a connection that says
//! nothing costs none.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read at once: four records.
const AHEAD: usize = 64 * 1024;

/// How many buffers a thread keeps for the next.
const SPARE_BUFFERS: usize = 16;

/// A stream of which TLS reads.
pub struct ReadAhead<IO> {
    inner: IO,
    /// What was read; `None` where all of it was handed on.
    buffer: Option<Box<[u8]>>,
    /// What of it is to be handed on.
    start: usize,
    end: usize,
}

impl<IO> ReadAhead<IO> {
    pub(crate) fn new(inner: IO) -> Self {
        Self {
            inner,
            buffer: None,
            start: 0,
            end: 0,
        }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &IO {
        &self.inner
    }
}

impl<IO: fmt::Debug> fmt::Debug for ReadAhead<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadAhead")
            .field("inner", &self.inner)
            .field("held", &self.end.saturating_sub(self.start))
            .finish_non_exhaustive()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for ReadAhead<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if space.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        let buffer = match this.buffer.take() {
            Some(buffer) => buffer,
            None => {
                let mut buffer = spare();
                let mut ahead = ReadBuf::new(&mut buffer);
                let read = Pin::new(&mut this.inner).poll_read(context, &mut ahead);
                (this.start, this.end) = (0, ahead.filled().len());
                if !matches!(read, Poll::Ready(Ok(()))) || this.end == 0 {
                    keep(buffer);
                    return read;
                }
                buffer
            }
        };
        let held = buffer.get(this.start..this.end).unwrap_or_default();
        let given = held.len().min(space.remaining());
        space.put_slice(held.get(..given).unwrap_or_default());
        this.start = this.start.saturating_add(given);
        if this.start < this.end {
            this.buffer = Some(buffer);
        } else {
            keep(buffer);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for ReadAhead<IO> {
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

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
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

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

fn spare() -> Box<[u8]> {
    SPARE
        .with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| vec![0; AHEAD].into_boxed_slice())
}

fn keep(buffer: Box<[u8]>) {
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_BUFFERS {
            spare.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests;
