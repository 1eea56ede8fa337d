//! Turns: TCP connections that follow one another on one connection of mutual TLS, between two proxies of ours.
//!
//! A handshake proves who is at both ends. Where the caller's proxy offers [`ALPN`] and the callee's takes it, the connection
//! is not at its end when what it was opened for is: the same caller's next TCP connection to the same address takes its turn
//! on it. Never two at once. Strangers do not offer the protocol, and are carried as ever.
//!
//! Each direction is made of frames, a head of two bytes (the higher first) before each:
//!
//! | head | what |
//! |---|---|
//! | 1 to [`MAX_FRAME`] | so many bytes follow |
//! | 0 | this direction of the turn has ended |
//! | 65535 | between turns: the next one is asked for, or taken |
//!
//! The first turn begins with the connection. Further ones are asked for by the caller's proxy, and not a byte of one goes
//! before the callee's has taken it: what is lost in between, where that closes the connection meanwhile, is nobody's bytes.
//! A turn that ends in any other way than by both directions' ends takes the connection with it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// The application protocol that stands for it.
pub(crate) const ALPN: &[u8] = b"meshward-tcp/1";

/// Bytes of a head.
const HEAD: usize = 2;

/// Bytes of one frame: with its head a record of TLS.
pub(crate) const MAX_FRAME: usize = 16 * 1024 - HEAD;

const END: u16 = 0;
const TURN: u16 = u16::MAX;

/// One turn: the bytes of one TCP connection.
#[derive(Debug)]
pub(crate) struct Turn<IO> {
    io: IO,
    reading: Reading,
    writing: Writing,
}

#[derive(Default, Debug)]
struct Reading {
    head: [u8; HEAD],
    /// Bytes of the head that are there.
    have: usize,
    /// Bytes of the frame that are to come.
    left: usize,
    ended: bool,
}

#[derive(Default, Debug)]
struct Writing {
    head: [u8; HEAD],
    /// Bytes of the head that are to be written.
    due: usize,
    /// Bytes of the frame that are to be written.
    left: usize,
    state: State,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    #[default]
    Open,
    Ending,
    Ended,
}

impl<IO> Turn<IO> {
    /// A turn that has begun.
    pub(crate) fn new(io: IO) -> Self {
        Self {
            io,
            reading: Reading::default(),
            writing: Writing::default(),
        }
    }

    /// What it is carried by.
    pub(crate) fn get_ref(&self) -> &IO {
        &self.io
    }

    /// The connection, ready for another turn; `None` where this one has not ended in both directions.
    pub(crate) fn over(self) -> Option<IO> {
        (self.reading.ended && self.writing.state == State::Ended).then_some(self.io)
    }
}

/// Asks for the next turn, and waits until it is taken.
///
/// # Errors
/// It is not: the connection is at its end, and nobody has seen that a turn was wanted, or has gone on with it.
pub(crate) async fn ask<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO) -> io::Result<()> {
    take(io).await?;
    match asked(io).await? {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Waits until the next turn is asked for; false where the other end has closed the connection.
///
/// # Errors
/// The connection broke, or something else came.
pub(crate) async fn asked<IO: AsyncRead + Unpin>(io: &mut IO) -> io::Result<bool> {
    let mut head = [0; HEAD];
    let [first, rest @ ..] = &mut head;
    if io.read(std::slice::from_mut(first)).await? == 0 {
        return Ok(false);
    }
    io.read_exact(rest).await?;
    match u16::from_be_bytes(head) {
        TURN => Ok(true),
        _ => Err(unexpected("something else than the beginning of a turn")),
    }
}

/// Takes the turn that was asked for.
///
/// # Errors
/// The connection broke.
pub(crate) async fn take<IO: AsyncWrite + Unpin>(io: &mut IO) -> io::Result<()> {
    io.write_all(&TURN.to_be_bytes()).await?;
    io.flush().await
}

/// Whether nothing has come on a connection between turns, its end included.
pub(crate) fn is_quiet<IO: AsyncRead + Unpin>(io: &mut IO) -> bool {
    let mut byte = [0; 1];
    let mut context = Context::from_waker(Waker::noop());
    Pin::new(io)
        .poll_read(&mut context, &mut ReadBuf::new(&mut byte))
        .is_pending()
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<IO: AsyncRead + Unpin> Turn<IO> {
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<u16>> {
        while self.reading.have < HEAD {
            let space = self.reading.head.get_mut(self.reading.have..).unwrap_or_default();
            let mut space = ReadBuf::new(space);
            ready!(Pin::new(&mut self.io).poll_read(context, &mut space))?;
            match space.filled().len() {
                // An end that was not told is a truncation.
                0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                read => self.reading.have += read,
            }
        }
        self.reading.have = 0;
        Poll::Ready(Ok(u16::from_be_bytes(self.reading.head)))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Turn<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.reading.left == 0 && !self.reading.ended {
            match ready!(self.poll_head(context))? {
                END => self.reading.ended = true,
                head if usize::from(head) <= MAX_FRAME => self.reading.left = usize::from(head),
                _ => return Poll::Ready(Err(unexpected("no frame of a turn"))),
            }
        }
        if self.reading.ended || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let most = self.reading.left.min(buffer.remaining());
        let mut space = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.io).poll_read(context, &mut space))?;
        let read = space.filled().len();
        if read == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        buffer.advance(read);
        self.reading.left = self.reading.left.saturating_sub(read);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> Turn<IO> {
    fn head(&mut self, head: u16) {
        self.writing.head = head.to_be_bytes();
        self.writing.due = HEAD;
    }

    /// Writes what of a head is due, and of `bytes`; returns how many of these.
    fn poll_part(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let due = self.writing.due;
            let head = self.writing.head.get(HEAD - due..).unwrap_or_default();
            let io = Pin::new(&mut self.io);
            let written = if due == 0 {
                ready!(io.poll_write(context, bytes))?
            } else {
                let slices = [io::IoSlice::new(head), io::IoSlice::new(bytes)];
                ready!(io.poll_write_vectored(context, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.writing.due = due.saturating_sub(written);
            let taken = written.saturating_sub(due);
            if taken > 0 || (bytes.is_empty() && self.writing.due == 0) {
                return Poll::Ready(Ok(taken));
            }
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Turn<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.writing.state != State::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.writing.left == 0 {
            let length = bytes.len().min(MAX_FRAME);
            self.writing.left = length;
            // At most MAX_FRAME, which two bytes hold.
            self.head(u16::try_from(length).unwrap_or_default());
        }
        // A frame that was begun is completed by whatever comes next.
        let part = bytes.get(..self.writing.left).unwrap_or(bytes);
        let written = ready!(self.poll_part(context, part))?;
        self.writing.left = self.writing.left.saturating_sub(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    /// Ends this direction of the turn, and leaves the connection open.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writing.state == State::Open {
            if self.writing.left > 0 {
                return Poll::Ready(Err(unexpected("a turn that ends within a frame")));
            }
            self.head(END);
            self.writing.state = State::Ending;
        }
        if self.writing.due > 0 {
            ready!(self.poll_part(context, &[]))?;
        }
        ready!(Pin::new(&mut self.io).poll_flush(context))?;
        self.writing.state = State::Ended;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
