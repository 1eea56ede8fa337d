//! Policies and requests near one another's edges, from any bytes: what is taken when the bytes are used up is the first of
//! each list.

use model::SpiffeId;
use policy::{Action, ConditionSpec, OperationSpec, Origin, PolicyId, PolicySpec, RuleSpec, SourceSpec};
use serde_json::json;

use super::{Claims, Headers, Request};

pub const PRINCIPALS: &[&str] = &[
    "cluster.local/ns/a/sa/x",
    "cluster.local/ns/a/sa/xy",
    "*/ns/a/sa/x",
    "cluster.local/ns/a/*",
    "*",
    "*sa/x",
    "td/ns/b*",
    "td/*",
    "*y",
    "td/ns/ns/sa/x",
];
pub const NAMESPACES: &[&str] = &["a", "b", "a*", "*", "*b", "sa", "ns", "a*a"];
pub const ACCOUNTS: &[&str] = &["x", "a/x", "b/x", "a/xy"];
pub const DOMAINS: &[&str] = &["cluster.local", "td", "*", "t*", "*local"];
pub const BLOCKS: &[&str] = &[
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.1.1",
    "fd00::/8",
    "fd00::1",
    "0.0.0.0/0",
    "::/0",
];
pub const HOSTS: &[&str] = &["a.com", "*.com", "a.*", "A.com:80", "*", "*m"];
pub const PORTS: &[&str] = &["80", "0080", "81", "65535"];
pub const METHODS: &[&str] = &["GET", "G*", "*T", "*", "POST"];
pub const PATHS: &[&str] = &[
    "/", "/a", "/a/*", "/a*", "*/b", "*b", "*", "/a/{*}", "/a/{**}", "/{*}/b", "/a/b", "/a/b/c*",
];
pub const TOKENS: &[&str] = &["*", "i/u", "i/*", "*/u", "i*", "*u", "i/u*", "i"];
pub const TEXTS: &[&str] = &["v", "v*", "*v", "*", "vw"];
pub const KEYS: &[(&str, &[&str])] = &[
    ("source.ip", BLOCKS),
    ("remote.ip", BLOCKS),
    ("destination.ip", BLOCKS),
    ("source.namespace", NAMESPACES),
    ("source.serviceAccount", ACCOUNTS),
    ("source.principal", PRINCIPALS),
    ("source.trustDomain", DOMAINS),
    ("destination.port", PORTS),
    ("connection.sni", HOSTS),
    ("request.auth.principal", TOKENS),
    ("request.auth.audiences", TEXTS),
    ("request.headers[x-a]", TEXTS),
];

pub const PEERS: &[&str] = &[
    "",
    "spiffe://cluster.local/ns/a/sa/x",
    "spiffe://cluster.local/ns/a/sa/xy",
    "spiffe://td/ns/b/sa/x",
    "spiffe://td/ns/ns/sa/x",
    "spiffe://td/ns/ab/sa/y",
];
pub const ADDRESSES: &[&str] = &[
    "10.1.1.1",
    "10.2.0.1",
    "11.0.0.1",
    "::ffff:10.1.1.1",
    "fd00::1",
    "fd01::1",
];
pub const AUTHORITIES: &[&str] = &["a.com", "A.COM", "b.com", "a.com:80", ""];
pub const TARGETS: &[&str] = &[
    "/", "/a", "/a?b", "/a/", "/a/b", "/a/b/c", "/a/b=c", "/a/b*c", "/a/[b]", "/a/b|c", "/x/b", "", "/a//b",
    "/a;x/b", "/a%2fb", "/a/..;/b",
];

/// Bytes that choices are made by.
#[derive(Debug)]
pub struct Choices<'a>(pub &'a [u8]);

