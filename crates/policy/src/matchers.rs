//! One field of a rule: what it asks for, and whether it holds.

mod address;
mod claims;
mod identity;
mod template;
mod text;

use std::net::IpAddr;

use crate::facts::{Facts, HttpFacts};
use crate::path::without_query;

pub(crate) use address::Blocks;
pub(crate) use claims::{ClaimValues, RequestPrincipals};
pub(crate) use identity::{Domains, Namespaces, Principal, Principals, ServiceAccounts};
pub(crate) use template::{Template, is_template};
pub(crate) use text::{Form, Presence, Texts};

/// Which way to lean where a match is in doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bias {
    /// A match opens: only what is certain matches.
    Narrow,
    /// A match closes: what may match matches.
    Wide,
}

impl Bias {
    fn other(self) -> Self {
        match self {
            Self::Narrow => Self::Wide,
            Self::Wide => Self::Narrow,
        }
    }
}

/// Which address of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Address {
    Source,
    Remote,
    Destination,
}

impl Address {
    pub(crate) const ALL: [Self; 3] = [Self::Source, Self::Remote, Self::Destination];

    pub(crate) fn of(self, facts: &Facts<'_>) -> IpAddr {
        match self {
            Self::Source => facts.source_ip,
            Self::Remote => facts.remote_ip,
            Self::Destination => facts.destination_ip,
        }
    }
}

/// Where a header of a rule is found.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum HeaderName {
    Method,
    /// `:authority`, and `host`, which HTTP/2 knows by that name.
    Authority,
    /// `:path`: normalised, with its query.
    Path,
    /// In lower case.
    Field(Box<str>),
}

impl HeaderName {
    pub(crate) fn new(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            ":method" => Self::Method,
            ":authority" | "host" => Self::Authority,
            ":path" => Self::Path,
            _ => Self::Field(name.into()),
        }
    }

    /// Visits each value until one is taken.
    pub(crate) fn any(&self, http: &HttpFacts<'_>, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        match self {
            Self::Method => visit(http.method.as_bytes()),
            Self::Authority => visit(http.authority.as_bytes()),
            Self::Path => visit(http.path.as_bytes()),
            Self::Field(name) => http.headers.any(name, visit),
        }
    }
}

/// What one field asks for.
#[derive(Debug)]
pub(crate) enum Test {
    Principals(Principals),
    Namespaces(Namespaces),
    ServiceAccounts(ServiceAccounts),
    TrustDomains(Texts),
    RequestPrincipals(RequestPrincipals),
    Blocks(Address, Blocks),
    /// Sorted.
    Ports(Box<[u16]>),
    Sni(Texts),
    Hosts(Texts),
    Methods(Texts),
    Paths(Texts, Box<[Template]>),
    Header(HeaderName, Texts),
    Claim(ClaimValues),
    /// Filter metadata: nothing sets it here.
    Never,
}

impl Test {
    /// Whether only a request can answer it (semantics 2.11).
    pub(crate) fn http_only(&self) -> bool {
        matches!(
            self,
            Self::RequestPrincipals(_)
                | Self::Hosts(_)
                | Self::Methods(_)
                | Self::Paths(..)
                | Self::Header(..)
                | Self::Claim(_)
        )
    }

    /// Whether the answer depends on the path.
    pub(crate) fn reads_path(&self) -> bool {
        matches!(self, Self::Paths(..) | Self::Header(HeaderName::Path, _))
    }

    pub(crate) fn matches(&self, facts: &Facts<'_>, bias: Bias) -> bool {
        match self {
            Self::Principals(values) => facts.peer.is_some_and(|id| values.matches(id)),
            Self::Namespaces(values) => facts.peer.is_some_and(|id| values.matches(id, bias)),
            Self::ServiceAccounts(values) => facts.peer.is_some_and(|id| values.matches(id, bias)),
            Self::TrustDomains(values) => facts
                .peer
                .is_some_and(|id| values.matches(id.trust_domain().as_str().as_bytes(), bias)),
            Self::Blocks(address, blocks) => blocks.contains(address.of(facts)),
            Self::Ports(ports) => ports.binary_search(&facts.destination_port).is_ok(),
            Self::Sni(values) => facts.sni.is_some_and(|sni| values.matches(sni.as_bytes(), bias)),
            Self::Never => false,
            _ => facts
                .http
                .as_ref()
                .is_some_and(|http| self.matches_http(http, bias)),
        }
    }

    fn matches_http(&self, http: &HttpFacts<'_>, bias: Bias) -> bool {
        match self {
            Self::RequestPrincipals(values) => http.claims.is_some_and(|c| values.matches(c)),
            Self::Hosts(values) => values.matches(http.authority.as_bytes(), bias),
            Self::Methods(values) => values.matches(http.method.as_bytes(), bias),
            Self::Paths(values, templates) => {
                let path = without_query(http.path);
                values.matches(path.as_bytes(), bias) || templates.iter().any(|t| t.matches(path))
            }
            Self::Header(name, values) => name.any(http, &mut |value| values.matches(value, bias)),
            Self::Claim(values) => http.claims.is_some_and(|c| values.matches(c, bias)),
            _ => false,
        }
    }
}

/// A field with its sign.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) test: Test,
    /// Whether it is the `not` twin.
    pub(crate) negated: bool,
    /// Its name in the API; `values` or `notValues` for a condition.
    pub(crate) name: &'static str,
    /// The condition's place in `when`.
    pub(crate) place: u32,
}

impl Field {
    /// Whether it holds. On a connection that is not HTTP, a field that only a request can answer is as if not written.
    pub(crate) fn holds(&self, facts: &Facts<'_>, bias: Bias) -> bool {
        if self.negated {
            !self.test.matches(facts, bias.other()) || self.is_silent(facts)
        } else {
            self.test.matches(facts, bias) || self.is_silent(facts)
        }
    }

    pub(crate) fn is_silent(&self, facts: &Facts<'_>) -> bool {
        facts.http.is_none() && self.test.http_only()
    }
}
