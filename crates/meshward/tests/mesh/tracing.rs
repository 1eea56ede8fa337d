//! Traces: headers passed on, spans at a collector in the mesh, and what Telemetry says of both.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use testkit::mesh::{Mesh, unavailable, within};

use crate::world::{own, program};

/// A collector in the mesh, over gRPC and over HTTP, and who sends it what.
const OBSERVE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: observe, labels: {istio-injection: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: collector, namespace: observe}
spec:
  selector: {matchLabels: {app: collector}}
  template:
    metadata: {labels: {app: collector}}
    spec: {containers: [{name: app, image: example.org/collector}]}
---
apiVersion: v1
kind: Service
metadata: {name: collector, namespace: observe}
spec:
  selector: {app: collector}
  ports:
  - {name: grpc, port: 4317, targetPort: 4317}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    defaultConfig: {tracing: {sampling: 0}}
    defaultProviders: {tracing: [by-grpc]}
    extensionProviders:
    - name: by-grpc
      opentelemetry: {service: collector.observe.svc.cluster.local, port: 4317, grpc: {initialMetadata: [{name: x-collector, value: blue}]}}
    - name: by-http
      opentelemetry: {service: observe/collector.observe.svc.cluster.local, port: 4317, http: {path: /v1/traces}}
";

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn start(hint: &str) -> Option<Mesh> {
    if let Some(why) = unavailable() {
        println!("{why}");
        return None;
    }
    let directory = tempfile::tempdir().unwrap().keep();
    let observe = directory.join("observe.yaml");
    std::fs::write(&observe, OBSERVE).unwrap();
    let image = format!(
        "example.org/collector={} workload collector --port 4317",
        program().display()
    );
    let world = own("crates/meshward/tests/mesh/world.yaml");
    let words = ["--profile", "istio", "--image", image.as_str()];
    Some(Mesh::start(program(), hint, &[&world, &observe], &words))
}

/// The spans that the collector has, of one trace where one is named.
fn all_spans(mesh: &Mesh, trace: &str) -> Vec<Value> {
    let said = mesh.run(&["logs", "-n", "observe", "collector"]).stdout;
    let lines = said.lines().filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter(|span: &Value| trace.is_empty() || span["traceId"] == trace)
        .collect()
}

/// Waits until the trace has so many spans.
fn collected(mesh: &Mesh, trace: &str, count: usize) -> Vec<Value> {
    within(Duration::from_secs(20), "spans reach the collector", || {
        all_spans(mesh, trace).len() >= count
    });
    all_spans(mesh, trace)
}

/// The header fields that the server has got, in lower case.
fn received(mesh: &Mesh, headers: &[String]) -> BTreeMap<String, String> {
    let mut words = vec!["http://server:8000/hello?access_token=hunter2"];
    for header in headers {
        words.extend(["-H", header]);
    }
    let said = mesh.curl("m", "client", &words);
    assert_eq!(said.code, 200, "{said:?}");
    let lines = said.body.lines();
    let fields = lines.filter_map(|line| line.strip_prefix("RequestHeader=")?.split_once(':'));
    fields
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect()
}

