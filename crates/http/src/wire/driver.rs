//! The one that reads and writes.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http2::limits::MAX_FRAME;
use http2::{Accepted, Gone, Role};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};

use super::Wire;
use crate::limits::{HEAD_TIMEOUT, KEEP_ALIVE, KEEP_ALIVE_TIMEOUT};

/// How many bytes are read at once, where the last time there were fewer; else a whole frame's.
const READ: usize = 4096;
/// A frame and its head.
const FRAME: usize = MAX_FRAME + 9;

/// Reads and writes for a connection, as long as it is polled. Dropped, the connection has ended.
#[derive(Debug)]
pub(crate) struct Driver<IO> {
    io: IO,
    wire: Arc<Wire>,
    /// What was read and is not understood yet.
    read: Vec<u8>,
    /// Whether the last read took all it could.
    full: bool,
    writing: Vec<u8>,
    written: usize,
    flushed: bool,
    /// Whether nothing is read any more.
    leaving: bool,
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    pub(crate) fn new(io: IO, wire: Arc<Wire>) -> Self {
        Self {
            io,
            wire,
            read: Vec::new(),
            full: false,
            writing: Vec::new(),
            written: 0,
            flushed: true,
            leaving: false,
            since: Instant::now(),
            timer: Box::pin(sleep(HEAD_TIMEOUT)),
        }
    }

    /// Reads and writes what there is. Ready with each request that has come, and with the end.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Accepted, Gone>> {
        self.wire.with(|connection| {
            connection.driven();
            connection.drive(context);
        });
        loop {
            if let Some(accepted) = self.wire.with(|connection| connection.accept()) {
                return Poll::Ready(Ok(accepted));
            }
            let written = match self.poll_write(context) {
                Poll::Ready(Err(error)) => {
                    self.last_words(context, error.kind());
                    return Poll::Ready(Err(self.ended()));
                }
                Poll::Ready(Ok(())) => Poll::Ready(()),
                Poll::Pending => Poll::Pending,
            };
            if !self.leaving && self.wire.with(|connection| connection.is_done()) {
                self.leaving = true;
                self.timer.as_mut().reset(Instant::now() + KEEP_ALIVE_TIMEOUT);
            }
            if self.leaving {
                // What was to be said is said first, and nobody waits for that for ever.
                if self.timer.as_mut().poll(context).is_pending() {
                    ready!(written);
                    ready!(Pin::new(&mut self.io).poll_shutdown(context).map(drop));
                }
                return Poll::Ready(Err(self.ended()));
            }
            match self.poll_read(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(gone)) => self.wire.with(|connection| connection.end(gone)),
                Poll::Pending => {
                    ready!(self.poll_timer(context));
                }
            }
        }
    }

    /// Nothing can be written any more: what the other side said before that may tell why.
    fn last_words(&mut self, context: &mut Context<'_>, kind: io::ErrorKind) {
        let gone = loop {
            match self.poll_read(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(gone)) => break gone,
                Poll::Pending => break Gone::Broken(kind),
            }
        };
        self.wire.with(|connection| connection.end(gone));
    }

    fn ended(&self) -> Gone {
        self.wire.with(|connection| {
            connection.end(Gone::Closed);
            connection.gone().unwrap_or(Gone::Closed)
        })
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.read.reserve(if self.full { FRAME } else { READ });
        let room = self.read.capacity() - self.read.len();
        let count = ready!(pin!(self.io.read_buf(&mut self.read)).poll(context));
        let count = count.map_err(|error| Gone::Broken(error.kind()))?;
        if count == 0 {
            return Poll::Ready(Err(Gone::Closed));
        }
        self.full = count >= room;
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let done = self.wire.with(|connection| connection.input(&self.read, now));
        if done >= self.read.len() {
            self.read.clear();
        } else {
            self.read.drain(..done);
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when all has been written.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.written == self.writing.len() {
                self.writing.clear();
                self.written = 0;
                if !self.wire.with(|connection| connection.output(&mut self.writing)) {
                    break;
                }
            }
            let rest = self.writing.get(self.written..).unwrap_or_default();
            match ready!(Pin::new(&mut self.io).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
            self.flushed = false;
        }
        if !self.flushed {
            ready!(Pin::new(&mut self.io).poll_flush(context))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Looks now and then whether the other side is there: on the client's side only where it owes an answer. Ready where
    /// something is to be written for that.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        ready!(self.timer.as_mut().poll(context));
        let next = self.wire.with(|connection| {
            let owed = connection.role() == Role::Server || connection.open_streams() > 0;
            if connection.heard() && connection.is_settled() {
                KEEP_ALIVE
            } else if connection.is_asked() || !connection.is_settled() {
                connection.silent();
                KEEP_ALIVE_TIMEOUT
            } else if owed {
                connection.ask();
                KEEP_ALIVE_TIMEOUT
            } else {
                KEEP_ALIVE
            }
        });
        self.timer.as_mut().reset(Instant::now() + next);
        // Nothing has come for a while: what buffers took is given back.
        if self.read.is_empty() {
            self.read = Vec::new();
        }
        if self.writing.is_empty() {
            self.writing = Vec::new();
        }
        Poll::Ready(())
    }
}

impl<IO> Drop for Driver<IO> {
    fn drop(&mut self) {
        self.wire.with(|connection| connection.end(Gone::Closed));
    }
}
