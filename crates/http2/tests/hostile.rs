//! What strangers send to break things: each has its answer, and its limit.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test stops where it fails"
)]

mod common;

use common::*;
use http2::limits::*;
use http2::{Code, Gone, Role};

/// What a server does with bytes that break the connection.
fn broken(bytes: &[u8]) -> Code {
    let mut server = greeted(Role::Server);
    let told = said(&mut server, bytes);
    let Some(Gone::Violation(violation)) = server.gone() else {
        panic!("it goes on: {told:?}")
    };
    let last = told.last().unwrap();
    assert_eq!((last.kind, last.code()), (7, Some(violation.code.0)), "{told:?}");
    violation.code
}

/// With what a request's stream is reset.
fn reset(bytes: &[u8]) -> Code {
    let mut server = greeted(Role::Server);
    let told = said(&mut server, bytes);
    assert_eq!(server.gone(), None);
    let last = told
        .iter()
        .rfind(|frame| frame.kind == 3)
        .unwrap_or_else(|| panic!("{told:?}"));
    Code(last.code().unwrap())
}

fn request(id: u32, fields: &[(&str, &str)], ended: bool) -> Vec<u8> {
    frame(1, if ended { 5 } else { 4 }, id, &block(fields))
}

#[test]
fn a_header_block_without_end_is_a_limit_and_not_memory() {
    let mut bytes = frame(1, 0, 1, &block(GET));
    for _ in 0..=MAX_CONTINUATIONS {
        bytes.extend(frame(9, 0, 1, b""));
    }
    assert_eq!(broken(&bytes), Code::ENHANCE_YOUR_CALM);
    let mut bytes = frame(1, 0, 1, &block(GET));
    for _ in 0..6 {
        bytes.extend(frame(9, 0, 1, &[b'x'; 16_384]));
    }
    assert_eq!(broken(&bytes), Code::ENHANCE_YOUR_CALM);
}

#[test]
fn streams_that_are_reset_before_they_are_answered_have_an_end() {
    let mut server = greeted(Role::Server);
    let mut count = 0;
    for nth in 0..100_000 {
        let id = nth * 2 + 1;
        let mut bytes = request(id, GET, true);
        bytes.extend(frame(3, 0, id, &8_u32.to_be_bytes()));
        said(&mut server, &bytes);
        // Whoever takes the requests finds none that is wanted.
        assert!(server.accept().is_none());
        assert!(server.open_streams() == 0);
        count = u64::from(nth);
        if server.gone().is_some() {
            break;
        }
    }
    let Some(Gone::Violation(violation)) = server.gone() else {
        panic!("it goes on")
    };
    assert_eq!(
        (violation.code, count),
        (Code::ENHANCE_YOUR_CALM, MAX_PREMATURE_RESETS)
    );
}

#[test]
fn who_gives_up_late_or_seldom_is_no_attacker() {
    for (later, every) in [(PREMATURE, 1), (0, 3)] {
        let mut server = greeted(Role::Server);
        let mut now = 0;
        for nth in 0..3000_u32 {
            let id = nth * 2 + 1;
            server.input(&request(id, GET, true), now);
            let accepted = server.accept().unwrap();
            now += later;
            if nth % every == 0 {
                server.input(&frame(3, 0, id, &8_u32.to_be_bytes()), now);
                server.drop_message(accepted.key, Code::CANCEL);
            } else {
                let headers = http::HeaderMap::new();
                let ok = http::StatusCode::OK;
                ready(server.poll_respond(accepted.key, ok, &headers, None, true, &common::now())).unwrap();
                server.drop_message(accepted.key, Code::CANCEL);
            }
            written(&mut server);
            assert_eq!((server.gone(), server.open_streams()), (None, 0), "{nth}");
        }
    }
}

#[test]
fn frames_that_carry_nothing_have_an_end() {
    let kinds = [
        frame(6, 0, 0, &[0; 8]),
        frame(4, 0, 0, &[]),
        frame(2, 0, 1, &[0, 0, 0, 3, 0]),
        frame(8, 0, 0, &1_u32.to_be_bytes()),
        frame(77, 0, 1, b"?"),
        frame(0, 0, 1, b""),
        frame(3, 0, 1, &8_u32.to_be_bytes()),
        frame(1, 5, 2, b""),
    ];
    for kind in &kinds[..7] {
        let mut server = greeted(Role::Server);
        said(&mut server, &request(1, GET, false));
        let mut count = 0;
        while server.gone().is_none() {
            // The other side reads all answers.
            said(&mut server, kind);
            count += 1;
            assert!(count <= MAX_IDLE_FRAMES + 100, "{kind:?}");
        }
        let Some(Gone::Violation(violation)) = server.gone() else {
            panic!()
        };
        assert_eq!(violation.code, Code::ENHANCE_YOUR_CALM, "{kind:?}");
    }
}

