//! Metrics and health over HTTP: read-only, and nothing else answers.

use std::sync::Arc;
use std::time::Duration;

use meshward_http::{
    Abort, Body, Fault, Handler, HeaderValue, Method, Protocol, Request, Response, ServeOptions, StatusCode,
    header, serve,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::shared::{Shared, staleness};

/// How many connections are served at once; the next one waits.
const MAX_CONNECTIONS: usize = 64;

/// How long one connection may last.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);

/// How long to wait before accepting again when the system refuses (out of descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Listens at every address of the configuration.
///
/// # Errors
/// An address cannot be had.
pub(crate) async fn start(
    shared: &Arc<Shared>,
    tasks: &mut JoinSet<Result<(), String>>,
) -> Result<(), String> {
    for address in &shared.config.metrics {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| format!("cannot listen on {address}: {error}"))?;
        tasks.spawn(accept(Arc::clone(shared), listener));
    }
    Ok(())
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) -> Result<(), String> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let pages = Arc::new(Pages(shared));
    loop {
        let place = Arc::clone(&places)
            .acquire_owned()
            .await
            .map_err(|error| error.to_string())?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = Arc::clone(&pages);
                tokio::spawn(async move {
                    connection(stream, pages).await;
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

async fn connection(stream: TcpStream, pages: Arc<Pages>) {
    let served = serve(
        stream,
        Protocol::Detect,
        ServeOptions::default(),
        pages,
        std::future::pending(),
    );
    // A client that reads nothing, or says nothing, does not keep its place for ever.
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_LIFE, served).await {
        tracing::debug!(%error, "a connection for metrics ended early");
    }
}

struct Pages(Arc<Shared>);

impl Handler for Pages {
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
            "/metrics" | "/stats/prometheus" => {
                page(StatusCode::OK, METRICS, staleness::metrics(&self.0), head)
            }
            "/healthz/live" => page(StatusCode::OK, TEXT, "live\n".to_owned(), head),
            "/healthz/ready" => match missing(&self.0) {
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

/// What a proxy waits for before it can carry what it is to carry.
fn missing(shared: &Shared) -> Vec<String> {
    let mut missing = Vec::new();
    if shared.store.current().is_none() {
        missing.push("no snapshot yet".to_owned());
    }
    if *shared.draining.borrow() {
        missing.push("draining".to_owned());
    }
    let mut ids: Vec<_> = shared
        .locals
        .all()
        .iter()
        .filter_map(|w| w.identity.clone())
        .collect();
    ids.sort();
    ids.dedup();
    let unready = ids.iter().filter(|id| !shared.identities.ready(id));
    missing.extend(unready.map(|id| format!("no certificate yet: {id}")));
    missing
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
mod tests;
