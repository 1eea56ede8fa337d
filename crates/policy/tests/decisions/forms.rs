//! String forms, identities, request principals, templates (semantics 2.5 to 2.8).

use policy::Compat;
use serde_json::{Value, json};

use super::{admitted, get, matches, operation, peer, policy, source, when};
use testkit::decisions::{Claims, Request};

/// A request whose attribute is `input`; for the identity attributes `-` is plaintext.
fn with(field: &str, input: &str) -> Request {
    match field {
        "paths" => get(input),
        "hosts" => Request {
            authority: input.to_owned(),
            ..Request::default()
        },
        "methods" => Request {
            method: input.to_owned(),
            ..Request::default()
        },
        "ipBlocks" => Request {
            source: input.parse().unwrap(),
            ..Request::default()
        },
        "ports" => Request {
            port: input.parse().unwrap(),
            ..Request::default()
        },
        _ if input == "-" => Request::default(),
        _ => peer(input),
    }
}

fn rules(field: &str, value: &str) -> Value {
    match field {
        "paths" | "hosts" | "methods" | "ports" => operation(field, &[value]),
        _ => source(field, &[value]),
    }
}

#[test]
fn sm_01_to_44() {
    let rows: &[(&str, &str, &str, &[(&str, bool)])] = &[
        (
            "SM-01",
            "paths",
            "abc",
            &[("abc", true), ("abcd", false), ("ABC", false)],
        ),
        (
            "SM-01",
            "hosts",
            "abc",
            &[("abc", true), ("abcd", false), ("ABC", true)],
        ),
        (
            "SM-02",
            "paths",
            "abc*",
            &[("abc", true), ("abcd", true), ("ab", false)],
        ),
        (
            "SM-03",
            "paths",
            "*abc",
            &[("abc", true), ("xabc", true), ("abcx", false)],
        ),
        ("SM-04", "paths", "*", &[("", false), ("/", true)]),
        ("SM-05", "hosts", "*", &[("", true), ("a", true)]),
        ("SM-05", "methods", "*", &[("", true), ("GET", true)]),
        ("SM-07", "paths", "*foo*", &[("xfooy", false), ("xfoo", false)]),
        ("SM-08", "paths", "*foo*", &[("xfoo*", true)]),
        ("SM-09", "paths", "a*b", &[("aXb", false), ("a*b", true)]),
        ("SM-09", "hosts", "a*b", &[("aXb", false), ("A*B", true)]),
        (
            "SM-10",
            "namespaces",
            "a*b",
            &[
                ("td/ns/aXb/sa/x", true),
                ("td/ns/ab/sa/x", true),
                ("td/ns/aXbc/sa/x", false),
            ],
        ),
        ("SM-11", "paths", "**", &[("x*", true), ("x", false)]),
        ("SM-12", "hosts", "EXAMPLE.com", &[("example.COM", true)]),
        (
            "SM-13",
            "hosts",
            "*.example.com",
            &[
                ("a.example.com", true),
                ("A.EXAMPLE.COM", true),
                ("example.com", false),
            ],
        ),
        ("SM-14", "hosts", "example.com", &[("example.com:8080", false)]),
        (
            "SM-15",
            "hosts",
            "example.com*",
            &[("example.com.evil.net", true)],
        ),
        (
            "SM-16",
            "hosts",
            "example.com:*",
            &[("example.com:8080", true), ("example.com", false)],
        ),
        ("SM-17", "hosts", "example.com", &[("example.com.", false)]),
        ("SM-18", "methods", "get", &[("GET", false)]),
        (
            "SM-19",
            "methods",
            "P*",
            &[("POST", true), ("PUT", true), ("PATCH", true), ("GET", false)],
        ),
        ("SM-20", "paths", "/a", &[("/a?x=1", true), ("/a", true)]),
        ("SM-21", "paths", "/a?x=1", &[("/a?x=1", false)]),
        (
            "SM-22",
            "paths",
            "/a/*",
            &[("/a/", true), ("/a/b/c", true), ("/a", false)],
        ),
        ("SM-23", "paths", "/a*", &[("/abc", true)]),
        ("SM-24", "paths", "*", &[("", false)]),
        ("SM-25", "paths", "/A", &[("/a", false)]),
        (
            "SM-26",
            "ipBlocks",
            "10.0.0.1",
            &[("10.0.0.1", true), ("10.0.0.2", false)],
        ),
        (
            "SM-27",
            "ipBlocks",
            "10.0.0.0/8",
            &[("::ffff:10.1.1.1", true), ("::ffff:11.1.1.1", false)],
        ),
        (
            "SM-28",
            "ipBlocks",
            "10.0.0.5/8",
            &[("10.200.0.1", true), ("11.0.0.5", false)],
        ),
        (
            "SM-28",
            "ipBlocks",
            "fd00::5/8",
            &[("fd77::1", true), ("fe80::1", false), ("10.0.0.1", false)],
        ),
        ("SM-30", "ports", "08080", &[("8080", true), ("80", false)]),
        (
            "SM-31",
            "principals",
            "*",
            &[("td/ns/a/sa/b", true), ("-", false)],
        ),
        (
            "SM-32",
            "notPrincipals",
            "*",
            &[("td/ns/a/sa/b", false), ("-", true)],
        ),
        (
            "SM-33",
            "principals",
            "*/ns/foo/sa/bar",
            &[
                ("a/ns/foo/sa/bar", true),
                ("b/ns/foo/sa/bar", true),
                ("a/ns/foo/sa/barx", false),
                ("a/ns/xfoo/sa/bar", false),
            ],
        ),
        (
            "SM-34",
            "principals",
            "cluster.local/ns/foo/*",
            &[
                ("cluster.local/ns/foo/sa/x", true),
                ("cluster.local/ns/foo-bar/sa/x", false),
                ("other/ns/foo/sa/x", false),
            ],
        ),
        (
            "SM-35",
            "principals",
            "spiffe://cluster.local/ns/a/sa/b",
            &[("cluster.local/ns/a/sa/b", false)],
        ),
        (
            "SM-36",
            "namespaces",
            "foo",
            &[("td/ns/foo-bar/sa/x", false), ("td/ns/foo/sa/x", true)],
        ),
        ("SM-37", "namespaces", "foo*", &[("td/ns/foo-bar/sa/x", true)]),
        (
            "SM-38",
            "namespaces",
            "*",
            &[("-", false), ("td/ns/a/sa/x", true)],
        ),
        (
            "SM-39",
            "serviceAccounts",
            "a",
            &[
                ("t1/ns/ns/sa/a", true),
                ("t2/ns/ns/sa/a", true),
                ("t1/ns/x/sa/a", false),
            ],
        ),
        (
            "SM-40",
            "serviceAccounts",
            "y/a",
            &[("t/ns/y/sa/a", true), ("t/ns/y/sa/ab", false)],
        ),
        ("SM-41", "serviceAccounts", "*", &[("t/ns/ns/sa/a", false)]),
        (
            "SM-42",
            "trustDomains",
            "td1",
            &[("td1/ns/a/sa/b", true), ("td10/ns/a/sa/b", false), ("-", false)],
        ),
        (
            "SM-43",
            "trustDomains",
            "*.corp",
            &[("a.corp/ns/a/sa/b", true), ("corp/ns/a/sa/b", false)],
        ),
        (
            "SM-43",
            "trustDomains",
            "*",
            &[("a/ns/a/sa/b", true), ("-", false)],
        ),
    ];
    for (row, field, value, inputs) in rows {
        for (input, expect) in *inputs {
            let request = with(field, input);
            assert_eq!(
                matches(&rules(field, value), &request),
                *expect,
                "{row} {field} {value} {input}"
            );
            let negated = format!("not{}{}", field[..1].to_uppercase(), &field[1..]);
            if !field.starts_with("not") {
                assert_eq!(
                    matches(&rules_of(field, &negated, value), &request),
                    !*expect,
                    "{row} {negated} {input}"
                );
            }
        }
    }
}

