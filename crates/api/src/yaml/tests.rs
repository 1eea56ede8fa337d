//! The YAML front by example.

use serde_json::json;

use super::documents;
use crate::report::Report;

fn read(text: &str) -> serde_json::Value {
    let mut report = Report::new("f", text);
    let documents = documents(text, &mut report);
    assert_eq!(report.len(), 0, "{:?}", report.finish());
    documents
        .first()
        .map_or(serde_json::Value::Null, |document| document.root.to_json())
}

#[test]
fn plain_scalars_are_yaml_1_1() {
    let text = "a: yes\nb: off\nc: 0755\nd: 0x1F\ne: 1_000\nf: 1.5\ng: ~\nh: '1'\ni: 1.2.3\nj: -7\nk: +3\nl: 08\nm: y\nn: 2026-01-02\no: 0o17\np: 1e3\nq: -\u{20}x";
    let want = json!({"a": true, "b": false, "c": 493, "d": 31, "e": 1000, "f": 1.5, "h": "1", "i": "1.2.3",
        "j": -7, "k": 3, "l": 8.0, "m": "y", "n": "2026-01-02", "o": 15, "p": 1000.0, "q": "- x"});
    let text = text.replace("q: - x", "q: '- x'");
    assert_eq!(read(&text), want);
}

#[test]
fn aliases_and_merges_are_expanded() {
    let text = "base: &b {x: 1, y2: 2}\nuse:\n  <<: *b\n  x: 3\nagain: *b\n";
    let want = json!({"base": {"x": 1, "y2": 2}, "use": {"x": 3, "y2": 2}, "again": {"x": 1, "y2": 2}});
    assert_eq!(read(text), want);
}

#[test]
fn json_is_read() {
    assert_eq!(
        read("{\"a\": [1, \"yes\", null, true]}"),
        json!({"a": [1, "yes", null, true]})
    );
}

#[test]
fn places_are_exact() {
    let text = "spec:\n  rules:\n  - from: x\n    a.b/c: ü: y\n  labels: {app.io/n: v}\n";
    let text = text.replace("ü: y", "ü y");
    let mut report = Report::new("f", &text);
    let document = documents(&text, &mut report).remove(0);
    let at = |path| {
        let span = document.root.span_at(path);
        (span.line, span.column, span.length)
    };
    assert_eq!(at("spec"), (1, 1, 4));
    assert_eq!(at("spec.rules[0].from"), (3, 11, 1));
    assert_eq!(at("spec.rules[0].a.b/c"), (4, 12, 3));
    assert_eq!(at("spec.labels.app.io/n"), (5, 22, 1));
    assert_eq!(at("spec.rules[0].missing"), (3, 5, 4));
}

#[test]
fn an_address_may_end_a_list_in_brackets() {
    assert_eq!(
        read("a: [1.2.3.4, 2001:db8::]\nb: [::, {c: }]\nd:\n- e:\n"),
        json!({"a": ["1.2.3.4", "2001:db8::"], "b": ["::", {}], "d": [{}]})
    );
}
