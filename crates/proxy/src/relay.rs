//! Bytes both ways.
//!
//! Both directions share one task and are polled in turn, so that neither starves the other. A direction holds a buffer
//! only while it has bytes: a connection that says nothing costs none.

pub(crate) mod turn;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use model::Reason;
use telemetry::Progress;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Bytes of the buffer of one direction: four frames of a turn, and so, with their heads, four records of TLS. They go with
/// one call, and the kernel makes one large packet of them.
const BUFFER: usize = 4 * turn::MAX_FRAME;

/// How often is read until a buffer is written, though it has space and there is more: TLS gives a record at a time.
const READS: usize = 16;

/// How many buffers a thread keeps for the next.
const SPARE_BUFFERS: usize = 16;

/// How often one direction fills its buffer or writes of it before everybody else gets a turn.
const ROUNDS: usize = 4;

/// How long both directions may be silent (Envoy's TCP `idle_timeout`).
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// How two streams that were tied together ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Relayed {
    /// Bytes from the first to the second.
    pub(crate) sent: u64,
    /// Bytes from the second to the first.
    pub(crate) received: u64,
    /// Why it did not end cleanly, where it did not: what `closed` said, `TIMEOUT` after [`IDLE_TIMEOUT`],
    /// `DOWNSTREAM_RESET` where the first broke, `UPSTREAM_RESET` where the second did.
    pub(crate) reason: Option<Reason>,
}

/// Copies both ways until both have ended, half-closes carried through (O-06), or until `closed` returns. Counts what
/// the other side's socket has taken.
///
/// Where there is a reason, both streams are dropped as they are, without a word of farewell: TLS without
/// `close_notify` is a truncation to its peer, and a caller that wants a reset on bare TCP sets its linger to zero.
pub(crate) async fn relay<A, B>(a: A, b: B, closed: impl Future<Output = Reason>) -> Relayed
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    relay_counted(a, b, closed, &Progress::default()).await
}

/// As [`relay`], the first being the caller: what has gone by is in `progress` at any time.
pub(crate) async fn relay_counted<A, B>(
    a: A,
    b: B,
    closed: impl Future<Output = Reason>,
    progress: &Progress,
) -> Relayed
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut a, mut b) = (a, b);
    let (mut sending, mut receiving) = (Way::default(), Way::default());
    let mut closed = pin!(closed);
    let mut idle = pin!(tokio::time::sleep(IDLE_TIMEOUT));
    let mut moved = 0;
    let mut last = Instant::now();
    let reason = poll_fn(|context| {
        // Asked first: what must be closed carries nothing more.
        if let Poll::Ready(reason) = closed.as_mut().poll(context) {
            return Poll::Ready(Some(reason));
        }
        let sent = sending.poll(context, &mut a, &mut b);
        let received = receiving.poll(context, &mut b, &mut a);
        match (sent, received) {
            (Poll::Ready(Err(Broken::Reader)), _) | (_, Poll::Ready(Err(Broken::Writer))) => {
                return Poll::Ready(Some(Reason::DownstreamReset));
            }
            (Poll::Ready(Err(Broken::Writer)), _) | (_, Poll::Ready(Err(Broken::Reader))) => {
                return Poll::Ready(Some(Reason::UpstreamReset));
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(None),
            _ => {}
        }
        let now_moved = sending.moved.saturating_add(receiving.moved);
        if now_moved != moved {
            moved = now_moved;
            last = Instant::now();
            progress.received.store(sending.moved, Ordering::Relaxed);
            progress.sent.store(receiving.moved, Ordering::Relaxed);
        }
        // The timer is set anew only when it rings, and not with each byte.
        while idle.as_mut().poll(context).is_ready() {
            let until = last + IDLE_TIMEOUT;
            if until <= Instant::now() {
                return Poll::Ready(Some(Reason::Timeout));
            }
            idle.as_mut().reset(until);
        }
        Poll::Pending
    })
    .await;
    progress.received.store(sending.moved, Ordering::Relaxed);
    progress.sent.store(receiving.moved, Ordering::Relaxed);
    Relayed {
        sent: sending.moved,
        received: receiving.moved,
        reason,
    }
}

