//! Values as YAML: the little that is needed to print objects, every text quoted that could be read as something else.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The value as a YAML document, in blocks.
pub(crate) fn print(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(entries) if !entries.is_empty() => map(&mut out, entries, 0, false),
        Value::Array(items) if !items.is_empty() => list(&mut out, items, 0, false),
        other => {
            scalar(&mut out, other);
            out.push('\n');
        }
    }
    out
}

/// `inline`: the first entry goes on where the line stands.
fn map(out: &mut String, entries: &Map<String, Value>, indent: usize, inline: bool) {
    for (number, (key, value)) in entries.iter().enumerate() {
        if number > 0 || !inline {
            spaces(out, indent);
        }
        text(out, key);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                map(out, inner, indent + 2, false);
            }
            Value::Array(inner) if !inner.is_empty() => {
                out.push('\n');
                list(out, inner, indent, false);
            }
            other => {
                out.push(' ');
                scalar(out, other);
                out.push('\n');
            }
        }
    }
}

fn list(out: &mut String, items: &[Value], indent: usize, inline: bool) {
    for (number, item) in items.iter().enumerate() {
        if number > 0 || !inline {
            spaces(out, indent);
        }
        out.push_str("- ");
        match item {
            Value::Object(inner) if !inner.is_empty() => map(out, inner, indent + 2, true),
            Value::Array(inner) if !inner.is_empty() => list(out, inner, indent + 2, true),
            other => {
                scalar(out, other);
                out.push('\n');
            }
        }
    }
}

fn scalar(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        // Writing to a String cannot fail.
        Value::Number(value) => drop(write!(out, "{value}")),
        Value::String(value) => text(out, value),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

fn text(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
    } else {
        quoted(out, text);
    }
}

/// Whether no reader of YAML 1.1 or 1.2 could take the text for anything but this text.
fn is_plain(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '@' | ':' | ' ');
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let ends = text.ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_'));
    let reserved = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    starts
        && ends
        && text.chars().all(word)
        && !text.contains(": ")
        && !reserved.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            ' '..='~' => out.push(c),
            c if c.is_alphanumeric() => out.push(c),
            c => {
                let code = u32::from(c);
                // Writing to a String cannot fail.
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push('"');
}

fn spaces(out: &mut String, n: usize) {
    out.extend(std::iter::repeat_n(' ', n));
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_look_as_people_write_them() {
        let value = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "labels": {}},
            "spec": {"ports": [{"port": 80, "name": "http"}, {}], "nested": [[1, [2]], []], "on": "yes", "empty": ""},
        });
        let wanted = "apiVersion: v1\nkind: Service\nmetadata:\n  labels: {}\n  name: a\nspec:\n  empty: \"\"\n  nested:\n  - - 1\n    - - 2\n  - []\n  \"on\": \"yes\"\n  ports:\n  - name: http\n    port: 80\n  - {}\n";
        assert_eq!(print(&value), wanted);
    }

    /// Texts that readers of YAML have taken for something else, and whatever else.
    fn texts() -> impl Strategy<Value = String> {
        let odd = [
            "yes",
            "No",
            "ON",
            "y",
            "null",
            "~",
            "",
            " ",
            "true",
            "0x1f",
            "0755",
            "1_000",
            "1:20",
            "1e3",
            ".inf",
            "-",
            "- a",
            "a: b",
            "a #b",
            "#",
            "&a",
            "*a",
            "!t",
            "<<",
            "=",
            "%",
            "@a",
            "`",
            "?",
            "2026-01-01",
            "a:",
            ":a",
            "|",
            ">",
            "'",
            "\"",
            "\\",
            "a\nb",
            "a\r\nb",
            "\tb",
            " a",
            "a ",
            "---",
            "...",
            "\u{85}",
            "\u{2028}",
            "\u{feff}",
            "\u{7f}",
            "\u{1b}[2J",
            "é",
            "😀",
            "[",
            "{",
            ",",
            "spiffe://cluster.local/ns/a/sa/b",
        ];
        prop_oneof![
            proptest::sample::select(odd.to_vec()).prop_map(str::to_owned),
            "[ -~]{0,12}",
            any::<String>(),
        ]
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e12f64..1e12).prop_map(Value::from),
            texts().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 60, 6, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..6).prop_map(Value::from),
                btree_map(texts(), inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_as_the_same(value in values()) {
            let object = json!({
                "apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x", "namespace": "n"}, "spec": value,
            });
            let yaml = print(&object);
            let parsed = api::parse("printed.yaml", yaml.as_bytes());
            prop_assert!(parsed.objects.len() == 1, "{yaml}\n{:?}", parsed.problems);
            prop_assert_eq!(&parsed.objects[0].json, &object, "{}", yaml);
            prop_assert!(yaml.chars().all(|c| !c.is_control() || c == '\n'), "{yaml:?}");
        }
    }
}
