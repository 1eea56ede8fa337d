//! A client that says what no client should, as fast as it can.
//!
//! `garbage --to HOST:PORT --for S [--seed N] [--udp]`: beginnings of TLS, HTTP/1, HTTP/2 and DNS with bytes that are other
//! than they should be, noise, floods, connections that are left half open or closed at once. It prints how many connections
//! were made, and how many bytes were sent and came back.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

use crate::Exit;

/// Connections at once.
const AT_ONCE: u64 = 8;
/// The most bytes of one connection.
const MOST: usize = 128 * 1024;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(50);

/// What connections begin with.
const BEGINNINGS: [&[u8]; 9] = [
    b"",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x16\x03\x01\xff\xff\x01\xff\xff\xff\x03\x03",
    b"GET / HTTP/1.1\r\nHost: a\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\xff\xff\xff\x01\x05\x00\x00\x00\x01",
    b"\x00\x1d\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c",
    b"\x05\x01\x00\r\n\r\n\x00",
];

/// xorshift64*: the same again for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap_or(1)).unwrap_or_default()
    }

    /// What is said by one connection.
    fn text(&mut self) -> Vec<u8> {
        let beginning = BEGINNINGS
            .get(self.below(BEGINNINGS.len()))
            .copied()
            .unwrap_or_default();
        let mut text = beginning.to_vec();
        let length = match self.below(4) {
            0 => 0,
            1 => self.below(64),
            2 => self.below(4096),
            _ => self.below(MOST),
        };
        // Noise, one byte again and again, or the beginning again and again.
        let (kind, byte) = (self.below(3), self.below(256));
        while text.len() < length {
            match kind {
                0 => text.extend_from_slice(&self.next().to_ne_bytes()),
                1 => text.push(u8::try_from(byte).unwrap_or_default()),
                _ if beginning.is_empty() => text.push(b'\n'),
                _ => text.extend_from_slice(beginning),
            }
        }
        // And some of it other than it was.
        for _ in 0..self.below(4) {
            let (at, with) = (self.below(text.len()), self.below(256));
            if let Some(place) = text.get_mut(at) {
                *place = u8::try_from(with).unwrap_or_default();
            }
        }
        text
    }
}

#[derive(Clone, Debug, Default)]
struct Ask {
    to: String,
    lasts: Duration,
    seed: u64,
    udp: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Said {
    connections: u64,
    refused: u64,
    sent: u64,
    received: u64,
}

pub(crate) async fn run(args: &[String]) -> Result<i32, Exit> {
    let ask = parse(args)?;
    let until = Instant::now() + ask.lasts;
    let mut running = tokio::task::JoinSet::new();
    for number in 0..AT_ONCE {
        let ask = ask.clone();
        let random = Random(ask.seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (number + 1));
        running.spawn(async move {
            if ask.udp {
                udp(&ask, random, until).await
            } else {
                tcp(&ask, random, until).await
            }
        });
    }
    let mut all = Said::default();
    while let Some(Ok(said)) = running.join_next().await {
        all.connections += said.connections;
        all.refused += said.refused;
        all.sent += said.sent;
        all.received += said.received;
    }
    let Said {
        connections,
        refused,
        sent,
        received,
    } = all;
    println!(
        "{}",
        json!({ "connections": connections, "refused": refused, "sent": sent, "received": received })
    );
    Ok(0)
}

fn parse(args: &[String]) -> Result<Ask, Exit> {
    let mut ask = Ask {
        lasts: Duration::from_secs(2),
        ..Ask::default()
    };
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if word == "--udp" {
            ask.udp = true;
            continue;
        }
        let value = words
            .next()
            .ok_or_else(|| Exit::usage(format!("{word} wants a value")))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| Exit::usage(format!("`{value}` is not a number")))
        };
        match word.as_str() {
            "--to" => ask.to.clone_from(value),
            "--for" => ask.lasts = Duration::from_secs(number()?),
            "--seed" => ask.seed = number()?,
            other => return Err(Exit::usage(format!("`{other}` is not an option of garbage"))),
        }
    }
    if ask.to.is_empty() {
        return Err(Exit::usage("garbage wants --to HOST:PORT"));
    }
    Ok(ask)
}

async fn tcp(ask: &Ask, mut random: Random, until: Instant) -> Said {
    let mut said = Said::default();
    // Left open for a while, one after the other.
    let mut left: VecDeque<TcpStream> = VecDeque::new();
    while Instant::now() < until {
        let Ok(Ok(mut stream)) = timeout(Duration::from_secs(2), TcpStream::connect(&ask.to)).await else {
            said.refused += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        said.connections += 1;
        let text = random.text();
        let cut = random.below(text.len() + 1);
        for part in [text.get(..cut), text.get(cut..)].into_iter().flatten() {
            // Who is not read from does not wait for ever.
            match timeout(PATIENCE, stream.write_all(part)).await {
                Ok(Ok(())) => said.sent += u64::try_from(part.len()).unwrap_or_default(),
                _ => break,
            }
        }
        let mut answer = [0; 4096];
        match random.below(4) {
            0 => {}
            1 => {
                left.push_back(stream);
                if left.len() > 16 {
                    left.pop_front();
                }
            }
            half => {
                if half == 2 {
                    let _ = stream.shutdown().await;
                }
                if let Ok(Ok(read)) = timeout(PATIENCE, stream.read(&mut answer)).await {
                    said.received += u64::try_from(read).unwrap_or_default();
                }
            }
        }
    }
    said
}

async fn udp(ask: &Ask, mut random: Random, until: Instant) -> Said {
    let mut said = Said::default();
    let Ok(socket) = UdpSocket::bind("0.0.0.0:0").await else {
        return said;
    };
    if socket.connect(&ask.to).await.is_err() {
        said.refused = 1;
        return said;
    }
    let mut answer = [0; 4096];
    while Instant::now() < until {
        let mut text = random.text();
        text.truncate(1400);
        if socket.send(&text).await.is_ok() {
            said.connections += 1;
            said.sent += u64::try_from(text.len()).unwrap_or_default();
        }
        if let Ok(Ok(read)) = timeout(Duration::from_millis(2), socket.recv(&mut answer)).await {
            said.received += u64::try_from(read).unwrap_or_default();
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_a_bound_and_come_again_for_a_seed() {
        let mut texts: Vec<Vec<u8>> = Vec::new();
        for _ in 0..2 {
            let mut random = Random(7);
            texts.extend((0..200).map(|_| random.text()));
        }
        assert_eq!(texts[..200], texts[200..]);
        assert!(texts.iter().all(|text| text.len() < MOST + 128));
        assert!(texts.iter().any(|text| text.len() > MOST / 4));
    }
}
