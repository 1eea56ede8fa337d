//! A steady load, counted at both ends.
//!
//! `traffic serve HTTP-PORT TCP-PORT` answers what it is sent: HTTP/1.1 and HTTP/2 on one port, lines on the other; `GET
//! /counts` tells how many of each there were.
//! `traffic call --http HOST:PORT --tcp HOST:PORT --for SECONDS [--every MILLISECONDS]` sends one request after the other in
//! six ways: HTTP/1.1, HTTP/2 and lines, each over a connection that is kept and over a new one each time. It ends with one
//! JSON object: for each way how many were sent and answered as they should be, and why others were not. Nothing is tried
//! again; a connection that is kept and breaks is a failure, and the next request makes a new one.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::serve::{self, Body, full};
use crate::{Exit, hostname};

/// How long one request may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many reasons of failures are kept of each way.
const REASONS: usize = 10;
/// The largest body and the longest line.
const BODY: usize = 64 * 1024;

pub(crate) async fn run(args: &[String]) -> Result<i32, Exit> {
    match args.split_first().map(|(word, rest)| (word.as_str(), rest)) {
        Some(("serve", [http, tcp])) => serve(port(http)?, port(tcp)?).await,
        Some(("call", rest)) => call(rest).await,
        _ => Err(Exit::usage(
            "traffic wants `serve HTTP-PORT TCP-PORT` or `call --http A --tcp A --for SECONDS`",
        )),
    }
}

fn port(text: &str) -> Result<u16, Exit> {
    text.parse()
        .map_err(|_| Exit::usage(format!("`{text}` is not a port")))
}

#[derive(Debug, Default)]
struct Counts {
    http1: AtomicU64,
    http2: AtomicU64,
    tcp: AtomicU64,
}

async fn serve(http: u16, tcp: u16) -> Result<i32, Exit> {
    let counts = Arc::new(Counts::default());
    let (web, lines) = (serve::listen(http).await?, serve::listen(tcp).await?);
    println!("listening on ports {http} and {tcp}");
    let counting = Arc::clone(&counts);
    let web = serve::accept_loop(web, move |stream, _| {
        let counts = Arc::clone(&counting);
        serve::connection(stream, move |request| answer(request, Arc::clone(&counts)))
    });
    let lines = serve::accept_loop(lines, move |stream, _| echo(stream, Arc::clone(&counts)));
    tokio::try_join!(web, lines)?;
    Ok(0)
}

async fn answer(request: Request<Incoming>, counts: Arc<Counts>) -> Response<Body> {
    if request.uri().path() == "/counts" {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let told = json!({ "http1": of(&counts.http1), "http2": of(&counts.http2), "tcp": of(&counts.tcp) });
        return Response::new(full(told.to_string()));
    }
    let count = match request.version() {
        Version::HTTP_2 => &counts.http2,
        _ => &counts.http1,
    };
    match Limited::new(request.into_body(), BODY).collect().await {
        Ok(body) => {
            count.fetch_add(1, Ordering::Relaxed);
            Response::new(full(body.to_bytes()))
        }
        Err(_) => {
            let mut response = Response::new(full("too large or broken off"));
            *response.status_mut() = http::StatusCode::BAD_REQUEST;
            response
        }
    }
}

async fn echo(stream: TcpStream, counts: Arc<Counts>) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    while let Some(line) = line(&mut read).await {
        counts.tcp.fetch_add(1, Ordering::Relaxed);
        if write.write_all(&line).await.is_err() {
            return;
        }
    }
}

/// The next line, its end included; `None` where there is none.
async fn line(read: &mut (impl AsyncBufReadExt + Unpin)) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let most = u64::try_from(BODY).unwrap_or(u64::MAX);
    match read.take(most).read_until(b'\n', &mut line).await {
        Ok(1..) if line.ends_with(b"\n") => Some(line),
        _ => None,
    }
}

