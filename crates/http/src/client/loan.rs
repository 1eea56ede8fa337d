//! Bodies that come back where the request may be sent again: from their beginning, as far as what was taken is kept.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::request::Parts;
use http_body::{Frame, SizeHint};

use crate::body::BodyError;
use crate::limits::MAX_REPLAY_FRAMES;
use crate::{Body, Request};

/// A body that is lent to the codec.
#[derive(Debug)]
pub(super) enum Lent {
    /// There is nothing to lend.
    Empty,
    Whole(Arc<Mutex<Held>>),
}

/// What it was lent from. What is kept of it goes with this.
#[derive(Debug)]
pub(super) struct Loan(Option<Arc<Mutex<Held>>>);

#[derive(Debug)]
pub(super) struct Held {
    body: Body,
    /// What the codec has taken; `None` where some of that is gone for good.
    taken: Option<Taken>,
}

#[derive(Debug)]
struct Taken {
    data: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    /// Bytes that may still be kept.
    room: usize,
}

impl Loan {
    /// Lends a body, and keeps up to `room` bytes of what is taken of it.
    pub(super) fn of(body: Body, room: usize) -> (Self, Lent) {
        if body.is_over() {
            return (Self(None), Lent::Empty);
        }
        let taken = Some(Taken {
            data: Vec::new(),
            trailers: None,
            room,
        });
        let held = Arc::new(Mutex::new(Held { body, taken }));
        (Self(Some(Arc::clone(&held))), Lent::Whole(held))
    }

    /// The request, where its head may be sent again and all of its body still can be.
    pub(super) fn back(self, head: Option<Parts>) -> Option<Box<Request>> {
        let head = head?;
        let body = match &self.0 {
            None => Body::empty(),
            Some(held) => {
                let mut held = locked(held);
                let taken = held.taken.take()?;
                // Whatever the codec still does with it finds it empty.
                taken.before(std::mem::replace(&mut held.body, Body::empty()))
            }
        };
        Some(Box::new(Request::from_parts(head, body)))
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(held) = &self.0 {
            locked(held).taken = None;
        }
    }
}

impl Taken {
    /// Keeps a frame; `None` where there is no room for it.
    fn with(mut self, frame: &Frame<Bytes>) -> Option<Self> {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        } else if let Some(data) = frame.data_ref()
            && !data.is_empty()
        {
            self.room = self.room.checked_sub(data.len())?;
            if self.data.len() >= MAX_REPLAY_FRAMES {
                return None;
            }
            self.data.push(data.clone());
        }
        Some(self)
    }

    /// The body from its beginning.
    fn before(self, rest: Body) -> Body {
        let ahead = match self.data.as_slice() {
            [] if self.trailers.is_none() => return rest,
            [one] => one.clone(),
            several => {
                let mut all = BytesMut::with_capacity(several.iter().map(Bytes::len).sum());
                several.iter().for_each(|data| all.extend_from_slice(data));
                all.freeze()
            }
        };
        Body::resumed(ahead, self.trailers, rest)
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(held) => {
                let mut held = locked(held);
                let polled = Pin::new(&mut held.body).poll_frame(context);
                match &polled {
                    Poll::Ready(Some(Ok(frame))) => {
                        held.taken = held.taken.take().and_then(|taken| taken.with(frame));
                    }
                    Poll::Ready(Some(Err(_))) => held.taken = None,
                    Poll::Ready(None) | Poll::Pending => {}
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(held) => locked(held).body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(held) => locked(held).body.size_hint(),
        }
    }
}

fn locked(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
