//! The asking side.

mod beside;
mod loan;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Uri, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::limits::{
    ANSWERS_WINDOW, KEEP_ALIVE, KEEP_ALIVE_TIMEOUT, MAX_BUFFER, MAX_HEAD, MAX_REPLAY, STREAM_WINDOW,
};
use crate::{Body, Request, Response, Upgrade, Version};
use beside::{Beside, Counter};
use loan::{Lent, Loan};

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The request cannot be put into this version of HTTP.
    #[error("the request has no authority")]
    Authority,
    /// The connection ended or broke before a response.
    #[error("the connection ended before a response: {0}")]
    Broken(#[source] hyper::Error),
    /// The response is not HTTP, or is framed in two ways.
    #[error("the response is malformed")]
    Malformed,
}

/// A request without a response.
#[derive(Debug)]
pub struct Unsent {
    /// Why.
    pub error: ClientError,
    /// The request, where it may be sent again: not a byte of it has left; the server has said that it did not look at it
    /// (RFC 9113, 8.7), and all that was taken of its body is kept ([`MAX_REPLAY`](crate::limits::MAX_REPLAY)); or it is idempotent, has no body, and met the end of an HTTP/1 connection that was kept (RFC 9110,
    /// 9.2.2).
    pub request: Option<Box<Request>>,
}

/// One connection to a server. HTTP/2's may be cloned and used at once; HTTP/1's takes one request after the other.
#[derive(Debug)]
pub struct Sender(Inner, Counter);

#[derive(Debug)]
enum Inner {
    /// And whether it has had a response.
    Http1(hyper::client::conn::http1::SendRequest<Lent>, bool),
    Http2(hyper::client::conn::http2::SendRequest<Lent>),
}

/// Starts to speak HTTP on a stream. The connection lives on a task of its own until it ends or all senders are gone.
///
/// # Errors
/// The stream broke.
pub async fn handshake<IO>(io: IO, version: Version) -> Result<Sender, ClientError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let counter = Counter::default();
    let closing = counter.clone();
    match version {
        Version::Http1 => {
            let (sender, connection) = hyper::client::conn::http1::Builder::new()
                .max_buf_size(MAX_BUFFER.max(MAX_HEAD))
                .handshake(TokioIo::new(io))
                .await
                .map_err(ClientError::Broken)?;
            tokio::spawn(async move {
                let mut connection = Box::pin(connection.with_upgrades());
                told(connection.as_mut().await);
                closing.close(connection);
            });
            Ok(Sender(Inner::Http1(sender, false), counter))
        }
        Version::Http2 => {
            let beside = Beside::default();
            let (sender, connection) = hyper::client::conn::http2::Builder::new(beside.clone())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(ANSWERS_WINDOW)
                .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
                .max_send_buf_size(MAX_BUFFER)
                .keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
                .handshake(TokioIo::new(io))
                .await
                .map_err(ClientError::Broken)?;
            tokio::spawn(async move { told(beside.run(connection, closing).await) });
            Ok(Sender(Inner::Http2(sender), counter))
        }
    }
}

impl Sender {
    /// The version that is spoken.
    pub fn version(&self) -> Version {
        match self.0 {
            Inner::Http1(..) => Version::Http1,
            Inner::Http2(_) => Version::Http2,
        }
    }

    /// Whether a request may be sent now.
    pub fn is_ready(&self) -> bool {
        match &self.0 {
            Inner::Http1(sender, _) => sender.is_ready(),
            Inner::Http2(sender) => sender.is_ready(),
        }
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        match &self.0 {
            Inner::Http1(sender, _) => sender.is_closed(),
            Inner::Http2(sender) => sender.is_closed(),
        }
    }

    /// Another sender on the same connection, where its version allows several requests at once.
    pub fn share(&self) -> Option<Self> {
        match &self.0 {
            Inner::Http1(..) => None,
            Inner::Http2(sender) => Some(Self(Inner::Http2(sender.clone()), self.1.clone())),
        }
    }

