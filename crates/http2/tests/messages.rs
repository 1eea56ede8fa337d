//! Messages from one side to the other, and what a client makes of a server that misbehaves.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test stops where it fails"
)]

mod common;

use std::task::Poll;

use bytes::Bytes;
use common::*;
use http::{HeaderMap, StatusCode};
use http2::limits::MAX_INFORMATIONAL;
use http2::{Chunk, Code, Connection, Gone, Key, Role, StreamError};
use proptest::prelude::*;

/// Both sides of a connection, and the bytes between them that are not understood yet.
struct Pair {
    client: Connection,
    server: Connection,
    held: [Vec<u8>; 2],
    piece: usize,
}

impl Pair {
    fn new(piece: usize) -> Self {
        Self {
            client: Connection::new(Role::Client, CONFIG),
            server: Connection::new(Role::Server, CONFIG),
            held: [Vec::new(), Vec::new()],
            piece,
        }
    }

    /// Lets bytes go to and fro until there are none.
    fn exchange(&mut self) {
        loop {
            let [there, back] = &mut self.held;
            let moved = carry(&mut self.client, &mut self.server, there, self.piece)
                | carry(&mut self.server, &mut self.client, back, self.piece);
            if !moved {
                return;
            }
        }
    }
}

fn carry(from: &mut Connection, to: &mut Connection, held: &mut Vec<u8>, piece: usize) -> bool {
    let mut buffer = Vec::new();
    let moved = from.output(&mut buffer);
    for part in buffer.chunks(piece) {
        held.extend(part);
        let taken = to.input(held, 0);
        held.drain(..taken);
    }
    from.wakes().wake();
    to.wakes().wake();
    moved
}

/// What there is of a body now, and whether it has ended.
fn read(connection: &mut Connection, key: Key) -> (Vec<u8>, Option<HeaderMap>, bool) {
    let (mut bytes, mut trailers) = (Vec::new(), None);
    loop {
        match connection.poll_body(key, &now()) {
            Poll::Pending => return (bytes, trailers, false),
            Poll::Ready(None) => return (bytes, trailers, true),
            Poll::Ready(Some(Ok(Chunk::Data(data)))) => bytes.extend(data),
            Poll::Ready(Some(Ok(Chunk::Trailers(map)))) => trailers = Some(map),
            Poll::Ready(Some(Err(error))) => panic!("{error}"),
        }
    }
}

#[test]
fn a_request_and_its_response_go_by_however_they_are_cut() {
    for piece in [1, 2, 9, 10, 1000, 100_000] {
        let mut pair = Pair::new(piece);
        let sent = map(&[
            ("x-a", "1"),
            ("cookie", "secret"),
            ("te", "trailers"),
            ("connection", "x-b"),
            ("x-b", "2"),
            ("host", "other"),
        ]);
        for round in 0..5 {
            let key = get(&mut pair.client, &sent, false);
            let mut body = Bytes::from(vec![b'q'; 20_000]);
            ready(pair.client.poll_send(key, &mut body, false, &now())).unwrap();
            ready(pair.client.poll_trailers(key, &map(&[("t", "1")]), &now())).unwrap();
            pair.exchange();
            let accepted = pair.server.accept().unwrap();
            let head = accepted.head;
            assert_eq!(head.path.unwrap().as_str(), "/p");
            assert_eq!(head.authority.unwrap(), "a");
            assert_eq!(
                head.headers,
                map(&[("x-a", "1"), ("cookie", "secret"), ("te", "trailers")])
            );
            let (bytes, trailers, ended) = read(&mut pair.server, accepted.key);
            assert_eq!(
                (bytes.len(), trailers, ended),
                (20_000, Some(map(&[("t", "1")])), true)
            );
            pair.server.drop_body(accepted.key);
            let status = StatusCode::IM_A_TEAPOT;
            let headers = map(&[("content-length", "5")]);
            ready(
                pair.server
                    .poll_respond(accepted.key, status, &headers, None, false, &now()),
            )
            .unwrap();
            ready(
                pair.server
                    .poll_send(accepted.key, &mut Bytes::from("hello"), true, &now()),
            )
            .unwrap();
            pair.server.drop_message(accepted.key, Code::INTERNAL_ERROR);
            pair.exchange();
            let (head, left) = ready(pair.client.poll_response(key, &now())).unwrap();
            assert_eq!((head.status, left, head.ended), (status, Some(0), false));
            assert_eq!(head.headers, headers);
            assert_eq!(pair.client.left(key), Some(5));
            assert_eq!(read(&mut pair.client, key), (b"hello".to_vec(), None, true));
            pair.client.drop_body(key);
            pair.client.drop_message(key, Code::CANCEL);
            assert_eq!(
                (pair.client.open_streams(), pair.server.open_streams()),
                (0, 0),
                "{round}"
            );
        }
        assert_eq!((pair.client.gone(), pair.server.gone()), (None, None));
    }
}

