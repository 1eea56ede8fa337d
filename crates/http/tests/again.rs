//! Requests that may be sent again, and those that may not.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use http_body::Body as _;
use http_body_util::BodyExt;
use meshward_http::limits::MAX_REPLAY;
use meshward_http::{Body, Request, Response, Unsent, Version, handshake};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn request(method: &str, body: &'static str) -> Request {
    let request = http::Request::builder()
        .method(method)
        .uri("/x")
        .header("host", "a");
    request.body(Body::from(body)).unwrap()
}

async fn text(response: Response) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What the second request of a connection comes to, which the server reads and then hangs up.
async fn at_the_end(method: &str, body: &'static str) -> Unsent {
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let mut sender = handshake(near, Version::Http1).await.unwrap();
    let serving = tokio::spawn(async move {
        let mut seen = [0; 4096];
        let _ = far.read(&mut seen).await.unwrap();
        far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await
            .unwrap();
        assert!(far.read(&mut seen).await.unwrap() > 0, "the request has left");
    });
    assert_eq!(text(sender.send(request("GET", "")).await.unwrap()).await, "ok");
    sender.ready().await.unwrap();
    let unsent = sender.send(request(method, body)).await.unwrap_err();
    serving.await.unwrap();
    unsent
}

#[tokio::test]
async fn an_idempotent_request_that_met_the_end_of_a_kept_connection_comes_back() {
    let unsent = at_the_end("GET", "").await;
    let again = unsent.request.expect("it may be sent again");
    assert_eq!((again.method().as_str(), again.uri().path()), ("GET", "/x"));
    assert_eq!(again.headers()["host"], "a");
}

#[tokio::test]
async fn what_may_have_been_done_is_not_sent_again() {
    for (method, body) in [("POST", ""), ("POST", "body"), ("PUT", "body")] {
        let unsent = at_the_end(method, body).await;
        assert!(unsent.request.is_none(), "{method} {body:?}");
    }
}

#[tokio::test]
async fn a_first_request_without_an_answer_does_not_come_back() {
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let mut sender = handshake(near, Version::Http1).await.unwrap();
    tokio::spawn(async move {
        let mut seen = [0; 4096];
        let _ = far.read(&mut seen).await;
    });
    let unsent = sender.send(request("GET", "")).await.unwrap_err();
    assert!(unsent.request.is_none());
}

/// A server of HTTP/2 that answers one request, refuses to look at another, and then says that it goes away.
async fn refuses(io: tokio::io::DuplexStream) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    let mut count = 0;
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        count += 1;
        if count == 1 {
            let response = http::Response::new(());
            respond.send_response(response, true).unwrap();
        } else {
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        }
    }
}

#[tokio::test]
async fn what_a_server_of_http2_has_not_looked_at_comes_back() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(refuses(far));
    let mut sender = handshake(near, Version::Http2).await.unwrap();
    assert_eq!(sender.send(request("POST", "")).await.unwrap().status(), 200);
    let unsent = sender.send(request("POST", "")).await.unwrap_err();
    let again = unsent.request.expect("the server did not look at it");
    assert_eq!(
        (again.method().as_str(), &again.headers()["host"]),
        ("POST", &http::HeaderValue::from_static("a"))
    );
    assert_eq!(again.uri().to_string(), "/x");
    // Of a body as much is kept as fits, until there is an answer.
    let unsent = sender.send(request("POST", "body")).await.unwrap_err();
    let again = unsent.request.expect("its body is kept");
    assert_eq!(again.body().size_hint().exact(), Some(4));
    assert_eq!(again.into_body().collect().await.unwrap().to_bytes(), "body");
    let long = Body::from("x".repeat(MAX_REPLAY + 1));
    let unsent = sender.send(request("POST", "").map(|_| long)).await.unwrap_err();
    assert!(unsent.request.is_none());
}
