//! The sentences that explain a rule: what the request has, what was asked for, and what is not repeated.

use policy::{Compat, explain};
use serde_json::{Value, json};

use super::{compile, id, named, peer};
use testkit::decisions::{Claims, Headers, Request};

/// Why the one rule of an ALLOW policy matches, or does not.
fn why(rule: Value, request: &Request) -> String {
    let set = compile(Compat::Istio, &[named("p", "ALLOW", json!([rule]))]);
    let explained = explain(&request.facts(), &set);
    explained.steps[0].why.clone()
}

fn source(field: &str, values: &[&str]) -> Value {
    json!({"from": [{"source": {field: values}}]})
}

fn operation(field: &str, values: &[&str]) -> Value {
    json!({"to": [{"operation": {field: values}}]})
}

fn caller() -> Request {
    Request {
        source: "10.1.1.1".parse().unwrap(),
        remote: "10.2.2.2".parse().unwrap(),
        sni: Some("a.b".to_owned()),
        authority: "h.com".to_owned(),
        path: "/a?q".to_owned(),
        headers: Headers(vec![
            ("x-a".to_owned(), "one".to_owned()),
            ("x-a".to_owned(), "two".to_owned()),
            ("authorization".to_owned(), "secret".to_owned()),
        ]),
        claims: Some(Claims(json!({"iss": "i", "sub": "u", "group": "admins"}))),
        ..peer("td/ns/n/sa/s")
    }
}

#[test]
fn each_field_of_a_source_is_told_with_what_the_caller_is() {
    let caller = caller();
    for (field, value, other, has) in [
        ("principals", "td/ns/n/sa/s", "x", "`td/ns/n/sa/s`"),
        ("requestPrincipals", "i/u", "i/x", "`i/u`"),
        ("namespaces", "n", "m", "`n` of trust domain `td`"),
        ("serviceAccounts", "n/s", "n/x", "`n/s` of trust domain `td`"),
        ("trustDomains", "td", "other", "`td`"),
        ("ipBlocks", "10.1.0.0/16", "11.0.0.0/8", "`10.1.1.1`"),
        ("remoteIpBlocks", "10.2.0.0/16", "11.0.0.0/8", "`10.2.2.2`"),
    ] {
        let not = format!("not{}{}", field[..1].to_uppercase(), &field[1..]);
        let told = |field: &str, value: &str| why(source(field, &[value]), &caller);
        assert_eq!(told(field, value), format!("{field}: {has} is among `{value}`"));
        assert_eq!(
            told(field, other),
            format!("{field}: {has} is not among `{other}`")
        );
        assert_eq!(told(&not, value), format!("{not}: {has} is among `{value}`"));
        assert_eq!(told(&not, other), format!("{not}: {has} is not among `{other}`"));
    }
}

#[test]
fn each_field_of_an_operation_is_told_with_what_the_request_is() {
    let caller = caller();
    for (field, value, other, has) in [
        ("hosts", "h.com", "x", "`h.com`"),
        ("ports", "80", "81", "`80`"),
        ("methods", "GET", "PUT", "`GET`"),
        ("paths", "/a", "/b", "`/a`"),
    ] {
        let not = format!("not{}{}", field[..1].to_uppercase(), &field[1..]);
        let told = |field: &str, value: &str| why(operation(field, &[value]), &caller);
        assert_eq!(told(field, value), format!("{field}: {has} is among `{value}`"));
        assert_eq!(
            told(field, other),
            format!("{field}: {has} is not among `{other}`")
        );
        assert_eq!(told(&not, value), format!("{not}: {has} is among `{value}`"));
        assert_eq!(told(&not, other), format!("{not}: {has} is not among `{other}`"));
    }
}

