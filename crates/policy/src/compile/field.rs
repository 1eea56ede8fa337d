//! The values of one field, made into a test.

use std::sync::Arc;

use model::{Cidr, TrustDomain};

use super::{Case, aliases, literal};
use crate::context::Compat;
use crate::matchers::{
    Address, Blocks, ClaimValues, Domains, HeaderName, Namespaces, Presence, Principal, Principals,
    RequestPrincipals, ServiceAccounts, Template, Test, Texts, is_template,
};
use crate::path::Mode;

/// An attribute that a field or a condition speaks of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Attribute {
    Principal,
    RequestPrincipal,
    Namespace,
    ServiceAccount,
    TrustDomain,
    Address(Address),
    Port,
    Sni,
    Host,
    Method,
    Path,
    Header(HeaderName),
    Claim(Vec<String>),
    FilterMetadata,
}

impl Attribute {
    /// Of a `when` key (semantics 2.10).
    ///
    /// # Errors
    /// A sentence why there is no such key.
    pub(super) fn of_key(key: &str) -> Result<Self, String> {
        let unknown = || format!("`{key}` is not a key that conditions know");
        Ok(match key {
            "source.ip" => Self::Address(Address::Source),
            "remote.ip" => Self::Address(Address::Remote),
            "destination.ip" => Self::Address(Address::Destination),
            "source.namespace" => Self::Namespace,
            "source.serviceAccount" => Self::ServiceAccount,
            "source.principal" => Self::Principal,
            "source.trustDomain" => Self::TrustDomain,
            "request.auth.principal" => Self::RequestPrincipal,
            "request.auth.audiences" => Self::Claim(vec!["aud".to_owned()]),
            "request.auth.presenter" => Self::Claim(vec!["azp".to_owned()]),
            "destination.port" => Self::Port,
            "connection.sni" => Self::Sni,
            _ => {
                if let Some(rest) = key.strip_prefix("request.headers") {
                    match brackets(rest).as_deref() {
                        Some([name]) => Self::Header(HeaderName::new(name)),
                        _ => return Err(format!("`{key}` is not of the form `request.headers[name]`")),
                    }
                } else if let Some(rest) = key.strip_prefix("request.auth.claims") {
                    let path = brackets(rest)
                        .ok_or_else(|| format!("`{key}` is not of the form `request.auth.claims[name]`"))?;
                    Self::Claim(path.into_iter().map(str::to_owned).collect())
                } else if key.starts_with("experimental.envoy.filters.") {
                    Self::FilterMetadata
                } else {
                    return Err(unknown());
                }
            }
        })
    }
}

/// `[a][b]`: one name or more, none empty.
fn brackets(text: &str) -> Option<Vec<&str>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let names: Vec<&str> = inner.split("][").collect();
    let plain = |name: &&str| !name.is_empty() && !name.contains(['[', ']']);
    names.iter().all(plain).then_some(names)
}

/// What the meaning of a value depends on.
#[derive(Clone, Debug)]
pub(super) struct Env<'a> {
    pub(super) compat: Compat,
    /// The mesh's trust domain and its aliases.
    pub(super) domains: Arc<[TrustDomain]>,
    /// The policy's namespace.
    pub(super) namespace: &'a str,
    /// The form of the paths that values are compared with.
    pub(super) paths: Mode,
    /// Of the values that are paths.
    pub(super) case: Case,
}

impl Env<'_> {
    pub(super) fn secure(&self) -> bool {
        self.compat == Compat::Secure
    }

    /// Names of foreign trust domains open nothing (R32).
    fn local(&self) -> Domains {
        if self.secure() {
            Domains::known(Arc::clone(&self.domains))
        } else {
            Domains::ANY
        }
    }

    fn presence(&self) -> Presence {
        if self.secure() {
            Presence::Closed
        } else {
            Presence::Present
        }
    }
}

/// A test of those values that can be tested, with a sentence for each that cannot; `None` where none can.
pub(super) fn test(attribute: &Attribute, values: &[String], env: &Env<'_>) -> (Option<Test>, Vec<String>) {
    let mut bad = Vec::new();
    let mut good: Vec<&str> = Vec::with_capacity(values.len());
    for value in values {
        match check(attribute, value, env) {
            Ok(()) => good.push(value),
            Err(why) => bad.push(why),
        }
    }
    let path = matches!(attribute, Attribute::Path | Attribute::Header(HeaderName::Path));
    let lower: Vec<String> = match env.case {
        Case::Folded if path => good.iter().map(|value| value.to_ascii_lowercase()).collect(),
        _ => Vec::new(),
    };
    if !lower.is_empty() {
        good = lower.iter().map(String::as_str).collect();
    }
    let test = (!good.is_empty()).then(|| build(attribute, &good, env));
    (test, bad)
}

