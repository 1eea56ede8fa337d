//! AuthorizationPolicy: which select a workload, and their way to the proxy (semantics 2.2).

use policy::{Action, PolicyId, PolicySpec};

use super::*;

fn selected(compiled: &Compiled, pod: &str) -> Vec<String> {
    let inbound = compiled.workload(pod).inbound.unwrap();
    inbound.policies.iter().map(ToString::to_string).collect()
}

fn spec(compiled: &Compiled, namespace: &str, name: &str) -> PolicySpec {
    let id = PolicyId {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    match compiled.nodes["node-0"]
        .get(&ResourceName::policy(&id))
        .unwrap()
        .as_ref()
    {
        Resource::Policy(spec) => spec.as_ref().clone(),
        other => panic!("{other:?}"),
    }
}

fn view(compiled: &Compiled, pod: &str) -> String {
    let view = compiled.pods.iter().find(|view| view.name == pod).unwrap();
    view.policies.clone().unwrap()
}

const WEB: &str = "selector: {matchLabels: {app: web}}";

#[test]
fn s2_2_root_and_own_namespace_by_selector() {
    let compiled = istio()
        .allow("istio-system/all", "rules: [{}]")
        .allow("istio-system/web-everywhere", &format!("{WEB}, rules: [{{}}]"))
        .allow("n/own", "rules: [{}]")
        .allow("n/web", &format!("{WEB}, rules: [{{}}]"))
        .allow("other/foreign", "rules: [{}]")
        .pod("n/web", "web")
        .pod("n/db", "db")
        .pod("istio-system/sys", "sys")
        .compile();
    assert_eq!(
        selected(&compiled, "web"),
        [
            "istio-system/all",
            "istio-system/web-everywhere",
            "n/own",
            "n/web"
        ]
    );
    assert_eq!(selected(&compiled, "db"), ["istio-system/all", "n/own"]);
    assert_eq!(selected(&compiled, "sys"), ["istio-system/all"]);
    let effect = compiled.effect("AuthorizationPolicy/istio-system/web-everywhere");
    assert_eq!(
        (effect.targets.as_slice(), effect.nodes.as_slice()),
        (["n/web".to_owned()].as_slice(), ["node-0".to_owned()].as_slice())
    );
}

/// Policies of two namespaces and the root, for one workload or all: each path is open where its policy selects (2.18).
#[test]
fn az_118_to_123_each_path_only_where_its_policy_selects() {
    let select = |app: &str, path: &str| {
        let selector = match app {
            "" => String::new(),
            app => format!("selector: {{matchLabels: {{app: {app}}}}}, "),
        };
        format!("{selector}rules: [{{to: [{{operation: {{paths: [{path}]}}}}]}}]")
    };
    let compiled = istio()
        .allow("ns1/b", &select("b", "/ns1-b"))
        .allow("ns1/all", &select("", "/ns1-all"))
        .allow("ns2/c", &select("c", "/ns2-c"))
        .allow("ns2/all", &select("", "/ns2-all"))
        .allow("istio-system/b", &select("b", "/root-b"))
        .allow("istio-system/all", &select("", "/root-all"))
        .pod("ns1/b1", "b")
        .pod("ns1/c1", "c")
        .pod("ns2/b2", "b")
        .pod("ns2/c2", "c")
        .compile();
    let index = snapshot::Index::build(&compiled.nodes["node-0"]).unwrap();
    let open = |pod: &str, path: &str| {
        let set = index.policies(&WorkloadUid::new(&format!("uid-{pod}"))).unwrap();
        let facts = policy::Facts {
            peer: None,
            source_ip: IpAddr::from([127, 0, 0, 1]),
            remote_ip: IpAddr::from([127, 0, 0, 1]),
            destination_ip: IpAddr::from([127, 0, 0, 1]),
            destination_port: 80,
            sni: None,
            http: Some(policy::HttpFacts {
                method: "GET",
                authority: "a",
                path,
                headers: &NoHeaders,
                claims: None,
            }),
        };
        policy::authorize(&facts, set).is_ok()
    };
    // For b1, c1, b2, c2.
    let rows = [
        ("AZ-118", "/ns1-b", [true, false, false, false]),
        ("AZ-119", "/ns1-all", [true, true, false, false]),
        ("AZ-120", "/ns2-c", [false, false, false, true]),
        ("AZ-121", "/ns2-all", [false, false, true, true]),
        ("AZ-122", "/root-b", [true, false, true, false]),
        ("AZ-123", "/root-all", [true; 4]),
    ];
    for (row, path, expect) in rows {
        assert_eq!(
            ["b1", "c1", "b2", "c2"].map(|pod| open(pod, path)),
            expect,
            "{row} {path}"
        );
    }
}

struct NoHeaders;

impl policy::HeaderLookup for NoHeaders {
    fn any(&self, _: &str, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }
}

#[test]
fn s2_2_target_refs_are_ignored_and_told() {
    let compiled = istio()
        .allow(
            "n/gw",
            "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}], rules: [{}]",
        )
        .pod("n/web", "web")
        .compile();
    assert_eq!(selected(&compiled, "web"), Vec::<String>::new());
    told(&compiled, "MW0501", "accepted, not in force");
    assert!(!compiled.effect("AuthorizationPolicy/n/gw").in_force);
}

#[test]
fn values_keep_their_spelling_and_their_lines() {
    let compiled = istio()
        .allow(
            "n/p",
            "action: DENY, rules: [{from: [{source: {principals: [\"*/sa/X\"], notIpBlocks: [10.0.0.0/8]}}], \
             to: [{operation: {methods: [GET], notPaths: [/A*]}}], when: [{key: source.namespace, notValues: [b]}]}]",
        )
        .pod("n/web", "web")
        .compile();
    let spec = spec(&compiled, "n", "p");
    assert_eq!(spec.action, Action::Deny);
    let rule = &spec.rules[0];
    assert_eq!(rule.from[0].principals, ["*/sa/X"]);
    assert_eq!(rule.from[0].not_ip_blocks, ["10.0.0.0/8"]);
    assert_eq!(
        (rule.to[0].methods[0].as_str(), rule.to[0].not_paths[0].as_str()),
        ("GET", "/A*")
    );
    assert_eq!(
        (rule.when[0].key.as_str(), rule.when[0].not_values[0].as_str()),
        ("source.namespace", "b")
    );
    assert_eq!((spec.origin.file.as_str(), spec.origin.line), ("test.yaml", 2));
    assert!(rule.line > 0);
}

#[test]
fn every_field_of_a_source_and_an_operation_is_carried() {
    let source = "principals: [a], notPrincipals: [b], requestPrincipals: [c/c], notRequestPrincipals: [d/d], namespaces: [e], \
                  notNamespaces: [f], ipBlocks: [10.0.0.1], notIpBlocks: [10.0.0.2], remoteIpBlocks: [10.0.0.3], notRemoteIpBlocks: [10.0.0.4]";
    let operation = "hosts: [g], notHosts: [h], ports: [\"1\"], notPorts: [\"2\"], methods: [GET], notMethods: [PUT], paths: [/i], notPaths: [/j]";
    let compiled = istio()
        .allow(
            "n/p",
            &format!("rules: [{{from: [{{source: {{{source}}}}}], to: [{{operation: {{{operation}}}}}]}}]"),
        )
        .pod("n/web", "web")
        .compile();
    let spec = spec(&compiled, "n", "p");
    let json = |value: serde_json::Value| {
        value
            .as_object()
            .unwrap()
            .values()
            .filter(|v| !v.as_array().unwrap().is_empty())
            .count()
    };
    assert_eq!(json(serde_json::to_value(&spec.rules[0].from[0]).unwrap()), 10);
    assert_eq!(json(serde_json::to_value(&spec.rules[0].to[0]).unwrap()), 8);
    // R7: what upstream's ambient translation leaves out, and what may not stand beside principals.
    let source = "trustDomains: [a], notTrustDomains: [b], serviceAccounts: [c], notServiceAccounts: [d]";
    let compiled = istio()
        .allow("n/q", &format!("rules: [{{from: [{{source: {{{source}}}}}]}}]"))
        .pod("n/web", "web")
        .compile();
    let spec = self::spec(&compiled, "n", "q");
    assert_eq!(
        json(serde_json::to_value(&spec.rules[0].from[0]).unwrap()),
        4,
        "R7"
    );
}

#[test]
fn p48_an_invalid_policy_denies_what_it_targets() {
    let mut world = istio()
        .allow("n/p", &format!("{WEB}, rules: [{{}}]"))
        .pod("n/web", "web")
        .pod("n/db", "db")
        .world();
    let mut object = world.objects[0].as_ref().clone();
    object.invalid = Some("`port` is no port".to_owned());
    world.objects = vec![Arc::new(object)];
    let compiled = compile(&world);
    assert_eq!(selected(&compiled, "web"), ["n/p"]);
    assert_eq!(selected(&compiled, "db"), Vec::<String>::new());
    assert_eq!(
        spec(&compiled, "n", "p").invalid.unwrap().why,
        "`port` is no port"
    );
    assert_eq!(view(&compiled, "web"), "invalid: n/p");
}

#[test]
fn a_policy_that_can_never_match_is_invalid_under_secure_only() {
    let mut world = istio().allow("n/p", "rules: [{}]").pod("n/web", "web").world();
    let mut object = world.objects[0].as_ref().clone();
    object.never_matches = Some("never".to_owned());
    world.objects = vec![Arc::new(object)];
    assert_eq!(spec(&compile(&world), "n", "p").invalid, None);
    world.options.profile = Profile::Secure;
    assert!(spec(&compile(&world), "n", "p").invalid.is_some());
}

#[test]
fn custom_travels_and_is_told() {
    let compiled = istio()
        .allow("n/p", "action: CUSTOM, provider: {name: opa}, rules: [{}]")
        .pod("n/web", "web")
        .compile();
    assert_eq!(
        spec(&compiled, "n", "p").action,
        Action::Custom {
            provider: "opa".to_owned()
        }
    );
    told(&compiled, "MW0514", "provider `opa` is not defined");
}

#[test]
fn the_state_of_a_pod_in_words() {
    let check = |scene: Scene, expect: &str| {
        assert_eq!(view(&scene.pod("n/web", "web").compile(), "web"), expect);
    };
    check(secure(), "deny by default");
    check(istio(), "allow by default");
    check(secure().allow("n/a", "rules: [{}]"), "1 policy");
    check(
        secure()
            .allow("n/a", "rules: [{}]")
            .allow("n/b", "action: DENY, rules: [{}]"),
        "2 policies",
    );
    check(
        secure().allow("n/b", "action: DENY, rules: [{}]"),
        "deny by default, 1 policy",
    );
    check(istio().allow("n/b", "action: DENY, rules: [{}]"), "1 policy");
    let dry = "META , annotations: {istio.io/dry-run: \"true\"}\nspec: {rules: [{}]}";
    check(
        secure().object("AuthorizationPolicy", "n/d", dry),
        "deny by default, 1 policy",
    );
}
