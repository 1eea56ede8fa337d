//! Requests: over HTTP/1.1 and HTTP/2, kept connections used as every client does.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::tally::KIND;
use super::{Kind, Load, connect, same, text};
use crate::echo::{EchoRequest, EchoResponse, frame, unframe};

type Body = Full<Bytes>;

/// How many requests an HTTP/2 connection is used for.
const REQUESTS: usize = 100;
/// How often a request is sent again that nobody has looked at.
const AGAIN: usize = 3;

/// Connections that are kept.
#[derive(Default)]
pub(super) struct Pools {
    http1: Mutex<Vec<http1::SendRequest<Body>>>,
    http2: tokio::sync::Mutex<BTreeMap<&'static str, (http2::SendRequest<Body>, usize)>>,
}

/// Why there is no answer, and whether the server has not looked at the request.
struct Failed {
    why: String,
    unseen: bool,
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self { why, unseen: false }
    }
}

impl Load {
    /// One request and its answer, checked.
    pub(super) async fn request(&self, kind: Kind, number: u64) -> Result<(), String> {
        let text = text(number);
        for attempt in 0..=AGAIN {
            match self.send(kind, &text).await {
                Ok(answer) => {
                    let rest = self.counted(kind, &answer)?;
                    return same(&text, rest);
                }
                Err(failed) if failed.unseen && attempt < AGAIN => {
                    self.resent.fetch_add(1, Ordering::Relaxed);
                }
                Err(failed) => return Err(failed.why),
            }
        }
        Err("sent again and again".to_owned())
    }

    async fn send(&self, kind: Kind, text: &str) -> Result<String, Failed> {
        let host = if kind == Kind::Grpc {
            &self.ask.grpc
        } else {
            &self.ask.http
        };
        let request = |uri: String, body: Bytes| {
            let mut request = Request::post(uri).header(KIND, kind.as_str());
            if kind == Kind::Grpc {
                request = request
                    .header("content-type", "application/grpc")
                    .header("te", "trailers");
            }
            request.body(Full::new(body)).map_err(|error| error.to_string())
        };
        match kind {
            Kind::Grpc => {
                let body = frame(&EchoRequest {
                    message: text.to_owned(),
                });
                let response = self
                    .http2(kind, host, request(format!("http://{host}/load/Unary"), body)?)
                    .await?;
                grpc(response).await.map_err(Failed::from)
            }
            Kind::Http2 => {
                let request = request(format!("http://{host}/load"), Bytes::from(text.to_owned()))?;
                plain(self.http2(kind, host, request).await?)
                    .await
                    .map_err(Failed::from)
            }
            _ => {
                let mut request = request("/load".to_owned(), Bytes::from(text.to_owned()))?;
                let value = http::HeaderValue::try_from(host).map_err(|error| error.to_string())?;
                request.headers_mut().insert("host", value);
                self.http1(kind, host, request).await
            }
        }
    }

    async fn http1(&self, kind: Kind, host: &str, request: Request<Body>) -> Result<String, Failed> {
        let kept = (kind == Kind::Http1).then(|| self.pools.idle()).flatten();
        let mut sender = match kept {
            Some(sender) => sender,
            None => {
                let io = TokioIo::new(connect(host).await?);
                let (sender, connection) = http1::handshake(io).await.map_err(|error| error.to_string())?;
                tokio::spawn(connection);
                sender
            }
        };
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                let unseen = error.take_message().is_some();
                let why = with_source(&error.into_error());
                return Err(Failed { why, unseen });
            }
        };
        let answer = plain(response).await?;
        if kind == Kind::Http1 && !sender.is_closed() {
            self.pools.keep(sender);
        }
        Ok(answer)
    }

    async fn http2(
        &self,
        kind: Kind,
        host: &str,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Failed> {
        let mut sender = {
            let mut kept = self.pools.http2.lock().await;
            match kept.get_mut(kind.as_str()) {
                Some((sender, left)) if *left > 0 && !sender.is_closed() => {
                    *left -= 1;
                    sender.clone()
                }
                _ => {
                    let io = TokioIo::new(connect(host).await?);
                    let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
                        .await
                        .map_err(|error| with_source(&error))?;
                    tokio::spawn(connection);
                    kept.insert(kind.as_str(), (sender.clone(), REQUESTS));
                    sender
                }
            }
        };
        sender.try_send_request(request).await.map_err(|mut error| {
            let message = error.take_message().is_some();
            let error = error.into_error();
            Failed {
                unseen: message || was_not_looked_at(&error),
                why: with_source(&error),
            }
        })
    }
}

impl Pools {
    fn idle(&self) -> Option<http1::SendRequest<Body>> {
        let mut kept = self.http1.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = kept.pop() {
            if sender.is_ready() && !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: http1::SendRequest<Body>) {
        // The one that has waited longest comes next: none is left to grow old.
        self.http1
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(0, sender);
    }
}

/// Whether the server has said that it did not look at the request: then every client sends it again (RFC 9113, 8.7).
fn was_not_looked_at(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| {
        error.is_remote()
            && (error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
                || error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

pub(super) fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

async fn plain(response: Response<Incoming>) -> Result<String, String> {
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|error| format!("the answer broke off: {}", with_source(&error)))?;
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    if status != http::StatusCode::OK {
        return Err(format!(
            "status {}: {}",
            status.as_u16(),
            text.get(..200).unwrap_or(&text)
        ));
    }
    Ok(text)
}

async fn grpc(response: Response<Incoming>) -> Result<String, String> {
    let said = |headers: &http::HeaderMap| {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        (text("grpc-status"), text("grpc-message").unwrap_or_default())
    };
    let (status, message) = said(response.headers());
    if let Some(status) = status.filter(|status| status != "0") {
        return Err(format!("grpc-status {status}: {message}"));
    }
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|error| format!("the answer broke off: {}", with_source(&error)))?;
    let (status, message) = body.trailers().map(said).unwrap_or_default();
    if status.as_deref() != Some("0") {
        return Err(format!("grpc-status {status:?}: {message}"));
    }
    let answer: EchoResponse = unframe(&body.to_bytes()).ok_or("no message")?;
    Ok(answer.message)
}
