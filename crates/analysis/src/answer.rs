//! What comes back.

use serde::Serialize;
use serde_json::Value;

/// One decision.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The question's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    /// What a proxy would do.
    pub decision: Decision,
    /// The HTTP status that the caller would get of the mesh; 200 where it is admitted, 0 for a connection.
    pub code: u16,
    /// The stable reason; `ALLOW` where it is admitted.
    pub reason: String,
    /// The policy that decided, where one did.
    pub policy: Option<ByPolicy>,
    /// The path, for a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
    /// For a denial because nothing allowed: the ALLOW rule that came closest.
    pub near_miss: Option<NearMiss>,
    /// The walk in sentences: filled in only where it is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// What a proxy would do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
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
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ByPolicy {
    /// `AuthorizationPolicy`, `PeerAuthentication`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The rule, from 0.
    pub rule: Option<usize>,
    /// Where it was written.
    pub file: String,
    /// The line of the rule, else of the object; 0 where unknown.
    pub line: u32,
}

/// The path before and after normalisation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Path {
    /// As asked.
    pub received: String,
    /// As policy and routing see it; empty where it is refused.
    pub normalized: String,
}

/// The ALLOW rule that came closest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
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
}

/// One step of the walk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// `capture`, `tls`, `path`, `custom`, `deny`, `allow`, `ceiling`, `audit`.
    pub stage: &'static str,
    /// One sentence.
    pub said: String,
}
