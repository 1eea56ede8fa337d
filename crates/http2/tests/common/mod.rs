//! Frames by hand, and a connection that is fed with them.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::task::{Context, Poll, Waker};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http2::{Config, Connection, RequestParts, Role};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const CONFIG: Config = Config {
    max_streams: 100,
    stream_window: 256 * 1024,
    connection_window: 1024 * 1024,
    max_head: 60 * 1024,
    max_fields: 108,
    max_buffer: 64 * 1024,
};

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A header block without tables: each name and value as it is.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            // An integer with a prefix of seven bits.
            match text.len() {
                length @ 0..127 => out.push(u8::try_from(length).unwrap()),
                length => {
                    out.push(127);
                    let mut rest = length - 127;
                    while rest >= 128 {
                        out.push(u8::try_from(rest % 128).unwrap() | 128);
                        rest /= 128;
                    }
                    out.push(u8::try_from(rest).unwrap());
                }
            }
            out.extend(text.as_bytes());
        }
    }
    out
}

pub(crate) const GET: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "a"),
    (":path", "/"),
];

pub(crate) fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    GET.iter().chain(more).copied().collect()
}

/// A frame that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn code(&self) -> Option<u32> {
        let at = match self.kind {
            3 => 0,
            7 => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap()))
    }
}

pub(crate) fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    bytes = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    let mut frames = Vec::new();
    while let [a, b, c, kind, flags, s, t, u, v, rest @ ..] = bytes {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        frames.push(Frame {
            kind: *kind,
            flags: *flags,
            stream: u32::from_be_bytes([*s, *t, *u, *v]),
            payload: rest[..length].to_vec(),
        });
        bytes = &rest[length..];
    }
    frames
}

/// A connection that has had its greeting, and whose own is thrown away.
pub(crate) fn greeted(role: Role) -> Connection {
    let mut connection = Connection::new(role, CONFIG);
    if role == Role::Server {
        connection.input(PREFACE, 0);
    }
    connection.input(&frame(4, 0, 0, &[]), 0);
    written(&mut connection);
    connection
}

pub(crate) fn written(connection: &mut Connection) -> Vec<Frame> {
    let (mut all, mut buffer) = (Vec::new(), Vec::new());
    while connection.output(&mut buffer) {
        all.append(&mut frames(&buffer));
        buffer.clear();
    }
    connection.wakes().wake();
    all
}

/// What is answered to some bytes.
pub(crate) fn said(connection: &mut Connection, bytes: &[u8]) -> Vec<Frame> {
    let taken = connection.input(bytes, 0);
    assert_eq!(taken, bytes.len());
    written(connection)
}

pub(crate) fn now() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

pub(crate) fn ready<T>(poll: Poll<T>) -> T {
    match poll {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits"),
    }
}

pub(crate) fn get(connection: &mut Connection, headers: &HeaderMap, ended: bool) -> http2::Key {
    let parts = RequestParts {
        method: &Method::GET,
        authority: b"a",
        path: "/p",
        headers,
        length: None,
        ended,
    };
    ready(connection.poll_open(parts, &now())).unwrap()
}

pub(crate) fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    fields.iter().map(pair).collect()
}
