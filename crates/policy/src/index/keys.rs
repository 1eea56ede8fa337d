//! By what a field can be found, and what a request is looked up by.

use std::net::IpAddr;
use std::sync::Arc;

use model::Cidr;

use super::hash;
use crate::compile::{Part, Rule};
use crate::facts::{Claim, Facts};
use crate::matchers::{Address, Field, Form, HeaderName, Test, Texts};
use crate::path::without_query;

/// What a table entry is of. A request has at most one key of each, but for the blocks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    Identity,
    Account,
    Namespace,
    ServiceAccount,
    TrustDomain,
    Path,
    Method,
    Host,
    Port,
    Sni,
    Source,
    Remote,
    Destination,
    Header,
    Claim,
}

impl Kind {
    fn bit(self) -> u16 {
        1 << self.code()
    }

    fn code(self) -> u8 {
        self as u8
    }

    fn of(address: Address) -> Self {
        match address {
            Address::Source => Self::Source,
            Address::Remote => Self::Remote,
            Address::Destination => Self::Destination,
        }
    }
}

/// The kinds that occur in an index.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Kinds(u16);

impl Kinds {
    pub(super) fn add(&mut self, kind: Kind) {
        self.0 |= kind.bit();
    }

    fn has(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }
}

/// What a field can be found by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Key<'a> {
    Exact {
        hash: u64,
        kind: Kind,
    },
    PathPrefix(&'a str),
    PathSuffix(&'a str),
    HostSuffix(&'a str),
    Header(u64, &'a HeaderName),
    Claim(u64, &'a [String]),
    Block {
        hash: u64,
        kind: Kind,
        length: u8,
        v4: bool,
    },
}

/// Where an index keeps a key.
#[derive(Debug)]
pub(super) enum Found {
    Table(u64),
    PathPrefixes(Arc<[u8]>),
    /// Backwards, as those of hosts.
    PathSuffixes(Arc<[u8]>),
    HostSuffixes(Arc<[u8]>),
}

impl<'a> Key<'a> {
    pub(super) fn found_in(&self) -> Found {
        let backwards = |text: &str| text.bytes().rev().collect();
        match *self {
            Key::Exact { hash, .. }
            | Key::Block { hash, .. }
            | Key::Header(hash, _)
            | Key::Claim(hash, _) => Found::Table(hash),
            Key::PathPrefix(text) => Found::PathPrefixes(text.as_bytes().into()),
            Key::PathSuffix(text) => Found::PathSuffixes(backwards(text)),
            Key::HostSuffix(text) => Found::HostSuffixes(backwards(text)),
        }
    }

    fn exact(kind: Kind, parts: &[&str]) -> Self {
        Key::Exact {
            hash: hash::texts(kind.code(), parts),
            kind,
        }
    }

    /// Keys of which one at least is a request's if the field holds; `None` where there are no such keys.
    fn of_field(field: &'a Field, http: bool) -> Option<Vec<Self>> {
        if field.negated || (!http && field.test.http_only()) {
            return None;
        }
        match &field.test {
            Test::Principals(values) => values.all().map(Self::of_principal).collect(),
            Test::ServiceAccounts(values) => {
                let key = |(ns, sa): &(Box<str>, Box<str>)| Self::exact(Kind::Account, &[ns, sa]);
                Some(values.all().iter().map(key).collect())
            }
            Test::Namespaces(values) => {
                let all = values.exact()?.iter();
                Some(all.map(|ns| Self::exact(Kind::Namespace, &[ns])).collect())
            }
            Test::TrustDomains(values) => Self::all_exact(Kind::TrustDomain, values),
            Test::Methods(values) => Self::all_exact(Kind::Method, values),
            Test::Sni(values) => Self::all_exact(Kind::Sni, values),
            Test::Ports(ports) => {
                let key = |port: &u16| Key::Exact {
                    hash: hash::number(Kind::Port.code(), (*port).into()),
                    kind: Kind::Port,
                };
                Some(ports.iter().map(key).collect())
            }
            Test::Hosts(values) => values
                .forms()?
                .map(|form| match form {
                    Form::Exact(host) => Some(Key::Exact {
                        hash: hash::folded(Kind::Host.code(), host),
                        kind: Kind::Host,
                    }),
                    Form::Suffix(suffix) => Some(Key::HostSuffix(suffix)),
                    Form::Prefix(_) | Form::Presence => None,
                })
                .collect(),
            Test::Paths(values, templates) => {
                let plain = values.forms()?.map(|form| match form {
                    Form::Exact(path) => Some(Self::exact(Kind::Path, &[path])),
                    Form::Prefix(prefix) => Some(Key::PathPrefix(prefix)),
                    Form::Suffix(suffix) => Some(Key::PathSuffix(suffix)),
                    Form::Presence => None,
                });
                let templates = templates
                    .iter()
                    .map(|t| Some(Key::PathPrefix(t.literal_prefix())));
                plain.chain(templates).collect()
            }
            Test::Blocks(address, blocks) => Some(
                blocks
                    .all()
                    .iter()
                    .map(|block| Self::of_block(*address, block.base(), block.len()))
                    .collect(),
            ),
            Test::Header(name, values) => Self::each_exact(values, |text| {
                Key::Header(hash::bytes(Kind::Header.code(), text.as_bytes()), name)
            }),
            Test::Claim(claim) => Self::each_exact(claim.texts(), |text| {
                Key::Claim(hash::bytes(Kind::Claim.code(), text.as_bytes()), claim.path())
            }),
            Test::RequestPrincipals(_) | Test::Never => None,
        }
    }

    fn all_exact(kind: Kind, values: &'a Texts) -> Option<Vec<Self>> {
        Self::each_exact(values, |text| Self::exact(kind, &[text]))
    }

    /// `None` where a value has a wildcard.
    fn each_exact(values: &'a Texts, key: impl Fn(&'a str) -> Self) -> Option<Vec<Self>> {
        let key = |form| match form {
            Form::Exact(text) => Some(key(text)),
            _ => None,
        };
        values.forms()?.map(key).collect()
    }

    fn of_principal(principal: &crate::matchers::Principal) -> Option<Self> {
        let (td, ns, sa) = (
            principal.trust_domain.exact(),
            principal.namespace.exact(),
            principal.service_account.exact(),
        );
        match (td, ns, sa) {
            (Some(td), Some(ns), Some(sa)) => Some(Self::exact(Kind::Identity, &[td, ns, sa])),
            (_, Some(ns), Some(sa)) => Some(Self::exact(Kind::Account, &[ns, sa])),
            (_, Some(ns), None) => Some(Self::exact(Kind::Namespace, &[ns])),
            (_, None, Some(sa)) => Some(Self::exact(Kind::ServiceAccount, &[sa])),
            (Some(td), None, None) => Some(Self::exact(Kind::TrustDomain, &[td])),
            (None, None, None) => None,
        }
    }

    fn of_block(address: Address, base: IpAddr, length: u8) -> Self {
        let kind = Kind::of(address);
        Key::Block {
            hash: block_hash(kind.code(), base, length),
            kind,
            length,
            v4: base.is_ipv4(),
        }
    }
}

fn block_hash(kind: u8, base: IpAddr, length: u8) -> u64 {
    let (bits, family) = match base {
        IpAddr::V4(ip) => (u32::from(ip).into(), 0),
        IpAddr::V6(ip) => (u128::from(ip), 1),
    };
    hash::number(kind, bits ^ (u128::from(length) << 112) ^ (family << 120))
}

/// Keys of which a request has one, whenever a part of a rule holds.
pub(super) type Cover<'a> = Vec<Key<'a>>;

/// A way to find a rule: all alternatives of one of its parts, each with the covers to choose from.
pub(super) type Way<'a> = Vec<(Part, Vec<Cover<'a>>)>;

/// The sources or the operations of a rule, and which part each is.
type Alternatives<'a> = (&'a [Box<[Field]>], fn(u32) -> Part);

/// All ways to find a rule. `http` says whether requests are looked up, or connections.
pub(super) fn ways(rule: &Rule, http: bool) -> Vec<Way<'_>> {
    let condition = |field| Some(vec![(Part::Whole, vec![Key::of_field(field, http)?])]);
    let mut ways: Vec<Way<'_>> = rule.conditions.iter().filter_map(condition).collect();
    let parts: [Alternatives<'_>; 2] = [(&rule.sources, Part::Source), (&rule.operations, Part::Operation)];
    for (alternatives, part) in parts {
        let each = (0..).zip(alternatives).map(|(at, fields)| {
            let keys = fields.iter().filter_map(|field| Key::of_field(field, http));
            let covers: Vec<Cover<'_>> = keys.collect();
            // Every alternative must be found by itself.
            (!covers.is_empty()).then(|| (part(at), covers))
        });
        ways.extend(each.collect::<Option<Way<'_>>>().filter(|way| !way.is_empty()));
    }
    ways
}

/// Visits the hash of everything that the facts can be looked up by.
pub(super) fn lookups(
    facts: &Facts<'_>,
    kinds: Kinds,
    lengths: &Lengths,
    names: &Names,
    mut visit: impl FnMut(u64),
) {
    let mut exact = |kind: Kind, parts: &[&str]| {
        if kinds.has(kind) {
            visit(hash::texts(kind.code(), parts));
        }
    };
    if let Some(id) = facts.peer {
        let (td, ns, sa) = (id.trust_domain().as_str(), id.namespace(), id.service_account());
        exact(Kind::Identity, &[td, ns, sa]);
        exact(Kind::Account, &[ns, sa]);
        exact(Kind::Namespace, &[ns]);
        exact(Kind::ServiceAccount, &[sa]);
        exact(Kind::TrustDomain, &[td]);
    }
    if let Some(sni) = facts.sni {
        exact(Kind::Sni, &[sni]);
    }
    if let Some(http) = &facts.http {
        exact(Kind::Path, &[without_query(http.path)]);
        exact(Kind::Method, &[http.method]);
        if kinds.has(Kind::Host) {
            visit(hash::folded(Kind::Host.code(), http.authority));
        }
        for name in &names.headers {
            name.any(http, &mut |value| {
                visit(hash::bytes(Kind::Header.code(), value));
                false
            });
        }
        if let Some(claims) = http.claims {
            for path in &names.claims {
                claims.any(path, &mut |claim| {
                    let (Claim::Text(text) | Claim::Scalar(text)) = claim;
                    visit(hash::bytes(Kind::Claim.code(), text.as_bytes()));
                    false
                });
            }
        }
    }
    if kinds.has(Kind::Port) {
        visit(hash::number(Kind::Port.code(), facts.destination_port.into()));
    }
    for address in Address::ALL {
        if kinds.has(Kind::of(address)) {
            let ip = address.of(facts).to_canonical();
            for &length in lengths.of(Kind::of(address), ip.is_ipv4()) {
                if let Ok(block) = Cidr::new(ip, length) {
                    visit(block_hash(Kind::of(address).code(), block.base(), length));
                }
            }
        }
    }
}

/// The headers and claims that rules are found by.
#[derive(Clone, Default, Debug)]
pub(super) struct Names {
    headers: Vec<HeaderName>,
    claims: Vec<Box<[String]>>,
}

impl Names {
    pub(super) fn add_header(&mut self, name: &HeaderName) {
        if !self.headers.contains(name) {
            self.headers.push(name.clone());
        }
    }

    pub(super) fn add_claim(&mut self, path: &[String]) {
        if !self.claims.iter().any(|known| **known == *path) {
            self.claims.push(path.into());
        }
    }
}

/// The lengths of the address blocks that occur, by kind and family.
#[derive(Clone, Default, Debug)]
pub(super) struct Lengths(Vec<(Kind, bool, Vec<u8>)>);

impl Lengths {
    pub(super) fn add(&mut self, kind: Kind, v4: bool, length: u8) {
        let same = |(k, f, _): &&mut (Kind, bool, Vec<u8>)| *k == kind && *f == v4;
        match self.0.iter_mut().find(same) {
            Some((_, _, lengths)) if lengths.contains(&length) => {}
            Some((_, _, lengths)) => lengths.push(length),
            None => self.0.push((kind, v4, vec![length])),
        }
    }

    fn of(&self, kind: Kind, v4: bool) -> &[u8] {
        let found = self.0.iter().find(|(k, f, _)| *k == kind && *f == v4);
        found.map_or(&[], |(_, _, lengths)| lengths)
    }
}