#[test]
fn who_sends_waits_for_who_reads() {
    let mut pair = Pair::new(100_000);
    let key = get(&mut pair.client, &HeaderMap::new(), false);
    let mut body = Bytes::from(vec![0; 3_000_000]);
    let total = body.len();
    let mut got = 0;
    let mut accepted = None;
    for _ in 0..1000 {
        let sent = pair.client.poll_send(key, &mut body, true, &now());
        pair.exchange();
        if let Some(next) = pair.server.accept() {
            accepted = Some(next.key);
        }
        if sent.is_pending() && got == 0 && total - body.len() < 256 * 1024 {
            // The buffer is full, not the window.
            continue;
        }
        // Not a byte more than the window has gone while nobody reads.
        assert!(total - body.len() <= got + 256 * 1024);
        let (bytes, _, ended) = read(&mut pair.server, accepted.unwrap());
        got += bytes.len();
        pair.exchange();
        if ended {
            break;
        }
    }
    assert_eq!((got, body.len()), (total, 0));
    assert_eq!((pair.client.gone(), pair.server.gone()), (None, None));
}

#[test]
fn no_more_is_held_to_be_written_than_a_buffer() {
    let mut client = greeted(Role::Client);
    let mut grant = vec![0, 4];
    grant.extend(0x7fff_ffff_u32.to_be_bytes());
    said(&mut client, &frame(4, 0, 0, &grant));
    said(&mut client, &frame(8, 0, 0, &0x7000_0000_u32.to_be_bytes()));
    let key = get(&mut client, &HeaderMap::new(), false);
    let mut body = Bytes::from(vec![0; 1_000_000]);
    assert!(client.poll_send(key, &mut body, true, &now()).is_pending());
    let mut buffer = Vec::new();
    assert!(client.output(&mut buffer));
    assert!(buffer.len() < CONFIG.max_buffer + 100, "{}", buffer.len());
    // A head waits as well.
    let headers = map(&[("a", "b")]);
    assert!(client.poll_send(key, &mut body, true, &now()).is_pending());
    let parts = http2::RequestParts {
        method: &http::Method::GET,
        authority: b"a",
        path: "/",
        headers: &headers,
        length: None,
        ended: true,
    };
    assert!(client.poll_open(parts, &now()).is_pending());
    written(&mut client);
    ready(client.poll_open(parts, &now())).unwrap();
}

#[test]
fn a_head_that_is_longer_than_a_frame_is_cut() {
    let mut pair = Pair::new(50_000);
    let long = "x".repeat(20_000);
    let mut headers = HeaderMap::new();
    for name in ["a", "b"] {
        headers.insert(name, long.parse().unwrap());
    }
    let key = get(&mut pair.client, &headers, true);
    pair.exchange();
    let accepted = pair.server.accept().unwrap();
    assert_eq!(accepted.head.headers, headers);
    assert!(accepted.head.ended);
    ready(
        pair.server
            .poll_respond(accepted.key, StatusCode::OK, &headers, None, true, &now()),
    )
    .unwrap();
    pair.exchange();
    assert_eq!(
        ready(pair.client.poll_response(key, &now())).unwrap().0.headers,
        headers
    );
}

