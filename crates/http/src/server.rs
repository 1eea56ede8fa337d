//! The answering side.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::front::{Gate, Lingering, REFUSED_METHOD, Shared, Verdict, valid_host};
use crate::limits::{
    CONNECTION_WINDOW, HEAD_TIMEOUT, KEEP_ALIVE, KEEP_ALIVE_TIMEOUT, LAST_REQUEST, MAX_BUFFER, MAX_FIELDS,
    MAX_HEAD, MAX_PENDING_RESETS, MAX_STREAMS, STREAM_WINDOW,
};
use crate::{Fault, Request, Response, Rewind, Upgrade, sniff};

/// What a connection is to be read as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// HTTP/2 where it begins with its preface, else HTTP/1.
    Detect,
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServeOptions {
    /// Whether HTTP/1.0 is; without, it is answered with 426.
    pub http10: bool,
}

/// Who answers.
pub trait Handler: Send + Sync + 'static {
    /// Answers a request.
    ///
    /// # Errors
    /// There is no answer: the stream, or on HTTP/1 the connection, is broken off.
    fn request(&self, request: Request) -> impl Future<Output = Result<Response, Abort>> + Send;

    /// A request was refused before it became one; the answer has been given.
    fn refused(&self, fault: Fault);
}

/// The wish to break off without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("broken off without an answer")]
pub struct Abort;

