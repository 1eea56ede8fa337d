//! RequestAuthentication (semantics 4.1, 4.2, 4.5).

use jwt::{AuthenticationSpec, Jwks, KeySource};

use super::*;

const KEYS: &str = "jwks: '{\"keys\":[]}'";
const URI: &str = "https://issuer.example.com/keys";

impl Scene {
    fn request(self, name: &str, spec: &str) -> Self {
        let rest = format!("spec: {{{spec}}}");
        self.object("RequestAuthentication", name, &rest)
    }
}

fn compile_with(scene: &Scene, jwks: &[Jwks]) -> Compiled {
    let jwks = jwks.iter().map(|j| (j.source.clone(), Arc::new(j.clone())));
    compile(&World {
        jwks: jwks.collect(),
        ..scene.world()
    })
}

fn selected(compiled: &Compiled, pod: &str) -> Vec<String> {
    let inbound = compiled.workload(pod).inbound.clone().unwrap();
    inbound.authentications.iter().map(ToString::to_string).collect()
}

fn resource(compiled: &Compiled, name: &ResourceName) -> Option<Resource> {
    compiled.nodes["node-0"].get(name).map(|found| (**found).clone())
}

fn spec(compiled: &Compiled, namespace: &str, name: &str) -> AuthenticationSpec {
    let id = policy::PolicyId {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    match resource(compiled, &ResourceName::authentication(&id)) {
        Some(Resource::Authentication(spec)) => (*spec).clone(),
        other => panic!("{other:?}"),
    }
}

fn keys(compiled: &Compiled, source: &str) -> Jwks {
    match resource(compiled, &ResourceName::jwks(source)) {
        Some(Resource::Jwks(jwks)) => (*jwks).clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn jw_17_all_that_select_a_pod_count_and_none_overrides_another() {
    let rule = format!("jwtRules: [{{issuer: i, {KEYS}}}]");
    let web = "selector: {matchLabels: {app: web}}";
    let compiled = secure()
        .request("n/one", &rule)
        .request("n/two", &format!("{web}, {rule}"))
        .request(
            "n/other",
            &format!("selector: {{matchLabels: {{app: db}}}}, {rule}"),
        )
        .request("m/elsewhere", &rule)
        .request("istio-system/all", &rule)
        .request("istio-system/web", &format!("{web}, {rule}"))
        .pod("n/web", "web")
        .pod("n/db", "db")
        .compile();
    assert_eq!(
        selected(&compiled, "web"),
        ["istio-system/all", "istio-system/web", "n/one", "n/two"]
    );
    assert_eq!(
        selected(&compiled, "db"),
        ["istio-system/all", "n/one", "n/other"]
    );
    let effect = compiled.effect("RequestAuthentication/istio-system/web");
    assert!(effect.in_force);
    assert_eq!(
        (effect.targets.as_slice(), effect.nodes.as_slice()),
        (&["n/web".to_owned()][..], &["node-0".to_owned()][..])
    );
    let elsewhere = ResourceName::from("authentication/m/elsewhere");
    assert_eq!(
        resource(&compiled, &elsewhere),
        None,
        "nobody on the node needs it"
    );
    assert!(
        compiled
            .pods
            .iter()
            .any(|pod| pod.policies.as_deref() == Some("deny by default, 4 request authentications"))
    );
}

#[test]
fn every_field_of_a_rule_travels() {
    let rule = "jwtRules: [{issuer: i, audiences: [a], jwksUri: 'https://issuer.example.com/keys', timeout: 2s, \
        fromHeaders: [{name: X-T, prefix: 'P '}], fromParams: [p], fromCookies: [c], outputPayloadToHeader: x-p, \
        outputClaimToHeaders: [{header: x-c, claim: a.b}], forwardOriginalToken: true, spaceDelimitedClaims: [s]}, \
        {issuer: 'https://found.example.com', timeout: 7s}, {issuer: 'https://found.example.com'}]";
    let compiled = secure().request("n/ra", rule).pod("n/web", "web").compile();
    let spec = spec(&compiled, "n", "ra");
    let [one, two, _] = spec.rules.as_slice() else {
        panic!("{spec:?}")
    };
    assert_eq!(
        (one.issuer.as_str(), &one.audiences[..]),
        ("i", &["a".to_owned()][..])
    );
    assert_eq!(one.keys, KeySource::Fetched(URI.to_owned()));
    assert_eq!(
        (
            one.from_headers[0].name.as_str(),
            one.from_headers[0].prefix.as_str()
        ),
        ("X-T", "P ")
    );
    assert_eq!(
        (&one.from_params[..], &one.from_cookies[..]),
        (&["p".to_owned()][..], &["c".to_owned()][..])
    );
    assert_eq!(one.output_payload_to_header.as_deref(), Some("x-p"));
    assert_eq!(
        (
            one.output_claim_to_headers[0].header.as_str(),
            one.output_claim_to_headers[0].claim.as_str()
        ),
        ("x-c", "a.b")
    );
    assert!(one.forward_original_token && !one.allow_hmac && !one.allow_missing_exp && one.line > 0);
    assert_eq!(one.space_delimited_claims, ["s"]);
    let found = "discovery:https://found.example.com";
    assert_eq!(two.keys, KeySource::Fetched(found.to_owned()));
    let wanted: Vec<_> = compiled.key_sources.into_iter().collect();
    assert_eq!(
        wanted,
        [(found.to_owned(), 7000), (URI.to_owned(), 2000)],
        "the longest of several"
    );
}

#[test]
fn jw_18_keys_that_nobody_has_fetched_are_none_and_travel_so() {
    let scene = secure()
        .request("n/ra", &format!("jwtRules: [{{issuer: i, jwksUri: '{URI}'}}]"))
        .pod("n/web", "web");
    let set = testkit::issuer::Issuer::new("a").jwks();
    let jwks = |keys: Option<&str>, why: Option<&str>| Jwks {
        source: URI.to_owned(),
        keys: keys.map(str::to_owned),
        why: why.map(str::to_owned),
    };
    let compiled = scene.compile();
    assert_eq!(keys(&compiled, URI), jwks(None, Some("not fetched yet")));
    let why = |compiled: &Compiled| compiled.effect("RequestAuthentication/n/ra").why.clone();
    assert_eq!(
        why(&compiled),
        [format!(
            "tokens of issuer `i` are refused, there are no keys of `{URI}`: not fetched yet"
        )]
    );
    assert!(
        compiled.effect("RequestAuthentication/n/ra").in_force,
        "tokens are refused"
    );
    assert!(
        !compiled.problems().iter().any(|p| p.starts_with("MW0522")),
        "only new"
    );

    let failed = compile_with(&scene, &[jwks(None, Some("no route"))]);
    assert_eq!(keys(&failed, URI).why.as_deref(), Some("no route"));
    told(&failed, "MW0522", "no route");
    let there = compile_with(&scene, &[jwks(Some(&set), None)]);
    assert_eq!(keys(&there, URI), jwks(Some(&set), None));
    assert!(why(&there).is_empty());
    let stale = compile_with(&scene, &[jwks(Some(&set), Some("timed out"))]);
    assert_eq!(
        keys(&stale, URI),
        jwks(Some(&set), None),
        "nothing changes for a proxy"
    );
    told(&stale, "MW0522", "the last good ones");
    assert!(why(&stale)[0].contains("timed out"));
}

#[test]
fn what_is_invalid_refuses_and_says_so() {
    let scene = secure()
        .request("n/ra", "jwtRules: [{issuer: ''}]")
        .pod("n/web", "web");
    let compiled = compile(&scene.world());
    let spec = spec(&compiled, "n", "ra");
    assert!(spec.invalid.is_some() && spec.rules.is_empty());
    assert_eq!(selected(&compiled, "web"), ["n/ra"]);
    let effect = compiled.effect("RequestAuthentication/n/ra");
    assert!(effect.why[0].contains("refuses every request"), "{effect:?}");
    assert_eq!(compiled.pods[0].policies.as_deref(), Some("invalid: n/ra"));
}

#[test]
fn no_claim_is_written_to_what_frames_a_message() {
    for (name, refused) in [
        ("Content-Length", true),
        ("transfer_encoding", true),
        ("x-forwarded-client-cert", true),
        ("x y", true),
        ("x-payload", false),
    ] {
        let rule = format!("jwtRules: [{{issuer: i, {KEYS}, outputPayloadToHeader: '{name}'}}]");
        let compiled = secure().request("n/ra", &rule).pod("n/web", "web").compile();
        assert_eq!(spec(&compiled, "n", "ra").invalid.is_some(), refused, "{name}");
        assert_eq!(
            compiled.problems().iter().any(|p| p.starts_with("MW0511")),
            refused,
            "{name}"
        );
    }
}

#[test]
fn target_refs_are_not_acted_on_and_told() {
    let spec = format!(
        "targetRefs: [{{kind: Gateway, group: gateway.networking.k8s.io, name: x}}], jwtRules: [{{issuer: i, {KEYS}}}]"
    );
    let compiled = secure().request("n/ra", &spec).pod("n/web", "web").compile();
    assert!(selected(&compiled, "web").is_empty());
    assert!(!compiled.effect("RequestAuthentication/n/ra").in_force);
    told(&compiled, "MW0501", "`targetRefs`");
}

#[test]
fn p56_who_shows_no_token_passes_unless_a_policy_asks() {
    let web = |profile: Scene| {
        profile
            .request("n/ra", &format!("jwtRules: [{{issuer: i, {KEYS}}}]"))
            .pod("n/web", "web")
    };
    let warned = |scene: Scene| {
        let compiled = scene.compile();
        let effect = compiled.effect("RequestAuthentication/n/ra");
        effect.why.iter().any(|why| why.contains("without a token pass"))
    };
    assert!(warned(web(istio())));
    assert!(!warned(web(secure())), "nobody passes at all");
    assert!(warned(web(secure()).allow("n/a", "rules: [{}]")));
    for spec in [
        "rules: [{from: [{source: {requestPrincipals: ['*']}}]}]",
        "rules: [{when: [{key: 'request.auth.claims[a]', values: [b]}]}]",
        "action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]",
    ] {
        assert!(!warned(web(istio()).allow("n/a", spec)), "{spec}");
    }
    assert!(warned(web(istio()).allow(
        "n/a",
        "selector: {matchLabels: {app: db}}, rules: [{from: [{source: {requestPrincipals: ['*']}}]}]"
    )));
}

#[test]
fn what_opens_an_object_is_an_annotation_and_is_shown() {
    let rest = |value: &str| {
        format!(
            "META , annotations: {{meshward.dev/jwt-allow-hmac: '{value}', meshward.dev/jwt-allow-missing-exp: '{value}'}}\n\
             spec: {{jwtRules: [{{issuer: i, {KEYS}}}]}}"
        )
    };
    for (value, open) in [("true", true), ("yes", false)] {
        let compiled = secure()
            .object("RequestAuthentication", "n/ra", &rest(value))
            .pod("n/web", "web")
            .compile();
        let spec = spec(&compiled, "n", "ra");
        assert_eq!(
            (spec.rules[0].allow_hmac, spec.rules[0].allow_missing_exp),
            (open, open)
        );
        let why = &compiled.effect("RequestAuthentication/n/ra").why;
        assert_eq!(
            why.iter().filter(|why| why.starts_with("weakened by")).count(),
            if open { 2 } else { 0 }
        );
    }
}

#[test]
fn plaintext_keys_are_taken_and_told() {
    let compiled = secure()
        .request(
            "n/ra",
            "jwtRules: [{issuer: i, jwksUri: 'http://keys.n:8000/jwks'}]",
        )
        .pod("n/web", "web")
        .compile();
    told(&compiled, "MW0522", "is plaintext");
    assert!(compiled.key_sources.contains_key("http://keys.n:8000/jwks"));
}

#[test]
fn presence_says_whether_a_request_must_have_a_token() {
    for (presence, required) in [
        ("", false),
        (", presence: OPTIONAL", false),
        (", presence: REQUIRED", true),
    ] {
        let rule = format!("jwtRules: [{{issuer: i, {KEYS}{presence}}}]");
        let compiled = istio().request("n/ra", &rule).pod("n/web", "web").compile();
        let spec = spec(&compiled, "n", "ra");
        assert!(spec.invalid.is_none(), "{presence}");
        assert_eq!(spec.rules[0].required, required, "{presence}");
    }
}
