//! A witness: tells each IP packet that this pod's link carries, one JSON object a line.
//!
//! `record [--seconds N]`, 600 where not said. It takes no part in what it sees, so it tells also of what no program of the
//! pod listens for. A line has `protocol` (IP's number), `source`, `destination`, `sourcePort`, `port` and `syn` where
//! there are ports, and `data`: what follows the headers, as text.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::Exit;

/// How much of what a packet carries is told.
const KEEP: usize = 4096;
/// How long it waits for a packet before it looks at the clock.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long it records where nothing is said.
const SECONDS: u64 = 600;

const TCP: u8 = 6;
const UDP: u8 = 17;

pub(crate) async fn run(args: &[String]) -> Result<i32, Exit> {
    let seconds = match args {
        [] => SECONDS,
        [option, value] if option == "--seconds" => value
            .parse()
            .map_err(|_| Exit::usage(format!("`{value}` is not a number of seconds")))?,
        _ => return Err(Exit::usage("record takes --seconds N and nothing else")),
    };
    let told = tokio::task::spawn_blocking(move || record(Duration::from_secs(seconds))).await;
    told.map_err(|error| Exit::from(io::Error::other(error)))??;
    Ok(0)
}

fn record(time: Duration) -> io::Result<()> {
    // ETH_P_ALL, in the order of the network.
    let every = i32::from(u16::try_from(nix::libc::ETH_P_ALL).unwrap_or(3).to_be());
    let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(every)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut out = io::stdout();
    writeln!(out, "{}", json!({ "recording": true }))?;
    let end = Instant::now() + time;
    let mut buffer = vec![0; 128 * 1024];
    while Instant::now() < end {
        match socket.read(&mut buffer) {
            Ok(length) => {
                let frame = buffer.get(..length).unwrap_or_default();
                if let Some(told) = packet(frame) {
                    writeln!(out, "{told}")?;
                }
            }
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// What is told of a frame; nothing where it is no IP.
fn packet(frame: &[u8]) -> Option<Value> {
    let (kind, bytes) = (frame.get(12..14)?, frame.get(14..)?);
    let (protocol, source, destination, rest) = match kind {
        [0x08, 0x00] => {
            let header = usize::from(bytes.first()? & 0xf) * 4;
            let whole = usize::from(word(bytes, 2)?);
            let at = |from: usize| Some(IpAddr::from(Ipv4Addr::from(word4(bytes, from)?)));
            // Beyond the packet's own length there is padding; a length of 0 is one that the kernel did not write.
            let rest = bytes.get(header..if whole == 0 { bytes.len() } else { whole })?;
            (*bytes.get(9)?, at(12)?, at(16)?, rest)
        }
        [0x86, 0xdd] => {
            let at = |from: usize| {
                let octets: [u8; 16] = bytes.get(from..from + 16)?.try_into().ok()?;
                Some(IpAddr::from(Ipv6Addr::from(octets)))
            };
            (*bytes.get(6)?, at(8)?, at(24)?, bytes.get(40..)?)
        }
        _ => return None,
    };
    let mut told = json!({
        "protocol": protocol,
        "source": source.to_string(),
        "destination": destination.to_string(),
    });
    let data = match protocol {
        TCP => {
            let header = usize::from(rest.get(12)? >> 4) * 4;
            let flags = rest.get(13)?;
            // SYN and not ACK: somebody opens a connection.
            put(&mut told, "syn", json!(flags & 0x12 == 0x02));
            rest.get(header..)
        }
        UDP => rest.get(8..),
        _ => Some(rest),
    };
    if matches!(protocol, TCP | UDP) {
        put(&mut told, "sourcePort", json!(word(rest, 0)?));
        put(&mut told, "port", json!(word(rest, 2)?));
    }
    let data = data.unwrap_or_default();
    let kept = data.get(..data.len().min(KEEP)).unwrap_or_default();
    put(&mut told, "data", json!(String::from_utf8_lossy(kept)));
    Some(told)
}

fn put(told: &mut Value, name: &str, value: Value) {
    if let Value::Object(map) = told {
        map.insert(name.to_owned(), value);
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word4(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..at + 4)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Ethernet frame of that type around a packet.
    fn frame(kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [&[0; 12], &kind[..], packet].concat()
    }

    fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0];
        header.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame([8, 0], &[&header[..], payload, b"padding"].concat())
    }

    #[test]
    fn a_tcp_segment_is_told_with_its_ports_and_without_padding() {
        let mut segment = vec![
            0x12, 0x34, 0x1f, 0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x18, 0, 0, 0, 0, 0, 0,
        ];
        segment.extend(b"GET /x");
        let told = packet(&v4(TCP, &segment)).unwrap();
        assert_eq!(told["protocol"], 6);
        assert_eq!(told["source"], "10.0.0.1");
        assert_eq!(told["destination"], "10.0.0.2");
        assert_eq!(
            (&told["sourcePort"], &told["port"]),
            (&json!(0x1234), &json!(8080))
        );
        assert_eq!((&told["syn"], &told["data"]), (&json!(false), &json!("GET /x")));
        segment[13] = 0x02;
        assert_eq!(packet(&v4(TCP, &segment)).unwrap()["syn"], true);
        segment[13] = 0x12;
        assert_eq!(packet(&v4(TCP, &segment)).unwrap()["syn"], false);
    }

    #[test]
    fn other_protocols_are_told_as_they_are() {
        let udp = packet(&v4(UDP, &[0, 1, 0, 53, 0, 0, 0, 0, b'h', b'i'])).unwrap();
        assert_eq!((&udp["port"], &udp["data"]), (&json!(53), &json!("hi")));
        let sctp = packet(&v4(132, b"abc")).unwrap();
        assert_eq!((&sctp["data"], sctp.get("port")), (&json!("abc"), None));
        let mut v6 = vec![0x60, 0, 0, 0, 0, 4, 58, 64];
        v6.extend([0; 15]);
        v6.push(1);
        v6.extend([0; 15]);
        v6.push(2);
        v6.extend(b"ping");
        let told = packet(&frame([0x86, 0xdd], &v6)).unwrap();
        assert_eq!((&told["source"], &told["data"]), (&json!("::1"), &json!("ping")));
    }

    #[test]
    fn what_is_cut_short_or_no_ip_is_passed_over() {
        assert_eq!(packet(&frame([8, 6], &[0; 40])), None);
        for length in 0..40 {
            let whole = v4(TCP, &[0; 20]);
            let _ = packet(&whole[..length.min(whole.len())]);
        }
    }
}
