//! A request that one policy admits and a ceiling does not: tried out, by the very function that decides.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use model::{Reason, SpiffeId};
use policy::{Claim, ClaimLookup, Context, Facts, HeaderLookup, HttpFacts, PolicySet, PolicySpec};

/// How many requests are tried for one policy and one ceiling. Where none of them tells, nothing is said.
const MAX_TRIES: usize = 50_000;
/// How many values of each property are tried.
const MAX_VALUES: usize = 24;
/// An address of which nothing is known (RFC 5737).
const SOMEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// A request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Request {
    peer: Option<SpiffeId>,
    method: String,
    path: String,
    host: String,
    port: u16,
    source: Option<IpAddr>,
    header: Option<(String, String)>,
    token: Option<(String, String)>,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{} {}` to port {}", self.method, self.path, self.port)?;
        match &self.peer {
            Some(id) => write!(f, " from {}/{}", id.namespace(), id.service_account())?,
            None => f.write_str(" in plaintext")?,
        }
        if !self.host.is_empty() {
            write!(f, " with host `{}`", self.host)?;
        }
        if let Some((name, value)) = &self.header {
            write!(f, " with `{name}: {value}`")?;
        }
        if let Some((issuer, subject)) = &self.token {
            write!(f, " with a token of `{issuer}` for `{subject}`")?;
        }
        match self.source {
            Some(address) => write!(f, " from the address {address}"),
            None => Ok(()),
        }
    }
}

/// A request that `policy` alone would admit and that `ceiling` refuses, where trying finds one.
pub(crate) fn beyond(
    policy: &Arc<PolicySpec>,
    ceiling: &Arc<PolicySpec>,
    context: &Context,
) -> Option<Request> {
    let context = Context {
        deny_by_default: true,
        ..context.clone()
    };
    let set = PolicySet::compile(&[Arc::clone(policy), Arc::clone(ceiling)], &[], &context);
    let values = Values::of([policy, ceiling], &context);
    values.requests().take(MAX_TRIES).find(|request| {
        let denied = policy::authorize(&request.facts(), &set).err();
        denied.is_some_and(|denial| denial.reason == Reason::DenyCeiling)
    })
}

impl Request {
    fn facts(&self) -> Facts<'_> {
        let source = self.source.unwrap_or(SOMEWHERE);
        Facts {
            peer: self.peer.as_ref(),
            source_ip: source,
            remote_ip: source,
            destination_ip: SOMEWHERE,
            destination_port: self.port,
            sni: None,
            http: Some(HttpFacts {
                method: &self.method,
                authority: &self.host,
                path: &self.path,
                headers: self,
                claims: self.token.is_some().then_some(self),
            }),
        }
    }
}

impl HeaderLookup for Request {
    fn any(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let header = self.header.as_ref();
        header.is_some_and(|(own, value)| own.eq_ignore_ascii_case(name) && visit(value.as_bytes()))
    }
}

impl ClaimLookup for Request {
    fn any(&self, path: &[String], visit: &mut dyn FnMut(Claim<'_>) -> bool) -> bool {
        let Some((issuer, subject)) = &self.token else {
            return false;
        };
        match path {
            [one] if one == "iss" => visit(Claim::Text(issuer)),
            [one] if one == "sub" => visit(Claim::Text(subject)),
            _ => false,
        }
    }
}

/// What is tried of each property: what the policies name, and something that they do not. Plain values come first, so that
/// the example is one.
#[derive(Debug)]
struct Values {
    peers: Vec<Option<SpiffeId>>,
    methods: Vec<String>,
    paths: Vec<String>,
    hosts: Vec<String>,
    ports: Vec<u16>,
    sources: Vec<Option<IpAddr>>,
    headers: Vec<Option<(String, String)>>,
    tokens: Vec<Option<(String, String)>>,
}

impl Values {
    fn of(policies: [&Arc<PolicySpec>; 2], context: &Context) -> Self {
        let mut named = Named::default();
        policies.iter().for_each(|policy| named.add(policy));
        let ports = named.ports.iter().filter_map(|text| text.parse().ok());
        let address = |block: &String| block.split('/').next()?.parse::<IpAddr>().ok();
        let sources = named.blocks.iter().filter_map(address).map(Some);
        Self {
            peers: peers(&named, context),
            methods: texts(&["GET", "POST", "DELETE"], &named.methods),
            paths: texts(&["/", "/elsewhere"], &named.paths),
            hosts: texts(&[""], &named.hosts),
            ports: [8080].into_iter().chain(ports).take(MAX_VALUES).collect(),
            sources: std::iter::once(None).chain(sources).take(MAX_VALUES).collect(),
            headers: optional(&named.headers),
            tokens: optional(&named.tokens),
        }
    }

    /// Every combination, those with the first values of what varies least first.
    fn requests(&self) -> impl Iterator<Item = Request> + '_ {
        let sizes = [
            self.paths.len(),
            self.methods.len(),
            self.peers.len(),
            self.ports.len(),
            self.hosts.len(),
            self.headers.len(),
            self.tokens.len(),
            self.sources.len(),
        ];
        let total = sizes.iter().fold(1_usize, |all, size| all.saturating_mul(*size));
        (0..total).filter_map(move |number| {
            let mut rest = number;
            let [path, method, peer, port, host, header, token, source] = sizes.map(|size| {
                let at = rest % size.max(1);
                rest /= size.max(1);
                at
            });
            Some(Request {
                path: self.paths.get(path)?.clone(),
                method: self.methods.get(method)?.clone(),
                peer: self.peers.get(peer)?.clone(),
                port: *self.ports.get(port)?,
                host: self.hosts.get(host)?.clone(),
                header: self.headers.get(header)?.clone(),
                token: self.tokens.get(token)?.clone(),
                source: *self.sources.get(source)?,
            })
        })
    }
}

fn peers(named: &Named, context: &Context) -> Vec<Option<SpiffeId>> {
    let id =
        |namespace: &str, account: &str| SpiffeId::new(context.trust_domain.clone(), namespace, account).ok();
    let mut found = Vec::new();
    for namespace in texts(&["default"], &named.namespaces) {
        for account in texts(&["default"], &named.accounts) {
            found.push(id(&namespace, &account));
        }
    }
    found.extend(named.principals.iter().map(|text| principal(text, context)));
    let mut peers: Vec<Option<SpiffeId>> = Vec::new();
    for peer in found.into_iter().filter(Option::is_some).chain([None]) {
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    // Plaintext stays among them.
    if peers.len() > 2 * MAX_VALUES {
        peers.truncate(2 * MAX_VALUES);
        peers.push(None);
    }
    peers
}

fn texts(first: &[&str], named: &BTreeSet<String>) -> Vec<String> {
    let mut all: Vec<String> = first.iter().map(|&text| text.to_owned()).collect();
    for text in named.iter().flat_map(|pattern| instances(pattern)) {
        if all.len() < MAX_VALUES && !all.contains(&text) {
            all.push(text);
        }
    }
    all
}

fn optional(named: &BTreeSet<(String, String)>) -> Vec<Option<(String, String)>> {
    let some = named.iter().cloned().map(Some);
    std::iter::once(None).chain(some).take(MAX_VALUES).collect()
}

/// What policies name, property by property.
#[derive(Debug, Default)]
struct Named {
    principals: BTreeSet<String>,
    namespaces: BTreeSet<String>,
    accounts: BTreeSet<String>,
    methods: BTreeSet<String>,
    paths: BTreeSet<String>,
    hosts: BTreeSet<String>,
    ports: BTreeSet<String>,
    blocks: BTreeSet<String>,
    headers: BTreeSet<(String, String)>,
    tokens: BTreeSet<(String, String)>,
}

impl Named {
    fn add(&mut self, policy: &PolicySpec) {
        let own = &policy.id.namespace;
        for rule in &policy.rules {
            for source in &rule.from {
                self.principals
                    .extend(both(&source.principals, &source.not_principals));
                self.namespaces
                    .extend(both(&source.namespaces, &source.not_namespaces));
                self.blocks.extend(both(&source.ip_blocks, &source.not_ip_blocks));
                self.blocks
                    .extend(both(&source.remote_ip_blocks, &source.not_remote_ip_blocks));
                for account in both(&source.service_accounts, &source.not_service_accounts) {
                    self.account(&account, own);
                }
                for subject in both(&source.request_principals, &source.not_request_principals) {
                    self.token(&subject);
                }
            }
            for operation in &rule.to {
                self.methods
                    .extend(both(&operation.methods, &operation.not_methods));
                self.paths.extend(both(&operation.paths, &operation.not_paths));
                self.hosts.extend(both(&operation.hosts, &operation.not_hosts));
                self.ports.extend(both(&operation.ports, &operation.not_ports));
            }
            for condition in &rule.when {
                for value in both(&condition.values, &condition.not_values) {
                    self.condition(&condition.key, value, own);
                }
            }
        }
    }

    fn condition(&mut self, key: &str, value: String, own: &str) {
        let list = match key {
            "source.principal" => &mut self.principals,
            "source.namespace" => &mut self.namespaces,
            "source.ip" | "remote.ip" => &mut self.blocks,
            "destination.port" => &mut self.ports,
            "source.serviceAccount" => return self.account(&value, own),
            "request.auth.principal" => return self.token(&value),
            _ => {
                let header = key
                    .strip_prefix("request.headers[")
                    .and_then(|k| k.strip_suffix(']'));
                if let Some(name) = header {
                    let values = instances(&value).into_iter();
                    self.headers.extend(values.map(|value| (name.to_owned(), value)));
                }
                return;
            }
        };
        list.insert(value);
    }

    fn account(&mut self, text: &str, own: &str) {
        let (namespace, account) = text.split_once('/').unwrap_or((own, text));
        self.namespaces.insert(namespace.to_owned());
        self.accounts.insert(account.to_owned());
    }

    fn token(&mut self, text: &str) {
        let (issuer, subject) = text.rsplit_once('/').unwrap_or(("*", text));
        for issuer in instances(issuer) {
            for subject in instances(subject) {
                self.tokens.insert((issuer.clone(), subject));
            }
        }
    }
}

fn both(one: &[String], other: &[String]) -> impl Iterator<Item = String> {
    one.iter()
        .chain(other)
        .cloned()
        .collect::<Vec<String>>()
        .into_iter()
}

/// Texts that a pattern matches, the plainest first.
fn instances(pattern: &str) -> Vec<String> {
    if pattern.contains("{*}") || pattern.contains("{**}") {
        return vec![pattern.replace("{**}", "any/thing").replace("{*}", "any")];
    }
    match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        (Some(""), _) => vec!["any".to_owned()],
        (Some(start), _) => vec![start.to_owned(), format!("{start}any")],
        (None, Some(end)) => vec![end.to_owned(), format!("any{end}")],
        (None, None) => vec![pattern.to_owned()],
    }
}

/// An identity that a value of `principals` matches.
fn principal(pattern: &str, context: &Context) -> Option<SpiffeId> {
    let whole = instances(pattern).into_iter().next_back()?;
    let (domain, rest) = whole.split_once('/').unwrap_or((whole.as_str(), ""));
    let domain = domain.parse().unwrap_or_else(|_| context.trust_domain.clone());
    let parts: Vec<&str> = rest.split('/').collect();
    let of = |key: &str| {
        let at = parts.iter().position(|part| *part == key)?;
        parts.get(at + 1).copied().filter(|text| !text.is_empty())
    };
    SpiffeId::new(domain, of("ns").unwrap_or("any"), of("sa").unwrap_or("any")).ok()
}