/// Why a connection ended other than by its peers' wish.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It ended within a head.
    #[error("the connection ended within a request's head")]
    Cut,
    /// Its first bytes did not come.
    #[error("the first bytes did not come in time")]
    Timeout,
    /// It broke, or was not HTTP.
    #[error("the connection broke: {0}")]
    Broken(#[source] hyper::Error),
    /// The stream below failed.
    #[error("the stream failed: {0}")]
    Io(#[from] std::io::Error),
}

/// Serves one connection to its end. After `drain` it is to end without a request being lost: HTTP/2 is told to open no
/// more streams, HTTP/1 with the next answer, or when none has been asked for in [`LAST_REQUEST`]. Where nothing has been
/// said on it yet, the first request still is answered.
///
/// # Errors
/// It broke. A clean end, and one after a refusal, is none.
pub async fn serve<IO, H>(
    mut io: IO,
    protocol: Protocol,
    options: ServeOptions,
    handler: Arc<H>,
    drain: impl Future<Output = ()> + Send,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    match protocol {
        Protocol::Http1 => http1(io, options, handler, drain).await,
        Protocol::Http2 => http2(io, handler, drain).await,
        Protocol::Detect => {
            let first = tokio::time::timeout(HEAD_TIMEOUT, first_bytes(&mut io));
            let (first, is_http2) = first.await.map_err(|_| ServeError::Timeout)??;
            let io = Rewind::new(first, io);
            if is_http2 {
                http2(io, handler, drain).await
            } else {
                http1(io, options, handler, drain).await
            }
        }
    }
}

/// Reads until it is clear whether the bytes are HTTP/2's preface.
async fn first_bytes(io: &mut (impl AsyncRead + Unpin)) -> Result<(Bytes, bool), ServeError> {
    let mut bytes = BytesMut::with_capacity(sniff::PREFACE.len() * 4);
    loop {
        if let Some(is_http2) = sniff::preface(&bytes) {
            return Ok((bytes.freeze(), is_http2));
        }
        if io.read_buf(&mut bytes).await? == 0 {
            return Ok((bytes.freeze(), false));
        }
    }
}

async fn http1<IO, H>(
    io: IO,
    options: ServeOptions,
    handler: Arc<H>,
    drain: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let shared = Arc::new(Shared::default());
    let gate = Gate::new(io, Arc::clone(&shared));
    let last = Arc::new(AtomicBool::new(false));
    let service = {
        let (shared, last) = (Arc::clone(&shared), Arc::clone(&last));
        hyper::service::service_fn(move |request| {
            let (handler, shared, last) = (Arc::clone(&handler), Arc::clone(&shared), Arc::clone(&last));
            // Apart, so that a connection without a request has no room for one.
            Box::pin(async move {
                let mut response = answer_http1(request, options, handler.as_ref(), &shared).await?;
                if last.load(Ordering::Relaxed) && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, Abort>(response)
            })
        })
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_buf_size(MAX_BUFFER.max(MAX_HEAD))
        .serve_connection(TokioIo::new(gate), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let drain = async {
        drain.await;
        last.store(true, Ordering::Relaxed);
        tokio::time::sleep(LAST_REQUEST).await;
    };
    let ended = tokio::select! {
        // Asked first: what is answered from then on is the last.
        biased;
        () = drain => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        ended = connection.as_mut() => ended,
    };
    match ended {
        Ok(()) if shared.cut() => Err(ServeError::Cut),
        Ok(()) => Ok(()),
        Err(_) if shared.fault().is_some() => Ok(()),
        Err(error) => Err(ServeError::Broken(error)),
    }
}

async fn http2<IO, H>(io: IO, handler: Arc<H>, drain: impl Future<Output = ()>) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let service = hyper::service::service_fn(move |request| {
        let handler = Arc::clone(&handler);
        Box::pin(async move { answer_http2(request, handler.as_ref()).await })
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .max_send_buf_size(MAX_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(Lingering::new(io)), service);
    let mut connection = pin!(connection);
    let mut drain = pin!(drain);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.as_mut() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(ServeError::Broken)
}

async fn answer_http1<H: Handler>(
    mut request: hyper::Request<Incoming>,
    options: ServeOptions,
    handler: &H,
    shared: &Shared,
) -> Result<Response, Abort> {
    let fault = match request.method().as_str() {
        REFUSED_METHOD => Some(shared.fault().unwrap_or(Fault::RequestLine)),
        _ if request.version() == http::Version::HTTP_10 && !options.http10 => Some(Fault::LowVersion),
        _ => unexpected(&request).or_else(|| origin_form(&mut request).err()),
    };
    let asks = asks_to_upgrade(&request);
    if let Some(fault) = fault {
        if asks {
            shared.decide(Verdict::Stays);
        }
        handler.refused(fault);
        return Ok(fault.response(true));
    }
    if asks {
        let promise = Upgrade(hyper::upgrade::on(&mut request));
        request.extensions_mut().insert(promise);
    }
    let answer = handler.request(request.map(crate::Body::from)).await;
    if asks {
        let upgraded =
            matches!(&answer, Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS);
        shared.decide(if upgraded {
            Verdict::Upgraded
        } else {
            Verdict::Stays
        });
    }
    answer
}

async fn answer_http2<H: Handler>(
    mut request: hyper::Request<Incoming>,
    handler: &H,
) -> Result<Response, Abort> {
    let fault = match *request.method() {
        Method::CONNECT => Some(Fault::Connect),
        _ => unexpected(&request)
            .or_else(|| too_many(&request))
            .or_else(|| authority(&mut request).err())
            .or_else(|| origin_form(&mut request).err()),
    };
    if let Some(fault) = fault {
        handler.refused(fault);
        return Ok(fault.response(false));
    }
    join_cookies(&mut request);
    handler.request(request.map(crate::Body::from)).await
}

/// Whether the front waits for a verdict: what it does not wait for must leave none, or the next one that asks gets it.
fn asks_to_upgrade(request: &hyper::Request<Incoming>) -> bool {
    let options = request.headers().get_all(header::CONNECTION).into_iter();
    let mut options = options.flat_map(|value| value.as_bytes().split(|b| *b == b','));
    request.version() == http::Version::HTTP_11
        && request.headers().contains_key(header::UPGRADE)
        && options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// Expectations: the codec answers `100-continue` once the body is wanted; others nobody here can meet.
fn unexpected(request: &hyper::Request<Incoming>) -> Option<Fault> {
    let mut expected = request.headers().get_all(header::EXPECT).iter();
    expected
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
        .then_some(Fault::Expectation)
}

fn too_many(request: &hyper::Request<Incoming>) -> Option<Fault> {
    (request.headers().len() > MAX_FIELDS).then_some(Fault::TooManyFields)
}

/// HTTP/2: `:authority` and `host` must agree, and one of them must be there. Afterwards `host` is.
fn authority(request: &mut hyper::Request<Incoming>) -> Result<(), Fault> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().cloned();
    if hosts.next().is_some() {
        return Err(Fault::SeveralHosts);
    }
    let authority = request.uri().authority().map(|a| a.as_str().to_owned());
    let chosen = match (authority, host) {
        (None, None) => return Err(Fault::MissingHost),
        (None, Some(host)) => host,
        (Some(authority), host) => {
            if host.is_some_and(|h| !h.as_bytes().eq_ignore_ascii_case(authority.as_bytes())) {
                return Err(Fault::HostMismatch);
            }
            HeaderValue::try_from(authority).map_err(|_| Fault::Host)?
        }
    };
    if !valid_host(chosen.as_bytes()) {
        return Err(Fault::Host);
    }
    request.headers_mut().insert(header::HOST, chosen);
    Ok(())
}

/// Leaves the path and the query of the target, and nothing else.
fn origin_form(request: &mut hyper::Request<Incoming>) -> Result<(), Fault> {
    let is_options = *request.method() == Method::OPTIONS;
    let target = request.uri().path_and_query().cloned();
    let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let known = target.as_str().starts_with('/') || (is_options && target.as_str() == "*");
    if !known || !target.as_str().is_ascii() {
        return Err(Fault::Target);
    }
    *request.uri_mut() = Uri::from(target);
    Ok(())
}

/// HTTP/2 may cut cookies into fields of their own; everybody else wants one (RFC 9113, 8.2.3).
fn join_cookies(request: &mut hyper::Request<Incoming>) {
    let crumbs: Vec<_> = request.headers().get_all(header::COOKIE).iter().collect();
    if crumbs.len() < 2 {
        return;
    }
    let joined = crumbs
        .iter()
        .map(|c| c.as_bytes())
        .collect::<Vec<_>>()
        .join(&b"; "[..]);
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        request.headers_mut().insert(header::COOKIE, value);
    }
}