#[test]
fn a_server_that_goes_takes_what_is_on_its_way_and_nothing_after() {
    let mut pair = Pair::new(1000);
    pair.exchange();
    let first = get(&mut pair.client, &HeaderMap::new(), true);
    pair.exchange();
    let accepted = pair.server.accept().unwrap();
    pair.server.leave();
    // It has not heard of it yet.
    let second = get(&mut pair.client, &HeaderMap::new(), true);
    pair.exchange();
    let late = pair.server.accept().unwrap();
    assert!(!pair.client.is_open());
    assert!(!pair.server.is_done());
    for (accepted, key) in [(accepted.key, first), (late.key, second)] {
        ready(
            pair.server
                .poll_respond(accepted, StatusCode::OK, &HeaderMap::new(), None, true, &now()),
        )
        .unwrap();
        pair.server.drop_message(accepted, Code::CANCEL);
        pair.exchange();
        assert_eq!(
            ready(pair.client.poll_response(key, &now())).unwrap().0.status,
            200
        );
        pair.client.drop_body(key);
    }
    assert!(pair.server.is_done() && pair.client.is_done());
    assert_eq!((pair.client.gone(), pair.server.gone()), (None, None));
}

#[test]
fn what_a_server_that_goes_has_not_looked_at_may_be_sent_again() {
    let mut client = greeted(Role::Client);
    let keys = [0; 3].map(|_| get(&mut client, &HeaderMap::new(), true));
    let mut away = 3_u32.to_be_bytes().to_vec();
    away.extend(0_u32.to_be_bytes());
    said(&mut client, &frame(7, 0, 0, &away));
    assert!(client.poll_response(keys[0], &now()).is_pending());
    assert!(client.poll_response(keys[1], &now()).is_pending());
    let error = ready(client.poll_response(keys[2], &now())).unwrap_err();
    assert_eq!(error, StreamError::Unseen);
    said(&mut client, &frame(3, 0, 1, &7_u32.to_be_bytes()));
    assert_eq!(
        ready(client.poll_response(keys[0], &now())).unwrap_err(),
        StreamError::Unseen
    );
    said(&mut client, &frame(3, 0, 3, &2_u32.to_be_bytes()));
    let error = ready(client.poll_response(keys[1], &now())).unwrap_err();
    assert_eq!(error, StreamError::Reset(Code::INTERNAL_ERROR));
    // It cannot take back what it has given up.
    let mut more = 5_u32.to_be_bytes().to_vec();
    more.extend(0_u32.to_be_bytes());
    said(&mut client, &frame(7, 0, 0, &more));
    assert!(matches!(client.gone(), Some(Gone::Violation(_))));
}

fn response(status: &str, more: &[(&'static str, &'static str)]) -> Vec<u8> {
    let head = [(":status", status)];
    let more: Vec<(&str, &str)> = head.into_iter().chain(more.iter().copied()).collect();
    block(&more)
}

