//! What lies outside the cluster and is registered all the same, and what of the registry a namespace knows.

use std::collections::BTreeMap;

use model::{Cidr, Host};
use serde::{Deserialize, Serialize};

use crate::{Egress, Service};

/// What makes a Service one that a ServiceEntry declares (semantics 7.4).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Where a connection goes.
    pub resolution: Resolution,
    /// Addresses that clients dial, besides the Service's own.
    pub addresses: Vec<Cidr>,
    /// Client namespaces that know it; empty for all.
    pub export_to: Vec<String>,
    /// Names whose addresses are endpoints, besides those that the Service lists: with DNS and DNS_ROUND_ROBIN.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NamedEndpoint>,
}

/// An endpoint that is known by name: the proxy finds its addresses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedEndpoint {
    /// The name.
    pub host: Host,
    /// Service port -> port there.
    pub ports: BTreeMap<u16, u16>,
}

impl External {
    /// Whether it says nothing of where its hosts are: the address is the client's choice (R37).
    pub fn is_unlisted(&self) -> bool {
        self.resolution == Resolution::None && self.addresses.is_empty()
    }
}

/// `resolution`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// To the address that was dialled, where it is one of the entry's.
    None,
    /// To one of the endpoints.
    Static,
    /// To one of the endpoints, or of the addresses of [`External::names`].
    Dns,
    /// The same, to the first address of each name alone.
    DnsRoundRobin,
    /// To one of the addresses of the very name that the client says: of a host with a wildcard.
    DynamicDns,
}

impl Resolution {
    /// Whether the proxy has to find addresses by name.
    pub fn asks_names(self) -> bool {
        matches!(self, Self::Dns | Self::DnsRoundRobin | Self::DynamicDns)
    }
}

/// What the workloads of a namespace know of the registry, by Sidecar objects (semantics 7.5).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// What becomes of the rest; `None` leaves it to the mesh.
    pub egress: Option<Egress>,
    /// What is known; `None` for everything.
    pub imports: Option<Vec<Import>>,
}

/// One entry of `egress[].hosts`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// The namespace; `None` for any.
    pub namespace: Option<String>,
    /// The host, `*.suffix`, or `*`.
    pub host: Host,
}

impl Scope {
    /// Whether the Service is among what is known.
    pub fn knows(&self, service: &Service) -> bool {
        self.imports.as_ref().is_none_or(|imports| {
            imports
                .iter()
                .any(|import| import.is_of(service.name.namespace()) && import.covers(&service.host))
        })
    }

    /// Whether all of a namespace is known.
    pub fn knows_all_of(&self, namespace: &str) -> bool {
        self.imports.as_ref().is_none_or(|imports| {
            imports
                .iter()
                .any(|import| import.is_of(namespace) && import.host.as_str() == "*")
        })
    }
}

impl Import {
    fn is_of(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
    }

    fn covers(&self, host: &Host) -> bool {
        covers(&self.host, host.as_str())
    }
}

/// Whether `*`, `*.suffix` or a full name covers a host.
pub(crate) fn covers(pattern: &Host, host: &str) -> bool {
    match pattern.as_str().strip_prefix('*') {
        Some("") => true,
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern.as_str() == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_what_is_below_them() {
        for (pattern, host, expect) in [
            ("*", "a.b", true),
            ("*.b", "a.b", true),
            ("*.b", "b", false),
            ("*.b", ".b", false),
            ("*.b", "a.c.b", true),
            ("a.b", "a.b", true),
            ("a.b", "x.a.b", false),
        ] {
            assert_eq!(
                covers(&pattern.parse().unwrap(), host),
                expect,
                "{pattern} {host}"
            );
        }
    }
}
