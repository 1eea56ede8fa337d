//! HTTP/2 with others: our server and the client of hyper, our client and the server of `h2`, and both of ours.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use meshward_http::{
    Abort, Body, BodyEnd, Fault, Handler, HeaderMap, HeaderValue, Protocol, Request, Response, Sender,
    ServeOptions, StatusCode, Tap, Version, handshake, serve,
};
use tokio::io::DuplexStream;
use tokio::sync::Notify;

/// Answers by the path, and counts who waits.
#[derive(Default)]
struct Desk {
    waiting: AtomicUsize,
    left: Notify,
    come: Notify,
    faults: Mutex<Vec<Fault>>,
    to: Option<tokio::sync::Mutex<Sender>>,
}

struct Waits<'a>(&'a Desk);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.left.notify_one();
    }
}

/// Breaks a body off after its first bytes.
struct Breaks(bool);

impl Tap for Breaks {
    fn poll_stop(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        if self.0 {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    }

    fn data(&mut self, _: usize) {
        self.0 = true;
    }

    fn end(self: Box<Self>, _: BodyEnd) {}
}

impl Handler for Desk {
    async fn request(&self, request: Request) -> Result<Response, Abort> {
        if let Some(to) = &self.to {
            let mut sender = to.lock().await.share().ok_or(Abort)?;
            return sender.send(request).await.map_err(|_| Abort);
        }
        match request.uri().path() {
            "/wait" => {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                let _waits = Waits(self);
                self.come.notify_one();
                pending().await
            }
            "/abort" => Err(Abort),
            "/early" => {
                let mut response = Response::new(Body::from("enough"));
                *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
                Ok(response)
            }
            // Whatever is asked is what is answered, trailers and all.
            "/echo" => Ok(Response::new(request.into_body())),
            "/break" => Ok(Response::new(request.into_body().tapped(Breaks(false)))),
            "/nothing" => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                Ok(response)
            }
            _ => Ok(Response::new(Body::from("hello"))),
        }
    }

    fn refused(&self, fault: Fault) {
        self.faults.lock().unwrap().push(fault);
    }
}

fn start(desk: Desk) -> (DuplexStream, Arc<Desk>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let desk = Arc::new(desk);
    let options = ServeOptions::default();
    tokio::spawn(serve(far, Protocol::Http2, options, Arc::clone(&desk), pending()));
    (near, desk)
}

fn asked(method: &str, path: &str, body: Body) -> Request {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "a");
    request.body(body).unwrap()
}

async fn ours(desk: Desk) -> (Sender, Arc<Desk>) {
    let (near, desk) = start(desk);
    (handshake(near, Version::Http2).await.unwrap(), desk)
}

