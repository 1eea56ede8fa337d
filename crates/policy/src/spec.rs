//! Policies as users wrote them, in a form that travels from the control plane to a proxy.
//!
//! Values keep their spelling. A policy that the control plane could not accept travels too, with
//! [`PolicySpec::invalid`] set: it denies what it targets (semantics 10.6, P48).

use std::fmt;

use model::Reason;
use serde::{Deserialize, Serialize};

/// The name of a policy object. Ordered by namespace, then name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl PolicyId {
    /// Kind and name of the object that the policy is of: an AuthorizationPolicy, or the Guardrail of which it is a part
    /// (`guardrail:NAME:deny`, `guardrail:NAME:ceiling`; no object's name has a colon).
    pub fn object(&self) -> (&'static str, &str) {
        let part = self.name.strip_prefix("guardrail:");
        match part.and_then(|part| part.rsplit_once(':')) {
            Some((name, _)) => ("Guardrail", name),
            None => ("AuthorizationPolicy", &self.name),
        }
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a policy does with a request that one of its rules matches (semantics 2.1).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
pub enum Action {
    /// Admit it, unless something denies it.
    Allow,
    /// Refuse it.
    Deny,
    /// Mark it for the audit log; never changes the decision.
    Audit,
    /// Bound what ALLOW policies grant: what no rule matches is refused, whatever allows it. Each such policy bounds by
    /// itself. Written as the `ceiling` of a Guardrail.
    Ceiling,
    /// Ask the named provider of MeshConfig `extensionProviders`.
    Custom {
        /// The provider's name.
        provider: String,
    },
}

/// Where a text was written, for explanations: file as the user named it, line from 1.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The file, or an empty text where the object came from elsewhere.
    pub file: String,
    /// The line, from 1; 0 where unknown.
    pub line: u32,
}

/// One AuthorizationPolicy, values as typed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    /// Its name.
    pub id: PolicyId,
    /// Its action.
    pub action: Action,
    /// `istio.io/dry-run`: decide and log, never enforce (semantics 2.14).
    #[serde(default)]
    pub dry_run: bool,
    /// The rules, in order. No rule matches nothing (AZ-002); a rule with three empty lists matches everything (AZ-003).
    #[serde(default)]
    pub rules: Vec<RuleSpec>,
    /// Why the object is not acceptable. Then its rules are not looked at and it denies all that it selects.
    #[serde(default)]
    pub invalid: Option<Invalid>,
    /// Where the object starts.
    #[serde(default)]
    pub origin: Origin,
}

/// A policy that could not be accepted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invalid {
    /// The reason that denials carry.
    pub reason: Reason,
    /// One sentence for people.
    pub why: String,
}

/// `rules[]`: (any of `from`) and (any of `to`) and (all of `when`); an empty list is true (semantics 2.3).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// `from[].source`.
    #[serde(default)]
    pub from: Vec<SourceSpec>,
    /// `to[].operation`.
    #[serde(default)]
    pub to: Vec<OperationSpec>,
    /// `when[]`.
    #[serde(default)]
    pub when: Vec<ConditionSpec>,
    /// The line that the rule starts on, 0 where unknown.
    #[serde(default)]
    pub line: u32,
}

/// `from[].source`: all fields that are not empty must hold. (semantics 2.4)
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are Istio's, name by name")]
pub struct SourceSpec {
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

/// `to[].operation`: all fields that are not empty must hold. (semantics 2.4)
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are Istio's, name by name")]
pub struct OperationSpec {
    pub hosts: Vec<String>,
    pub not_hosts: Vec<String>,
    pub ports: Vec<String>,
    pub not_ports: Vec<String>,
    pub methods: Vec<String>,
    pub not_methods: Vec<String>,
    pub paths: Vec<String>,
    pub not_paths: Vec<String>,
}

/// `when[]`: `key` with `values` and/or `notValues`. (semantics 2.10)
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are Istio's, name by name")]
pub struct ConditionSpec {
    pub key: String,
    pub values: Vec<String>,
    pub not_values: Vec<String>,
    pub line: u32,
}
