//! The asking side.

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::limits::{CONNECTION_WINDOW, KEEP_ALIVE, KEEP_ALIVE_TIMEOUT, MAX_BUFFER, MAX_HEAD, STREAM_WINDOW};
use crate::{Body, Request, Response, Upgrade, Version};

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
    /// The request, where not a byte of it has left.
    pub request: Option<Box<Request>>,
}

/// One connection to a server. HTTP/2's may be cloned and used at once; HTTP/1's takes one request after the other.
#[derive(Debug)]
pub struct Sender(Inner);

#[derive(Debug)]
enum Inner {
    Http1(hyper::client::conn::http1::SendRequest<Body>),
    Http2(hyper::client::conn::http2::SendRequest<Body>),
}

/// Starts to speak HTTP on a stream. The connection lives on a task of its own until it ends or all senders are gone.
///
/// # Errors
/// The stream broke.
pub async fn handshake<IO>(io: IO, version: Version) -> Result<Sender, ClientError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match version {
        Version::Http1 => {
            let (sender, connection) = hyper::client::conn::http1::Builder::new()
                .max_buf_size(MAX_BUFFER.max(MAX_HEAD))
                .handshake(TokioIo::new(io))
                .await
                .map_err(ClientError::Broken)?;
            tokio::spawn(async move {
                if let Err(error) = connection.with_upgrades().await {
                    tracing::debug!(%error, "a connection to a server ended");
                }
            });
            Ok(Sender(Inner::Http1(sender)))
        }
        Version::Http2 => {
            let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
                .max_send_buf_size(MAX_BUFFER)
                .keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
                .handshake(TokioIo::new(io))
                .await
                .map_err(ClientError::Broken)?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to a server ended");
                }
            });
            Ok(Sender(Inner::Http2(sender)))
        }
    }
}

impl Sender {
    /// The version that is spoken.
    pub fn version(&self) -> Version {
        match self.0 {
            Inner::Http1(_) => Version::Http1,
            Inner::Http2(_) => Version::Http2,
        }
    }

    /// Whether a request may be sent now.
    pub fn is_ready(&self) -> bool {
        match &self.0 {
            Inner::Http1(sender) => sender.is_ready(),
            Inner::Http2(sender) => sender.is_ready(),
        }
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        match &self.0 {
            Inner::Http1(sender) => sender.is_closed(),
            Inner::Http2(sender) => sender.is_closed(),
        }
    }

    /// Another sender on the same connection, where its version allows several requests at once.
    pub fn share(&self) -> Option<Self> {
        match &self.0 {
            Inner::Http1(_) => None,
            Inner::Http2(sender) => Some(Self(Inner::Http2(sender.clone()))),
        }
    }

    /// Waits until a request may be sent.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn ready(&mut self) -> Result<(), ClientError> {
        let ready = match &mut self.0 {
            Inner::Http1(sender) => sender.ready().await,
            Inner::Http2(sender) => sender.ready().await,
        };
        ready.map_err(ClientError::Broken)
    }

    /// Sends a request in the form that handlers get it: path in the target, authority in `host`.
    ///
    /// # Errors
    /// There is no response; the request comes back where it is certain that nobody has seen it.
    pub async fn send(&mut self, request: Request) -> Result<Response, Unsent> {
        let sent = match &mut self.0 {
            Inner::Http1(sender) => sender.try_send_request(request).await,
            Inner::Http2(sender) => {
                let request = for_http2(request)?;
                sender.try_send_request(request).await
            }
        };
        let mut response = sent.map_err(|mut failed| {
            let request = failed.take_message().map(from_http2).map(Box::new);
            Unsent {
                error: ClientError::Broken(failed.into_error()),
                request,
            }
        })?;
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

/// `host` becomes `:authority`.
fn for_http2(mut request: Request) -> Result<Request, Unsent> {
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

/// Undoes [`for_http2`], for a request that is tried again elsewhere.
fn from_http2(mut request: Request) -> Request {
    let authority = request.uri().authority().map(|a| a.as_str().to_owned());
    if let Some(authority) = authority {
        if let Ok(host) = HeaderValue::try_from(authority) {
            request.headers_mut().insert(header::HOST, host);
        }
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    request
}
