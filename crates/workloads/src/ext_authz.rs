//! Istio's sample of an external authorizer: admits what has the header `x-ext-authz: allow`, over gRPC also whoever calls
//! as a certain service account where that header is missing. HTTP on one port, Envoy's `ext_authz` v3 on another.

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use prost::Message;

use crate::echo::grpc::{answer, unframe};
use crate::serve::{self, Body, full};
use crate::{Exit, echo};

/// Asked by this header.
const HEADER: &str = "x-ext-authz";
/// Told by these.
const RESULT: &str = "x-ext-authz-check-result";
const RECEIVED: &str = "x-ext-authz-check-received";
const OVERRIDE: &str = "x-ext-authz-additional-header-override";
/// What overrides over gRPC.
const OVERRIDDEN: &str = "grpc-additional-header-override-value";
const DENIED: &str = "denied by ext_authz for not found header `x-ext-authz: allow` in the request";
/// The method over gRPC.
const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";

/// How much of a question is read.
const BODY: usize = 4 * 1024 * 1024;
/// How much of it is told back.
const TOLD: usize = 8 * 1024;

/// `[--http PORT] [--grpc PORT] [--allow_service_account NAME]`, as the original has it; 8000, 9000 and `a` where not given.
pub(crate) async fn run(args: &[String]) -> Result<i32, Exit> {
    let (mut http, mut grpc, mut account) = (8000, 9000, "a".to_owned());
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let mut value = || {
            value
                .clone()
                .or_else(|| words.next().cloned())
                .unwrap_or_default()
        };
        let port = |text: String| {
            text.parse()
                .map_err(|_| Exit::usage(format!("`{text}` is not a port")))
        };
        match name.trim_start_matches('-') {
            "http" => http = port(value())?,
            "grpc" => grpc = port(value())?,
            "allow_service_account" => account = value(),
            _ => {}
        }
    }
    let by_http = serve::accept_loop(serve::listen(http).await?, |stream, _| {
        serve::connection(stream, over_http)
    });
    let by_grpc = serve::accept_loop(serve::listen(grpc).await?, move |stream, _| {
        let account = account.clone();
        serve::connection(stream, move |request| over_grpc(request, account.clone()))
    });
    println!("listening on port {http} for HTTP and on port {grpc} for gRPC");
    tokio::try_join!(by_http, by_grpc)?;
    Ok(0)
}

async fn over_http(request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, BODY)
        .collect()
        .await
        .map(|b| b.to_bytes())
        .unwrap_or_default();
    let admits = parts.headers.get(HEADER).is_some_and(|value| value == "allow");
    let host = text(&parts.headers, "host");
    let names: Vec<_> = parts.headers.keys().map(|name| name.as_str()).collect();
    let received = format!(
        "{} {host}{}, headers: {}, body: [{}]",
        parts.method,
        parts.uri,
        names.join(" "),
        String::from_utf8_lossy(&body)
    );
    let (status, result, body) = if admits {
        (StatusCode::OK, "allowed", "")
    } else {
        (StatusCode::FORBIDDEN, "denied", DENIED)
    };
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    for (name, value) in [
        (RESULT, result.to_owned()),
        (OVERRIDE, text(&parts.headers, OVERRIDE)),
        (RECEIVED, told(&received)),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn over_grpc(request: Request<Incoming>, account: String) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, BODY)
        .collect()
        .await
        .map(|b| b.to_bytes())
        .unwrap_or_default();
    match (parts.uri.path(), unframe::<CheckRequest>(&body)) {
        (METHOD, Some(asked)) => answer(Some(echo::grpc::frame(&decide(asked, &account))), 0),
        (METHOD, None) => answer(None::<Bytes>, 3),
        _ => answer(None, 12),
    }
}

fn decide(asked: CheckRequest, account: &str) -> CheckResponse {
    let attributes = asked.attributes.unwrap_or_default();
    let principal = attributes.source.unwrap_or_default().principal;
    let http = attributes.request.unwrap_or_default().http.unwrap_or_default();
    let admits = match http.headers.get(HEADER) {
        Some(value) => value == "allow",
        None => principal.ends_with(&format!("/sa/{account}")),
    };
    let received = format!("source: {principal}, {} {}{}", http.method, http.host, http.path);
    let headers = [
        (RESULT, if admits { "allowed" } else { "denied" }.to_owned()),
        (RECEIVED, told(&received)),
        (OVERRIDE, OVERRIDDEN.to_owned()),
    ]
    .map(|(key, value)| HeaderOption {
        header: Some(Header {
            key: key.to_owned(),
            value,
        }),
    });
    let code = if admits { 0 } else { 7 };
    let (denied, ok) = if admits {
        (
            None,
            Some(Ok {
                headers: headers.into(),
            }),
        )
    } else {
        let denied = Denied {
            status: Some(HttpStatus { code: 403 }),
            headers: headers.into(),
            body: DENIED.to_owned(),
        };
        (Some(denied), None)
    };
    CheckResponse {
        status: Some(Status { code }),
        denied,
        ok,
    }
}

fn text(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// What fits into a header field.
fn told(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TOLD).collect()
}

/// Parts of Envoy's messages, by hand.
#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

#[derive(Clone, PartialEq, Message)]
struct Attributes {
    #[prost(message, optional, tag = "1")]
    source: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    request: Option<AttributeRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct Peer {
    #[prost(string, tag = "4")]
    principal: String,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeRequest {
    #[prost(message, optional, tag = "2")]
    http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct HttpRequest {
    #[prost(string, tag = "2")]
    method: String,
    #[prost(map = "string, string", tag = "3")]
    headers: HashMap<String, String>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
}

#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(message, optional, tag = "2")]
    denied: Option<Denied>,
    #[prost(message, optional, tag = "3")]
    ok: Option<Ok>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Denied {
    #[prost(message, optional, tag = "1")]
    status: Option<HttpStatus>,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderOption>,
    #[prost(string, tag = "3")]
    body: String,
}

#[derive(Clone, PartialEq, Message)]
struct HttpStatus {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Ok {
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderOption>,
}

#[derive(Clone, PartialEq, Message)]
struct HeaderOption {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(header: Option<&str>, principal: &str) -> CheckRequest {
        CheckRequest {
            attributes: Some(Attributes {
                source: Some(Peer {
                    principal: principal.to_owned(),
                }),
                request: Some(AttributeRequest {
                    http: Some(HttpRequest {
                        headers: header
                            .map(|value| (HEADER.to_owned(), value.to_owned()))
                            .into_iter()
                            .collect(),
                        ..HttpRequest::default()
                    }),
                }),
            }),
        }
    }

    #[test]
    fn the_header_counts_and_without_it_the_account() {
        let a = "spiffe://td/ns/n/sa/a";
        for (header, principal, admits) in [
            (Some("allow"), "", true),
            (Some("deny"), a, false),
            (None, a, true),
            (None, "spiffe://td/ns/n/sa/aa", false),
        ] {
            let said = decide(asked(header, principal), "a");
            assert_eq!(
                said.status,
                Some(Status {
                    code: if admits { 0 } else { 7 }
                }),
                "{header:?} {principal}"
            );
            assert_eq!((said.ok.is_some(), said.denied.is_some()), (admits, !admits));
        }
    }
}