#[test]
fn frames_that_carry_nothing_are_forgotten_in_time() {
    let mut server = greeted(Role::Server);
    for second in 0..20 {
        for _ in 0..MAX_IDLE_FRAMES / 3 {
            server.input(&frame(6, 0, 0, &[0; 8]), second * 1000);
            written(&mut server);
        }
    }
    assert_eq!(server.gone(), None);
}

#[test]
fn answers_that_are_not_read_have_an_end() {
    for flood in [frame(6, 0, 0, &[0; 8]), frame(4, 0, 0, &[])] {
        let mut server = greeted(Role::Server);
        let mut count = 0_usize;
        while server.gone().is_none() {
            server.input(&flood, 0);
            count += 1;
            assert!(count < MAX_ANSWERS, "it goes on");
        }
        assert!(matches!(server.gone(), Some(Gone::Violation(v)) if v.code == Code::ENHANCE_YOUR_CALM));
    }
}

#[test]
fn more_streams_than_offered_are_refused_and_may_be_tried_again() {
    let mut server = greeted(Role::Server);
    let mut keys = Vec::new();
    for nth in 0..100 {
        said(&mut server, &request(nth * 2 + 1, GET, true));
        keys.push(server.accept().unwrap().key);
    }
    let told = said(&mut server, &request(201, GET, true));
    assert_eq!(told[0].code(), Some(Code::REFUSED_STREAM.0));
    assert!(server.accept().is_none());
    // One that the client gave up still has its place, as long as somebody works for it.
    said(&mut server, &frame(3, 0, 1, &8_u32.to_be_bytes()));
    let told = said(&mut server, &request(203, GET, true));
    assert_eq!(told[0].code(), Some(Code::REFUSED_STREAM.0));
    server.drop_message(keys[0], Code::CANCEL);
    assert!(said(&mut server, &request(205, GET, true)).is_empty());
    assert!(server.accept().is_some());
}

#[test]
fn windows_are_what_they_say() {
    let mut over = request(1, GET, false);
    over.extend(frame(8, 0, 1, &0x7fff_ffff_u32.to_be_bytes()));
    assert_eq!(reset(&over), Code::FLOW_CONTROL_ERROR);
    let mut nothing = request(1, GET, false);
    nothing.extend(frame(8, 0, 1, &0_u32.to_be_bytes()));
    assert_eq!(reset(&nothing), Code::PROTOCOL_ERROR);
    assert_eq!(
        broken(&frame(8, 0, 0, &0_u32.to_be_bytes())),
        Code::PROTOCOL_ERROR
    );
    assert_eq!(
        broken(&frame(8, 0, 0, &0x7fff_ffff_u32.to_be_bytes())),
        Code::FLOW_CONTROL_ERROR
    );
    let mut initial = vec![0, 4];
    initial.extend(0x8000_0000_u32.to_be_bytes());
    assert_eq!(broken(&frame(4, 0, 0, &initial)), Code::FLOW_CONTROL_ERROR);
    // A window that grew cannot be pushed over its most by the settings.
    let mut both = request(1, GET, false);
    both.extend(frame(8, 0, 1, &0x7fff_0000_u32.to_be_bytes()));
    let mut initial = vec![0, 4];
    initial.extend(0x7fff_ffff_u32.to_be_bytes());
    both.extend(frame(4, 0, 0, &initial));
    assert_eq!(broken(&both), Code::FLOW_CONTROL_ERROR);
}

#[test]
fn more_than_a_window_is_not_taken() {
    let mut server = greeted(Role::Server);
    said(&mut server, &request(1, GET, false));
    let part = frame(0, 0, 1, &[0; 16_384]);
    for _ in 0..16 {
        assert!(said(&mut server, &part).is_empty());
    }
    let told = said(&mut server, &part);
    assert_eq!(told[0].code(), Some(Code::FLOW_CONTROL_ERROR.0));
    // And of the connection: four streams have filled it.
    let mut server = greeted(Role::Server);
    for id in [1, 3, 5, 7] {
        said(&mut server, &request(id, GET, false));
        for _ in 0..16 {
            said(&mut server, &frame(0, 0, id, &[0; 16_384]));
        }
    }
    said(&mut server, &request(9, GET, false));
    assert_eq!(server.gone(), None);
    server.input(&frame(0, 0, 9, b"x"), 0);
    assert!(matches!(server.gone(), Some(Gone::Violation(v)) if v.code == Code::FLOW_CONTROL_ERROR));
}

