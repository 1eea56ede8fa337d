use std::sync::Arc;

use compiler::Options;
use model::Profile;

use super::*;

const WORLD: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a, labels: {istio-injection: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: a}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {serviceAccountName: web, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: a}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: plain, namespace: b}
spec:
  selector: {matchLabels: {app: plain}}
  template:
    metadata: {labels: {app: plain}}
    spec: {containers: [{name: c, image: i}]}
";

fn offline(profile: Profile) -> Offline {
    let parsed = api::parse("world.yaml", WORLD.as_bytes());
    assert!(!parsed.has_errors(), "{:?}", parsed.problems);
    let objects = parsed.objects.into_iter().map(Arc::new).collect();
    let options = Options {
        profile,
        ..Options::default()
    };
    Offline::new(objects, Vec::new(), options).unwrap()
}

fn question(json: &str) -> Question {
    serde_json::from_str(json).unwrap()
}

#[test]
fn plaintext_is_refused_by_the_mode_before_any_policy() {
    let world = offline(Profile::Secure);
    let asked = question(r#"{"id": 7, "to": {"namespace": "a", "service": "web", "port": 80}}"#);
    let answer = world.ask(&asked, &Providers::new(), true);
    assert_eq!(answer.decision, Decision::Deny);
    assert_eq!(answer.reason, "PLAINTEXT_REFUSED");
    assert_eq!(answer.id, Some(7.into()));
    assert!(answer.steps.iter().any(|s| s.stage == "tls"), "{answer:?}");
}

#[test]
fn outside_the_mesh_nothing_is_refused() {
    let world = offline(Profile::Secure);
    let asked = question(r#"{"to": {"namespace": "b", "workload": "plain", "port": 80}}"#);
    let answer = world.ask(&asked, &Providers::new(), false);
    assert_eq!(
        (answer.decision, answer.reason.as_str()),
        (Decision::Allow, "NOT_IN_MESH")
    );
}

#[test]
fn what_is_not_there_is_unknown_and_said() {
    let world = offline(Profile::Secure);
    for (asked, why) in [
        (
            r#"{"to": {"namespace": "a", "workload": "no", "port": 1}}"#,
            "a/no",
        ),
        (
            r#"{"to": {"namespace": "a", "service": "no", "port": 1}}"#,
            "a/no",
        ),
        (
            r#"{"to": {"namespace": "a", "service": "web", "port": 81}}"#,
            "81",
        ),
        (r#"{"to": {"namespace": "a", "port": 81}}"#, "neither"),
    ] {
        let answer = world.ask(&question(asked), &Providers::new(), false);
        assert_eq!(answer.decision, Decision::Unknown, "{asked}");
        assert!(answer.reason.contains(why), "{asked}: {}", answer.reason);
    }
}

#[test]
fn labels_stand_for_a_workload_that_need_not_exist() {
    let mut world = offline(Profile::Secure);
    let asked = question(r#"{"to": {"namespace": "a", "labels": {"app": "new"}, "port": 9}}"#);
    world.prepare([&asked.to].into_iter()).unwrap();
    let answer = world.ask(&asked, &Providers::new(), false);
    assert_eq!(answer.reason, "PLAINTEXT_REFUSED");
}

#[test]
fn unknown_fields_of_a_question_are_refused() {
    let wrong =
        serde_json::from_str::<Question>(r#"{"to": {"namespace": "a", "port": 1}, "methood": "GET"}"#);
    assert!(wrong.is_err());
}
