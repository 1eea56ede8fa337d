//! Names: the cluster's DNS, and what a Host header stands for.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use model::Host;
use routing::name::{Meaning, read};

use super::{Index, Lacks};
use crate::{Endpoint, Service};

/// ExternalName may point to ExternalName; a chain longer than this is taken as a loop.
const MAX_ALIASES: usize = 8;

/// What the cluster's DNS says of a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The name has these addresses of the wanted family; at least one.
    Addresses(Vec<IpAddr>),
    /// The name exists and has no address of the wanted family.
    NoData,
    /// The name is the cluster's and does not exist.
    NxDomain,
    /// The name is not the cluster's.
    NotOurs,
    /// ExternalName: the name stands for this one.
    Cname(Host),
}

/// What a Host header stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Named {
    /// A Service, aliases followed.
    Service(Arc<Service>),
    /// A pod, by a name or a literal that the cluster knows.
    Addresses(Vec<IpAddr>),
    /// Nothing that the cluster knows.
    Unknown,
}

impl Index {
    /// Answers a DNS question as the cluster's DNS does, for a caller in `namespace` (Kubernetes DNS
    /// specification 2.3, 2.4). Case does not matter and one trailing dot is dropped (O-03). Where something is lacked the
    /// answer is not known.
    pub fn resolve(&self, name: &str, namespace: &str, want_v6: bool, lacks: &Lacks) -> Answer {
        match self.resolve_own(name, namespace, want_v6, lacks) {
            Answer::NotOurs => self.registered(&canonical(name), namespace, want_v6),
            answer => answer,
        }
    }

    /// [`Self::resolve`] for a caller outside the mesh, which no proxy stands before: an entry whose endpoints are known by name
    /// alone has nothing for it.
    pub fn resolve_plain(&self, name: &str, namespace: &str, want_v6: bool, lacks: &Lacks) -> Answer {
        let found = self.externals.named(namespace, &canonical(name));
        let asks = |service: &&Arc<Service>| {
            let external = service.external.as_ref();
            external.is_some_and(|external| external.resolution.asks_names())
        };
        if found.filter(asks).is_some() {
            return self.resolve_own(name, namespace, want_v6, lacks);
        }
        self.resolve(name, namespace, want_v6, lacks)
    }

    fn resolve_own(&self, name: &str, namespace: &str, want_v6: bool, lacks: &Lacks) -> Answer {
        let name = canonical(name);
        let reading = read(&name, namespace, &self.mesh().cluster_domain);
        let missing = if reading.qualified {
            Answer::NxDomain
        } else {
            Answer::NotOurs
        };
        match reading.meaning {
            Meaning::Service { service, namespace } => self
                .service_at(namespace, service, lacks)
                .map_or(missing, |service| of_service(service, want_v6)),
            Meaning::Hosted {
                hostname,
                service,
                namespace,
            } => {
                let found = self.hosted(hostname, service, namespace, lacks);
                of_family(&found, want_v6, missing)
            }
            Meaning::Pod { address, namespace } => match self.pod_at(address, lacks) {
                Some(pod) if pod.pod.namespace() == namespace => of_family(&[address], want_v6, missing),
                _ => missing,
            },
            Meaning::Zone { namespace: None } => Answer::NoData,
            Meaning::Zone {
                namespace: Some(namespace),
            } if self.has_services(namespace, lacks) => Answer::NoData,
            Meaning::Zone { .. } | Meaning::Nothing => Answer::NxDomain,
            Meaning::Foreign => Answer::NotOurs,
        }
    }

    /// A name outside the cluster is answered where a ServiceEntry leads to endpoints: by the entry's own addresses. What leads
    /// to wherever the name is has none.
    fn registered(&self, name: &str, namespace: &str, want_v6: bool) -> Answer {
        let found = self.externals.named(namespace, name);
        let leads = |service: &&Arc<Service>| {
            let external = service.external.as_ref();
            external.is_some_and(|external| external.resolution != crate::Resolution::None)
        };
        found.filter(leads).map_or(Answer::NotOurs, |service| {
            of_family(&service.vips, want_v6, Answer::NotOurs)
        })
    }

