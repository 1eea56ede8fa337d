//! Headers, conditions and whole scenarios (semantics 2.9, 2.10, 2.18).

use policy::Compat;
use serde_json::{Value, json};

use super::forms::token;
use super::world::{Headers, Request};
use super::{admitted, get, matches, operation, peer, policy, source, when, when_not};

#[test]
fn sm_06_a_missing_header_is_not_present() {
    assert!(!matches(&when("request.headers[x]", &["*"]), &Request::default()));
    assert!(matches(
        &when("request.headers[x]", &["*"]),
        &header(&[("x", "")])
    ));
}

fn header(pairs: &[(&str, &str)]) -> Request {
    let pairs = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    Request {
        headers: Headers(pairs.collect()),
        ..Request::default()
    }
}

#[test]
fn az_031_to_039_headers() {
    let (values, not) = (
        when("request.headers[x-foo]", &["foo"]),
        when_not("request.headers[x-foo]", &["bar"]),
    );
    let rows: &[(&str, &Value, &[(&str, &str)], bool)] = &[
        ("AZ-031", &values, &[("x-foo", "foo")], true),
        ("AZ-032", &values, &[("x-foo", "bar")], false),
        ("AZ-033", &values, &[], false),
        ("AZ-034", &not, &[("x-foo", "foo")], true),
        ("AZ-035", &not, &[("x-foo", "bar")], false),
        ("AZ-036", &not, &[], true),
        ("AZ-037", &values, &[("x-foo", "foo"), ("x-foo", "z")], true),
        ("AZ-037", &not, &[("x-foo", "z"), ("x-foo", "bar")], false),
        ("AZ-038", &values, &[("x-foo", "foo,z")], false),
    ];
    for (row, rules, pairs, expect) in rows {
        assert_eq!(matches(rules, &header(pairs)), *expect, "{row}");
    }
    assert!(
        matches(
            &when("request.headers[X-Foo]", &["foo"]),
            &header(&[("x-foo", "foo")])
        ),
        "AZ-039"
    );
    // `:path` holds the query; `host` is the authority.
    assert!(matches(
        &when("request.headers[:path]", &["/a?x=1"]),
        &get("/a?x=1")
    ));
    assert!(matches(
        &when("request.headers[:method]", &["GET"]),
        &Request::default()
    ));
    assert!(matches(
        &when("request.headers[Host]", &["example.com"]),
        &Request::default()
    ));
    assert!(matches(
        &when("request.headers[:authority]", &["example.com"]),
        &Request::default()
    ));
}

#[test]
fn az_040_to_056_conditions() {
    let id = peer("cluster.local/ns/a/sa/b");
    let sni = Request {
        sni: Some("x.svc".to_owned()),
        ..Request::default()
    };
    let plain = Request::default();
    let claims = |c: Value| token(c);
    let rows: &[(&str, &[&str], &Request, bool)] = &[
        ("source.ip", &["127.0.0.1"], &plain, true),
        ("source.ip", &["1.2.3.4"], &plain, false),
        ("remote.ip", &["127.0.0.0/8"], &plain, true),
        ("source.namespace", &["a"], &id, true),
        ("source.namespace", &["b"], &id, false),
        ("source.principal", &["cluster.local/ns/a/sa/b"], &id, true),
        ("source.principal", &["cluster.local/ns/a/sa/c"], &id, false),
        ("source.serviceAccount", &["a/b"], &id, true),
        ("source.serviceAccount", &["b"], &id, false),
        ("source.trustDomain", &["cluster.local"], &id, true),
        ("source.trustDomain", &["cluster.loca"], &id, false),
        ("destination.ip", &["127.0.0.1"], &plain, true),
        ("destination.ip", &["1.2.3.4"], &plain, false),
        ("destination.port", &["80"], &plain, true),
        ("destination.port", &["1"], &plain, false),
        ("connection.sni", &["*.svc"], &sni, true),
        ("connection.sni", &["never-matched"], &sni, false),
        ("connection.sni", &["*"], &plain, false),
        (
            "request.auth.audiences",
            &["a"],
            &claims(json!({"aud": "a"})),
            true,
        ),
        (
            "request.auth.audiences",
            &["a"],
            &claims(json!({"aud": ["z", "a"]})),
            true,
        ),
        (
            "request.auth.audiences",
            &["*"],
            &claims(json!({"aud": []})),
            false,
        ),
        (
            "request.auth.presenter",
            &["p*"],
            &claims(json!({"azp": "pq"})),
            true,
        ),
        (
            "request.auth.claims[a][b]",
            &["c"],
            &claims(json!({"a": {"b": ["c"]}})),
            true,
        ),
        (
            "request.auth.claims[a][b]",
            &["c"],
            &claims(json!({"a": "c"})),
            false,
        ),
        (
            "request.auth.claims[a]",
            &["true"],
            &claims(json!({"a": true})),
            false,
        ),
        (
            "request.auth.claims[a]",
            &["*"],
            &claims(json!({"a": {"b": "c"}})),
            false,
        ),
        ("experimental.envoy.filters.a.b[c]", &["*"], &plain, false),
    ];
    for (key, values, request, expect) in rows {
        assert_eq!(matches(&when(key, values), request), *expect, "{key} {values:?}");
        assert_eq!(
            matches(&when_not(key, values), request),
            !*expect,
            "{key} not {values:?}"
        );
    }
}