    /// Waits until a request may be sent.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn ready(&mut self) -> Result<(), ClientError> {
        let ready = match &mut self.0 {
            Inner::Http1(sender, _) => sender.ready().await,
            Inner::Http2(sender) => sender.ready().await,
        };
        ready.map_err(ClientError::Broken)
    }

    /// Sends a request in the form that handlers get it: path in the target, authority in `host`.
    ///
    /// # Errors
    /// There is no response; the request comes back where it may be sent again.
    pub async fn send(&mut self, request: Request) -> Result<Response, Unsent> {
        let counter = &self.1;
        let mut response = match &mut self.0 {
            Inner::Http1(sender, used) => {
                let response = send_http1(sender, counter, *used, request).await?;
                *used = true;
                response
            }
            Inner::Http2(sender) => send_http2(sender, counter, request).await?,
        };
        let headers = response.headers();
        if headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH) {
            return Err(Unsent {
                error: ClientError::Malformed,
                request: None,
            });
        }
        if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            let promise = Upgrade(hyper::upgrade::on(&mut response));
            response.extensions_mut().insert(promise);
        }
        Ok(response.map(Body::from))
    }
}

async fn send_http1(
    sender: &mut hyper::client::conn::http1::SendRequest<Lent>,
    counter: &Counter,
    used: bool,
    request: Request,
) -> Result<http::Response<hyper::body::Incoming>, Unsent> {
    let (head, body) = request.into_parts();
    // A server may end a kept connection just when the next request is on its way.
    let again = (used && head.method.is_idempotent() && body.is_over()).then(|| head.clone());
    // What has left can only be sent again where there is no body.
    let (loan, lent) = Loan::of(body, 0);
    let request = http::Request::from_parts(head, lent);
    let answer = counter.hand(|| sender.try_send_request(request));
    answer.await.map_err(|mut failed| {
        let unsent = failed.take_message().map(|message| message.into_parts().0);
        let error = failed.into_error();
        let met_the_end = error.is_incomplete_message() || error.is_closed() || is_io(&error);
        let head = unsent.or_else(|| again.filter(|_| met_the_end));
        Unsent {
            request: loan.back(head),
            error: ClientError::Broken(error),
        }
    })
}

async fn send_http2(
    sender: &mut hyper::client::conn::http2::SendRequest<Lent>,
    counter: &Counter,
    request: Request,
) -> Result<http::Response<hyper::body::Incoming>, Unsent> {
    let (head, body) = request.into_parts();
    // The codec keeps nothing of a request that it has begun with, also where the server then refuses to look at it.
    let again = head.clone();
    let (loan, lent) = Loan::of(body, MAX_REPLAY);
    let request = for_http2(http::Request::from_parts(head, lent))?;
    let answer = counter.hand(|| sender.try_send_request(request));
    answer.await.map_err(|mut failed| {
        let unsent = failed.take_message().is_some();
        let error = failed.into_error();
        Unsent {
            request: loan.back((unsent || was_not_looked_at(&error)).then_some(again)),
            error: ClientError::Broken(error),
        }
    })
}

fn told(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to a server ended");
    }
}

fn is_io(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

/// Whether the server has said that it did not look at the request (RFC 9113, 8.7).
fn was_not_looked_at(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| {
        let went_away = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (went_away || refused)
    })
}

/// `host` becomes `:authority`.
fn for_http2(mut request: http::Request<Lent>) -> Result<http::Request<Lent>, Unsent> {
    let host = request.headers_mut().remove(header::HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let target = request.uri().path_and_query().cloned();
    let uri = authority.and_then(|authority| {
        Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(authority)
            .path_and_query(target.unwrap_or_else(|| PathAndQuery::from_static("/")))
            .build()
            .ok()
    });
    match uri {
        Some(uri) => {
            *request.uri_mut() = uri;
            *request.version_mut() = http::Version::HTTP_2;
            Ok(request)
        }
        None => Err(Unsent {
            error: ClientError::Authority,
            request: None,
        }),
    }
}
