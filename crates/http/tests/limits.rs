//! Limits of connections, reached from outside.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use meshward_http::limits::{CONNECTION_WINDOW, MAX_BUFFER, MAX_HEAD, MAX_STREAMS, STREAM_WINDOW};
use meshward_http::{
    Abort, Body, Fault, Handler, Protocol, Request, Response, ServeOptions, Version, handshake, serve,
};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// What fits between the two ends.
const PIPE: usize = 16 * 1024;
/// How long something may take that is to happen, and how long it is looked whether what must not happen does.
const SOON: Duration = Duration::from_secs(20);
const A_WHILE: Duration = Duration::from_millis(300);

/// Takes requests, and answers when it may; it never looks at a body.
struct Waiting {
    under_way: AtomicUsize,
    most: AtomicUsize,
    may_answer: Semaphore,
}

impl Waiting {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            may_answer: Semaphore::new(0),
        })
    }
}

impl Handler for Waiting {
    async fn request(&self, request: Request) -> Result<Response, Abort> {
        let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        self.may_answer.acquire().await.unwrap().forget();
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        drop(request);
        Ok(Response::new(Body::from("ok")))
    }

    fn refused(&self, _: Fault) {}
}

fn start(protocol: Protocol) -> (DuplexStream, Arc<Waiting>) {
    let (client, server) = tokio::io::duplex(PIPE);
    let handler = Waiting::new();
    tokio::spawn(serve(
        server,
        protocol,
        ServeOptions::default(),
        Arc::clone(&handler),
        std::future::pending(),
    ));
    (client, handler)
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let waited = timeout(SOON, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "not soon: {what}");
}

#[tokio::test]
async fn a_connection_of_http2_has_so_many_streams_and_the_next_waits() {
    let (client, handler) = start(Protocol::Http2);
    let sender = handshake(client, Version::Http2).await.unwrap();
    let limit = usize::try_from(MAX_STREAMS).unwrap();
    let asked: Vec<_> = (0..limit + 10)
        .map(|_| {
            let mut sender = sender.share().unwrap();
            let request = http::Request::get("/").header("host", "a").body(Body::empty());
            tokio::spawn(async move { sender.send(request.unwrap()).await.map(|r| r.status()) })
        })
        .collect();
    until("as many as may be are under way", || {
        handler.under_way.load(Ordering::Relaxed) == limit
    })
    .await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(handler.most.load(Ordering::Relaxed), limit);
    handler.may_answer.add_permits(2 * limit);
    for asked in asked {
        assert_eq!(timeout(SOON, asked).await.unwrap().unwrap().unwrap(), 200);
    }
}

#[tokio::test]
async fn a_head_of_http2_has_so_many_bytes() {
    let (client, handler) = start(Protocol::Http2);
    let (mut sender, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(connection);
    let request = |length: usize| {
        let value = "x".repeat(length);
        let request = http::Request::get("http://a/").header("x-long", value);
        request.body(()).unwrap()
    };
    handler.may_answer.add_permits(1);
    let (answer, _) = sender.send_request(request(MAX_HEAD - 4096), true).unwrap();
    assert_eq!(timeout(SOON, answer).await.unwrap().unwrap().status(), 200);
    sender = sender.ready().await.unwrap();
    let (answer, _) = sender.send_request(request(MAX_HEAD + 1), true).unwrap();
    let refused = timeout(SOON, answer).await.unwrap();
    assert!(
        refused.as_ref().map_or(true, |r| r.status() == 431),
        "{refused:?}"
    );
    assert_eq!(handler.most.load(Ordering::Relaxed), 1, "nobody was asked");
}

#[tokio::test]
async fn what_a_client_of_http1_sends_waits_where_nobody_reads_it() {
    let (mut client, _handler) = start(Protocol::Http1);
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut sent = 0;
    while let Ok(written) = timeout(A_WHILE, client.write(&[0; 4096])).await {
        sent += written.unwrap();
    }
    assert!(sent <= PIPE + 2 * MAX_BUFFER, "{sent}");
}

#[tokio::test]
async fn what_a_client_of_http2_sends_waits_where_nobody_reads_it() {
    let (client, _handler) = start(Protocol::Http2);
    let (mut sender, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(connection);
    let mut all = 0;
    let mut held = Vec::new();
    for _ in 0..8 {
        sender = sender.ready().await.unwrap();
        let request = http::Request::post("http://a/").body(()).unwrap();
        let (_, mut body) = sender.send_request(request, false).unwrap();
        body.reserve_capacity(10 * 1024 * 1024);
        let mut sent = 0;
        while let Ok(Some(room)) = timeout(A_WHILE, poll_fn(|context| body.poll_capacity(context))).await {
            let room = room.unwrap();
            body.send_data(Bytes::from(vec![0; room]), false).unwrap();
            sent += room;
        }
        assert!(sent <= usize::try_from(STREAM_WINDOW).unwrap(), "{sent}");
        all += sent;
        held.push(body);
    }
    assert!(
        all > 0 && all <= usize::try_from(CONNECTION_WINDOW).unwrap(),
        "{all}"
    );
}

/// A server that answers each request with more than fits, and `/short` with little.
async fn pours(io: DuplexStream, poured: Arc<AtomicUsize>) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let poured = Arc::clone(&poured);
        tokio::spawn(async move {
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            if request.uri().path() == "/short" {
                return body.send_data(Bytes::from_static(b"short"), true).unwrap();
            }
            body.reserve_capacity(10 * 1024 * 1024);
            while let Some(Ok(room)) = poll_fn(|context| body.poll_capacity(context)).await {
                poured.fetch_add(room, Ordering::Relaxed);
                body.send_data(Bytes::from(vec![0; room]), false).unwrap();
            }
        });
    }
}

#[tokio::test]
async fn an_answer_that_nobody_reads_waits_and_holds_up_no_other() {
    const UNREAD: usize = 8;
    let (client, server) = tokio::io::duplex(PIPE);
    let poured = Arc::new(AtomicUsize::new(0));
    tokio::spawn(pours(server, Arc::clone(&poured)));
    let sender = handshake(client, Version::Http2).await.unwrap();
    let request = |path: &str| {
        let request = http::Request::get(path).header("host", "a");
        request.body(Body::empty()).unwrap()
    };
    let mut held = Vec::new();
    for _ in 0..UNREAD {
        let mut sender = sender.share().unwrap();
        held.push(
            timeout(SOON, sender.send(request("/long")))
                .await
                .unwrap()
                .unwrap(),
        );
    }
    let most = UNREAD * usize::try_from(STREAM_WINDOW).unwrap();
    until("all of it has come that may", || {
        poured.load(Ordering::Relaxed) == most
    })
    .await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(poured.load(Ordering::Relaxed), most);
    let short = timeout(SOON, sender.share().unwrap().send(request("/short"))).await;
    let body = timeout(SOON, short.unwrap().unwrap().into_body().collect()).await;
    assert_eq!(body.unwrap().unwrap().to_bytes(), "short");
    drop(held);
}
