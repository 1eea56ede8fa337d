//! Whole scenarios, request by request (semantics 2.13, 2.18): AZ-071 to AZ-140 in the order in which they stand there.

use policy::path::{Mode, normalize};
use policy::{Compat, External, ExternalAnswer, PolicySpec, authorize_with};
use serde_json::{Value, json};
use std::sync::Arc;

use super::{admitted, compile, dry, get, named, operation, peer, policy, source, when};
use testkit::decisions::{Claims, Headers, Request};

/// Checks rows of an id, a request and whether it is admitted; in both semantics.
fn check(specs: &[Arc<PolicySpec>], rows: &[(&str, Request, bool)]) {
    for (row, request, expect) in rows {
        for compat in [Compat::Istio, Compat::Secure] {
            let found = admitted(compat, specs, request);
            assert_eq!(found, *expect, "{row} {compat:?} {request:?}");
        }
    }
}

fn host(authority: &str) -> Request {
    Request {
        authority: authority.to_owned(),
        ..Request::default()
    }
}

fn at(authority: &str, path: &str) -> Request {
    Request {
        path: path.to_owned(),
        ..host(authority)
    }
}

fn remote(ip: &str) -> Request {
    Request {
        remote: ip.parse().unwrap(),
        ..Request::default()
    }
}

fn connection(request: Request) -> Request {
    Request {
        http: false,
        ..request
    }
}

#[test]
fn az_076_to_089_hosts_at_an_ingress() {
    let hosts = policy(
        "DENY",
        operation("hosts", &["deny.S.com", "*.suffix.S.com", "prefix.S.*"]),
    );
    check(
        &[hosts],
        &[
            ("AZ-076", host("deny.S.com"), false),
            ("AZ-077", host("DENY.S.COM"), false),
            ("AZ-078", host("Deny.S.Com"), false),
            ("AZ-079", host("deny.suffix.S.com"), false),
            ("AZ-080", host("DENY.SUFFIX.S.COM"), false),
            ("AZ-081", host("Deny.Suffix.S.Com"), false),
            ("AZ-082", host("prefix.S.com"), false),
            ("AZ-083", host("PREFIX.S.COM"), false),
            ("AZ-084", host("Prefix.S.Com"), false),
            ("AZ-084, the others", host("www.S.com"), true),
        ],
    );
    let either = policy(
        "DENY",
        json!([{"to": [{"operation": {"hosts": ["internal.S.com"]}}, {"operation": {"paths": ["/private"]}}]}]),
    );
    check(
        &[either],
        &[
            ("AZ-085", at("www.S.com", "/"), true),
            ("AZ-086", at("www.S.com", "/private"), false),
            ("AZ-087", at("www.S.com", "/public"), true),
            ("AZ-088", at("internal.S.com", "/"), false),
            ("AZ-089", at("internal.S.com", "/private"), false),
        ],
    );
}

#[test]
fn az_090_to_097_the_original_client() {
    let blocks = policy(
        "DENY",
        source("remoteIpBlocks", &["172.17.72.46", "192.168.4.0/23"]),
    );
    check(
        &[blocks],
        &[
            ("AZ-090", remote("172.17.72.46"), false),
            ("AZ-091", remote("192.168.5.233"), false),
            ("AZ-092", remote("10.4.5.6"), true),
        ],
    );
    let others = policy("DENY", source("notRemoteIpBlocks", &["172.23.240.0/22"]));
    check(
        &[others],
        &[
            ("AZ-093", remote("10.2.3.4"), false),
            ("AZ-094", remote("172.23.242.188"), true),
        ],
    );
    let key = policy("DENY", when("remote.ip", &["10.242.5.7", "10.124.99.0/24"]));
    check(
        &[key],
        &[
            ("AZ-095", remote("10.242.5.7"), false),
            ("AZ-096", remote("10.124.99.10"), false),
            ("AZ-097", remote("10.4.5.6"), true),
        ],
    );
}

#[test]
fn az_098_to_107_paths() {
    let normal = |path: &str| get(&normalize(path.as_bytes(), Mode::Base).unwrap());
    check(
        &[policy("ALLOW", operation("paths", &["/public*"]))],
        &[
            ("AZ-098", normal("/public"), true),
            ("AZ-099", normal("/public/../public"), true),
            ("AZ-100", normal("/private"), false),
            ("AZ-101", normal("/public/../private"), false),
            ("AZ-102", normal("/public/%2E%2E/public"), true),
            ("AZ-103", normal("/public/%2e%2E/private"), false),
        ],
    );
    check(
        &[
            policy("ALLOW", operation("paths", &["/allow*"])),
            policy("DENY", operation("paths", &["/allow/admin"])),
        ],
        &[
            ("AZ-104", get("/allow/admin"), false),
            ("AZ-105", get("/allow/admin?param=value"), false),
            ("AZ-106", get("/allow"), true),
            ("AZ-107", get("/allow?param=value"), true),
        ],
    );
}

