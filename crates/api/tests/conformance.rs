//! `crd-validation` and `validation-tables`: which objects Istio's schema and webhook accept.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]
#![expect(clippy::disallowed_methods, reason = "the tests of a pure crate read files")]

use std::path::Path;

use serde_json::Value;
use testkit::conformance::{self, Tally};

/// Kinds whose values are judged; of the others the structure is at most.
const READ: &[&str] = &[
    "PeerAuthentication",
    "AuthorizationPolicy",
    "RequestAuthentication",
];

fn judge(set: &Path, case: &Value, tally: &mut Tally) {
    let kind = case["kind"].as_str().unwrap();
    if !READ.contains(&kind) {
        tally.not_applicable(format!("{kind} is not judged by its values yet"));
        return;
    }
    let id = case["id"].as_str().unwrap();
    for file in case["files"].as_array().unwrap() {
        let file = file.as_str().unwrap();
        let text = std::fs::read(set.join(file)).unwrap();
        let parsed = api::parse(file, &text);
        // An empty list that the conversion to YAML lost: what is left is the rule that matches everything (AZ-003).
        if case["valid"] == false
            && text.ends_with(b"  rules:\n  - {}\n")
            && !text.windows(9).any(|w| w == b"provider:")
        {
            return tally.not_applicable("an empty list that the data does not show");
        }
        // The secure profile refuses what can never match, and says of a kind that it is not acted on; the sets say
        // what Istio does.
        let errors: Vec<_> = parsed
            .problems
            .iter()
            .filter(|p| p.severity == api::Severity::Error && !p.only_secure() && p.code != "MW0106")
            .map(api::Problem::one_line)
            .collect();
        match (case["valid"].as_bool().unwrap(), errors.first()) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(error)) => return tally.fail(id, format!("refused: {error}")),
            (false, None) => return tally.fail(id, format!("accepted; wanted {}", case["error_contains"])),
        }
        let warned = parsed
            .problems
            .iter()
            .any(|p| p.severity == api::Severity::Warning);
        if case["warning"] == true && !warned && errors.is_empty() {
            return tally.fail(id, format!("no warning; wanted {}", case["warning_contains"]));
        }
    }
    tally.pass();
}

fn play(name: &str) {
    let Some(set) = conformance::set(name) else {
        return;
    };
    let cases = conformance::json(&set.join("expected.json"));
    let mut tally = Tally::default();
    for case in cases["cases"].as_array().unwrap() {
        judge(&set, case, &mut tally);
    }
    tally.finish(name);
}

#[test]
fn crd_validation() {
    play("crd-validation");
}

#[test]
fn validation_tables() {
    play("validation-tables");
}

#[test]
fn samples() {
    let Some(set) = conformance::set("samples") else {
        return;
    };
    let cases = conformance::json(&set.join("cases.json"));
    let mut tally = Tally::default();
    for case in cases["cases"].as_array().unwrap() {
        for file in case["files"].as_array().unwrap() {
            let file = file.as_str().unwrap();
            let text = std::fs::read(set.join(file)).unwrap();
            let parsed = api::parse(file, &text);
            let error = parsed
                .problems
                .iter()
                .find(|p| p.severity == api::Severity::Error && !p.only_secure() && p.code != "MW0106");
            match error {
                None => tally.pass(),
                Some(error) => tally.fail(file, error.one_line()),
            }
        }
    }
    tally.finish("samples");
}
