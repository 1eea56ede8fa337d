//! Patterns that fail open, and hosts that are not what they seem.

use api::{Action, Condition, Operation, Rule, Severity, Source};
use policy::{
    Action as Compiled, Facts, HeaderLookup, HttpFacts, OperationSpec, PolicyId, PolicySet, PolicySpec,
    RuleSpec,
};
use snapshot::Mesh;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::{Findings, code};

/// P4: what does not match passes. A DENY that names what is forbidden misses what is spelled in another way; an ALLOW that
/// names what is not allowed admits everything else, callers without identity or token included (R43).
pub(super) fn fragile(findings: &mut Findings<'_>) {
    let policy = findings.policy;
    for (at, rule) in policy.rules.iter().enumerate() {
        let path = format!("spec.rules[{at}]");
        let (text, negative) = (positive_text(rule), negative(rule));
        match policy.action {
            Action::Deny if negative.is_none() && text.is_some() => {
                let field = text.unwrap_or_default();
                let message = format!(
                    "the rule denies what it names by `{field}`: a request that says the same in another way passes (P4)"
                );
                let remedy = "deny what is not known to be good (`notPaths`, `notPrincipals`), or allow by an ALLOW policy alone";
                findings.tell(&path, Severity::Warning, code::FRAGILE, message, remedy);
            }
            Action::Allow => {
                if let Some(field) = negative {
                    let message = format!(
                        "the rule allows by `{field}` whatever is not named, callers without identity or token included (P4)"
                    );
                    let remedy = "name what is allowed, and deny the exception in a DENY policy";
                    findings.tell(&path, Severity::Warning, code::FRAGILE, message, remedy);
                }
            }
            _ => {}
        }
    }
}

/// A field of the rule whose text the caller chooses, among those that are positive.
fn positive_text(rule: &Rule) -> Option<&'static str> {
    let of = |operation: &Operation| {
        if !operation.paths.is_empty() {
            return Some("paths");
        }
        (!operation.hosts.is_empty()).then_some("hosts")
    };
    let header = |when: &Condition| when.key.starts_with("request.headers[") && !when.values.is_empty();
    rule.to
        .iter()
        .find_map(|to| of(&to.operation))
        .or_else(|| rule.when.iter().any(header).then_some("request.headers"))
}

/// A negative field of the rule.
fn negative(rule: &Rule) -> Option<&'static str> {
    let source = |s: &Source| {
        let lists = [
            ("notPrincipals", &s.not_principals),
            ("notRequestPrincipals", &s.not_request_principals),
            ("notNamespaces", &s.not_namespaces),
            ("notServiceAccounts", &s.not_service_accounts),
            ("notTrustDomains", &s.not_trust_domains),
            ("notIpBlocks", &s.not_ip_blocks),
            ("notRemoteIpBlocks", &s.not_remote_ip_blocks),
        ];
        lists
            .into_iter()
            .find(|(_, values)| !values.is_empty())
            .map(|(name, _)| name)
    };
    let operation = |o: &Operation| {
        let lists = [
            ("notHosts", &o.not_hosts),
            ("notPorts", &o.not_ports),
            ("notMethods", &o.not_methods),
            ("notPaths", &o.not_paths),
        ];
        lists
            .into_iter()
            .find(|(_, values)| !values.is_empty())
            .map(|(name, _)| name)
    };
    let of_from = rule.from.iter().find_map(|from| source(&from.source));
    let of_to = || rule.to.iter().find_map(|to| operation(&to.operation));
    let of_when = || {
        rule.when
            .iter()
            .any(|when| !when.not_values.is_empty())
            .then_some("notValues")
    };
    of_from.or_else(of_to).or_else(of_when)
}

/// Every list of hosts, with its place.
fn hosts(rule: &Rule, at: usize) -> Vec<(String, &[String])> {
    let mut lists = Vec::new();
    for (to, item) in rule.to.iter().enumerate() {
        let operation = &item.operation;
        for (name, values) in [("hosts", &operation.hosts), ("notHosts", &operation.not_hosts)] {
            if !values.is_empty() {
                let path = format!("spec.rules[{at}].to[{to}].operation.{name}");
                lists.push((path, values.as_slice()));
            }
        }
    }
    for (number, when) in rule.when.iter().enumerate() {
        let key = when.key.to_ascii_lowercase();
        if key == "request.headers[:authority]" || key == "request.headers[host]" {
            for (name, values) in [("values", &when.values), ("notValues", &when.not_values)] {
                if !values.is_empty() {
                    lists.push((
                        format!("spec.rules[{at}].when[{number}].{name}"),
                        values.as_slice(),
                    ));
                }
            }
        }
    }
    lists
}

/// P12: a caller of a workload may send any Host.
pub(super) fn hosts_on_sidecars(findings: &mut Findings<'_>) {
    let policy = findings.policy;
    for (at, rule) in policy.rules.iter().enumerate() {
        for (path, _) in hosts(rule, at) {
            let message = "a workload does not choose by Host, and a caller sends which it likes: this decides nothing that can be relied on (P12)";
            let remedy = "use `hosts` at gateways; for workloads use `selector`, `ports` and `paths`";
            findings.tell(
                &path,
                Severity::Warning,
                code::HOST_ON_SIDECAR,
                message.to_owned(),
                remedy,
            );
        }
    }
}

/// P11: the whole value is compared, a port included.
pub(super) fn hosts_without_port(mesh: &Mesh, findings: &mut Findings<'_>) {
    let policy = findings.policy;
    for (at, rule) in policy.rules.iter().enumerate() {
        for (path, values) in hosts(rule, at) {
            let with_port = |host: &str| values.iter().any(|other| other.starts_with(&format!("{host}:")));
            for (number, host) in values.iter().enumerate() {
                if host.contains(['*', ':']) || with_port(host) || matches_with_port(host, mesh) {
                    continue;
                }
                let message = format!("`{host}` does not match `{host}:8080`, which is routed alike (P11)");
                let remedy = format!("add `{host}:*`");
                findings.tell(
                    &format!("{path}[{number}]"),
                    Severity::Warning,
                    code::HOST_WITHOUT_PORT,
                    message,
                    &remedy,
                );
            }
        }
    }
}

/// Asks the very code that will decide.
fn matches_with_port(host: &str, mesh: &Mesh) -> bool {
    struct Nothing;
    impl HeaderLookup for Nothing {
        fn any(&self, _: &str, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            false
        }
    }
    let operation = OperationSpec {
        hosts: vec![host.to_owned()],
        ..OperationSpec::default()
    };
    let spec = PolicySpec {
        id: PolicyId {
            namespace: String::new(),
            name: String::new(),
        },
        action: Compiled::Allow,
        dry_run: false,
        rules: vec![RuleSpec {
            to: vec![operation],
            ..RuleSpec::default()
        }],
        invalid: None,
        origin: policy::Origin::default(),
    };
    let set = PolicySet::compile(&[Arc::new(spec)], &[], &mesh.policy_context());
    let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let facts = Facts {
        peer: None,
        source_ip: nowhere,
        remote_ip: nowhere,
        destination_ip: nowhere,
        destination_port: 8080,
        sni: None,
        http: Some(HttpFacts {
            method: "GET",
            authority: &format!("{host}:8080"),
            path: "/",
            headers: &Nothing,
            claims: None,
        }),
    };
    policy::authorize(&facts, &set).is_ok()
}
