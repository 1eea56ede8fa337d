//! Where upstream opens and the secure semantics close (section 13, 3.6 OURS).

use model::Reason;
use policy::{Action, Compat, PolicySpec, authorize, explain};
use serde_json::{Value, json};
use std::sync::Arc;

use super::{admitted, compile, decide, dry, get, operation, peer, policy, source, when, when_not};
use testkit::decisions::{Claims, Headers, Request};

/// Whether ALLOW and DENY of the rules admit.
fn both(compat: Compat, rules: &Value, request: &Request) -> (bool, bool) {
    let ask = |action: &str| admitted(compat, &[policy(action, rules.clone())], request);
    (ask("ALLOW"), ask("DENY"))
}

#[test]
fn r15_what_cannot_be_evaluated_denies() {
    for rules in [
        when("source.color", &["red"]),
        when("request.headers[", &["a"]),
        when("destination.labels[a]", &["a"]),
        when("source.namespace", &[]),
        when("experimental.envoy.filters.a[b]", &["c"]),
        source("ipBlocks", &["10.0.0/8"]),
        source("ipBlocks", &["1.2.3"]),
        when("source.ip", &["nonsense"]),
        operation("ports", &["65536"]),
        operation("notPorts", &["http"]),
        operation("paths", &["/{*}.txt"]),
        operation("paths", &["/{**}/{*}"]),
        operation("paths", &["/a{b}"]),
        operation("paths", &["/{*}/foo/{}/bar"]),
        operation("notPaths", &["/}"]),
        source("principals", &["spiffe://cluster.local/ns/a/sa/b"]),
        source("notPrincipals", &["spiffe://cluster.local/ns/a/sa/b"]),
        source("requestPrincipals", &["*/*"]),
        source("requestPrincipals", &["https://i*"]),
    ] {
        for action in ["ALLOW", "DENY", "CUSTOM", "AUDIT"] {
            let spec = policy(action, rules.clone());
            let set = compile(Compat::Secure, &[spec.clone()]);
            assert_eq!(set.defects().count(), 1, "{action} {rules}");
            let denial = authorize(&Request::default().facts(), &set).unwrap_err();
            assert_eq!(denial.reason, Reason::DenyPolicyInvalid, "{action} {rules}");
            assert_eq!(denial.policy(), Some(&spec.id));
            assert_eq!(compile(Compat::Istio, &[spec]).defects().count(), 0);
        }
    }
}

#[test]
fn r33_dry_runs() {
    let broken = dry(&policy("DENY", when("source.color", &["red"])));
    let set = compile(Compat::Secure, &[broken]);
    assert_eq!(set.defects().count(), 1);
    let permit = authorize(&Request::default().facts(), &set).unwrap();
    assert_eq!(permit.shadow().deny, Some(policy::ShadowVerdict::Denied));
    let custom = dry(&policy("CUSTOM", operation("paths", &["/x"])));
    assert!(!admitted(Compat::Secure, &[custom.clone()], &Request::default()));
    assert!(admitted(Compat::Istio, &[custom.clone()], &Request::default()));
    assert!(
        !admitted(Compat::Istio, &[custom], &get("/x")),
        "upstream enforces it"
    );
}

#[test]
fn r23_presence_leans_to_the_closed_side() {
    let empty = Request {
        authority: String::new(),
        method: String::new(),
        headers: Headers(vec![("x".to_owned(), String::new())]),
        ..Request::default()
    };
    for (rules, not) in [
        (operation("hosts", &["*"]), operation("notHosts", &["*"])),
        (operation("methods", &["*"]), operation("notMethods", &["*"])),
        (
            when("request.headers[x]", &["*"]),
            when_not("request.headers[x]", &["*"]),
        ),
    ] {
        assert_eq!(both(Compat::Istio, &rules, &empty), (true, false), "{rules}");
        assert_eq!(both(Compat::Secure, &rules, &empty), (false, false), "{rules}");
        assert_eq!(both(Compat::Istio, &not, &empty), (false, true), "{not}");
        assert_eq!(both(Compat::Secure, &not, &empty), (false, false), "{not}");
    }
}

#[test]
fn r25_numbers_and_booleans_by_their_text() {
    let token = Request {
        claims: Some(Claims(json!({"admin": true, "level": 7}))),
        ..Request::default()
    };
    for (key, value) in [
        ("request.auth.claims[admin]", "true"),
        ("request.auth.claims[level]", "7"),
    ] {
        let rules = when(key, &[value]);
        assert_eq!(both(Compat::Istio, &rules, &token), (false, true), "{key}");
        assert_eq!(both(Compat::Secure, &rules, &token), (true, false), "{key}");
    }
}