    /// The Service that a caller in `namespace` means by a host name, aliases followed. Where something is lacked it is
    /// not known.
    pub fn service_by_host(&self, host: &str, namespace: &str, lacks: &Lacks) -> Option<Arc<Service>> {
        match self.named(host, namespace, lacks) {
            Named::Service(service) => Some(service),
            Named::Addresses(_) | Named::Unknown => None,
        }
    }

    pub(super) fn named(&self, host: &str, namespace: &str, lacks: &Lacks) -> Named {
        if let Ok(literal) = host.parse::<IpAddr>() {
            let literal = literal.to_canonical();
            let known = self.vip(literal, 0).is_some() || {
                self.need(literal, lacks);
                self.pods.contains_key(&literal) || self.served_by.contains_key(&literal)
            };
            return if known {
                Named::Addresses(vec![literal])
            } else {
                Named::Unknown
            };
        }
        let name = canonical(host);
        let known = match read(&name, namespace, &self.mesh().cluster_domain).meaning {
            Meaning::Service { service, namespace } => self
                .service_at(namespace, service, lacks)
                .and_then(|service| self.follow(service, lacks))
                .map_or(Named::Unknown, Named::Service),
            Meaning::Hosted {
                hostname,
                service,
                namespace,
            } => {
                let found = self.hosted(hostname, service, namespace, lacks);
                if found.is_empty() {
                    Named::Unknown
                } else {
                    Named::Addresses(found)
                }
            }
            Meaning::Pod { address, .. } if self.pod_at(address, lacks).is_some() => {
                Named::Addresses(vec![address])
            }
            _ => Named::Unknown,
        };
        // The cluster's own names come first.
        match (known, self.externals.named(namespace, &name)) {
            (Named::Unknown, Some(service)) => Named::Service(Arc::clone(service)),
            (known, _) => known,
        }
    }

    /// The Service at the end of a chain of ExternalNames; `None` where it leads out of the cluster.
    fn follow(&self, service: &Arc<Service>, lacks: &Lacks) -> Option<Arc<Service>> {
        let mut at = Arc::clone(service);
        for _ in 0..MAX_ALIASES {
            let Some(alias) = at.external_name.clone() else {
                return Some(at);
            };
            let domain = &self.mesh().cluster_domain;
            let Meaning::Service { service, namespace } =
                read(alias.as_str(), at.name.namespace(), domain).meaning
            else {
                return None;
            };
            at = Arc::clone(self.service_at(namespace, service, lacks)?);
        }
        None
    }

    fn hosted(&self, hostname: &str, service: &str, namespace: &str, lacks: &Lacks) -> Vec<IpAddr> {
        let service = self.service_at(namespace, service, lacks);
        let Some(service) = service.filter(|s| s.headless) else {
            return Vec::new();
        };
        let named = |e: &&Endpoint| e.ready && e.hostname.as_deref() == Some(hostname);
        let mut found: Vec<_> = service
            .endpoints
            .iter()
            .filter(named)
            .flat_map(|e| e.addresses.iter().copied())
            .collect();
        found.dedup();
        found
    }
}

fn of_service(service: &Service, want_v6: bool) -> Answer {
    if let Some(alias) = &service.external_name {
        return Answer::Cname(alias.clone());
    }
    if !service.headless {
        return of_family(&service.vips, want_v6, Answer::NoData);
    }
    let ready: Vec<_> = service
        .endpoints
        .iter()
        .filter(|e| e.ready)
        .flat_map(|e| e.addresses.iter().copied())
        .collect();
    of_family(&ready, want_v6, Answer::NxDomain)
}

/// Those of the wanted family; `missing` where there is no address at all.
fn of_family(addresses: &[IpAddr], want_v6: bool, missing: Answer) -> Answer {
    if addresses.is_empty() {
        return missing;
    }
    let wanted: Vec<_> = addresses
        .iter()
        .copied()
        .filter(|a| a.is_ipv6() == want_v6)
        .collect();
    if wanted.is_empty() {
        Answer::NoData
    } else {
        Answer::Addresses(wanted)
    }
}

/// Lower case, one trailing dot dropped.
pub(super) fn canonical(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}
