//! The front as a stream: the codec above reads nothing that the front has not let through.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Front;
use super::linger::Linger;
use crate::Fault;
use crate::limits::{HEAD_TIMEOUT, IDLE_TIMEOUT};

/// How many bytes are read at once.
const READ: usize = 4096;

/// The request that the codec is given in place of one that was refused. Its method is none that the front lets
/// through, so that no client can send it.
const STAND_IN: &[u8] = b"MESHWARD-REFUSED / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// The method of the stand-in.
pub(crate) const REFUSED_METHOD: &str = "MESHWARD-REFUSED";

/// What the gate and the service that sits above the codec tell each other.
#[derive(Debug, Default)]
pub(crate) struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    fault: Option<Fault>,
    verdict: Option<Verdict>,
    waker: Option<Waker>,
    cut: bool,
}

/// How a request for an upgrade was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// With 101.
    Upgraded,
    /// With anything else.
    Stays,
}

impl Shared {
    /// What was wrong with the request that the stand-in stands for.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.with(|state| state.fault)
    }

    /// Whether the client's bytes ended within a head.
    pub(crate) fn cut(&self) -> bool {
        self.with(|state| state.cut)
    }

    /// Tells how a request for an upgrade was answered.
    pub(crate) fn decide(&self, verdict: Verdict) {
        let waker = self.with(|state| {
            state.verdict = Some(verdict);
            state.waker.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The stream that the codec reads from and writes to.
#[derive(Debug)]
pub(crate) struct Gate<IO> {
    inner: IO,
    front: Front,
    /// Read and not handed on; the first `good` of them may be.
    held: BytesMut,
    good: usize,
    refused: bool,
    shared: Arc<Shared>,
    timer: Timer,
    linger: Linger,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waits {
    Head,
    Request,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Gate<IO> {
    pub(crate) fn new(inner: IO, shared: Arc<Shared>) -> Self {
        Self {
            inner,
            front: Front::default(),
            held: BytesMut::new(),
            good: 0,
            refused: false,
            shared,
            timer: Timer::default(),
            linger: Linger::default(),
        }
    }

    /// Lets through what is understood; a fault becomes the stand-in, which the codec asks us about.
    fn look(&mut self) -> io::Result<()> {
        if self.front.undecided()
            && let Some(verdict) = self.shared.with(|state| state.verdict.take())
        {
            self.front.decide(verdict == Verdict::Upgraded);
        }
        if self.good > 0 || self.refused {
            return Ok(());
        }
        let in_body = self.in_body();
        match self.front.advance(&self.held) {
            Ok(good) => {
                self.good = good;
                Ok(())
            }
            Err(fault) => self.refuse(fault, in_body),
        }
    }

    fn in_body(&self) -> bool {
        !self.front.within_head() && !self.front.between()
    }

    fn refuse(&mut self, fault: Fault, in_body: bool) -> io::Result<()> {
        self.refused = true;
        self.shared.with(|state| state.fault = Some(fault));
        self.held.clear();
        if in_body {
            // A handler already reads this body: it sees it break off.
            return Err(io::Error::new(io::ErrorKind::InvalidData, fault));
        }
        self.held.extend_from_slice(STAND_IN);
        self.good = self.held.len();
        Ok(())
    }

    fn hand_on(&mut self, buffer: &mut ReadBuf<'_>) {
        let length = self.good.min(buffer.remaining());
        buffer.put_slice(self.held.get(..length).unwrap_or_default());
        self.held.advance(length);
        self.good -= length;
        self.timer.stop();
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }

    /// Ready where the client has taken too long. Bodies and upgraded streams have no limit here.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (waits, limit) = match (&self.front.state, self.held.is_empty()) {
            (super::State::Head { .. } | super::State::Start, false) => (Waits::Head, HEAD_TIMEOUT),
            (super::State::Head { .. } | super::State::Start, true) => (Waits::Request, IDLE_TIMEOUT),
            _ => {
                self.timer.stop();
                return Poll::Pending;
            }
        };
        self.timer.poll(context, waits, limit)
    }

    /// Reads bytes of a body straight into the reader's buffer.
    fn poll_through(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = usize::try_from(self.front.unlooked()).unwrap_or(usize::MAX);
        let length = room.min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(length));
        std::task::ready!(Pin::new(&mut self.inner).poll_read(context, &mut part))?;
        let count = part.filled().len();
        buffer.advance(count);
        self.front.passed(u64::try_from(count).unwrap_or(u64::MAX));
        Poll::Ready(Ok(()))
    }

    /// Reads more to look at; `false` at the end of the stream. Where nothing is held, what comes is mostly a head that is
    /// whole: then it is looked at where the reader wants it.
    fn poll_more(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        if !self.held.is_empty() {
            self.held.reserve(READ);
            let read = pin!(self.inner.read_buf(&mut self.held)).poll(context);
            return read.map_ok(|count| count > 0);
        }
        let in_body = self.in_body();
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let Some(come @ [_, ..]) = buffer.filled().get(before..) else {
            return Poll::Ready(Ok(false));
        };
        self.timer.stop();
        match self.front.advance(come) {
            Ok(good) => {
                self.held.extend_from_slice(come.get(good..).unwrap_or_default());
                buffer.set_filled(before.saturating_add(good));
            }
            Err(fault) => {
                buffer.set_filled(before);
                self.refuse(fault, in_body)?;
            }
        }
        Poll::Ready(Ok(true))
    }
}

/// How long a client may take. Set anew only when it rings, or would ring too late: not with each request.
#[derive(Debug, Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// What is waited for, and until when.
    until: Option<(Waits, Instant)>,
}

impl Timer {
    /// Nothing is waited for.
    fn stop(&mut self) {
        self.until = None;
    }

    /// Ready where `waits` has been waited for as long as `limit`.
    fn poll(&mut self, context: &mut Context<'_>, waits: Waits, limit: Duration) -> Poll<()> {
        let until = match self.until {
            Some((before, until)) if before == waits => until,
            _ => Instant::now() + limit,
        };
        self.until = Some((waits, until));
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if sleep.deadline() > until {
            sleep.as_mut().reset(until);
        }
        loop {
            std::task::ready!(sleep.as_mut().poll(context));
            if Instant::now() >= until {
                self.until = None;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(until);
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gate<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            this.look()?;
            if this.good > 0 {
                this.hand_on(buffer);
                return Poll::Ready(Ok(()));
            }
            if this.refused {
                // Not the end: the codec would take that for a client that is gone, and not answer.
                return Poll::Pending;
            }
            if this.front.undecided() {
                let decided = this.shared.with(|state| {
                    state.waker = Some(context.waker().clone());
                    state.verdict.is_some()
                });
                if decided {
                    continue;
                }
                return Poll::Pending;
            }
            if this.held.is_empty() && this.front.unlooked() > 0 {
                this.timer.stop();
                return this.poll_through(context, buffer);
            }
            let before = buffer.filled().len();
            match this.poll_more(context, buffer) {
                Poll::Ready(Ok(true)) if buffer.filled().len() > before => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => {
                    if !this.held.is_empty() || this.front.within_head() {
                        this.shared.with(|state| state.cut = !this.held.is_empty());
                        this.held.clear();
                    }
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    std::task::ready!(this.poll_timer(context));
                    if this.held.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    this.refuse(Fault::HeadTimeout, false)?;
                }
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<IO> {
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

    /// Where the connection has become something else, whoever reads it goes on.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.front.is_opaque() {
            return Pin::new(&mut this.inner).poll_shutdown(context);
        }
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
