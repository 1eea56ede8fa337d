//! Telling TLS from anything else by a connection's first bytes, and reading a ClientHello's SNI and ALPN.
//!
//! Total: any bytes give an answer. The first byte alone decides that something is not TLS (O-05).

/// The most bytes of a ClientHello that are waited for.
pub const LIMIT: usize = 16 * 1024;

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// What the first bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sniff {
    /// It may be TLS; more bytes will tell.
    NeedMore,
    /// It is not TLS.
    NotTls,
    /// A ClientHello.
    ClientHello {
        /// The name that the client asks for.
        sni: Option<String>,
        /// The application protocols that it offers, in its order.
        alpn: Vec<Vec<u8>>,
    },
}

/// Looks at the first bytes of a connection.
pub fn client_hello(bytes: &[u8]) -> Sniff {
    match bytes.first() {
        None => return Sniff::NeedMore,
        Some(&HANDSHAKE_RECORD) => {}
        Some(_) => return Sniff::NotTls,
    }
    if bytes.get(1).is_some_and(|major| *major != 3) {
        return Sniff::NotTls;
    }
    let message = match handshake(bytes) {
        Ok(message) => message,
        Err(answer) => return answer,
    };
    parse(&message).map_or(Sniff::NotTls, |(sni, alpn)| Sniff::ClientHello { sni, alpn })
}

/// Joins the fragments of the first handshake message.
fn handshake(mut bytes: &[u8]) -> Result<Vec<u8>, Sniff> {
    let mut message = Vec::new();
    loop {
        if let Some(([kind, length @ ..], rest)) = message.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_be_bytes([0, length[0], length[1], length[2]]))
                .unwrap_or(usize::MAX);
            if *kind != CLIENT_HELLO || length > LIMIT {
                return Err(Sniff::NotTls);
            }
            if let Some(body) = rest.get(..length) {
                return Ok(body.to_vec());
            }
        } else if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(Sniff::NotTls);
        }
        let Some(([kind, major, _, high, low], rest)) = bytes.split_first_chunk::<5>() else {
            return Err(Sniff::NeedMore);
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if *kind != HANDSHAKE_RECORD || *major != 3 || length == 0 || length > LIMIT {
            return Err(Sniff::NotTls);
        }
        let part = rest.get(..length).unwrap_or(rest);
        message.extend_from_slice(part);
        if part.len() < length {
            // The fragment is not whole; what there is may already show that it is no ClientHello.
            return Err(if message.first().is_some_and(|k| *k != CLIENT_HELLO) {
                Sniff::NotTls
            } else {
                Sniff::NeedMore
            });
        }
        bytes = rest.get(length..).unwrap_or_default();
    }
}

type Names = (Option<String>, Vec<Vec<u8>>);

fn parse(body: &[u8]) -> Option<Names> {
    // legacy_version, random
    let rest = body.get(34..)?;
    let (_, rest) = short(rest)?;
    let (_, rest) = long(rest)?;
    let (_, rest) = short(rest)?;
    let mut names = (None, Vec::new());
    if rest.is_empty() {
        return Some(names);
    }
    let (mut extensions, _) = long(rest)?;
    while !extensions.is_empty() {
        let ([high, low], after) = extensions.split_first_chunk::<2>()?;
        let (content, after) = long(after)?;
        match u16::from_be_bytes([*high, *low]) {
            SERVER_NAME => names.0 = server_name(content),
            ALPN => names.1 = protocols(content)?,
            _ => {}
        }
        extensions = after;
    }
    Some(names)
}

fn server_name(content: &[u8]) -> Option<String> {
    let (list, _) = long(content)?;
    let (kind, rest) = list.split_first()?;
    let (name, _) = long(rest)?;
    (*kind == 0 && name.len() <= 255)
        .then(|| String::from_utf8(name.to_vec()).ok())
        .flatten()
}

fn protocols(content: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut list, _) = long(content)?;
    let mut all = Vec::new();
    while !list.is_empty() {
        let (name, rest) = short(list)?;
        all.push(name.to_vec());
        list = rest;
    }
    Some(all)
}

/// A field with a length of one byte, and what follows.
fn short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// A field with a length of two bytes, and what follows.
fn long(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let ([high, low], rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A real ClientHello, by rustls.
    fn hello(sni: &str, alpn: &[&str]) -> Vec<u8> {
        let roots = rustls::RootCertStore::empty();
        let mut config = rustls::ClientConfig::builder_with_provider(crate::verify::crypto())
            .with_protocol_versions(crate::verify::versions(true))
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|a| a.as_bytes().to_vec()).collect();
        let name = rustls::pki_types::ServerName::try_from(sni.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
        let mut out = Vec::new();
        client.write_tls(&mut out).unwrap();
        out
    }

    fn expected(sni: &str, alpn: &[&str]) -> Sniff {
        Sniff::ClientHello {
            sni: Some(sni.to_owned()),
            alpn: alpn.iter().map(|a| a.as_bytes().to_vec()).collect(),
        }
    }

    #[test]
    fn a_real_hello_whole_and_byte_by_byte() {
        let (sni, alpn) = (
            "outbound_.80_._.server.foo.svc.cluster.local",
            ["istio-http/1.1", "istio"],
        );
        let bytes = hello(sni, &alpn);
        for n in 0..bytes.len() {
            assert_eq!(client_hello(&bytes[..n]), Sniff::NeedMore, "{n} bytes");
        }
        assert_eq!(client_hello(&bytes), expected(sni, &alpn));
    }

    #[test]
    fn a_hello_in_many_records() {
        let bytes = hello("a.example", &["h2"]);
        let mut fragmented = Vec::new();
        for part in bytes[5..].chunks(7) {
            fragmented.extend([22, 3, 1, 0, u8::try_from(part.len()).unwrap()]);
            fragmented.extend(part);
        }
        assert_eq!(client_hello(&fragmented), expected("a.example", &["h2"]));
    }

    #[test]
    fn o_05_the_first_byte_decides() {
        for text in [&b"G"[..], b"GET / HTTP/1.1\r\n", b"PRI", b"\x00", b"\x80"] {
            assert_eq!(client_hello(text), Sniff::NotTls);
        }
        assert_eq!(client_hello(b""), Sniff::NeedMore);
        assert_eq!(client_hello(b"\x16"), Sniff::NeedMore);
        assert_eq!(client_hello(b"\x16\x02"), Sniff::NotTls);
        assert_eq!(client_hello(b"\x16\x03\x01\x00\x05\x02"), Sniff::NotTls);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = client_hello(&bytes);
        }

        #[test]
        fn a_damaged_hello_never_panics(at in 0_usize..300, with in any::<u8>()) {
            let mut bytes = hello("a.example", &["h2", "http/1.1"]);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = with;
            }
            let _ = client_hello(&bytes);
        }
    }
}
