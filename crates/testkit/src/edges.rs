//! Policies made by chance, and requests near their edges: for tests that two ways of deciding come to the same.
//!
//! The same seed makes the same cases, so that one that fails can be played again.

use serde_json::{Map, Value, json};

const PATHS: [&str; 12] = [
    "/", "/a", "/a/", "/a/b", "/admin", "/admin/*", "/a*", "*.css", "*", "/a/{*}/b", "/a/{**}", "/x.css",
];
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "P*", "*"];
const HOSTS: [&str; 5] = ["web", "web:80", "web*", "*.example", "a.example"];
const VALUES: [&str; 5] = ["one", "one*", "*two", "*", "x"];
const PRINCIPALS: [&str; 5] = [
    "cluster.local/ns/full/sa/client",
    "cluster.local/ns/full/*",
    "*/sa/client",
    "other.domain/ns/full/sa/client",
    "*",
];
const NAMESPACES: [&str; 4] = ["full", "fu*", "other", "*"];
const ACCOUNTS: [&str; 3] = ["full/client", "other/client", "client"];
const BLOCKS: [&str; 4] = ["10.77.0.0/24", "10.77.0.2", "192.168.0.0/16", "::/0"];
const NAMES: [&str; 5] = ["outbound_.80_._.web", "outbound_*", "*._.web", "*", "web"];
const ADDRESSES: [&str; 4] = ["10.77.0.3", "10.77.0.0/24", "10.77.0.2", "::/0"];
/// What paths are changed by.
const TWISTS: [&str; 10] = ["", "/", "//", "x", "/../a", "/./", "?q=1", ";v=1", "%2e", "%2Fb"];

/// Makes cases.
#[derive(Debug)]
pub struct Edges {
    state: u64,
    /// The workload's port, where what is not HTTP is to be judged as well.
    port: Option<u16>,
}