#[test]
fn malformed_responses_are_none() {
    for bytes in [
        frame(1, 4, 1, &block(&[])),
        frame(1, 4, 1, &response("99", &[])),
        frame(1, 4, 1, &response("2000", &[])),
        frame(1, 4, 1, &response("101", &[])),
        frame(1, 5, 1, &response("100", &[])),
        frame(1, 4, 1, &response("200", &[(":status", "200")])),
        frame(1, 4, 1, &response("200", &[(":path", "/")])),
        frame(1, 4, 1, &response("200", &[("connection", "close")])),
        frame(1, 4, 1, &response("200", &[("transfer-encoding", "chunked")])),
        frame(1, 4, 1, &response("200", &[("content-length", "1, 1")])),
        frame(1, 5, 1, &response("200", &[("content-length", "1")])),
        frame(1, 4, 1, &response("200", &[("X", "1")])),
        frame(1, 4, 1, &response("200", &[("x", "1\r\ny: 2")])),
        frame(0, 0, 1, b"x"),
        frame(1, 4, 1, &response("103", &[])).repeat(usize::try_from(MAX_INFORMATIONAL).unwrap() + 1),
    ] {
        let mut client = greeted(Role::Client);
        let key = get(&mut client, &HeaderMap::new(), true);
        written(&mut client);
        let told = said(&mut client, &bytes);
        assert_eq!(
            told.last().unwrap().code(),
            Some(Code::PROTOCOL_ERROR.0),
            "{bytes:x?}"
        );
        let error = ready(client.poll_response(key, &now())).unwrap_err();
        assert!(matches!(error, StreamError::Malformed(_)), "{error}");
        assert_eq!(client.gone(), None);
    }
}

#[test]
fn a_body_that_breaks_off_never_ends_well() {
    for (bytes, error) in [
        (
            frame(3, 0, 1, &0_u32.to_be_bytes()),
            StreamError::Reset(Code::NO_ERROR),
        ),
        (
            frame(3, 0, 1, &8_u32.to_be_bytes()),
            StreamError::Reset(Code::CANCEL),
        ),
        (
            frame(0, 1, 1, b""),
            StreamError::Malformed("a body is shorter than it says"),
        ),
        (
            frame(0, 1, 1, &[0; 99]),
            StreamError::Malformed("a body is longer than it says"),
        ),
    ] {
        let mut client = greeted(Role::Client);
        let key = get(&mut client, &HeaderMap::new(), true);
        said(
            &mut client,
            &frame(1, 4, 1, &response("200", &[("content-length", "10")])),
        );
        said(&mut client, &frame(0, 0, 1, b"begun"));
        ready(client.poll_response(key, &now())).unwrap();
        said(&mut client, &bytes);
        // What has come is read; then it is told that something is missing.
        let Poll::Ready(Some(Ok(Chunk::Data(data)))) = client.poll_body(key, &now()) else {
            panic!()
        };
        assert_eq!(data, "begun");
        let Poll::Ready(Some(Err(got))) = client.poll_body(key, &now()) else {
            panic!()
        };
        assert_eq!(got, error);
        assert_ne!(got.code(), Code::NO_ERROR);
        assert!(!client.is_read(key));
    }
}

#[test]
fn an_answer_before_the_request_has_ended_is_whole() {
    let mut client = greeted(Role::Client);
    let key = get(&mut client, &HeaderMap::new(), false);
    let whole = [
        frame(1, 5, 1, &response("413", &[])),
        frame(3, 0, 1, &0_u32.to_be_bytes()),
    ]
    .concat();
    said(&mut client, &whole);
    let (head, _) = ready(client.poll_response(key, &now())).unwrap();
    assert_eq!((head.status.as_u16(), head.ended), (413, true));
    assert!(client.is_read(key));
    assert!(ready(client.poll_send(key, &mut Bytes::from("x"), true, &now())).is_err());
    client.drop_body(key);
    client.drop_message(key, Code::CANCEL);
    assert_eq!(client.open_streams(), 0);
}

#[test]
fn informational_heads_go_by_and_answers_to_head_have_no_body() {
    let mut client = greeted(Role::Client);
    let parts = http2::RequestParts {
        method: &http::Method::HEAD,
        authority: b"a",
        path: "/",
        headers: &HeaderMap::new(),
        length: None,
        ended: true,
    };
    let key = ready(client.poll_open(parts, &now())).unwrap();
    said(&mut client, &frame(1, 4, 1, &response("103", &[("link", "x")])));
    assert!(client.poll_response(key, &now()).is_pending());
    said(
        &mut client,
        &frame(1, 5, 1, &response("200", &[("content-length", "100")])),
    );
    let (head, _) = ready(client.poll_response(key, &now())).unwrap();
    assert!(head.ended && head.headers["content-length"] == "100");
}

