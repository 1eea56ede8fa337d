//! AuthorizationPolicies that are refused before they are decided by (semantics 2.16), row by row.
#![expect(clippy::panic, reason = "a test stops where it fails")]

use api::Parsed;
use model::Profile;

/// What becomes of a policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Admitted {
    /// By both profiles.
    Yes,
    /// By Istio's profile alone: it can never match, or can only match by mistake.
    Istio,
    /// By none: it denies what it selects.
    No,
}
use Admitted::{Istio, No, Yes};

fn parse(spec: &str) -> Parsed {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: foo}}\nspec: {spec}\n"
    );
    api::parse("p.yaml", text.as_bytes())
}

fn admitted(spec: &str) -> Admitted {
    let parsed = parse(spec);
    let [object] = parsed.objects.as_slice() else {
        panic!("{spec}: {:?}", parsed.problems)
    };
    let why = || format!("{:?}", parsed.problems);
    match (
        object.refused(Profile::Istio).is_some(),
        object.refused(Profile::Secure).is_some(),
    ) {
        (false, false) => Yes,
        (false, true) => Istio,
        (true, true) => No,
        (true, false) => panic!("{spec}: Istio's profile refuses what ours takes: {}", why()),
    }
}

#[test]
fn az_002_to_021_rules() {
    let rows: &[(&str, &str, Admitted)] = &[
        ("AZ-002", "{}", Yes),
        ("AZ-003", "{rules: [{}]}", Yes),
        ("AZ-004", "{action: DENY, rules: [{}]}", Yes),
        ("AZ-005", "{action: DENY}", No),
        ("AZ-005", "{action: DENY, rules: []}", No),
        ("AZ-006", "{action: CUSTOM, provider: {name: opa}}", No),
        ("AZ-007", "{action: AUDIT}", Yes),
        ("AZ-008", "{rules: [null]}", No),
        ("AZ-008", "{action: DENY, rules: [{}, null]}", No),
        ("AZ-009", "{rules: [{from: []}]}", No),
        ("AZ-009", "{rules: [{to: []}]}", No),
        ("AZ-010", "{rules: [{from: [{}]}]}", No),
        ("AZ-011", "{rules: [{from: [{source: {}}]}]}", No),
        ("AZ-012", "{rules: [{to: [{operation: {}}]}]}", No),
        ("AZ-020", "{rules: [{when: [{key: source.ip}]}]}", No),
        (
            "AZ-021",
            "{rules: [{when: [{key: source.color, values: [red]}]}]}",
            No,
        ),
        ("2.13", "{action: CUSTOM, rules: [{}]}", No),
        (
            "2.13",
            "{action: CUSTOM, provider: {name: opa}, rules: [{}]}",
            Yes,
        ),
        (
            "2.13",
            "{action: CUSTOM, provider: {name: opa}, rules: [{from: [{source: {principals: [a]}}]}]}",
            No,
        ),
        (
            "2.13",
            "{action: CUSTOM, provider: {name: opa}, rules: [{when: [{key: request.auth.principal, values: [a]}]}]}",
            No,
        ),
    ];
    for (row, spec, expect) in rows {
        assert_eq!(admitted(spec), *expect, "{row} {spec}");
    }
}

fn field(part: &str, inner: &str, name: &str, value: &str) -> String {
    format!("{{rules: [{{{part}: [{{{inner}: {{{name}: [{value:?}]}}}}]}}]}}")
}

fn source(name: &str, value: &str) -> String {
    field("from", "source", name, value)
}

fn operation(name: &str, value: &str) -> String {
    field("to", "operation", name, value)
}