fn rules_of(field: &str, negated: &str, value: &str) -> Value {
    match field {
        "paths" | "hosts" | "methods" | "ports" => operation(negated, &[value]),
        _ => source(negated, &[value]),
    }
}

/// A pattern of principals is laid over the components; nothing crosses a slash.
#[test]
fn s2_6_principals_by_component() {
    let rows: &[(&str, &str, bool)] = &[
        ("cluster.local/ns/a/sa/b", "cluster.local/ns/a/sa/b", true),
        ("cluster.local/ns/a/sa/b*", "cluster.local/ns/a/sa/bc", true),
        ("cluster.local/ns/a/s*", "cluster.local/ns/a/sa/x", true),
        ("cluster.local/n*", "cluster.local/ns/a/sa/x", true),
        ("cluster.local/x*", "cluster.local/ns/a/sa/x", false),
        ("cluster.lo*", "cluster.local/ns/a/sa/x", true),
        ("*sa/x", "cluster.local/ns/a/sa/x", true),
        ("*a/x", "cluster.local/ns/a/sa/x", true),
        ("*b/x", "cluster.local/ns/a/sa/x", false),
        ("*/x", "cluster.local/ns/a/sa/x", true),
        ("*s/a/sa/x", "cluster.local/ns/a/sa/x", true),
        ("*.local/ns/a/sa/x", "cluster.local/ns/a/sa/x", true),
        ("*x/cluster.local/ns/a/sa/x", "cluster.local/ns/a/sa/x", false),
        ("cluster.local/ns/a/sa/x/*", "cluster.local/ns/a/sa/x", false),
        ("cluster.local/ns/a/sa/", "cluster.local/ns/a/sa/x", false),
        ("cluster.local", "cluster.local/ns/a/sa/x", false),
        ("cluster_local/ns/a/sa/x", "cluster.local/ns/a/sa/x", false),
        ("cluster.local/ns/./sa/x", "cluster.local/ns/a/sa/x", false),
        ("", "cluster.local/ns/a/sa/x", false),
    ];
    for (value, id, expect) in rows {
        assert_eq!(
            matches(&source("principals", &[value]), &peer(id)),
            *expect,
            "{value} {id}"
        );
        assert_eq!(
            matches(&when("source.principal", &[value]), &peer(id)),
            *expect,
            "{value} {id}"
        );
    }
}

