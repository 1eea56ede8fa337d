//! The one event type.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::{Reason, SpiffeId, Text};
use serde::Serialize;

use crate::redact;

/// What a proxy saw of one request or one connection, from accept to its end. What all events of a connection have in
/// common they share, and short texts are held in place: [`Event`] and [`HttpEvent`] are all that one is made of, mostly.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When it began.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// Request, connection, or packets that were dropped.
    pub kind: EventKind,
    /// Which side's proxy speaks.
    pub reporter: Reporter,
    /// Who called. Shared by all events of a connection.
    pub source: Arc<Peer>,
    /// Who was called.
    pub destination: Arc<Peer>,
    /// The Service that the caller addressed, as host (`httpbin.full.svc.cluster.local`), where one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Arc<str>>,
    /// The Service port that the caller addressed, or the port that was dialled.
    pub port: u16,
    /// `http`, `grpc`, `tcp`, `tls` or `dns`: `request_protocol` of the metrics.
    pub protocol: &'static str,
    /// How it came, or went, over the wire.
    pub wire: Wire,
    /// SNI, where TLS was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<Arc<str>>,
    /// The request, for HTTP.
    #[serde(flatten)]
    pub http: Option<Box<HttpEvent>>,
    /// Envoy's response flags, comma separated, `-` for none (`NR`, `UF`, `UH`, `UC`, `DC`, ...).
    pub flags: &'static str,
    /// Envoy's response code details or connection termination details.
    pub details: Cow<'static, str>,
    /// Bytes from the caller: the body for HTTP, all for TCP.
    pub bytes_received: u64,
    /// Bytes to the caller.
    pub bytes_sent: u64,
    /// How long it took.
    #[serde(rename = "durationMs", serialize_with = "millis")]
    pub duration: Duration,
    /// What was decided.
    pub decision: Decision,
    /// Why it was not carried, where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The policy that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyRef>,
    /// The external authorizers that were asked, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ext_authz: Vec<ExtAuthz>,
    /// The short id that a refused caller received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision_id: Option<Box<str>>,
    /// Where it was sent on to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<SocketAddr>,
    /// Whether it is left out of the access log (Telemetry `accessLogging`). What was refused never is.
    #[serde(skip)]
    pub unlogged: bool,
    /// A sentence for people about what went wrong, where something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Box<str>>,
}

impl Event {
    /// An event of that kind that began at `time`, with nothing decided and nothing known yet.
    pub fn new(
        kind: EventKind,
        reporter: Reporter,
        time: SystemTime,
        source: Arc<Peer>,
        destination: Arc<Peer>,
    ) -> Self {
        Self {
            time,
            kind,
            reporter,
            source,
            destination,
            service: None,
            port: 0,
            protocol: "tcp",
            wire: Wire::Plaintext,
            sni: None,
            http: None,
            flags: "-",
            details: Cow::Borrowed(""),
            bytes_received: 0,
            bytes_sent: 0,
            duration: Duration::ZERO,
            decision: Decision::NotDecided,
            reason: None,
            policy: None,
            ext_authz: Vec::new(),
            decision_id: None,
            upstream: None,
            unlogged: false,
            message: None,
        }
    }

    /// Takes tokens out of the path: whoever keeps an event, or shows it, asks for this first. [`crate::Telemetry`] does.
    pub fn redact(&mut self) {
        let Some(http) = self.http.as_deref_mut() else {
            return;
        };
        for path in [Some(&mut http.path), http.path_normalized.as_mut()] {
            if let Some(path) = path
                && let Cow::Owned(redacted) = redact::target(path)
            {
                *path = redacted.into();
            }
        }
    }

    /// A copy without them.
    pub(crate) fn redacted(&self) -> Self {
        let mut copy = self.clone();
        copy.redact();
        copy
    }

    /// Whether it was refused by a rule or a floor, in the sense of `logs --denied`.
    pub fn denied(&self) -> bool {
        self.decision == Decision::Deny
    }
}

/// What an event is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// One HTTP request.
    Request,
    /// One connection of bytes, or one that ended before a request was read.
    Connection,
    /// Packets that capture dropped.
    Drop,
    /// A DNS question that was refused.
    Dns,
}

/// Which side's proxy speaks: `reporter` of the metrics.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reporter {
    /// The caller's.
    Source,
    /// The callee's.
    Destination,
}

impl Reporter {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// How it came, or went, over the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// Mutual TLS of the mesh.
    MutualTls,
    /// A tunnel within mutual TLS of the mesh (HBONE).
    Hbone,
    /// Handed over inside one proxy after the same checks, between two proven identities.
    Local,
    /// TLS of the application's own, carried as it is: encrypted, and nothing proven to us (semantics 1.9).
    Foreign,
    /// No TLS.
    Plaintext,
}

/// What was decided.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Admitted.
    Allow,
    /// Refused by policy, by a floor, or for want of proof.
    Deny,
    /// It ended before anything was decided, or deciding is the other side's part.
    NotDecided,
}

/// One end of an event. What is not known is an empty text and shows as `unknown` in metrics, as Istio's do.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Pod.
    pub pod: Arc<str>,
    /// What owns the pod: `source_workload`, `destination_workload`.
    pub workload: Arc<str>,
    /// The identity that was proven, or that is ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<SpiffeId>,
    /// The label `app`.
    pub app: Arc<str>,
    /// The label `version`.
    pub version: Arc<str>,
    /// `service.istio.io/canonical-name`.
    pub canonical_name: Arc<str>,
    /// `service.istio.io/canonical-revision`.
    pub canonical_revision: Arc<str>,
}

/// The policy that decided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRef {
    /// Its namespace.
    pub namespace: Text,
    /// Its name.
    pub name: Text,
    /// The index of the rule, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
}

/// What an external authorizer was found to say.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtAuthz {
    /// Its name in MeshConfig `extensionProviders`.
    pub provider: Box<str>,
    /// `allowed`, `denied`, `error` where it gave no answer, `failure_mode_allowed` where `failOpen` then admitted, or
    /// `unasked`.
    pub result: &'static str,
}

/// What is particular to a request.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpEvent {
    /// The method.
    pub method: Text,
    /// `:authority` or Host, as sent.
    pub authority: Text,
    /// Path and query as they arrived.
    pub path: Text,
    /// The path as normalised, where that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_normalized: Option<Text>,
    /// `HTTP/1.1`, `HTTP/2`.
    pub version: &'static str,
    /// The status that the caller received; 0 where there was none.
    pub code: u16,
    /// `grpc-status` where the request was gRPC and one was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u32>,
    /// Messages of gRPC from the caller.
    #[serde(skip_serializing_if = "is_zero")]
    pub request_messages: u64,
    /// Messages of gRPC to the caller.
    #[serde(skip_serializing_if = "is_zero")]
    pub response_messages: u64,
    /// `x-request-id`.
    pub request_id: Text,
    /// `user-agent`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub user_agent: Text,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn millis<S: serde::Serializer>(value: &Duration, out: S) -> Result<S::Ok, S::Error> {
    // Three digits after the point: microseconds are what a proxy spends.
    out.serialize_f64((value.as_secs_f64() * 1_000_000.0).round() / 1000.0)
}

fn rfc3339<S: serde::Serializer>(value: &SystemTime, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(&crate::render::Stamp(*value))
}
