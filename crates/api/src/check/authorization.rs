//! AuthorizationPolicy: semantics 2.16, and what the secure profile refuses besides because it can never match.

use super::{selector, targets};
use crate::forms::addresses::is_block;
use crate::kinds::{DRY_RUN, Meta, go_bool};
use crate::report::Report;
use crate::yaml::Node;

/// Methods that the codec lets through (O-07): another one can never match.
const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];
/// How many service accounts a source may name, and how long each may be.
const MAX_SERVICE_ACCOUNTS: usize = 16;
const MAX_SERVICE_ACCOUNT: usize = 320;

const SOURCE_FIELDS: &[&str] = &[
    "principals",
    "requestPrincipals",
    "namespaces",
    "serviceAccounts",
    "trustDomains",
    "ipBlocks",
    "remoteIpBlocks",
];
const OPERATION_FIELDS: &[&str] = &["hosts", "ports", "methods", "paths"];
/// Fields that CUSTOM cannot use: the provider is asked before they are known (semantics 2.13).
const NOT_IN_CUSTOM: &[&str] = &[
    "principals",
    "requestPrincipals",
    "namespaces",
    "serviceAccounts",
    "trustDomains",
];

pub(super) fn policy(meta: &Meta, root: &Node, spec: &Node, report: &mut Report<'_>) {
    selector(spec, "selector", report);
    targets(spec, report);
    let action = spec.child("action").and_then(Node::text).unwrap_or("ALLOW");
    provider(action, spec, report);
    dry_run(action, meta, root, report);
    let rules = spec.child("rules").filter(|node| !node.is_null());
    if rules.is_none_or(|node| node.items().is_empty()) && matches!(action, "DENY" | "CUSTOM") {
        let span = rules.map_or_else(|| spec.span, |node| node.span);
        report
            .error("MW0209", span, format!("{action} without `rules` never matches"))
            .path("spec.rules")
            .remedy("add `rules:`; `rules: [{}]` matches everything");
    }
    for (index, rule) in rules.map(Node::items).unwrap_or_default().iter().enumerate() {
        let path = format!("spec.rules[{index}]");
        let mut checker = Rule::new(&path, action == "CUSTOM", report);
        checker.rule(rule);
        if action == "DENY" && checker.speaks.denies_tcp() {
            report
                .warning(
                    "MW0210",
                    rule.span,
                    format!("on TCP ports `{path}` denies every connection: what it says of requests is not read there"),
                )
                .path(path)
                .remedy("name the `ports` that are meant");
        }
    }
}

/// Rules that are no policy's of their own.
pub(super) fn rules(list: &Node, path: &str, report: &mut Report<'_>) {
    for (index, rule) in list.items().iter().enumerate() {
        Rule::new(&format!("{path}[{index}]"), false, report).rule(rule);
    }
}

fn provider(action: &str, spec: &Node, report: &mut Report<'_>) {
    let entry = spec.entry("provider").filter(|(_, node)| !node.is_null());
    match (action, entry) {
        ("CUSTOM", None) => {
            report
                .error("MW0211", spec.span_at("action"), "CUSTOM needs a `provider`")
                .path("spec.provider")
                .remedy("add `provider: {name: …}` with a name of meshConfig.extensionProviders");
        }
        ("CUSTOM", Some((key, node))) => {
            let name = node.child("name").and_then(Node::text).unwrap_or_default();
            if name.is_empty() {
                report
                    .error("MW0211", key.span, "the `provider` has no name")
                    .path("spec.provider.name")
                    .remedy("name an entry of meshConfig.extensionProviders");
            }
        }
        (_, Some((key, _))) => {
            report
                .error("MW0211", key.span, format!("{action} takes no `provider`"))
                .path("spec.provider")
                .remedy("write `action: CUSTOM`, or leave `provider` out");
        }
        (_, None) => {}
    }
}