#[test]
fn bytes_that_nobody_reads_do_not_close_the_connections_window() {
    let mut server = greeted(Role::Server);
    let mut given = 0;
    for nth in 0..200 {
        let id = nth * 2 + 1;
        said(&mut server, &request(id, GET, false));
        let key = server.accept().unwrap().key;
        for _ in 0..4 {
            said(&mut server, &frame(0, 0, id, &[0; 16_384]));
        }
        // Reset while they are there, padded, and after it was given up.
        server.drop_body(key);
        server.drop_message(key, Code::CANCEL);
        let late = frame(0, 8, id, &[&[100][..], &[0; 200]].concat());
        for told in said(&mut server, &late) {
            if told.kind == 8 {
                given += u32::from_be_bytes(told.payload.try_into().unwrap());
            }
        }
        assert_eq!(server.gone(), None, "{nth}");
    }
    assert!(given > 10_000_000, "{given}");
}

#[test]
fn numbers_of_streams_are_not_what_one_likes() {
    for bytes in [
        request(2, GET, true),
        request(0, GET, true),
        frame(0, 0, 0, b"x"),
        frame(0, 0, 5, b"x"),
        frame(3, 0, 5, &8_u32.to_be_bytes()),
        frame(8, 0, 5, &8_u32.to_be_bytes()),
        frame(9, 4, 1, b""),
        frame(5, 4, 1, &[0, 0, 0, 2]),
        frame(2, 0, 0, &[0, 0, 0, 3, 0]),
        frame(4, 0, 1, &[]),
        frame(6, 0, 1, &[0; 8]),
        frame(7, 0, 1, &[0; 8]),
        [frame(1, 0, 1, &block(GET)), frame(6, 0, 0, &[0; 8])].concat(),
        [frame(1, 0, 1, &block(GET)), frame(9, 4, 3, b"")].concat(),
        frame(1, 0xc, 1, &[200, 0, 0]),
        frame(0, 8, 1, &[200, 0, 0]),
        frame(4, 0, 0, &[0, 2, 0, 0, 0, 2]),
        frame(4, 0, 0, &[0, 8, 0, 0, 0, 2]),
        frame(4, 0, 0, &[0, 5, 0, 0, 0, 2]),
    ] {
        assert_eq!(broken(&bytes), Code::PROTOCOL_ERROR, "{bytes:x?}");
    }
    let again = [request(5, GET, true), request(3, GET, true)].concat();
    assert_eq!(broken(&again), Code::STREAM_CLOSED);
    for bytes in [
        frame(6, 0, 0, &[0; 7]),
        frame(4, 0, 0, &[0; 7]),
        frame(4, 1, 0, &[0; 6]),
        frame(3, 0, 1, &[0; 5]),
        frame(8, 0, 1, &[0; 3]),
        frame(7, 0, 0, &[0; 7]),
        frame(2, 0, 1, &[0; 4]),
        frame(0, 0, 1, &[0; 16_385]),
    ] {
        assert_eq!(broken(&bytes), Code::FRAME_SIZE_ERROR, "{bytes:x?}");
    }
    assert_eq!(broken(&frame(1, 4, 1, &[0xff; 10])), Code::COMPRESSION_ERROR);
}

#[test]
fn who_does_not_begin_as_http2_does_is_not_served() {
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        [PREFACE, &frame(6, 0, 0, &[0; 8])[..]].concat(),
        [PREFACE, &frame(4, 1, 0, &[])[..]].concat(),
    ] {
        let mut server = http2::Connection::new(Role::Server, CONFIG);
        server.input(&bytes, 0);
        assert!(matches!(server.gone(), Some(Gone::Violation(_))), "{bytes:x?}");
    }
}

