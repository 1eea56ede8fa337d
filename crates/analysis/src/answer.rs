//! What comes back.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One decision.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The question's; `null` where it had none.
    pub id: Option<Value>,
    /// What a proxy would do.
    pub decision: Decision,
    /// The HTTP status that the caller would get of the mesh; 200 where it is admitted, 0 for a connection.
    pub code: u16,
    /// The stable reason; `ALLOW` where it is admitted, and a sentence where it is unknown.
    pub reason: Cow<'static, str>,
    /// The policy that decided, where one did.
    pub policy: Option<ByPolicy>,
    /// The path, for a request.
    pub path: Option<Path>,
    /// For a denial because nothing allowed: the ALLOW rule that came closest.
    pub near_miss: Option<NearMiss>,
    /// The walk in sentences: filled in only where it is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// Where the replicas of the target decide differently: each kind of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<Replica>,
    /// Why a line could not be read, with line and column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a proxy would do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Carry it.
    Allow,
    /// Refuse it.
    Deny,
    /// It depends on something that is not known here.
    Unknown,
}

/// The policy that decided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ByPolicy {
    /// `AuthorizationPolicy`, `PeerAuthentication`, `Guardrail`.
    pub kind: Cow<'static, str>,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The rule, from 0.
    pub rule: Option<usize>,
    /// Where it was written; empty where that is not known.
    pub file: String,
    /// The line of the rule, else of the object; 0 where unknown.
    pub line: u32,
}

/// The path before and after normalisation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Path {
    /// As asked.
    pub received: String,
    /// As policy and routing see it; empty where it is refused.
    pub normalized: String,
}

/// The ALLOW rule that came closest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NearMiss {
    /// The policy's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The rule, from 0.
    pub rule: usize,
    /// The fields that did not hold.
    pub failed: Vec<String>,
    /// Where it was written.
    pub file: String,
    /// The line of the rule.
    pub line: u32,
}

/// One step of the walk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// `capture`, `tls`, `path`, `jwt`, `custom`, `audit`, `deny`, `allow`, `ceiling`.
    pub stage: Cow<'static, str>,
    /// One sentence.
    pub said: String,
    /// `file:line` of what it speaks of, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// Replicas that decide alike.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    /// The pods, `namespace/name`; the first few where there are many.
    pub pods: Vec<String>,
    /// How many there are.
    pub count: usize,
    /// What their proxy would do.
    pub decision: Decision,
    /// Why.
    pub reason: Cow<'static, str>,
    /// The policies that select them.
    pub policies: Vec<String>,
}

impl Answer {
    /// An answer that says no more than why there is none.
    pub fn unknown(id: Option<Value>, why: impl Into<String>) -> Self {
        Self {
            id,
            decision: Decision::Unknown,
            code: 0,
            reason: Cow::Owned(why.into()),
            policy: None,
            path: None,
            near_miss: None,
            steps: Vec::new(),
            replicas: Vec::new(),
            error: None,
        }
    }
}

/// `file:line` of a place that is known.
pub(crate) fn place(file: &str, line: u32) -> Option<String> {
    match (file, line) {
        ("", _) => None,
        (file, 0) => Some(file.to_owned()),
        (file, line) => Some(format!("{file}:{line}")),
    }
}
