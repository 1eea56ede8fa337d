//! A whole connection of HTTP/2, as a server and as a client, and a header block.
//!
//! The oracle is the crate `h2`: where neither finds fault with the connection, every request that is taken here is one
//! there, with the same fields.

use std::io::Cursor;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderMap, Method};
use http2::hpack::{Decoder, Encoder, Name};
use http2::{Chunk, Config, Connection, Gone, RequestParts, Role};

/// As proxies have it, but for windows that are soon full.
const CONFIG: Config = Config {
    max_streams: 100,
    stream_window: 65_535,
    connection_window: 65_535,
    max_head: 16 * 1024,
    max_fields: 108,
    max_buffer: 64 * 1024,
};
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// What a request is: method, path, authority, and the fields in their order.
type Seen = (String, String, String, Vec<(String, Vec<u8>)>);

/// # Panics
/// How bytes are cut makes a difference, or a request is taken that is none.
pub(crate) fn run(input: &[u8]) {
    let whole = server(input, usize::MAX);
    if input.len() <= 4096 {
        for piece in [1, 7] {
            assert_eq!(server(input, piece), whole, "in pieces of {piece}");
        }
    }
    client(input);
    let (taken, gone, _) = whole;
    if gone.is_none()
        && let Some(theirs) = oracle(input)
    {
        for request in taken {
            assert!(theirs.contains(&request), "{request:?} is none to h2: {theirs:?}");
        }
    }
}

/// The requests that were taken, how it ended, and what was said.
fn server(input: &[u8], piece: usize) -> (Vec<Seen>, Option<Gone>, Vec<u8>) {
    let mut connection = Connection::new(Role::Server, CONFIG);
    let greeting = [PREFACE, SETTINGS, input].concat();
    let (mut held, mut said, mut buffer, mut seen) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for part in greeting.chunks(piece.min(greeting.len())) {
        held.extend_from_slice(part);
        let taken = connection.input(&held, 0);
        held.drain(..taken);
        assert!(held.len() < 9 + 16_384, "more is waited for than a frame");
        while connection.output(&mut buffer) {
            said.append(&mut buffer);
        }
    }
    while let Some(accepted) = connection.accept() {
        let head = accepted.head;
        let context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(Chunk::Data(_)))) = connection.poll_body(accepted.key, &context) {}
        if head.excess.is_some() {
            continue;
        }
        let text = |name: &http::HeaderName| name.as_str().to_owned();
        let fields = head.headers.iter().map(|(n, v)| (text(n), v.as_bytes().to_vec()));
        let authority = head
            .authority
            .map(|a| String::from_utf8_lossy(a.as_bytes()).into_owned());
        seen.push((
            head.method.to_string(),
            head.path.map(|path| path.to_string()).unwrap_or_default(),
            authority.unwrap_or_default(),
            fields.collect(),
        ));
    }
    (seen, connection.gone(), said)
}

/// The same bytes as the answers of a server.
fn client(input: &[u8]) {
    let mut connection = Connection::new(Role::Client, CONFIG);
    let context = Context::from_waker(Waker::noop());
    let headers = HeaderMap::new();
    let mut keys = Vec::new();
    for method in [Method::GET, Method::HEAD, Method::POST] {
        let parts = RequestParts {
            method: &method,
            authority: b"a",
            path: "/",
            headers: &headers,
            length: None,
            ended: method != Method::POST,
        };
        if let Poll::Ready(Ok(key)) = connection.poll_open(parts, &context) {
            keys.push(key);
        }
    }
    connection.input(&[SETTINGS, input].concat(), 0);
    for key in keys {
        let _ = connection.poll_response(key, &context);
        let ended = connection.is_read(key);
        while let Poll::Ready(Some(Ok(_))) = connection.poll_body(key, &context) {
            assert!(!ended, "something comes after the end");
        }
        connection.drop_body(key);
        connection.drop_message(key, http2::Code::CANCEL);
    }
    assert_eq!(connection.open_streams(), 0, "a stream is left");
}

/// The requests that `h2` takes; nothing where it finds fault with the connection.
fn oracle(input: &[u8]) -> Option<Vec<Seen>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .ok()?;
    let bytes = [PREFACE, SETTINGS, input].concat();
    let io = tokio::io::join(Cursor::new(bytes), tokio::io::sink());
    let taking = async {
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(100)
            .max_pending_accept_reset_streams(10_000);
        let mut connection = builder.handshake::<_, bytes::Bytes>(io).await.ok()?;
        let mut seen = Vec::new();
        let mut held = Vec::new();
        while let Some(accepted) = connection.accept().await {
            let (request, respond) = accepted.ok()?;
            let uri = request.uri();
            let text = |name: &http::HeaderName| name.as_str().to_owned();
            let fields = request
                .headers()
                .iter()
                .map(|(n, v)| (text(n), v.as_bytes().to_vec()));
            seen.push((
                request.method().to_string(),
                uri.path_and_query()
                    .map(|path| path.to_string())
                    .unwrap_or_default(),
                uri.authority().map(|a| a.to_string()).unwrap_or_default(),
                fields.collect(),
            ));
            held.push((request, respond));
        }
        Some(seen)
    };
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), taking).await.ok() })?
}

/// # Panics
/// What was decoded is written as something else.
pub(crate) fn block(input: &[u8]) {
    let (mut decoder, mut again) = (Decoder::default(), Decoder::default());
    let mut encoder = Encoder::default();
    for part in input.chunks(64) {
        let Ok(block) = decoder.decode(part, 16 * 1024, 100) else {
            return;
        };
        let mut out = Vec::new();
        encoder.begin(&mut out);
        let mut wanted = Vec::new();
        for (name, value) in block.fields {
            if let Name::Field(name) = name
                && value.as_bytes().trim_ascii() == value.as_bytes()
            {
                encoder.field(&mut out, &name, &value);
                wanted.push((Name::Field(name), value));
            }
        }
        match again.decode(&out, 64 * 1024, 1000) {
            Ok(block) => assert_eq!(block.fields, wanted),
            Err(error) => panic!("what was written cannot be read: {error}"),
        }
    }
}
