//! gRPC that streams both ways: each message is answered before the next is sent, so that nothing may be held back.

use std::net::SocketAddr;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use capture::Netns;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

const MESSAGES: usize = 20;

/// A gRPC service in a pod that sends every message back; it ends when dropped.
pub(super) struct Echo {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn within<T: Send>(pod: &serde_json::Value, work: impl Future<Output = T> + Send) -> T {
    let netns = Netns::open(Path::new(pod["netns"].as_str().unwrap())).unwrap();
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(work)
    };
    netns.run(run).unwrap()
}

/// Serves at a port of a pod.
pub(super) fn serve(pod: &serde_json::Value, port: u16) -> Echo {
    let (stop, stopped) = oneshot::channel::<()>();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let pod = pod.clone();
    let serving = async move {
        let listener = TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port))
            .await
            .unwrap();
        ready.send(()).unwrap();
        let accepting = async {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream));
            }
        };
        tokio::select! {
            () = accepting => {}
            _ = stopped => {}
        }
    };
    let thread = std::thread::spawn(move || within(&pod, serving));
    is_ready.recv().unwrap();
    Echo {
        stop: Some(stop),
        thread: Some(thread),
    }
}

async fn echo(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let mut body = request.into_body();
            let head = Response::builder()
                .header("content-type", "application/grpc")
                .body(());
            let mut send = respond.send_response(head.unwrap(), false).unwrap();
            while let Some(Ok(bytes)) = body.data().await {
                let _ = body.flow_control().release_capacity(bytes.len());
                if send.send_data(bytes, false).is_err() {
                    return;
                }
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let _ = send.send_trailers(trailers);
        });
    }
}

/// Calls from within a pod: `streamed`, or what went wrong.
pub(super) fn call(pod: &serde_json::Value, to: SocketAddr) -> String {
    match within(pod, in_time(exchange(to))) {
        Ok(word) => word,
        Err(why) => why,
    }
}

/// Holds so many calls open at once, more than one connection of ours may carry, and has each answered: how many were.
pub(super) fn many(pod: &serde_json::Value, to: SocketAddr, count: usize) -> Result<usize, String> {
    within(pod, in_time(hold(to, count)))
}

async fn hold(to: SocketAddr, count: usize) -> Result<usize, String> {
    let said = |e: h2::Error| e.to_string();
    let stream = TcpStream::connect(to).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) = h2::client::Builder::new()
        .initial_max_send_streams(count)
        // What comes is read when all have been sent.
        .data_frame_budget(1 << 20)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(said)?;
    tokio::spawn(connection);
    let mut open = Vec::new();
    for _ in 0..count {
        sender = sender.ready().await.map_err(said)?;
        let request = Request::post(format!("http://{to}/echo.Echo/Stream"))
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let (response, mut send) = sender.send_request(request, false).map_err(said)?;
        send.send_data(Bytes::from_static(&[0, 0, 0, 0, 1, b'x']), false)
            .map_err(said)?;
        open.push((response, send));
    }
    let mut answered = Vec::new();
    for (response, send) in open {
        let mut body = response.await.map_err(said)?.into_body();
        body.data().await.ok_or("an early end")?.map_err(said)?;
        answered.push((body, send));
    }
    Ok(answered.len())
}

async fn in_time<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let limited = tokio::time::timeout(Duration::from_secs(20), work);
    limited.await.unwrap_or_else(|_| Err("timeout".to_owned()))
}

async fn exchange(to: SocketAddr) -> Result<String, String> {
    let said = |e: h2::Error| e.to_string();
    let stream = TcpStream::connect(to).await.map_err(|e| e.to_string())?;
    let (sender, connection) = h2::client::handshake(stream).await.map_err(said)?;
    tokio::spawn(connection);
    let mut sender = sender.ready().await.map_err(said)?;
    let request = Request::post(format!("http://{to}/echo.Echo/Stream"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut send) = sender.send_request(request, false).map_err(said)?;
    let message = |number: usize| {
        let text = format!("message {number}");
        let mut frame = BytesMut::from(&[0, 0, 0, 0][..]);
        frame.extend_from_slice(&[u8::try_from(text.len()).unwrap()]);
        frame.extend_from_slice(text.as_bytes());
        frame.freeze()
    };
    send.send_data(message(0), false).map_err(said)?;
    let response = response.await.map_err(said)?;
    if let Some(status) = response.headers().get("grpc-status") {
        return Err(format!("grpc-status {}", status.to_str().unwrap()));
    }
    let mut body = response.into_body();
    for number in 0..MESSAGES {
        let wanted = message(number);
        let mut got = BytesMut::new();
        while got.len() < wanted.len() {
            let part: Bytes = body.data().await.ok_or("an early end")?.map_err(said)?;
            let _ = body.flow_control().release_capacity(part.len());
            got.extend_from_slice(&part);
        }
        if got != wanted {
            return Err(format!("message {number} came back as {got:?}"));
        }
        if number + 1 < MESSAGES {
            send.send_data(message(number + 1), false).map_err(said)?;
        }
    }
    send.send_data(Bytes::new(), true).map_err(said)?;
    let trailers = body.trailers().await.map_err(said)?.ok_or("no trailers")?;
    match trailers.get("grpc-status").map(HeaderValue::as_bytes) {
        Some(b"0") => Ok("streamed".to_owned()),
        other => Err(format!("grpc-status {other:?}")),
    }
}
