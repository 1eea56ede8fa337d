//! What is told of a workload's traffic: Telemetry and MeshConfig, resolved for one workload.

mod filter;

use std::sync::Arc;

use model::{MetricChanges, ServiceName};
use serde::{Deserialize, Serialize};

pub use filter::{ATTRIBUTES, Attribute, Comparison, Datum, Kind as AttributeKind, LogFilter, TextTest};

/// A million: what a share of requests is counted in.
pub const WHOLE: u32 = 1_000_000;

/// What is told of a workload's traffic.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// How its requests are traced; `None` passes trace headers on as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// Whether what it calls is left out of the access log (refusals never are).
    #[serde(skip_serializing_if = "is_false")]
    pub client_log_off: bool,
    /// Whether calls to it are.
    #[serde(skip_serializing_if = "is_false")]
    pub server_log_off: bool,
    /// Which of the calls that it makes are in it; all where nothing is said (refusals always are).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_log: Option<Arc<LogFilter>>,
    /// Which of the calls to it are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_log: Option<Arc<LogFilter>>,
    /// How metrics of the calls that it makes differ from Istio's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_metrics: Option<Arc<MetricChanges>>,
    /// And of the calls to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_metrics: Option<Arc<MetricChanges>>,
}

/// How requests are traced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tracing {
    /// Who gets the spans.
    pub provider: TraceProvider,
    /// Of requests without a trace, how many of [`WHOLE`] begin one that is recorded.
    pub sampling: u32,
    /// Whether spans are recorded of what it calls, and of calls to it.
    pub client: bool,
    /// See `client`.
    pub server: bool,
    /// Whether trace headers are written (`disableContextPropagation` says no).
    pub propagate: bool,
    /// Further attributes by name.
    pub tags: Vec<(String, Tag)>,
}

/// Where the value of an attribute comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Tag {
    /// As written.
    Literal(String),
    /// A header field of the request, and what stands where it is absent.
    Header {
        /// In lower case.
        name: String,
        /// Empty leaves the attribute out.
        default: String,
    },
}

/// A collector that spans are sent to (MeshConfig `extensionProviders[].opentelemetry`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceProvider {
    /// Its name.
    pub name: String,
    /// The Service that it is reached at.
    pub service: ServiceName,
    /// The Service port.
    pub port: u16,
    /// The path over HTTP; `None` is gRPC.
    pub path: Option<String>,
    /// Header fields that are sent along.
    pub headers: Vec<(String, String)>,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
    /// Bytes that a text may have as an attribute.
    pub max_tag_length: u32,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Telemetry {
    /// Whether nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
