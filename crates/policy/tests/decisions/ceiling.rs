//! Ceilings: the most that ALLOW policies can grant (P18, R44).

use model::Reason;
use policy::{Action, Compat, PolicySpec, authorize, explain};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

use super::world::Request;
use super::{compile, decide, get, named, operation, peer, policy, source};

const BOTH: [Compat; 2] = [Compat::Istio, Compat::Secure];

fn ceiling(name: &str, rules: Value) -> Arc<PolicySpec> {
    let mut spec = PolicySpec::clone(&named(name, "ALLOW", rules));
    spec.action = Action::Ceiling;
    Arc::new(spec)
}

fn reason(compat: Compat, specs: &[Arc<PolicySpec>], request: &Request) -> Option<Reason> {
    decide(compat, specs, request).err().map(|denial| denial.reason)
}

#[test]
fn what_is_allowed_and_above_the_ceiling_is_refused() {
    let all = policy("ALLOW", json!([{}]));
    let low = ceiling("low", operation("paths", &["/api/*"]));
    for compat in BOTH {
        let specs = [all.clone(), low.clone()];
        assert_eq!(reason(compat, &specs, &get("/api/x")), None);
        assert_eq!(reason(compat, &specs, &get("/admin")), Some(Reason::DenyCeiling));
        let denial = decide(compat, &specs, &get("/admin")).unwrap_err();
        assert_eq!(denial.policy(), Some(&low.id));
        assert_eq!(
            denial.detail(),
            "rbac_access_denied_matched_policy[ns[ns]-policy[low]]"
        );
    }
}

#[test]
fn a_ceiling_grants_nothing() {
    let low = ceiling("low", json!([{}]));
    let some = policy("ALLOW", operation("paths", &["/a"]));
    assert_eq!(
        reason(Compat::Istio, &[low.clone(), some], &get("/b")),
        Some(Reason::DenyNoAllow)
    );
    // Where nothing has to allow, it bounds all the same, and does not count as an ALLOW policy.
    assert_eq!(reason(Compat::Istio, &[low], &get("/b")), None);
    let low = ceiling("low", operation("paths", &["/a"]));
    assert_eq!(
        reason(Compat::Istio, &[low], &get("/b")),
        Some(Reason::DenyCeiling)
    );
}

#[test]
fn each_ceiling_bounds_by_itself() {
    let all = policy("ALLOW", json!([{}]));
    let specs = [
        all,
        ceiling("paths", operation("paths", &["/a", "/b"])),
        ceiling("peers", source("namespaces", &["n"])),
    ];
    let from = |namespace: &str, path: &str| Request {
        path: path.to_owned(),
        ..peer(&format!("cluster.local/ns/{namespace}/sa/x"))
    };
    for compat in BOTH {
        assert_eq!(reason(compat, &specs, &from("n", "/a")), None);
        assert_eq!(
            reason(compat, &specs, &from("m", "/a")),
            Some(Reason::DenyCeiling)
        );
        assert_eq!(
            reason(compat, &specs, &from("n", "/c")),
            Some(Reason::DenyCeiling)
        );
    }
}

#[test]
fn on_connections_a_rule_that_asks_for_a_request_lets_nothing_through() {
    let all = policy("ALLOW", json!([{}]));
    let connection = Request {
        http: false,
        ..peer("cluster.local/ns/n/sa/x")
    };
    for compat in BOTH {
        let paths = [all.clone(), ceiling("low", operation("paths", &["/a"]))];
        assert_eq!(reason(compat, &paths, &connection), Some(Reason::DenyCeiling));
        let peers = [all.clone(), ceiling("low", source("namespaces", &["n"]))];
        assert_eq!(reason(compat, &peers, &connection), None);
    }
}

#[test]
fn one_that_cannot_be_evaluated_refuses_everything() {
    let broken = ceiling(
        "low",
        json!([{"when": [{"key": "no.such.key", "values": ["a"]}]}]),
    );
    let specs = [policy("ALLOW", json!([{}])), broken];
    assert_eq!(
        reason(Compat::Secure, &specs, &get("/")),
        Some(Reason::DenyPolicyInvalid)
    );
    assert_eq!(
        reason(Compat::Istio, &specs, &get("/")),
        Some(Reason::DenyCeiling)
    );
}

#[test]
fn an_explanation_names_the_ceiling_and_what_came_closest() {
    let specs = [
        policy("ALLOW", json!([{}])),
        ceiling(
            "low",
            json!([{"to": [{"operation": {"methods": ["GET"], "paths": ["/a"]}}]}]),
        ),
    ];
    let set = compile(Compat::Secure, &specs);
    let request = get("/b");
    let explained = explain(&request.facts(), &set);
    assert_eq!(explained.policy.as_ref(), Some(&specs[1].id));
    let near = explained.near_miss.unwrap();
    assert_eq!((&near.policy, near.rule), (&specs[1].id, 0));
    assert_eq!(near.failed, ["paths: `/b` is not among `/a`"]);
    let last = explained.steps.last().unwrap();
    assert_eq!((&last.action, last.matched), (&Action::Ceiling, false));
}

proptest! {
    /// A ceiling never admits what was refused without it, and what it admits one of its rules matches.
    #[test]
    fn a_ceiling_only_takes_away(
        allowed in prop::collection::vec(prop::sample::select(vec!["/a", "/a*", "/b", "*"]), 0..3),
        bound in prop::collection::vec(prop::sample::select(vec!["/a", "/a/*", "/b*", "*"]), 1..3),
        path in prop::sample::select(vec!["/", "/a", "/a/b", "/ab", "/b", "/c"]),
        secure in any::<bool>(),
    ) {
        let compat = if secure { Compat::Secure } else { Compat::Istio };
        let allow = policy("ALLOW", operation("paths", &allowed));
        let low = ceiling("low", operation("paths", &bound));
        let request = get(path);
        let without = authorize(&request.facts(), &compile(compat, &[allow.clone()])).is_ok();
        let with = authorize(&request.facts(), &compile(compat, &[allow, low])).is_ok();
        let within = policy("ALLOW", operation("paths", &bound));
        let within = authorize(&request.facts(), &compile(compat, &[within])).is_ok();
        prop_assert_eq!(with, without && within);
    }
}

#[test]
fn a_set_that_is_made_of_another_keeps_and_changes_its_ceilings() {
    let all = policy("ALLOW", json!([{}]));
    let other = named("other", "DENY", operation("paths", &["/never"]));
    let low = ceiling("low", operation("paths", &["/a"]));
    let high = ceiling("low", operation("paths", &["/b"]));
    for compat in BOTH {
        let context = policy::Context {
            compat,
            ..policy::Context::default()
        };
        let plain = policy::path::Dialects::default();
        let before = compile(compat, &[all.clone(), low.clone()]);
        let decided = |specs: &[Arc<PolicySpec>], path: &str| {
            let set = before.update(specs, &[], &context, &plain);
            authorize(&get(path).facts(), &set).is_ok()
        };
        let kept = [all.clone(), other.clone(), low.clone()];
        assert!(decided(&kept, "/a") && !decided(&kept, "/b"));
        let changed = [all.clone(), high.clone()];
        assert!(!decided(&changed, "/a") && decided(&changed, "/b"));
        assert!(decided(&[all.clone()], "/c"));
    }
}
