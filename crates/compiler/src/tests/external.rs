//! AuthorizationPolicy `action: CUSTOM`: who is asked, and what is told where nobody can be (semantics 2.13).

use snapshot::{CheckBody, HeaderPattern, HttpCheck, Provider, ProviderKind};

use super::*;

fn scene(secure: bool, providers: &str) -> Scene {
    let scene = if secure { super::secure() } else { istio() };
    let mesh = format!("data:\n  mesh: |\n    extensionProviders: [{providers}]\n");
    scene
        .object("ConfigMap", "istio-system/istio", &mesh)
        .service("a/authz", "{name: grpc, port: 9000}, {name: http, port: 8000}")
        .pod("a/authz", "authz")
        .pod("n/web", "web")
}

fn custom(scene: Scene, provider: &str) -> Scene {
    let spec = format!("action: CUSTOM, provider: {{name: {provider}}}, rules: [{{}}]");
    scene.allow("n/ask", &spec)
}

fn provider(compiled: &Compiled, node: &str, name: &str) -> Option<Provider> {
    let found = compiled.nodes[node].get(&ResourceName::provider(name))?;
    match found.as_ref() {
        Resource::Provider(provider) => Some(provider.as_ref().clone()),
        other => panic!("{other:?}"),
    }
}

const HOST: &str = "authz.a.svc.cluster.local";

#[test]
fn s2_13_whoever_is_named_goes_to_the_nodes_that_ask() {
    let grpc = format!("{{name: opa, envoyExtAuthzGrpc: {{service: {HOST}, port: 9000}}}}");
    let other = format!("{{name: opa-2, envoyExtAuthzGrpc: {{service: {HOST}, port: 9000}}}}");
    let compiled = custom(scene(true, &format!("{grpc}, {other}")), "opa").compile();
    assert_eq!(
        provider(&compiled, "node-0", "opa"),
        Some(Provider {
            name: "opa".to_owned(),
            service: "a/authz".parse().unwrap(),
            port: 9000,
            kind: ProviderKind::Grpc,
            timeout_ms: 1_000,
            fail_open: false,
            status_on_error: 403,
            body: None,
        })
    );
    assert_eq!(provider(&compiled, "node-1", "opa"), None, "nobody there asks");
    assert_eq!(provider(&compiled, "node-0", "opa-2"), None, "R16");
    let effect = compiled.effect("AuthorizationPolicy/n/ask");
    assert!(effect.in_force && effect.why.is_empty(), "{effect:?}");
    assert_eq!(compiled.problems(), Vec::<String>::new());
}

#[test]
fn r18_the_time_of_istio_is_istios() {
    let grpc = format!("{{name: opa, envoyExtAuthzGrpc: {{service: a/{HOST}, port: 9000}}}}");
    let compiled = custom(scene(false, &grpc), "opa").compile();
    assert_eq!(provider(&compiled, "node-0", "opa").unwrap().timeout_ms, 600_000);
    let grpc = format!("{{name: opa, envoyExtAuthzGrpc: {{service: {HOST}, port: 9000, timeout: 1h}}}}");
    let compiled = custom(scene(true, &grpc), "opa").compile();
    assert_eq!(provider(&compiled, "node-0", "opa").unwrap().timeout_ms, 600_000);
    let why = &compiled.effect("AuthorizationPolicy/n/ask").why;
    assert!(why[0].contains("`timeout` is held to 600 s"), "{why:?}");
}

#[test]
fn every_field_of_an_authorizer_over_http_travels() {
    let http = format!(
        "{{name: http, envoyExtAuthzHttp: {{service: {HOST}, port: 8000, timeout: 2s, failOpen: true, statusOnError: '503', pathPrefix: /check, \
         includeRequestHeadersInCheck: [X-A, x-b*], includeAdditionalHeadersInCheck: {{X-C: '%REQ(:SCHEME)%'}}, \
         includeRequestBodyInCheck: {{maxRequestBytes: 9000000, allowPartialMessage: true}}, headersToUpstreamOnAllow: [d], \
         headersToDownstreamOnDeny: [e], headersToDownstreamOnAllow: ['*-f']}}}}"
    );
    let compiled = custom(scene(true, &http), "http").compile();
    let patterns = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| HeaderPattern::new(text))
            .collect::<Vec<_>>()
    };
    let expect = Provider {
        name: "http".to_owned(),
        service: "a/authz".parse().unwrap(),
        port: 8000,
        kind: ProviderKind::Http(HttpCheck {
            path_prefix: "/check".to_owned(),
            headers: patterns(&["x-a", "x-b*"]),
            additional: vec![("x-c".to_owned(), "%REQ(:SCHEME)%".to_owned())],
            to_upstream: patterns(&["d"]),
            to_downstream_on_deny: patterns(&["e"]),
            to_downstream_on_allow: patterns(&["*-f"]),
        }),
        timeout_ms: 2_000,
        fail_open: true,
        status_on_error: 503,
        body: Some(CheckBody {
            max_bytes: 4 * 1024 * 1024,
            partial: true,
            as_bytes: false,
        }),
    };
    assert_eq!(provider(&compiled, "node-0", "http"), Some(expect));
    let why = compiled.effect("AuthorizationPolicy/n/ask").why.join("; ");
    assert!(
        why.contains("failOpen") && why.contains("`maxRequestBytes` is held to"),
        "{why}"
    );
}

#[test]
fn s2_13_what_cannot_be_asked_denies_and_says_why() {
    for (providers, why) in [
        ("", "meshConfig has no `extensionProviders`"),
        (
            "{name: other, envoyExtAuthzGrpc: {service: x, port: 1}}",
            "is not defined; there are `other`",
        ),
        (
            "{name: opa, envoyExtAuthzGrpc: {service: x, port: 0}}",
            "`envoyExtAuthzGrpc.port`",
        ),
        (
            "{name: opa, envoyExtAuthzGrpc: {service: nowhere.example, port: 9000}}",
            "no Service has the host `nowhere.example`",
        ),
        (
            "{name: opa, envoyExtAuthzGrpc: {service: b/authz.a.svc.cluster.local, port: 9000}}",
            "no Service has the host",
        ),
        (
            "{name: opa, envoyExtAuthzGrpc: {service: authz.a.svc.cluster.local, port: 9001}}",
            "has no port 9001",
        ),
        (
            "{name: opa, zipkin: {service: authz.a.svc.cluster.local, port: 9000}}",
            "`zipkin` is no external authorizer",
        ),
        (
            "{name: opa, envoyExtAuthzHttp: {service: authz.a.svc.cluster.local, port: 8000, includeAdditionalHeadersInCheck: {x: '%HOSTNAME%'}}}",
            "only `%REQ(NAME)%` is known",
        ),
    ] {
        let compiled = custom(scene(true, providers), "opa").compile();
        assert_eq!(provider(&compiled, "node-0", "opa"), None, "{providers}");
        told(&compiled, "MW0514", why);
        let effect = compiled.effect("AuthorizationPolicy/n/ask");
        assert!(effect.in_force, "it denies: {providers}");
        assert!(
            effect.why[0].contains("denies what it matches") && effect.why[0].contains(why),
            "{effect:?}"
        );
        // The policy itself travels whole, and nobody is there to admit what it matches.
        assert_eq!(compiled.workload("web").inbound.unwrap().policies.len(), 1);
    }
}
