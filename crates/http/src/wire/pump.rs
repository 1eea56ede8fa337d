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
    /// Something was taken of the body.
    touched: bool,
    /// How the stream ends where this one is dropped.
    code: Code,
}

impl Pump {
    pub(crate) fn new(wire: Arc<Wire>, key: Key, body: Body, code: Code) -> Self {
        Self {
            wire,
            key,
            body,
            data: Bytes::new(),
            trailers: None,
            touched: false,
            code,
        }
    }

    /// The body, where nothing was taken of it.
    pub(crate) fn untouched(&mut self) -> Option<Body> {
        (!self.touched).then(|| std::mem::replace(&mut self.body, Body::empty()))
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
                    this.touched = true;
                    match frame.into_data() {
                        Ok(data) => this.data = data,
                        Err(frame) => this.trailers = frame.into_trailers().ok(),
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    this.touched = true;
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
