//! `crd-validation` and `validation-tables`: which objects Istio's schema and webhook accept.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where it fails"
)]
#![expect(clippy::disallowed_methods, reason = "the tests of a pure crate read files")]

use std::path::Path;

use serde_json::{Value, json};
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

/// An object in which a text of a small table stands, and whether it is to be accepted; `None` where no object shows it.
fn around(table: &str, case: &Value) -> Option<(Value, bool)> {
    let object = |group: &str, kind: &str, spec: Value| json!({"apiVersion": group, "kind": kind, "metadata": {"name": "x", "namespace": "ns"}, "spec": spec});
    let network = |kind: &str, spec: Value| object("networking.istio.io/v1", kind, spec);
    let routed = |field: &str, value: Value| {
        let mut route = json!({"route": [{"destination": {"host": "a"}}]});
        route[field] = value;
        network("VirtualService", json!({"hosts": ["a.b"], "http": [route]}))
    };
    let valid = |key: &str| case[key] == true;
    Some(match table {
        "TestStrictValidateHTTPHeaderName" => {
            let rule =
                json!({"issuer": "i", "outputClaimToHeaders": [{"claim": "c", "header": case["name"]}]});
            let spec = json!({"jwtRules": [rule]});
            (
                object("security.istio.io/v1", "RequestAuthentication", spec),
                valid("valid"),
            )
        }
        "TestValidateHTTPHeaderName" => {
            let name = case["name"].as_str().unwrap();
            (
                routed("match", json!([{"headers": {name: {"exact": "x"}}}])),
                valid("valid"),
            )
        }
        "TestValidateHTTPHeaderValue" => {
            let value = routed("headers", json!({"request": {"set": {"x-a": case["input"]}}}));
            (value, case["expected"].is_null())
        }
        "TestValidateHTTPStatus" => {
            let route = json!({"directResponse": {"status": case["in"]}});
            (
                network("VirtualService", json!({"hosts": ["a.b"], "http": [route]})),
                valid("valid"),
            )
        }
        "TestValidateDuration" => (routed("timeout", case["duration"].clone()), valid("isValid")),
        "TestValidatePortName" => {
            let port = json!({"name": case["name"], "number": 80, "protocol": "HTTP"});
            (
                network("ServiceEntry", json!({"hosts": ["a.b"], "ports": [port]})),
                valid("valid"),
            )
        }
        "TestValidateFQDN" => (
            network("WorkloadEntry", json!({"address": case["fqdn"]})),
            valid("valid"),
        ),
        "TestValidateTelemetryFilter" => {
            let spec = json!({"accessLogging": [{"filter": case["filter"]}]});
            (object("telemetry.istio.io/v1", "Telemetry", spec), valid("valid"))
        }
        "TestValidateWildcardDomain" => (
            network("DestinationRule", json!({"host": case["in"]})),
            case["out"] == "",
        ),
        "TestValidateWildcardDomainForVirtualServiceBoundToGateway" | "TestParseAutoGeneratedSNIDomain" => {
            let inner = table == "TestParseAutoGeneratedSNIDomain";
            if inner && !case["in"].as_str()?.starts_with("outbound_") {
                return None;
            }
            let to = json!([{"destination": {"host": "a"}}]);
            let mut spec = json!({"gateways": ["g"], "hosts": [case["in"]]});
            if inner || case["sni"] == true {
                spec["tls"] = json!([{"match": [{"sniHosts": [case["in"]]}], "route": to}]);
            } else {
                spec["http"] = json!([{"route": to}]);
            }
            let fine = if inner { &case["err"] } else { &case["out"] };
            (network("VirtualService", spec), fine == "")
        }
        "TestValidateLocalities" => {
            let places = case["localities"].as_array()?.iter();
            let share: Vec<_> = places
                .map(|place| json!({"from": place, "to": {"z": 100}}))
                .collect();
            let policy =
                json!({"outlierDetection": {}, "loadBalancer": {"localityLbSetting": {"distribute": share}}});
            let spec = json!({"host": "a", "trafficPolicy": policy});
            (network("DestinationRule", spec), valid("valid"))
        }
        "TestValidationIPAddress" => {
            let spec =
                json!({"hosts": ["a.b"], "resolution": "STATIC", "endpoints": [{"address": case["addr"]}]});
            (network("ServiceEntry", spec), valid("ok"))
        }
        "TestValidationIPSubnet" => {
            let spec = json!({"hosts": ["a.b"], "addresses": [case["subnet"]]});
            (network("ServiceEntry", spec), valid("ok"))
        }
        "TestValidateExtensionProviderService" => {
            let provider = json!({"name": "p", "zipkin": {"service": case["service"], "port": 80}});
            let mesh = json!({"extensionProviders": [provider]}).to_string();
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"mesh": mesh},
                "metadata": {"name": "istio", "namespace": "istio-system"}});
            (map, valid("valid"))
        }
        _ => return None,
    })
}

fn judge_text(case: &Value, tally: &mut Tally) {
    let id = case["id"].as_str().unwrap();
    let Some((object, valid)) = around(case["table"].as_str().unwrap(), &case["case"]) else {
        return tally.not_applicable("a step inside of another check");
    };
    let parsed = api::parse(id, object.to_string().as_bytes());
    let error = parsed
        .problems
        .iter()
        .find(|p| p.severity == api::Severity::Error && p.code != "MW0106");
    match (valid, error) {
        (true, None) | (false, Some(_)) => tally.pass(),
        (true, Some(error)) => tally.fail(id, format!("refused: {}", error.one_line())),
        (false, None) => tally.fail(id, format!("accepted: {object}")),
    }
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
    if set.join("scalars.json").is_file() {
        for case in conformance::json(&set.join("scalars.json"))["cases"]
            .as_array()
            .unwrap()
        {
            judge_text(case, &mut tally);
        }
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
