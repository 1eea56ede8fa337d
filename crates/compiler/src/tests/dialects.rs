//! The annotation `meshward.dev/path-dialect` (semantics 3.6 OURS).

use policy::path::{Dialect, Dialects};

use super::*;

const NAME: &str = "meshward.dev/path-dialect";

fn annotated(scene: Scene, value: &str) -> Scene {
    scene.last(|pod| {
        pod.metadata.annotations = labels(&[(NAME, value)]);
    })
}

fn dialects(compiled: &Compiled, pod: &str) -> Dialects {
    compiled.workload(pod).inbound.unwrap().path_dialects
}

#[test]
fn s3_6_pod_service_and_namespace_add_up() {
    let none = istio().pod("n/web", "web").compile();
    assert_eq!(dialects(&none, "web"), Dialects::default());
    let meta = |value: &str| format!("META , annotations: {{{NAME}: \"{value}\"}}\n");
    let service = meta("8080=case-insensitive")
        + "spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}";
    let scene = istio()
        .object("Namespace", "n", &meta("collapse"))
        .object("Service", "n/web", &service)
        .pod("n/web", "web");
    let compiled = annotated(scene, "9090=decode=2").compile();
    let found = dialects(&compiled, "web");
    assert_eq!(found.of(8080).to_string(), "case-insensitive,collapse");
    assert_eq!(found.of(9090).to_string(), "decode=2,collapse");
    assert_eq!(found.of(1).to_string(), "collapse");
    // Of the namespace's other pods the Service says nothing.
    let other = istio()
        .object("Namespace", "n", &meta("plain"))
        .object("Service", "n/web", &service)
        .pod("n/db", "db")
        .compile();
    assert_eq!(dialects(&other, "db"), Dialects::default());
}

#[test]
fn s3_6_what_cannot_be_read_closes_and_is_told() {
    let scene = istio().pod("n/web", "web").pod("n/web2", "web");
    let compiled = annotated(scene, "Collapse").compile();
    assert_eq!(dialects(&compiled, "web2"), Dialects::all());
    assert_eq!(dialects(&compiled, "web"), Dialects::default());
    told(&compiled, "MW0513", "`Collapse` is not one of");
    let meta = format!("META , annotations: {{{NAME}: \"decode=9\"}}\n");
    let scene = istio().object("Namespace", "n", &meta).pod("n/web", "web");
    let compiled = annotated(scene, "8080=collapse").compile();
    assert_eq!(dialects(&compiled, "web").of(8080), Dialect::ALL);
    assert_eq!(dialects(&compiled, "web").of(1), Dialect::ALL);
    told(&compiled, "MW0513", "judged under all dialects");
    let problem = compiled.problems.iter().find(|p| p.code == "MW0513").unwrap();
    assert!(problem.line > 0 && problem.remedy.is_some(), "{problem:?}");
}