#[test]
fn who_loses_interest_says_so_once() {
    let mut client = greeted(Role::Client);
    let key = get(&mut client, &HeaderMap::new(), false);
    written(&mut client);
    client.drop_message(key, Code::CANCEL);
    client.drop_body(key);
    let told = written(&mut client);
    assert_eq!((told.len(), told[0].code()), (1, Some(Code::CANCEL.0)));
    assert_eq!(client.open_streams(), 0);
    // What was on its way is thrown away, and tables follow.
    let late = [frame(1, 4, 1, b"\x88\x40\x01a\x01b"), frame(0, 1, 1, b"late")];
    assert!(said(&mut client, &late.concat()).is_empty());
    let next = get(&mut client, &HeaderMap::new(), true);
    said(&mut client, &frame(1, 5, 3, b"\x88\xbe"));
    let (head, _) = ready(client.poll_response(next, &now())).unwrap();
    assert_eq!(head.headers, map(&[("a", "b")]));
}

#[test]
fn a_server_says_how_many_streams_it_takes() {
    let mut client = greeted(Role::Client);
    said(&mut client, &frame(4, 0, 0, &[0, 3, 0, 0, 0, 1]));
    let first = get(&mut client, &HeaderMap::new(), true);
    let parts = http2::RequestParts {
        method: &http::Method::GET,
        authority: b"a",
        path: "/",
        headers: &HeaderMap::new(),
        length: None,
        ended: true,
    };
    assert!(client.poll_open(parts, &now()).is_pending());
    client.drop_body(first);
    assert!(client.poll_open(parts, &now()).is_ready());
}

