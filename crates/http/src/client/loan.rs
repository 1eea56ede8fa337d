//! Bodies that come back where nothing of them was taken.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http_body::{Frame, SizeHint};

use crate::body::BodyError;
use crate::{Body, Request};

/// A body that is lent to the codec.
#[derive(Debug)]
pub(super) enum Lent {
    /// There is nothing to lend.
    Empty,
    Whole(Arc<Mutex<Held>>),
}

/// What it was lent from.
#[derive(Debug)]
pub(super) struct Loan(Option<Arc<Mutex<Held>>>);

#[derive(Debug)]
pub(super) struct Held {
    body: Body,
    touched: bool,
}

impl Loan {
    pub(super) fn of(body: Body) -> (Self, Lent) {
        if body.is_over() {
            return (Self(None), Lent::Empty);
        }
        let held = Arc::new(Mutex::new(Held { body, touched: false }));
        (Self(Some(Arc::clone(&held))), Lent::Whole(held))
    }

    /// The request, where its head may be sent again and nothing of its body was taken.
    pub(super) fn back(self, head: Option<Parts>) -> Option<Box<Request>> {
        let body = match self.0 {
            None => Body::empty(),
            Some(held) => {
                let mut held = locked(&held);
                if held.touched {
                    return None;
                }
                // Whatever the codec still does with it finds it empty.
                std::mem::replace(&mut held.body, Body::empty())
            }
        };
        Some(Box::new(Request::from_parts(head?, body)))
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
                held.touched |= matches!(polled, Poll::Ready(Some(_)));
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
