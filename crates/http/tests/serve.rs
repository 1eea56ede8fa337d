//! Raw bytes at a served connection.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt;
use meshward_http::{
    Abort, Body, Fault, Handler, Protocol, Request, Response, ServeOptions, StatusCode, Version, handshake,
    header, serve, take_upgrade,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

#[derive(Default)]
struct Echo {
    faults: Mutex<Vec<Fault>>,
}

impl Handler for Echo {
    async fn request(&self, mut request: Request) -> Result<Response, Abort> {
        if let Some(upgrade) = take_upgrade(request.extensions_mut()) {
            tokio::spawn(async move {
                let mut stream = upgrade.wait().await.unwrap();
                let mut bytes = [0; 4];
                stream.read_exact(&mut bytes).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
            });
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response
                .headers_mut()
                .insert(header::CONNECTION, "upgrade".parse().unwrap());
            response
                .headers_mut()
                .insert(header::UPGRADE, "websocket".parse().unwrap());
            return Ok(response);
        }
        let line = format!("{} {}|", request.method(), request.uri());
        let host = request.headers()[header::HOST].to_str().unwrap().to_owned();
        let body = request.into_body().collect().await.map_err(|_| Abort)?;
        let trailer = body.trailers().and_then(|t| t.get("x-t")).is_some();
        let bytes = String::from_utf8(body.to_bytes().to_vec()).unwrap();
        Ok(Response::new(Body::from(format!(
            "{line}{host}|{bytes}|{trailer}"
        ))))
    }

    fn refused(&self, fault: Fault) {
        self.faults.lock().unwrap().push(fault);
    }
}

fn start(protocol: Protocol) -> (DuplexStream, Arc<Echo>) {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let echo = Arc::new(Echo::default());
    let handler = Arc::clone(&echo);
    tokio::spawn(serve(
        server,
        protocol,
        ServeOptions::default(),
        handler,
        std::future::pending(),
    ));
    (client, echo)
}

/// Sends bytes, and reads until the other side closes or falls silent.
async fn talk(client: &mut DuplexStream, bytes: &[u8]) -> String {
    client.write_all(bytes).await.unwrap();
    let mut out = Vec::new();
    while let Ok(Ok(read)) = tokio::time::timeout(Duration::from_millis(200), client.read_buf(&mut out)).await
    {
        if read == 0 {
            out.extend(b"<closed>");
            break;
        }
    }
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_a_bad_one_ends_it() {
    let (mut client, echo) = start(Protocol::Detect);
    let bytes = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /3 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n";
    let got = talk(&mut client, bytes).await;
    assert!(got.contains("GET /1|a||false"), "{got}");
    assert!(got.contains("POST /2|a|hi|false"), "{got}");
    assert!(got.contains("HTTP/1.1 400 Bad Request"), "{got}");
    assert!(got.find("/2|").unwrap() < got.find("400").unwrap(), "{got}");
    assert!(!got.contains("/4"), "{got}");
    assert_eq!(*echo.faults.lock().unwrap(), [Fault::SeveralHosts]);
}

#[tokio::test]
async fn absolute_form_becomes_origin_form() {
    let (mut client, _echo) = start(Protocol::Http1);
    let got = talk(&mut client, b"GET http://a.b HTTP/1.1\r\nHost: a.b\r\n\r\n").await;
    assert!(got.contains("GET /|a.b||false"), "{got}");
}

#[tokio::test]
async fn chunks_and_trailers_stream() {
    let (mut client, _echo) = start(Protocol::Http1);
    let got = talk(
        &mut client,
        b"POST / HTTP/1.1\r\nHost: a\r\nTrailer: x-t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
    )
    .await;
    assert!(got.contains("|abc|true"), "{got}");
}

#[tokio::test]
async fn a_bad_chunk_breaks_the_body_off() {
    let (mut client, _echo) = start(Protocol::Http1);
    let got = talk(
        &mut client,
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX",
    )
    .await;
    assert!(!got.contains("200") && got.ends_with("<closed>"), "{got}");
}

#[tokio::test]
async fn http_10_is_answered_with_426() {
    let (mut client, echo) = start(Protocol::Http1);
    let got = talk(&mut client, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(got.contains(" 426 Upgrade Required"), "{got}");
    assert_eq!(*echo.faults.lock().unwrap(), [Fault::LowVersion]);
}

#[tokio::test]
async fn hundred_continue_is_sent_when_the_body_is_wanted() {
    let (mut client, _echo) = start(Protocol::Http1);
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    assert!(talk(&mut client, head).await.starts_with("HTTP/1.1 100 Continue"));
    assert!(talk(&mut client, b"ok").await.contains("|ok|"));
    let got = talk(&mut client, b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n").await;
    assert!(got.contains(" 417 "), "{got}");
}

#[tokio::test]
async fn pd_17_after_101_bytes_are_opaque() {
    let (mut client, _echo) = start(Protocol::Http1);
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert!(talk(&mut client, head).await.starts_with("HTTP/1.1 101"));
    assert!(talk(&mut client, b"\0\x01\n\r").await.starts_with("\0\x01\n\r"));
}

#[tokio::test]
async fn connect_is_refused_in_both_versions() {
    let (mut client, echo) = start(Protocol::Http1);
    let got = talk(&mut client, b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").await;
    assert!(got.contains(" 404 "), "{got}");
    assert_eq!(*echo.faults.lock().unwrap(), [Fault::Connect]);
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_found_and_both_clients_work() {
    for version in [Version::Http1, Version::Http2] {
        let (client, _echo) = start(Protocol::Detect);
        let mut sender = handshake(client, version).await.unwrap();
        let request = http::Request::post("/p?q=1")
            .header("host", "a:80")
            .body(Body::from("x"))
            .unwrap();
        let response = sender.send(request).await.unwrap();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(bytes, "POST /p?q=1|a:80|x|false", "{version:?}");
    }
}

#[tokio::test]
async fn http2_host_and_authority_must_agree() {
    let (client, echo) = start(Protocol::Http2);
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Body>(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(client),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://a/")
        .header("host", "b")
        .body(Body::empty())
        .unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 400);
    assert_eq!(*echo.faults.lock().unwrap(), [Fault::HostMismatch]);
}

/// A connection that is to end when the sender says so.
fn ending(protocol: Protocol) -> (DuplexStream, tokio::sync::oneshot::Sender<()>, Arc<Echo>) {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let echo = Arc::new(Echo::default());
    let handler = Arc::clone(&echo);
    let (end, told) = tokio::sync::oneshot::channel();
    tokio::spawn(serve(server, protocol, ServeOptions::default(), handler, async {
        let _ = told.await;
    }));
    (client, end, echo)
}

#[tokio::test]
async fn http1_hears_of_the_end_with_the_next_answer_and_not_before() {
    let (mut client, end, _echo) = ending(Protocol::Detect);
    let request = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
    let before = talk(&mut client, request).await;
    assert!(
        !before.contains("connection: close") && !before.contains("<closed>"),
        "{before}"
    );
    end.send(()).unwrap();
    // It is idle, and a request may be on its way: nothing is closed under it.
    let nothing = talk(&mut client, b"").await;
    assert_eq!(nothing, "");
    let last = talk(&mut client, request).await;
    assert!(
        last.contains("connection: close") && last.ends_with("<closed>"),
        "{last}"
    );
}

#[tokio::test]
async fn a_connection_on_which_nothing_was_said_yet_is_answered_once() {
    let (mut client, end, _echo) = ending(Protocol::Detect);
    end.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let answer = talk(&mut client, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("<closed>"),
        "{answer}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_is_to_end_does_after_a_while() {
    let (mut client, end, _echo) = ending(Protocol::Http1);
    let answer = talk(&mut client, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(!answer.contains("<closed>"), "{answer}");
    end.send(()).unwrap();
    tokio::time::sleep(meshward_http::limits::LAST_REQUEST - Duration::from_secs(1)).await;
    assert_eq!(talk(&mut client, b"").await, "");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(talk(&mut client, b"").await, "<closed>");
}
