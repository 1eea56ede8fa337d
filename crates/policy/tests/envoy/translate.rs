//! AuthorizationPolicies as the filters of Envoy that Istio makes of them; held to Istio's own by the goldens.

use policy::{Action, ConditionSpec, OperationSpec, PolicySpec, RuleSpec, SourceSpec};
use serde_json::{Map, Value, json};

/// What a filter judges.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum On {
    Requests,
    /// Where fields of requests are not there (semantics 2.11).
    Connections,
}

/// The `rules` of the filter for the policies of one action.
fn rules(specs: &[&PolicySpec], action: &str, on: On) -> Value {
    let mut policies = Map::new();
    for spec in specs {
        for (index, rule) in spec.rules.iter().enumerate() {
            let without = without_requests(rule);
            let rule = match on {
                On::Requests => rule,
                On::Connections if action == "ALLOW" && without != *rule => continue,
                On::Connections => &without,
            };
            let name = format!("ns[{}]-policy[{}]-rule[{index}]", spec.id.namespace, spec.id.name);
            policies.insert(name, of_rule(rule, &spec.id.namespace));
        }
    }
    let mut rules = match action {
        "ALLOW" => json!({}),
        action => json!({"action": action}),
    };
    if !policies.is_empty() {
        rules["policies"] = policies.into();
    }
    rules
}

/// The rule without what only a request has.
fn without_requests(rule: &RuleSpec) -> RuleSpec {
    let mut rule = rule.clone();
    for source in &mut rule.from {
        source.request_principals.clear();
        source.not_request_principals.clear();
    }
    for operation in &mut rule.to {
        *operation = OperationSpec {
            ports: operation.ports.clone(),
            not_ports: operation.not_ports.clone(),
            ..OperationSpec::default()
        };
    }
    rule.when
        .retain(|condition| !condition.key.starts_with("request."));
    rule
}

pub(crate) fn of(specs: &[PolicySpec], action: &Action, on: On) -> Option<Value> {
    let of: Vec<&PolicySpec> = specs.iter().filter(|spec| spec.action == *action).collect();
    let name = match action {
        Action::Allow => "ALLOW",
        Action::Deny => "DENY",
        Action::Audit => "LOG",
        Action::Custom { .. } | Action::Ceiling => return None,
    };
    (!of.is_empty()).then(|| rules(&of, name, on))
}

/// Whether nodes are permissions or principals: the words differ.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Permission,
    Principal,
}

impl Side {
    fn list(self, kind: &str, nodes: Vec<Value>) -> Value {
        match self {
            Self::Permission => json!({format!("{kind}Rules"): {"rules": nodes}}),
            Self::Principal => json!({format!("{kind}Ids"): {"ids": nodes}}),
        }
    }

    fn not(self, node: &Value) -> Value {
        match self {
            Self::Permission => json!({"notRule": node}),
            Self::Principal => json!({"notId": node}),
        }
    }

    fn all(self, mut nodes: Vec<Value>) -> Value {
        if nodes.is_empty() {
            nodes.push(json!({"any": true}));
        }
        self.list("and", nodes)
    }

    fn add(self, out: &mut Vec<Value>, values: &[String], not: &[String], node: &dyn Fn(&str) -> Value) {
        let any = |values: &[String]| self.list("or", values.iter().map(|v| node(v)).collect());
        if !values.is_empty() {
            out.push(any(values));
        }
        if !not.is_empty() {
            out.push(self.not(&any(not)));
        }
    }
}

