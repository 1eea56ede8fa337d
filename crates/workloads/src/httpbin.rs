//! httpbin: a service that tells what it was sent.
//!
//! Two dialects: the Python original prints a header as a text, go-httpbin as a list.

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use crate::Exit;
use crate::serve::{self, Body, full};

/// How much of a request body is kept to be told back.
const BODY: usize = 16 * 1024 * 1024;

/// The most that `/bytes/N` and `/stream/N` give, as the original's.
const BYTES: usize = 100 * 1024;
const LINES: usize = 100;

/// The longest that `/delay/N` waits.
const DELAY: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dialect {
    Python,
    Go,
}

/// `[--go] [--port N]... [-b ADDR:PORT]`; 80 for the original and 8080 for go-httpbin where no port is given.
/// Words that a web server's command line would carry besides (`gunicorn`, `httpbin:app`, `-k gevent`) are passed over.
pub(crate) async fn run(args: &[String]) -> Result<i32, Exit> {
    let mut ports = Vec::new();
    let mut dialect = Dialect::Python;
    let mut words = args.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "--go" => dialect = Dialect::Go,
            "--port" | "-port" | "-b" | "--bind" => {
                let value = words
                    .next()
                    .ok_or_else(|| Exit::usage(format!("{word} wants a port")))?;
                ports.push(port(value)?);
            }
            other => {
                if let Some(value) = ["--port=", "--bind=", "-port="]
                    .iter()
                    .find_map(|p| other.strip_prefix(p))
                {
                    ports.push(port(value)?);
                }
            }
        }
    }
    if ports.is_empty() {
        let by_env = std::env::var("PORT").ok().and_then(|p| p.parse().ok());
        ports.push(by_env.unwrap_or(if dialect == Dialect::Go { 8080 } else { 80 }));
    }
    let mut listeners = Vec::new();
    for port in ports {
        let listener = serve::listen(port)
            .await
            .map_err(|e| Exit::usage(format!("cannot listen on port {port}: {e}")))?;
        println!("listening on port {port}");
        listeners.push(serve::accept_loop(listener, move |stream, peer| {
            serve::connection(stream, move |request| answer(request, peer, dialect))
        }));
    }
    futures_util::future::try_join_all(listeners).await?;
    Ok(0)
}

fn port(value: &str) -> Result<u16, Exit> {
    let number = value.rsplit(':').next().unwrap_or(value);
    number
        .parse()
        .map_err(|_| Exit::usage(format!("`{value}` is not a port")))
}

async fn answer(request: Request<Incoming>, peer: SocketAddr, dialect: Dialect) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let mut segments = path.split('/').skip(1);
    let (first, second) = (segments.next().unwrap_or_default(), segments.next());
    let known = Seen {
        headers: &parts.headers,
        parts: &parts,
        peer,
        dialect,
    };
    match (first, second) {
        ("", None) => text(StatusCode::OK, "httpbin\n"),
        ("headers", None) => reply(&json!({ "headers": known.headers() })),
        ("ip", None) => reply(&json!({ "origin": known.origin() })),
        ("user-agent", None) => reply(&json!({ "user-agent": known.header("user-agent") })),
        ("uuid", None) => reply(&json!({ "uuid": uuid() })),
        ("get", None) if parts.method == Method::GET || parts.method == Method::HEAD => {
            reply(&known.request(None))
        }
        ("post" | "put" | "patch" | "delete", None) if parts.method.as_str().eq_ignore_ascii_case(first) => {
            with_body(&known, body).await
        }
        ("anything", _) => with_body(&known, body).await,
        ("status", Some(code)) => status(code),
        ("delay", Some(seconds)) => {
            let wait = seconds.parse::<f64>().ok().filter(|s| s.is_finite() && *s >= 0.0);
            let Some(wait) = wait else {
                return text(StatusCode::BAD_REQUEST, "not a number of seconds\n");
            };
            tokio::time::sleep(Duration::from_secs_f64(wait.min(DELAY.as_secs_f64()))).await;
            reply(&known.request(None))
        }
        ("bytes", Some(n)) => random_bytes(n),
        ("base64", Some(value)) => decoded(value),
        ("stream", Some(n)) => stream(n, &known),
        ("response-headers", None) => response_headers(parts.uri.query().unwrap_or_default()),
        ("get" | "post" | "put" | "patch" | "delete", None) => {
            text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n")
        }
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

/// What there is to tell about a request.
struct Seen<'a> {
    headers: &'a HeaderMap,
    parts: &'a http::request::Parts,
    peer: SocketAddr,
    dialect: Dialect,
}

