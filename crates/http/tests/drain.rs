//! Servers that go away under load: no request is lost, and none is done twice.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt;
use meshward_http::{
    Abort, Body, Fault, Handler, Protocol, Request, Response, Sender, ServeOptions, Unsent, Version,
    handshake, serve,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How often a server goes away.
const ROUNDS: u64 = 60;
/// Requests at once.
const AT_ONCE: u64 = 8;

/// Counts how often each request was looked at.
#[derive(Default)]
struct Counting(Mutex<BTreeMap<String, u32>>);

impl Handler for Counting {
    async fn request(&self, request: Request) -> Result<Response, Abort> {
        let path = request.uri().path().to_owned();
        *self.0.lock().unwrap().entry(path).or_default() += 1;
        let body = request.into_body().collect().await.map_err(|_| Abort)?;
        Ok(Response::new(Body::from(body.to_bytes())))
    }

    fn refused(&self, _: Fault) {}
}

/// A place that is always listened at, by one server after another.
struct Place {
    listener: TcpListener,
    handler: Arc<Counting>,
    /// Goes up when the one that serves is to leave.
    turn: watch::Sender<u64>,
}

impl Place {
    async fn new() -> Arc<Self> {
        Arc::new(Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            handler: Arc::default(),
            turn: watch::Sender::new(0),
        })
    }

    async fn serve(self: Arc<Self>, protocol: Protocol) {
        loop {
            let (stream, _) = self.listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut turn = self.turn.subscribe();
            let drain = async move {
                let _ = turn.changed().await;
            };
            let options = ServeOptions::default();
            tokio::spawn(serve(stream, protocol, options, Arc::clone(&self.handler), drain));
        }
    }

    async fn connect(&self, version: Version) -> Sender {
        let stream = TcpStream::connect(self.listener.local_addr().unwrap())
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        handshake(stream, version).await.unwrap()
    }
}

/// Every other one has a body.
fn body(number: u64) -> String {
    match number % 2 {
        0 => String::new(),
        _ => format!("body of {number}"),
    }
}

fn request(number: u64) -> Request {
    let request = http::Request::post(format!("/{number}")).header("host", "a");
    request.body(Body::from(body(number))).unwrap()
}

/// The connection that all callers share.
struct Shared {
    place: Arc<Place>,
    sender: tokio::sync::Mutex<Option<Sender>>,
    again: AtomicU64,
}

impl Shared {
    async fn sender(&self) -> Sender {
        let mut kept = self.sender.lock().await;
        if let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
            return sender.share().unwrap();
        }
        let sender = self.place.connect(Version::Http2).await;
        kept.insert(sender).share().unwrap()
    }

    async fn ask(&self, number: u64) -> Result<(), String> {
        let mut request = request(number);
        loop {
            let mut sender = self.sender().await;
            match sender.send(request).await {
                Ok(response) => {
                    let answer = response.into_body().collect().await;
                    let answer = answer.map_err(|error| format!("the answer broke off: {error}"))?;
                    assert_eq!(answer.to_bytes(), body(number));
                    return Ok(());
                }
                Err(Unsent {
                    request: Some(again), ..
                }) => {
                    self.again.fetch_add(1, Ordering::Relaxed);
                    request = *again;
                    *self.sender.lock().await = None;
                }
                Err(Unsent { error, .. }) => return Err(format!("{error:?}")),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_over_http2_is_lost_or_done_twice_when_servers_go_away() {
    let place = Place::new().await;
    let serving = tokio::spawn(Arc::clone(&place).serve(Protocol::Http2));
    let shared = Arc::new(Shared {
        place: Arc::clone(&place),
        sender: tokio::sync::Mutex::default(),
        again: AtomicU64::new(0),
    });
    let over = watch::Sender::new(false);
    let callers: Vec<_> = (0..AT_ONCE)
        .map(|caller| {
            let (shared, over) = (Arc::clone(&shared), over.subscribe());
            tokio::spawn(async move {
                let (mut sent, mut lost) = (0, Vec::new());
                while !*over.borrow() {
                    let number = caller + sent * AT_ONCE;
                    sent += 1;
                    lost.extend(shared.ask(number).await.err());
                }
                (sent, lost)
            })
        })
        .collect();
    for round in 0..ROUNDS {
        tokio::time::sleep(Duration::from_millis(2 + round % 7)).await;
        place.turn.send_modify(|turn| *turn += 1);
    }
    over.send_replace(true);
    let (mut sent, mut lost) = (0, Vec::new());
    for caller in callers {
        let (own, failed) = caller.await.unwrap();
        sent += own;
        lost.extend(failed);
    }
    serving.abort();
    let again = shared.again.load(Ordering::Relaxed);
    println!("{sent} requests, {again} sent again, {} lost", lost.len());
    assert!(
        lost.is_empty(),
        "{} of {sent} lost: {:#?}",
        lost.len(),
        lost.first()
    );
    let looked_at = place.handler.0.lock().unwrap();
    let twice: Vec<_> = looked_at.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty() && looked_at.len() as u64 == sent, "{twice:?}");
}