fn of_rule(rule: &RuleSpec, namespace: &str) -> Value {
    let (mut permissions, mut principals) = (Vec::new(), Vec::new());
    for condition in &rule.when {
        if let Some(key) = condition.key.strip_prefix("experimental.") {
            permissions.extend(condition.values.iter().map(|value| metadata(key, value)));
            let not = condition.not_values.iter();
            permissions.extend(not.map(|value| Side::Permission.not(&metadata(key, value))));
            continue;
        }
        let (side, node) = condition_node(condition, namespace);
        let out = match side {
            Side::Permission => &mut permissions,
            Side::Principal => &mut principals,
        };
        side.add(out, &condition.values, &condition.not_values, &*node);
    }
    let with = |mut nodes: Vec<Value>, more: &[Value], side: Side| {
        nodes.extend_from_slice(more);
        side.all(nodes)
    };
    let each = |alternatives: Vec<Vec<Value>>, more: &[Value], side: Side| -> Vec<Value> {
        if alternatives.is_empty() {
            return vec![with(Vec::new(), more, side)];
        }
        alternatives
            .into_iter()
            .map(|nodes| with(nodes, more, side))
            .collect()
    };
    let sources = rule.from.iter().map(|source| of_source(source, namespace));
    let operations = rule.to.iter().map(of_operation);
    json!({
        "permissions": each(operations.collect(), &permissions, Side::Permission),
        "principals": each(sources.collect(), &principals, Side::Principal),
    })
}

fn of_source(s: &SourceSpec, namespace: &str) -> Vec<Value> {
    let mut out = Vec::new();
    let mut add = |values: &[String], not: &[String], node: &dyn Fn(&str) -> Value| {
        Side::Principal.add(&mut out, values, not, node);
    };
    add(
        &s.ip_blocks,
        &s.not_ip_blocks,
        &|v| json!({"directRemoteIp": block(v)}),
    );
    add(
        &s.remote_ip_blocks,
        &s.not_remote_ip_blocks,
        &|v| json!({"remoteIp": block(v)}),
    );
    add(&s.service_accounts, &s.not_service_accounts, &|v| {
        account(v, namespace)
    });
    add(&s.namespaces, &s.not_namespaces, &in_namespace);
    add(&s.trust_domains, &s.not_trust_domains, &trust_domain);
    add(&s.principals, &s.not_principals, &principal);
    add(
        &s.request_principals,
        &s.not_request_principals,
        &request_principal,
    );
    out
}

fn of_operation(o: &OperationSpec) -> Vec<Value> {
    let mut out = Vec::new();
    let mut add = |values: &[String], not: &[String], node: &dyn Fn(&str) -> Value| {
        Side::Permission.add(&mut out, values, not, node);
    };
    add(&o.hosts, &o.not_hosts, &|v| header(":authority", v, true));
    add(&o.methods, &o.not_methods, &|v| header(":method", v, false));
    add(&o.paths, &o.not_paths, &path);
    add(
        &o.ports,
        &o.not_ports,
        &|v| json!({"destinationPort": v.parse::<u16>().unwrap()}),
    );
    out
}

type Node = Box<dyn Fn(&str) -> Value>;

fn condition_node(condition: &ConditionSpec, namespace: &str) -> (Side, Node) {
    let namespace = namespace.to_owned();
    let node: Node = match condition.key.as_str() {
        "destination.ip" => return (Side::Permission, Box::new(|v| json!({"destinationIp": block(v)}))),
        "destination.port" => {
            let node = |v: &str| json!({"destinationPort": v.parse::<u16>().unwrap()});
            return (Side::Permission, Box::new(node));
        }
        "connection.sni" => {
            return (
                Side::Permission,
                Box::new(|v| json!({"requestedServerName": text(v, "")})),
            );
        }
        "source.ip" => Box::new(|v| json!({"directRemoteIp": block(v)})),
        "remote.ip" => Box::new(|v| json!({"remoteIp": block(v)})),
        "source.namespace" => Box::new(in_namespace),
        "source.serviceAccount" => Box::new(move |v| account(v, &namespace)),
        "source.principal" => Box::new(principal),
        "source.trustDomain" => Box::new(trust_domain),
        "request.auth.principal" => Box::new(request_principal),
        "request.auth.audiences" => Box::new(|v| {
            let one = json!({"stringMatch": text(v, "")});
            let list = json!({"listMatch": {"oneOf": one}});
            claim("aud", &json!({"orMatch": {"valueMatchers": [one, list]}}))
        }),
        key => {
            let name = key.strip_prefix("request.headers[").unwrap();
            let name = name.strip_suffix(']').unwrap().to_owned();
            Box::new(move |v| header(&name, v, false))
        }
    };
    (Side::Principal, node)
}

