//! Requests moved to the edges of the policies that they are asked of.

use policy::PolicySpec;
use testkit::decisions::{Claims, Request};

use crate::Bytes;

/// The values of some policies, by what of a request they speak of.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    paths: Vec<String>,
    hosts: Vec<String>,
    methods: Vec<String>,
    headers: Vec<String>,
    tokens: Vec<String>,
}

/// What every codec takes.
const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE",
];

impl Patterns {
    pub(crate) fn of(specs: &[PolicySpec]) -> Self {
        let mut all = Self::default();
        for rule in specs.iter().flat_map(|spec| &spec.rules) {
            for source in &rule.from {
                all.tokens.extend_from_slice(&source.request_principals);
                all.tokens.extend_from_slice(&source.not_request_principals);
            }
            for operation in &rule.to {
                all.paths.extend_from_slice(&operation.paths);
                all.paths.extend_from_slice(&operation.not_paths);
                all.hosts.extend_from_slice(&operation.hosts);
                all.hosts.extend_from_slice(&operation.not_hosts);
                all.methods.extend_from_slice(&operation.methods);
                all.methods.extend_from_slice(&operation.not_methods);
            }
            for condition in &rule.when {
                let values = condition.values.iter().chain(&condition.not_values).cloned();
                match condition.key.as_str() {
                    "request.auth.principal" => all.tokens.extend(values),
                    key if key.starts_with("request.headers[") => all.headers.extend(values),
                    _ => {}
                }
            }
        }
        all
    }

    /// The request, with some of its parts near a value of the policies.
    pub(crate) fn shift(&self, mut request: Request, bytes: &mut Bytes) -> Request {
        if let Some(path) = near(&self.paths, bytes, &["", "x", "b", "x/y", "=", ";p", "%2f"]) {
            let query = bytes.pick(&["", "", "", "?", "?a=/b"]);
            let path = format!("/{}{query}", path.trim_start_matches('/'));
            request.path = path.replace(|c: char| !c.is_ascii_graphic() || c == '#', "");
        }
        if let Some(host) = near(&self.hosts, bytes, &["", "x", "b.", "x.y"]) {
            let host = host.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "");
            let port = bytes.pick(&["", "", ":80", ":8"]);
            request.authority = format!("{}{port}", if host.is_empty() { "a" } else { &host });
        }
        if let Some(method) = near(&self.methods, bytes, &["", "E", "OS"]) {
            let known = METHODS.iter().find(|known| **known == method);
            request.method = known.copied().unwrap_or("PATCH").to_owned();
        }
        if let Some(value) = near(&self.headers, bytes, &["", "x", "v"]) {
            for (_, held) in request.headers.0.iter_mut().take(1) {
                *held = value.replace(|c: char| !c.is_ascii_alphanumeric(), "");
            }
        }
        if let Some(token) = near(&self.tokens, bytes, &["", "x", "u"]) {
            let (issuer, subject) = token.rsplit_once('/').unwrap_or((&token, "u"));
            let aud = bytes.pick(&["v", "vw", "xv", ""]);
            let claims = serde_json::json!({"iss": issuer, "sub": subject, "aud": [aud, "other"]});
            request.claims = Some(Claims(claims));
        }
        // A request without a body has none, whatever it is called.
        if request.method == "HEAD" {
            request.method = "GET".to_owned();
        }
        request
    }
}

/// A text that one of the patterns matches, or just does not; nothing as often as not.
fn near(patterns: &[String], bytes: &mut Bytes, fillings: &[&str]) -> Option<String> {
    if patterns.is_empty() || bytes.next().is_multiple_of(2) {
        return None;
    }
    let pattern = bytes.pick(patterns);
    let filling = bytes.pick(fillings);
    let filled = pattern
        .replace("{**}", filling)
        .replace("{*}", filling)
        .replace('*', filling);
    Some(match bytes.next() % 8 {
        0 => filled.chars().skip(1).collect(),
        1 => format!("{filled}y"),
        2 => filled.to_ascii_uppercase(),
        3 => filled.to_ascii_lowercase(),
        4 => filled
            .chars()
            .take(filled.chars().count().saturating_sub(1))
            .collect(),
        _ => filled,
    })
}
