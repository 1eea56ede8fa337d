//! One packet of any IP protocol, by a raw socket.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Ask, Outcome, failure};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Types of an echo request.
const ECHO: u8 = 8;
const ECHO_V6: u8 = 128;

/// Sends it; `sent` says that this host let it out, and nothing about where it went.
pub(super) fn probe(ask: &Ask) -> Outcome {
    let text = ask
        .send
        .clone()
        .unwrap_or_else(|| "hello from probe\n".to_owned());
    let Ok(to) = ask.addr.trim_matches(['[', ']']).parse::<IpAddr>() else {
        return Outcome::word("dns");
    };
    match send(ask, to, text.as_bytes()) {
        Ok(()) => Outcome::word("sent"),
        Err(error) => Outcome::word(failure(&error)),
    }
}

fn send(ask: &Ask, to: IpAddr, text: &[u8]) -> io::Result<()> {
    let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(ask.protocol))))?;
    super::mark(ask, &socket)?;
    let packet = match ask.protocol {
        ICMP => echo(ECHO, text),
        ICMPV6 => echo(ECHO_V6, text),
        _ => text.to_vec(),
    };
    socket.send_to(&packet, &SockAddr::from(SocketAddr::new(to, 0)))?;
    Ok(())
}

/// An echo request. The checksum of ICMPv6 is the kernel's to write.
fn echo(kind: u8, text: &[u8]) -> Vec<u8> {
    let mut packet = [&[kind, 0, 0, 0, 0, 1, 0, 1], text].concat();
    let sum = checksum(&packet).to_be_bytes();
    if kind == ECHO
        && let Some(field) = packet.get_mut(2..4)
    {
        field.copy_from_slice(&sum);
    }
    packet
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let (high, low) = (
            pair.first().copied().unwrap_or(0),
            pair.get(1).copied().unwrap_or(0),
        );
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_sums_up_to_nothing() {
        for text in [&b"even"[..], b"odd"] {
            assert_eq!(checksum(&echo(ECHO, text)), 0, "{text:?}");
        }
        assert_eq!(echo(ECHO_V6, b"x")[2..4], [0, 0]);
    }
}