/// Upstream's `*` of namespaces crosses the slash; a component does not.
#[test]
fn r32_namespaces_anywhere() {
    let id = peer("cluster.local/ns/foo/sa/x");
    for value in ["foo*a", "*/sa", "foo/sa", "*sa"] {
        let rules = source("namespaces", &[value]);
        assert!(matches(&rules, &id), "{value}");
        assert!(
            !admitted(Compat::Secure, &[policy("ALLOW", rules.clone())], &id),
            "{value}"
        );
        assert!(
            !admitted(Compat::Secure, &[policy("DENY", rules)], &id),
            "a DENY refuses what upstream's does: {value}"
        );
    }
    assert!(matches(
        &source("namespaces", &["sa"]),
        &peer("cluster.local/ns/ns/sa/x")
    ));
}

pub(super) fn token(claims: Value) -> Request {
    Request {
        claims: Some(Claims(claims)),
        ..Request::default()
    }
}

#[test]
fn rp_01_to_16() {
    let https = json!({"iss": "https://i", "sub": "u"});
    let short = json!({"iss": "issuer", "sub": "u"});
    let rows: &[(&str, &str, &Value, bool)] = &[
        ("RP-01", "*", &https, true),
        ("RP-01", "*", &json!({"iss": "https://i"}), false),
        ("RP-01", "*", &json!({"iss": "https://i", "sub": ""}), false),
        ("RP-02", "https://i/u", &https, true),
        ("RP-02", "https://i/v", &https, false),
        ("RP-03", "https://i/*", &https, true),
        ("RP-03", "https://j/*", &https, false),
        (
            "RP-04",
            "https://i/u*",
            &json!({"iss": "https://i", "sub": "uv"}),
            true,
        ),
        ("RP-05", "https://i*", &https, false),
        (
            "RP-05",
            "https://i*",
            &json!({"iss": "https:/", "sub": "iu"}),
            true,
        ),
        ("RP-06", "iss*", &short, true),
        ("RP-06", "iss*", &json!({"iss": "issuer"}), false),
        ("RP-07", "*/u", &https, true),
        ("RP-07", "*/v", &https, false),
        ("RP-08", "*.corp/u", &json!({"iss": "a.corp", "sub": "u"}), true),
        ("RP-08", "*.corp/u", &https, false),
        ("RP-09", "*u", &https, true),
        ("RP-09", "*v", &https, false),
        ("RP-10", "*/*", &https, false),
        ("RP-10", "*/*", &json!({"iss": "i", "sub": "*"}), true),
        ("RP-11", "issuer", &short, false),
        ("RP-11", "issuer", &json!({"iss": "issuer", "sub": ""}), true),
        ("RP-12", "iss/a/b", &json!({"iss": "iss", "sub": "a/b"}), false),
        ("RP-12", "iss/a/b", &json!({"iss": "iss/a", "sub": "b"}), true),
        ("RP-15", "issuer/U", &short, false),
        ("RP-15", "ISSUER/u", &short, false),
    ];
    for (row, value, claims, expect) in rows {
        let request = token((*claims).clone());
        assert_eq!(
            matches(&source("requestPrincipals", &[value]), &request),
            *expect,
            "{row} {value} {claims}"
        );
        assert_eq!(
            matches(&source("notRequestPrincipals", &[value]), &request),
            !*expect,
            "{row} not {value}"
        );
        assert_eq!(
            matches(&when("request.auth.principal", &[value]), &request),
            *expect,
            "{row} when {value}"
        );
    }
    assert!(
        !matches(&source("requestPrincipals", &["*"]), &Request::default()),
        "RP-13"
    );
    assert!(
        matches(&source("notRequestPrincipals", &["*"]), &Request::default()),
        "RP-13"
    );
    // Of a connection that is no request: an ALLOW loses the rule, a DENY the field (2.11).
    let tcp = Request {
        http: false,
        ..Request::default()
    };
    for action in ["ALLOW", "DENY"] {
        let specs = [policy(action, source("requestPrincipals", &["*"]))];
        assert!(!admitted(Compat::Istio, &specs, &tcp), "RP-16 {action}");
        assert!(!admitted(Compat::Secure, &specs, &tcp), "RP-16 {action}");
    }
    let require = || policy("DENY", source("notRequestPrincipals", &["*"]));
    assert!(admitted(Compat::Istio, &[require()], &token(https)), "RP-14");
    assert!(
        !admitted(Compat::Istio, &[require()], &token(json!({"iss": "i"}))),
        "RP-14"
    );
    assert!(
        !admitted(Compat::Istio, &[require()], &Request::default()),
        "RP-14"
    );
}

