//! The answering side.

mod multiplexed;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::front::{Gate, REFUSED_METHOD, Shared, Verdict};
use crate::limits::{HEAD_TIMEOUT, LAST_REQUEST, MAX_BUFFER, MAX_HEAD};
use crate::{Broken, Fault, Request, Response, Rewind, Upgrade, sniff};

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
    Broken(#[source] Broken),
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
        Protocol::Http2 => multiplexed::serve(io, handler, drain).await,
        Protocol::Detect => {
            let first = tokio::time::timeout(HEAD_TIMEOUT, first_bytes(&mut io));
            let (first, is_http2) = first.await.map_err(|_| ServeError::Timeout)??;
            let io = Rewind::new(first, io);
            if is_http2 {
                multiplexed::serve(io, handler, drain).await
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
        Err(error) => Err(ServeError::Broken(error.into())),
    }
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

/// Whether the front waits for a verdict: what it does not wait for must leave none, or the next one that asks gets it.
fn asks_to_upgrade(request: &hyper::Request<Incoming>) -> bool {
    let options = request.headers().get_all(header::CONNECTION).into_iter();
    let mut options = options.flat_map(|value| value.as_bytes().split(|b| *b == b','));
    request.version() == http::Version::HTTP_11
        && request.headers().contains_key(header::UPGRADE)
        && options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// Expectations: the codec answers `100-continue` once the body is wanted; others nobody here can meet.
fn unexpected<B>(request: &http::Request<B>) -> Option<Fault> {
    let mut expected = request.headers().get_all(header::EXPECT).iter();
    expected
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
        .then_some(Fault::Expectation)
}

/// Leaves the path and the query of the target, and nothing else.
fn origin_form<B>(request: &mut http::Request<B>) -> Result<(), Fault> {
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
