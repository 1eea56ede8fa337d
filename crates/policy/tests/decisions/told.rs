//! What is told of a decision: details, dry runs, defects, near misses, and who speaks for a proxy.

use std::sync::Arc;

use model::{Profile, Reason};
use policy::path::Dialects;
use policy::{
    Action, Compat, Context, ExternalAnswer, HeaderLookup, Invalid, PolicySet, PolicySpec, ShadowVerdict,
    authorize, authorize_with, explain, explain_with, near_miss, speaks_for_proxy,
};
use serde_json::json;

use super::{compile, dry, get, id, named, operation, peer, policy, source, when};
use testkit::decisions::{Headers, Request};

fn invalid(spec: &Arc<PolicySpec>) -> Arc<PolicySpec> {
    let mut spec = PolicySpec::clone(spec);
    spec.invalid = Some(Invalid {
        reason: Reason::DenyPolicyInvalid,
        why: "broken".to_owned(),
    });
    Arc::new(spec)
}

#[test]
fn profiles_have_their_semantics() {
    assert_eq!(Compat::from(Profile::Secure), Compat::Secure);
    assert_eq!(Compat::from(Profile::Istio), Compat::Istio);
}

#[test]
fn a_permit_knows_the_policy_that_gave_it() {
    let allow = policy("ALLOW", json!([{"to": [{"operation": {"paths": ["/b"]}}]}, {}]));
    let set = compile(Compat::Secure, &[allow.clone()]);
    let permit = authorize(&get("/a").facts(), &set).unwrap();
    assert_eq!(permit.spec(), Some(&*allow));
    assert_eq!((permit.policy(), permit.rule()), (Some(&allow.id), Some(1)));
    let open = authorize(&get("/a").facts(), &compile(Compat::Istio, &[])).unwrap();
    assert_eq!((open.spec(), open.policy(), open.rule()), (None, None, None));
}

#[test]
fn a_provider_is_named_in_the_detail_only_where_it_was_to_be_asked() {
    let custom = invalid(&policy("CUSTOM", json!([{}])));
    let set = compile(Compat::Secure, &[custom]);
    let denial = authorize(&get("/").facts(), &set).unwrap_err();
    assert_eq!(denial.reason, Reason::DenyPolicyInvalid);
    assert_eq!(
        denial.detail(),
        "rbac_access_denied_matched_policy[ns[ns]-policy[custom]]"
    );
}

/// Of two readings the dry run that refuses is told.
#[test]
fn a_dry_run_sees_every_reading() {
    let deny = dry(&policy("DENY", operation("paths", &["/admin"])));
    let allow = dry(&policy("ALLOW", operation("paths", &["/public*"])));
    let shadow = |compat: Compat, path: &str, specs: &[Arc<PolicySpec>]| {
        let specs = [specs, &[named("all", "ALLOW", json!([{}]))]].concat();
        let permit = authorize(&get(path).facts(), &compile(compat, &specs)).unwrap();
        (permit.shadow().deny, permit.shadow().allow)
    };
    let (allowed, denied) = (Some(ShadowVerdict::Allowed), Some(ShadowVerdict::Denied));
    let both = [deny.clone(), allow];
    let twisted = "/public%2f..%2fadmin";
    assert_eq!(shadow(Compat::Secure, twisted, &both), (denied, denied));
    assert_eq!(shadow(Compat::Istio, twisted, &both), (allowed, allowed));
    assert_eq!(shadow(Compat::Secure, "/public", &both), (allowed, allowed));
    assert_eq!(shadow(Compat::Secure, "/admin", &both), (denied, denied));
    assert_eq!(shadow(Compat::Secure, twisted, &[deny]), (denied, None));
    // One that cannot be evaluated refuses in its shadow.
    let broken = dry(&policy("ALLOW", when("source.color", &["red"])));
    assert_eq!(shadow(Compat::Secure, twisted, &[broken]), (None, denied));
}