const A: &str = "cluster.local/ns/n/sa/a";
const B: &str = "cluster.local/ns/m/sa/b";

#[test]
fn az_108_to_117_negative_forms() {
    let baseline = policy("DENY", source("notPrincipals", &["*"]));
    let rows = [("AZ-108", peer(A), true), ("AZ-109", Request::default(), false)];
    check(&[baseline.clone()], &rows);
    check(
        &[baseline],
        &rows.map(|(row, request, expect)| (row, connection(request), expect)),
    );
    let spaces = policy("DENY", source("notNamespaces", &["n"]));
    let rows = [("AZ-110", peer(A), true), ("AZ-111", peer(B), false)];
    check(&[spaces.clone()], &rows);
    check(
        &[spaces],
        &rows.map(|(row, request, expect)| (row, connection(request), expect)),
    );
    check(
        &[policy("DENY", operation("notHosts", &["a.com", "*.a.com"]))],
        &[
            ("AZ-112", host("x.a.com"), true),
            ("AZ-113", host("b.com"), false),
        ],
    );
    let method = |method: &str| Request {
        method: method.to_owned(),
        ..Request::default()
    };
    check(
        &[policy("DENY", operation("notMethods", &["GET", "P*"]))],
        &[
            ("AZ-114", method("POST"), true),
            ("AZ-115", method("DELETE"), false),
        ],
    );
    let port = |port: u16| Request {
        port,
        ..Request::default()
    };
    let ports = policy("DENY", operation("notPorts", &["80"]));
    let rows = [("AZ-116", port(80), true), ("AZ-117", port(81), false)];
    check(&[ports.clone()], &rows);
    check(
        &[ports],
        &rows.map(|(row, request, expect)| (row, connection(request), expect)),
    );
}

#[test]
fn az_124_to_132_an_egress_gateway() {
    let rule = |host: &str, more: Value| {
        let mut rule = json!({"to": [{"operation": {"hosts": [host]}}]});
        rule.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        rule
    };
    let from = json!([{"source": {"principals": [A]}}]);
    let groups = json!([{"key": "request.auth.claims[group]", "values": ["one"]}]);
    let specs = [policy(
        "ALLOW",
        json!([
            {"to": [{"operation": {"hosts": ["www.company.com"], "paths": ["/allow"]}}]},
            rule("a-only.com", json!({"from": from})),
            rule("jwt-only.com", json!({"when": groups})),
            rule("jwt-and-a-only.com", json!({"from": from, "when": groups})),
        ]),
    )];
    let who = |who: &str, host: &str, group: Option<&str>| Request {
        authority: host.to_owned(),
        claims: group.map(|group| Claims(json!({"iss": "i", "sub": "s", "group": [group]}))),
        ..peer(who)
    };
    check(
        &specs,
        &[
            ("AZ-124", at("www.company.com", "/allow"), true),
            ("AZ-125", at("www.company.com", "/deny"), false),
            ("AZ-126", who(A, "a-only.com", None), true),
            ("AZ-127", who(B, "a-only.com", None), false),
            ("AZ-128", who(B, "jwt-only.com", Some("one")), true),
            ("AZ-129", who(B, "jwt-only.com", Some("two")), false),
            ("AZ-130", who(A, "jwt-and-a-only.com", Some("one")), true),
            ("AZ-131", who(A, "jwt-and-a-only.com", Some("two")), false),
            ("AZ-132", who(B, "jwt-and-a-only.com", Some("one")), false),
            (
                "AZ-132, without a token",
                who(A, "jwt-and-a-only.com", None),
                false,
            ),
        ],
    );
}

/// What each provider says; one that is not there does not answer.
struct Providers(&'static [(&'static str, ExternalAnswer)]);

impl External for Providers {
    fn answer(&self, provider: &str) -> ExternalAnswer {
        let found = self.0.iter().find(|(name, _)| *name == provider);
        found.map_or(ExternalAnswer::Unasked, |(_, answer)| *answer)
    }
}

fn asks(specs: &[Arc<PolicySpec>], request: &Request, providers: &dyn External) -> bool {
    let answers = [Compat::Istio, Compat::Secure].map(|compat| {
        let set = compile(compat, specs);
        authorize_with(&request.facts(), &set, providers).is_ok()
    });
    assert_eq!(answers[0], answers[1], "{request:?}");
    answers[0]
}

fn custom(provider: &str, rules: Value) -> Arc<PolicySpec> {
    let mut spec = PolicySpec::clone(&named(&format!("by-{provider}"), "CUSTOM", rules));
    spec.action = policy::Action::Custom {
        provider: provider.to_owned(),
    };
    Arc::new(spec)
}

