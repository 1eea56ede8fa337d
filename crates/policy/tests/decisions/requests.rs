//! Headers and conditions (semantics 2.9, 2.10).

use serde_json::{Value, json};

use super::forms::token;
use super::{get, matches, peer, when, when_not};
use testkit::decisions::{Headers, Request};

#[test]
fn sm_06_a_missing_header_is_not_present() {
    let star = when("request.headers[x]", &["*"]);
    assert!(!matches(&star, &Request::default()), "SM-06");
    assert!(matches(&star, &header(&[("x", "")])), "SM-05");
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
    // Each with its `notValues` twin.
    let rows: &[(&str, &str, &[&str], &Request, bool)] = &[
        ("AZ-040", "source.ip", &["127.0.0.1"], &plain, true),
        ("AZ-041", "source.ip", &["1.2.3.4"], &plain, false),
        ("AZ-042, AZ-044", "source.namespace", &["a"], &id, true),
        ("AZ-043, AZ-044", "source.namespace", &["b"], &id, false),
        (
            "AZ-045, AZ-047",
            "source.principal",
            &["cluster.local/ns/a/sa/b"],
            &id,
            true,
        ),
        (
            "AZ-046, AZ-047",
            "source.principal",
            &["cluster.local/ns/a/sa/c"],
            &id,
            false,
        ),
        ("AZ-048", "source.trustDomain", &["cluster.local"], &id, true),
        ("AZ-048", "source.trustDomain", &["cluster.loca"], &id, false),
        ("AZ-049, AZ-051", "destination.ip", &["127.0.0.1"], &plain, true),
        ("AZ-050, AZ-051", "destination.ip", &["1.2.3.4"], &plain, false),
        ("AZ-052", "destination.port", &["80"], &plain, true),
        ("AZ-053", "destination.port", &["1"], &plain, false),
        ("AZ-054", "connection.sni", &["*.svc"], &sni, true),
        ("AZ-055", "connection.sni", &["never-matched"], &sni, false),
        ("2.10", "connection.sni", &["*"], &plain, false),
        ("2.10", "remote.ip", &["127.0.0.0/8"], &plain, true),
        ("2.10", "source.serviceAccount", &["a/b"], &id, true),
        ("2.10", "source.serviceAccount", &["b"], &id, false),
        (
            "2.10",
            "request.auth.audiences",
            &["a"],
            &claims(json!({"aud": "a"})),
            true,
        ),
        (
            "2.10",
            "request.auth.audiences",
            &["a"],
            &claims(json!({"aud": ["z", "a"]})),
            true,
        ),
        (
            "2.10",
            "request.auth.audiences",
            &["*"],
            &claims(json!({"aud": []})),
            false,
        ),
        (
            "2.10",
            "request.auth.presenter",
            &["p*"],
            &claims(json!({"azp": "pq"})),
            true,
        ),
        (
            "2.10",
            "request.auth.claims[a][b]",
            &["c"],
            &claims(json!({"a": {"b": ["c"]}})),
            true,
        ),
        (
            "2.10",
            "request.auth.claims[a][b]",
            &["c"],
            &claims(json!({"a": "c"})),
            false,
        ),
        (
            "2.10",
            "request.auth.claims[a]",
            &["true"],
            &claims(json!({"a": true})),
            false,
        ),
        (
            "2.10",
            "request.auth.claims[a]",
            &["*"],
            &claims(json!({"a": {"b": "c"}})),
            false,
        ),
        ("2.10", "experimental.envoy.filters.a.b[c]", &["*"], &plain, false),
    ];
    for (row, key, values, request, expect) in rows {
        assert_eq!(
            matches(&when(key, values), request),
            *expect,
            "{row} {key} {values:?}"
        );
        assert_eq!(
            matches(&when_not(key, values), request),
            !*expect,
            "{row} {key} not {values:?}"
        );
    }
    let listed = when("request.headers[:path]", &["/a", "/b"]);
    assert!(!matches(&listed, &get("/c")), "AZ-056");
}
