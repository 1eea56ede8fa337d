//! What is told of objects that are not acted on.

use super::*;

#[test]
fn security_kinds_that_are_not_acted_on_are_shown_so() {
    let scene = secure().object("NetworkPolicy", "n/jwt", "spec: {podSelector: {}}");
    let compiled = compile(&scene.world());
    let effect = compiled.effect("NetworkPolicy/n/jwt");
    assert!(!effect.in_force);
    assert_eq!(effect.why, ["NetworkPolicy is not acted on by this version"]);
}

#[test]
fn r48_both_injection_labels_and_ambient() {
    let both = secure()
        .namespace("n", "istio-injection: enabled, istio.io/rev: x")
        .compile();
    told(&both, "IST0123", "`istio-injection` decides");
    let ambient = secure()
        .namespace("n", "istio.io/dataplane-mode: ambient")
        .compile();
    told(&ambient, "MW0501", "ambient");
}

#[test]
fn a_rule_for_some_clients_only_is_not_in_force() {
    let spec =
        "spec: {host: web, workloadSelector: {matchLabels: {a: b}}, trafficPolicy: {tls: {mode: DISABLE}}}";
    let compiled = secure()
        .service("n/web", "{port: 80}")
        .object("DestinationRule", "n/r", spec)
        .pod("n/web", "web")
        .compile();
    assert_eq!(compiled.service("n/web").ports[0].tls, None);
    told(&compiled, "MW0501", "workloadSelector");
}

#[test]
fn problems_come_in_the_order_of_the_text() {
    let compiled = secure()
        .peer(
            "n/w",
            "selector: {matchLabels: {app: none}}, mtls: {mode: STRICT}",
        )
        .allow("n/a", "selector: {matchLabels: {app: none}}")
        .compile();
    let lines: Vec<_> = compiled.problems.iter().map(|p| p.line).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0] < lines[1]);
}
