//! Spans in OTLP's protocol buffers (opentelemetry-proto 1.x, `trace/v1` and `collector/trace/v1`).
//!
//! Only what is sent is written, by hand: some twenty fields of four messages, none of which is ever read.

use std::time::SystemTime;

use crate::event::{Decision, Event, Peer};
use crate::trace::{Span, SpanKind};

/// The path of the method over gRPC.
pub const EXPORT_METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Fields of `Span`.
mod field {
    pub(super) const TRACE_ID: u32 = 1;
    pub(super) const SPAN_ID: u32 = 2;
    pub(super) const TRACE_STATE: u32 = 3;
    pub(super) const PARENT_SPAN_ID: u32 = 4;
    pub(super) const NAME: u32 = 5;
    pub(super) const KIND: u32 = 6;
    pub(super) const START: u32 = 7;
    pub(super) const END: u32 = 8;
    pub(super) const ATTRIBUTES: u32 = 9;
    pub(super) const STATUS: u32 = 15;
}

/// `SpanKind` and `StatusCode`.
const SERVER: u64 = 2;
const CLIENT: u64 = 3;
const ERROR: u64 = 2;

/// A message that is written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or_default());
    }

    fn key(&mut self, field: u32, wire: u64) {
        self.varint((u64::from(field) << 3) | wire);
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        if value.is_empty() {
            return;
        }
        self.message(field, value);
    }

    /// As [`Self::bytes`], written also where it is empty.
    fn message(&mut self, field: u32, value: &[u8]) {
        self.key(field, 2);
        self.varint(u64::try_from(value.len()).unwrap_or(u64::MAX));
        self.0.extend_from_slice(value);
    }

    fn number(&mut self, field: u32, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }

    fn fixed(&mut self, field: u32, value: u64) {
        self.key(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// `KeyValue` with a text.
    fn attribute(&mut self, field: u32, key: &str, value: &str) {
        let mut any = Self::default();
        any.message(1, value.as_bytes());
        let mut pair = Self::default();
        pair.bytes(1, key.as_bytes());
        pair.message(2, &any.0);
        self.message(field, &pair.0);
    }
}

/// `ExportTraceServiceRequest` with the spans of one workload.
pub fn request(service: &str, node: &str, spans: &[Vec<u8>]) -> Vec<u8> {
    let mut resource = Message::default();
    resource.attribute(1, "service.name", service);
    resource.attribute(1, "k8s.node.name", node);
    let mut scope = Message::default();
    scope.bytes(1, b"meshward");
    scope.bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
    let mut of_scope = Message::default();
    of_scope.message(1, &scope.0);
    for span in spans {
        of_scope.message(2, span);
    }
    let mut of_resource = Message::default();
    of_resource.message(1, &resource.0);
    of_resource.message(2, &of_scope.0);
    let mut request = Message::default();
    request.message(1, &of_resource.0);
    request.0
}

/// `Span`, with the attributes that Istio's proxies give theirs.
pub(crate) fn span(span: &Span, event: &Event) -> Vec<u8> {
    let mut out = Message::default();
    out.bytes(field::TRACE_ID, &span.context.trace);
    out.bytes(field::SPAN_ID, &span.context.span);
    out.bytes(field::TRACE_STATE, span.state.as_bytes());
    if let Some(parent) = &span.parent {
        out.bytes(field::PARENT_SPAN_ID, parent);
    }
    let host = event.service.as_deref().unwrap_or("unknown");
    out.bytes(field::NAME, format!("{host}:{}/*", event.port).as_bytes());
    out.number(
        field::KIND,
        match span.kind {
            SpanKind::Server => SERVER,
            SpanKind::Client => CLIENT,
        },
    );
    out.fixed(field::START, nanos(event.time));
    out.fixed(field::END, nanos(event.time + event.duration));
    for (key, value) in attributes(span, event) {
        out.attribute(field::ATTRIBUTES, &key, cut(&value, span.max_tag_length));
    }
    let failed = event
        .http
        .as_ref()
        .is_some_and(|http| http.code >= 500 || http.code == 0);
    if failed || event.decision == Decision::Deny {
        let mut status = Message::default();
        status.number(3, ERROR);
        out.message(field::STATUS, &status.0);
    }
    out.0
}

fn attributes(span: &Span, event: &Event) -> Vec<(String, String)> {
    let own: &Peer = match span.kind {
        SpanKind::Server => &event.destination,
        SpanKind::Client => &event.source,
    };
    let mut out = Vec::with_capacity(24);
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            out.push((key.to_owned(), value.to_owned()));
        }
    };
    put("component", "proxy");
    put("istio.canonical_service", &own.canonical_name);
    put("istio.canonical_revision", &own.canonical_revision);
    put("istio.namespace", &own.namespace);
    put("istio.cluster_id", "Kubernetes");
    put("node_id", &own.pod);
    if let Some(http) = &event.http {
        put("http.method", &http.method);
        put("http.url", &format!("http://{}{}", http.authority, http.path));
        put("http.protocol", http.version);
        put("http.status_code", &http.code.to_string());
        put("guid:x-request-id", &http.request_id);
        put("user_agent", &http.user_agent);
        if let Some(status) = http.grpc_status {
            put("grpc.status_code", &status.to_string());
        }
    }
    put("request_size", &event.bytes_received.to_string());
    put("response_size", &event.bytes_sent.to_string());
    put("response_flags", event.flags);
    for (prefix, peer) in [("source", &event.source), ("destination", &event.destination)] {
        put(&format!("{prefix}.workload.name"), &peer.workload);
        put(&format!("{prefix}.workload.namespace"), &peer.namespace);
        if let Some(id) = &peer.principal {
            put(&format!("{prefix}.principal"), &id.to_string());
        }
    }
    if let Some(address) = event.source.address {
        put("peer.address", &address.ip().to_string());
    }
    if let Some(upstream) = event.upstream {
        put("upstream_address", &upstream.to_string());
    }
    if let Some(reason) = event.reason {
        put("meshward.reason", reason.as_str());
    }
    if let Some(id) = &event.decision_id {
        put("meshward.decision_id", id);
    }
    out.extend(span.tags.iter().cloned());
    out
}

