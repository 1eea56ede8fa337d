//! The server of a steady load: it sends back what it gets, says who it is, and counts.
//!
//! `tally --http PORT --grpc PORT --tcp PORT`. The first answer of each request, stream or connection begins with a line
//! `POD KIND SERIAL`: serials of one pod and kind are 1, 2, 3 and so on, so that whoever has all answers can tell whether
//! anything came twice, or came and was not answered. After SIGTERM it serves on until nothing comes any more.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::Exit;
use crate::echo::{EchoRequest, EchoResponse, frame, unframe};
use crate::serve::{self, Body, full, websocket};

/// The header that says what kind of load a request is of.
pub(crate) const KIND: &str = "x-load-kind";
/// The longest body, line or message.
const LIMIT: usize = 1024 * 1024;
/// How long it serves on after SIGTERM at least, and at most.
const LINGER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// What it has counted.
struct Tally {
    pod: String,
    serials: Mutex<BTreeMap<String, u64>>,
    under_way: AtomicUsize,
}

struct UnderWay(Arc<Tally>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tally {
    /// Counts one more of a kind; the line that says so, and what is held until it is over.
    fn count(self: &Arc<Self>, kind: &str) -> (String, UnderWay) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let mut serials = self.serials.lock().unwrap_or_else(PoisonError::into_inner);
        let serial = serials.entry(kind.to_owned()).or_default();
        *serial += 1;
        (
            format!("{} {kind} {serial}\n", self.pod),
            UnderWay(Arc::clone(self)),
        )
    }
}

pub(crate) async fn run(args: &[String]) -> Result<i32, Exit> {
    let tally = Arc::new(Tally {
        // Another process of the same pod counts anew.
        pod: format!("{}.{}", crate::hostname(), nonce()),
        serials: Mutex::default(),
        under_way: AtomicUsize::new(0),
    });
    let mut tasks = tokio::task::JoinSet::new();
    for pair in args.chunks(2) {
        let [flag, port] = pair else {
            return Err(Exit::usage(
                "tally wants --http, --grpc and --tcp, each with a port",
            ));
        };
        let port: u16 = port
            .parse()
            .map_err(|_| Exit::usage(format!("`{port}` is not a port")))?;
        let listener = serve::listen(port).await?;
        let tally = Arc::clone(&tally);
        match flag.as_str() {
            "--http" | "--grpc" => drop(tasks.spawn(serve::accept_loop(listener, move |stream, _| {
                let tally = Arc::clone(&tally);
                serve::connection(stream, move |request| answer(request, Arc::clone(&tally)))
            }))),
            "--tcp" => drop(tasks.spawn(serve::accept_loop(listener, move |stream, peer| {
                tcp(stream, peer, Arc::clone(&tally))
            }))),
            other => return Err(Exit::usage(format!("`{other}` is not an option of tally"))),
        }
    }
    println!("ready");
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = term.recv() => {}
        Some(ended) = tasks.join_next() => if let Ok(Err(error)) = ended { return Err(error.into()) },
    }
    tokio::time::sleep(LINGER.0).await;
    let since = tokio::time::Instant::now();
    while tally.under_way.load(Ordering::Relaxed) > 0 && since.elapsed() < LINGER.1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(0)
}

fn nonce() -> u128 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap_or_default().as_millis()
}

async fn answer(mut request: Request<Incoming>, tally: Arc<Tally>) -> Response<Body> {
    let text = |name: &str| {
        let value = request.headers().get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let kind = match text(KIND) {
        kind if kind.is_empty() => "other".to_owned(),
        kind => kind,
    };
    let (line, under_way) = tally.count(&kind);
    if text("content-type").starts_with("application/grpc") {
        return grpc(request, line, under_way);
    }
    let key = text("sec-websocket-key");
    if !key.is_empty() {
        return upgraded(&mut request, &key, line, under_way);
    }
    let collected = Limited::new(request.into_body(), LIMIT).collect().await;
    let Ok(body) = collected.map(http_body_util::Collected::to_bytes) else {
        return status(400);
    };
    drop(under_way);
    Response::new(full([line.as_bytes(), &body].concat()))
}

fn status(code: u16) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response
}