#[test]
fn sm_07_to_44_and_rp_05_to_11_values() {
    let rows: &[(&str, String, Admitted)] = &[
        ("SM-07", operation("paths", "*foo*"), Istio),
        ("SM-09", operation("hosts", "a*b"), Istio),
        ("SM-10", source("namespaces", "a*b"), Yes),
        ("SM-21", operation("paths", "/a?x=1"), Istio),
        ("SM-29", source("ipBlocks", "10.0.0/8"), No),
        ("SM-29", source("ipBlocks", "1.2.3"), No),
        ("SM-29", source("notRemoteIpBlocks", "10.0.0.0/33"), No),
        ("SM-30", operation("ports", "8080"), Yes),
        ("SM-30", operation("ports", "08080"), Yes),
        ("SM-30", operation("ports", "-1"), No),
        ("SM-30", operation("ports", "+80"), No),
        ("SM-30", operation("ports", "65536"), No),
        ("SM-30", operation("ports", "http"), No),
        (
            "SM-35, R42",
            source("principals", "spiffe://cluster.local/ns/a/sa/b"),
            Istio,
        ),
        ("SM-35, R42", source("notPrincipals", "spiffe://*"), Istio),
        ("SM-41", source("serviceAccounts", "*"), No),
        ("SM-41", source("serviceAccounts", "y/*"), No),
        ("SM-44", source("trustDomains", "a*b*"), No),
        ("SM-44", source("trustDomains", "a/b"), No),
        ("SM-44", source("trustDomains", "*.corp"), Yes),
        ("RP-05", source("requestPrincipals", "https://i*"), Istio),
        ("RP-10", source("requestPrincipals", "*/*"), Istio),
        ("RP-11", source("requestPrincipals", "issuer"), Istio),
        ("RP-12", source("requestPrincipals", "iss/a/b"), Yes),
        ("2.16", source("principals", ""), No),
    ];
    for (row, spec, expect) in rows {
        assert_eq!(admitted(spec), *expect, "{row} {spec}");
    }
}

#[test]
fn pt_21_to_39_templates() {
    let rows: &[(&str, &str, Admitted)] = &[
        ("PT-21", "/{*}/foo", Yes),
        ("PT-22", "/{*}/foo/", Yes),
        ("PT-23", "/foo/{**}/bar", Yes),
        ("PT-24", "/foo/bar/{**}", Yes),
        ("PT-25", "/foo/{**}buzz/bar", No),
        ("PT-26", "/{*}/foo/{}/bar", No),
        ("PT-27", "/foo/{*}/bar/*", No),
        ("PT-28", "/foo/{*}/bar/**/buzz", No),
        ("PT-29", "/foo/{buzz}/bar", No),
        ("PT-30", "/{buzz}", No),
        ("PT-31", "/{buzz=*}", No),
        ("PT-32", "/{buzz=**}", No),
        ("PT-33", "/{*}/foo/{**}bar", No),
        ("PT-34", "/{*}/foo/{*}.txt", No),
        ("PT-35", "/{*}/foo/{temp", No),
        ("PT-36", "/{*}/foo/temp}/bar", No),
        ("PT-37", "/{**}/foo/temp/{*}/bar", No),
        ("PT-38", "/{**}/{**}", No),
        ("PT-39", "/{*}/foo/?abc", No),
    ];
    for (row, value, expect) in rows {
        for name in ["paths", "notPaths"] {
            assert_eq!(admitted(&operation(name, value)), *expect, "{row} {name} {value}");
        }
    }
}

/// A method that no codec lets through is told of (O-07): Istio takes it, and it never matches.
#[test]
fn o_07_methods_that_no_request_has() {
    for (method, told) in [
        ("get", true),
        ("GET", false),
        ("P*", false),
        ("FETCH", true),
        ("*X", true),
    ] {
        let spec = operation("methods", method);
        let problems = parse(&spec).problems;
        assert_eq!(problems.iter().any(|p| p.code == "MW0216"), told, "O-07 {method}");
        assert_eq!(admitted(&spec), Yes, "O-07 {method}");
    }
}

/// What denies on request attributes alone is told of, because it closes TCP ports (AZ-061).
#[test]
fn az_061_a_deny_of_http_alone_is_warned_of() {
    let parsed = parse("{action: DENY, rules: [{to: [{operation: {methods: [POST]}}]}]}");
    assert!(
        parsed.problems.iter().any(|p| p.code == "MW0210"),
        "{:?}",
        parsed.problems
    );
    let both = parse("{action: DENY, rules: [{to: [{operation: {methods: [POST], ports: [\"80\"]}}]}]}");
    assert!(
        !both.problems.iter().any(|p| p.code == "MW0210"),
        "AZ-062 {:?}",
        both.problems
    );
}