/// The beginning of a text, whole characters.
fn cut(text: &str, most: usize) -> &str {
    let end = text.floor_char_boundary(most.min(text.len()));
    text.get(..end).unwrap_or_default()
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::trace::{SpanOwner, TraceContext};
    use crate::{EventKind, HttpEvent, Reporter};

    /// Length-delimited fields of that number, at the top of a message.
    fn fields(message: &[u8], wanted: u32) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut at = 0;
        let varint = |at: &mut usize| {
            let (mut value, mut shift) = (0_u64, 0);
            loop {
                let byte = message[*at];
                *at += 1;
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    return value;
                }
            }
        };
        while at < message.len() {
            let key = varint(&mut at);
            match key & 7 {
                0 => drop(varint(&mut at)),
                1 => at += 8,
                2 => {
                    let length = usize::try_from(varint(&mut at)).unwrap();
                    if key >> 3 == u64::from(wanted) {
                        found.push(message[at..at + length].to_vec());
                    }
                    at += length;
                }
                other => panic!("wire type {other}"),
            }
        }
        found
    }

    fn event() -> Event {
        let mut event = Event::new(
            EventKind::Request,
            Reporter::Source,
            UNIX_EPOCH + Duration::from_secs(10),
            Arc::default(),
            Arc::default(),
        );
        event.service = Some("web.full.svc.cluster.local".into());
        event.port = 80;
        event.http = Some(Box::new(HttpEvent {
            code: 503,
            path: "/a".into(),
            ..HttpEvent::default()
        }));
        event
    }

    #[test]
    fn a_request_has_its_spans_under_a_resource_and_a_scope() {
        let started = Span {
            context: TraceContext::begin([7; 24], true),
            parent: None,
            state: "a=b".to_owned(),
            kind: SpanKind::Client,
            tags: vec![("mine".to_owned(), "é".repeat(10))],
            max_tag_length: 7,
            owner: SpanOwner {
                mark: 1,
                provider: "otel".into(),
                service: "sleep.full".into(),
            },
        };
        let bytes = span(&started, &event());
        let request = request("sleep.full", "node-0", &[bytes.clone(), bytes]);
        let resource = fields(&request, 1).remove(0);
        let attribute = fields(&fields(&resource, 1).remove(0), 1).remove(0);
        assert_eq!(fields(&attribute, 1), [b"service.name"]);
        assert_eq!(fields(&fields(&attribute, 2).remove(0), 1), [b"sleep.full"]);
        let scope = fields(&resource, 2).remove(0);
        let spans = fields(&scope, 2);
        assert_eq!(spans.len(), 2);
        let one = &spans[0];
        assert_eq!(fields(one, 1), [[7; 16]]);
        assert_eq!(fields(one, 2), [[7; 8]]);
        assert_eq!(fields(one, 3), [b"a=b"]);
        assert!(fields(one, 4).is_empty(), "no parent is no field");
        assert_eq!(fields(one, 5), [b"web.full.svc.cluster.local:80/*"]);
        assert_eq!(fields(one, 15).len(), 1, "503 is an error");
        let mine = fields(one, 9)
            .into_iter()
            .find(|pair| fields(pair, 1) == [b"mine"])
            .unwrap();
        // Seven bytes are three characters of two.
        assert_eq!(fields(&fields(&mine, 2).remove(0), 1), ["ééé".as_bytes()]);
    }

    #[test]
    fn a_span_names_its_parent() {
        let started = Span {
            context: TraceContext::begin([7; 24], true),
            parent: Some([9; 8]),
            state: String::new(),
            kind: SpanKind::Server,
            tags: Vec::new(),
            max_tag_length: 256,
            owner: SpanOwner {
                mark: 1,
                provider: "otel".into(),
                service: "web.full".into(),
            },
        };
        assert_eq!(fields(&span(&started, &event()), 4), [[9; 8]]);
    }
}
