//! Broken documents, each with the very words that its author reads: file, line, column, the offending text, the remedy.
//! `UPDATE_GOLDEN=1` rewrites them.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]
#![expect(clippy::disallowed_methods, reason = "the tests of a pure crate read files")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use api::{Problem, Severity};
use testkit::golden;

/// Documents that are odd and not wrong.
const WARNED: &[&str] = &["empty", "only-comments"];

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad")
}

/// The problems as lines, each with the line of the file and a mark under what is meant.
fn told(problems: &[Problem]) -> String {
    let mut out = String::new();
    for problem in problems {
        writeln!(out, "{}", problem.one_line()).unwrap();
        let Some(source) = &problem.source else { continue };
        let column = usize::try_from(problem.column).unwrap();
        let length = usize::try_from(problem.length).unwrap();
        let before: String = source.chars().take(column - 1).collect();
        let blank: String = before.chars().map(|c| if c == '\t' { c } else { ' ' }).collect();
        writeln!(out, "  {source}\n  {blank}{}", "^".repeat(length.max(1))).unwrap();
    }
    out
}

#[test]
fn every_broken_document_has_its_message() {
    let mut names: Vec<String> = std::fs::read_dir(corpus())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned))
        .collect();
    names.sort();
    let mut wrong = Vec::new();
    for name in &names {
        let text = std::fs::read(corpus().join(format!("{name}.yaml"))).unwrap();
        let parsed = api::parse(&format!("{name}.yaml"), &text);
        let worst = parsed.problems.iter().map(|problem| problem.severity).max();
        let wanted = if WARNED.contains(&name.as_str()) {
            Severity::Warning
        } else {
            Severity::Error
        };
        assert_eq!(worst, Some(wanted), "{name}: {:?}", parsed.problems);
        for problem in parsed.problems.iter().filter(|p| p.severity >= Severity::Warning) {
            assert!(problem.remedy.is_some(), "{name} has no remedy: {problem}");
            assert!(
                problem.line > 0 && problem.column > 0 || name == "utf-16",
                "{name}: {problem}"
            );
        }
        wrong.extend(golden::differs(
            &corpus().join(format!("{name}.txt")),
            &told(&parsed.problems),
        ));
    }
    assert!(names.len() > 20, "the corpus is gone: {names:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_message_without_a_document_is_no_golden_file() {
    for entry in std::fs::read_dir(corpus()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "txt") {
            assert!(path.with_extension("yaml").is_file(), "{}", path.display());
        }
    }
}

#[test]
fn ten_megabytes_are_refused_at_once() {
    let text = "# x\n".repeat(10 * 1024 * 1024 / 4);
    let begun = std::time::Instant::now();
    let parsed = api::parse("large.yaml", text.as_bytes());
    assert!(begun.elapsed() < std::time::Duration::from_millis(500));
    let told = told(&parsed.problems);
    assert_eq!(
        told,
        "large.yaml: error[MW0001]: the file has 10485760 bytes, and at most 8388608 (8 MiB) are read; split it into several files\n"
    );
    assert!(parsed.objects.is_empty());
}

#[test]
fn line_ends_and_byte_order_marks_of_other_systems_are_read() {
    let plain = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  ports:\n  - port: 80\n";
    let read = |text: &str| {
        let parsed = api::parse("a.yaml", text.as_bytes());
        assert_eq!(parsed.problems, [], "{text:?}");
        parsed.objects[0].json.clone()
    };
    let wanted = read(plain);
    assert_eq!(read(&plain.replace('\n', "\r\n")), wanted);
    assert_eq!(read(&format!("\u{feff}{plain}")), wanted);
}

/// Names, prefixes and keys are looked up, not compared each with each: 40 000 of them would be 800 million comparisons.
#[test]
fn a_long_list_costs_what_its_length_costs() {
    let head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\nspec:\n";
    let to = "[{destination: {host: a}}]";
    type Item = fn(u32) -> String;
    let lists: [(String, Item); 3] = [
        (format!("{head}  http: [{{route: {to}}}]\n  hosts:\n"), |i| {
            format!("  - a{i}.b\n")
        }),
        (
            format!("{head}  hosts: [a.b]\n  http:\n  - route: {to}\n    match:\n"),
            |i| format!("    - uri: {{prefix: /a{i}}}\n"),
        ),
        (
            format!(
                "{head}  hosts: ['*.b']\n  gateways: [g]\n  tls:\n  - route: {to}\n    match:\n    - sniHosts:\n"
            ),
            |i| format!("      - a{i}.b\n"),
        ),
    ];
    for (head, item) in lists {
        let text = head + &(0..40_000).map(item).collect::<String>();
        let begun = std::time::Instant::now();
        let parsed = api::parse("a.yaml", text.as_bytes());
        assert!(!parsed.has_errors(), "{:?}", parsed.problems.first());
        assert!(
            begun.elapsed() < std::time::Duration::from_secs(20),
            "{:?}",
            begun.elapsed()
        );
    }
}

/// Only so many problems of a file are kept. What comes after them is refused all the same.
#[test]
fn a_policy_behind_hundreds_of_mistakes_is_invalid_too() {
    let mut text = String::new();
    for index in 0..500 {
        writeln!(
            text,
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s{index}}}\nspec: {{prts: 1}}\n---"
        )
        .unwrap();
    }
    text.push_str(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: last}\n\
         spec: {action: ALLOW, rules: [{from: [{source: {ipBlocks: [x]}}]}]}\n",
    );
    let parsed = api::parse("a.yaml", text.as_bytes());
    assert!(parsed.problems.len() < 500, "{}", parsed.problems.len());
    let last = parsed.objects.last().unwrap();
    assert!(last.invalid.is_some(), "{last:?}");
    assert_eq!(parsed.rejected.len(), 500);
}

/// Nothing is half applied: a policy that is broken denies what it targets, and anything else is left out.
#[test]
fn what_is_broken_is_never_used_as_if_it_were_whole() {
    for entry in std::fs::read_dir(corpus()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "yaml") {
            continue;
        }
        let parsed = api::parse("a.yaml", &std::fs::read(&path).unwrap());
        let twice = path.file_stem().is_some_and(|name| name == "one-name-twice");
        for object in parsed.objects.iter().filter(|_| !twice) {
            assert!(
                object.invalid.is_some(),
                "{}: {:?}",
                path.display(),
                object.reference()
            );
            assert!(
                object.api_version.starts_with("security.istio.io/"),
                "{}",
                path.display()
            );
        }
    }
}
