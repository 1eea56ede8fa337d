//! MeshConfig: key `mesh` of ConfigMap `istio` in `istio-system`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::DefaultProviders;

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
    /// `caCertificates`.
    pub ca_certificates: Vec<CaCertificate>,
    /// `rootNamespace`; `istio-system` where absent.
    pub root_namespace: Option<String>,
    /// `accessLogFile`; empty means none.
    pub access_log_file: Option<String>,
    /// `accessLogFormat`.
    pub access_log_format: Option<String>,
    /// `accessLogEncoding`.
    pub access_log_encoding: Option<AccessLogEncoding>,
    /// `enableTracing`; true where absent.
    pub enable_tracing: Option<bool>,
    /// `defaultProviders`.
    pub default_providers: DefaultProviders,
    /// `defaultConfig`, raw; of it `tracing.sampling` is acted on.
    pub default_config: Value,
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
    AllowAnyDynamicDns,
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

/// An entry of `caCertificates`: roots beside the mesh's own.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CaCertificate {
    /// The roots, PEM.
    pub pem: String,
    /// Where the roots would be fetched.
    pub spiffe_bundle_url: String,
    /// The Kubernetes signers whose certificates they are for.
    pub cert_signers: Vec<String>,
    /// Whose peers they vouch for; empty means the mesh's own trust domain and its aliases.
    pub trust_domains: Vec<String>,
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
