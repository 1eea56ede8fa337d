//! What is told of traffic: Telemetry over MeshConfig, the narrower over the wider (Istio "Telemetry API").

use snapshot::{Tag, Telemetry, WHOLE};

use super::*;

const PROVIDERS: &str = "extensionProviders: [{name: one, opentelemetry: {service: c.a.svc.cluster.local, port: 4317}}, {name: two, opentelemetry: {service: a/c.a.svc.cluster.local, port: 4318, maxTagLength: 64, http: {path: /t, timeout: 2s}}}, {name: zip, zipkin: {service: c.a.svc.cluster.local, port: 1}}]";

fn scene(mesh: &str) -> Scene {
    let mesh = format!("data:\n  mesh: |\n    {PROVIDERS}\n    {mesh}\n");
    secure()
        .object("ConfigMap", "istio-system/istio", &mesh)
        .service("a/c", "{name: grpc, port: 4317}, {name: http, port: 4318}")
        .pod("a/c", "c")
        .pod("n/web", "web")
        .pod("n/db", "db")
}

fn telemetry(scene: Scene, name: &str, spec: &str) -> Scene {
    scene.object("Telemetry", name, &format!("spec: {{{spec}}}"))
}

fn of(compiled: &Compiled, pod: &str) -> Telemetry {
    let inbound = compiled.workload(pod).inbound.clone();
    inbound
        .unwrap_or_else(|| panic!("{pod} has no inbound side"))
        .telemetry
}

/// Provider and share of the traces of a pod.
fn traced(compiled: &Compiled, pod: &str) -> Option<(String, u32)> {
    let tracing = of(compiled, pod).tracing?;
    Some((tracing.provider.name, tracing.sampling))
}

fn one(name: &str, share: u32) -> Option<(String, u32)> {
    Some((name.to_owned(), share))
}

#[test]
fn without_telemetry_the_mesh_configuration_says_it() {
    for (mesh, expect) in [
        ("enableTracing: true", None),
        ("defaultProviders: {tracing: [one]}", one("one", WHOLE / 100)),
        (
            "defaultProviders: {tracing: [two]}\n    defaultConfig: {tracing: {sampling: 50}}",
            one("two", WHOLE / 2),
        ),
        (
            "defaultProviders: {tracing: [one]}\n    enableTracing: false",
            None,
        ),
        ("defaultProviders: {tracing: [none]}", None),
        ("defaultProviders: {tracing: [zip]}", None),
    ] {
        assert_eq!(traced(&scene(mesh).compile(), "web"), expect, "{mesh}");
    }
}

#[test]
fn the_narrower_object_says_it_and_leaves_the_rest_to_the_wider() {
    let wide = telemetry(
        scene("enableTracing: true"),
        "istio-system/mesh",
        "tracing: [{providers: [{name: one}], randomSamplingPercentage: 10}]",
    );
    assert_eq!(traced(&wide.clone().compile(), "web"), one("one", WHOLE / 10));
    let namespace = telemetry(wide, "n/ns", "tracing: [{randomSamplingPercentage: 20}]");
    let compiled = namespace.clone().compile();
    assert_eq!(traced(&compiled, "web"), one("one", WHOLE / 5));
    assert_eq!(traced(&compiled, "c"), one("one", WHOLE / 10));
    let workload = telemetry(
        namespace,
        "n/web",
        "selector: {matchLabels: {app: web}}, tracing: [{providers: [{name: two}], disableSpanReporting: true, match: {mode: CLIENT}, customTags: {a: {literal: {value: b}}, e: {environment: {name: X}}}}]",
    );
    let compiled = workload.compile();
    assert_eq!(traced(&compiled, "web"), one("two", WHOLE / 5));
    assert_eq!(traced(&compiled, "db"), one("one", WHOLE / 5));
    let tracing = of(&compiled, "web").tracing.unwrap();
    assert!(!tracing.client && tracing.server);
    assert_eq!(tracing.tags, [("a".to_owned(), Tag::Literal("b".to_owned()))]);
    assert_eq!(tracing.provider.path.as_deref(), Some("/t"));
    assert_eq!(tracing.provider.timeout_ms, 2000);
    assert_eq!(tracing.provider.max_tag_length, 64);
    let effect = compiled.effect("Telemetry/n/web");
    assert_eq!(effect.targets, ["n/web"]);
    assert!(
        effect.why.iter().any(|why| why.contains("the tag `e`")),
        "{effect:?}"
    );
}

