//! The samples, held to what their README says of them.

use std::path::Path;
use std::sync::Arc;

use analysis::{Decision, Offline, Providers, Question};
use serde::Deserialize as _;
use serde_json::json;

use super::fake::Fake;

fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../samples")
        .join(name);
    path.display().to_string()
}

fn samples() -> String {
    sample("httpbin")
}

#[tokio::test]
async fn nothing_is_wrong_with_the_samples_under_either_profile() {
    let fake = Fake::new();
    // What attackers of the survey ask for and do not get is told, and nothing else.
    let told = json!([
        ["MW0801", "excluded"],
        ["MW0801", "uncaptured"],
        ["MW0803", "on-node"]
    ]);
    for profile in ["secure", "istio"] {
        for (name, wanted) in [("httpbin", json!([])), ("survey", told.clone())] {
            let said = fake
                .run(&["lint", &sample(name), "--profile", profile, "-o", "json"])
                .await;
            let found = said.json();
            let of = |problem: &serde_json::Value| json!([problem["code"], problem["object"]["name"]]);
            let mut found: Vec<_> = found.as_array().unwrap().iter().map(of).collect();
            found.sort_by_key(ToString::to_string);
            found.dedup();
            assert_eq!((said.code, json!(found)), (0, wanted), "{name} {profile}");
        }
    }
}

#[tokio::test]
async fn who_may_do_what_is_as_their_readme_says() {
    let files = crate::files::read(&[samples().into()], true).await.unwrap();
    let parsed = files.iter().map(|file| api::parse(&file.shown, &file.bytes));
    let objects = parsed.flat_map(|parsed| parsed.objects).map(Arc::new).collect();
    let world = Offline::new(objects, Vec::new(), compiler::Options::default()).unwrap();
    let sleep = json!({"namespace": "full", "serviceAccount": "sleep"});
    let httpbin = json!({"namespace": "full", "serviceAccount": "httpbin"});
    let cases = [
        (&sleep, "full", "GET", "/headers", Decision::Allow, "ALLOW"),
        (&sleep, "full", "GET", "/status/418", Decision::Allow, "ALLOW"),
        (&sleep, "full", "POST", "/post", Decision::Deny, "DENY_NO_ALLOW"),
        (
            &sleep,
            "full",
            "GET",
            "/anything",
            Decision::Deny,
            "DENY_NO_ALLOW",
        ),
        (
            &httpbin,
            "full",
            "GET",
            "/headers",
            Decision::Deny,
            "DENY_NO_ALLOW",
        ),
        (
            &json!(null),
            "full",
            "GET",
            "/get",
            Decision::Deny,
            "PLAINTEXT_REFUSED",
        ),
        (
            &json!(null),
            "legacy",
            "GET",
            "/get",
            Decision::Allow,
            "NOT_IN_MESH",
        ),
    ];
    for (from, namespace, method, path, wanted, reason) in cases {
        let to = match namespace {
            "full" => json!({"namespace": namespace, "service": "httpbin", "port": 8000}),
            _ => json!({"namespace": namespace, "workload": "httpbin", "port": 8080}),
        };
        let question = json!({"from": from, "to": to, "method": method, "path": path});
        let question = Question::deserialize(&question).unwrap();
        let answer = world.ask(&question, &Providers::new(), true);
        assert_eq!(
            (answer.decision, &*answer.reason),
            (wanted, reason),
            "{method} {path}: {answer:?}"
        );
    }
}