#[test]
fn r32_foreign_names_open_nothing() {
    let (local, foreign) = (peer("cluster.local/ns/a/sa/b"), peer("other/ns/a/sa/b"));
    for (rules, not) in [
        (source("namespaces", &["a"]), source("notNamespaces", &["a"])),
        (
            source("serviceAccounts", &["a/b"]),
            source("notServiceAccounts", &["a/b"]),
        ),
        (
            when("source.namespace", &["a"]),
            when_not("source.namespace", &["a"]),
        ),
    ] {
        assert_eq!(both(Compat::Istio, &rules, &foreign), (true, false), "{rules}");
        assert_eq!(both(Compat::Secure, &rules, &foreign), (false, false), "{rules}");
        assert_eq!(both(Compat::Secure, &rules, &local), (true, false), "{rules}");
        assert_eq!(both(Compat::Secure, &not, &foreign), (false, false), "{not}");
        assert_eq!(both(Compat::Secure, &not, &local), (false, true), "{not}");
    }
}

#[test]
fn r11_rp_12_subjects_with_slashes() {
    let token = |iss: &str, sub: &str| Request {
        claims: Some(Claims(json!({"iss": iss, "sub": sub}))),
        ..Request::default()
    };
    let ask = |value: &str, iss: &str, sub: &str| {
        both(
            Compat::Secure,
            &source("requestPrincipals", &[value]),
            &token(iss, sub),
        )
        .0
    };
    assert!(ask("iss/a/b", "iss", "a/b"));
    assert!(ask("https://i/a/*", "https://i", "a/b"));
    assert!(ask("https://i/u", "https://i", "u"));
    assert!(!ask("https://i/a/b", "https://i", "a/c"));
    assert!(!ask("https://i/a/b", "https://", "i/a/b"));
    assert!(!ask("https://i/a/b", "https://j", "a/b"));
}

/// Ambient drops `trustDomains`: an ALLOW gets wider, a DENY dead. Here both decide, on connections too (R7).
#[test]
fn r7_trust_domains_decide_on_connections() {
    let connection = |id: &str| Request {
        http: false,
        ..peer(id)
    };
    for compat in [Compat::Istio, Compat::Secure] {
        let rules = source("trustDomains", &["td1"]);
        let asked = |id: &str| both(compat, &rules, &connection(id));
        assert_eq!(asked("td1/ns/a/sa/b"), (true, false), "R7 {compat:?}");
        assert_eq!(asked("td2/ns/a/sa/b"), (false, true), "R7 {compat:?}");
    }
}

#[test]
fn r4_templates_take_every_byte() {
    let rules = operation("paths", &["/foo/{*}"]);
    for path in ["/foo/[a]", "/foo/a|b", "/foo/a{b", "/foo/a\"b"] {
        assert_eq!(both(Compat::Istio, &rules, &get(path)), (false, true), "{path}");
        assert_eq!(both(Compat::Secure, &rules, &get(path)), (true, false), "{path}");
    }
}

#[test]
fn s3_6_every_reading_of_a_path_counts() {
    let deny = operation("paths", &["/admin", "/admin/*"]);
    let allow = operation("paths", &["/public*"]);
    for path in [
        "/public%2f..%2fadmin",
        "/public%5c..%5cadmin",
        "/public/..;/admin",
        "/public/%2e%2e;/admin",
        "/public/..%3b/admin",
        "/public%252f..%252fadmin",
        "/public/%252e%252e/admin",
        "/public//../../admin",
        "/public\\..\\admin",
        "/public;x/../admin",
        "/public/%2e%2e%2fadmin?x",
        // A backend that merges slashes before it resolves dot segments reads `/admin`.
        "/public/%2f..%2fadmin",
        "/public//../admin",
        // A backslash ends the parameters of a segment, or is of them.
        "/public;%5cx%2f..%2fadmin",
    ] {
        assert!(!both(Compat::Secure, &deny, &get(path)).1, "DENY {path}");
        assert!(!both(Compat::Secure, &allow, &get(path)).0, "ALLOW {path}");
        let set = compile(Compat::Secure, &[policy("DENY", deny.clone())]);
        let explained = explain(&get(path).facts(), &set);
        assert!(
            explained.readings.len() > 1 && explained.readings[0] == path,
            "{path}"
        );
        assert!(explained.steps[0].matched, "{path}");
    }
    for path in [
        "/admin;a=b",
        // Parameters are dropped before `%3b` is decoded, or after.
        "/admin/x%3by;z",
        "//admin",
        "/x/../admin",
        "/admin%2f",
        "/%61dmin/%2e",
    ] {
        let spec = [policy("DENY", deny.clone())];
        let normal = policy::path::normalize(path.as_bytes(), policy::path::Mode::None).unwrap();
        if path != "/%61dmin/%2e" {
            assert!(!admitted(Compat::Secure, &spec, &get(&normal)), "{path}");
        }
    }
    for path in [
        "/public/a",
        "/public/a%20b",
        "/public/.well-known",
        "/public/a?x=/../admin",
        "/public/100%25",
    ] {
        assert_eq!(both(Compat::Secure, &allow, &get(path)), (true, false), "{path}");
        assert_eq!(both(Compat::Secure, &deny, &get(path)), (false, true), "{path}");
    }
    let slashes = operation("paths", &["/"]);
    assert_eq!(
        both(Compat::Secure, &slashes, &get("//")),
        (false, false),
        "N-093, R49"
    );
    assert_eq!(
        both(Compat::Istio, &deny, &get("/public%2f..%2fadmin")),
        (false, true)
    );
}