fn dry_run(action: &str, meta: &Meta, root: &Node, report: &mut Report<'_>) {
    let Some(text) = meta.annotations.get(DRY_RUN) else {
        return;
    };
    let path = format!("metadata.annotations.{DRY_RUN}");
    let span = root.span_at(&path);
    match go_bool(text) {
        None => {
            report
                .error("MW0212", span, format!("`{DRY_RUN}: {text}` is not a boolean"))
                .path(path)
                .value(text)
                .remedy("write \"true\" or \"false\"");
        }
        Some(_) if !matches!(action, "ALLOW" | "DENY") => {
            report
                .error(
                    "MW0212",
                    span,
                    format!("`{DRY_RUN}` goes with ALLOW and DENY, not with {action}"),
                )
                .path(path)
                .remedy("take the annotation out");
        }
        Some(_) => {}
    }
}

struct Rule<'r, 't> {
    report: &'r mut Report<'t>,
    path: String,
    custom: bool,
    speaks: Speaks,
}

/// What a rule speaks of, by its parts.
#[derive(Clone, Copy, Default)]
struct Speaks {
    /// There is a source, and one that a connection has.
    source: bool,
    source_of_connections: bool,
    /// There is an operation, and one that a connection has.
    operation: bool,
    port: bool,
    /// There is a condition that only requests have, and one that connections have.
    request: bool,
    connection: bool,
}

impl Speaks {
    /// Whether a DENY rule denies more on TCP than it says: there it is read without what only requests have (2.11). The
    /// same as Istio's warning, but for trust domains, which connections have, and for conditions.
    fn denies_tcp(self) -> bool {
        if self.operation {
            !self.port
        } else if self.source {
            !self.source_of_connections && !self.port
        } else {
            self.request && !self.connection && !self.port
        }
    }
}

impl<'r, 't> Rule<'r, 't> {
    fn new(path: &str, custom: bool, report: &'r mut Report<'t>) -> Self {
        Self {
            report,
            path: path.to_owned(),
            custom,
            speaks: Speaks::default(),
        }
    }

    fn rule(&mut self, rule: &Node) {
        for (list, inner) in [("from", "source"), ("to", "operation")] {
            let Some(node) = rule.child(list).filter(|node| !node.is_null()) else {
                continue;
            };
            if node.items().is_empty() {
                self.empty(node, &format!("{}.{list}", self.path));
            }
            for (index, item) in node.items().iter().enumerate() {
                let path = format!("{}.{list}[{index}].{inner}", self.path);
                match item.child(inner).filter(|node| !node.entries().is_empty()) {
                    None => self.empty(item, &path),
                    Some(node) => {
                        let source = inner == "source";
                        self.speaks.source |= source;
                        self.speaks.operation |= !source;
                        self.fields(node, &path, source);
                    }
                }
            }
        }
        let conditions = rule.child("when").map(Node::items).unwrap_or_default();
        for (index, condition) in conditions.iter().enumerate() {
            let path = format!("{}.when[{index}]", self.path);
            self.condition(condition, &path);
        }
    }

    /// AZ-009 to AZ-012: what is written and says nothing would match everything.
    fn empty(&mut self, node: &Node, path: &str) {
        if node.written().is_some() {
            // It says something, in the wrong type, which was told of already.
            return;
        }
        self.report
            .error(
                "MW0213",
                node.span,
                format!("`{path}` is empty, and would match everything"),
            )
            .path(path)
            .remedy("say what is meant, or leave it out");
    }