/// Answers each message with its own, until the caller has sent its last: a unary call is a stream of one.
fn grpc(request: Request<Incoming>, line: String, under_way: UnderWay) -> Response<Body> {
    let (send, receive) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, std::convert::Infallible>>(1);
    tokio::spawn(async move {
        let _under_way = under_way;
        let mut line = Some(line);
        let mut held = BytesMut::new();
        let mut body = request.into_body();
        let mut code = 0_u16;
        while let Some(read) = body.frame().await {
            // Who breaks off gets no answer.
            let Ok(read) = read else { return };
            let Ok(data) = read.into_data() else { continue };
            held.extend_from_slice(&data);
            while let Some(message) = take(&mut held) {
                let Some(asked) = unframe::<EchoRequest>(&message) else {
                    code = 13;
                    break;
                };
                let message = line.take().unwrap_or_default() + &asked.message;
                let answer = Frame::data(frame(&EchoResponse { message }));
                if send.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
            if held.len() > LIMIT {
                code = 8;
                break;
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(code));
        let _ = send.send(Ok(Frame::trailers(trailers))).await;
    });
    let frames = futures_util::stream::unfold(receive, |mut receive| async move {
        let frame = receive.recv().await?;
        Some((frame, receive))
    });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    response
}

/// The next whole message, with its head.
pub(crate) fn take(held: &mut BytesMut) -> Option<Bytes> {
    let head: [u8; 5] = held.get(..5)?.try_into().ok()?;
    let [_, length @ ..] = head;
    let whole = usize::try_from(u32::from_be_bytes(length)).ok()?.checked_add(5)?;
    (held.len() >= whole).then(|| held.split_to(whole).freeze())
}

fn upgraded(request: &mut Request<Incoming>, key: &str, line: String, under_way: UnderWay) -> Response<Body> {
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let _under_way = under_way;
        if let Ok(io) = upgraded.await {
            let mut io = TokioIo::new(io);
            if websocket::write(&mut io, 0x81, line.as_bytes()).await.is_ok() {
                let _ = websocket::echo(io).await;
            }
        }
    });
    let mut response = status(101);
    let headers = response.headers_mut();
    headers.insert("upgrade", HeaderValue::from_static("websocket"));
    headers.insert("connection", HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::try_from(websocket::accept_key(key)) {
        headers.insert("sec-websocket-accept", accept);
    }
    response
}

async fn tcp(stream: TcpStream, _: SocketAddr, tally: Arc<Tally>) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut counted = None;
    loop {
        let mut line = Vec::new();
        let limit = u64::try_from(LIMIT).unwrap_or(u64::MAX);
        match (&mut read).take(limit).read_until(b'\n', &mut line).await {
            Ok(n) if n > 0 => {}
            _ => break,
        }
        let mut out = Vec::new();
        if counted.is_none() {
            let (first, under_way) = tally.count("tcp");
            out.extend_from_slice(first.as_bytes());
            counted = Some(under_way);
        }
        out.extend_from_slice(&line);
        if write.write_all(&out).await.is_err() {
            return;
        }
    }
    let _ = write.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole() {
        let one = frame(&EchoRequest {
            message: "one".to_owned(),
        });
        let mut held = BytesMut::new();
        for byte in &one[..one.len() - 1] {
            held.extend_from_slice(&[*byte]);
            assert_eq!(take(&mut held), None);
        }
        held.extend_from_slice(&one[one.len() - 1..]);
        held.extend_from_slice(&one);
        assert_eq!(take(&mut held), Some(one.clone()));
        assert_eq!(take(&mut held), Some(one));
        assert!(held.is_empty());
    }

    #[test]
    fn each_kind_has_serials_of_its_own() {
        let tally = Arc::new(Tally {
            pod: "p".to_owned(),
            serials: Mutex::default(),
            under_way: AtomicUsize::new(0),
        });
        let lines: Vec<_> = ["a", "a", "b"].map(|kind| tally.count(kind).0).into();
        assert_eq!(lines, ["p a 1\n", "p a 2\n", "p b 1\n"]);
        assert_eq!(tally.under_way.load(Ordering::Relaxed), 0);
    }
}
