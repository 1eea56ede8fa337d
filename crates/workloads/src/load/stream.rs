//! What lasts: streams of gRPC, WebSockets, TCP connections. What is felt is the longest that one message took.

use std::future::Future;
use std::time::Duration;

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::{Instant, sleep};

use super::http::with_source;
use super::tally::{KIND, take};
use super::{Felt, Kind, Load, PAUSE, connect, patient, same};
use crate::echo::{EchoRequest, EchoResponse, frame, unframe};

impl Load {
    pub(super) async fn grpc_stream(&self, number: u64) -> Felt {
        let host = &self.ask.grpc;
        let (send, receive) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, std::convert::Infallible>>(1);
        let frames = Box::pin(futures_util::stream::unfold(receive, |mut receive| async move {
            let frame = receive.recv().await?;
            Some((frame, receive))
        }));
        let opening = async {
            let io = TokioIo::new(connect(host).await?);
            let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .map_err(|error| with_source(&error))?;
            tokio::spawn(connection);
            let request = Request::post(format!("http://{host}/load/Stream"))
                .header(KIND, Kind::GrpcStream.as_str())
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(StreamBody::new(frames))
                .map_err(|error| error.to_string())?;
            let response = sender.send_request(request).await;
            response.map_err(|error| format!("no answer: {}", with_source(&error)))
        };
        let response = patient(opening).await?;
        let mut body = response.into_body();
        let mut held = BytesMut::new();
        let mut counted = false;
        let mut worst = Duration::ZERO;
        let until = Instant::now() + self.ask.stream;
        let mut message = 0_u32;
        while Instant::now() < until {
            let text = format!("{number}.{message}");
            message += 1;
            let begin = Instant::now();
            let framed = frame(&EchoRequest {
                message: text.clone(),
            });
            let exchange = async {
                send.send(Ok(Frame::data(framed)))
                    .await
                    .map_err(|_| "the stream takes no more messages".to_owned())?;
                loop {
                    if let Some(message) = take(&mut held) {
                        return unframe::<EchoResponse>(&message).ok_or_else(|| "no message".to_owned());
                    }
                    match body.frame().await {
                        Some(Ok(read)) => match read.into_data() {
                            Ok(data) => held.extend_from_slice(&data),
                            Err(_) => return Err("the stream ended early".to_owned()),
                        },
                        Some(Err(error)) => return Err(format!("the stream broke: {}", with_source(&error))),
                        None => return Err("the stream ended early".to_owned()),
                    }
                }
            };
            let answer = patient(exchange).await?.message;
            worst = worst.max(begin.elapsed());
            let rest = if counted {
                answer.as_str()
            } else {
                self.counted(Kind::GrpcStream, &answer)?
            };
            counted = true;
            same(&text, rest)?;
            sleep(PAUSE).await;
        }
        drop(send);
        let end = async {
            let rest = body
                .collect()
                .await
                .map_err(|error| format!("the end broke: {}", with_source(&error)))?;
            let status = rest
                .trailers()
                .and_then(|t| t.get("grpc-status")?.to_str().ok().map(str::to_owned));
            match status.as_deref() {
                Some("0") => Ok(()),
                other => Err(format!("grpc-status {other:?}")),
            }
        };
        patient(end).await?;
        Ok(worst)
    }

