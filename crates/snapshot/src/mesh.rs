//! Settings of the whole mesh.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Profile, TrustDomain};
use policy::path::Mode;
use policy::{Compat, Context};
use serde::{Deserialize, Serialize};

use crate::Scope;

/// MeshConfig and profile, resolved: every proxy holds exactly one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mesh {
    /// The profile, for display; what follows from it is spelled out in the other fields.
    pub profile: Profile,
    /// `meshConfig.trustDomain`.
    pub trust_domain: TrustDomain,
    /// `meshConfig.trustDomainAliases`.
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// The root namespace, `istio-system` by default.
    pub root_namespace: String,
    /// The DNS suffix of the cluster, `cluster.local` by default.
    pub cluster_domain: String,
    /// Addresses at which pods expect the cluster's DNS.
    pub dns_vips: Vec<std::net::IpAddr>,
    /// Whether a workload without any ALLOW policy is closed (secure) or open (istio). (P3)
    pub deny_by_default: bool,
    /// What happens to traffic that leaves the registry.
    pub egress: Egress,
    /// How paths are normalised: `NONE`, `BASE`, `MERGE_SLASHES`, `DECODE_AND_MERGE_SLASHES`.
    pub path_normalization: PathNormalization,
    /// Whether ambiguous paths are refused (semantics 3.6 OURS).
    pub strict_paths: bool,
    /// Whether the dialled address and the Host must belong to one service (O-02), and headers that speak
    /// for the proxy are removed (O-15).
    pub strict_hosts: bool,
    /// Whether tokens are read as semantics 4.3 OURS says; without it as Istio reads them.
    pub jwt_strict: bool,
    /// What an inbound proxy does with X-Forwarded-Client-Cert.
    pub xfcc: XfccMode,
    /// `meshConfig.enableAutoMtls`.
    pub auto_mtls: bool,
    /// `meshConfig.protocolDetectionTimeout` in milliseconds; `None` waits without limit (Istio's 0s).
    pub protocol_detection_timeout_ms: Option<u64>,
    /// `meshConfig.meshMTLS.minProtocolVersion`.
    pub min_tls: TlsVersion,
    /// What else mesh TLS is bound by.
    #[serde(default)]
    pub tls: MeshTls,
    /// Whether HTTP/1.0 is taken as HTTP.
    pub http10: bool,
    /// `meshConfig.connectTimeout` in milliseconds, 10 s by default.
    pub connect_timeout_ms: u64,
    /// What client namespaces know of the registry; the empty name stands for those that are not there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scopes: BTreeMap<String, Scope>,
}

impl Mesh {
    /// The time that sniffing may take.
    pub fn protocol_detection_timeout(&self) -> Option<Duration> {
        self.protocol_detection_timeout_ms.map(Duration::from_millis)
    }

    /// What workloads of the namespace know, where a Sidecar says so.
    pub fn scope(&self, namespace: &str) -> Option<&Scope> {
        self.scopes.get(namespace).or_else(|| self.scopes.get(""))
    }

    /// What happens to traffic of the namespace that leaves the registry.
    pub fn egress_of(&self, namespace: &str) -> Egress {
        self.egress_in(self.scope(namespace))
    }

    /// What happens to traffic that leaves the registry, of those of whom a Sidecar says this.
    pub fn egress_in(&self, scope: Option<&Scope>) -> Egress {
        scope.and_then(|scope| scope.egress).unwrap_or(self.egress)
    }

    /// How paths are normalised, for [`policy::path::normalize`].
    pub fn path_mode(&self) -> Mode {
        match self.path_normalization {
            PathNormalization::None => Mode::None,
            PathNormalization::Base => Mode::Base,
            PathNormalization::MergeSlashes => Mode::MergeSlashes,
            PathNormalization::DecodeAndMergeSlashes => Mode::DecodeAndMergeSlashes,
        }
    }

    /// What of the settings a decision depends on.
    pub fn policy_context(&self) -> Context {
        Context {
            trust_domain: self.trust_domain.clone(),
            aliases: self.trust_domain_aliases.clone(),
            deny_by_default: self.deny_by_default,
            compat: Compat::from(self.profile),
            paths: self.path_normalization.into(),
        }
    }
}

/// `meshConfig.pathNormalization.normalization` (semantics 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PathNormalization {
    /// Only the fragment is cut.
    None,
    /// RFC 3986 canonical form; Istio's default.
    #[default]
    Base,
    /// And runs of slashes become one.
    MergeSlashes,
    /// And encoded slashes and backslashes are decoded first.
    DecodeAndMergeSlashes,
}

impl From<PathNormalization> for Mode {
    fn from(setting: PathNormalization) -> Self {
        match setting {
            PathNormalization::None => Self::None,
            PathNormalization::Base => Self::Base,
            PathNormalization::MergeSlashes => Self::MergeSlashes,
            PathNormalization::DecodeAndMergeSlashes => Self::DecodeAndMergeSlashes,
        }
    }
}

/// `outboundTrafficPolicy.mode` (semantics 7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Egress {
    /// Unknown destinations are refused; the secure default.
    RegistryOnly,
    /// Unknown destinations are passed to the address that was dialled.
    AllowAny,
}

/// X-Forwarded-Client-Cert at an inbound proxy (semantics 5.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum XfccMode {
    /// Replace what came by the verified element; remove on plaintext. Ours.
    SanitizeSet,
    /// Keep what a mesh peer sent and append the verified element; remove on plaintext. Istio's (R9).
    AppendForward,
}

/// The least TLS version of mesh traffic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "TLSV1_2")]
    V1_2,
    /// TLS 1.3; the secure default.
    #[serde(rename = "TLSV1_3")]
    V1_3,
}

/// What mesh TLS is bound by, besides its version.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshTls {
    /// `meshConfig.meshMTLS.cipherSuites`: the suites of TLS 1.2, by OpenSSL's names, of [`TLS12_SUITES`]; empty means the
    /// first four of them.
    #[serde(default)]
    pub cipher_suites: Vec<String>,
    /// `meshConfig.caCertificates`: roots for peers of one trust domain each, beside the mesh's own.
    #[serde(default)]
    pub bundles: Vec<Bundle>,
}

/// Roots of one trust domain. They vouch for nobody else.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Whose peers they vouch for.
    pub trust_domain: TrustDomain,
    /// The roots, PEM.
    pub pem: String,
}

/// The suites of TLS 1.2 that can be named, by OpenSSL's names: forward secret and authenticated, all of them. The last
/// two are spoken only where they are named.
pub const TLS12_SUITES: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
];
