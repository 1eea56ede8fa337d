//! How rules and policies combine (semantics 2.1, 2.3, 2.12 to 2.15).

use model::Reason;
use policy::{
    Compat, Context, ExternalAnswer, Invalid, PolicySet, PolicySpec, Shadow, ShadowVerdict, authorize,
    authorize_with, explain,
};
use serde_json::{Value, json};
use std::sync::Arc;

use super::{admitted, compile, decide, dry, get, id, matches, named, operation, peer, policy, source, when};
use testkit::decisions::{Request, policy as parse};

fn reason(specs: &[Arc<PolicySpec>], request: &Request) -> Option<Reason> {
    decide(Compat::Istio, specs, request).err().map(|d| d.reason)
}

#[test]
fn az_001_to_007_how_many_rules() {
    let request = Request::default();
    assert_eq!(reason(&[], &request), None, "AZ-001");
    let nothing = policy("ALLOW", json!([]));
    assert_eq!(
        reason(&[nothing.clone()], &request),
        Some(Reason::DenyNoAllow),
        "AZ-002"
    );
    let everything = policy("ALLOW", json!([{}]));
    assert_eq!(reason(&[everything.clone()], &request), None, "AZ-003");
    assert_eq!(
        reason(&[policy("DENY", json!([{}]))], &request),
        Some(Reason::DenyExplicit),
        "AZ-004"
    );
    assert_eq!(reason(&[policy("DENY", json!([]))], &request), None, "AZ-005");
    assert_eq!(reason(&[policy("CUSTOM", json!([]))], &request), None, "AZ-006");
    let audit = decide(Compat::Istio, &[policy("AUDIT", json!([]))], &request).unwrap();
    assert!(!audit.audit(), "AZ-007");
}

#[test]
fn az_010_to_020_algebra() {
    let id = peer("cluster.local/ns/n/sa/a");
    let other = peer("cluster.local/ns/m/sa/a");
    let from = |list: Value| json!([{"from": list}]);
    let to = |list: Value| json!([{"to": list}]);
    assert!(matches(&from(json!([{}])), &Request::default()), "AZ-010");
    assert!(
        matches(&from(json!([{"source": {}}])), &Request::default()),
        "AZ-011"
    );
    assert!(
        matches(&to(json!([{"operation": {}}])), &Request::default()),
        "AZ-012"
    );
    let either = from(json!([{"source": {"namespaces": ["n"]}}, {"source": {"namespaces": ["m"]}}]));
    assert!(matches(&either, &id) && matches(&either, &other), "AZ-013");
    assert!(!matches(&either, &peer("cluster.local/ns/x/sa/a")), "AZ-013");
    let both = from(json!([{"source": {"principals": ["*/sa/a"], "namespaces": ["n"]}}]));
    assert!(matches(&both, &id) && !matches(&both, &other), "AZ-014");
    let host = |h: &str, path: &str| Request {
        authority: h.to_owned(),
        ..get(path)
    };
    let or = to(json!([{"operation": {"hosts": ["h"]}}, {"operation": {"paths": ["/p"]}}]));
    let and = to(json!([{"operation": {"hosts": ["h"], "paths": ["/p"]}}]));
    for (h, path, any, all) in [
        ("h", "/p", true, true),
        ("h", "/q", true, false),
        ("g", "/p", true, false),
        ("g", "/q", false, false),
    ] {
        assert_eq!(matches(&or, &host(h, path)), any, "AZ-015 {h}{path}");
        assert_eq!(matches(&and, &host(h, path)), all, "AZ-016 {h}{path}");
    }
    let but = to(json!([{"operation": {"paths": ["/a", "/b"], "notPaths": ["/b"]}}]));
    assert!(matches(&but, &get("/a")) && !matches(&but, &get("/b")), "AZ-017");
    let two = json!([{"when": [{"key": "destination.port", "values": ["80"]}, {"key": "source.namespace", "values": ["n"]}]}]);
    assert!(matches(&two, &id) && !matches(&two, &other), "AZ-018");
    let not = json!([{"when": [{"key": "source.namespace", "values": ["n", "m"], "notValues": ["m"]}]}]);
    assert!(matches(&not, &id) && !matches(&not, &other), "AZ-019");
    assert!(
        matches(
            &json!([{"when": [{"key": "source.namespace"}]}]),
            &Request::default()
        ),
        "AZ-020"
    );
}

