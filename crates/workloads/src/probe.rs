//! A client that speaks from inside a pod and tells in one JSON object what came of it.
//!
//! `probe tcp|tls|udp --addr HOST:PORT [--send TEXT] [--read-first] [--half-close] [--wait SECONDS] [--sni NAME] [--alpn A,B]`,
//! `probe grpc --addr HOST:PORT [--authority NAME] [--header K=V]...` and `probe raw --addr ADDRESS --protocol N [--send TEXT]`,
//! which sends one packet of that IP protocol. In `--send`, `\r`, `\n` and `\0` stand for what they do in C. With `--uid N` and `--gid N` all of it is
//! done by another user, with `--mark N` by a socket that has the mark.
//! The outcome is one of `echoed`, `closed`, `reset`, `no-answer`, `refused`, `unreachable`, `dns`, `http-NNN`, `data+...`,
//! `sent`, `not-permitted`, `tls:WHY`, a gRPC status word, or `no-banner, then ...` where a banner was waited for in vain.

mod grpc;
mod raw;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::Exit;

/// How much of an answer is kept.
const KEEP: usize = 64 * 1024;

#[derive(Debug, Default)]
struct Ask {
    addr: String,
    /// Only an IPv4 address of the name counts.
    ipv4: bool,
    send: Option<String>,
    read_first: bool,
    half_close: bool,
    wait: Duration,
    sni: Option<String>,
    alpn: Vec<String>,
    authority: Option<String>,
    headers: Vec<(String, String)>,
    uid: Option<u32>,
    gid: Option<u32>,
    mark: Option<u32>,
    protocol: u8,
}

/// What came of it.
#[derive(Debug, Default)]
struct Outcome {
    word: String,
    data: Vec<u8>,
}

impl Outcome {
    fn word(word: impl Into<String>) -> Self {
        Self {
            word: word.into(),
            data: Vec::new(),
        }
    }
}

pub(crate) async fn run(args: &[String]) -> Result<i32, Exit> {
    let Some((tool, rest)) = args.split_first() else {
        return Err(Exit::usage("probe wants tcp, tls, udp, grpc or raw"));
    };
    let ask = parse(rest)?;
    become_user(&ask)?;
    let outcome = match tool.as_str() {
        "tcp" => tcp(&ask).await,
        "tls" => tls::probe(&ask).await,
        "udp" => udp(&ask).await,
        "grpc" => grpc::probe(&ask).await,
        "raw" => raw::probe(&ask),
        other => {
            return Err(Exit::usage(format!(
                "`{other}` is not a probe: tcp, tls, udp, grpc or raw"
            )));
        }
    };
    println!(
        "{}",
        json!({ "outcome": outcome.word, "data": String::from_utf8_lossy(&outcome.data) })
    );
    Ok(0)
}

fn parse(args: &[String]) -> Result<Ask, Exit> {
    let mut ask = Ask {
        wait: Duration::from_secs(3),
        ..Ask::default()
    };
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .cloned()
                .ok_or_else(|| Exit::usage(format!("{word} wants a value")))
        };
        match word.as_str() {
            "--addr" => ask.addr = value()?,
            "--send" => ask.send = Some(unescaped(&value()?)),
            "--uid" => ask.uid = Some(number(word, &value()?)?),
            "--gid" => ask.gid = Some(number(word, &value()?)?),
            "--mark" => ask.mark = Some(number(word, &value()?)?),
            "--protocol" => ask.protocol = number(word, &value()?)?,
            "--ipv4" => ask.ipv4 = true,
            "--read-first" => ask.read_first = true,
            "--half-close" => ask.half_close = true,
            "--wait" => {
                let seconds = value()?;
                let parsed = seconds
                    .parse::<f64>()
                    .ok()
                    .and_then(|s| Duration::try_from_secs_f64(s).ok());
                ask.wait =
                    parsed.ok_or_else(|| Exit::usage(format!("`{seconds}` is not a number of seconds")))?;
            }
            "--sni" => ask.sni = Some(value()?),
            "--alpn" => ask.alpn = value()?.split(',').map(str::to_owned).collect(),
            "--authority" => ask.authority = Some(value()?),
            "--header" => {
                let pair = value()?;
                let (k, v) = pair
                    .split_once('=')
                    .ok_or_else(|| Exit::usage(format!("`{pair}` is not K=V")))?;
                ask.headers.push((k.to_owned(), v.to_owned()));
            }
            other => return Err(Exit::usage(format!("`{other}` is not an option of probe"))),
        }
    }
    if ask.addr.is_empty() {
        return Err(Exit::usage("probe wants --addr HOST:PORT"));
    }
    Ok(ask)
}

fn number<N: std::str::FromStr>(option: &str, text: &str) -> Result<N, Exit> {
    text.parse()
        .map_err(|_| Exit::usage(format!("{option}: `{text}` is not such a number")))
}

/// `\r`, `\n`, `\0` and `\\`; any other backslash stands for itself.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = match chars.peek() {
            Some('r') if c == '\\' => Some('\r'),
            Some('n') if c == '\\' => Some('\n'),
            Some('0') if c == '\\' => Some('\0'),
            Some('\\') if c == '\\' => Some('\\'),
            _ => None,
        };
        out.push(escaped.unwrap_or(c));
        if escaped.is_some() {
            chars.next();
        }
    }
    out
}

/// Changes user and group of this process, which has one thread.
fn become_user(ask: &Ask) -> Result<(), Exit> {
    let failed = |error: nix::Error| Exit::from(io::Error::from(error));
    if let Some(gid) = ask.gid {
        let gid = nix::unistd::Gid::from_raw(gid);
        nix::unistd::setresgid(gid, gid, gid).map_err(failed)?;
    }
    if let Some(uid) = ask.uid {
        let uid = nix::unistd::Uid::from_raw(uid);
        nix::unistd::setresuid(uid, uid, uid).map_err(failed)?;
    }
    Ok(())
}