    pub(super) async fn websocket(&self, number: u64) -> Felt {
        let host = &self.ask.http;
        let opening = async {
            let io = TokioIo::new(connect(host).await?);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
                .await
                .map_err(|error| with_source(&error))?;
            tokio::spawn(connection.with_upgrades());
            let key = base64::engine::general_purpose::STANDARD.encode(u128::from(number).to_be_bytes());
            let request = Request::get("/load")
                .header("host", host)
                .header(KIND, Kind::WebSocket.as_str())
                .header("connection", "Upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", key)
                .body(Empty::<Bytes>::new())
                .map_err(|error| error.to_string())?;
            let response = sender.send_request(request).await;
            let response = response.map_err(|error| format!("no answer: {}", with_source(&error)))?;
            if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
                return Err(format!("status {}", response.status().as_u16()));
            }
            let upgraded = hyper::upgrade::on(response).await;
            upgraded.map_err(|error| format!("not upgraded: {}", with_source(&error)))
        };
        let mut io = TokioIo::new(patient(opening).await?);
        let broke = |error: std::io::Error| format!("the WebSocket broke: {error}");
        let greeting = patient(async { received(&mut io).await.map_err(broke) }).await?;
        self.counted(Kind::WebSocket, &greeting)?;
        let worst = self.messages(number, &mut Frames(&mut io)).await?;
        let end = async {
            write_masked(&mut io, 8, &[]).await.map_err(broke)?;
            let mut rest = Vec::new();
            io.read_to_end(&mut rest).await.map_err(broke)?;
            same(
                "\u{88}",
                &rest.iter().take(1).map(|b| char::from(*b)).collect::<String>(),
            )
        };
        patient(end).await?;
        Ok(worst)
    }

    pub(super) async fn tcp(&self, number: u64) -> Felt {
        let stream = patient(connect(&self.ask.tcp)).await?;
        let (read, mut write) = stream.into_split();
        let mut lines = Lines {
            read: BufReader::new(read),
            write: &mut write,
            greeting: None,
        };
        let worst = self.messages(number, &mut lines).await?;
        let mut read = lines.read;
        self.counted(Kind::Tcp, &lines.greeting.unwrap_or_default())?;
        let broke = |error: std::io::Error| format!("the connection broke: {error}");
        let end = async {
            write.shutdown().await.map_err(broke)?;
            let mut rest = String::new();
            read.read_to_string(&mut rest).await.map_err(broke)?;
            same("", &rest)
        };
        patient(end).await?;
        Ok(worst)
    }

    /// Exchanges messages for as long as a stream lasts; the longest that one took.
    async fn messages(&self, number: u64, with: &mut impl Exchange) -> Felt {
        let until = Instant::now() + self.ask.stream;
        let mut worst = Duration::ZERO;
        let mut message = 0_u32;
        while Instant::now() < until {
            let text = format!("{number}.{message}");
            message += 1;
            let begin = Instant::now();
            let answer = patient(with.exchange(&text)).await?;
            worst = worst.max(begin.elapsed());
            same(&text, &answer)?;
            sleep(PAUSE).await;
        }
        Ok(worst)
    }
}

/// The other end of a stream of texts.
trait Exchange: Send {
    /// Sends one and returns the one that comes back.
    fn exchange(&mut self, text: &str) -> impl Future<Output = Result<String, String>> + Send;
}

struct Frames<'a, IO>(&'a mut IO);

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> Exchange for Frames<'_, IO> {
    async fn exchange(&mut self, text: &str) -> Result<String, String> {
        let broke = |error: std::io::Error| format!("the WebSocket broke: {error}");
        write_masked(self.0, 1, text.as_bytes()).await.map_err(broke)?;
        received(self.0).await.map_err(broke)
    }
}

struct Lines<'a, R, W> {
    read: BufReader<R>,
    write: &'a mut W,
    /// What came before the first.
    greeting: Option<String>,
}

impl<R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Exchange for Lines<'_, R, W> {
    async fn exchange(&mut self, text: &str) -> Result<String, String> {
        let broke = |error: std::io::Error| format!("the connection broke: {error}");
        self.write
            .write_all(format!("{text}\n").as_bytes())
            .await
            .map_err(broke)?;
        let mut line = String::new();
        if self.greeting.is_none() {
            self.read.read_line(&mut line).await.map_err(broke)?;
            self.greeting = Some(std::mem::take(&mut line));
        }
        self.read.read_line(&mut line).await.map_err(broke)?;
        Ok(line.trim_end().to_owned())
    }
}

/// A text frame of a server.
async fn received<IO: AsyncRead + Unpin>(io: &mut IO) -> std::io::Result<String> {
    let first = io.read_u8().await?;
    let length = match io.read_u8().await? {
        126 => usize::from(io.read_u16().await?),
        short if short < 126 => usize::from(short),
        _ => return Err(std::io::Error::other("a frame that is too long, or masked")),
    };
    if first != 0x81 {
        return Err(std::io::Error::other(format!("not a text frame: {first:x}")));
    }
    let mut payload = vec![0; length];
    io.read_exact(&mut payload).await?;
    String::from_utf8(payload).map_err(std::io::Error::other)
}

/// A frame of a client, with a mask of zeros.
async fn write_masked<IO: AsyncWrite + Unpin>(
    io: &mut IO,
    opcode: u8,
    payload: &[u8],
) -> std::io::Result<()> {
    let length = u8::try_from(payload.len()).ok().filter(|n| *n < 126);
    let length = length.ok_or_else(|| std::io::Error::other("a message that is too long"))?;
    let mut out = vec![0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
    out.extend_from_slice(payload);
    io.write_all(&out).await
}