#[test]
fn a_path_of_too_many_readings_is_explained_as_refused() {
    let dialects: Dialects = "case-insensitive,strip-params,decode=3,collapse".parse().unwrap();
    let istio = Context {
        compat: Compat::Istio,
        ..Context::default()
    };
    let set = |action: &str| {
        let specs = [policy(action, operation("paths", &["/*"]))];
        PolicySet::compile_for(&specs, &[], &istio, &dialects)
    };
    let deep = get("//..%25252e%255c/%5c./%252f%25253b..%253b..%253b/%3b/%2541%2f");
    let explained = explain(&deep.facts(), &set("ALLOW"));
    assert_eq!(explained.denied, Some(Reason::PathRefused));
    assert_eq!(
        (explained.readings, explained.steps.len()),
        (vec![deep.path.clone()], 0)
    );
    // What is refused as it stands is explained as that.
    let explained = explain(&deep.facts(), &set("DENY"));
    assert_eq!(explained.denied, Some(Reason::DenyExplicit));
    assert!(explained.steps[0].matched);
}

#[test]
fn what_cannot_be_evaluated_is_the_first_step_and_says_whether_it_counts() {
    let unknown = || when("source.color", &["red"]);
    let broken = named("a", "DENY", unknown());
    let tried = dry(&named("b", "DENY", unknown()));
    let refused = invalid(&dry(&named("c", "DENY", json!([{}]))));
    let fine = named("d", "DENY", operation("paths", &["/x"]));
    let context = Context::default();
    let specs = [broken, tried, refused, fine];
    let set = PolicySet::compile(&specs, &[id("ns", "gone")], &context);
    let explained = explain(&get("/").facts(), &set);
    let told: Vec<(&str, bool, bool)> = explained
        .steps
        .iter()
        .filter(|step| step.rule.is_none())
        .map(|step| (step.policy.name.as_str(), step.dry_run, step.matched))
        .collect();
    assert_eq!(
        told,
        [
            ("a", false, true),
            ("b-dry", true, true),
            ("c-dry", false, true),
            ("gone", false, true)
        ]
    );
    let why = |name: &str| {
        let mut steps = explained.steps.iter();
        steps.find(|step| step.policy.name == name).unwrap().why.clone()
    };
    assert!(why("a").contains("therefore it denies everything"));
    assert!(why("b-dry").contains("its shadow denies everything"));
    assert!(why("c-dry").contains("therefore it denies everything"));
    assert!(why("gone").contains("has not arrived"));
    assert_eq!(explained.steps[0].policy.name, "a");
}

#[test]
fn the_near_miss_is_the_first_rule_with_the_fewest_fields_that_do_not_hold() {
    let rule =
        |paths: &str, method: &str| json!({"to": [{"operation": {"paths": [paths], "methods": [method]}}]});
    let allow = policy(
        "ALLOW",
        json!([rule("/x", "PUT"), rule("/a", "PUT"), rule("/a", "POST")]),
    );
    let set = compile(Compat::Secure, &[allow.clone()]);
    let request = get("/a");
    let near = near_miss(&request.facts(), &set).unwrap();
    assert_eq!((&near.policy, near.rule), (&allow.id, 1));
    assert_eq!(near.failed, ["methods: `GET` is not among `PUT`"]);
    assert_eq!(explain(&request.facts(), &set).near_miss, Some(near));
    // A connection misses a rule of requests by that alone.
    let connection = Request {
        http: false,
        ..peer("cluster.local/ns/a/sa/b")
    };
    let near = near_miss(&connection.facts(), &set).unwrap();
    assert_eq!(near.rule, 0);
    assert!(near.failed[0].contains("the connection is not HTTP"), "{near:?}");
    let ports =
        json!([{"to": [{"operation": {"ports": ["1"]}}], "from": [{"source": {"namespaces": ["x"]}}]}]);
    let by_port = compile(Compat::Secure, &[named("port", "ALLOW", ports)]);
    let near = near_miss(&connection.facts(), &by_port).unwrap();
    assert_eq!(near.failed.len(), 2, "{near:?}");
    // Of a reading that is refused.
    let open = compile(
        Compat::Secure,
        &[policy("ALLOW", operation("paths", &["/public*"]))],
    );
    let twisted = get("/public%2f..%2fadmin");
    let near = near_miss(&twisted.facts(), &open).unwrap();
    assert!(near.failed[0].contains("`/admin`"), "{near:?}");
    // Of a ceiling where that refuses.
    let mut ceiling = PolicySpec::clone(&named("top", "DENY", operation("methods", &["POST"])));
    ceiling.action = Action::Ceiling;
    let bounded = [named("all", "ALLOW", json!([{}])), Arc::new(ceiling)];
    let near = near_miss(&request.facts(), &compile(Compat::Secure, &bounded)).unwrap();
    assert_eq!(near.policy.name, "top");
}

