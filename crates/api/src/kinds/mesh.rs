//! MeshConfig: key `mesh` of ConfigMap `istio` in `istio-system`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ConfigMap, Meta};
use crate::problem::Severity;
use crate::report::Report;
use crate::yaml::Node;

/// The mesh's configuration, as far as it is acted on. Absent means Istio's default or the profile's: the
/// compiler knows which.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    /// `trustDomain`; `cluster.local` where absent.
    pub trust_domain: Option<String>,
    /// `trustDomainAliases`.
    pub trust_domain_aliases: Vec<String>,
    /// `enableAutoMtls`.
    pub enable_auto_mtls: Option<bool>,
    /// `outboundTrafficPolicy.mode`.
    pub outbound_traffic_policy: Option<Mode<OutboundMode>>,
    /// `pathNormalization.normalization`.
    pub path_normalization: Option<Normalization>,
    /// `protocolDetectionTimeout`, as written.
    pub protocol_detection_timeout: Option<String>,
    /// `connectTimeout`, as written.
    pub connect_timeout: Option<String>,
    /// `meshMTLS`.
    #[serde(rename = "meshMTLS")]
    pub mesh_mtls: Option<MeshMtls>,
    /// `rootNamespace`; `istio-system` where absent.
    pub root_namespace: Option<String>,
    /// `accessLogFile`; empty means none.
    pub access_log_file: Option<String>,
    /// `accessLogFormat`.
    pub access_log_format: Option<String>,
    /// `accessLogEncoding`.
    pub access_log_encoding: Option<AccessLogEncoding>,
    /// `extensionProviders`, raw; [`MeshConfig::providers`] reads them.
    pub extension_providers: Vec<Value>,
}

/// A message with a `mode` and nothing else that matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Mode<T> {
    /// The mode.
    pub mode: T,
}

/// `pathNormalization`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Normalization {
    /// Which.
    pub normalization: PathNormalization,
}

/// `outboundTrafficPolicy.mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are Istio's")]
pub enum OutboundMode {
    RegistryOnly,
    #[default]
    AllowAny,
}

/// `pathNormalization.normalization`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are Istio's")]
pub enum PathNormalization {
    #[default]
    Default,
    None,
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

/// `accessLogEncoding`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are Istio's")]
pub enum AccessLogEncoding {
    #[default]
    Text,
    Json,
}

/// `meshMTLS`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshMtls {
    /// The oldest TLS that is accepted.
    pub min_protocol_version: ProtocolVersion,
    /// `cipherSuites`, raw.
    pub cipher_suites: Vec<String>,
}

/// `minProtocolVersion`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are Istio's")]
pub enum ProtocolVersion {
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    #[serde(rename = "TLSV1_2")]
    Tls12,
    #[serde(rename = "TLSV1_3")]
    Tls13,
}

/// A protobuf duration as Istio writes it (`1.5s`, `100ms`, `1m30s`), in milliseconds.
pub fn duration_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0f64;
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_end)?;
        let ms = match unit {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1000.0,
            "ms" => 1.0,
            "us" | "µs" => 0.001,
            "ns" => 0.000_001,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * ms;
        rest = tail;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float is cast to the nearest end of the range, and only digits were read"
    )]
    Some(total.round() as u64)
}

/// The mesh configuration in a ConfigMap, if it is that one. `None` outside where it is broken, which is reported.
#[expect(clippy::option_option, reason = "absent and broken differ")]
pub(crate) fn read(
    meta: &Meta,
    config: &ConfigMap,
    root: &Node,
    report: &mut Report<'_>,
) -> Option<Option<MeshConfig>> {
    if (meta.namespace.as_str(), meta.name.as_str()) != ("istio-system", "istio") {
        return Some(None);
    }
    let Some(text) = config.data.get("mesh") else {
        return Some(None);
    };
    let span = root.span_at("data.mesh");
    let mut inner = Report::new("mesh", text);
    let document = crate::yaml::documents(text, &mut inner).into_iter().next();
    let mut broken = false;
    for problem in inner.finish().iter().filter(|p| p.severity == Severity::Error) {
        broken = true;
        let message = format!(
            "the mesh configuration, line {}: {}",
            problem.line, problem.message
        );
        report.error("MW0113", span, message).path("data.mesh");
    }
    let Some(document) = document.filter(|_| !broken) else {
        return (!broken).then(|| Some(MeshConfig::default()));
    };
    if document.root.is_null() {
        return Some(Some(MeshConfig::default()));
    }
    match serde_json::from_value(document.root.to_json()) {
        Ok(config) => {
            super::extension::check(&config, &document.root, span, report);
            Some(Some(config))
        }
        Err(whole) => {
            for (field, line, why) in unread(&document.root, &whole) {
                let message = format!("the mesh configuration, line {line}: `{field}`: {why}");
                report
                    .error("MW0113", span, message)
                    .path(format!("data.mesh.{field}"))
                    .remedy("write it as Istio's MeshConfig has it; nothing of this one is in force");
            }
            None
        }
    }
}

/// The fields that cannot be read, each with its line; the whole where no field is to blame.
fn unread(root: &Node, whole: &serde_json::Error) -> Vec<(String, u32, String)> {
    let one = |(key, value): &(crate::yaml::Key, Node)| {
        let field = serde_json::Map::from_iter([(key.text.clone(), value.to_json())]);
        let error = serde_json::from_value::<MeshConfig>(Value::Object(field)).err()?;
        Some((key.text.clone(), key.span.line, error.to_string()))
    };
    let found: Vec<_> = root.entries().iter().filter_map(one).collect();
    if found.is_empty() {
        return vec![("mesh".to_owned(), root.span.line, whole.to_string())];
    }
    found
}

#[cfg(test)]
mod tests {
    fn read(mesh: &str) -> Vec<String> {
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n{mesh}"
        );
        let parsed = crate::parse("mesh.yaml", text.as_bytes());
        assert_eq!(parsed.objects.is_empty(), !parsed.rejected.is_empty());
        parsed
            .problems
            .into_iter()
            .map(|p| format!("{}:{}: {}", p.line, p.code, p.message))
            .collect()
    }

    #[test]
    fn a_mesh_configuration_that_cannot_be_read_is_not_silent() {
        assert_eq!(read("    trustDomain: a.example\n"), Vec::<String>::new());
        let said = read(
            "    trustDomain: a.example\n    outboundTrafficPolicy: {mode: NOTHING}\n    trustDomainAliases: 3\n",
        );
        assert_eq!(said.len(), 2, "{said:#?}");
        assert!(
            said[0].contains("line 2: `outboundTrafficPolicy`") && said[0].contains("NOTHING"),
            "{said:#?}"
        );
        assert!(said[1].contains("line 3: `trustDomainAliases`"), "{said:#?}");
        let said = read("    trustDomain: [\n");
        assert!(!said.is_empty());
    }
}
