//! What an authorizer is asked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use model::SpiffeId;
use prost::Message as _;
use proto::envoy::config::core::v3::{Address, SocketAddress, address, socket_address};
use proto::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use proto::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use snapshot::HttpCheck;

use crate::changes::is_of_hop;
use crate::frame::frame;

/// The path of the call over gRPC.
pub const CHECK_METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Says whether what an authorizer sees of a body is not all of it, as Envoy does.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// Fields of every question over HTTP, as Envoy has them; the path and the method are there anyway.
const ALWAYS: [&str; 2] = ["host", "authorization"];

/// One end of a connection.
#[derive(Clone, Debug)]
pub struct Party<'a> {
    /// Its address.
    pub address: SocketAddr,
    /// Who it has proven to be.
    pub identity: Option<&'a SpiffeId>,
}

/// What is known of a connection.
#[derive(Clone, Debug)]
pub struct Connection<'a> {
    /// The caller.
    pub source: Party<'a>,
    /// The workload.
    pub destination: Party<'a>,
}

/// What is known of a request.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// Host.
    pub authority: &'a str,
    /// Path and query, normalised.
    pub path: &'a str,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    /// All fields.
    pub headers: &'a HeaderMap,
    /// Its id.
    pub id: &'a str,
    /// When it came.
    pub time: SystemTime,
    /// What is to be seen of its body; `None` where nothing is asked for.
    pub body: Option<SeenBody>,
}

/// What an authorizer sees of a body.
#[derive(Clone, Debug)]
pub struct SeenBody {
    /// The bytes.
    pub bytes: Bytes,
    /// Whether there are more.
    pub partial: bool,
    /// Whether gRPC gets them as bytes.
    pub as_bytes: bool,
}

/// The message over gRPC, framed; of a connection where there is no request.
pub fn grpc(connection: &Connection<'_>, asked: Option<&Asked<'_>>) -> Bytes {
    let request = CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(peer(&connection.source)),
            destination: Some(peer(&connection.destination)),
            request: asked.map(request),
            ..AttributeContext::default()
        }),
    };
    frame(&request.encode_to_vec())
}

fn peer(party: &Party<'_>) -> Peer {
    Peer {
        address: Some(Address {
            address: Some(address::Address::SocketAddress(SocketAddress {
                protocol: 0,
                address: party.address.ip().to_string(),
                port_specifier: Some(socket_address::PortSpecifier::PortValue(
                    party.address.port().into(),
                )),
            })),
        }),
        principal: party.identity.map(ToString::to_string).unwrap_or_default(),
        ..Peer::default()
    }
}

fn request(asked: &Asked<'_>) -> Request {
    let mut headers = HashMap::with_capacity(asked.headers.keys_len() + 5);
    for name in asked.headers.keys().filter(|name| *name != header::HOST) {
        headers.insert(name.as_str().to_owned(), joined(asked.headers, name));
    }
    for (name, value) in [
        (":method", asked.method.as_str()),
        (":path", asked.path),
        (":authority", asked.authority),
        (":scheme", "http"),
    ] {
        headers.insert(name.to_owned(), value.to_owned());
    }
    let (mut body, mut raw_body) = (String::new(), Vec::new());
    if let Some(seen) = &asked.body {
        headers.insert(PARTIAL_BODY.to_owned(), seen.partial.to_string());
        if seen.as_bytes {
            raw_body = seen.bytes.to_vec();
        } else {
            body = String::from_utf8_lossy(&seen.bytes).into_owned();
        }
    }
    let length = asked.headers.get(header::CONTENT_LENGTH);
    let size = match (length, &asked.body) {
        (Some(length), _) => length.to_str().ok().and_then(|text| text.parse().ok()),
        (None, Some(seen)) if !seen.partial => i64::try_from(seen.bytes.len()).ok(),
        _ => None,
    };
    Request {
        time: Some(proto::Timestamp::from(asked.time)),
        http: Some(HttpRequest {
            id: asked.id.to_owned(),
            method: asked.method.as_str().to_owned(),
            headers,
            path: asked.path.to_owned(),
            host: asked.authority.to_owned(),
            scheme: "http".to_owned(),
            size: size.unwrap_or(-1),
            protocol: asked.protocol.to_owned(),
            body,
            raw_body,
            ..HttpRequest::default()
        }),
    }
}

