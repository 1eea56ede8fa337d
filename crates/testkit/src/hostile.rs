//! gRPC as nobody should speak it: messages that are cut short, are too long, lie about their length, or are other bytes
//! than they should be.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncWrite};

/// How long an answer may take, on a busy machine.
const ANSWER: Duration = Duration::from_secs(20);

/// What a message came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A status of gRPC; 0 where it was taken.
    Status(u32),
    /// Nothing, and nothing was to be expected: the client left first.
    Left,
    /// The stream was reset.
    Reset,
    /// The connection broke.
    Broken(String),
    /// Nothing came in time.
    Silence,
}

/// What is sent as the body of one request.
#[derive(Clone, Debug)]
struct Said {
    what: String,
    bytes: Bytes,
    /// Whether the stream is ended after it, or reset.
    ends: bool,
}

/// Sends bad variations of a good message to a method, each as a request of its own and on a connection of its own, and says
/// what came of each. `limit` is how long a message may be.
///
/// # Panics
/// There is no connection.
pub async fn speak<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    dial: impl AsyncFn() -> IO,
    path: &str,
    token: &str,
    good: &[u8],
    limit: usize,
) -> Vec<(String, Answer)> {
    let mut answers = Vec::new();
    for said in variations(good, limit) {
        let io = dial().await;
        let answer = tokio::time::timeout(ANSWER, ask(io, path, token, &said)).await;
        answers.push((said.what, answer.unwrap_or(Answer::Silence)));
    }
    answers
}

fn framed(flag: u8, length: usize, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.len() + 5);
    bytes.put_u8(flag);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

fn variations(good: &[u8], limit: usize) -> Vec<Said> {
    let mut all = Vec::new();
    let mut add = |what: &str, bytes: Bytes, ends: bool| {
        all.push(Said {
            what: what.to_owned(),
            bytes,
            ends,
        });
    };
    add("nothing", Bytes::new(), true);
    for cut in 1..5 {
        add("half a prefix", framed(0, good.len(), good).slice(..cut), true);
    }
    for cut in (0..good.len()).step_by((good.len() / 24).max(1)) {
        let part = good.get(..cut).unwrap_or_default();
        add(&format!("cut at {cut}"), framed(0, cut, part), true);
        add(&format!("ended at {cut}"), framed(0, good.len(), part), true);
        add(&format!("left at {cut}"), framed(0, good.len(), part), false);
        let mut other = good.to_vec();
        if let Some(byte) = other.get_mut(cut) {
            *byte ^= 0xff;
        }
        add(&format!("other at {cut}"), framed(0, other.len(), &other), true);
    }
    for length in [limit + 1, limit * 2, u32::MAX as usize] {
        add(&format!("says {length}"), framed(0, length, good), true);
    }
    for flag in [1, 2, 255] {
        add(&format!("flag {flag}"), framed(flag, good.len(), good), true);
    }
    // Lengths within that go beyond what there is, and nesting without end.
    for byte in [0x0a, 0x12, 0xff, 0x00, 0x0b] {
        let noise = vec![byte; 4096];
        add(
            &format!("{byte:#x} again and again"),
            framed(0, noise.len(), &noise),
            true,
        );
    }
    all
}

async fn ask<IO>(io: IO, path: &str, token: &str, said: &Said) -> Answer
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: h2::Error| match error.is_reset() {
        true => Answer::Reset,
        false => Answer::Broken(whole(&error)),
    };
    let (sender, connection) = match h2::client::handshake(io).await {
        Ok(both) => both,
        Err(error) => return broken(error),
    };
    let connection = tokio::spawn(connection);
    let answer = async {
        let mut sender = sender.ready().await?;
        let request = Request::post(format!("http://a{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .map_err(|_| Reason::INTERNAL_ERROR)?;
        let (response, mut body) = sender.send_request(request, false)?;
        body.send_data(said.bytes.clone(), said.ends)?;
        if !said.ends {
            // It has to leave before the reset does.
            tokio::time::sleep(Duration::from_millis(5)).await;
            body.send_reset(Reason::CANCEL);
            return Ok(Answer::Left);
        }
        let (head, body) = response.await?.into_parts();
        match status(&head.headers) {
            Some(status) => Ok(Answer::Status(status)),
            None => at_end(body).await,
        }
    };
    let answer: Result<Answer, h2::Error> = answer.await;
    connection.abort();
    answer.unwrap_or_else(broken)
}

/// What the trailers say. A server that waits for more of a stream says nothing: the first message counts as an answer.
async fn at_end(mut body: RecvStream) -> Result<Answer, h2::Error> {
    if let Some(data) = body.data().await {
        data?;
        return Ok(Answer::Status(0));
    }
    let trailers = body.trailers().await?;
    Ok(trailers
        .and_then(|t| status(&t))
        .map_or(Answer::Reset, Answer::Status))
}

fn status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}