impl Seen<'_> {
    fn headers(&self) -> Value {
        let mut out = Map::new();
        for name in self.headers.keys() {
            let values: Vec<String> = self
                .headers
                .get_all(name)
                .iter()
                .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
                .collect();
            out.insert(canonical(name.as_str()), self.many(values));
        }
        if let (false, Some(authority)) = (self.headers.contains_key("host"), self.parts.uri.authority()) {
            out.insert("Host".to_owned(), self.many(vec![authority.to_string()]));
        }
        Value::Object(out)
    }

    fn many(&self, values: Vec<String>) -> Value {
        match self.dialect {
            Dialect::Go => json!(values),
            Dialect::Python => json!(values.join(",")),
        }
    }

    fn header(&self, name: &str) -> Option<String> {
        self.headers
            .get(name)
            .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
    }

    fn origin(&self) -> String {
        let forwarded = self
            .header("x-forwarded-for")
            .and_then(|f| f.split(',').next().map(|a| a.trim().to_owned()));
        forwarded.unwrap_or_else(|| self.peer.ip().to_string())
    }

    fn request(&self, body: Option<&[u8]>) -> Value {
        let host = self
            .header("host")
            .or_else(|| self.parts.uri.authority().map(ToString::to_string))
            .unwrap_or_default();
        let mut args = Map::new();
        for (key, value) in pairs(self.parts.uri.query().unwrap_or_default()) {
            match self.dialect {
                Dialect::Python => drop(args.insert(key, json!(value))),
                Dialect::Go => match args.entry(key).or_insert_with(|| json!([])) {
                    Value::Array(list) => list.push(json!(value)),
                    other => *other = json!([value]),
                },
            }
        }
        let uri = self.parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let mut out = json!({
            "args": args,
            "headers": self.headers(),
            "method": self.parts.method.as_str(),
            "origin": self.origin(),
            "url": format!("http://{host}{uri}"),
        });
        if let (Some(body), Value::Object(map)) = (body, &mut out) {
            let text = match std::str::from_utf8(body) {
                Ok(text) => text.to_owned(),
                Err(_) => {
                    format!(
                        "data:application/octet-stream;base64,{}",
                        base64::engine::general_purpose::STANDARD.encode(body)
                    )
                }
            };
            let form = self
                .header("content-type")
                .is_some_and(|c| c.starts_with("application/x-www-form-urlencoded"));
            let fields: Map<String, Value> = if form {
                pairs(&text).map(|(k, v)| (k, json!(v))).collect()
            } else {
                Map::new()
            };
            map.insert(
                "json".to_owned(),
                serde_json::from_slice(body).unwrap_or(Value::Null),
            );
            map.insert("data".to_owned(), json!(if form { String::new() } else { text }));
            map.insert("form".to_owned(), Value::Object(fields));
            map.insert("files".to_owned(), json!({}));
        }
        out
    }
}

async fn with_body(known: &Seen<'_>, body: Incoming) -> Response<Body> {
    match Limited::new(body, BODY).collect().await {
        Ok(collected) => reply(&known.request(Some(&collected.to_bytes()))),
        Err(_) => text(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is too large or broke off\n",
        ),
    }
}

fn status(code: &str) -> Response<Body> {
    match code
        .parse()
        .ok()
        .and_then(|c: u16| StatusCode::from_u16(c).ok())
        .filter(|c| c.as_u16() >= 200)
    {
        None => text(StatusCode::BAD_REQUEST, "not a status code\n"),
        Some(status) => {
            let mut response = text(status, "");
            if status.is_redirection() {
                response
                    .headers_mut()
                    .insert("location", http::HeaderValue::from_static("/redirect/1"));
            }
            response
        }
    }
}