#[test]
fn az_071_to_075_custom() {
    const YES: Providers = Providers(&[("opa", ExternalAnswer::Allow)]);
    const NO: Providers = Providers(&[("opa", ExternalAnswer::Deny)]);
    let specs = [custom("opa", operation("notPaths", &["/health"]))];
    assert!(asks(&specs, &get("/x"), &YES), "AZ-071");
    assert!(!asks(&specs, &get("/x"), &NO), "AZ-072");
    assert!(asks(&specs, &get("/health"), &YES), "AZ-073");
    assert!(asks(&specs, &get("/health"), &NO), "AZ-073");
    // A provider of connections that admits service accounts which end in `/sa/a`.
    let ports = [custom("opa", operation("ports", &["80"]))];
    assert!(asks(&ports, &connection(peer(A)), &YES), "AZ-074");
    assert!(!asks(&ports, &connection(peer(B)), &NO), "AZ-075");
}

/// Who asks for what only a request has, is asked of a connection too; who cannot be asked about it, refuses (R17).
#[test]
fn az_067_068_r17_custom_on_connections() {
    let specs = [custom("opa", operation("paths", &["/x"]))];
    let connection = connection(peer(A));
    assert!(
        asks(&specs, &connection, &Providers(&[("opa", ExternalAnswer::Allow)])),
        "AZ-067"
    );
    assert!(
        !asks(&specs, &connection, &Providers(&[("opa", ExternalAnswer::Deny)])),
        "AZ-067"
    );
    assert!(!asks(&specs, &connection, &Providers(&[])), "AZ-068");
}

#[test]
fn az_134_to_140_several_providers() {
    use ExternalAnswer::{Allow, Deny};
    let one = || custom("one", operation("paths", &["/one", "/both"]));
    let two = || custom("two", operation("paths", &["/two", "/both"]));
    let both = [one(), two()];
    let split = Providers(&[("one", Allow), ("two", Deny)]);
    assert!(asks(&both, &get("/one"), &split), "AZ-134");
    assert!(!asks(&both, &get("/two"), &split), "AZ-135");
    assert!(
        !asks(&both, &get("/both"), &split),
        "AZ-136: each that matches must admit"
    );
    assert!(
        asks(
            &both,
            &get("/both"),
            &Providers(&[("one", Allow), ("two", Allow)])
        ),
        "AZ-136"
    );
    assert!(
        asks(&both, &get("/none"), &Providers(&[])),
        "AZ-137: nobody is asked"
    );
    assert!(
        !asks(&both, &get("/both"), &Providers(&[("one", Allow)])),
        "AZ-138: misconfigured"
    );
    // R16: `one` is not asked what `one-more` is meant for.
    let more = [custom("one-more", operation("paths", &["/one"]))];
    assert!(
        !asks(&more, &get("/one"), &Providers(&[("one", Allow)])),
        "AZ-138, R16"
    );
    let deny = dry(&policy("DENY", operation("paths", &["/one"])));
    let mixed = [one(), deny];
    assert!(
        asks(&mixed, &get("/one"), &Providers(&[("one", Allow)])),
        "AZ-139"
    );
    let allow = policy("ALLOW", operation("paths", &["/two"]));
    let mixed = [one(), allow];
    assert!(
        !asks(&mixed, &get("/one"), &Providers(&[("one", Allow)])),
        "AZ-140: an ALLOW is asked too"
    );
}

/// Exact DENY of one value is not got round by a second one, nor by the order of headers (R22).
#[test]
fn r22_each_line_of_a_header_by_itself() {
    let specs = [policy("DENY", when("request.headers[x-role]", &["admin"]))];
    let header = |values: &[&str]| Request {
        headers: Headers(
            values
                .iter()
                .map(|v| ("X-Role".to_owned(), (*v).to_owned()))
                .collect(),
        ),
        ..Request::default()
    };
    let rows = [
        ("R22", header(&["admin"]), false),
        ("R22", header(&["admin", "user"]), false),
        ("R22", header(&["user", "admin"]), false),
        ("R22", header(&["user"]), true),
    ];
    check(&specs, &rows);
}

#[test]
fn az_030_r44_without_its_last_policy() {
    let request = peer(A);
    let allow = policy("ALLOW", source("principals", &[B]));
    let decide = |specs: &[Arc<PolicySpec>], closed: bool| {
        let context = policy::Context {
            deny_by_default: closed,
            ..policy::Context::default()
        };
        let set = policy::PolicySet::compile(specs, &[], &context);
        policy::authorize(&request.facts(), &set).is_ok()
    };
    assert!(!decide(&[allow.clone()], false) && !decide(&[allow], true));
    assert!(decide(&[], false), "AZ-030: as upstream");
    assert!(!decide(&[], true), "AZ-030, R44: the secure profile stays closed");
}

/// A negative field is true of who has no token; only a positive one beside it asks for one (R43).
#[test]
fn r43_negative_fields_and_anonymous_callers() {
    let anonymous = Request::default();
    let allow = [policy("ALLOW", source("notRequestPrincipals", &["i/bad"]))];
    check(&allow, &[("R43", anonymous.clone(), true)]);
    let both =
        json!([{"from": [{"source": {"requestPrincipals": ["*"], "notRequestPrincipals": ["i/bad"]}}]}]);
    check(&[policy("ALLOW", both)], &[("R43", anonymous, false)]);
}