/// What the caller is told.
#[derive(Clone, Debug)]
struct Load {
    http: String,
    tcp: String,
    until: Instant,
    every: Duration,
}

async fn call(args: &[String]) -> Result<i32, Exit> {
    let (mut http, mut tcp, mut seconds, mut every) = (String::new(), String::new(), 0, 20);
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let value = words
            .next()
            .ok_or_else(|| Exit::usage(format!("{word} wants a value")))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| Exit::usage(format!("`{value}` is not a number")))
        };
        match word.as_str() {
            "--http" => http.clone_from(value),
            "--tcp" => tcp.clone_from(value),
            "--for" => seconds = number()?,
            "--every" => every = number()?.max(1),
            other => return Err(Exit::usage(format!("`{other}` is not an option of traffic"))),
        }
    }
    let load = Load {
        http,
        tcp,
        until: Instant::now() + Duration::from_secs(seconds),
        every: Duration::from_millis(every),
    };
    let (a, b, c, d, e, f) = tokio::join!(
        steadily::<Http1>(&load, "http1-kept", true),
        steadily::<Http1>(&load, "http1-new", false),
        steadily::<Http2>(&load, "http2-kept", true),
        steadily::<Http2>(&load, "http2-new", false),
        steadily::<Lines>(&load, "tcp-kept", true),
        steadily::<Lines>(&load, "tcp-new", false),
    );
    let all: Map<String, Value> = [a, b, c, d, e, f].into_iter().collect();
    println!("{}", Value::Object(all));
    Ok(0)
}

/// A way to call.
trait Way: Sized {
    fn connect(load: &Load) -> impl Future<Output = Result<Self, String>>;
    /// Sends a text and returns what comes back.
    fn exchange(&mut self, load: &Load, text: &str) -> impl Future<Output = Result<Bytes, String>>;
}

/// One request after the other, in time with the clock.
async fn steadily<W: Way>(load: &Load, name: &str, keep: bool) -> (String, Value) {
    let mut ticks = interval(load.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut sent, mut good, mut why): (u64, u64, Vec<String>) = (0, 0, Vec::new());
    let mut kept: Option<W> = None;
    let from = hostname();
    let begin = Instant::now();
    while Instant::now() < load.until {
        ticks.tick().await;
        sent += 1;
        let text = format!("{from} {name} {sent}\n");
        let exchanging = async {
            let mut way = match kept.take() {
                Some(way) => way,
                None => W::connect(load).await?,
            };
            let back = way.exchange(load, &text).await?;
            if back != text.as_bytes() {
                return Err(format!("another answer: {}", String::from_utf8_lossy(&back)));
            }
            Ok(way)
        };
        let outcome = timeout(PATIENCE, exchanging).await;
        match outcome.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(way) => {
                good += 1;
                kept = keep.then_some(way);
            }
            Err(error) if why.len() < REASONS => {
                why.push(format!(
                    "#{sent} at {:.2}s: {error}",
                    begin.elapsed().as_secs_f64()
                ));
            }
            Err(_) => {}
        }
    }
    let counted = json!({ "sent": sent, "good": good, "why": why });
    (name.to_owned(), counted)
}

async fn dial(address: &str) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| format!("connect: {error}"))?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn read(response: Response<Incoming>) -> Result<Bytes, String> {
    let status = response.status();
    let body = Limited::new(response.into_body(), BODY);
    let body = body
        .collect()
        .await
        .map_err(|error| format!("body: {error}"))?
        .to_bytes();
    match status {
        http::StatusCode::OK => Ok(body),
        other => Err(format!("{other}: {}", String::from_utf8_lossy(&body))),
    }
}

fn request(load: &Load, uri: String, text: &str) -> Result<Request<Full<Bytes>>, String> {
    Request::post(uri)
        .header(http::header::HOST, &load.http)
        .body(Full::new(Bytes::copy_from_slice(text.as_bytes())))
        .map_err(|error| error.to_string())
}

