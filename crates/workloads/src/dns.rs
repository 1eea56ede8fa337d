//! A DNS server that knows what it is told, over UDP: for names outside a mesh.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use tokio::net::UdpSocket;

use crate::Exit;

/// The largest question, bytes.
const MAX: usize = 1232;
/// How long an answer may be kept, seconds.
const TTL: u32 = 1;
/// Types of records, and the class of the internet (RFC 1035, 3.2.2, 3.2.4; RFC 3596).
const A: u16 = 1;
const AAAA: u16 = 28;

/// `PORT NAME=ADDRESS[,ADDRESS..] ..`; of what it does not know it says that there is no such name.
pub(crate) async fn run(args: &[String]) -> Result<i32, Exit> {
    let usage = || Exit::usage("dns wants PORT NAME=ADDRESS[,ADDRESS..] ..");
    let (port, records) = args.split_first().ok_or_else(usage)?;
    let port: u16 = port.parse().map_err(|_| usage())?;
    let mut known: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for record in records {
        let (name, addresses) = record.split_once('=').ok_or_else(usage)?;
        let addresses: Result<_, _> = addresses.split(',').map(str::parse).collect();
        known.insert(name.to_ascii_lowercase(), addresses.map_err(|_| usage())?);
    }
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
    println!("listening on port {port}");
    let mut buffer = [0; MAX];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await?;
        if let Some(answer) = answer(buffer.get(..length).unwrap_or_default(), &known) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// The answer to a message with one question.
fn answer(message: &[u8], known: &HashMap<String, Vec<IpAddr>>) -> Option<Vec<u8>> {
    let (header, body) = message.split_first_chunk::<12>()?;
    let (mut name, mut rest) = (Vec::new(), body);
    loop {
        let (length, after) = rest.split_first()?;
        rest = after;
        if *length == 0 {
            break;
        }
        let label = rest.get(..usize::from(*length))?;
        name.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        rest = rest.get(usize::from(*length)..)?;
    }
    let kind = u16::from_be_bytes([*rest.first()?, *rest.get(1)?]);
    let question = body.get(..body.len().checked_sub(rest.len())? + 4)?;
    let found = known.get(&name.join("."));
    let of_kind = |address: &&IpAddr| kind == if address.is_ipv6() { AAAA } else { A };
    let addresses: Vec<&IpAddr> = found.into_iter().flatten().filter(of_kind).collect();
    let count = u16::try_from(addresses.len()).ok()?.to_be_bytes();
    let mut out = header.get(..2)?.to_vec();
    // A response, authoritative, with recursion; NXDOMAIN where nothing is known.
    out.extend([0x85, if found.is_some() { 0x80 } else { 0x83 }]);
    out.extend([0, 1, count[0], count[1], 0, 0, 0, 0]);
    out.extend(question);
    for address in addresses {
        let data = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        // The name is the question's.
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out.extend(TTL.to_be_bytes());
        out.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        out.extend(data);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_answered_and_the_rest_is_no_name() {
        let known = HashMap::from([("a.b".to_owned(), vec![[192, 0, 2, 7].into()])]);
        let ask = |name: &[u8], kind: u8| {
            let message = [&[7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], name, &[0, kind, 0, 1]].concat();
            answer(&message, &known)
        };
        let found = ask(b"\x01A\x01b\0", 1).unwrap();
        assert_eq!(found[..4], [7, 8, 0x85, 0x80]);
        assert!(found.ends_with(&[0, 4, 192, 0, 2, 7]));
        let other = ask(b"\x01A\x01b\0", 28).unwrap();
        assert_eq!(
            (other[3], other[7]),
            (0x80, 0),
            "the name is there, the type is not"
        );
        assert_eq!(ask(b"\x01c\0", 1).unwrap()[3], 0x83);
        assert!(ask(b"\x3fA", 1).is_none());
    }
}
