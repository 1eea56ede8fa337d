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

/// The file of a case as it would be applied: a mesh configuration lies in its ConfigMap.
fn document(kind: &str, text: &str) -> String {
    let key = match kind {
        "MeshConfig" => "mesh",
        "MeshNetworks" => "meshNetworks",
        _ => return text.to_owned(),
    };
    let lines: String = text.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: istio\n  namespace: istio-system\ndata:\n  {key}: |\n{lines}"
    )
}

/// Whether a ProxyConfig is refused for what it lacks: Istio's table checks it without the defaults that lie below it.
fn lacks_only(case: &Value, text: &str) -> bool {
    let needed = [
        "configPath",
        "binaryPath",
        "serviceCluster",
        "drainDuration",
        "discoveryAddress",
        "proxyAdminPort",
        "statusPort",
    ];
    case["valid"] == false
        && case["wrapped"]
            .as_str()
            .is_some_and(|w| w.contains("absent field"))
        && needed.iter().any(|key| !text.contains(&format!("  {key}: ")))
}

fn judge(set: &Path, case: &Value, tally: &mut Tally) {
    let kind = case["kind"].as_str().unwrap();
    let id = case["id"].as_str().unwrap();
    // An object that the webhook accepts and the schema refuses is refused.
    let valid = case["valid"] == true && !case["schema_refused"].is_string();
    for file in case["files"].as_array().unwrap() {
        let file = file.as_str().unwrap();
        let text = std::fs::read_to_string(set.join(file)).unwrap();
        if lacks_only(case, &text) {
            return tally.not_applicable("a field of ProxyConfig that is absent has its default");
        }
        // An empty list that the conversion to YAML lost: what is left is the rule that matches everything (AZ-003).
        if !valid && text.ends_with("  rules:\n  - {}\n") && !text.contains("provider:") {
            return tally.not_applicable("an empty list that the data does not show");
        }
        if !valid && text.contains("headers: {}\n") {
            return tally.not_applicable("an empty map that the data does not show");
        }
        let parsed = api::parse(file, document(kind, &text).as_bytes());
        // The secure profile refuses what can never match, and says of a kind that it is not acted on; the sets say
        // what Istio does.
        let errors: Vec<_> = parsed
            .problems
            .iter()
            .filter(|p| p.severity == api::Severity::Error && !p.only_secure() && p.code != "MW0106")
            .map(api::Problem::one_line)
            .collect();
        match (valid, errors.first()) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(error)) => return tally.fail(id, format!("refused: {error}")),
            (false, None) => return tally.fail(id, format!("accepted; wanted {}", case["error_contains"])),
        }
        let mut warnings = parsed
            .problems
            .iter()
            .filter(|p| p.severity == api::Severity::Warning);
        let warned = warnings.next();
        if case["warning"] == true && warned.is_none() && errors.is_empty() {
            return tally.fail(id, format!("no warning; wanted {}", case["warning_contains"]));
        }
        if let (true, Some(warned)) = (case["warning"] == false && valid, warned) {
            return tally.fail(id, format!("warned: {}", warned.one_line()));
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
