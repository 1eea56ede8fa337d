//! What a verified token says, for authorization and for headers.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy::{Claim, ClaimLookup};
use serde_json::{Map, Number, Value};

/// The longest header value that a claim is written into, bytes.
pub const MAX_HEADER_VALUE: usize = 8 * 1024;

/// Claims that are split at spaces wherever they occur (semantics 4.1).
const SPACE_DELIMITED: &[&str] = &["scope", "permission"];

/// The claims of a verified token. What they say of a person is not printed.
#[derive(Clone, PartialEq)]
pub struct Claims {
    payload: Map<String, Value>,
    /// Top-level claims that were written as one string with spaces, split.
    split: BTreeMap<String, Vec<String>>,
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims")
            .field("issuer", &self.issuer())
            .finish_non_exhaustive()
    }
}

impl Claims {
    /// `delimited` names further claims that are split at spaces.
    pub(crate) fn new(payload: Map<String, Value>, delimited: &[String]) -> Self {
        let mut split = BTreeMap::new();
        for name in SPACE_DELIMITED
            .iter()
            .copied()
            .chain(delimited.iter().map(String::as_str))
        {
            if let Some(Value::String(text)) = payload.get(name) {
                let parts: Vec<String> = text
                    .split(' ')
                    .filter(|part| !part.is_empty())
                    .map(str::to_owned)
                    .collect();
                if !parts.is_empty() {
                    split.insert(name.to_owned(), parts);
                }
            }
        }
        Self { payload, split }
    }

    /// `iss`; empty where absent.
    pub fn issuer(&self) -> &str {
        self.text("iss")
    }

    /// `sub`; empty where absent.
    pub fn subject(&self) -> &str {
        self.text("sub")
    }

    fn text(&self, name: &str) -> &str {
        self.payload.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A claim as Istio writes it into a header: strings as they are, numbers and booleans as text, lists and objects as
    /// base64 of their JSON. `path` has dots between the names of nested claims. `None` where it is absent, null or
    /// empty, or its value is not one that a header can have.
    pub(crate) fn header_value(&self, path: &str) -> Option<String> {
        let mut names = path.split('.');
        let mut value = self.payload.get(names.next()?)?;
        for name in names {
            value = value.as_object()?.get(name)?;
        }
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number_text(number),
            Value::Bool(value) => value.to_string(),
            Value::Array(_) | Value::Object(_) => STANDARD.encode(value.to_string()),
            Value::Null => return None,
        };
        is_header_value(&text).then_some(text)
    }
}