/// All values of a field in one text. A byte that is no text becomes one that stands for such.
fn joined(headers: &HeaderMap, name: &HeaderName) -> String {
    let values = headers.get_all(name).iter();
    let texts: Vec<_> = values
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    // Cookies are apart by a semicolon (RFC 9113, 8.2.3).
    texts.join(if *name == header::COOKIE { "; " } else { "," })
}

/// A question over HTTP.
#[derive(Clone, Debug)]
pub struct HttpQuestion {
    /// The method of the request.
    pub method: Method,
    /// The prefix, and the path and query of the request.
    pub path: String,
    /// Fields that may be seen.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// The question over HTTP.
pub fn http(check: &HttpCheck, asked: &Asked<'_>) -> HttpQuestion {
    let mut headers = HeaderMap::new();
    for (name, value) in asked.headers {
        let seen = ALWAYS.contains(&name.as_str()) || check.headers.iter().any(|p| p.takes(name.as_str()));
        if seen && !is_of_hop(name) {
            headers.append(name, value.clone());
        }
    }
    for (name, value) in &check.additional {
        let parsed = (
            name.parse::<HeaderName>(),
            HeaderValue::try_from(filled(value, asked)),
        );
        if let (Ok(name), Ok(value)) = parsed
            && !is_of_hop(&name)
        {
            headers.insert(name, value);
        }
    }
    let body = asked
        .body
        .as_ref()
        .map(|seen| seen.bytes.clone())
        .unwrap_or_default();
    if let Some(seen) = &asked.body {
        let partial = if seen.partial { "true" } else { "false" };
        headers.insert(PARTIAL_BODY, HeaderValue::from_static(partial));
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    let path = match check.path_prefix.as_str() {
        "" => asked.path.to_owned(),
        // `OPTIONS *` has no path to put anything before.
        prefix if asked.path == "*" => prefix.to_owned(),
        prefix => format!("{prefix}{}", asked.path),
    };
    HttpQuestion {
        method: asked.method.clone(),
        path,
        headers,
        body,
    }
}

/// A value in which `%REQ(NAME)%` stands for a field of the request, `-` where it has none, and `%%` for `%`.
fn filled(value: &str, asked: &Asked<'_>) -> String {
    let mut out = String::new();
    for (at, part) in value.split('%').enumerate() {
        let operator = at % 2 == 1;
        match part.strip_prefix("REQ(").and_then(|rest| rest.strip_suffix(')')) {
            _ if !operator => out.push_str(part),
            None => out.push('%'),
            Some(":method") | Some(":METHOD") => out.push_str(asked.method.as_str()),
            Some(":path") | Some(":PATH") => out.push_str(asked.path),
            Some(":authority") | Some(":AUTHORITY") => out.push_str(asked.authority),
            Some(":scheme") | Some(":SCHEME") => out.push_str("http"),
            Some(name) => match name.parse::<HeaderName>() {
                Ok(name) if asked.headers.contains_key(&name) => out.push_str(&joined(asked.headers, &name)),
                _ => out.push('-'),
            },
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use snapshot::HeaderPattern;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn asked(headers: &HeaderMap, body: Option<SeenBody>) -> Asked<'_> {
        Asked {
            method: &Method::POST,
            authority: "web.example",
            path: "/a?b=c",
            protocol: "HTTP/2",
            headers,
            id: "id-1",
            time: SystemTime::UNIX_EPOCH,
            body,
        }
    }

    fn body(text: &'static str, partial: bool, as_bytes: bool) -> SeenBody {
        SeenBody {
            bytes: Bytes::from_static(text.as_bytes()),
            partial,
            as_bytes,
        }
    }

    #[test]
    fn s2_13_a_question_over_grpc_says_who_and_what() {
        let id: SpiffeId = "spiffe://cluster.local/ns/n/sa/a".parse().unwrap();
        let map = headers(&[
            ("host", "web.example"),
            ("x-a", "1"),
            ("x-a", "2"),
            ("cookie", "a"),
            ("cookie", "b"),
        ]);
        let connection = Connection {
            source: Party {
                address: "10.0.0.1:5".parse().unwrap(),
                identity: Some(&id),
            },
            destination: Party {
                address: "[fd77::1]:80".parse().unwrap(),
                identity: None,
            },
        };
        let bytes = grpc(&connection, Some(&asked(&map, Some(body("hi", false, false)))));
        let sent = CheckRequest::decode(crate::unframe(&bytes).unwrap())
            .unwrap()
            .attributes
            .unwrap();
        assert_eq!(sent.source.as_ref().unwrap().principal, id.to_string());
        assert_eq!(sent.destination.as_ref().unwrap().principal, "");
        let request = sent.request.unwrap();
        let http = request.http.unwrap();
        assert_eq!(
            (
                http.method.as_str(),
                http.path.as_str(),
                http.host.as_str(),
                http.protocol.as_str()
            ),
            ("POST", "/a?b=c", "web.example", "HTTP/2")
        );
        assert_eq!(
            (http.body.as_str(), http.size, http.id.as_str()),
            ("hi", 2, "id-1")
        );
        for (name, value) in [
            ("x-a", "1,2"),
            ("cookie", "a; b"),
            (":authority", "web.example"),
            (":path", "/a?b=c"),
            ("x-envoy-auth-partial-body", "false"),
        ] {
            assert_eq!(http.headers.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!http.headers.contains_key("host"));
        let bytes = grpc(&connection, None);
        let sent = CheckRequest::decode(crate::unframe(&bytes).unwrap())
            .unwrap()
            .attributes
            .unwrap();
        assert!(sent.request.is_none() && sent.source.is_some());
        let bytes = grpc(&connection, Some(&asked(&map, Some(body("hi", true, true)))));
        let sent = CheckRequest::decode(crate::unframe(&bytes).unwrap())
            .unwrap()
            .attributes
            .unwrap();
        let http = sent.request.unwrap().http.unwrap();
        assert_eq!(
            (http.body.as_str(), http.raw_body.as_slice(), http.size),
            ("", &b"hi"[..], -1)
        );
    }

    #[test]
    fn s2_13_over_http_only_what_is_listed_is_seen() {
        let map = headers(&[
            ("host", "web.example"),
            ("authorization", "Bearer t"),
            ("cookie", "secret"),
            ("x-a", "1"),
            ("x-b-c", "2"),
            ("x-z", "theirs"),
            ("transfer-encoding", "chunked"),
            ("connection", "x-b"),
            ("content-length", "77"),
        ]);
        let check = HttpCheck {
            path_prefix: "/check".to_owned(),
            headers: ["X-A", "x-b*", "connection", "transfer-encoding", "content-length"]
                .map(HeaderPattern::new)
                .into(),
            additional: [
                ("x-z", "ours"),
                ("x-scheme", "%REQ(:SCHEME)%"),
                ("x-copy", "a%%%REQ(X-A)%:%REQ(gone)%"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            ..HttpCheck::default()
        };
        let question = http(&check, &asked(&map, None));
        let mut seen: Vec<_> = question
            .headers
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        seen.sort();
        assert_eq!(
            seen,
            [
                "authorization=Bearer t",
                "content-length=0",
                "host=web.example",
                "x-a=1",
                "x-b-c=2",
                "x-copy=a%1:-",
                "x-scheme=http",
                "x-z=ours"
            ]
        );
        assert_eq!(
            (question.method, question.path.as_str()),
            (Method::POST, "/check/a?b=c")
        );
        let question = http(&check, &asked(&map, Some(body("hello", true, false))));
        assert_eq!(
            (
                question.headers["content-length"].to_str().unwrap(),
                question.body.len()
            ),
            ("5", 5)
        );
        assert_eq!(question.headers["x-envoy-auth-partial-body"], "true");
    }
}