#[test]
fn of_two_of_one_scope_the_older_counts_and_the_other_says_so() {
    let two = telemetry(
        scene("enableTracing: true"),
        "n/old",
        "accessLogging: [{disabled: true}]",
    );
    let compiled = telemetry(two, "n/new", "accessLogging: [{disabled: false}]").compile();
    assert!(of(&compiled, "web").server_log_off);
    let younger = compiled.effect("Telemetry/n/new");
    assert_eq!(younger.shadowed_by.len(), 1, "{younger:?}");
}

#[test]
fn logs_are_switched_off_by_side() {
    let client = "accessLogging: [{match: {mode: CLIENT}, disabled: true}]";
    let compiled = telemetry(scene("enableTracing: true"), "n/a", client).compile();
    let told = of(&compiled, "web");
    assert!(told.client_log_off && !told.server_log_off);
    assert!(of(&compiled, "c").is_default());
}

#[test]
fn what_is_not_as_written_is_told() {
    let spec = "metrics: [{providers: [{name: stackdriver}]}, {reportingInterval: 5s, overrides: [{tagOverrides: {x: {value: request.host}}}, {match: {metric: REQUEST_COUNT}, tagOverrides: {source_app: {operation: REMOVE}}}]}], tracing: [{providers: [{name: nobody}]}], accessLogging: [{filter: {expression: \"request.headers['a'] == 'b'\"}}]";
    let compiled = telemetry(scene("enableTracing: true"), "n/a", spec).compile();
    let why = compiled.effect("Telemetry/n/a").why.join("\n");
    for part in [
        "other providers",
        "reportingInterval",
        "`x`",
        "of one metric",
        "`nobody` is not defined",
        "`accessLogging.filter`",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let told_of = of(&compiled, "web");
    assert!(
        told_of.client_log.is_none() && told_of.client_metrics.is_none(),
        "nothing is left out by it"
    );
    told(&compiled, "MW0514", "nobody");
    let gateway = telemetry(
        scene("enableTracing: true"),
        "n/a",
        "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]",
    );
    assert!(!gateway.compile().effect("Telemetry/n/a").in_force);
}

#[test]
fn a_filter_is_of_the_narrowest_that_has_one_by_side() {
    let wide = telemetry(
        scene("enableTracing: true"),
        "istio-system/mesh",
        "accessLogging: [{filter: {expression: 'response.code >= 400'}}]",
    );
    let narrow = "accessLogging: [{match: {mode: SERVER}, filter: {expression: 'response.code >= 500'}}]";
    let compiled = telemetry(wide, "n/a", narrow).compile();
    let admits = |filter: &Option<Arc<snapshot::LogFilter>>, code: i64| {
        let value = |attribute| {
            (attribute == snapshot::Attribute::ResponseCode).then_some(snapshot::Datum::Number(code))
        };
        filter.as_ref().unwrap().admits(&value)
    };
    let web = of(&compiled, "web");
    assert!(admits(&web.client_log, 404) && !admits(&web.client_log, 200));
    assert!(admits(&web.server_log, 503) && !admits(&web.server_log, 404));
    assert!(admits(&of(&compiled, "c").server_log, 404));
}

#[test]
fn metrics_are_changed_by_scope_and_side() {
    let wide = telemetry(
        scene("enableTracing: true"),
        "istio-system/mesh",
        "metrics: [{providers: [{name: prometheus}], overrides: [{match: {metric: REQUEST_SIZE}, disabled: true}, {tagOverrides: {source_principal: {operation: REMOVE}, cluster: {value: \"'east'\"}}}]}]",
    );
    let compiled = telemetry(
        wide,
        "n/a",
        "metrics: [{overrides: [{match: {metric: ALL_METRICS, mode: CLIENT}, disabled: true}, {match: {mode: SERVER}, disabled: false}]}]",
    )
    .compile();
    let web = of(&compiled, "web");
    let client = web.client_metrics.unwrap();
    assert_eq!(client.off.len(), model::Metric::ALL.len());
    assert_eq!(client.tags["source_principal"], None);
    let server = web.server_metrics.unwrap();
    assert!(server.off.is_empty());
    assert_eq!(server.tags["cluster"].as_deref(), Some("east"));
    let other = of(&compiled, "c").server_metrics.unwrap();
    assert_eq!(other.off, [model::Metric::RequestSize].into());
}

#[test]
fn no_profile_changes_what_metrics_say() {
    for scene in [istio(), secure()] {
        let web = of(&scene.pod("n/web", "web").compile(), "web");
        assert_eq!((web.client_metrics, web.server_metrics), (None, None));
    }
}
