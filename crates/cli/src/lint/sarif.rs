//! Findings as SARIF 2.1.0 (OASIS), for code scanning.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use api::{Problem, Severity};
use serde_json::{Map, Value, json};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";
/// What a rule is about, by the beginning of its code.
const ABOUT: [(&str, &str); 9] = [
    ("IST0101", "ReferencedResourceNotFound"),
    ("IST0123", "NamespaceMultipleInjectionLabels"),
    ("IST0127", "NoMatchingWorkloadsFound"),
    ("IST0174", "UnknownDestinationRuleHost"),
    ("MW00", "A file that cannot be read as YAML"),
    ("MW01", "An object or a field that is not known"),
    ("MW02", "A value that is refused"),
    ("MW03", "A value that can never match"),
    ("MW07", "A policy that most likely does not do what was meant"),
];
/// What is said of all others.
const OTHER: &str = "An object that does not do what it says";
/// Istio's code for what its schema validation refuses.
const SCHEMA_VALIDATION: &str = "IST0106";

/// The findings as one document.
pub(super) fn document(problems: &[Problem]) -> Value {
    let mut worst: BTreeMap<&str, Severity> = BTreeMap::new();
    for problem in problems {
        let known = worst.entry(problem.code.as_ref()).or_insert(problem.severity);
        *known = (*known).max(problem.severity);
    }
    let index: BTreeMap<&str, usize> = worst.keys().enumerate().map(|(at, code)| (*code, at)).collect();
    let rules: Vec<Value> = worst
        .iter()
        .map(|(code, severity)| rule(code, *severity))
        .collect();
    let results: Vec<Value> = problems.iter().map(|problem| result(problem, &index)).collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "meshward",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn rule(code: &str, severity: Severity) -> Value {
    let about = ABOUT
        .iter()
        .find(|(start, _)| code.starts_with(start))
        .map_or(OTHER, |(_, about)| about);
    let mut rule = json!({
        "id": code,
        "shortDescription": {"text": about},
        "defaultConfiguration": {"level": level(severity)},
    });
    let validated = code.starts_with("MW02") || code == "MW0102";
    if let (true, Value::Object(rule)) = (validated, &mut rule) {
        rule.insert("properties".to_owned(), json!({"istio": SCHEMA_VALIDATION}));
    }
    rule
}

fn result(problem: &Problem, index: &BTreeMap<&str, usize>) -> Value {
    let text = match &problem.remedy {
        Some(remedy) => {
            let end = if remedy.ends_with('?') { "" } else { "." };
            format!("{}. Remedy: {remedy}{end}", problem.message)
        }
        None => format!("{}.", problem.message),
    };
    let mut properties = Map::new();
    if let Some(object) = &problem.object {
        properties.insert("object".to_owned(), object.to_string().into());
    }
    if !problem.path.is_empty() {
        properties.insert("field".to_owned(), problem.path.clone().into());
    }
    if let Some(remedy) = &problem.remedy {
        properties.insert("remedy".to_owned(), remedy.clone().into());
    }
    let mut result = json!({
        "ruleId": problem.code,
        "ruleIndex": index.get(problem.code.as_ref()),
        "level": level(problem.severity),
        "message": {"text": text},
        "properties": properties,
    });
    if let (false, Value::Object(result)) = (problem.file.is_empty(), &mut result) {
        result.insert("locations".to_owned(), json!([location(problem)]));
    }
    result
}

fn location(problem: &Problem) -> Value {
    let mut physical = json!({"artifactLocation": {"uri": uri(&problem.file)}});
    if let (true, Value::Object(physical)) = (problem.line > 0, &mut physical) {
        let start = problem.column.max(1);
        let mut region = json!({
            "startLine": problem.line,
            "startColumn": start,
            "endLine": problem.line,
            "endColumn": start.saturating_add(problem.length),
        });
        if let (Some(source), Value::Object(region)) = (&problem.source, &mut region) {
            region.insert("snippet".to_owned(), json!({"text": source}));
        }
        physical.insert("region".to_owned(), region);
    }
    json!({"physicalLocation": physical})
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    }
}