#[test]
fn what_is_absent_is_told_as_that() {
    let nobody = Request::default();
    let connection = Request {
        http: false,
        ..Request::default()
    };
    let when = |key: &str| json!({"when": [{"key": key, "values": ["v"]}]});
    let when_not = |key: &str| json!({"when": [{"key": key, "notValues": ["v"]}]});
    for (rule, told) in [
        (
            source("principals", &["a"]),
            "principals: the peer has no identity, and `a` is asked for",
        ),
        (
            source("notPrincipals", &["a"]),
            "notPrincipals: the peer has no identity, and so not among `a`",
        ),
        (
            source("requestPrincipals", &["*"]),
            "requestPrincipals: there is no verified token with `iss` and `sub`, and `*` is asked for",
        ),
        (
            when("connection.sni"),
            "connection.sni: there is no server name, and `v` is asked for",
        ),
        (
            when("request.headers[x-a]"),
            "request.headers[x-a]: the header is absent, and `v` is asked for",
        ),
        (
            when_not("request.headers[x-a]"),
            "request.headers[x-a] notValues: the header is absent, and so not among `v`",
        ),
        (
            when("request.headers[cookie]"),
            "request.headers[cookie]: the header is absent, and `v` is asked for",
        ),
        (
            when("request.auth.claims[a]"),
            "request.auth.claims[a]: there is no verified token, and `v` is asked for",
        ),
    ] {
        assert_eq!(why(rule, &nobody), told);
    }
    let told = why(operation("paths", &["/a"]), &connection);
    assert!(told.contains("the connection is not HTTP"), "{told}");
}

#[test]
fn claims_and_credentials_are_not_repeated() {
    let caller = caller();
    let when = |key: &str, value: &str| json!({"when": [{"key": key, "values": [value]}]});
    for (rule, told) in [
        (
            when("request.headers[x-a]", "two"),
            "request.headers[x-a]: `one`, `two` is among `two`",
        ),
        (
            when("request.headers[authorization]", "x"),
            "request.headers[authorization]: the header's value is not among `x`",
        ),
        (
            when("request.auth.claims[group]", "admins"),
            "request.auth.claims[group]: the claim of the verified token is among `admins`",
        ),
        (
            when("request.auth.claims[group]", "x"),
            "request.auth.claims[group]: the claim of the verified token is not among `x`",
        ),
    ] {
        assert_eq!(why(rule, &caller), told);
    }
    // Of a token without one of the two, what there is.
    let half = Request {
        claims: Some(Claims(json!({"iss": "i"}))),
        ..Request::default()
    };
    let told = why(source("requestPrincipals", &["i/u"]), &half);
    assert_eq!(told, "requestPrincipals: `i/` is not among `i/u`");
}

#[test]
fn accounts_are_told_with_their_namespace_and_long_lists_are_counted() {
    let caller = caller();
    let told = why(source("serviceAccounts", &["s", "n/s"]), &caller);
    assert_eq!(
        told,
        "serviceAccounts: `n/s` of trust domain `td` is among `ns/s`, `n/s`"
    );
    let told = |values: &[&str]| why(operation("paths", values), &caller);
    assert_eq!(
        told(&["/1", "/2", "/3", "/4"]),
        "paths: `/a` is not among `/1`, `/2`, `/3`, `/4`"
    );
    assert_eq!(
        told(&["/1", "/2", "/3", "/4", "/5", "/6"]),
        "paths: `/a` is not among `/1`, `/2`, `/3`, `/4`, and 2 more"
    );
}

#[test]
fn a_policys_name_says_which_object_it_is_of() {
    assert_eq!(id("a", "b").object(), ("AuthorizationPolicy", "b"));
    assert_eq!(id("a", "guardrail:base:deny").object(), ("Guardrail", "base"));
    assert_eq!(id("a", "guardrail:a.b:ceiling").object(), ("Guardrail", "a.b"));
    assert_eq!(
        id("a", "guardrail").object(),
        ("AuthorizationPolicy", "guardrail")
    );
    assert_eq!(id("a", "b").to_string(), "a/b");
}
