//! Which of Istio's metrics there are of a workload, and with which labels (Telemetry `metrics[].overrides`).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// One of Istio's metrics.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are Istio's")]
pub enum Metric {
    RequestCount,
    RequestDuration,
    RequestSize,
    ResponseSize,
    TcpOpenedConnections,
    TcpClosedConnections,
    TcpSentBytes,
    TcpReceivedBytes,
    GrpcRequestMessages,
    GrpcResponseMessages,
}

/// How they differ from what they are by themselves.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricChanges {
    /// Those that are not kept.
    pub off: BTreeSet<Metric>,
    /// Labels with another value, and those that are left out (`None`).
    pub tags: BTreeMap<String, Option<String>>,
}

/// The labels that can be left out, or set. `reporter` and `request_protocol` say which of two counts it is: they stay.
pub const TAGS: [&str; 23] = [
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_canonical_service",
    "source_canonical_revision",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_cluster",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

impl Metric {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::RequestCount,
        Self::RequestDuration,
        Self::RequestSize,
        Self::ResponseSize,
        Self::TcpOpenedConnections,
        Self::TcpClosedConnections,
        Self::TcpSentBytes,
        Self::TcpReceivedBytes,
        Self::GrpcRequestMessages,
        Self::GrpcResponseMessages,
    ];

    /// What Prometheus knows it as, without a suffix.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestCount => "istio_requests",
            Self::RequestDuration => "istio_request_duration_milliseconds",
            Self::RequestSize => "istio_request_bytes",
            Self::ResponseSize => "istio_response_bytes",
            Self::TcpOpenedConnections => "istio_tcp_connections_opened",
            Self::TcpClosedConnections => "istio_tcp_connections_closed",
            Self::TcpSentBytes => "istio_tcp_sent_bytes",
            Self::TcpReceivedBytes => "istio_tcp_received_bytes",
            Self::GrpcRequestMessages => "istio_request_messages",
            Self::GrpcResponseMessages => "istio_response_messages",
        }
    }
}

impl MetricChanges {
    /// Whether nothing differs.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