    fn fields(&mut self, node: &Node, path: &str, source: bool) {
        let known = if source { SOURCE_FIELDS } else { OPERATION_FIELDS };
        for (key, values) in node.entries() {
            let field = positive(&key.text);
            let Some(field) = known.iter().find(|name| **name == field) else {
                continue;
            };
            let at = format!("{path}.{}", key.text);
            if values.items().is_empty() && !values.is_null() {
                self.empty(values, &at);
            }
            match *field {
                "requestPrincipals" | "hosts" | "methods" | "paths" => {}
                "ports" => self.speaks.port = true,
                _ => self.speaks.source_of_connections = true,
            }
            if self.custom && NOT_IN_CUSTOM.contains(field) {
                self.not_in_custom(key.span, &at);
            }
            for (index, value) in values.items().iter().enumerate() {
                self.value(field, value, &format!("{at}[{index}]"));
            }
            if *field == "serviceAccounts" && values.items().len() > MAX_SERVICE_ACCOUNTS {
                self.refuse(
                    values,
                    &at,
                    &format!("more than {MAX_SERVICE_ACCOUNTS} service accounts"),
                    "make several rules",
                );
            }
        }
        let has = |name: &str| {
            let entry = |key: &str| node.child(key).is_some_and(|n| !n.items().is_empty());
            entry(name) || entry(&negative(name))
        };
        if has("serviceAccounts") && (has("principals") || has("namespaces")) {
            self.refuse(
                node,
                path,
                "`serviceAccounts` cannot stand beside `principals` or `namespaces`",
                "say it by one of them",
            );
        }
    }

    fn condition(&mut self, condition: &Node, path: &str) {
        let Some(node) = condition.child("key") else {
            return;
        };
        let key = node.text().unwrap_or_default();
        let Some(kind) = Condition::of(key) else {
            self.report
                .error("MW0214", node.span, format!("`{key}` is not a key that `when` knows"))
                .path(format!("{path}.key"))
                .value(key)
                .remedy("write request.headers[NAME], source.ip, remote.ip, source.namespace, source.principal, source.serviceAccount, source.trustDomain, request.auth.principal, request.auth.audiences, request.auth.presenter, request.auth.claims[NAME], destination.ip, destination.port or connection.sni");
            return;
        };
        match kind {
            Condition::Http(_) => self.speaks.request = true,
            Condition::Tcp("ports") => self.speaks.port = true,
            Condition::Tcp(_) => self.speaks.connection = true,
        }
        let (Condition::Http(field) | Condition::Tcp(field)) = kind;
        if self.custom && (NOT_IN_CUSTOM.contains(&field) || key.starts_with("request.auth.")) {
            self.not_in_custom(node.span, &format!("{path}.key"));
        }
        let mut any = false;
        for list in ["values", "notValues"] {
            let items = condition.child(list).map(Node::items).unwrap_or_default();
            any |= !items.is_empty();
            for (index, value) in items.iter().enumerate() {
                self.value(field, value, &format!("{path}.{list}[{index}]"));
            }
        }
        if !any {
            self.refuse(
                condition,
                path,
                "the condition has neither `values` nor `notValues`",
                "say which values are meant",
            );
        }
    }

    fn not_in_custom(&mut self, span: crate::problem::Span, path: &str) {
        self.report
            .error(
                "MW0215",
                span,
                "CUSTOM cannot use this field: the provider is asked before the caller's identity or token counts",
            )
            .path(path)
            .remedy("use ipBlocks, hosts, ports, methods, paths, headers, or say it in a DENY beside it");
    }

    fn value(&mut self, field: &str, node: &Node, path: &str) {
        let Some(text) = node.text() else { return };
        if text.is_empty() {
            return self.refuse(node, path, "the value is empty", "give it a text, or take it out");
        }
        match field {
            "ipBlocks" | "remoteIpBlocks" if !is_block(text) => {
                let why = format!("`{text}` is neither an address nor a CIDR range");
                self.refuse(node, path, &why, "write for example 10.1.2.3 or 10.0.0.0/8");
            }
            "ports" if text.starts_with('+') || text.parse::<u16>().is_err() => {
                let why = format!("`{text}` is not a port from 0 to 65535");
                self.refuse(node, path, &why, "write the workload's port as a number");
            }
            "paths" => self.path_value(node, path, text),
            "serviceAccounts" => self.service_account(node, path, text),
            "trustDomains" => self.trust_domain(node, path, text),
            "principals" if text.trim_start_matches('*').starts_with("spiffe://") => {
                let why = "principals are written without `spiffe://`: this never matches (SM-35)";
                self.never(node, path, why, "leave `spiffe://` out");
            }
            "requestPrincipals" => self.request_principal(node, path, text),
            "methods" => self.method(node, path, text),
            _ => {}
        }
        let other = matches!(field, "namespaces" | "ipBlocks" | "remoteIpBlocks" | "ports");
        let template = field == "paths" && text.contains('{');
        let literal = !other && !template;
        let inner = text.strip_prefix('*').unwrap_or(text);
        let inner = if inner.len() == text.len() {
            inner.strip_suffix('*').unwrap_or(inner)
        } else {
            inner
        };
        if literal && inner.contains('*') && text != "*" {
            let why = format!(
                "in `{text}` only a `*` at one end is a wildcard; the other one is a letter (SM-07, SM-09)"
            );
            self.never(node, path, &why, "keep one `*`, at the beginning or the end");
        }
    }

