//! Host names as Istio takes them: full names, wildcards in the first label, names behind a namespace.

use std::net::IpAddr;

use super::Verdict;
use super::names::is_dns_label;

const MAX_HOST: usize = 255;

/// A full name: labels between dots, the last of which is no number. A dot may end it.
pub(crate) fn full(host: &str) -> Verdict {
    length(host)?;
    labels(host, host)
}

/// A full name, or one whose first label is `*`, begins with `*`, or with `*-`.
pub(crate) fn wildcard(host: &str) -> Verdict {
    length(host)?;
    let (first, rest) = match host.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (host, None),
    };
    let inner = first.strip_prefix('*').unwrap_or(first);
    let fits = first == "*"
        || is_dns_label(first)
        || first.len() <= super::names::MAX_LABEL
            && first != inner
            && is_dns_label(inner.strip_prefix('-').unwrap_or(inner));
    if !fits {
        return Err(format!("`{host}` is not a host name: `{first}` is no label"));
    }
    rest.map_or(Ok(()), |rest| labels(rest, host))
}

/// As [`wildcard`]; where TLS is routed by its server name also `outbound_.PORT_.SUBSET_.HOST`.
pub(crate) fn at_gateway(host: &str, server_names: bool) -> Verdict {
    length(host)?;
    if !(server_names && host.starts_with("outbound_")) {
        return wildcard(host);
    }
    let parts: Vec<&str> = host.split('_').collect();
    let of = |index: usize| parts.get(index).map(|part| part.trim_matches('.'));
    let port = of(1).is_some_and(|port| port.contains(|c: char| c.is_ascii_digit()));
    let name = of(3).is_some_and(|name| name.contains(|c: char| c.is_ascii_alphabetic()));
    if port && name {
        return Ok(());
    }
    Err(format!("`{host}` is not of the form `outbound_.PORT_._.HOST`"))
}

/// `*` by itself, or before the first dot alone: `*foo.com` is neither.
pub(crate) fn no_partial_wildcard(host: &str) -> Verdict {
    if host.contains('*') && host != "*" && !host.starts_with("*.") {
        return Err(format!("`{host}` has a wildcard inside of a label"));
    }
    Ok(())
}

/// `NAMESPACE/HOST` as a Sidecar's egress and a provider's service have it. `~` before the namespace excludes it.
pub(crate) fn behind_namespace(text: &str) -> Verdict {
    let Some((namespace, host)) = text.split_once('/') else {
        return Err(format!("`{text}` is not of the form NAMESPACE/HOST"));
    };
    parts(namespace, host, text)?;
    let name = namespace.strip_prefix('~').unwrap_or(namespace);
    if !matches!(name, "" | "*" | ".") && !is_dns_label(name) {
        return Err(format!("`{namespace}` cannot be a namespace"));
    }
    listened(host, false)
}

/// The host of a Gateway's server: a host, or `NAMESPACE/HOST`.
pub(crate) fn of_server(text: &str) -> Verdict {
    let Some((namespace, host)) = text.split_once('/') else {
        return listened(text, true);
    };
    parts(namespace, host, text)?;
    if !matches!(namespace, "*" | ".") && !is_dns_label(namespace) {
        return Err(format!("`{namespace}` cannot be a namespace"));
    }
    listened(host, true)
}

fn parts(namespace: &str, host: &str, text: &str) -> Verdict {
    if namespace.is_empty() || host.is_empty() {
        return Err(format!("one of the two parts of `{text}` is empty"));
    }
    Ok(())
}

fn listened(host: &str, address: bool) -> Verdict {
    if host != "*" && !host.contains('.') {
        return Err(format!(
            "`{host}` is a short name, and full names are wanted here"
        ));
    }
    if !(address && host.parse::<IpAddr>().is_ok()) {
        wildcard(host)?;
    }
    no_partial_wildcard(host)
}

/// SPIFFE's trust domain as Istio takes it: labels between dots.
pub(crate) fn trust_domain(text: &str) -> Verdict {
    let name = text.strip_suffix('.').unwrap_or(text);
    if !name.is_empty() && name.split('.').all(is_dns_label) {
        return Ok(());
    }
    Err(format!("`{text}` is not a trust domain"))
}

fn length(host: &str) -> Verdict {
    match host.len() {
        0 => Err("a host name cannot be empty".to_owned()),
        1..=MAX_HOST => Ok(()),
        _ => Err(format!("a host name has at most {MAX_HOST} characters")),
    }
}

fn labels(rest: &str, host: &str) -> Verdict {
    if rest.is_empty() {
        return Ok(());
    }
    let last = rest.rsplit('.').next().unwrap_or_default();
    if last.parse::<i64>().is_ok() {
        return Err(format!("`{host}` is not a host name: its last label is a number"));
    }
    let named = rest.strip_suffix('.').unwrap_or(rest);
    match named.split('.').find(|label| !is_dns_label(label)) {
        None => Ok(()),
        Some(label) => Err(format!("`{host}` is not a host name: `{label}` is no label")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_in_the_first_label_alone() {
        for host in ["*", "*.a", "*foo.bar.com", "*-foo.bar.com", "a.b.", "A.b"] {
            assert_eq!(wildcard(host), Ok(()), "{host}");
        }
        for host in ["", "a.*", "f*o.bar", "*-", "a..b", "-a", "1.2.3.4", "a_b", "**.a"] {
            assert!(wildcard(host).is_err(), "{host}");
        }
        assert!(full("*.a").is_err());
        assert!(full(&"a".repeat(64)).is_err());
    }

    #[test]
    fn what_a_gateway_makes_of_its_own_names_has_four_parts() {
        assert_eq!(at_gateway("outbound_.80_._.e2e.foobar.mesh", true), Ok(()));
        for host in ["outbound_.80_._", "outbound_.x_._.a.b"] {
            assert!(at_gateway(host, true).is_err(), "{host}");
        }
        assert!(at_gateway("outbound_.80_._.a.b", false).is_err());
    }
}