/// A file's name as a URI reference (RFC 3986): relative where it is, and nothing in it that stands for something else.
fn uri(file: &str) -> String {
    let mut out = String::new();
    if file.starts_with('/') {
        out.push_str("file://");
    }
    for byte in file.trim_start_matches("./").bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte))
            }
            other => {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(severity: Severity, code: &'static str, line: u32) -> Problem {
        let mut problem = Problem::new(severity, code, "wrong").remedy("right");
        (problem.file, problem.line, problem.column, problem.length) =
            ("a b/c:é.yaml".to_owned(), line, 3, 4);
        problem.source = Some("  rulez: 1".to_owned());
        problem
    }

    /// What the standard demands of the parts that are used: sections 3.13, 3.14, 3.19, 3.27 to 3.30 and 3.49.
    fn validate(document: &Value) {
        assert_eq!(document["version"], "2.1.0");
        let runs = document["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 1);
        let driver = &runs[0]["tool"]["driver"];
        assert!(driver["name"].is_string());
        let rules = driver["rules"].as_array().unwrap();
        let mut ids: Vec<&str> = rules.iter().map(|rule| rule["id"].as_str().unwrap()).collect();
        ids.dedup();
        assert_eq!(ids.len(), rules.len(), "each rule once");
        let levels = ["none", "note", "warning", "error"];
        for rule in rules {
            assert!(levels.contains(&rule["defaultConfiguration"]["level"].as_str().unwrap()));
            assert!(!rule["shortDescription"]["text"].as_str().unwrap().is_empty());
        }
        for result in runs[0]["results"].as_array().unwrap() {
            let at = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[at]["id"], result["ruleId"]);
            assert!(levels.contains(&result["level"].as_str().unwrap()));
            assert!(!result["message"]["text"].as_str().unwrap().is_empty());
            for location in result["locations"].as_array().into_iter().flatten() {
                let physical = &location["physicalLocation"];
                let uri = physical["artifactLocation"]["uri"].as_str().unwrap();
                assert!(
                    uri.bytes()
                        .all(|b| b.is_ascii_graphic() && !b"<>\"{}|\\^`".contains(&b)),
                    "{uri}"
                );
                if let Some(region) = physical.get("region") {
                    let number = |name: &str| region[name].as_u64().unwrap();
                    assert!(number("startLine") >= 1 && number("startColumn") >= 1);
                    assert!(number("endLine") >= number("startLine"));
                    assert!(number("endColumn") >= number("startColumn"));
                }
            }
        }
    }

    #[test]
    fn findings_are_results_with_rules_levels_and_regions() {
        let problems = [
            problem(Severity::Warning, "MW0701", 7),
            problem(Severity::Error, "MW0701", 0),
            problem(Severity::Info, "IST0127", 1),
            Problem::new(Severity::Error, "MW0217", "nowhere").remedy("did you mean `here`?"),
        ];
        let document = document(&problems);
        validate(&document);
        let run = &document["runs"][0];
        let ids: Vec<_> = run["tool"]["driver"]["rules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["id"].clone())
            .collect();
        assert_eq!(ids, ["IST0127", "MW0217", "MW0701"]);
        assert_eq!(
            run["tool"]["driver"]["rules"][2]["defaultConfiguration"]["level"],
            "error"
        );
        assert_eq!(
            run["tool"]["driver"]["rules"][1]["properties"]["istio"],
            "IST0106"
        );
        let first = &run["results"][0];
        let physical = &first["locations"][0]["physicalLocation"];
        assert_eq!(physical["artifactLocation"]["uri"], "a%20b/c%3A%C3%A9.yaml");
        let region = &physical["region"];
        assert_eq!(
            (&region["startLine"], &region["startColumn"], &region["endColumn"]),
            (&json!(7), &json!(3), &json!(7))
        );
        assert_eq!(first["message"]["text"], "wrong. Remedy: right.");
        let asking = "nowhere. Remedy: did you mean `here`?";
        assert_eq!(run["results"][3]["message"]["text"], asking);
        assert!(
            run["results"][1]["locations"][0]["physicalLocation"]
                .get("region")
                .is_none()
        );
        assert!(run["results"][3].get("locations").is_none());
        validate(&super::document(&[]));
    }

    #[test]
    fn files_are_uris() {
        assert_eq!(uri("./dir/a.yaml"), "dir/a.yaml");
        assert_eq!(uri("/etc/a.yaml"), "file:///etc/a.yaml");
        assert_eq!(uri("<stdin>"), "%3Cstdin%3E");
    }
}