fn random_bytes(n: &str) -> Response<Body> {
    let Some(n) = n.parse::<usize>().ok().map(|n| n.min(BYTES)) else {
        return text(StatusCode::BAD_REQUEST, "not a number of bytes\n");
    };
    let mut bytes = vec![0; n];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => with_type(StatusCode::OK, "application/octet-stream", full(bytes)),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "no random bytes\n"),
    }
}

/// `/base64/VALUE`: the text that the value stands for.
fn decoded(value: &str) -> Response<Body> {
    match base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(value.trim_end_matches('=')) {
        Ok(bytes) => with_type(StatusCode::OK, "text/html; charset=utf-8", full(bytes)),
        Err(_) => text(StatusCode::BAD_REQUEST, "not base64\n"),
    }
}

fn stream(n: &str, known: &Seen<'_>) -> Response<Body> {
    let Some(n) = n.parse::<usize>().ok().map(|n| n.min(LINES)) else {
        return text(StatusCode::BAD_REQUEST, "not a number of lines\n");
    };
    let mut line = known.request(None);
    let lines: Vec<_> = (0..n)
        .map(|id| {
            if let Value::Object(map) = &mut line {
                map.insert("id".to_owned(), json!(id));
            }
            Ok(Frame::data(Bytes::from(format!("{line}\n"))))
        })
        .collect();
    let body = StreamBody::new(futures_util::stream::iter(lines));
    with_type(StatusCode::OK, "application/json", BodyExt::boxed_unsync(body))
}

fn response_headers(query: &str) -> Response<Body> {
    let all: Vec<_> = pairs(query).collect();
    let told: Map<String, Value> = all.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    let mut response = reply(&Value::Object(told));
    for (key, value) in &all {
        if let (Ok(name), Ok(value)) = (
            http::HeaderName::try_from(key.as_str()),
            http::HeaderValue::try_from(value.as_str()),
        ) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|p| !p.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    })
}

/// `%XX` and `+`, leniently.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let pair = (ahead.next().and_then(hex), ahead.next().and_then(hex));
        match (byte, pair) {
            (b'%', (Some(high), Some(low))) => {
                out.push(high * 16 + low);
                bytes = ahead;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

/// `x-request-id` -> `X-Request-Id`.
pub(crate) fn canonical(name: &str) -> String {
    let mut start = true;
    name.chars()
        .map(|c| {
            let shown = if start { c.to_ascii_uppercase() } else { c };
            start = c == '-';
            shown
        })
        .collect()
}

fn uuid() -> String {
    let mut b = [0_u8; 16];
    // Without random bytes the value is all zeros, which nobody relies on.
    let _ = SystemRandom::new().fill(&mut b);
    let mut n = u128::from_be_bytes(b);
    n = n & !(0xf << 76) | 4 << 76;
    n = n & !(0x3 << 62) | 2 << 62;
    let h = format!("{n:032x}");
    [
        h.get(0..8),
        h.get(8..12),
        h.get(12..16),
        h.get(16..20),
        h.get(20..32),
    ]
    .map(Option::unwrap_or_default)
    .join("-")
}

fn reply(value: &Value) -> Response<Body> {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    with_type(StatusCode::OK, "application/json", full(text))
}

fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    with_type(status, "text/plain; charset=utf-8", full(body))
}

fn with_type(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("content-type", http::HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert("server", http::HeaderValue::from_static("httpbin"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_parts() {
        assert_eq!(canonical("x-forwarded-client-cert"), "X-Forwarded-Client-Cert");
        assert_eq!(decode("a%20b+c%zz%2"), "a b c%zz%2");
        let id = uuid();
        assert_eq!(
            (id.len(), id.as_bytes()[14], id.matches('-').count()),
            (36, b'4', 4),
            "{id}"
        );
        assert_ne!(uuid(), id);
    }

    #[test]
    fn ports() {
        assert_eq!(port("0.0.0.0:1337").unwrap(), 1337);
        assert_eq!(port("[::]:80").unwrap(), 80);
        assert!(port("http").is_err());
    }
}