/// RFC 9113, 8.1.1, 8.2, 8.3: nothing of this becomes a request, and none of it ends the connection.
#[test]
fn malformed_requests_are_reset() {
    for fields in [
        with(&[("Upper", "x")]),
        with(&[("connection", "close")]),
        with(&[("keep-alive", "1")]),
        with(&[("proxy-connection", "x")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "websocket")]),
        with(&[("te", "gzip")]),
        with(&[(":path", "/again")]),
        with(&[("x", "y"), (":path", "/late")]),
        with(&[(":status", "200")]),
        with(&[(":unknown", "x")]),
        with(&[("", "x")]),
        with(&[("a b", "x")]),
        with(&[("a", "x\r\nb: c")]),
        with(&[("a", "x\ny")]),
        with(&[("a", "\0")]),
        with(&[("a", " x")]),
        with(&[("a", "x\t")]),
        with(&[("content-length", "1")]),
        with(&[("content-length", "x")]),
        with(&[("content-length", "+0")]),
        with(&[("content-length", "0, 0")]),
        with(&[("content-length", "0"), ("content-length", "0")]),
        GET[1..].to_vec(),
        [&GET[..1], &GET[2..]].concat(),
        GET[..3].to_vec(),
        [&GET[..3], &[(":path", "")]].concat(),
        [&GET[..3], &[(":path", "/a b")]].concat(),
        [&[(":method", "G ET")], &GET[1..]].concat(),
        [&[(":method", "")], &GET[1..]].concat(),
        [&[GET[0], (":scheme", "h ttp")], &GET[2..]].concat(),
        vec![(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")],
        vec![(":method", "CONNECT")],
        with(&[(":protocol", "websocket")]),
        vec![],
    ] {
        let fields: Vec<(&str, &str)> = fields;
        assert_eq!(
            reset(&request(1, &fields, true)),
            Code::PROTOCOL_ERROR,
            "{fields:?}"
        );
    }
}

#[test]
fn a_request_with_too_much_is_told_so_and_the_next_one_is_read() {
    let many: Vec<(String, &str)> = (0..200).map(|n| (format!("x-{n}"), "y")).collect();
    let many: Vec<(&str, &str)> = GET
        .iter()
        .copied()
        .chain(many.iter().map(|(n, v)| (n.as_str(), *v)))
        .collect();
    let mut server = greeted(Role::Server);
    said(&mut server, &request(1, &many, true));
    assert_eq!(server.accept().unwrap().head.excess, Some(http2::Excess::Fields));
    let long = "x".repeat(62_000);
    let whole = block(&[GET, &[("a", &long)]].concat());
    let mut parts = whole.chunks(16_384).peekable();
    let mut bytes = frame(1, 1, 3, parts.next().unwrap());
    while let Some(part) = parts.next() {
        let end = if parts.peek().is_none() { 4 } else { 0 };
        bytes.extend(frame(9, end, 3, part));
    }
    said(&mut server, &bytes);
    assert_eq!(server.accept().unwrap().head.excess, Some(http2::Excess::Length));
    said(&mut server, &request(5, GET, true));
    assert_eq!(server.accept().unwrap().head.excess, None);
}

#[test]
fn a_body_is_as_long_as_it_says() {
    let sized = with(&[("content-length", "3")]);
    for (parts, code) in [
        (vec![frame(0, 1, 1, b"abcd")], Code::PROTOCOL_ERROR),
        (vec![frame(0, 1, 1, b"ab")], Code::PROTOCOL_ERROR),
        (
            vec![frame(0, 0, 1, b"ab"), frame(1, 5, 1, &block(&[("t", "1")]))],
            Code::PROTOCOL_ERROR,
        ),
        (
            vec![frame(0, 1, 1, b"abc"), frame(0, 1, 1, b"")],
            Code::STREAM_CLOSED,
        ),
        (
            vec![frame(0, 1, 1, b"abc"), frame(1, 5, 1, &block(&[("t", "1")]))],
            Code::STREAM_CLOSED,
        ),
        (
            vec![frame(0, 0, 1, b"abc"), frame(1, 4, 1, &block(&[("t", "1")]))],
            Code::PROTOCOL_ERROR,
        ),
        (
            vec![frame(0, 0, 1, b"abc"), frame(1, 5, 1, &block(&[(":path", "/")]))],
            Code::PROTOCOL_ERROR,
        ),
        (
            vec![
                frame(0, 0, 1, b"abc"),
                frame(1, 5, 1, &block(&[("content-length", "3")])),
            ],
            Code::PROTOCOL_ERROR,
        ),
        (
            vec![frame(0, 0, 1, b"abc"), frame(1, 5, 1, &block(&[("host", "b")]))],
            Code::PROTOCOL_ERROR,
        ),
        (
            vec![
                frame(0, 0, 1, b"abc"),
                frame(1, 5, 1, &block(&[("authorization", "b")])),
            ],
            Code::PROTOCOL_ERROR,
        ),
        (
            vec![
                frame(0, 0, 1, b"abc"),
                frame(1, 5, 1, &block(&[("transfer-encoding", "chunked")])),
            ],
            Code::PROTOCOL_ERROR,
        ),
    ] {
        let bytes = [request(1, &sized, false), parts.concat()].concat();
        assert_eq!(reset(&bytes), code, "{parts:x?}");
    }
}
