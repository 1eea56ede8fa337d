//! Metrics and health over HTTP: read-only, on the node's own address. Nothing else answers here.

use std::sync::Arc;

use meshward_http::{
    Abort, Body, Fault, HeaderValue, Method, Protocol, Request, Response, ServeOptions, StatusCode,
};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::shared::Shared;

/// Connections that are served at once; more wait in the listen queue.
const MAX_CONNECTIONS: usize = 64;
/// The media type of what Prometheus asks for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Serves until told to drain.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut draining = std::pin::pin!(shared.told_to_drain());
    let handler = Arc::new(Web(shared));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accepting a reader of metrics failed");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = &mut draining => return,
        };
        let handler = Arc::clone(&handler);
        tokio::spawn(async move {
            let options = ServeOptions { http10: true };
            let served =
                meshward_http::serve(stream, Protocol::Http1, options, handler, std::future::pending());
            if let Err(error) = served.await {
                tracing::debug!(%error, "a reader of metrics went away");
            }
            drop(place);
        });
    }
}

struct Web(Arc<Shared>);

impl meshward_http::Handler for Web {
    async fn request(&self, request: Request) -> Result<Response, Abort> {
        let (status, kind, text) = answer(request.method(), request.uri().path(), &self.0);
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert("content-type", HeaderValue::from_static(kind));
        Ok(response)
    }

    fn refused(&self, fault: Fault) {
        tracing::debug!(fault = fault.details(), "a request for metrics was refused");
    }
}

fn answer(method: &Method, path: &str, shared: &Shared) -> (StatusCode, &'static str, String) {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return (
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT,
            "GET and HEAD only\n".to_owned(),
        );
    }
    match path {
        "/metrics" | "/stats/prometheus" => (StatusCode::OK, OPEN_METRICS, shared.telemetry.metrics_text()),
        "/healthz/live" => (StatusCode::OK, TEXT, "live\n".to_owned()),
        "/healthz/ready" => {
            let missing = shared.missing();
            if missing.is_empty() {
                (StatusCode::OK, TEXT, "ready\n".to_owned())
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, TEXT, missing.join("\n") + "\n")
            }
        }
        _ => (StatusCode::NOT_FOUND, TEXT, "not found\n".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(shared: &Arc<Shared>, request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(Arc::clone(shared), listener));
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        serving.abort();
        answer
    }

    #[tokio::test]
    async fn metrics_and_health_and_nothing_else() {
        let shared = crate::tests::shared();
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = ask(&shared, &get("/stats/prometheus")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("openmetrics"), "{answer}");
        let answer = ask(&shared, &get("/healthz/ready")).await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("snapshot"),
            "{answer}"
        );
        shared.store.swap(&crate::tests::resources(), 1).unwrap();
        let answer = ask(&shared, &get("/healthz/ready")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        for path in ["/", "/config_dump", "/quitquitquit", "/debug/pprof"] {
            let answer = ask(&shared, &get(path)).await;
            assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
        }
        let post = "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let answer = ask(&shared, post).await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
        let smuggled = "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = ask(&shared, smuggled).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
}
