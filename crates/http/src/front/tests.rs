use proptest::prelude::*;

use super::*;

/// Everything the front lets through of a stream that is shown in pieces, and the fault that ends it.
fn run(bytes: &[u8], piece: usize) -> (usize, Option<Fault>) {
    let mut front = Front::default();
    let (mut done, mut shown) = (0, 0);
    loop {
        match front.advance(&bytes[done..shown]) {
            Err(fault) => return (done, Some(fault)),
            Ok(0) if shown == bytes.len() => return (done, None),
            Ok(0) => shown = (shown + piece).min(bytes.len()),
            Ok(taken) => done += taken,
        }
    }
}

fn fault(bytes: &[u8]) -> Option<Fault> {
    run(bytes, usize::MAX / 2).1
}

fn get(lines: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

#[test]
fn well_formed_requests_pass_whole() {
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a?b=c HTTP/1.1\r\nhOsT:  a:80 \r\nX: \xff\t1\r\n\r\n",
        b"GET http://A.b:80/x HTTP/1.1\r\nHost: a.B:80\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n0\r\nX-T: 1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        for piece in [1, 2, 3, 7, 4096] {
            assert_eq!(run(bytes, piece), (bytes.len(), None), "{:?} by {piece}", String::from_utf8_lossy(bytes));
        }
    }
}

#[test]
fn each_ambiguity_has_its_fault() {
    let host = "GET / HTTP/1.1\r\n";
    for (bytes, expect) in [
        (
            get("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
            Fault::LengthAndEncoding,
        ),
        (
            get("Content-Length: 1\r\nContent-Length: 2\r\n"),
            Fault::ContentLength,
        ),
        (
            get("Content-Length: 1\r\nContent-Length: 1\r\n"),
            Fault::ContentLength,
        ),
        (get("Content-Length: 1, 1\r\n"), Fault::ContentLength),
        (get("Content-Length: +1\r\n"), Fault::ContentLength),
        (get("Content-Length: 0x1\r\n"), Fault::ContentLength),
        (get("Content-Length:\r\n"), Fault::ContentLength),
        (
            get("Content-Length: 18446744073709551616\r\n"),
            Fault::ContentLength,
        ),
        (get("Transfer-Encoding: gzip\r\n"), Fault::TransferEncoding),
        (
            get("Transfer-Encoding: gzip, chunked\r\n"),
            Fault::TransferEncoding,
        ),
        (
            get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            Fault::TransferEncoding,
        ),
        (get("Transfer-Encoding: \"chunked\"\r\n"), Fault::TransferEncoding),
        (get("Transfer_Encoding: chunked\r\n"), Fault::FramingLookalike),
        (
            get("Content-Encoding: gzip, Chunked\r\n"),
            Fault::FramingLookalike,
        ),
        (
            get("X: é Transfer-Encoding: chunked\r\n"),
            Fault::FramingLookalike,
        ),
        (get("Transfer-Encoding : chunked\r\n"), Fault::FieldName),
        (get("X\r\n"), Fault::FieldName),
        (get(": x\r\n"), Fault::FieldName),
        (get("X(y): x\r\n"), Fault::FieldName),
        (get("X: a\r\n b\r\n"), Fault::Folding),
        (get("X: a\nY: b\r\n"), Fault::BareLineEnd),
        (get("X: a\rY: b\r\n"), Fault::BareLineEnd),
        (get("X: a\0b\r\n"), Fault::Control),
        (get("X: a\x07b\r\n"), Fault::Control),
        (get("Host: a\r\n"), Fault::SeveralHosts),
        (format!("{host}\r\n").into_bytes(), Fault::MissingHost),
        (format!("{host}Host:\r\n\r\n").into_bytes(), Fault::MissingHost),
        (format!("{host}Host: a b\r\n\r\n").into_bytes(), Fault::Host),
        (format!("{host}Host: a@b\r\n\r\n").into_bytes(), Fault::Host),
        (format!("{host}Host: a/b\r\n\r\n").into_bytes(), Fault::Host),
        (
            b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            Fault::HostMismatch,
        ),
        (
            b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            Fault::Target,
        ),
        (
            b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            Fault::Target,
        ),
        (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Fault::Target),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Fault::Target),
        (
            b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            Fault::Target,
        ),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Fault::RequestLine),
        (b"GET /\r\nHost: a\r\n\r\n".to_vec(), Fault::RequestLine),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n".to_vec(), Fault::RequestLine),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_vec(), Fault::HttpVersion),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n".to_vec(), Fault::HttpVersion),
        (b"GET / HTTP/1.1\nHost: a\n\n".to_vec(), Fault::BareLineEnd),
        (
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            Fault::EncodingInHttp10,
        ),
        (
            b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n".to_vec(),
            Fault::Connect,
        ),
    ] {
        for piece in [1, 4096] {
            assert_eq!(
                run(&bytes, piece).1,
                Some(expect),
                "{:?} by {piece}",
                String::from_utf8_lossy(&bytes)
            );
            assert_eq!(run(&bytes, piece).0, 0, "nothing of it is handed on");
        }
    }
}

