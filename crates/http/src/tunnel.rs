//! Streams of bytes within HTTP/2, by CONNECT: what HBONE is made of. Both sides.
//!
//! A tunnel ends cleanly where both sides have said so; one whose stream is reset breaks, so that nobody takes what has come
//! so far for all there is.

mod stream;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::{Ping, PingPong};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::front::valid_host;
use crate::limits::{
    CONNECTION_WINDOW, HEAD_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE, KEEP_ALIVE_TIMEOUT, MAX_BUFFER, MAX_FIELDS,
    MAX_PENDING_RESETS, MAX_TUNNEL_FRAMES, MAX_TUNNEL_HEAD, MAX_TUNNELS, STREAM_WINDOW,
};
pub use stream::Tunnel;

/// Who takes tunnels.
pub trait Tunnels: Send + Sync + 'static {
    /// Takes one, or refuses it. It is granted when it is first read from or written to.
    fn connect(&self, asked: Connect) -> impl Future<Output = ()> + Send;

    /// Something else than a tunnel was asked for, or one to nowhere; it has been answered.
    fn refused(&self, why: &'static str);
}

/// A wish for a tunnel.
#[derive(Debug)]
pub struct Connect {
    /// Where it is to lead: a host or an address, and a port.
    pub authority: Authority,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its bytes.
    pub tunnel: Tunnel,
}

/// Why there is no tunnel, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The connection broke, or was not HTTP/2.
    #[error("the connection broke: {0}")]
    Broken(#[source] h2::Error),
    /// The other side did not begin to speak HTTP/2, or answer, in time.
    #[error("no answer in time")]
    Timeout,
    /// The other side answered with another status than 200.
    #[error("the tunnel was refused with {0}")]
    Refused(StatusCode),
    /// The request cannot be written.
    #[error("the request for a tunnel is no request: {0}")]
    Request(#[source] http::Error),
}

/// Serves the tunnels of one connection to its end. After `drain`, those that are open go on and no more are taken; so after
/// [`IDLE_TIMEOUT`] without one.
///
/// # Errors
/// It broke.
pub async fn serve_tunnels<IO, H>(
    io: IO,
    handler: Arc<H>,
    drain: impl Future<Output = ()> + Send,
) -> Result<(), TunnelError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
    H: Tunnels,
{
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_TUNNELS)
        .max_header_list_size(MAX_TUNNEL_HEAD)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .data_frame_budget(MAX_TUNNEL_FRAMES)
        .max_send_buffer_size(MAX_BUFFER);
    let mut connection = tokio::time::timeout(HEAD_TIMEOUT, builder.handshake(io))
        .await
        .map_err(|_| TunnelError::Timeout)?
        .map_err(TunnelError::Broken)?;
    let mut dead = pin!(unanswered(connection.ping_pong()));
    let mut drain = pin!(drain);
    let mut draining = false;
    let mut idle = pin!(tokio::time::sleep(IDLE_TIMEOUT));
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                None => return Ok(()),
                Some(Ok((request, respond))) => {
                    idle.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
                    take(&handler, request, respond);
                }
                Some(Err(error)) => return Err(TunnelError::Broken(error)),
            },
            () = &mut drain, if !draining => {
                draining = true;
                connection.graceful_shutdown();
            }
            () = &mut idle => {
                idle.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
                if !connection.has_streams() && !draining {
                    draining = true;
                    connection.graceful_shutdown();
                }
            }
            () = &mut dead => return Err(TunnelError::Timeout),
        }
    }
}

/// Hands a request over to whoever takes tunnels, where it is one for a tunnel.
fn take<H: Tunnels>(
    handler: &Arc<H>,
    request: Request<h2::RecvStream>,
    respond: h2::server::SendResponse<Bytes>,
) {
    let (head, bytes) = request.into_parts();
    let mut tunnel = Tunnel::asked(bytes, respond);
    let mut refuse = |status, why| {
        tunnel.refuse(status);
        handler.refused(why);
    };
    // RFC 9113, 8.5: no scheme and no path. With a `:protocol` it is another protocol's.
    if head.method != Method::CONNECT || head.extensions.get::<h2::ext::Protocol>().is_some() {
        return refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            "something else than a tunnel was asked for",
        );
    }
    if head.headers.len() > MAX_FIELDS {
        return refuse(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "too many header fields",
        );
    }
    let plain = head.uri.scheme().is_none() && head.uri.path_and_query().is_none();
    let authority = head
        .uri
        .authority()
        .filter(|a| plain && valid_host(a.as_str().as_bytes()));
    let Some(authority) = authority.cloned() else {
        return refuse(StatusCode::BAD_REQUEST, "a tunnel without a place where it leads");
    };
    let asked = Connect {
        authority,
        headers: head.headers,
        tunnel,
    };
    let handler = Arc::clone(handler);
    tokio::spawn(async move { handler.connect(asked).await });
}

/// Opens a tunnel on a connection of its own, which lives on a task of its own until the tunnel ends. Its answer is waited
/// for as long as the caller does.
///
/// # Errors
/// There is none: not a byte of what it is to carry has left.
pub async fn open_tunnel<IO>(io: IO, authority: Authority, headers: HeaderMap) -> Result<Tunnel, TunnelError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::builder()
        .authority(authority)
        .build()
        .map_err(TunnelError::Request)?;
    *request.headers_mut() = headers;
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_TUNNEL_HEAD)
        .data_frame_budget(MAX_TUNNEL_FRAMES)
        .max_send_buffer_size(MAX_BUFFER)
        .enable_push(false);
    let (sender, mut connection) = builder.handshake(io).await.map_err(TunnelError::Broken)?;
    let ping = connection.ping_pong();
    tokio::spawn(async move {
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%error, "the connection of a tunnel ended");
            },
            () = unanswered(ping) => tracing::debug!("the other end of a tunnel is gone"),
        }
    });
    let mut sender = sender.ready().await.map_err(TunnelError::Broken)?;
    let (response, send) = sender.send_request(request, false).map_err(TunnelError::Broken)?;
    let response = response.await.map_err(TunnelError::Broken)?;
    if response.status() != StatusCode::OK {
        return Err(TunnelError::Refused(response.status()));
    }
    Ok(Tunnel::granted(response.into_body(), send))
}

/// Returns when the peer has left a ping unanswered for [`KEEP_ALIVE_TIMEOUT`].
async fn unanswered(ping: Option<PingPong>) {
    let Some(mut ping) = ping else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(KEEP_ALIVE).await;
        match tokio::time::timeout(KEEP_ALIVE_TIMEOUT, ping.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection has ended, as whoever polls it learns.
            Ok(Err(_)) => tokio::time::sleep(Duration::MAX).await,
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests;