struct Yes;

impl policy::External for Yes {
    fn answer(&self, _: &str) -> ExternalAnswer {
        ExternalAnswer::Allow
    }
}

#[test]
fn an_explanation_is_of_the_reading_that_was_refused() {
    let custom = policy("CUSTOM", json!([{}]));
    let deny = policy("DENY", operation("paths", &["/admin"]));
    let set = compile(
        Compat::Secure,
        &[custom, deny.clone(), named("z", "ALLOW", json!([{}]))],
    );
    let request = get("/public%2f..%2fadmin");
    let denial = authorize_with(&request.facts(), &set, &Yes).unwrap_err();
    let explained = explain_with(&request.facts(), &set, &Yes);
    assert_eq!(explained.denied, Some(denial.reason));
    assert_eq!(explained.policy.as_ref(), Some(&deny.id));
    assert!(
        explained
            .steps
            .iter()
            .any(|step| step.matched && step.policy == deny.id)
    );
    assert_eq!(explained.near_miss, None);
}

#[test]
fn a_field_is_there_where_some_value_is() {
    let some = Headers(vec![("X-A".to_owned(), String::new())]);
    assert!(some.present("x-a"));
    assert!(!some.present("x-b"));
}

#[test]
fn o_15_names_that_speak_for_a_proxy() {
    // The name, and whether it does: strict, and as Istio.
    for (name, strict, istio) in [
        ("x-forwarded-client-cert", false, false),
        ("x_forwarded_client_cert", true, true),
        ("x-forwarded_client-cert", true, true),
        ("x-envoy-internal", true, true),
        ("x_envoy_internal", true, true),
        ("x-envoy-retry-on", true, true),
        ("x-envoy-peer-metadata", true, false),
        ("x_envoy_anything", true, false),
        ("x-envoyage", false, false),
        ("x-forwarded-for", true, false),
        ("x_forwarded_for", true, false),
        ("x-forwarded-proto", true, false),
        ("x-forwarded-host", false, false),
        ("x-client", false, false),
        ("envoy-internal", false, false),
        ("accept", false, false),
    ] {
        assert_eq!(speaks_for_proxy(name, true), strict, "O-15 {name}");
        assert_eq!(
            speaks_for_proxy(name, false),
            istio,
            "O-15 {name}, Istio's profile"
        );
    }
}

#[test]
fn a_plain_peer_is_told_as_none() {
    let set = compile(Compat::Secure, &[policy("ALLOW", source("principals", &["*"]))]);
    let near = near_miss(&get("/").facts(), &set).unwrap();
    assert_eq!(near.failed.len(), 1);
    assert!(near.failed[0].starts_with("principals: "), "{near:?}");
}

#[test]
fn who_asks_and_who_does_not() {
    let custom = compile(Compat::Secure, &[policy("CUSTOM", operation("paths", &["/x"]))]);
    assert!(custom.asks() && !custom.is_empty());
    let deny = compile(Compat::Secure, &[policy("DENY", json!([{}]))]);
    assert!(!deny.asks() && !deny.is_empty());
    assert!(compile(Compat::Secure, &[]).is_empty());
}

#[test]
fn a_path_that_is_refused_shows_how_far_it_came() {
    use policy::path::{Mode, PathError, trace};
    let (steps, error) = trace(b"/a/../b%00#c", Mode::MergeSlashes);
    let cut = ("fragment cut", "/a/../b%00".to_owned());
    assert_eq!(steps, [("received", "/a/../b%00#c".to_owned()), cut]);
    assert_eq!(error, Some(PathError::Nul));
    let (steps, error) = trace(b"/a/..//b?c", Mode::MergeSlashes);
    let texts: Vec<&str> = steps.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["/a/..//b?c", "/a/..//b?c", "//b?c", "/b?c"]);
    assert_eq!(error, None);
}