struct Http1(http1::SendRequest<Full<Bytes>>);

impl Way for Http1 {
    async fn connect(load: &Load) -> Result<Self, String> {
        let io = TokioIo::new(dial(&load.http).await?);
        let (send, connection) = http1::handshake(io).await.map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        Ok(Self(send))
    }

    async fn exchange(&mut self, load: &Load, text: &str) -> Result<Bytes, String> {
        self.0
            .ready()
            .await
            .map_err(|e| format!("kept connection: {e}"))?;
        let request = request(load, "/".to_owned(), text)?;
        read(self.0.send_request(request).await.map_err(|e| e.to_string())?).await
    }
}

struct Http2(http2::SendRequest<Full<Bytes>>);

impl Way for Http2 {
    async fn connect(load: &Load) -> Result<Self, String> {
        let io = TokioIo::new(dial(&load.http).await?);
        let (send, connection) = http2::handshake(TokioExecutor::new(), io)
            .await
            .map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        Ok(Self(send))
    }

    async fn exchange(&mut self, load: &Load, text: &str) -> Result<Bytes, String> {
        self.0
            .ready()
            .await
            .map_err(|e| format!("kept connection: {e}"))?;
        let mut request = request(load, format!("http://{}/", load.http), text)?;
        // `:authority` says it.
        request.headers_mut().remove(http::header::HOST);
        read(self.0.send_request(request).await.map_err(|e| e.to_string())?).await
    }
}

struct Lines(BufReader<TcpStream>);

impl Way for Lines {
    async fn connect(load: &Load) -> Result<Self, String> {
        Ok(Self(BufReader::new(dial(&load.tcp).await?)))
    }

    async fn exchange(&mut self, _load: &Load, text: &str) -> Result<Bytes, String> {
        let sent = self.0.get_mut().write_all(text.as_bytes()).await;
        sent.map_err(|error| format!("write: {error}"))?;
        let back = line(&mut self.0).await.ok_or("closed, or no line")?;
        Ok(Bytes::from(back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_is_counted_at_both_ends() {
        let counts = Arc::new(Counts::default());
        let listen = || async { tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap() };
        let (web, lines) = (listen().await, listen().await);
        let address = |l: &tokio::net::TcpListener| l.local_addr().unwrap().to_string();
        let mut load = Load {
            http: address(&web),
            tcp: address(&lines),
            until: Instant::now() + Duration::from_millis(300),
            every: Duration::from_millis(10),
        };
        let counting = Arc::clone(&counts);
        tokio::spawn(serve::accept_loop(web, move |stream, _| {
            let counts = Arc::clone(&counting);
            serve::connection(stream, move |request| answer(request, Arc::clone(&counts)))
        }));
        let counting = Arc::clone(&counts);
        tokio::spawn(serve::accept_loop(lines, move |stream, _| {
            echo(stream, Arc::clone(&counting))
        }));
        let (a, b, c) = tokio::join!(
            steadily::<Http1>(&load, "a", true),
            steadily::<Http2>(&load, "b", false),
            steadily::<Lines>(&load, "c", true)
        );
        for ((_, counted), count) in [a, b, c].iter().zip([&counts.http1, &counts.http2, &counts.tcp]) {
            assert_eq!(counted["sent"], counted["good"], "{counted}");
            assert_eq!(counted["good"], count.load(Ordering::Relaxed));
            assert!(counted["sent"].as_u64().unwrap() > 3, "{counted}");
        }
        // A failure is one, and is said.
        load.tcp = "127.0.0.1:1".to_owned();
        load.until = Instant::now() + Duration::from_millis(50);
        let (_, counted) = steadily::<Lines>(&load, "d", true).await;
        assert_eq!(counted["good"], 0);
        assert!(
            counted["why"][0].as_str().unwrap().contains("refused"),
            "{counted}"
        );
    }
}
