//! For decisions: policies from Kubernetes objects, requests from a few words, a plain second implementation.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unreachable,
    missing_docs,
    reason = "what a test is made of may panic, and says in its names what it is"
)]

pub mod generate;
pub mod reference;

use std::net::IpAddr;
use std::sync::Arc;

use model::SpiffeId;
use policy::{
    Action, Claim, ClaimLookup, ConditionSpec, Facts, HeaderLookup, HttpFacts, OperationSpec, Origin,
    PolicyId, PolicySpec, RuleSpec, SourceSpec,
};
use serde_json::Value;

fn strings(value: &Value) -> Vec<String> {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    value
        .as_array()
        .map(|list| list.iter().map(text).collect())
        .unwrap_or_default()
}

/// The words of an object's field names are Istio's; ours differ in case alone.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn lists<T: for<'de> serde::Deserialize<'de>>(value: &Value) -> T {
    let fields = value.as_object().into_iter().flatten();
    let map = fields.map(|(name, list)| (snake(name), strings(list).into()));
    serde_json::from_value(Value::Object(map.collect())).unwrap()
}

pub fn policy(object: &Value) -> Arc<PolicySpec> {
    let (meta, spec) = (&object["metadata"], &object["spec"]);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let source = |from: &Value| lists::<SourceSpec>(&from["source"]);
    let operation = |to: &Value| lists::<OperationSpec>(&to["operation"]);
    let condition = |when: &Value| ConditionSpec {
        key: when["key"].as_str().unwrap().to_owned(),
        values: strings(&when["values"]),
        not_values: strings(&when["notValues"]),
        line: 0,
    };
    let rule = |rule: &Value| RuleSpec {
        from: list(&rule["from"]).iter().map(source).collect(),
        to: list(&rule["to"]).iter().map(operation).collect(),
        when: list(&rule["when"]).iter().map(condition).collect(),
        line: 0,
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Arc::new(PolicySpec {
        id: PolicyId {
            namespace: text(&meta["namespace"]),
            name: text(&meta["name"]),
        },
        action: match spec["action"].as_str() {
            None | Some("ALLOW") => Action::Allow,
            Some("DENY") => Action::Deny,
            Some("AUDIT") => Action::Audit,
            _ => Action::Custom {
                provider: text(&spec["provider"]["name"]),
            },
        },
        dry_run: meta["annotations"]["istio.io/dry-run"].as_str() == Some("true"),
        rules: list(&spec["rules"]).iter().map(rule).collect(),
        invalid: None,
        origin: Origin::default(),
    })
}

/// All that a decision looks at, owned.
#[derive(Clone, Debug)]
pub struct Request {
    pub peer: Option<SpiffeId>,
    pub source: IpAddr,
    pub remote: IpAddr,
    pub destination: IpAddr,
    pub port: u16,
    pub sni: Option<String>,
    pub http: bool,
    pub method: String,
    pub authority: String,
    pub path: String,
    pub headers: Headers,
    pub claims: Option<Claims>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            peer: None,
            source: [127, 0, 0, 1].into(),
            remote: [127, 0, 0, 1].into(),
            destination: [127, 0, 0, 1].into(),
            port: 80,
            sni: None,
            http: true,
            method: "GET".to_owned(),
            authority: "example.com".to_owned(),
            path: "/".to_owned(),
            headers: Headers(Vec::new()),
            claims: None,
        }
    }
}

impl Request {
    pub fn facts(&self) -> Facts<'_> {
        let claims = self.claims.as_ref();
        Facts {
            peer: self.peer.as_ref(),
            source_ip: self.source,
            remote_ip: self.remote,
            destination_ip: self.destination,
            destination_port: self.port,
            sni: self.sni.as_deref(),
            http: self.http.then(|| HttpFacts {
                method: &self.method,
                authority: &self.authority,
                path: &self.path,
                headers: &self.headers,
                claims: claims.map(|claims| -> &dyn ClaimLookup { claims }),
            }),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Headers(pub Vec<(String, String)>);

impl HeaderLookup for Headers {
    fn any(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let same = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.0
            .iter()
            .filter(same)
            .any(|(_, value)| visit(value.as_bytes()))
    }
}

#[derive(Clone, Debug)]
pub struct Claims(pub Value);

impl ClaimLookup for Claims {
    fn any(&self, path: &[String], visit: &mut dyn FnMut(Claim<'_>) -> bool) -> bool {
        let mut value = &self.0;
        for name in path {
            match value.get(name) {
                Some(inner) => value = inner,
                None => return false,
            }
        }
        let mut one = |value: &Value| match value {
            Value::String(text) => visit(Claim::Text(text)),
            Value::Number(_) | Value::Bool(_) => visit(Claim::Scalar(&value.to_string())),
            _ => false,
        };
        match value {
            Value::Array(list) => list.iter().any(one),
            value => one(value),
        }
    }
}
