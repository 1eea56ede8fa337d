//! Telemetry (telemetry.istio.io), and what MeshConfig says of the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Selector;

/// Telemetry, as far as it is acted on.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Telemetry {
    /// Which workloads; `None` and empty labels both mean all in scope.
    pub selector: Option<Selector>,
    /// `targetRefs`, raw: gateways and waypoints alone have them.
    pub target_refs: Vec<Value>,
    /// `targetRef`, raw.
    pub target_ref: Option<Value>,
    /// `tracing[]`; only the first has an effect.
    pub tracing: Vec<TelemetryTracing>,
    /// `accessLogging[]`.
    pub access_logging: Vec<TelemetryLogging>,
    /// `metrics[]`, raw.
    pub metrics: Vec<Value>,
}

/// `tracing[]`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TelemetryTracing {
    /// `match.mode`.
    #[serde(rename = "match")]
    pub matches: TelemetryMatch,
    /// Names of MeshConfig `extensionProviders`; only the first has an effect.
    pub providers: Vec<TelemetryProvider>,
    /// Percent of requests without a trace that begin one.
    pub random_sampling_percentage: Option<f64>,
    /// No spans.
    pub disable_span_reporting: Option<bool>,
    /// No trace headers.
    pub disable_context_propagation: Option<bool>,
    /// Further attributes.
    pub custom_tags: BTreeMap<String, CustomTag>,
}

/// `accessLogging[]`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TelemetryLogging {
    /// `match.mode`.
    #[serde(rename = "match")]
    pub matches: TelemetryMatch,
    /// Names of MeshConfig `extensionProviders`.
    pub providers: Vec<TelemetryProvider>,
    /// No access log.
    pub disabled: Option<bool>,
    /// Of which requests there is one, a CEL expression; raw.
    pub filter: Option<Value>,
}

/// `match`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TelemetryMatch {
    /// Which side.
    pub mode: TelemetryMode,
}

/// `match.mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are Istio's")]
pub enum TelemetryMode {
    #[default]
    ClientAndServer,
    Client,
    Server,
}

/// `providers[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TelemetryProvider {
    /// Its name.
    pub name: String,
}

/// `customTags.NAME`: one of these.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CustomTag {
    /// A value as written.
    pub literal: Option<TagValue>,
    /// A header field.
    pub header: Option<TagName>,
    /// A variable of the proxy's environment.
    pub environment: Option<TagName>,
    /// A format string of Envoy's.
    pub formatter: Option<TagValue>,
}

/// A value.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TagValue {
    /// The value.
    pub value: String,
}

/// A name, and the value where there is nothing of that name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TagName {
    /// The name.
    pub name: String,
    /// `defaultValue`.
    pub default_value: String,
}

/// MeshConfig `defaultProviders`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultProviders {
    /// `tracing`.
    pub tracing: Vec<String>,
}

impl Telemetry {
    /// The labels selected; empty for the namespace or the mesh.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.selector
            .as_ref()
            .map(|selector| selector.match_labels.clone())
            .unwrap_or_default()
    }

    /// Whether it speaks of gateways and waypoints.
    pub fn has_targets(&self) -> bool {
        !self.target_refs.is_empty() || self.target_ref.is_some()
    }
}