impl Choices<'_> {
    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        usize::from(*first) % bound
    }

    /// One of a list that is not empty.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Mostly none, else one or two values.
    fn values(&mut self, from: &[&str]) -> Vec<String> {
        let count = self.below(8).saturating_sub(5);
        (0..count).map(|_| self.pick(from).to_owned()).collect()
    }

    fn source(&mut self) -> SourceSpec {
        SourceSpec {
            principals: self.values(PRINCIPALS),
            not_principals: self.values(PRINCIPALS),
            request_principals: self.values(TOKENS),
            not_request_principals: self.values(TOKENS),
            namespaces: self.values(NAMESPACES),
            not_namespaces: self.values(NAMESPACES),
            service_accounts: self.values(ACCOUNTS),
            not_service_accounts: self.values(ACCOUNTS),
            trust_domains: self.values(DOMAINS),
            not_trust_domains: self.values(DOMAINS),
            ip_blocks: self.values(BLOCKS),
            not_ip_blocks: self.values(BLOCKS),
            remote_ip_blocks: self.values(BLOCKS),
            not_remote_ip_blocks: self.values(BLOCKS),
        }
    }

    fn operation(&mut self) -> OperationSpec {
        OperationSpec {
            hosts: self.values(HOSTS),
            not_hosts: self.values(HOSTS),
            ports: self.values(PORTS),
            not_ports: self.values(PORTS),
            methods: self.values(METHODS),
            not_methods: self.values(METHODS),
            paths: self.values(PATHS),
            not_paths: self.values(PATHS),
        }
    }

    fn condition(&mut self) -> ConditionSpec {
        let (key, values) = self.pick(KEYS);
        let list = vec![self.pick(values).to_owned()];
        let not = self.below(3) == 2;
        ConditionSpec {
            key: key.to_owned(),
            values: if not { Vec::new() } else { list.clone() },
            not_values: if not { list } else { Vec::new() },
            line: 0,
        }
    }

    fn rule(&mut self) -> RuleSpec {
        let counts = [self.below(3), self.below(3), self.below(6).saturating_sub(3)];
        RuleSpec {
            from: (0..counts[0]).map(|_| self.source()).collect(),
            to: (0..counts[1]).map(|_| self.operation()).collect(),
            when: (0..counts[2]).map(|_| self.condition()).collect(),
            line: 0,
        }
    }

    /// Up to six policies of two namespaces.
    pub fn policies(&mut self) -> Vec<PolicySpec> {
        let count = self.below(7);
        (0..count)
            .map(|i| PolicySpec {
                id: PolicyId {
                    namespace: self.pick(&["a", "b"]).to_owned(),
                    name: format!("p{}", (i * 7) % 10),
                },
                action: match self.below(8) {
                    0..4 => Action::Allow,
                    4..7 => Action::Deny,
                    _ => Action::Custom {
                        provider: "opa".to_owned(),
                    },
                },
                dry_run: false,
                rules: (0..self.below(3)).map(|_| self.rule()).collect(),
                invalid: None,
                origin: Origin::default(),
            })
            .collect()
    }

    pub fn request(&mut self) -> Request {
        let address = |from: &str| from.parse().unwrap();
        let peer: Option<SpiffeId> = self.pick(PEERS).parse().ok();
        let authority = self.pick(AUTHORITIES);
        let word = self.pick(&["v", "vw", "xv", ""]);
        let claims = json!({"iss": "i", "sub": self.pick(&["u", "uv", ""]), "aud": word});
        Request {
            peer,
            source: address(self.pick(ADDRESSES)),
            remote: address(self.pick(ADDRESSES)),
            destination: address(self.pick(ADDRESSES)),
            port: self.pick(&[80, 81, 65535]),
            sni: (self.below(2) == 0).then(|| authority.to_owned()),
            http: self.below(4) > 0,
            method: self.pick(&["GET", "POST", ""]).to_owned(),
            authority: authority.to_owned(),
            path: self.pick(TARGETS).to_owned(),
            headers: Headers(match self.below(3) {
                0 => Vec::new(),
                count => vec![("x-a".to_owned(), word.to_owned()); count],
            }),
            claims: (self.below(2) == 0).then_some(Claims(claims)),
        }
    }
}