impl Edges {
    /// Cases of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
            port: None,
        }
    }

    /// Cases in which connections to a port of the workload are judged.
    #[must_use]
    pub fn with_connections(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Up to four policies of the namespace `full` for workloads with the label `app: web`.
    pub fn policies(&mut self) -> Vec<Value> {
        let count = 1 + self.below(4);
        (0..count).map(|number| self.policy(number)).collect()
    }

    /// A request, as `eval` reads it but for `to`: as often as not one that has to do with the policies. Its caller is
    /// `full/client`, or nobody; its path one that a client can send.
    pub fn request(&mut self, policies: &[Value]) -> Value {
        let texts = |field: &str| -> Vec<String> {
            let mut found = Vec::new();
            policies
                .iter()
                .for_each(|policy| collect(policy, field, &mut found));
            found
        };
        let mut request = Map::new();
        let client = json!({"namespace": "full", "serviceAccount": "client"});
        let from = if self.often() { client } else { Value::Null };
        request.insert("from".to_owned(), from);
        let method = self.near(&texts("methods"), &["GET", "POST", "PUT", "DELETE"]);
        let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
        let method = known.into_iter().find(|known| *known == method).unwrap_or("PUT");
        request.insert("method".to_owned(), method.into());
        let path = self.near(
            &[texts("paths"), texts("notPaths")].concat(),
            &["/", "/a/b", "/other"],
        );
        let path = format!("/{}{}", path.trim_start_matches('/'), self.pick(&TWISTS));
        request.insert("path".to_owned(), path.into());
        let host = self.near(&texts("hosts"), &["web", "a.example"]);
        // A port is digits, or no codec takes it.
        let digits = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let host = match host.split_once(':') {
            Some((name, port)) if !digits(port) => name.to_owned(),
            _ => host,
        };
        let host = if host.is_empty() { "web".to_owned() } else { host };
        request.insert("host".to_owned(), host.into());
        if self.often() {
            let values: Vec<String> = (0..=self.below(2))
                .map(|_| self.near(&texts("values"), &VALUES))
                .collect();
            request.insert("headers".to_owned(), json!({"x-a": values}));
        }
        Value::Object(request)
    }

    fn policy(&mut self, number: usize) -> Value {
        let action = self.pick(&["ALLOW", "ALLOW", "DENY", "DENY", "AUDIT"]);
        let dry_run = action != "AUDIT" && self.below(8) == 0;
        let annotations = if dry_run {
            json!({"istio.io/dry-run": "true"})
        } else {
            json!({})
        };
        let metadata = json!({"name": format!("p{number}"), "namespace": "full", "annotations": annotations});
        let rules: Vec<Value> = (0..=self.below(3)).map(|_| self.rule()).collect();
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata,
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "action": action, "rules": rules},
        })
    }

    fn rule(&mut self) -> Value {
        let mut rule = Map::new();
        if self.often() {
            let sources: Vec<Value> = (0..=self.below(2))
                .map(|_| json!({"source": self.source()}))
                .collect();
            rule.insert("from".to_owned(), sources.into());
        }
        if self.often() {
            let operations: Vec<Value> = (0..=self.below(2))
                .map(|_| json!({"operation": self.operation()}))
                .collect();
            rule.insert("to".to_owned(), operations.into());
        }
        if self.below(3) == 0 {
            let field = if self.often() { "values" } else { "notValues" };
            let (key, list) = self.condition();
            rule.insert("when".to_owned(), json!([{"key": key, field: list}]));
        }
        Value::Object(rule)
    }

    fn condition(&mut self) -> (&'static str, Value) {
        match self.port {
            Some(port) => match self.below(5) {
                0 => ("destination.port", self.ports(port)),
                1 => ("connection.sni", self.list(&NAMES)),
                2 => ("destination.ip", self.list(&ADDRESSES)),
                3 => ("source.principal", self.list(&PRINCIPALS)),
                _ => ("request.headers[x-a]", self.list(&VALUES)),
            },
            None => ("request.headers[x-a]", self.list(&VALUES)),
        }
    }

    /// The workload's port, or another one.
    fn ports(&mut self, port: u16) -> Value {
        let own = port.to_string();
        self.list(&[own.as_str(), "80", "1"])
    }

    fn source(&mut self) -> Value {
        let fields = [
            ("principals", &PRINCIPALS[..]),
            ("namespaces", &NAMESPACES),
            ("ipBlocks", &BLOCKS),
        ];
        let mut source = self.fields(&fields);
        if source.is_empty() {
            let name = if self.often() {
                "serviceAccounts"
            } else {
                "notServiceAccounts"
            };
            source.insert(name.to_owned(), self.list(&ACCOUNTS));
        }
        Value::Object(source)
    }

    fn operation(&mut self) -> Value {
        let fields = [("paths", &PATHS[..]), ("methods", &METHODS), ("hosts", &HOSTS)];
        let mut operation = self.fields(&fields);
        if let Some(port) = self.port
            && self.often()
        {
            let name = if self.often() { "ports" } else { "notPorts" };
            operation.insert(name.to_owned(), self.ports(port));
        }
        if operation.is_empty() {
            operation.insert("paths".to_owned(), self.list(&PATHS));
        }
        Value::Object(operation)
    }

    /// Some of the fields, each as it is or negated.
    fn fields(&mut self, fields: &[(&str, &[&str])]) -> Map<String, Value> {
        let mut out = Map::new();
        for (name, values) in fields {
            if self.below(3) > 0 {
                continue;
            }
            let name = match self.below(4) {
                0 => format!(
                    "not{}{}",
                    name.get(..1).unwrap_or_default().to_ascii_uppercase(),
                    name.get(1..).unwrap_or_default()
                ),
                _ => (*name).to_owned(),
            };
            out.insert(name, self.list(values));
        }
        out
    }

    fn list(&mut self, values: &[&str]) -> Value {
        let count = 1 + self.below(2);
        (0..count).map(|_| Value::from(self.pick(values))).collect()
    }

    /// A value that one of these patterns matches, or just does not; now and then any other.
    fn near(&mut self, patterns: &[String], others: &[&str]) -> String {
        if patterns.is_empty() || self.below(4) == 0 {
            return self.pick(others).trim_matches('*').to_owned();
        }
        let at = self.below(patterns.len());
        let pattern = patterns.get(at).map(String::as_str).unwrap_or_default();
        let filled = pattern.replace("{**}", "c/d").replace("{*}", "c");
        let filled = filled.replace('*', self.pick(&["", "q", "zz"]));
        match self.below(5) {
            0 => filled.get(1..).unwrap_or_default().to_owned(),
            1 => format!("{filled}y"),
            2 => filled.to_ascii_uppercase(),
            _ => filled,
        }
    }

    fn pick<'v>(&mut self, values: &[&'v str]) -> &'v str {
        let at = self.below(values.len());
        values.get(at).copied().unwrap_or_default()
    }

    fn often(&mut self) -> bool {
        self.below(2) == 0
    }

    /// A number below `limit`; 0 where that is 0. (splitmix64)
    fn below(&mut self, limit: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
        usize::try_from(z % limit).unwrap_or_default()
    }
}

/// The texts of every list of that name.
fn collect(value: &Value, name: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                if key == name {
                    let texts = inner.as_array().into_iter().flatten().filter_map(Value::as_str);
                    found.extend(texts.map(str::to_owned));
                } else {
                    collect(inner, name, found);
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| collect(inner, name, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_cases_and_another_one_others() {
        let make = |seed| {
            let mut edges = Edges::new(seed);
            let policies = edges.policies();
            let request = edges.request(&policies);
            (policies, request)
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }
}
