//! The decision as semantics 2 says it, slow and plain: no index, text instead of components.

use std::net::IpAddr;

use policy::{Action, ConditionSpec, OperationSpec, PolicySpec, RuleSpec, SourceSpec};

use super::Request;

/// Upstream's decision, where all values are good ones: the first policy and rule that decide.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Allowed(Option<(String, usize)>),
    Custom(String, usize),
    Denied(String, usize),
    NoAllow,
}

pub fn decide(specs: &[PolicySpec], request: &Request) -> Verdict {
    let mut sorted: Vec<&PolicySpec> = specs.iter().filter(|s| !s.dry_run).collect();
    sorted.sort_by(|a, b| a.id.cmp(&b.id));
    let first = |wanted: fn(&Action) -> bool| {
        sorted
            .iter()
            .filter(|spec| wanted(&spec.action))
            .find_map(|spec| {
                let at = spec.rules.iter().position(|rule| matches(rule, spec, request))?;
                Some((spec.id.name.clone(), at))
            })
    };
    if let Some((name, rule)) = first(|a| matches!(a, Action::Custom { .. })) {
        return Verdict::Custom(name, rule);
    }
    if let Some((name, rule)) = first(|a| *a == Action::Deny) {
        return Verdict::Denied(name, rule);
    }
    if !sorted.iter().any(|spec| spec.action == Action::Allow) {
        return Verdict::Allowed(None);
    }
    first(|a| *a == Action::Allow).map_or(Verdict::NoAllow, |found| Verdict::Allowed(Some(found)))
}

fn matches(rule: &RuleSpec, spec: &PolicySpec, r: &Request) -> bool {
    let namespace = &spec.id.namespace;
    let allow = spec.action == Action::Allow;
    if !r.http && allow && has_http(rule) {
        return false;
    }
    (rule.from.is_empty() || rule.from.iter().any(|s| source(s, namespace, r)))
        && (rule.to.is_empty() || rule.to.iter().any(|o| operation(o, r)))
        && rule.when.iter().all(|c| condition(c, namespace, r))
}

fn has_http(rule: &RuleSpec) -> bool {
    rule.from
        .iter()
        .any(|s| !s.request_principals.is_empty() || !s.not_request_principals.is_empty())
        || rule.to.iter().any(|o| {
            [
                &o.hosts,
                &o.not_hosts,
                &o.methods,
                &o.not_methods,
                &o.paths,
                &o.not_paths,
            ]
            .iter()
            .any(|v| !v.is_empty())
        })
        || rule.when.iter().any(|c| c.key.starts_with("request."))
}

/// A field and its twin; `http` fields are silent on connections.
fn pair(values: &[String], not: &[String], silent: bool, test: &dyn Fn(&str) -> bool) -> bool {
    silent || ((values.is_empty() || values.iter().any(|v| test(v))) && !not.iter().any(|v| test(v)))
}

fn source(s: &SourceSpec, namespace: &str, r: &Request) -> bool {
    pair(&s.principals, &s.not_principals, false, &|v| principal(v, r))
        && pair(&s.request_principals, &s.not_request_principals, !r.http, &|v| {
            request_principal(v, r)
        })
        && pair(&s.namespaces, &s.not_namespaces, false, &|v| in_namespace(v, r))
        && pair(&s.service_accounts, &s.not_service_accounts, false, &|v| {
            account(v, namespace, r)
        })
        && pair(&s.trust_domains, &s.not_trust_domains, false, &|v| {
            trust_domain(v, r)
        })
        && pair(&s.ip_blocks, &s.not_ip_blocks, false, &|v| block(v, r.source))
        && pair(&s.remote_ip_blocks, &s.not_remote_ip_blocks, false, &|v| {
            block(v, r.remote)
        })
}

fn operation(o: &OperationSpec, r: &Request) -> bool {
    pair(&o.hosts, &o.not_hosts, !r.http, &|v| {
        v == "*" || form(&v.to_lowercase(), &r.authority.to_lowercase())
    }) && pair(&o.ports, &o.not_ports, false, &|v| v.parse() == Ok(r.port))
        && pair(&o.methods, &o.not_methods, !r.http, &|v| {
            v == "*" || form(v, &r.method)
        })
        && pair(&o.paths, &o.not_paths, !r.http, &|v| path(v, &r.path))
}