/// Which end of a direction failed.
enum Broken {
    Reader,
    Writer,
}

/// One direction.
#[derive(Default)]
struct Way {
    buffer: Option<Box<[u8]>>,
    /// What of the buffer is still to be written.
    start: usize,
    end: usize,
    moved: u64,
    unflushed: bool,
    state: State,
}

#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum State {
    #[default]
    Open,
    /// The reader has ended: its end is to be told.
    Ending,
    /// The reader has failed: what came before is written, and then it is told.
    Broken,
    Ended,
}

impl Way {
    fn poll<R, W>(&mut self, context: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..ROUNDS {
            let step = match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                _ if self.start < self.end => self.write(context, to),
                State::Ending => self.end(context, to),
                State::Broken => return Poll::Ready(Err(Broken::Reader)),
                State::Open => self.read(context, from, to),
            };
            match step {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(broken)) => return Poll::Ready(Err(broken)),
                Poll::Pending => return Poll::Pending,
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads what there is, until the buffer is full.
    fn read<R, W>(&mut self, context: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = self.buffer.take().unwrap_or_else(spare);
        let mut filled = 0;
        let mut more = Poll::Ready(());
        for _ in 0..READS {
            let mut space = ReadBuf::new(buffer.get_mut(filled..).unwrap_or_default());
            if space.remaining() == 0 {
                break;
            }
            match Pin::new(&mut *from).poll_read(context, &mut space) {
                Poll::Ready(Ok(())) if !space.filled().is_empty() => filled += space.filled().len(),
                Poll::Ready(Ok(())) => self.state = State::Ending,
                Poll::Ready(Err(_)) => self.state = State::Broken,
                Poll::Pending => more = Poll::Pending,
            }
            if more.is_pending() || self.state != State::Open {
                break;
            }
        }
        if filled > 0 {
            (self.start, self.end) = (0, filled);
            self.buffer = Some(buffer);
            return Poll::Ready(Ok(()));
        }
        keep(buffer);
        // Nothing more is coming now: what the writer holds back must not wait for it.
        if more.is_pending() {
            let _ = self.flush(context, to)?;
        }
        more.map(Ok)
    }

    fn flush<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<Result<(), Broken>> {
        if self.unflushed {
            std::task::ready!(writer(Pin::new(to).poll_flush(context)))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn write<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<Result<(), Broken>> {
        // TLS that is not rid of the last records would cut the next ones to the space that it has left.
        std::task::ready!(self.flush(context, to))?;
        let waiting = self.buffer.as_deref().and_then(|b| b.get(self.start..self.end));
        let written = std::task::ready!(writer(
            Pin::new(to).poll_write(context, waiting.unwrap_or_default())
        ))?;
        if written == 0 {
            return Poll::Ready(Err(Broken::Writer));
        }
        self.start = self.start.saturating_add(written);
        self.moved = self
            .moved
            .saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        self.unflushed = true;
        Poll::Ready(Ok(()))
    }

    /// Carries the half-close through; shutting down flushes.
    fn end<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<Result<(), Broken>> {
        match std::task::ready!(Pin::new(to).poll_shutdown(context)) {
            Ok(()) => {}
            // The other side closed at the same moment: there is nobody left to be told.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            Err(_) => return Poll::Ready(Err(Broken::Writer)),
        }
        self.state = State::Ended;
        Poll::Ready(Ok(()))
    }
}

fn writer<T>(poll: Poll<io::Result<T>>) -> Poll<Result<T, Broken>> {
    poll.map_err(|_| Broken::Writer)
}

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

fn spare() -> Box<[u8]> {
    SPARE
        .with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice())
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