    /// Semantics 2.8, and SM-21.
    fn path_value(&mut self, node: &Node, path: &str, text: &str) {
        if text.contains("{*}") || text.contains("{**}") {
            if let Some(why) = template_fault(text) {
                self.refuse(
                    node,
                    path,
                    &why,
                    "`{*}` stands for one whole segment, `{**}` for the rest, as the last of them",
                );
            }
        } else if text.contains(['{', '}']) {
            let why = format!("`{text}` is no path template");
            self.refuse(
                node,
                path,
                &why,
                "write `{*}` for a segment and `{**}` for any number",
            );
        } else if text.contains(['?', '#']) {
            let why = "paths are compared without query and fragment: this never matches (SM-21)";
            self.never(node, path, why, "leave out what follows the `?` or `#`");
        } else if !text.starts_with(['/', '*']) {
            let why = format!("`{text}` does not begin with `/`: no path does not, so it never matches");
            self.never(node, path, &why, "begin with `/` or `*`");
        }
    }

    fn service_account(&mut self, node: &Node, path: &str, text: &str) {
        let parts = text.split('/').count();
        let empty = text.split('/').any(str::is_empty);
        if text.contains('*') || parts > 2 || empty || text.len() > MAX_SERVICE_ACCOUNT {
            let why = format!("`{text}` is not NAMESPACE/SERVICEACCOUNT or SERVICEACCOUNT");
            self.refuse(node, path, &why, "write it without wildcards");
        }
    }

    fn trust_domain(&mut self, node: &Node, path: &str, text: &str) {
        let inner = text.trim_start_matches('*');
        let stars = text.matches('*').count();
        let ends = text.starts_with('*') || text.ends_with('*');
        if text.contains('/') || stars > 1 || (stars == 1 && !ends) || (inner.is_empty() && text != "*") {
            let why = format!("`{text}` is not a trust domain");
            self.refuse(
                node,
                path,
                &why,
                "write it without `/`, with at most one `*` at an end (SM-44)",
            );
        }
    }

    /// RP-05, RP-10, RP-11.
    fn request_principal(&mut self, node: &Node, path: &str, text: &str) {
        let fault = if text == "*/*" {
            Some("its subject is the letter `*` (RP-10)")
        } else if text.strip_suffix('*').is_some_and(|rest| {
            rest.contains("://")
                && !rest.ends_with('/')
                && !rest.rsplit("://").next().unwrap_or_default().contains('/')
        }) {
            Some("the `*` lands in the subject, because an issuer's address holds a `/` (RP-05)")
        } else if !text.contains(['/', '*']) {
            Some("it demands a token without a subject (RP-11)")
        } else {
            None
        };
        if let Some(why) = fault {
            self.never(
                node,
                path,
                &format!("`{text}` never matches: {why}"),
                "write ISSUER/SUBJECT, or ISSUER/*",
            );
        }
    }

