//! A collector of traces: OTLP over gRPC and over HTTP in protocol buffers. It prints each span as a line of JSON.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use prost::Message;

use crate::Exit;
use crate::echo::grpc;
use crate::serve::{self, Body, full};

/// The path over gRPC.
const GRPC: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// The most of a request, bytes.
const BODY: usize = 4 * 1024 * 1024;

/// Runs on `--port` (4317).
pub(crate) async fn run(args: &[String]) -> Result<i32, Exit> {
    let port = match args {
        [] => 4317,
        [flag, port] if flag == "--port" => port
            .parse()
            .map_err(|_| Exit::usage(format!("`{port}` is no port")))?,
        _ => return Err(Exit::usage("collector takes `--port PORT`")),
    };
    let listener = serve::listen(port).await?;
    serve::accept_loop(listener, |stream, _| serve::connection(stream, answer)).await?;
    Ok(0)
}

async fn answer(request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY).collect().await else {
        return status(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let body = body.to_bytes();
    let kind = parts.headers.get("content-type").map(|kind| kind.as_bytes());
    let over_grpc = kind.is_some_and(|kind| kind.starts_with(b"application/grpc"));
    let export = match over_grpc {
        true if parts.uri.path() == GRPC => grpc::unframe::<Export>(&body),
        true => None,
        false if kind == Some(b"application/x-protobuf") => Export::decode(body).ok(),
        false => None,
    };
    let Some(export) = export else {
        return match over_grpc {
            true => grpc::answer(None, 12),
            false => status(StatusCode::BAD_REQUEST),
        };
    };
    let marks = parts
        .headers
        .get("x-collector")
        .and_then(|value| value.to_str().ok());
    for span in lines(&export, parts.uri.path(), marks.unwrap_or_default()) {
        println!("{span}");
    }
    match over_grpc {
        // An empty ExportTraceServiceResponse.
        true => grpc::answer(Some(Bytes::from_static(&[0, 0, 0, 0, 0])), 0),
        false => Response::new(full("")),
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = status;
    response
}

fn lines(export: &Export, path: &str, marks: &str) -> Vec<serde_json::Value> {
    let mut lines = Vec::new();
    for resource in &export.resource_spans {
        let of = resource
            .resource
            .as_ref()
            .map(|resource| resource.attributes.as_slice());
        for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
            lines.push(serde_json::json!({
                "path": path,
                "header": marks,
                "resource": attributes(of.unwrap_or_default()),
                "traceId": hex(&span.trace_id),
                "spanId": hex(&span.span_id),
                "parentSpanId": hex(&span.parent_span_id),
                "traceState": span.trace_state,
                "name": span.name,
                "kind": span.kind,
                "error": span.status.as_ref().is_some_and(|status| status.code == 2),
                "nanos": span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
                "attributes": attributes(&span.attributes),
            }));
        }
    }
    lines
}

fn attributes(of: &[KeyValue]) -> serde_json::Value {
    let text = |pair: &KeyValue| {
        pair.value
            .clone()
            .map(|value| value.string_value)
            .unwrap_or_default()
    };
    of.iter()
        .map(|pair| (pair.key.clone(), serde_json::Value::from(text(pair))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, tag = "1")]
    string_value: String,
}