/// The client of the crate `h2`.
async fn theirs(near: DuplexStream) -> h2::client::SendRequest<Bytes> {
    let (sender, connection) = h2::client::handshake(near).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

fn uri(path: &str) -> http::Request<()> {
    let request = http::Request::builder()
        .method("POST")
        .uri(format!("http://a{path}"));
    request.body(()).unwrap()
}

#[tokio::test]
async fn bodies_and_trailers_go_both_ways_through_two_connections() {
    let (inner, _) = ours(Desk::default()).await;
    let desk = Desk {
        to: Some(tokio::sync::Mutex::new(inner)),
        ..Desk::default()
    };
    let (near, _desk) = start(desk);
    let mut sender = theirs(near).await;
    for size in [0, 1, 5000, 3_000_000] {
        let (response, mut send) = sender.send_request(uri("/echo"), false).unwrap();
        let sending = async {
            let mut left = Bytes::from(vec![7; size]);
            while !left.is_empty() {
                send.reserve_capacity(left.len());
                let room = poll_fn(|context| send.poll_capacity(context))
                    .await
                    .unwrap()
                    .unwrap();
                send.send_data(left.split_to(room.min(left.len())), false)
                    .unwrap();
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            send.send_trailers(trailers).unwrap();
        };
        let reading = async {
            let mut body = response.await.unwrap().into_body();
            let mut got = 0;
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                got += data.len();
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            (got, body.trailers().await.unwrap())
        };
        let ((), (got, trailers)) = tokio::join!(sending, reading);
        assert_eq!(got, size);
        assert_eq!(trailers.unwrap()["grpc-status"], "0", "{size}");
    }
}

#[tokio::test]
async fn an_answer_says_its_length_only_where_it_has_a_body() {
    let (mut sender, _desk) = ours(Desk::default()).await;
    for (method, path, length, body) in [
        ("GET", "/", Some("5"), "hello"),
        ("HEAD", "/", Some("5"), ""),
        ("GET", "/nothing", None, ""),
        ("GET", "/echo", None, ""),
    ] {
        let response = sender.send(asked(method, path, Body::empty())).await.unwrap();
        let told = response.headers().get("content-length").cloned();
        assert_eq!(
            told.as_ref().map(HeaderValue::as_bytes),
            length.map(str::as_bytes),
            "{method} {path}"
        );
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
    }
}

#[tokio::test]
async fn who_gives_up_stops_the_work() {
    let (mut sender, desk) = ours(Desk::default()).await;
    let waits = sender.send(asked("GET", "/wait", Body::empty()));
    let gives_up = async { desk.come.notified().await };
    tokio::select! {
        _ = waits => panic!("there is no answer"),
        () = gives_up => {}
    }
    desk.left.notified().await;
    assert_eq!(desk.waiting.load(Ordering::SeqCst), 0);
    // And who goes away altogether.
    let mut other = sender.share().unwrap();
    let waits = tokio::spawn(async move { other.send(asked("GET", "/wait", Body::empty())).await });
    desk.come.notified().await;
    waits.abort();
    drop(sender);
    desk.left.notified().await;
    assert_eq!(desk.waiting.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_breaks_off_never_looks_like_an_end() {
    let (near, _desk) = start(Desk::default());
    let mut sender = theirs(near).await;
    for (path, expect) in [
        ("/abort", h2::Reason::INTERNAL_ERROR),
        ("/break", h2::Reason::INTERNAL_ERROR),
    ] {
        let (response, mut send) = sender.send_request(uri(path), false).unwrap();
        send.send_data(Bytes::from_static(b"first"), false).unwrap();
        let reason = match response.await {
            Err(error) => error.reason(),
            Ok(response) => {
                let mut body = response.into_body();
                assert_eq!(body.data().await.unwrap().unwrap(), "first");
                body.data().await.unwrap().unwrap_err().reason()
            }
        };
        assert_eq!(reason, Some(expect), "{path}");
    }
    // What the client gives up is given up further on as well, by the same word.
    let (response, mut send) = sender.send_request(uri("/echo"), false).unwrap();
    send.send_data(Bytes::from_static(b"first"), false).unwrap();
    let mut body = response.await.unwrap().into_body();
    body.data().await.unwrap().unwrap();
    send.send_reset(h2::Reason::CANCEL);
    assert!(body.data().await.unwrap().is_err());
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_has_ended() {
    let (near, _desk) = start(Desk::default());
    let mut sender = theirs(near).await;
    let (response, mut send) = sender.send_request(uri("/early"), false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 413);
    let mut body = response.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "enough");
    assert!(body.data().await.is_none());
    // The rest is not wanted (RFC 9113, 8.1).
    let reset = poll_fn(|context| send.poll_reset(context)).await.unwrap();
    assert_eq!(reset, h2::Reason::NO_ERROR);
}

#[tokio::test]
async fn heads_with_too_much_are_refused_with_an_event() {
    let (near, desk) = start(Desk::default());
    let mut sender = theirs(near).await;
    let mut long = uri("/");
    long.headers_mut()
        .insert("a", "x".repeat(62_000).parse().unwrap());
    let mut many = uri("/");
    for nth in 0..105 {
        let name: meshward_http::HeaderName = format!("x-{nth}").parse().unwrap();
        many.headers_mut().insert(name, HeaderValue::from_static("y"));
    }
    for request in [long, many] {
        let (response, _) = sender.send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap().status(), 431);
    }
    assert_eq!(
        *desk.faults.lock().unwrap(),
        [Fault::HeadTooLong, Fault::TooManyFields]
    );
}

#[tokio::test]
async fn many_at_once_do_not_disturb_each_other() {
    let (sender, _desk) = ours(Desk::default()).await;
    let mut tasks = Vec::new();
    for nth in 0..300_usize {
        let mut sender = sender.share().unwrap();
        tasks.push(tokio::spawn(async move {
            let body = Bytes::from(vec![u8::try_from(nth % 251).unwrap(); nth * 97]);
            // More than the server takes at once wait for a place.
            let response = sender
                .send(asked("POST", "/echo", Body::from(body.clone())))
                .await
                .unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// A server of the crate `h2` that echoes bodies and trailers.
async fn echoes(io: DuplexStream) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut send = respond.send_response(http::Response::new(()), false).unwrap();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                send.send_data(data, false).unwrap();
            }
            match body.trailers().await.unwrap() {
                Some(trailers) => send.send_trailers(trailers).unwrap(),
                None => send.send_data(Bytes::new(), true).unwrap(),
            }
        });
    }
}

#[tokio::test]
async fn our_client_and_the_server_of_h2_understand_each_other() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(echoes(far));
    let sender = handshake(near, Version::Http2).await.unwrap();
    let mut tasks = Vec::new();
    for nth in 0..40_usize {
        let mut sender = sender.share().unwrap();
        tasks.push(tokio::spawn(async move {
            let body = Bytes::from(vec![u8::try_from(nth).unwrap(); nth * 20_000]);
            let mut request = asked("POST", "/x", Body::from(body.clone()));
            let value: HeaderValue = nth.to_string().parse().unwrap();
            request.headers_mut().insert("x-nth", value);
            let response = sender.send(request).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_not_waited_for() {
    let (near, far) = tokio::io::duplex(1024);
    let desk = Arc::new(Desk::default());
    let served = tokio::spawn(serve(
        far,
        Protocol::Http2,
        ServeOptions::default(),
        desk,
        pending(),
    ));
    tokio::time::sleep(meshward_http::limits::HEAD_TIMEOUT + Duration::from_secs(25)).await;
    assert!(served.is_finished());
    assert!(served.await.unwrap().is_err());
    drop(near);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_pings_is_gone_and_who_does_is_not() {
    for answers in [false, true] {
        let (near, desk) = start(Desk::default());
        let (sender, connection) = h2::client::handshake(near).await.unwrap();
        let mut sender = sender;
        let (_response, _) = sender.send_request(uri("/wait"), true).unwrap();
        let mut connection = Box::pin(connection);
        if answers {
            let driving = tokio::spawn(connection);
            tokio::time::sleep(Duration::from_secs(600)).await;
            assert_eq!(desk.waiting.load(Ordering::SeqCst), 1);
            driving.abort();
        } else {
            // Long enough to ask, and then nothing more is read.
            let _ = tokio::time::timeout(Duration::from_millis(10), connection.as_mut()).await;
            tokio::time::sleep(Duration::from_secs(300)).await;
            assert_eq!(desk.waiting.load(Ordering::SeqCst), 0);
        }
    }
}