#[test]
fn when_a_connection_breaks_so_does_all_on_it() {
    let mut client = greeted(Role::Client);
    let waiting = get(&mut client, &HeaderMap::new(), false);
    let reading = get(&mut client, &HeaderMap::new(), true);
    said(&mut client, &frame(1, 4, 3, &response("200", &[])));
    ready(client.poll_response(reading, &now())).unwrap();
    client.end(Gone::Broken(std::io::ErrorKind::ConnectionReset));
    assert!(ready(client.poll_response(waiting, &now())).is_err());
    assert!(matches!(
        client.poll_body(reading, &now()),
        Poll::Ready(Some(Err(StreamError::Gone(_))))
    ));
    assert!(client.is_done() && !client.is_open());
    let parts = http2::RequestParts {
        method: &http::Method::GET,
        authority: b"a",
        path: "/",
        headers: &HeaderMap::new(),
        length: None,
        ended: true,
    };
    assert!(ready(client.poll_open(parts, &now())).is_err());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Open(bool),
    Send(usize, usize, bool),
    Answer(usize, bool),
    Reply(usize, usize, bool),
    Read(usize),
    ReadBack(usize),
    GiveUp(usize),
    Refuse(usize),
    Exchange(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..8_usize;
    prop_oneof![
        any::<bool>().prop_map(Step::Open),
        (at.clone(), 0..100_000_usize, any::<bool>()).prop_map(|(a, n, e)| Step::Send(a, n, e)),
        (at.clone(), any::<bool>()).prop_map(|(a, e)| Step::Answer(a, e)),
        (at.clone(), 0..100_000_usize, any::<bool>()).prop_map(|(a, n, e)| Step::Reply(a, n, e)),
        at.clone().prop_map(Step::Read),
        at.clone().prop_map(Step::ReadBack),
        at.clone().prop_map(Step::GiveUp),
        at.prop_map(Step::Refuse),
        (1..20_000_usize).prop_map(Step::Exchange),
        (1..20_000_usize).prop_map(Step::Exchange),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the two sides do in whatever order, neither breaks the protocol, and nothing is left when all are done.
    #[test]
    fn two_that_keep_the_protocol_never_quarrel(steps in prop::collection::vec(step(), 0..120)) {
        let mut pair = Pair::new(10_000);
        let (mut asked, mut taken) = (Vec::new(), Vec::new());
        let at = |keys: &Vec<Key>, n: usize| keys.get(n % keys.len().max(1)).copied();
        for step in steps {
            match step {
                Step::Open(ended) => {
                    let headers = map(&[("x-a", "b")]);
                    let parts = http2::RequestParts { method: &http::Method::POST, authority: b"a", path: "/p", headers: &headers, length: None, ended };
                    if let Poll::Ready(key) = pair.client.poll_open(parts, &now()) {
                        asked.push(key.unwrap());
                    }
                }
                Step::Send(n, length, ended) => if let Some(key) = at(&asked, n) {
                    let _ = pair.client.poll_send(key, &mut Bytes::from(vec![0; length]), ended, &now());
                },
                Step::Answer(n, ended) => if let Some(key) = at(&taken, n) {
                    // Each has one head: one that has is left alone.
                    if !pair.server.is_begun(key) {
                        let _ = pair.server.poll_respond(key, StatusCode::OK, &map(&[("x-c", "d")]), None, ended, &now());
                    }
                },
                Step::Reply(n, length, ended) => if let Some(key) = at(&taken, n)
                    && pair.server.is_begun(key) {
                    let _ = pair.server.poll_send(key, &mut Bytes::from(vec![0; length]), ended, &now());
                },
                Step::Read(n) => if let Some(key) = at(&taken, n) {
                    let _ = pair.server.poll_body(key, &now());
                },
                Step::ReadBack(n) => if let Some(key) = at(&asked, n)
                    && pair.client.poll_response(key, &now()).is_ready() {
                    let _ = pair.client.poll_body(key, &now());
                },
                Step::GiveUp(n) => if let Some(key) = at(&asked, n) {
                    pair.client.drop_body(key);
                    pair.client.drop_message(key, Code::CANCEL);
                },
                Step::Refuse(n) => if let Some(key) = at(&taken, n) {
                    pair.server.drop_body(key);
                    pair.server.drop_message(key, Code::INTERNAL_ERROR);
                },
                Step::Exchange(piece) => {
                    pair.piece = piece;
                    pair.exchange();
                }
            }
            while let Some(accepted) = pair.server.accept() {
                taken.push(accepted.key);
            }
        }
        pair.exchange();
        while let Some(accepted) = pair.server.accept() {
            taken.push(accepted.key);
        }
        for key in asked {
            pair.client.drop_message(key, Code::CANCEL);
            pair.client.drop_body(key);
        }
        for key in taken {
            pair.server.drop_body(key);
            pair.server.drop_message(key, Code::INTERNAL_ERROR);
        }
        pair.exchange();
        prop_assert_eq!((pair.client.gone(), pair.server.gone()), (None, None));
        prop_assert_eq!((pair.client.open_streams(), pair.server.open_streams()), (0, 0));
    }
}

proptest! {
    /// Any bytes, in any pieces: it ends or waits, and says the same whole and in pieces.
    #[test]
    fn any_bytes_are_taken(
        frames in prop::collection::vec((0..12_u8, any::<u8>(), 0..6_u32, prop::collection::vec(any::<u8>(), 0..40)), 0..20),
        piece in 1..50_usize,
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, payload)).collect();
        let run = |piece: usize| {
            let mut server = greeted(Role::Server);
            let (mut held, mut out, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
            for part in bytes.chunks(piece) {
                held.extend(part);
                let taken = server.input(&held, 0);
                held.drain(..taken);
                while server.output(&mut buffer) {
                    out.append(&mut buffer);
                }
            }
            (out, server.gone())
        };
        prop_assert_eq!(run(piece), run(usize::MAX));
    }
}