impl ClaimLookup for Claims {
    fn any(&self, path: &[String], visit: &mut dyn FnMut(Claim<'_>) -> bool) -> bool {
        let Some((first, rest)) = path.split_first() else {
            return false;
        };
        if let Some(parts) = self.split.get(first).filter(|_| rest.is_empty()) {
            return parts.iter().any(|part| visit(Claim::Text(part)));
        }
        let mut value = self.payload.get(first);
        for name in rest {
            value = value.and_then(Value::as_object).and_then(|map| map.get(name));
        }
        match value {
            None => false,
            Some(Value::Array(list)) => list.iter().any(|value| visit_one(value, visit)),
            Some(value) => visit_one(value, visit),
        }
    }
}

/// Objects, lists within lists and null are not visited.
fn visit_one(value: &Value, visit: &mut dyn FnMut(Claim<'_>) -> bool) -> bool {
    match value {
        Value::String(text) => visit(Claim::Text(text)),
        Value::Bool(value) => visit(Claim::Scalar(if *value { "true" } else { "false" })),
        Value::Number(number) => visit(Claim::Scalar(&canonical(number))),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// The same number has one text, however it was written (R25): 7, 7.0 and 7e0 are `7`.
fn canonical(number: &Number) -> String {
    match number.as_f64() {
        // Integers that a float holds exactly.
        Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 => {
            format!("{:.0}", value + 0.0)
        }
        _ => number.to_string(),
    }
}

/// As Envoy writes it: integers that are not negative as they are, all others with six decimals.
fn number_text(number: &Number) -> String {
    match (number.as_u64(), number.as_f64()) {
        (Some(integer), _) => integer.to_string(),
        (None, Some(value))
            if value.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(&value) =>
        {
            format!("{value:.0}")
        }
        (None, Some(value)) => format!("{value:.6}"),
        (None, None) => String::new(),
    }
}

/// RFC 9110, 5.5: no control characters, and no space at either end.
fn is_header_value(text: &str) -> bool {
    let plain = |b: u8| b == b'\t' || (b >= b' ' && b != 0x7f);
    let space = [' ', '\t'];
    !text.is_empty()
        && text.len() <= MAX_HEADER_VALUE
        && text.bytes().all(plain)
        && !text.starts_with(space)
        && !text.ends_with(space)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(payload: Value, delimited: &[&str]) -> Claims {
        let Value::Object(payload) = payload else {
            panic!("an object");
        };
        let delimited: Vec<String> = delimited.iter().map(|name| (*name).to_owned()).collect();
        Claims::new(payload, &delimited)
    }

    fn found(claims: &Claims, path: &[&str]) -> Vec<String> {
        let path: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
        let mut all = Vec::new();
        claims.any(&path, &mut |claim| {
            all.push(match claim {
                Claim::Text(text) => format!("text {text}"),
                Claim::Scalar(text) => format!("scalar {text}"),
            });
            false
        });
        all
    }

    #[test]
    fn jw_50_to_52_strings_with_spaces_are_lists_where_the_rule_or_istio_says_so() {
        let payload = json!({"scope": "read  write", "permission": "a", "custom": "x y", "other": "x y",
            "deep": {"scope": "a b"}});
        let claims = claims(payload, &["custom"]);
        assert_eq!(found(&claims, &["scope"]), ["text read", "text write"]);
        assert_eq!(found(&claims, &["permission"]), ["text a"]);
        assert_eq!(found(&claims, &["custom"]), ["text x", "text y"]);
        assert_eq!(found(&claims, &["other"]), ["text x y"]);
        assert_eq!(found(&claims, &["deep", "scope"]), ["text a b"]);
        assert_eq!(claims.header_value("scope").as_deref(), Some("read  write"));
    }

    #[test]
    fn jw_53_to_55_nested_claims_and_lists_are_found_by_their_path() {
        let claims = claims(
            json!({"nested": {"key1": ["a", "b"], "nested-2": {"key2": "c"}}, "aud": "foo", "azp": "bar",
                "https://example.com/x": "y", "list": [["inner"], {"k": "v"}, null]}),
            &[],
        );
        assert_eq!(found(&claims, &["nested", "key1"]), ["text a", "text b"]);
        assert_eq!(found(&claims, &["nested", "nested-2", "key2"]), ["text c"]);
        assert_eq!(found(&claims, &["aud"]), ["text foo"]);
        assert_eq!(found(&claims, &["azp"]), ["text bar"]);
        assert_eq!(found(&claims, &["https://example.com/x"]), ["text y"]);
        for none in [
            &["nested"][..],
            &["nested", "key3"],
            &["aud", "x"],
            &["list"],
            &[],
        ] {
            assert!(found(&claims, none).is_empty(), "{none:?}");
        }
    }

    #[test]
    fn jw_56_r25_numbers_and_booleans_are_scalars_with_one_spelling_each() {
        let claims = claims(
            json!({"n": [7, 7.0, -3, 1.5, 1e3, -0.0], "b": [true, false]}),
            &[],
        );
        let numbers = [
            "scalar 7",
            "scalar 7",
            "scalar -3",
            "scalar 1.5",
            "scalar 1000",
            "scalar 0",
        ];
        assert_eq!(found(&claims, &["n"]), numbers);
        assert_eq!(found(&claims, &["b"]), ["scalar true", "scalar false"]);
    }

    #[test]
    fn jw_07_headers_take_claims_in_the_forms_that_istio_writes() {
        let claims = claims(
            json!({"s": "v", "i": 42, "big": 18_446_744_073_709_551_615_u64, "neg": -5, "f": 1.5, "t": true,
                "l": ["a", 1], "o": {"a": "b"}, "null": null, "empty": "", "a": {"b": {"c": "deep"}}, "a.b": "flat"}),
            &[],
        );
        let rows = [
            ("s", Some("v")),
            ("i", Some("42")),
            ("big", Some("18446744073709551615")),
            ("neg", Some("-5.000000")),
            ("f", Some("1.500000")),
            ("t", Some("true")),
            ("l", Some("WyJhIiwxXQ==")),
            ("o", Some("eyJhIjoiYiJ9")),
            ("null", None),
            ("empty", None),
            ("a.b.c", Some("deep")),
            ("a.b", Some("eyJjIjoiZGVlcCJ9")),
            ("a.x", None),
            ("s.x", None),
            ("", None),
        ];
        for (path, value) in rows {
            assert_eq!(claims.header_value(path).as_deref(), value, "{path}");
        }
    }

    #[test]
    fn a_claim_that_no_header_can_have_is_not_written() {
        for bad in ["a\r\nx: y", "a\nb", "\0", "a\u{7f}", " a", "a\t", "\u{1b}"] {
            assert_eq!(claims(json!({"s": bad}), &[]).header_value("s"), None, "{bad:?}");
        }
        let long = "a".repeat(MAX_HEADER_VALUE + 1);
        assert_eq!(claims(json!({"s": long}), &[]).header_value("s"), None);
        let umlaut = claims(json!({"s": "Müller a"}), &[]).header_value("s");
        assert_eq!(umlaut.as_deref(), Some("Müller a"));
    }
}
