//! Backends that read paths in another way than the mesh writes them (semantics 3.6 OURS, P6, P8, P10).

use model::Reason;
use policy::path::Dialects;
use policy::{Compat, Context, PolicySet, PolicySpec, authorize, explain};
use serde_json::json;
use std::sync::Arc;

use super::{compile, get, operation, policy, when};
use testkit::decisions::Request;

fn ask(dialect: &str, compat: Compat, specs: &[Arc<PolicySpec>], request: &Request) -> Option<Reason> {
    let context = Context {
        compat,
        ..Context::default()
    };
    let dialects: Dialects = dialect.parse().unwrap();
    let set = PolicySet::compile_for(specs, &[], &context, &dialects);
    let denied = authorize(&request.facts(), &set).err().map(|d| d.reason);
    let explained = explain(&request.facts(), &set);
    assert_eq!(explained.denied, denied, "{dialect} {request:?}");
    denied
}

/// Rows of dialect, path, whether a DENY of `/admin*` refuses, whether an ALLOW of `/public*` admits.
#[test]
fn p_06_p_08_p_10_a_deny_on_any_reading_an_allow_on_all() {
    let deny = [policy("DENY", operation("paths", &["/admin", "/admin/*"]))];
    let allow = [policy("ALLOW", operation("paths", &["/public*"]))];
    let rows: &[(&str, &str, bool, bool)] = &[
        ("plain", "/ADMIN", false, false),
        ("case-insensitive", "/ADMIN", true, false),
        ("case-insensitive", "/Admin/x", true, false),
        ("case-insensitive", "/admin", true, false),
        ("case-insensitive", "/public/Readme", false, true),
        ("case-insensitive", "/PUBLIC/x", false, false),
        ("plain", "/admin;a=b", false, false),
        ("strip-params", "/admin;a=b", true, false),
        ("strip-params", "/public;a/x", false, true),
        ("strip-params", "/admin%3ba=b/x", true, false),
        ("plain", "/public%2f..%2fadmin", false, true),
        ("decode=1", "/admin%2f", true, false),
        ("decode=1,collapse", "/public%2f..%2fadmin", true, false),
        ("decode=1,collapse", "/public%252f..%252fadmin", false, true),
        ("decode=2,collapse", "/public%252f..%252fadmin", true, false),
        ("decode=1", "/%61dmin", true, false),
        ("decode=1", "/public/100%25/caf%c3%a9%20x", false, true),
        ("plain", "//admin", false, false),
        ("collapse", "//admin", true, false),
        ("collapse", "/public/../admin", true, false),
        ("collapse", "/public/a", false, true),
        (
            "case-insensitive,decode=1,collapse",
            "/PUBLIC%2F..%2fADMIN",
            true,
            false,
        ),
        ("strip-params,collapse", "/public/..;/admin", true, false),
        ("80=collapse", "//admin", true, false),
        ("81=collapse", "//admin", false, false),
        ("81=collapse;*=plain", "//admin", false, false),
    ];
    for (dialect, path, refused, admitted) in rows {
        let request = get(path);
        let row = format!("{dialect} {path}");
        let denied = ask(dialect, Compat::Istio, &deny, &request);
        assert_eq!(denied.is_some(), *refused, "DENY {row}");
        let denied = ask(dialect, Compat::Istio, &allow, &request);
        assert_eq!(denied.is_none(), *admitted, "ALLOW {row}");
        // What the secure semantics add only closes.
        if *refused {
            assert!(ask(dialect, Compat::Secure, &deny, &request).is_some(), "{row}");
        }
        if !*admitted {
            assert!(ask(dialect, Compat::Secure, &allow, &request).is_some(), "{row}");
        }
    }
}

#[test]
fn policies_are_folded_as_paths_are() {
    let fold = |specs: &[Arc<PolicySpec>], path: &str| {
        ask("case-insensitive", Compat::Secure, specs, &get(path)).is_none()
    };
    let deny = [policy("DENY", operation("paths", &["/Admin/{*}/X", "*.PHP"]))];
    assert!(!fold(&deny, "/admin/a/x") && !fold(&deny, "/ADMIN/A/X") && !fold(&deny, "/a.php"));
    assert!(fold(&deny, "/admin/a/y"));
    let but = [policy("ALLOW", operation("notPaths", &["/Admin"]))];
    assert!(!fold(&but, "/aDMIN") && fold(&but, "/a"));
    let header = [policy("DENY", when("request.headers[:path]", &["/Admin?A=*"]))];
    assert!(!fold(&header, "/admin?a=1") && fold(&header, "/admin?b=1"));
    // Nothing but paths is folded.
    let method = [policy("DENY", operation("methods", &["get"]))];
    assert!(fold(&method, "/"));
}

#[test]
fn only_paths_lose_their_case() {
    let both = json!([{"to": [{"operation": {"methods": ["GET"], "paths": ["/Admin"]}}]}]);
    let fold = |path: &str| {
        let request = get(path);
        ask(
            "case-insensitive",
            Compat::Secure,
            &[policy("DENY", both.clone())],
            &request,
        )
    };
    assert_eq!(fold("/aDMIN"), Some(Reason::DenyExplicit));
    assert_eq!(fold("/other"), None);
}

#[test]
fn a_path_of_too_many_readings_is_refused() {
    let deep = get("//..%25252e%255c/%5c./%252f%25253b..%253b..%253b/%3b/%2541%2f");
    let all = "case-insensitive,strip-params,decode=3,collapse";
    let allow = [policy("ALLOW", operation("paths", &["/*"]))];
    let refused = Some(Reason::PathRefused);
    assert_eq!(ask(all, Compat::Istio, &allow, &deep), refused);
    assert_eq!(ask("decode=1", Compat::Istio, &allow, &get("/a%00")), refused);
    // Where no policy asks for a path, none is read.
    let port = [policy("ALLOW", operation("ports", &["80"]))];
    assert_eq!(ask(all, Compat::Istio, &port, &deep), None);
}

#[test]
fn the_readings_are_shown() {
    let dialects: Dialects = "case-insensitive,strip-params".parse().unwrap();
    let deny = [policy("DENY", operation("paths", &["/Admin"]))];
    let set = PolicySet::compile_for(&deny, &[], &Context::default(), &dialects);
    let explained = explain(&get("/ADMIN;x").facts(), &set);
    assert_eq!(explained.denied, Some(Reason::DenyExplicit));
    assert_eq!(explained.readings, ["/ADMIN;x", "/ADMIN", "/admin;x", "/admin"]);
    assert!(explained.steps[0].matched);
    let plain = compile(Compat::Istio, &deny);
    assert_eq!(explain(&get("/ADMIN;x").facts(), &plain).readings, ["/ADMIN;x"]);
}