/// # Errors
/// A sentence why the value means nothing here.
fn check(attribute: &Attribute, value: &str, env: &Env<'_>) -> Result<(), String> {
    match attribute {
        Attribute::Address(_) => value.parse::<Cidr>().map(drop).map_err(|e| e.to_string()),
        Attribute::Port => port(value).map(drop),
        Attribute::Path if is_template(value) => Template::parse(value, true)
            .map(drop)
            .map_err(|e| format!("path template `{value}`: {e}"))
            .and_then(|()| literal::reachable(value, false, env)),
        // What follows matches nothing upstream; where that is a DENY, it opens (SM-35, R11).
        Attribute::Path if env.secure() && value.contains(['{', '}']) => Err(format!(
            "path `{value}`: `{{` and `}}` stand only in the operators `{{*}}` and `{{**}}`"
        )),
        Attribute::Path => literal::reachable(value, false, env),
        Attribute::Header(HeaderName::Path) => literal::reachable(value, true, env),
        Attribute::Principal if env.secure() && value.starts_with("spiffe://") => Err(format!(
            "principal `{value}` never matches: write it without `spiffe://`"
        )),
        Attribute::RequestPrincipal if env.secure() && value == "*/*" => {
            Err("request principal `*/*` never matches: write `*` for any verified token".to_owned())
        }
        Attribute::RequestPrincipal if env.secure() && wildcard_in_issuer(value) => Err(format!(
            "request principal `{value}`: a wildcard inside an issuer with slashes never matches, write `ISSUER/*`"
        )),
        Attribute::FilterMetadata if env.secure() => {
            Err("filter metadata of Envoy does not exist here".to_owned())
        }
        _ => Ok(()),
    }
}

/// `https://i*`, which upstream splits inside `://` (RP-05).
fn wildcard_in_issuer(value: &str) -> bool {
    value.ends_with('*')
        && value
            .split_once("://")
            .is_some_and(|(_, rest)| !rest.contains('/'))
}

/// # Errors
/// A sentence why the value is no port.
fn port(value: &str) -> Result<u16, String> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let number = value.trim_start_matches('0');
    let number = if number.is_empty() { "0" } else { number };
    number
        .parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| format!("`{value}` is not a port, a number from 0 to 65535"))
}

/// Of values that [`check`] found good.
fn build(attribute: &Attribute, values: &[&str], env: &Env<'_>) -> Test {
    let texts = |presence, fold| Texts::new(values.iter().copied(), presence, fold);
    let each = || values.iter().copied();
    match attribute {
        Attribute::Principal => {
            let expanded = each().flat_map(|v| aliases::principal(v, &env.domains));
            Test::Principals(Principals::new(expanded.filter_map(|v| Principal::parse(&v))))
        }
        Attribute::RequestPrincipal => Test::RequestPrincipals(RequestPrincipals::new(each(), env.secure())),
        Attribute::Namespace => Test::Namespaces(Namespaces::new(each(), env.local(), !env.secure())),
        Attribute::ServiceAccount => {
            Test::ServiceAccounts(ServiceAccounts::new(each(), env.namespace, env.local()))
        }
        Attribute::TrustDomain => {
            let expanded: Vec<String> = each()
                .flat_map(|v| aliases::trust_domain(v, &env.domains))
                .collect();
            let expanded = expanded.iter().map(String::as_str);
            Test::TrustDomains(Texts::new(expanded, Presence::NonEmpty, false))
        }
        Attribute::Address(address) => Test::Blocks(
            *address,
            Blocks::new(each().filter_map(|v| v.parse().ok()).collect()),
        ),
        Attribute::Port => {
            let mut ports: Vec<u16> = each().filter_map(|v| port(v).ok()).collect();
            ports.sort_unstable();
            ports.dedup();
            Test::Ports(ports.into())
        }
        Attribute::Sni => Test::Sni(texts(Presence::NonEmpty, false)),
        Attribute::Host => Test::Hosts(texts(env.presence(), true)),
        Attribute::Method => Test::Methods(texts(env.presence(), false)),
        Attribute::Path => {
            let (templates, plain): (Vec<&str>, Vec<&str>) = values.iter().partition(|v| is_template(v));
            let templates = templates
                .into_iter()
                .filter_map(|v| Template::parse(v, env.secure()).ok());
            Test::Paths(
                Texts::new(plain.into_iter(), Presence::NonEmpty, false),
                templates.collect(),
            )
        }
        Attribute::Header(name) => Test::Header(name.clone(), texts(env.presence(), false)),
        Attribute::Claim(path) => {
            let texts = texts(Presence::NonEmpty, false);
            Test::Claim(ClaimValues::new(path.clone(), texts, env.secure()))
        }
        Attribute::FilterMetadata => Test::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sm_30_ports() {
        assert_eq!(port("8080"), Ok(8080));
        assert_eq!(port("08080"), Ok(8080));
        assert_eq!((port("0"), port("00"), port("65535")), (Ok(0), Ok(0), Ok(65535)));
        for bad in ["-1", "65536", "http", "", "+80", " 80", "8 0"] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn s2_10_keys() {
        for good in [
            "source.ip",
            "remote.ip",
            "destination.ip",
            "source.namespace",
            "source.serviceAccount",
            "source.principal",
            "source.trustDomain",
            "request.auth.principal",
            "request.auth.audiences",
            "request.auth.presenter",
            "destination.port",
            "connection.sni",
            "request.headers[a]",
            "request.headers[:path]",
            "request.auth.claims[a]",
            "request.auth.claims[a][b]",
            "experimental.envoy.filters.a.b[c]",
        ] {
            assert!(Attribute::of_key(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "source.IP",
            "destination.labels[a]",
            "destination.name",
            "destination.user",
            "destination.namespace",
            "request.headers",
            "request.headers[]",
            "request.headers[a",
            "request.headers[a][b]",
            "request.headersX[a]",
            "request.auth.claims",
            "request.auth.claims[]",
            "request.auth.claims[a][]",
            "request.auth.claims[a]b",
            "request.auth.claims[[a]]",
        ] {
            assert!(Attribute::of_key(bad).is_err(), "{bad}");
        }
    }
}