/// A value in its form, with a text before it.
fn text(value: &str, before: &str) -> Value {
    if value == "*" {
        json!({"safeRegex": {"regex": ".+"}})
    } else if let Some(suffix) = value.strip_prefix('*') {
        match before {
            "" => json!({"suffix": suffix}),
            _ => json!({"safeRegex": {"regex": format!("{before}.*{}", regex::escape(suffix))}}),
        }
    } else if let Some(prefix) = value.strip_suffix('*') {
        json!({"prefix": format!("{before}{prefix}")})
    } else {
        json!({"exact": format!("{before}{value}")})
    }
}

fn header(name: &str, value: &str, fold: bool) -> Value {
    if value == "*" {
        return json!({"header": {"name": name, "presentMatch": true}});
    }
    let mut matcher = text(value, "");
    if fold {
        matcher["ignoreCase"] = json!(true);
    }
    json!({"header": {"name": name, "stringMatch": matcher}})
}

fn path(value: &str) -> Value {
    if !value.contains("{*}") && !value.contains("{**}") {
        return json!({"urlPath": {"path": text(value, "")}});
    }
    let template = value.replace("{**}", "**").replace("{*}", "*");
    json!({"uriTemplate": {
        "name": "uri-template",
        "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
            "pathTemplate": template,
        },
    }})
}

fn authenticated(name: &Value) -> Value {
    json!({"authenticated": {"principalName": name}})
}

fn principal(value: &str) -> Value {
    authenticated(&text(value, "spiffe://"))
}

fn in_namespace(value: &str) -> Value {
    authenticated(&json!({"safeRegex": {"regex": format!(".*/ns/{}/.*", value.replace('*', ".*"))}}))
}

fn account(value: &str, namespace: &str) -> Value {
    let (ns, sa) = value.split_once('/').unwrap_or((namespace, value));
    let regex = format!("spiffe://.+/ns/{}/sa/{}", regex::escape(ns), regex::escape(sa));
    authenticated(&json!({"safeRegex": {"regex": regex}}))
}

fn trust_domain(value: &str) -> Value {
    authenticated(&match value {
        "*" => json!({"safeRegex": {"regex": "spiffe://.+"}}),
        _ if value.contains('*') => {
            let regex = regex::escape(value).replace(r"\*", "[^/]*");
            json!({"safeRegex": {"regex": format!("spiffe://{regex}/.*")}})
        }
        _ => json!({"prefix": format!("spiffe://{value}/")}),
    })
}

/// What a filter of Envoy's left about a connection; one value, or none.
fn metadata(key: &str, value: &str) -> Value {
    let (filter, name) = key.split_once('[').unwrap();
    json!({"metadata": {
        "filter": filter,
        "path": [{"key": name.trim_end_matches(']')}],
        "value": {"stringMatch": text(value, "")},
    }})
}

fn claim(name: &str, value: &Value) -> Value {
    json!({"metadata": {
        "filter": "envoy.filters.http.jwt_authn",
        "path": [{"key": "payload"}, {"key": name}],
        "value": value,
    }})
}

fn request_principal(value: &str) -> Value {
    let any = "*";
    let (issuer, subject) = match value.rsplit_once('/') {
        Some((issuer, subject)) => (issuer, subject),
        None if value == any => (any, any),
        None if value.starts_with('*') => (any, value),
        None if value.ends_with('*') => (value, any),
        None => (value, ""),
    };
    let form = |text_of: &str, pattern: bool| match pattern {
        true => text(text_of, ""),
        false => json!({"exact": text_of}),
    };
    let slash = value.contains('/');
    let first = value.starts_with('*');
    let issuer = form(issuer, !slash || first);
    let subject = form(subject, (!slash && !subject.is_empty()) || (slash && !first));
    let one = |name: &str, matcher: &Value| claim(name, &json!({"stringMatch": matcher}));
    Side::Principal.list("and", vec![one("iss", &issuer), one("sub", &subject)])
}

fn block(value: &str) -> Value {
    let (address, length) = match value.split_once('/') {
        Some((address, length)) => (address, length.parse::<u8>().unwrap()),
        None => (value, if value.contains(':') { 128 } else { 32 }),
    };
    json!({"addressPrefix": address, "prefixLen": length})
}