#[test]
fn o_07_methods_are_a_fixed_list() {
    for method in [
        "get",
        "Get",
        "FOO",
        "GETX",
        "",
        "QUERY",
        "PRI",
        "MESHWARD-REFUSED",
    ] {
        let bytes = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(fault(bytes.as_bytes()), Some(Fault::Method), "{method}");
    }
    assert_eq!(
        fault(b"CONNECT /path HTTP/1.1\r\nHost: a\r\n\r\n"),
        Some(Fault::Target)
    );
}

#[test]
fn chunks_are_strict() {
    let chunked = |body: &str| {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        fault(format!("{head}{body}").as_bytes())
    };
    assert_eq!(chunked("1\r\na\r\n0\r\n\r\n"), None);
    for (body, expect) in [
        ("\r\n", Fault::ChunkSize),
        (" 1\r\na\r\n", Fault::ChunkSize),
        ("1 \r\na\r\n", Fault::ChunkSize),
        ("0x1\r\na\r\n", Fault::ChunkSize),
        ("-1\r\na\r\n", Fault::ChunkSize),
        ("11111111111111111\r\n", Fault::ChunkSize),
        ("1\na\r\n", Fault::ChunkSize),
        ("1;a\nb\r\na\r\n", Fault::ChunkSize),
        ("1\r\nab\r\n", Fault::ChunkEnd),
        ("1\r\na\n0\r\n\r\n", Fault::ChunkEnd),
        ("0\r\nContent-Length: 1\r\n\r\n", Fault::Trailers),
        ("0\r\nX : 1\r\n\r\n", Fault::Trailers),
        ("0\r\nX: 1\n\r\n", Fault::Trailers),
    ] {
        assert_eq!(chunked(body), Some(expect), "{body:?}");
    }
}

#[test]
fn limits_are_kept() {
    let fields = "X: y\r\n".repeat(crate::limits::MAX_FIELDS);
    assert_eq!(fault(&get(&fields)), Some(Fault::TooManyFields));
    assert_eq!(
        fault(&get(&format!("X: {}\r\n", "y".repeat(MAX_HEAD)))),
        Some(Fault::HeadTooLong)
    );
    let target = "x".repeat(crate::limits::MAX_TARGET);
    let bytes = format!("GET /{target} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(fault(bytes.as_bytes()), Some(Fault::TargetTooLong));
    let line = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;{}\r\n",
        "x".repeat(MAX_CHUNK_LINE)
    );
    assert_eq!(fault(line.as_bytes()), Some(Fault::ChunkSize));
}

#[test]
fn pd_17_an_upgrade_takes_no_bytes_before_its_answer() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut front = Front::default();
    assert_eq!(front.advance(head), Ok(head.len()));
    assert!(front.undecided());
    assert_eq!(front.advance(b"\0\0"), Ok(0));
    front.decide(true);
    assert_eq!(front.advance(b"\0\0"), Ok(2));

    let mut front = Front::default();
    assert_eq!(front.advance(head), Ok(head.len()));
    front.decide(false);
    assert_eq!(front.advance(b"\0\0"), Err(Fault::Control));
}

proptest! {
    #[test]
    fn total_and_blind_to_segments(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            proptest::collection::vec(prop_oneof![
                Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' '), Just(b'a'), Just(b'1'), Just(b'0')
            ], 0..60).prop_map(|tail| {
                let mut bytes = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                bytes.extend(tail);
                bytes
            }),
        ],
        piece in 1_usize..20,
    ) {
        let whole = run(&bytes, usize::MAX / 2);
        let pieces = run(&bytes, piece);
        prop_assert_eq!(whole.1, pieces.1);
        prop_assert_eq!(whole.0, pieces.0);
    }
}