    fn method(&mut self, node: &Node, path: &str, text: &str) {
        let fits = match (text.strip_suffix('*'), text.strip_prefix('*')) {
            (Some(start), _) => METHODS.iter().any(|m| m.starts_with(start)),
            (None, Some(end)) => METHODS.iter().any(|m| m.ends_with(end)),
            (None, None) => METHODS.contains(&text),
        };
        if !fits {
            let upper = text.to_ascii_uppercase();
            let near = METHODS.iter().find(|m| **m == upper);
            let remedy = near.map_or_else(
                || format!("write one of {}", METHODS.join(", ")),
                |m| format!("write `{m}`"),
            );
            self.report
                .warning(
                    "MW0216",
                    node.span,
                    format!("no request has the method `{text}` (O-07)"),
                )
                .path(path)
                .value(text)
                .remedy(remedy);
        }
    }

    fn refuse(&mut self, node: &Node, path: &str, why: &str, remedy: &str) {
        let value = node.text().unwrap_or_default();
        self.report
            .error("MW0217", node.span, format!("`{path}`: {why}"))
            .path(path)
            .value(value)
            .remedy(remedy);
    }

    /// Istio takes it, and it cannot do what it looks like: an error of the secure profile.
    fn never(&mut self, node: &Node, path: &str, why: &str, remedy: &str) {
        let value = node.text().unwrap_or_default();
        self.report
            .error("MW0301", node.span, format!("`{path}`: {why}"))
            .path(path)
            .value(value)
            .remedy(remedy);
    }
}

/// What a key of `when` is compared like: the name of the field with the same values, and whether only HTTP has it.
enum Condition {
    Http(&'static str),
    Tcp(&'static str),
}

impl Condition {
    /// Semantics 2.10.
    fn of(key: &str) -> Option<Self> {
        Some(match key {
            "source.ip" | "destination.ip" => Self::Tcp("ipBlocks"),
            "remote.ip" => Self::Tcp("remoteIpBlocks"),
            "source.namespace" => Self::Tcp("namespaces"),
            "source.serviceAccount" => Self::Tcp("serviceAccounts"),
            "source.principal" => Self::Tcp("principals"),
            "source.trustDomain" => Self::Tcp("trustDomains"),
            "destination.port" => Self::Tcp("ports"),
            "connection.sni" => Self::Tcp("sni"),
            "request.auth.principal" => Self::Http("requestPrincipals"),
            "request.auth.audiences" | "request.auth.presenter" => Self::Http("claims"),
            _ => {
                let (prefix, rest) = key.split_once('[')?;
                let name = rest.strip_suffix(']')?;
                match prefix {
                    "request.headers" if !name.is_empty() && !name.contains(['[', ']']) => {
                        Self::Http("headers")
                    }
                    "request.auth.claims" if claim_path(name) => Self::Http("claims"),
                    _ if prefix.starts_with("experimental.envoy.filters.") && !name.is_empty() => {
                        Self::Tcp("experimental")
                    }
                    _ => return None,
                }
            }
        })
    }
}

/// `a`, or `a][b` of `[a][b]`.
fn claim_path(inner: &str) -> bool {
    inner
        .split("][")
        .all(|part| !part.is_empty() && !part.contains(['[', ']']))
}

fn positive(key: &str) -> String {
    match key.strip_prefix("not") {
        Some(rest) => {
            let mut letters = rest.chars();
            letters
                .next()
                .map(|first| first.to_ascii_lowercase().to_string() + letters.as_str())
                .unwrap_or_default()
        }
        None => key.to_owned(),
    }
}

fn negative(key: &str) -> String {
    let mut letters = key.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase().to_string());
    format!("not{}{}", first.unwrap_or_default(), letters.as_str())
}

/// PT-21 to PT-39: why a template is none.
fn template_fault(text: &str) -> Option<String> {
    let mut many = false;
    if !text.starts_with('/') {
        return Some(format!("the template `{text}` does not begin with `/`"));
    }
    for segment in text.split('/').skip(1) {
        let operator = matches!(segment, "{*}" | "{**}");
        if operator && many {
            return Some(format!("in `{text}` an operator follows `{{**}}`"));
        }
        if segment == "{**}" {
            many = true;
        }
        if !operator && segment.contains(['{', '}', '*', '?', '#']) {
            return Some(format!(
                "`{segment}` of `{text}` is neither literal nor an operator by itself"
            ));
        }
    }
    None
}