#[test]
fn s2_18_scenarios() {
    let host = |h: &str| Request {
        authority: h.to_owned(),
        ..Request::default()
    };
    let deny = policy(
        "DENY",
        operation("hosts", &["deny.S.com", "*.suffix.S.com", "prefix.S.*"]),
    );
    for refused in [
        "deny.S.com",
        "DENY.S.COM",
        "Deny.S.Com",
        "deny.suffix.S.com",
        "DENY.SUFFIX.S.COM",
        "Prefix.s.com",
    ] {
        assert!(
            !admitted(Compat::Istio, &[deny.clone()], &host(refused)),
            "{refused}"
        );
    }
    assert!(admitted(Compat::Istio, &[deny], &host("www.S.com")));
    let either = policy(
        "DENY",
        json!([{"to": [{"operation": {"hosts": ["internal.S.com"]}}, {"operation": {"paths": ["/private"]}}]}]),
    );
    for (authority, path, expect) in [
        ("www.S.com", "/", true),
        ("www.S.com", "/private", false),
        ("www.S.com", "/public", true),
        ("internal.S.com", "/", false),
        ("internal.S.com", "/private", false),
    ] {
        let request = Request {
            path: path.to_owned(),
            ..host(authority)
        };
        assert_eq!(
            admitted(Compat::Istio, &[either.clone()], &request),
            expect,
            "{authority}{path}"
        );
    }
    let remote = |ip: &str| Request {
        remote: ip.parse().unwrap(),
        ..Request::default()
    };
    let blocks = policy(
        "DENY",
        source("remoteIpBlocks", &["172.17.72.46", "192.168.4.0/23"]),
    );
    let others = policy("DENY", source("notRemoteIpBlocks", &["172.23.240.0/22"]));
    let key = policy("DENY", when("remote.ip", &["10.242.5.7", "10.124.99.0/24"]));
    for (spec, ip, expect) in [
        (&blocks, "172.17.72.46", false),
        (&blocks, "192.168.5.233", false),
        (&blocks, "10.4.5.6", true),
        (&others, "10.2.3.4", false),
        (&others, "172.23.242.188", true),
        (&key, "10.242.5.7", false),
        (&key, "10.124.99.10", false),
        (&key, "10.4.5.6", true),
    ] {
        assert_eq!(
            admitted(Compat::Istio, &[spec.clone()], &remote(ip)),
            expect,
            "{ip}"
        );
    }
    let precedence = [
        policy("ALLOW", operation("paths", &["/allow*"])),
        policy("DENY", operation("paths", &["/allow/admin"])),
    ];
    for (path, expect) in [
        ("/allow/admin", false),
        ("/allow/admin?param=value", false),
        ("/allow", true),
        ("/allow?param=value", true),
    ] {
        assert_eq!(admitted(Compat::Istio, &precedence, &get(path)), expect, "{path}");
    }
}
