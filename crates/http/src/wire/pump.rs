//! Bodies that go.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;
use http2::{Code, Key, StreamError};

use super::Wire;
use super::kept::Kept;
use crate::Body;

/// Carries a body into a stream. Dropped before its end, the stream is reset.
#[derive(Debug)]
pub(crate) struct Pump {
    wire: Arc<Wire>,
    key: Key,
    body: Body,
    /// What the stream has not taken yet.
    data: Bytes,
    trailers: Option<HeaderMap>,
    /// What was taken of the body; `None` where some of that is gone for good.
    kept: Option<Kept>,
    /// How the stream ends where this one is dropped.
    code: Code,
}

impl Pump {
    /// Keeps up to `room` bytes of what is taken of the body.
    pub(crate) fn new(wire: Arc<Wire>, key: Key, body: Body, code: Code, room: usize) -> Self {
        Self {
            wire,
            key,
            body,
            data: Bytes::new(),
            trailers: None,
            kept: Some(Kept::new(room)),
            code,
        }
    }

    /// The body from its beginning, where all that was taken of it is kept.
    pub(crate) fn whole(&mut self) -> Option<Body> {
        let kept = self.kept.take()?;
        Some(kept.before(std::mem::replace(&mut self.body, Body::empty())))
    }

    /// It will not be carried again.
    pub(crate) fn forget(&mut self) {
        self.kept = None;
    }
}

impl Future for Pump {
    /// Whether it was carried to its end.
    type Output = Result<(), StreamError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            if !this.data.is_empty() {
                let ended = this.body.is_over();
                let (key, data) = (this.key, &mut this.data);
                ready!(
                    this.wire
                        .with(|connection| connection.poll_send(key, data, ended, context))
                )?;
                if ended {
                    return Poll::Ready(Ok(()));
                }
            }
            if let Some(trailers) = &this.trailers {
                let key = this.key;
                return this
                    .wire
                    .with(|connection| connection.poll_trailers(key, trailers, context));
            }
            match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Pending => {
                    let key = this.key;
                    let unwanted = this
                        .wire
                        .with(|connection| connection.poll_unwanted(key, context));
                    return unwanted.map(Err);
                }
                Poll::Ready(Some(Ok(frame))) => {
                    this.kept = this.kept.take().and_then(|kept| kept.with(&frame));
                    match frame.into_data() {
                        Ok(data) => this.data = data,
                        Err(frame) => this.trailers = frame.into_trailers().ok(),
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    this.kept = None;
                    this.code = error.code();
                    return Poll::Ready(Err(StreamError::Cancelled(this.code)));
                }
                Poll::Ready(None) => {
                    let (key, mut nothing) = (this.key, Bytes::new());
                    return this
                        .wire
                        .with(|connection| connection.poll_send(key, &mut nothing, true, context));
                }
            }
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        let (key, code) = (self.key, self.code);
        self.wire.with(|connection| connection.drop_message(key, code));
    }
}