#[test]
fn r50_paths_that_no_request_has() {
    use policy::path::Mode::{Base, DecodeAndMergeSlashes, MergeSlashes, None};
    // The values, and the modes in which they never match.
    let rows: &[(&str, &[policy::path::Mode])] = &[
        ("/a/../b", &[Base, MergeSlashes, DecodeAndMergeSlashes]),
        ("/./a*", &[Base, MergeSlashes, DecodeAndMergeSlashes]),
        ("*/../b", &[Base, MergeSlashes, DecodeAndMergeSlashes]),
        ("/%61dmin", &[Base, MergeSlashes, DecodeAndMergeSlashes]),
        ("/a\\b", &[Base, MergeSlashes, DecodeAndMergeSlashes]),
        ("/caf\u{e9}", &[Base, MergeSlashes, DecodeAndMergeSlashes]),
        ("/a b", &[Base, MergeSlashes, DecodeAndMergeSlashes]),
        ("admin", &[Base, MergeSlashes, DecodeAndMergeSlashes]),
        ("/a//b", &[MergeSlashes, DecodeAndMergeSlashes]),
        ("/a//*", &[MergeSlashes, DecodeAndMergeSlashes]),
        ("/{*}//{**}", &[MergeSlashes, DecodeAndMergeSlashes]),
        ("/a%2Fb", &[DecodeAndMergeSlashes]),
        ("/a%00", &[Base, MergeSlashes, DecodeAndMergeSlashes]),
        ("/a?x=1", &[None, Base, MergeSlashes, DecodeAndMergeSlashes]),
        ("/a#x", &[None, Base, MergeSlashes, DecodeAndMergeSlashes]),
        ("/a/.*", &[]),
        ("/a/*", &[]),
        ("*.txt", &[]),
        ("*/b", &[]),
        ("*", &[]),
        ("/100%25", &[]),
        ("/a/{*}/b/{**}", &[]),
        ("/caf%C3%A9", &[]),
    ];
    for (value, never) in rows {
        for paths in [None, Base, MergeSlashes, DecodeAndMergeSlashes] {
            let context = policy::Context {
                paths,
                ..policy::Context::default()
            };
            let spec = policy("DENY", operation("paths", &[value]));
            let set = policy::PolicySet::compile(&[spec], &[], &context);
            assert_eq!(
                set.defects().count() == 1,
                never.contains(&paths),
                "R50 {value} {paths:?}"
            );
        }
    }
    let target = |value: &str| policy("DENY", when("request.headers[:path]", &[value]));
    let defects = |value: &str| compile(Compat::Secure, &[target(value)]).defects().count();
    assert_eq!(
        (defects("/a?x=/../b"), defects("/a/../b?x"), defects("/a?x#y")),
        (0, 1, 1),
        "R50"
    );
    let istio = [policy("DENY", operation("paths", &["/a/../b"]))];
    assert_eq!(
        compile(Compat::Istio, &istio).defects().count(),
        0,
        "R50 upstream"
    );
}

#[test]
fn a_policy_of_an_unknown_action_does_not_exist() {
    let spec = serde_json::to_value(PolicySpec::clone(&policy("ALLOW", json!([{}])))).unwrap();
    let read = |action: &str| {
        let mut spec = spec.clone();
        spec["action"] = json!(action);
        serde_json::from_value::<PolicySpec>(spec)
    };
    assert_eq!(read("DENY").unwrap().action, Action::Deny);
    assert!(read("PERHAPS").is_err());
    let _ = Arc::new(spec);
}

/// What one reading of a path is marked for the audit log by, the request is.
#[test]
fn s3_6_an_audit_policy_sees_every_reading_of_a_path() {
    let rows = [
        ("/admin", "/admin", true, true),
        ("/admin", "/admin;x", true, false),
        ("/admin;x", "/admin;x", true, true),
        ("/admin", "/other;x", false, false),
    ];
    for (value, path, secure, istio) in rows {
        let audit = policy("AUDIT", operation("paths", &[value]));
        for (compat, marked) in [(Compat::Secure, secure), (Compat::Istio, istio)] {
            let permit = decide(compat, &[Arc::clone(&audit)], &get(path)).unwrap();
            assert_eq!(permit.audit(), marked, "{compat:?} {value} {path}");
        }
    }
}
