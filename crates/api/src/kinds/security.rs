//! Istio's security kinds: PeerAuthentication, AuthorizationPolicy, RequestAuthentication.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The annotation that makes a policy decide without being enforced.
pub(crate) const DRY_RUN: &str = "istio.io/dry-run";

/// `selector.matchLabels`. Empty selects everything in scope.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    /// The labels that a workload must have.
    pub match_labels: BTreeMap<String, String>,
}

/// `mtls.mode` as written. The effective mode is the compiler's to find.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MtlsMode {
    /// Inherit.
    #[default]
    Unset,
    /// Plaintext only.
    Disable,
    /// Both.
    Permissive,
    /// Mutual TLS only.
    Strict,
}

/// `mtls`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MutualTls {
    /// The mode.
    pub mode: MtlsMode,
}

/// PeerAuthentication (semantics 1.1).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerAuthentication {
    /// Which workloads; `None` and empty labels both mean all in scope.
    pub selector: Option<Selector>,
    /// The workload-level mode.
    pub mtls: Option<MutualTls>,
    /// By workload port.
    pub port_level_mtls: BTreeMap<u16, MutualTls>,
}

impl PeerAuthentication {
    /// The labels selected; empty for the namespace or the mesh.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        labels(self.selector.as_ref())
    }
}

/// `action`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are Istio's")]
pub enum Action {
    #[default]
    Allow,
    Deny,
    Audit,
    Custom,
}

/// `targetRef` and `targetRefs[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Istio's, name by name")]
pub struct TargetRef {
    pub group: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

/// AuthorizationPolicy (semantics 2).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationPolicy {
    /// Which workloads; `None` and empty labels both mean all in scope.
    pub selector: Option<Selector>,
    /// `targetRef` and `targetRefs` together. A policy with any is ignored by sidecars (semantics 2.2).
    pub target_refs: Vec<TargetRef>,
    /// The rules, in order. None matches nothing; one empty rule matches everything.
    pub rules: Vec<Rule>,
    /// ALLOW where absent.
    pub action: Action,
    /// `provider.name`, for CUSTOM.
    pub provider: Option<String>,
    /// Annotation `istio.io/dry-run`.
    pub dry_run: bool,
}

impl AuthorizationPolicy {
    /// The labels selected; empty for the namespace or the mesh.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        labels(self.selector.as_ref())
    }
}

/// `rules[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Any of them.
    pub from: Vec<From>,
    /// Any of them.
    pub to: Vec<To>,
    /// All of them.
    pub when: Vec<Condition>,
    /// The line that the rule starts on; 0 where unknown.
    pub line: u32,
}

/// `from[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct From {
    /// The source.
    pub source: Source,
}

/// `to[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct To {
    /// The operation.
    pub operation: Operation,
}

/// `source`: all fields that are not empty must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Istio's, name by name")]
pub struct Source {
    pub principals: Vec<String>,
    pub not_principals: Vec<String>,
    pub request_principals: Vec<String>,
    pub not_request_principals: Vec<String>,
    pub namespaces: Vec<String>,
    pub not_namespaces: Vec<String>,
    pub service_accounts: Vec<String>,
    pub not_service_accounts: Vec<String>,
    pub trust_domains: Vec<String>,
    pub not_trust_domains: Vec<String>,
    pub ip_blocks: Vec<String>,
    pub not_ip_blocks: Vec<String>,
    pub remote_ip_blocks: Vec<String>,
    pub not_remote_ip_blocks: Vec<String>,
}

/// `operation`: all fields that are not empty must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Istio's, name by name")]
pub struct Operation {
    pub hosts: Vec<String>,
    pub not_hosts: Vec<String>,
    pub ports: Vec<String>,
    pub not_ports: Vec<String>,
    pub methods: Vec<String>,
    pub not_methods: Vec<String>,
    pub paths: Vec<String>,
    pub not_paths: Vec<String>,
}

/// `when[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// One of the keys of semantics 2.10.
    pub key: String,
    /// Any of them.
    pub values: Vec<String>,
    /// None of them.
    pub not_values: Vec<String>,
    /// The line that the condition starts on; 0 where unknown.
    pub line: u32,
}

/// RequestAuthentication (semantics 4.1).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestAuthentication {
    /// Which workloads; `None` and empty labels both mean all in scope.
    pub selector: Option<Selector>,
    /// `targetRef` and `targetRefs` together.
    pub target_refs: Vec<TargetRef>,
    /// The accepted issuers.
    pub jwt_rules: Vec<JwtRule>,
}

impl RequestAuthentication {
    /// The labels selected; empty for the namespace or the mesh.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        labels(self.selector.as_ref())
    }
}

/// `jwtRules[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Istio's, name by name")]
pub struct JwtRule {
    pub issuer: String,
    pub audiences: Vec<String>,
    #[serde(alias = "jwks_uri")]
    pub jwks_uri: String,
    pub jwks: String,
    pub from_headers: Vec<JwtHeader>,
    pub from_params: Vec<String>,
    pub from_cookies: Vec<String>,
    pub output_payload_to_header: String,
    pub output_claim_to_headers: Vec<OutputClaim>,
    pub forward_original_token: bool,
    pub timeout: Option<String>,
    pub space_delimited_claims: Vec<String>,
    /// `OPTIONAL` where empty.
    pub presence: String,
    /// The line that the rule starts on; 0 where unknown.
    pub line: u32,
}

/// `fromHeaders[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Istio's, name by name")]
pub struct JwtHeader {
    pub name: String,
    pub prefix: String,
}

/// `outputClaimToHeaders[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Istio's, name by name")]
pub struct OutputClaim {
    pub header: String,
    pub claim: String,
}

fn labels(selector: Option<&Selector>) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    selector.map_or(&NONE, |selector| &selector.match_labels)
}

/// A boolean as Go's `strconv.ParseBool` reads it.
pub(crate) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}
