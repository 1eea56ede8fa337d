//! Metrics and health of a part, over HTTP without TLS: read-only, for whom a [`Guard`] admits, and nothing else answers.

mod guard;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::limits::{MAX_PAGE_CONNECTIONS, PAGE_CONNECTION_LIFE};
use crate::{
    Abort, Body, Fault, Handler, HeaderValue, Method, Protocol, Request, Response, ServeOptions, StatusCode,
    header, serve,
};

pub use guard::Guard;

/// How long to wait before accepting again when the system refuses (out of descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What a part has to say of itself to whoever reaches the address.
pub trait Pages: Send + Sync + 'static {
    /// Its metrics in OpenMetrics text: `/metrics`, and `/stats/prometheus` as Istio's proxies have it.
    fn metrics(&self) -> String;

    /// What it waits for before it can do its work, a line each; nothing where it is ready: `/healthz/ready`, and `/ready`
    /// as Istio's control plane has it.
    fn missing(&self) -> Vec<String>;
}

/// Listens at the addresses.
///
/// # Errors
/// One cannot be had: one sentence.
pub async fn listen(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, String> {
    let mut listeners = Vec::new();
    for address in addresses {
        let listener = TcpListener::bind(address).await;
        listeners.push(listener.map_err(|error| format!("cannot listen on {address}: {error}"))?);
    }
    Ok(listeners)
}

/// Answers those that may read, at a listener, for ever. To others the connection is reset without a byte.
pub async fn answer(listener: TcpListener, pages: Arc<impl Pages>, guard: Arc<Guard>) {
    let places = Arc::new(Semaphore::new(MAX_PAGE_CONNECTIONS));
    let desk = Arc::new(Desk(pages));
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Some(stream) = admitted(stream, peer, &guard) else {
                    continue;
                };
                let desk = Arc::clone(&desk);
                tokio::spawn(async move {
                    connection(stream, desk).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting connections for metrics failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connection, if whose it is may read.
fn admitted(stream: TcpStream, peer: SocketAddr, guard: &Guard) -> Option<TcpStream> {
    let own = stream.local_addr().ok()?;
    if guard.admits(peer, own) {
        return Some(stream);
    }
    guard.refused(peer.ip(), own);
    // A reset cannot be taken for an empty answer.
    let _ = stream.set_zero_linger();
    None
}

async fn connection(stream: TcpStream, desk: Arc<Desk<impl Pages>>) {
    let served = serve(
        stream,
        Protocol::Detect,
        ServeOptions::default(),
        desk,
        std::future::pending(),
    );
    // A client that reads nothing, or says nothing, does not keep its place for ever.
    if let Ok(Err(error)) = tokio::time::timeout(PAGE_CONNECTION_LIFE, served).await {
        tracing::debug!(%error, "a connection for metrics ended early");
    }
}

struct Desk<P>(Arc<P>);

impl<P: Pages> Handler for Desk<P> {
    async fn request(&self, request: Request) -> Result<Response, Abort> {
        let head = match *request.method() {
            Method::GET => false,
            Method::HEAD => true,
            _ => {
                let mut refused = page(
                    StatusCode::METHOD_NOT_ALLOWED,
                    TEXT,
                    "read-only\n".to_owned(),
                    false,
                );
                refused
                    .headers_mut()
                    .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                return Ok(refused);
            }
        };
        Ok(match request.uri().path() {
            "/metrics" | "/stats/prometheus" => page(StatusCode::OK, METRICS, self.0.metrics(), head),
            "/healthz/live" => page(StatusCode::OK, TEXT, "live\n".to_owned(), head),
            "/healthz/ready" | "/ready" => match self.0.missing() {
                missing if missing.is_empty() => page(StatusCode::OK, TEXT, "ready\n".to_owned(), head),
                missing => {
                    let list = missing.iter().map(|what| format!("{what}\n")).collect();
                    page(StatusCode::SERVICE_UNAVAILABLE, TEXT, list, head)
                }
            },
            _ => page(StatusCode::NOT_FOUND, TEXT, "not found\n".to_owned(), head),
        })
    }

    fn refused(&self, fault: Fault) {
        tracing::debug!(%fault, "a request for metrics was refused");
    }
}

fn page(status: StatusCode, kind: HeaderValue, text: String, head: bool) -> Response {
    let length = text.len();
    let mut response = Response::new(if head { Body::empty() } else { Body::from(text) });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Waiting(Vec<String>);

    impl Pages for Waiting {
        fn metrics(&self) -> String {
            "x 1\n# EOF\n".to_owned()
        }

        fn missing(&self) -> Vec<String> {
            self.0.clone()
        }
    }

    async fn ask(missing: &[&str], request: &str) -> String {
        let listeners = listen(&["127.0.0.1:0".parse().unwrap()]).await.unwrap();
        let listener = listeners.into_iter().next().unwrap();
        let address = listener.local_addr().unwrap();
        let missing = missing.iter().map(|what| (*what).to_owned()).collect();
        let serving = tokio::spawn(answer(listener, Arc::new(Waiting(missing)), Arc::default()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        serving.abort();
        String::from_utf8(answer).unwrap()
    }

    async fn get(missing: &[&str], path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        ask(missing, &request).await
    }

    #[tokio::test]
    async fn metrics_are_prometheus_text() {
        for path in ["/metrics", "/stats/prometheus", "/metrics?x=1"] {
            let answer = get(&[], path).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(
                answer.contains("content-type: application/openmetrics-text; version=1.0.0"),
                "{answer}"
            );
            assert!(answer.ends_with("x 1\n# EOF\n"), "{answer}");
        }
    }

    #[tokio::test]
    async fn ready_is_when_nothing_is_missing() {
        for path in ["/healthz/ready", "/ready"] {
            let answer = get(&["no snapshot yet"], path).await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert!(answer.ends_with("\r\n\r\nno snapshot yet\n"), "{answer}");
            let answer = get(&[], path).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        let answer = get(&["no snapshot yet"], "/healthz/live").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    #[tokio::test]
    async fn nothing_else_answers() {
        for path in [
            "/",
            "/config_dump",
            "/quitquitquit",
            "/stats",
            "/metrics/",
            "//metrics",
            "/debug/pprof",
        ] {
            let answer = get(&[], path).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
        }
        let check = async |request: &str, status: &str| {
            let answer = ask(&[], request).await;
            let got = answer.split_ascii_whitespace().nth(1);
            assert_eq!(got, Some(status), "{request}: {answer}");
            answer
        };
        let allow = check(
            "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "405",
        )
        .await;
        assert!(allow.contains("allow: GET, HEAD\r\n"));
        check("GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n", "426").await;
        check("GET /metrics HTTP/1.1\nHost: x\n\n", "400").await;
    }

    #[tokio::test]
    async fn head_has_no_body() {
        let request = "HEAD /healthz/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answer = ask(&[], request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-length: 5\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
}
