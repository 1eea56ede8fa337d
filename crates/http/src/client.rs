//! The asking side.

mod loan;
mod multiplexed;

use http::header;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::limits::{MAX_BUFFER, MAX_HEAD};
use crate::{Body, Broken, Request, Response, Upgrade, Version};
use loan::{Lent, Loan};
use multiplexed::Multiplexed;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The request cannot be put into this version of HTTP.
    #[error("the request has no authority")]
    Authority,
    /// The connection ended or broke before a response.
    #[error("the connection ended before a response: {0}")]
    Broken(#[source] Broken),
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
    /// (RFC 9113, 8.7); or it is idempotent, has no body, and met the end of an HTTP/1 connection that was kept (RFC 9110,
    /// 9.2.2).
    pub request: Option<Box<Request>>,
}

/// One connection to a server. HTTP/2's may be cloned and used at once; HTTP/1's takes one request after the other.
#[derive(Debug)]
pub struct Sender(Inner);

#[derive(Debug)]
enum Inner {
    /// And whether it has had a response.
    Http1(hyper::client::conn::http1::SendRequest<Lent>, bool),
    Http2(Multiplexed),
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
                .map_err(|error| ClientError::Broken(error.into()))?;
            tokio::spawn(async move {
                if let Err(error) = connection.with_upgrades().await {
                    tracing::debug!(%error, "a connection to a server ended");
                }
            });
            Ok(Sender(Inner::Http1(sender, false)))
        }
        Version::Http2 => Ok(Sender(Inner::Http2(multiplexed::start(io)))),
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
            Inner::Http2(sender) => sender.is_open(),
        }
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        match &self.0 {
            Inner::Http1(sender, _) => sender.is_closed(),
            Inner::Http2(sender) => !sender.is_open(),
        }
    }

    /// Another sender on the same connection, where its version allows several requests at once.
    pub fn share(&self) -> Option<Self> {
        match &self.0 {
            Inner::Http1(..) => None,
            Inner::Http2(sender) => Some(Self(Inner::Http2(sender.clone()))),
        }
    }

    /// Waits until a request may be sent.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn ready(&mut self) -> Result<(), ClientError> {
        match &mut self.0 {
            Inner::Http1(sender, _) => {
                let ready = sender.ready().await;
                ready.map_err(|error| ClientError::Broken(error.into()))
            }
            Inner::Http2(sender) => sender.ready(),
        }
    }

    /// Sends a request in the form that handlers get it: path in the target, authority in `host`.
    ///
    /// # Errors
    /// There is no response; the request comes back where it may be sent again.
    pub async fn send(&mut self, request: Request) -> Result<Response, Unsent> {
        let (sender, used) = match &mut self.0 {
            Inner::Http1(sender, used) => (sender, used),
            Inner::Http2(sender) => return sender.send(request).await,
        };
        let mut response = send_http1(sender, *used, request).await?;
        *used = true;
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
    used: bool,
    request: Request,
) -> Result<http::Response<hyper::body::Incoming>, Unsent> {
    let (head, body) = request.into_parts();
    // A server may end a kept connection just when the next request is on its way.
    let again = (used && head.method.is_idempotent() && body.is_over()).then(|| head.clone());
    let (loan, lent) = Loan::of(body);
    let request = http::Request::from_parts(head, lent);
    sender.try_send_request(request).await.map_err(|mut failed| {
        let unsent = failed.take_message().map(|message| message.into_parts().0);
        let error = failed.into_error();
        let met_the_end = error.is_incomplete_message() || error.is_closed() || is_io(&error);
        let head = unsent.or_else(|| again.filter(|_| met_the_end));
        Unsent {
            request: loan.back(head),
            error: ClientError::Broken(error.into()),
        }
    })
}

fn is_io(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}