#[test]
fn pt_01_to_20() {
    let rows: &[(&str, &str, &str, bool)] = &[
        ("PT-01", "/allow/admin/{**}", "/allow/admin/", true),
        ("PT-02", "/allow/admin/{**}", "/allow/admin/temp", true),
        ("PT-03", "/allow/admin/{**}", "/allow/admin/temp.txt", true),
        ("PT-04", "/allow/admin/{**}", "/allow/admin/foo/temp.txt", true),
        ("PT-05", "/allow/admin/{**}", "/allow/admin", false),
        ("PT-06", "/allow/admin/{**}", "/allow/user/", false),
        ("PT-07", "/allow/admin/{**}", "/allow/admin?param=value", false),
        ("PT-08", "/allow/admin/{**}", "/allow", false),
        ("PT-09", "/foo/{*}/bar/{**}", "/foo/buzz/bar/bat.txt", true),
        ("PT-10", "/foo/{*}/bar/{**}", "/foo/buzz/bar/bat.temp.txt", true),
        ("PT-11", "/foo/{*}/bar/{**}", "/foo/buzz/bar/bat/fuzz.txt", true),
        ("PT-12", "/foo/{*}/bar/{**}", "/foo/buzz/bar/bat", true),
        ("PT-13", "/foo/{*}/bar/{**}", "/foo/bar/bat.txt", false),
        ("PT-14", "/foo/{*}/bar/{**}", "/foo//bar/bat.txt", false),
        ("PT-15", "/store/{**}/cart", "/store//cart", true),
        ("PT-16", "/store/{**}/cart", "/store/foo/cart", true),
        ("PT-17", "/store/{**}/cart", "/store/foo/bar/cart", true),
        ("PT-18", "/store/{**}/cart", "/store/cart", false),
        ("PT-18", "/store/{**}/cart", "/store/foo/cart?x", true),
        ("PT-18", "/store/{**}/cart", "/store/foo/cart/", false),
        ("PT-19", "/foo/{*}", "/foo/a", true),
        ("PT-19", "/foo/{*}", "/foo/a;b", true),
        ("PT-19", "/foo/{*}", "/foo/a=b", true),
        ("PT-19", "/foo/{*}", "/foo/", false),
        ("PT-19", "/foo/{*}", "/foo/a/b", false),
        ("PT-19", "/foo/{*}", "/foo", false),
        ("PT-19", "/foo/{*}", "/foo/a*", true),
        ("PT-19", "/foo/{*}", "/foo/[a]", false),
        ("PT-19", "/foo/{*}", "/foo/a|b", false),
        ("PT-20", "/foo/{*}", "/foo/a%2Fb", true),
        ("2.8", "/{*}/foo/", "/a/foo/", true),
        ("2.8", "/{*}/foo/", "/a/foo", false),
        ("2.8", "/{*}/foo/", "//foo/", false),
    ];
    for (row, value, path, expect) in rows {
        let found = matches(&operation("paths", &[value]), &get(path));
        assert_eq!(found, *expect, "{row} {value} {path}");
    }
}