#[test]
fn az_021_to_023_unknown_keys_as_upstream() {
    let rules = || when("source.color", &["red"]);
    assert_eq!(
        reason(&[policy("DENY", rules())], &Request::default()),
        None,
        "AZ-021, AZ-023"
    );
    let only = [policy("ALLOW", rules())];
    assert_eq!(
        reason(&only, &Request::default()),
        Some(Reason::DenyNoAllow),
        "AZ-022"
    );
    let beside = json!([{"when": [{"key": "source.color", "values": ["red"]}]}, {"to": [{"operation": {"ports": ["80"]}}]}]);
    assert_eq!(
        reason(&[policy("DENY", beside)], &Request::default()),
        Some(Reason::DenyExplicit)
    );
}

#[test]
fn az_024_025_baselines() {
    let get = policy("ALLOW", operation("methods", &["GET"]));
    let union = [named("root", "ALLOW", source("principals", &["*"])), get.clone()];
    assert!(admitted(Compat::Istio, &union, &Request::default()), "AZ-024");
    let baseline = [
        policy("DENY", source("notPrincipals", &["*"])),
        policy("ALLOW", json!([{}])),
        get,
    ];
    assert!(!admitted(Compat::Istio, &baseline, &Request::default()), "AZ-025");
    assert!(
        admitted(Compat::Istio, &baseline, &peer("td/ns/a/sa/b")),
        "AZ-025"
    );
}

struct Answers(ExternalAnswer);

impl policy::External for Answers {
    fn answer(&self, provider: &str) -> ExternalAnswer {
        if provider == "opa" {
            self.0
        } else {
            ExternalAnswer::Unasked
        }
    }
}

#[test]
fn az_026_to_029_custom_first() {
    let custom = || policy("CUSTOM", json!([{}]));
    let ask = |specs: &[Arc<PolicySpec>], answer: ExternalAnswer| {
        let request = Request::default();
        let set = compile(Compat::Istio, specs);
        let decision = authorize_with(&request.facts(), &set, &Answers(answer));
        let explained = policy::explain_with(&request.facts(), &set, &Answers(answer));
        assert_eq!(explained.denied, decision.as_ref().err().map(|d| d.reason));
        decision.err().map(|d| d.reason)
    };
    let deny = || policy("DENY", json!([{}]));
    let yes = || policy("ALLOW", json!([{}]));
    let no = || policy("ALLOW", operation("paths", &["/x"]));
    assert_eq!(
        ask(&[custom(), deny()], ExternalAnswer::Allow),
        Some(Reason::DenyExplicit),
        "AZ-026"
    );
    assert_eq!(
        ask(&[custom(), yes()], ExternalAnswer::Deny),
        Some(Reason::DenyCustom),
        "AZ-027"
    );
    assert_eq!(
        ask(&[custom(), no()], ExternalAnswer::Allow),
        Some(Reason::DenyNoAllow),
        "AZ-028"
    );
    assert_eq!(
        ask(&[deny(), yes()], ExternalAnswer::Allow),
        Some(Reason::DenyExplicit),
        "AZ-029"
    );
    assert_eq!(ask(&[custom(), yes()], ExternalAnswer::Allow), None);
    assert_eq!(
        ask(&[custom()], ExternalAnswer::Unasked),
        Some(Reason::DenyCustom)
    );
    let elsewhere = policy("CUSTOM", operation("paths", &["/x"]));
    assert_eq!(ask(&[elsewhere], ExternalAnswer::Deny), None);
}

#[test]
fn r16_a_provider_is_asked_by_its_whole_name() {
    let mut other = PolicySpec::clone(&named("other", "CUSTOM", operation("paths", &["/x"])));
    other.action = policy::Action::Custom {
        provider: "opa-2".to_owned(),
    };
    let set = compile(Compat::Istio, &[policy("CUSTOM", json!([{}])), Arc::new(other)]);
    let allow = Answers(ExternalAnswer::Allow);
    assert!(authorize_with(&Request::default().facts(), &set, &allow).is_ok());
    assert!(authorize_with(&get("/x").facts(), &set, &allow).is_err());
}