/// Gives the socket the mark that was asked for.
fn mark(ask: &Ask, socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt::Mark};
    match ask.mark {
        Some(mark) => setsockopt(socket, Mark, &mark).map_err(io::Error::from),
        None => Ok(()),
    }
}

async fn connect(ask: &Ask) -> Result<TcpStream, Outcome> {
    let connecting = async {
        let all = tokio::net::lookup_host(&ask.addr).await?;
        let fit: Vec<_> = all.filter(|a| a.is_ipv4() || !ask.ipv4).collect();
        let mut last = io::Error::other("no address");
        for address in fit {
            let socket = if address.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            mark(ask, &socket)?;
            match socket.connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    match timeout(Duration::from_secs(10), connecting).await {
        Ok(Ok(stream)) => {
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) => Err(Outcome::word(failure(&error))),
        Err(_) => Err(Outcome::word("timeout")),
    }
}

/// The word for an error of the network.
fn failure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "unreachable",
        io::ErrorKind::TimedOut => "timeout",
        io::ErrorKind::UnexpectedEof => "closed",
        io::ErrorKind::PermissionDenied => "not-permitted",
        _ if error.raw_os_error().is_none() => "dns",
        _ => "error",
    }
}

async fn tcp(ask: &Ask) -> Outcome {
    match connect(ask).await {
        Ok(stream) => talk(stream, ask).await,
        Err(outcome) => outcome,
    }
}

/// The conversation: a banner if one is waited for, a text, its echo.
async fn talk<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO, ask: &Ask) -> Outcome {
    let mut prefix = "";
    if ask.read_first {
        let mut banner = vec![0; 256];
        match timeout(ask.wait, io.read(&mut banner)).await {
            Ok(Ok(0)) => return Outcome::word("closed"),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Outcome::word(failure(&error)),
            Err(_) => prefix = "no-banner, then ",
        }
    }
    let text = ask
        .send
        .clone()
        .unwrap_or_else(|| "hello from probe\n".to_owned());
    if let Err(error) = io.write_all(text.as_bytes()).await {
        return Outcome::word(format!("{prefix}{}", failure(&error)));
    }
    if ask.half_close {
        // Failing to close shows in what is read.
        let _ = io.shutdown().await;
    }
    let mut outcome = answer(&mut io, &text, ask.wait).await;
    outcome.word = format!("{prefix}{}", outcome.word);
    outcome
}

async fn answer<IO: AsyncRead + Unpin>(io: &mut IO, sent: &str, wait: Duration) -> Outcome {
    let mut data = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    let end = loop {
        match timeout(wait, io.read(&mut buffer)).await {
            Ok(Ok(0)) => break "closed",
            Ok(Ok(n)) => data.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Ok(Err(error)) => break failure(&error),
            Err(_) => break "no-answer",
        }
        if data.len() > KEEP || contains(&data, sent.as_bytes()) {
            break "";
        }
    };
    let status = data
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .map(|c| String::from_utf8_lossy(c).into_owned());
    let word = match (contains(&data, sent.as_bytes()), status, data.is_empty()) {
        (true, _, _) => "echoed".to_owned(),
        (false, Some(code), _) => format!("http-{code}"),
        (false, None, true) => end.to_owned(),
        (false, None, false) => format!("data+{end}"),
    };
    Outcome { word, data }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && haystack.windows(needle.len()).any(|w| w == needle)
}

async fn udp(ask: &Ask) -> Outcome {
    let Some(to) = tokio::net::lookup_host(&ask.addr)
        .await
        .ok()
        .and_then(|mut all| all.next())
    else {
        return Outcome::word("dns");
    };
    let local: SocketAddr = if to.is_ipv6() {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    };
    let text = ask
        .send
        .clone()
        .unwrap_or_else(|| "hello from probe\n".to_owned());
    let tried = async {
        let socket = UdpSocket::bind(local).await?;
        mark(ask, &socket)?;
        socket.connect(to).await?;
        socket.send(text.as_bytes()).await?;
        let mut buffer = vec![0; KEEP];
        let n = timeout(ask.wait, socket.recv(&mut buffer))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))??;
        buffer.truncate(n);
        Ok::<_, io::Error>(buffer)
    };
    match tried.await {
        Ok(data) if contains(&data, text.as_bytes()) => Outcome {
            word: "echoed".to_owned(),
            data,
        },
        Ok(data) => Outcome {
            word: "data".to_owned(),
            data,
        },
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Outcome::word("no-answer"),
        Err(error) => Outcome::word(failure(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn outcome_of(server: impl AsRef<[u8]>, close: bool) -> String {
        let (near, mut far) = tokio::io::duplex(4096);
        let bytes = server.as_ref().to_vec();
        let task = tokio::spawn(async move {
            let mut seen = [0; 64];
            let _ = far.read(&mut seen).await;
            far.write_all(&bytes).await.unwrap();
            if !close {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        });
        let ask = Ask {
            wait: Duration::from_millis(100),
            send: Some("abc".to_owned()),
            ..Ask::default()
        };
        let outcome = talk(near, &ask).await;
        task.abort();
        outcome.word
    }

    #[tokio::test]
    async fn words() {
        assert_eq!(outcome_of("xxabcxx", true).await, "echoed");
        assert_eq!(outcome_of("", true).await, "closed");
        assert_eq!(outcome_of("", false).await, "no-answer");
        assert_eq!(
            outcome_of("HTTP/1.1 400 Bad Request\r\n\r\n", true).await,
            "http-400"
        );
        assert_eq!(outcome_of("other", true).await, "data+closed");
    }
}
