//! What a name means inside the cluster, from its form alone (Kubernetes DNS specification 2.3 and 2.4).

use std::net::IpAddr;

/// What a name asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meaning<'a> {
    /// A Service.
    Service {
        /// Its name.
        service: &'a str,
        /// Its namespace.
        namespace: &'a str,
    },
    /// One endpoint of a headless Service: `HOSTNAME.SERVICE.NAMESPACE.svc…`.
    Hosted {
        /// The endpoint's host name.
        hostname: &'a str,
        /// The Service.
        service: &'a str,
        /// Its namespace.
        namespace: &'a str,
    },
    /// A pod by address: `10-77-0-2.NAMESPACE.pod…`.
    Pod {
        /// The address.
        address: IpAddr,
        /// The pod's namespace.
        namespace: &'a str,
    },
    /// A name above others that holds no address itself: `NAMESPACE.svc…`, `svc…`, the cluster domain.
    Zone {
        /// The namespace, where the name has one.
        namespace: Option<&'a str>,
    },
    /// A name that can only be the cluster's but has no meaning there.
    Nothing,
    /// A name that has no form of the cluster's.
    Foreign,
}

/// A name, read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading<'a> {
    /// What it would mean in the cluster.
    pub meaning: Meaning<'a>,
    /// Whether it can mean nothing else: it ends in `.svc`, `.pod` or the cluster domain. Where this is false a
    /// name that is not found in the cluster may still be one of the outside world.
    pub qualified: bool,
}

/// Reads a name in lower case and without trailing dot, as a caller in `namespace` writes it: `svc`, `svc.ns`,
/// `svc.ns.svc` or `svc.ns.svc.DOMAIN`, each with an endpoint's host name before it where there are two labels
/// at least.
pub fn read<'a>(name: &'a str, namespace: &'a str, cluster_domain: &str) -> Reading<'a> {
    let below = strip_domain(name, cluster_domain);
    let inner = below.unwrap_or(name);
    if inner.is_empty() {
        return qualified(below.map_or(Meaning::Nothing, |_| Meaning::Zone { namespace: None }));
    }
    if let Some(rest) = strip_domain(inner, "svc") {
        return qualified(service(rest));
    }
    if let Some(rest) = strip_domain(inner, "pod") {
        return qualified(pod(rest));
    }
    if below.is_some() {
        return qualified(Meaning::Nothing);
    }
    Reading {
        meaning: relative(name, namespace),
        qualified: false,
    }
}

fn qualified(meaning: Meaning<'_>) -> Reading<'_> {
    Reading {
        meaning,
        qualified: true,
    }
}

/// What stands before `.domain`; empty where the name is the domain itself.
fn strip_domain<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    let rest = name.strip_suffix(domain)?;
    if rest.is_empty() {
        return Some(rest);
    }
    rest.strip_suffix('.').filter(|rest| !rest.is_empty())
}

/// The labels, where there are one to three and none is empty.
fn labels(text: &str) -> Option<(&str, Option<&str>, Option<&str>)> {
    let mut parts = text.split('.');
    let found = (parts.next()?, parts.next(), parts.next());
    let well_formed = parts.next().is_none() && text.split('.').all(|label| !label.is_empty());
    well_formed.then_some(found)
}

fn service(rest: &str) -> Meaning<'_> {
    if rest.is_empty() {
        return Meaning::Zone { namespace: None };
    }
    match labels(rest) {
        Some((namespace, None, _)) => Meaning::Zone {
            namespace: Some(namespace),
        },
        Some((service, Some(namespace), None)) => Meaning::Service { service, namespace },
        Some((hostname, Some(service), Some(namespace))) => Meaning::Hosted {
            hostname,
            service,
            namespace,
        },
        None => Meaning::Nothing,
    }
}

fn pod(rest: &str) -> Meaning<'_> {
    if rest.is_empty() {
        return Meaning::Zone { namespace: None };
    }
    match labels(rest) {
        Some((namespace, None, _)) => Meaning::Zone {
            namespace: Some(namespace),
        },
        Some((dashed, Some(namespace), None)) => {
            dashed_address(dashed).map_or(Meaning::Nothing, |address| Meaning::Pod { address, namespace })
        }
        _ => Meaning::Nothing,
    }
}

/// `10-77-0-2` or `fd77-1-0--2`. Three dashes make an IPv4 address only where all four parts are numbers.
fn dashed_address(text: &str) -> Option<IpAddr> {
    text.replace('-', ".")
        .parse()
        .or_else(|_| text.replace('-', ":").parse())
        .ok()
}

fn relative<'a>(name: &'a str, namespace: &'a str) -> Meaning<'a> {
    match labels(name) {
        Some((service, None, _)) => Meaning::Service { service, namespace },
        Some((service, Some(namespace), None)) => Meaning::Service { service, namespace },
        Some((hostname, Some(service), Some(namespace))) => Meaning::Hosted {
            hostname,
            service,
            namespace,
        },
        None => Meaning::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expect: Meaning<'_>, qualified: bool) {
        let reading = read(name, "own", "cluster.local");
        assert_eq!(
            reading,
            Reading {
                meaning: expect,
                qualified
            },
            "{name}"
        );
    }

    #[test]
    fn services_by_every_form() {
        let own = Meaning::Service {
            service: "web",
            namespace: "own",
        };
        let other = Meaning::Service {
            service: "web",
            namespace: "other",
        };
        check("web", own, false);
        check("web.other", other, false);
        check("web.other.svc", other, true);
        check("web.other.svc.cluster.local", other, true);
        check("web.other.svc.cluster.locale", Meaning::Foreign, false);
    }

    #[test]
    fn endpoints_of_headless_services() {
        let hosted = Meaning::Hosted {
            hostname: "web-0",
            service: "web",
            namespace: "other",
        };
        check("web-0.web.other", hosted, false);
        check("web-0.web.other.svc", hosted, true);
        check("web-0.web.other.svc.cluster.local", hosted, true);
    }

    #[test]
    fn pods_by_address() {
        let by = |address: &str| Meaning::Pod {
            address: address.parse().unwrap(),
            namespace: "other",
        };
        check("10-77-0-2.other.pod.cluster.local", by("10.77.0.2"), true);
        check("fd77-1-0--2.other.pod.cluster.local", by("fd77:1:0::2"), true);
        check("10-77-0.other.pod.cluster.local", Meaning::Nothing, true);
    }

    #[test]
    fn zones_and_nothing() {
        check("cluster.local", Meaning::Zone { namespace: None }, true);
        check("svc.cluster.local", Meaning::Zone { namespace: None }, true);
        let own = Meaning::Zone {
            namespace: Some("own"),
        };
        check("own.svc.cluster.local", own, true);
        check("web.own.cluster.local", Meaning::Nothing, true);
        check("a.b.web.own.svc.cluster.local", Meaning::Nothing, true);
        check("a..own.svc.cluster.local", Meaning::Nothing, true);
        check("a.b.example.com", Meaning::Foreign, false);
        check("", Meaning::Nothing, true);
    }
}
