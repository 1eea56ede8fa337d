//! Sends requests over connections in memory, for a tool that counts instructions: see `check`.
//!
//!     bench-codecs http1|http2|post [REQUESTS]
//!
//! One request after the other, from a client of ours to a server of ours, which answers with 1 KiB.

use std::future::pending;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use meshward_http::{
    Abort, Body, Fault, Handler, HeaderMap, HeaderValue, Protocol, Request, Response, Sender, ServeOptions, Version,
    handshake, serve,
};

/// Requests that are counted, and before them as many that are not.
const REQUESTS: usize = 1000;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_default();
    let count = words.next().and_then(|word| word.parse().ok()).unwrap_or(REQUESTS);
    let version = match name.as_str() {
        "http1" => Version::Http1,
        "http2" | "post" => Version::Http2,
        _ => {
            eprintln!("`{name}` is not measured");
            return ExitCode::from(64);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    let mut sender = runtime.block_on(connect(version));
    let asks = name == "post";
    runtime.block_on(all(&mut sender, count, asks));
    measured(|| runtime.block_on(all(&mut sender, count, asks)));
    ExitCode::SUCCESS
}

/// What is counted.
#[inline(never)]
fn measured<T>(run: impl FnOnce() -> T) -> T {
    black_box(run())
}

async fn connect(version: Version) -> Sender {
    let (near, far) = tokio::io::duplex(256 * 1024);
    tokio::spawn(serve(far, Protocol::Detect, ServeOptions::default(), Arc::new(Answers), pending()));
    let mut sender = handshake(near, version).await.expect("a connection in memory");
    sender.ready().await.expect("a connection in memory");
    sender
}

async fn all(sender: &mut Sender, count: usize, asks: bool) {
    for nth in 0..count {
        sender.ready().await.expect("the connection goes on");
        let response = sender.send(request(nth, asks)).await.expect("an answer");
        let body = response.into_body().collect().await.expect("a whole body");
        assert_eq!(body.to_bytes().len(), 1024);
    }
}

/// As a proxy sends them to another: some fields are always the same, some never.
fn request(nth: usize, asks: bool) -> Request {
    let mut request = Request::new(if asks { message(64) } else { Body::empty() });
    *request.uri_mut() = meshward_http::Uri::from_static("/api/v1/products?id=17");
    let fields = [
        ("host", HeaderValue::from_static("reviews.bookinfo.svc.cluster.local:9080")),
        ("user-agent", HeaderValue::from_static("curl/8.5.0")),
        ("accept", HeaderValue::from_static("*/*")),
        ("x-forwarded-proto", HeaderValue::from_static("http")),
        ("x-request-id", HeaderValue::try_from(format!("6a8f3c1e-1f5b-4c9e-9d0e-{nth:012x}")).expect("text")),
        (
            "traceparent",
            HeaderValue::try_from(format!("00-{nth:032x}-{nth:016x}-01")).expect("text"),
        ),
    ];
    for (name, value) in fields {
        request.headers_mut().insert(name, value);
    }
    if asks {
        *request.method_mut() = meshward_http::Method::POST;
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    }
    request
}

fn message(length: usize) -> Body {
    Body::from(Bytes::from(vec![b'x'; length]))
}

struct Answers;

impl Handler for Answers {
    async fn request(&self, request: Request) -> Result<Response, Abort> {
        request.into_body().collect().await.map_err(|_| Abort)?;
        let mut response = Response::new(message(1024));
        let headers: &mut HeaderMap = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("server", HeaderValue::from_static("istio-envoy"));
        Ok(response)
    }

    fn refused(&self, _: Fault) {}
}
