//! Asking over HTTP/2.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, header};
use http2::{Code, Key, RequestParts, ResponseHead, Role, StreamError};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{ClientError, Unsent};
use crate::front::valid_host;
use crate::wire::{Coming, Driver, Pump, Wire};
use crate::{Body, Response};

/// What keeps a connection open, besides what is under way on it.
#[derive(Debug)]
struct Held(Arc<Wire>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.with(|connection| connection.leave());
    }
}

/// One of those who may ask.
#[derive(Clone, Debug)]
pub(super) struct Multiplexed(Arc<Held>);

/// Starts to speak. The connection lives on a task of its own.
pub(super) fn start<IO>(io: IO) -> Multiplexed
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wire = Wire::new(Role::Client);
    let mut driver = Driver::new(io, Arc::clone(&wire));
    tokio::spawn(async move {
        // Nobody sends requests to a client: what comes out is the end.
        if let Err(ended) = poll_fn(|context| driver.poll(context)).await {
            tracing::debug!(%ended, "a connection to a server ended");
        }
    });
    Multiplexed(Arc::new(Held(wire)))
}

impl Multiplexed {
    pub(super) fn is_open(&self) -> bool {
        self.0.0.with(|connection| connection.is_open())
    }

    /// # Errors
    /// The connection has ended, or is about to.
    pub(super) fn ready(&self) -> Result<(), ClientError> {
        self.0.0.with(|connection| match connection.gone() {
            Some(gone) => Err(ClientError::Broken(gone.into())),
            None if connection.is_open() => Ok(()),
            None => Err(ClientError::Broken(StreamError::Unseen.into())),
        })
    }

    pub(super) async fn send(&self, request: crate::Request) -> Result<Response, Unsent> {
        let wire = &self.0.0;
        let (head, body) = request.into_parts();
        let mut sending = Sending {
            head,
            pump: None,
            body: Some(body),
        };
        let key = sending.open(wire).await?;
        let stream = Coming::new(Arc::clone(wire), key);
        let answered = poll_fn(|context| {
            sending.poll_body(context);
            wire.with(|connection| connection.poll_response(key, context))
        });
        match answered.await {
            Ok((head, _)) => {
                if let Some(pump) = sending.pump.take() {
                    // The response has begun before the request has ended.
                    tokio::spawn(pump);
                }
                Ok(received(head, stream))
            }
            Err(error) => Err(sending.unsent(error)),
        }
    }
}

/// A request that is sent.
struct Sending {
    head: Parts,
    /// What carries its body.
    pump: Option<Pump>,
    /// The body, before anything of it was carried.
    body: Option<Body>,
}

impl Sending {
    /// Opens a stream with the head.
    async fn open(&mut self, wire: &Arc<Wire>) -> Result<Key, Unsent> {
        let body = self.body.take().unwrap_or_else(Body::empty);
        let ended = body.is_over();
        let told = self.head.headers.contains_key(header::CONTENT_LENGTH);
        let length = if ended {
            has_payload(&self.head.method).then_some(0)
        } else {
            http_body::Body::size_hint(&body).exact()
        };
        let host = self.head.headers.get(header::HOST);
        let Some(authority) = host.filter(|host| valid_host(host.as_bytes())) else {
            return Err(Unsent {
                error: ClientError::Authority,
                request: None,
            });
        };
        let parts = RequestParts {
            method: &self.head.method,
            authority: authority.as_bytes(),
            path: self.head.uri.path_and_query().map_or("/", PathAndQuery::as_str),
            headers: &self.head.headers,
            length: length.filter(|_| !told),
            ended,
        };
        let opened = poll_fn(|context| wire.with(|connection| connection.poll_open(parts, context))).await;
        match opened {
            Ok(key) if ended => {
                self.body = Some(body);
                Ok(key)
            }
            Ok(key) => {
                self.pump = Some(Pump::new(Arc::clone(wire), key, body, Code::CANCEL));
                Ok(key)
            }
            // Nothing has left.
            Err(error) => {
                self.body = Some(body);
                Err(self.unsent(if let StreamError::Gone(_) = error {
                    StreamError::Unseen
                } else {
                    error
                }))
            }
        }
    }

    /// Carries what there is of the body. Where it breaks off, so does the stream, as whoever waits for the response learns.
    fn poll_body(&mut self, context: &mut Context<'_>) {
        if let Some(pump) = &mut self.pump
            && Pin::new(&mut *pump).poll(context).is_ready()
        {
            self.body = pump.untouched();
            self.pump = None;
        }
    }

    /// The request, where it may be sent again: the other side did not look at it, and nothing of its body is gone.
    fn unsent(&mut self, error: StreamError) -> Unsent {
        let body = match &mut self.pump {
            Some(pump) => pump.untouched(),
            None => self.body.take(),
        };
        let again = body.filter(|_| error == StreamError::Unseen).map(|body| {
            let (mut head, ()) = Request::new(()).into_parts();
            std::mem::swap(&mut head, &mut self.head);
            Box::new(Request::from_parts(head, body))
        });
        Unsent {
            error: ClientError::Broken(error.into()),
            request: again,
        }
    }
}

/// Whether a request of this method without a body says so (RFC 9110, 8.6).
fn has_payload(method: &Method) -> bool {
    !matches!(
        *method,
        Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT
    )
}

fn received(head: ResponseHead, stream: Coming) -> Response {
    let body = if head.ended {
        Body::empty()
    } else {
        Body::from(stream)
    };
    let mut response = Response::new(body);
    *response.version_mut() = http::Version::HTTP_2;
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}