#[test]
fn s2_1_who_is_asked_is_whoever_has_a_rule_that_matches() {
    let by = |provider: &str, name: &str, rules| {
        let mut spec = PolicySpec::clone(&named(name, "CUSTOM", rules));
        spec.action = policy::Action::Custom {
            provider: provider.to_owned(),
        };
        Arc::new(spec)
    };
    let specs = [
        by("foo", "a", operation("paths", &["/x*"])),
        by("foo", "b", json!([{}])),
        by("foo-bar", "c", operation("paths", &["/x"])),
        by("late", "d", operation("paths", &["/admin"])),
        policy("DENY", json!([{}])),
    ];
    let asked = |compat, path: &str| {
        let set = compile(compat, &specs);
        let names = policy::providers(&get(path).facts(), &set);
        names.into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(asked(Compat::Istio, "/y"), "foo", "R16");
    assert_eq!(asked(Compat::Istio, "/x"), "foo foo-bar");
    // A backend may take it for another path.
    assert_eq!(asked(Compat::Istio, "/y%2f..%2fadmin"), "foo");
    assert_eq!(asked(Compat::Secure, "/y%2f..%2fadmin"), "foo late");
    // Where everything is refused nobody is asked.
    let missing = PolicySet::compile(&specs, &[id("ns", "gone")], &Context::default());
    assert!(policy::providers(&get("/x").facts(), &missing).is_empty());
}

#[test]
fn az_067_a_connection_is_asked_about_whatever_the_request_fields_say() {
    let set = compile(Compat::Istio, &[policy("CUSTOM", operation("paths", &["/x"]))]);
    let request = get("/y");
    let mut facts = request.facts();
    assert!(policy::providers(&facts, &set).is_empty());
    facts.http = None;
    assert_eq!(policy::providers(&facts, &set).len(), 1);
}

#[test]
fn s2_12_what_an_authorizer_said_is_told_apart() {
    let set = compile(Compat::Istio, &[policy("CUSTOM", json!([{}]))]);
    for (answer, detail) in [
        (ExternalAnswer::Deny, "ext_authz_denied"),
        (ExternalAnswer::Failed, "ext_authz_error"),
        (
            ExternalAnswer::Unasked,
            "rbac_access_denied_matched_policy[istio-ext-authz-opa-ns[ns]-policy[custom]-rule[0]-deny-due-to-bad-CUSTOM-action]",
        ),
    ] {
        let denial = authorize_with(&Request::default().facts(), &set, &Answers(answer)).unwrap_err();
        assert_eq!(
            (denial.detail().as_str(), denial.external()),
            (detail, Some(answer))
        );
    }
}

#[test]
fn s2_12_details() {
    let detail = |specs: &[Arc<PolicySpec>]| {
        decide(Compat::Istio, specs, &Request::default())
            .unwrap_err()
            .detail()
    };
    let deny = named(
        "bar",
        "DENY",
        json!([{"to": [{"operation": {"ports": ["1"]}}]}, {}]),
    );
    assert_eq!(
        detail(&[deny]),
        "rbac_access_denied_matched_policy[ns[ns]-policy[bar]-rule[1]]"
    );
    assert_eq!(
        detail(&[policy("ALLOW", json!([]))]),
        "rbac_access_denied_matched_policy[none]"
    );
    assert_eq!(
        detail(&[named("c", "CUSTOM", json!([{}]))]),
        "rbac_access_denied_matched_policy[istio-ext-authz-opa-ns[ns]-policy[c]-rule[0]-deny-due-to-bad-CUSTOM-action]"
    );
}

#[test]
fn s2_14_audit_marks_and_never_decides() {
    let audit = policy("AUDIT", operation("paths", &["/a"]));
    assert!(
        decide(Compat::Istio, &[audit.clone()], &get("/a"))
            .unwrap()
            .audit()
    );
    assert!(
        !decide(Compat::Istio, &[audit.clone()], &get("/b"))
            .unwrap()
            .audit()
    );
    let denied = decide(
        Compat::Istio,
        &[audit.clone(), policy("DENY", json!([{}]))],
        &get("/a"),
    )
    .unwrap_err();
    assert!(denied.audit);
    assert!(!decide(Compat::Istio, &[dry(&audit)], &get("/a")).unwrap().audit());
}

#[test]
fn s2_14_dry_runs_only_cast_a_shadow() {
    let allow = dry(&policy("ALLOW", operation("paths", &["/a"])));
    let deny = dry(&policy("DENY", operation("paths", &["/a"])));
    let shadow =
        |specs: &[Arc<PolicySpec>], path: &str| decide(Compat::Istio, specs, &get(path)).unwrap().shadow();
    let (yes, no) = (Some(ShadowVerdict::Allowed), Some(ShadowVerdict::Denied));
    assert_eq!(shadow(&[], "/a"), Shadow::default());
    assert_eq!(
        shadow(&[allow.clone()], "/a"),
        Shadow {
            deny: None,
            allow: yes
        }
    );
    assert_eq!(
        shadow(&[allow.clone()], "/b"),
        Shadow {
            deny: None,
            allow: no
        }
    );
    assert_eq!(
        shadow(&[allow.clone(), deny.clone()], "/a"),
        Shadow { deny: no, allow: yes }
    );
    assert_eq!(shadow(&[allow, deny], "/b"), Shadow { deny: yes, allow: no });
}

#[test]
fn p3_deny_by_default() {
    let context = Context {
        deny_by_default: true,
        ..Context::default()
    };
    let ask = |specs: &[Arc<PolicySpec>]| {
        let set = PolicySet::compile(specs, &[], &context);
        authorize(&Request::default().facts(), &set)
            .err()
            .map(|d| d.reason)
    };
    assert_eq!(ask(&[]), Some(Reason::DenyDefault));
    assert_eq!(ask(&[policy("DENY", json!([]))]), Some(Reason::DenyDefault));
    assert_eq!(
        ask(&[dry(&policy("ALLOW", json!([{}])))]),
        Some(Reason::DenyDefault)
    );
    assert_eq!(ask(&[policy("ALLOW", json!([{}]))]), None);
    assert_eq!(ask(&[policy("ALLOW", json!([]))]), Some(Reason::DenyNoAllow));
    let unknown = authorize(&Request::default().facts(), &PolicySet::default());
    assert_eq!(unknown.unwrap_err().reason, Reason::DenyDefault);
}

#[test]
fn p48_r34_invalid_and_missing_policies_deny() {
    for compat in [Compat::Secure, Compat::Istio] {
        let context = Context {
            compat,
            ..Context::default()
        };
        let mut invalid = PolicySpec::clone(&policy("ALLOW", json!([{}])));
        invalid.invalid = Some(Invalid {
            reason: Reason::DenyPolicyInvalid,
            why: "`x` is no port".to_owned(),
        });
        let set = PolicySet::compile(&[Arc::new(invalid)], &[], &context);
        let denial = authorize(&Request::default().facts(), &set).unwrap_err();
        assert_eq!(denial.reason, Reason::DenyPolicyInvalid);
        assert_eq!(denial.policy(), Some(&id("ns", "allow")));
        assert_eq!(
            set.defects().collect::<Vec<_>>(),
            [(&id("ns", "allow"), "`x` is no port")]
        );
        let set = PolicySet::compile(&[policy("ALLOW", json!([{}]))], &[id("ns", "late")], &context);
        let denial = authorize(&Request::default().facts(), &set).unwrap_err();
        assert_eq!(
            (denial.reason, denial.policy(), denial.spec()),
            (Reason::DenyPolicyMissing, Some(&id("ns", "late")), None)
        );
        assert_eq!(
            explain(&Request::default().facts(), &set).policy,
            Some(id("ns", "late"))
        );
        assert!(!set.is_empty());
    }
}

#[test]
fn denials_name_the_first_policy_by_name() {
    let specs = [
        named("b", "DENY", json!([{}])),
        named("a", "DENY", operation("paths", &["/*"])),
        named("c", "DENY", source("ipBlocks", &["127.0.0.1"])),
    ];
    let denial = decide(Compat::Istio, &specs, &Request::default()).unwrap_err();
    assert_eq!(denial.policy(), Some(&id("ns", "a")));
}

#[test]
fn td_04_and_14_aliases_decide() {
    let context = Context {
        trust_domain: "td2".parse().unwrap(),
        aliases: vec!["td1".parse().unwrap()],
        compat: Compat::Istio,
        ..Context::default()
    };
    let ask = |value: &str, who: &str| {
        let rules = source("principals", &[value]);
        let set = PolicySet::compile(&[policy("ALLOW", rules)], &[], &context);
        authorize(&peer(who).facts(), &set).is_ok()
    };
    for who in ["td1/ns/a/sa/b", "td2/ns/a/sa/b"] {
        assert!(
            ask("td1/ns/a/sa/b", who) && ask("td2/ns/a/sa/b", who) && ask("cluster.local/ns/a/sa/b", who),
            "{who}"
        );
    }
    assert!(
        !ask("cluster.local/ns/a/sa/b", "cluster.local/ns/a/sa/b"),
        "TD-14"
    );
    assert!(!ask("td1/ns/a/sa/b", "td3/ns/a/sa/b"));
    let set = PolicySet::compile(&[policy("ALLOW", source("namespaces", &["a"]))], &[], &context);
    assert!(authorize(&peer("td3/ns/a/sa/b").facts(), &set).is_ok(), "TD-15");
    let set = PolicySet::compile(
        &[policy("ALLOW", source("trustDomains", &["td1"]))],
        &[],
        &context,
    );
    assert!(
        authorize(&peer("td2/ns/a/sa/b").facts(), &set).is_ok(),
        "2.15 trustDomains"
    );
}

#[test]
fn explanations_name_the_field() {
    let allow = policy(
        "ALLOW",
        json!([
            {"from": [{"source": {"principals": ["cluster.local/ns/x/sa/y"]}}], "to": [{"operation": {"methods": ["POST"], "paths": ["/z"]}}]},
            {"from": [{"source": {"principals": ["cluster.local/ns/a/sa/b"], "notIpBlocks": ["127.0.0.0/8"]}}]},
        ]),
    );
    let set = compile(
        Compat::Istio,
        &[
            allow,
            policy("DENY", when("request.headers[authorization]", &["x"])),
        ],
    );
    let mut request = peer("cluster.local/ns/a/sa/b");
    request
        .headers
        .0
        .push(("Authorization".to_owned(), "Bearer secret".to_owned()));
    let explained = explain(&request.facts(), &set);
    let why: Vec<&str> = explained.steps.iter().map(|step| step.why.as_str()).collect();
    assert_eq!(
        why,
        [
            "request.headers[authorization]: the header's value is not among `x`",
            "principals: `cluster.local/ns/a/sa/b` is not among `cluster.local/ns/x/sa/y`",
            "notIpBlocks: `127.0.0.1` is among `127.0.0.0/8`",
        ]
    );
    let near = explained.near_miss.unwrap();
    assert_eq!(
        (near.rule, near.failed.as_slice()),
        (
            1,
            ["notIpBlocks: `127.0.0.1` is among `127.0.0.0/8`".to_owned()].as_slice()
        )
    );
    assert_eq!(explained.readings, ["/"]);
}

/// Of a rule that matches, every field that holds; each alternative by itself.
#[test]
fn explanations_name_what_matched() {
    let why = |specs: &[Arc<PolicySpec>], request: &Request| {
        let explained = explain(&request.facts(), &compile(Compat::Istio, specs));
        let steps = explained.steps.iter();
        steps
            .map(|step| (step.matched, step.why.clone()))
            .collect::<Vec<_>>()
    };
    let deny = policy(
        "DENY",
        json!([{
            "from": [{"source": {"namespaces": ["x"]}}, {"source": {"serviceAccounts": ["b"], "notNamespaces": ["z"]}}],
            "to": [{"operation": {"paths": ["/a*"], "notMethods": ["POST"]}}],
            "when": [{"key": "request.headers[x]", "notValues": ["y"]}],
        }]),
    );
    let request = Request {
        path: "/ab?c".to_owned(),
        ..peer("cluster.local/ns/ns/sa/b")
    };
    let http = [
        "notNamespaces: `ns` of trust domain `cluster.local` is not among `z`",
        "serviceAccounts: `ns/b` of trust domain `cluster.local` is among `ns/b`",
        "notMethods: `GET` is not among `POST`",
        "paths: `/ab` is among `/a*`",
        "request.headers[x] notValues: the header is absent, and so not among `y`",
    ];
    assert_eq!(why(&[deny.clone()], &request), [(true, http.join("; "))]);
    let tcp = Request {
        http: false,
        ..request
    };
    let silent = "the connection is not HTTP, so that the fields of requests count as absent";
    assert_eq!(
        why(&[deny], &tcp),
        [(true, [silent, http[0], http[1]].join("; "))]
    );
    let all = policy("ALLOW", json!([{}]));
    assert_eq!(
        why(&[all], &tcp),
        [(true, "the rule has no fields and matches everything".to_owned())]
    );
    let methods = policy("DENY", operation("methods", &["POST"]));
    assert_eq!(
        why(&[methods], &tcp),
        [(true, format!("{silent}; nothing else is asked for"))]
    );
    let secret = policy("DENY", when("request.headers[cookie]", &["s=*"]));
    let cookie = Request {
        headers: testkit::decisions::Headers(vec![("cookie".to_owned(), "s=secret".to_owned())]),
        ..Request::default()
    };
    assert_eq!(
        why(&[secret], &cookie),
        [(
            true,
            "request.headers[cookie]: the header's value is among `s=*`".to_owned()
        )]
    );
}

/// A set with other settings, or of many changes, is compiled anew; one without any is the same.
#[test]
fn updates_that_cannot_be_patched() {
    let all: Vec<_> = (0..100)
        .map(|i| named(&format!("p{i}"), "DENY", operation("ports", &[&i.to_string()])))
        .collect();
    let dialects = policy::path::Dialects::default();
    let open = Context {
        compat: Compat::Istio,
        ..Context::default()
    };
    let closed = Context {
        deny_by_default: true,
        ..open.clone()
    };
    let denied = |set: &PolicySet, port: u16| {
        let request = Request {
            port,
            ..Request::default()
        };
        authorize(&request.facts(), set).err().map(|d| d.reason)
    };
    let set = PolicySet::compile(&all, &[], &open);
    let same = set.update(&all, &[], &open, &dialects);
    assert_eq!(
        (denied(&same, 7), denied(&same, 200)),
        (Some(Reason::DenyExplicit), None)
    );
    let set = set.update(&all, &[], &closed, &dialects);
    assert_eq!(denied(&set, 200), Some(Reason::DenyDefault));
    let set = set.update(&all[50..], &[], &open, &dialects);
    assert_eq!(
        (denied(&set, 7), denied(&set, 77)),
        (None, Some(Reason::DenyExplicit))
    );
    let mut twice = all[90..].to_vec();
    twice.push(Arc::clone(&all[95]));
    let set = set.update(&twice, &[], &open, &dialects);
    assert_eq!(
        (denied(&set, 77), denied(&set, 95)),
        (None, Some(Reason::DenyExplicit))
    );
    // One at a time, round and round: patched and compiled anew by turns.
    let mut set = set;
    let mut now = all.clone();
    for round in 0..300_usize {
        let i = round % 100;
        now[i] = named(
            &format!("p{i}"),
            "DENY",
            operation("ports", &[&(1000 + round).to_string()]),
        );
        set = set.update(&now, &[], &open, &dialects);
        let port = u16::try_from(1000 + round).unwrap();
        assert_eq!(denied(&set, port), Some(Reason::DenyExplicit), "{round}");
        assert_eq!(denied(&set, u16::try_from(i).unwrap()), None, "{round}");
    }
}

#[test]
fn needs_http_where_a_request_is_asked_for() {
    let needs = |rules: Value| compile(Compat::Istio, &[policy("DENY", rules)]).needs_http();
    assert!(!needs(source("principals", &["*"])));
    assert!(!needs(operation("ports", &["80"])));
    for rules in [
        operation("methods", &["GET"]),
        operation("notHosts", &["a"]),
        operation("paths", &["/"]),
        source("requestPrincipals", &["*"]),
        when("request.headers[a]", &["b"]),
        when("request.auth.claims[a]", &["b"]),
        when("request.auth.principal", &["b"]),
    ] {
        assert!(needs(rules.clone()), "{rules}");
    }
}

#[test]
fn parse_reads_dry_run() {
    let object = json!({"metadata": {"name": "a", "namespace": "n", "annotations": {"istio.io/dry-run": "true"}}, "spec": {}});
    assert!(parse(&object).dry_run);
}