fn condition(c: &ConditionSpec, namespace: &str, r: &Request) -> bool {
    let silent = c.key.starts_with("request.") && !r.http;
    pair(&c.values, &c.not_values, silent, &|v| match c.key.as_str() {
        "source.ip" => block(v, r.source),
        "remote.ip" => block(v, r.remote),
        "destination.ip" => block(v, r.destination),
        "source.namespace" => in_namespace(v, r),
        "source.serviceAccount" => account(v, namespace, r),
        "source.principal" => principal(v, r),
        "source.trustDomain" => trust_domain(v, r),
        "destination.port" => v.parse() == Ok(r.port),
        "connection.sni" => r.sni.as_ref().is_some_and(|sni| form(v, sni)),
        "request.auth.principal" => request_principal(v, r),
        "request.auth.audiences" => claim(r, "aud").is_some_and(|aud| form(v, &aud)),
        "request.headers[x-a]" => r.headers.0.iter().any(|(_, value)| v == "*" || form(v, value)),
        other => panic!("{other}"),
    })
}

fn form(pattern: &str, text: &str) -> bool {
    if pattern == "*" {
        !text.is_empty()
    } else if let Some(suffix) = pattern.strip_prefix('*') {
        text.ends_with(suffix)
    } else if let Some(prefix) = pattern.strip_suffix('*') {
        text.starts_with(prefix)
    } else {
        pattern == text
    }
}

fn name(r: &Request) -> Option<String> {
    r.peer
        .as_ref()
        .map(|id| id.to_string()["spiffe://".len()..].to_owned())
}

/// The mesh is `cluster.local` without aliases, so that nothing is rewritten.
fn principal(v: &str, r: &Request) -> bool {
    name(r).is_some_and(|id| form(v, &id))
}

fn in_namespace(v: &str, r: &Request) -> bool {
    let Some(id) = r.peer.as_ref().map(ToString::to_string) else {
        return false;
    };
    // Upstream's expression: `.*/ns/VALUE/.*`.
    id.match_indices("/ns/").any(|(at, found)| {
        let rest = &id[at + found.len()..];
        rest.match_indices('/').any(|(end, _)| star(v, &rest[..end]))
    }) || (id.contains("/ns/ns/") && star(v, "sa"))
}

/// `*` is any run.
fn star(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && star(tail, &rest[at..]))
        }),
    }
}

fn account(v: &str, namespace: &str, r: &Request) -> bool {
    let (ns, sa) = v.split_once('/').unwrap_or((namespace, v));
    r.peer
        .as_ref()
        .is_some_and(|id| id.namespace() == ns && id.service_account() == sa)
}

fn trust_domain(v: &str, r: &Request) -> bool {
    r.peer
        .as_ref()
        .is_some_and(|id| form(v, id.trust_domain().as_str()))
}

fn block(v: &str, ip: IpAddr) -> bool {
    v.parse::<model::Cidr>().unwrap().contains(ip)
}

fn claim(r: &Request, name: &str) -> Option<String> {
    r.claims.as_ref()?.0.get(name)?.as_str().map(str::to_owned)
}

fn request_principal(v: &str, r: &Request) -> bool {
    let Some((issuer, subject)) = claim(r, "iss").zip(claim(r, "sub")) else {
        return false;
    };
    match v.rsplit_once('/') {
        Some((iss, sub)) if v.starts_with('*') => form(iss, &issuer) && sub == subject,
        Some((iss, sub)) => iss == issuer && form(sub, &subject),
        None if v == "*" => !issuer.is_empty() && !subject.is_empty(),
        None if v.starts_with('*') => !issuer.is_empty() && form(v, &subject),
        None if v.ends_with('*') => form(v, &issuer) && !subject.is_empty(),
        None => v == issuer && subject.is_empty(),
    }
}

fn path(v: &str, target: &str) -> bool {
    let target = &target[..target.find(['?', '#']).unwrap_or(target.len())];
    if !v.contains("{*}") && !v.contains("{**}") {
        return form(v, target);
    }
    template(v, target)
}

fn template(v: &str, target: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~%!$&'()+,;:@=*".contains(c);
    let (star, double) = (v.find("{*}"), v.find("{**}"));
    match (star, double) {
        (None, None) => v == target,
        (Some(at), other) if other.is_none_or(|d| at < d) => {
            target.strip_prefix(&v[..at]).is_some_and(|rest| {
                let end = rest.find('/').unwrap_or(rest.len());
                end > 0 && rest[..end].chars().all(plain) && template(&v[at + 3..], &rest[end..])
            })
        }
        (_, Some(at)) => target.strip_prefix(&v[..at]).is_some_and(|rest| {
            rest.strip_suffix(&v[at + 4..])
                .is_some_and(|any| any.chars().all(|c| c == '/' || plain(c)))
        }),
        (Some(_), None) => unreachable!(),
    }
}