#[test]
fn pt_21_to_39_what_is_no_template() {
    let rows: &[(&str, &str, bool)] = &[
        ("PT-21", "/{*}/foo", true),
        ("PT-22", "/{*}/foo/", true),
        ("PT-23", "/foo/{**}/bar", true),
        ("PT-24", "/foo/bar/{**}", true),
        ("PT-25", "/foo/{**}buzz/bar", false),
        ("PT-26", "/{*}/foo/{}/bar", false),
        ("PT-27", "/foo/{*}/bar/*", false),
        ("PT-28", "/foo/{*}/bar/**/buzz", false),
        ("PT-29", "/foo/{buzz}/bar", false),
        ("PT-30", "/{buzz}", false),
        ("PT-31", "/{buzz=*}", false),
        ("PT-32", "/{buzz=**}", false),
        ("PT-33", "/{*}/foo/{**}bar", false),
        ("PT-34", "/{*}/foo/{*}.txt", false),
        ("PT-35", "/{*}/foo/{temp", false),
        ("PT-36", "/{*}/foo/temp}/bar", false),
        ("PT-37", "/{**}/foo/temp/{*}/bar", false),
        ("PT-38", "/{**}/{**}", false),
        ("PT-39", "/{*}/foo/?abc", false),
    ];
    for (row, value, good) in rows {
        let set = super::compile(Compat::Secure, &[policy("ALLOW", operation("paths", &[value]))]);
        assert_eq!(set.defects().count(), usize::from(!good), "{row} {value}");
    }
}
