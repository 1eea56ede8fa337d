//! Guardrails: what tenants cannot weaken (P18, P19, R44).

use policy::Action;

use super::*;

const TENANT: &str = "namespaces: [\"team-*\"], notNamespaces: [team-ops]";

impl Scene {
    fn guardrail(self, name: &str, spec: &str) -> Self {
        let rest = format!("spec: {{{spec}}}");
        self.object("Guardrail", name, &rest)
    }
}

fn selected(compiled: &Compiled, pod: &str) -> Vec<String> {
    let inbound = compiled.workload(pod).inbound.unwrap();
    inbound.policies.iter().map(ToString::to_string).collect()
}

#[test]
fn it_holds_where_it_says_and_nowhere_else() {
    let compiled = istio()
        .guardrail(
            "istio-system/base",
            &format!("{TENANT}, deny: [{{}}], ceiling: [{{}}]"),
        )
        .pod("team-a/a", "a")
        .pod("team-ops/ops", "ops")
        .pod("shop/web", "web")
        .compile();
    let both = [
        "istio-system/guardrail:base:ceiling",
        "istio-system/guardrail:base:deny",
    ];
    assert_eq!(selected(&compiled, "a"), both);
    assert!(selected(&compiled, "ops").is_empty() && selected(&compiled, "web").is_empty());
    for (name, action) in [("ceiling", Action::Ceiling), ("deny", Action::Deny)] {
        let id = policy::PolicyId {
            namespace: "istio-system".to_owned(),
            name: format!("guardrail:base:{name}"),
        };
        let found = compiled.nodes["node-0"].get(&ResourceName::policy(&id)).unwrap();
        match found.as_ref() {
            Resource::Policy(spec) => assert_eq!((&spec.action, spec.rules.len()), (&action, 1)),
            other => panic!("{other:?}"),
        }
    }
    let effect = compiled.effect("Guardrail/istio-system/base");
    assert_eq!(
        (effect.in_force, effect.targets.as_slice()),
        (true, ["team-a/a".to_owned()].as_slice())
    );
}

#[test]
fn a_tenants_own_has_no_effect_and_is_told() {
    let compiled = istio()
        .guardrail("team-a/base", "ceiling: [{}]")
        .pod("team-a/a", "a")
        .compile();
    assert!(selected(&compiled, "a").is_empty());
    assert!(!compiled.effect("Guardrail/team-a/base").in_force);
    told(&compiled, "MW0501", "in the root namespace `istio-system` alone");
}

#[test]
fn p_19_its_floor_holds_in_both_profiles() {
    for (scene, free) in [(istio(), "DISABLE"), (secure(), "DISABLE")] {
        let compiled = scene
            .guardrail("istio-system/base", &format!("{TENANT}, mtls: {{mode: STRICT}}"))
            .peer("team-a/weak", "mtls: {mode: DISABLE}")
            .peer("shop/weak", "mtls: {mode: DISABLE}")
            .pod("team-a/a", "a")
            .pod("team-b/b", "b")
            .pod("shop/web", "web")
            .compile();
        assert_eq!(compiled.mtls("a"), "STRICT");
        assert_eq!(compiled.mtls("b"), "STRICT");
        assert_eq!(compiled.mtls("web"), free);
        let by = |name: &str| compiled.workload(name).inbound.unwrap().mtls_decided_by;
        assert_eq!(by("a").as_deref(), Some("Guardrail/istio-system/base"));
        assert_eq!(by("web").as_deref(), Some("shop/weak"));
        told(
            &compiled,
            "MW0503",
            "DISABLE would weaken STRICT, which Guardrail `istio-system/base`",
        );
        let why = &compiled.effect("PeerAuthentication/team-a/weak").why;
        assert_eq!(
            why,
            &["DISABLE held to the floor STRICT of Guardrail `istio-system/base`"]
        );
        assert_eq!(
            compiled.effect("Guardrail/istio-system/base").targets,
            ["team-a/a", "team-b/b"]
        );
    }
}

#[test]
fn the_highest_of_several_floors_holds_port_by_port() {
    let compiled = istio()
        .guardrail("istio-system/low", "mtls: {mode: PERMISSIVE}")
        .guardrail("istio-system/high", &format!("{TENANT}, mtls: {{mode: STRICT}}"))
        .peer(
            "team-a/ports",
            "selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: PERMISSIVE}}",
        )
        .peer("shop/weak", "mtls: {mode: DISABLE}")
        .pod("team-a/a", "a")
        .pod("shop/web", "web")
        .compile();
    assert_eq!(compiled.mtls("a"), "STRICT");
    assert_eq!(compiled.mtls("web"), "PERMISSIVE");
}

#[test]
fn p_18_a_policy_beyond_the_ceiling_is_told_with_a_request_that_it_loses() {
    let ceiling = "ceiling: [{from: [{source: {namespaces: [team-a, gateway]}}], to: [{operation: {methods: [GET, POST]}}]}]";
    let clamped = |rules: &str| {
        let compiled = istio()
            .guardrail("istio-system/base", &format!("{TENANT}, {ceiling}"))
            .allow("team-a/own", &format!("rules: [{rules}]"))
            .allow("shop/free", "rules: [{}]")
            .pod("team-a/a", "a")
            .compile();
        assert!(compiled.effect("AuthorizationPolicy/shop/free").why.is_empty());
        compiled.effect("AuthorizationPolicy/team-a/own").why.join("; ")
    };
    for (rules, example) in [
        ("{}", "`GET /` to port 8080 from default/default is refused"),
        (
            "{from: [{source: {namespaces: [team-a]}}]}",
            "`DELETE /` to port 8080 from team-a/default is refused",
        ),
        (
            "{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}], to: [{operation: {methods: [GET]}}]}",
            "`GET /` to port 8080 from shop/web is refused",
        ),
        (
            "{from: [{source: {notNamespaces: [gateway]}}], to: [{operation: {methods: [GET], paths: [\"/api/*\"]}}]}",
            "`GET /api/` to port 8080 from default/default is refused",
        ),
    ] {
        let why = clamped(rules);
        assert!(why.ends_with(example), "{rules}: {why}");
    }
    let within = "{from: [{source: {namespaces: [gateway]}}], to: [{operation: {methods: [GET], paths: [\"/api/*\"]}}]}";
    assert_eq!(clamped(within), "");
}

#[test]
fn one_that_is_invalid_denies_everything_that_it_could_mean() {
    let world = istio()
        .guardrail("istio-system/base", "ceiling: []")
        .pod("team-a/a", "a")
        .world();
    let compiled = compile(&world);
    assert_eq!(compiled.mtls("a"), "STRICT");
    assert_eq!(selected(&compiled, "a"), ["istio-system/guardrail:base:deny"]);
    let why = compiled.effect("Guardrail/istio-system/base").why.join("; ");
    assert!(
        why.contains("invalid, therefore everything is denied where it holds"),
        "{why}"
    );
}