#[test]
fn a_trace_goes_through_both_proxies_and_both_tell_of_it() {
    let Some(mesh) = start("trace") else { return };
    let came = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01");
    let got = received(&mesh, &[came, "tracestate: a=1".to_owned()]);
    let arrived = got.get("traceparent").unwrap_or_else(|| panic!("{got:#?}"));
    assert!(arrived.starts_with(&format!("00-{TRACE}-")), "{arrived}");
    assert_eq!(got.get("tracestate").map(String::as_str), Some("a=1"), "{got:#?}");

    let spans = collected(&mesh, TRACE, 2);
    let of = |kind: u64| {
        let found: Vec<&Value> = spans.iter().filter(|span| span["kind"] == kind).collect();
        assert_eq!(found.len(), 1, "kind {kind}: {spans:#?}");
        found[0]
    };
    let (server, client) = (of(2), of(3));
    assert_eq!(client["parentSpanId"], "00f067aa0ba902b7", "{client:#}");
    assert_eq!(server["parentSpanId"], client["spanId"], "{server:#}");
    assert!(arrived.contains(server["spanId"].as_str().unwrap()), "{arrived}");
    assert_eq!(client["resource"]["service.name"], "client.m", "{client:#}");
    assert_eq!(server["resource"]["service.name"], "server.m", "{server:#}");
    for span in [server, client] {
        assert_eq!(
            span["path"],
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        );
        assert_eq!(span["header"], "blue");
        // Two Services have the port; a callee's proxy names the first of them, as Istio's.
        let named = if span["kind"] == 3 { "server" } else { "direct" };
        assert_eq!(span["name"], format!("{named}.m.svc.cluster.local:8000/*"));
        assert_eq!(span["traceState"], "a=1");
        let attributes = &span["attributes"];
        assert_eq!(attributes["http.status_code"], "200", "{span:#}");
        assert_eq!(attributes["http.method"], "GET");
        let url = attributes["http.url"].as_str().unwrap();
        assert!(url.ends_with("/hello?access_token=REDACTED"), "{url}");
        assert_eq!(attributes["source.workload.name"], "client");
        assert!(span["nanos"].as_u64().unwrap() > 0);
    }
    let metrics = mesh.run(&["metrics"]).stdout;
    let sent: u64 = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("meshward_spans_sent_total "))
        .map(|number| number.parse::<u64>().unwrap())
        .sum();
    assert!(sent >= 2, "{sent}");

    // B3 goes on as it came, and belongs to the same trace.
    let b3 = "80f198ee56343ba864fe8b2a57d3eff7";
    let got = received(&mesh, &[format!("b3: {b3}-e457b5a2e4d86bd1-1")]);
    assert!(got["b3"].starts_with(&format!("{b3}-")), "{got:#?}");
    assert!(got["traceparent"].contains(b3), "{got:#?}");
    assert_eq!(collected(&mesh, b3, 2).len(), 2);

    // What is not sampled goes on, and nobody tells of it; nor does a span about spans ever come.
    let unsampled = "11111111111111111111111111111111";
    received(
        &mesh,
        &[format!("traceparent: 00-{unsampled}-00f067aa0ba902b7-00")],
    );
    received(&mesh, &[]);
    let last = "22222222222222222222222222222222";
    received(&mesh, &[format!("traceparent: 00-{last}-00f067aa0ba902b7-01")]);
    collected(&mesh, last, 2);
    let all = all_spans(&mesh, "");
    assert_eq!(all.len(), 6, "{all:#?}");
}

#[test]
fn telemetry_says_how_many_traces_begin_and_where_spans_go() {
    let Some(mesh) = start("sampled") else { return };
    mesh.apply(
        "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: traced, namespace: m}
spec:
  tracing:
  - providers: [{name: by-http}]
    randomSamplingPercentage: 100
    customTags: {team: {literal: {value: blue}}, who: {header: {name: authorization}}}
",
    );
    let got = received(&mesh, &["authorization: Bearer hunter2".to_owned()]);
    let trace = got["traceparent"].split('-').nth(1).unwrap().to_owned();
    let spans = collected(&mesh, &trace, 2);
    for span in &spans {
        assert_eq!(span["path"], "/v1/traces", "{span:#}");
        assert_eq!(span["attributes"]["team"], "blue", "{span:#}");
        assert_eq!(span["attributes"]["who"], "REDACTED", "{span:#}");
    }
    assert!(!format!("{spans:?}").contains("hunter2"));
    let status = mesh.json(&["status"]);
    let told = status["objects"].as_array().unwrap().iter();
    let told = told.clone().find(|object| object["kind"] == "Telemetry").unwrap();
    assert_eq!(told["result"], "accepted", "{told:#}");
    assert!(!told["targets"].as_array().unwrap().is_empty(), "{told:#}");

    // A provider that is none is told; requests go on.
    let broken = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: traced, namespace: m}
spec: {tracing: [{providers: [{name: nobody}], randomSamplingPercentage: 100}]}
";
    let done = mesh.run_with(&["apply", "-f", "-"], broken);
    assert!(
        done.stdout.contains("`nobody` is not defined") || done.stderr.contains("`nobody` is not defined"),
        "{done:?}"
    );
    let got = received(&mesh, &[]);
    assert!(!got.contains_key("traceparent"), "{got:#?}");
}

#[test]
fn an_access_log_that_is_switched_off_still_has_what_was_refused() {
    let Some(mesh) = start("nolog") else { return };
    mesh.apply(
        "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: quiet, namespace: m}
spec: {accessLogging: [{disabled: true}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: denied, namespace: m}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/denied], ports: ['8000']}}]}]}
",
    );
    assert_eq!(mesh.curl("m", "client", &["http://server:8000/quiet"]).code, 200);
    assert_eq!(mesh.curl("m", "client", &["http://server:8000/denied"]).code, 403);
    let log = mesh.access_log();
    let paths: Vec<&str> = log.iter().filter_map(|line| line["path"].as_str()).collect();
    assert!(paths.contains(&"/denied"), "{paths:?}");
    assert!(!paths.contains(&"/quiet"), "{paths:?}");
}
