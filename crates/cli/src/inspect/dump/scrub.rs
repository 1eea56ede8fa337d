//! Takes secrets out of what is handed on. Pure.
//!
//! Two passes: by what a field is called, where there are fields, and by what a text looks like, everywhere.

use std::borrow::Cow;

use serde_json::Value;

/// What stands in a secret's place.
const REDACTED: &str = "REDACTED";

/// Parts of names that speak of secrets, in lower case without `-` and `_`.
const NAMES: [&str; 14] = [
    "password",
    "passwd",
    "secret",
    "token",
    "authorization",
    "cookie",
    "apikey",
    "privatekey",
    "credential",
    "passphrase",
    "signature",
    "assertion",
    "lastappliedconfiguration",
    "bearer",
];

/// Names that speak of secrets and hold none.
const HARMLESS: [&str; 9] = [
    "serviceaccounttoken",
    "automountserviceaccounttoken",
    "forwardoriginaltoken",
    "secretname",
    "secrets",
    "imagepullsecrets",
    "credentialname",
    "fromcookies",
    "requestauthentication",
];

/// Members of a JSON Web Key that are private (RFC 7518, 6.2.2, 6.3.2, 6.4.1).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Takes secrets out of a document.
pub(crate) fn value(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let is_key = map.contains_key("kty");
            // `{name, value}`: a variable of an environment, or a header.
            let is_variable = map.contains_key("name") && map.contains_key("value");
            for (name, inner) in map.iter_mut() {
                let secret = (is_key && PRIVATE_MEMBERS.contains(&name.as_str()))
                    || (is_variable && name == "value")
                    || speaks_of_a_secret(name, inner);
                if secret && !inner.is_null() {
                    *inner = Value::from(REDACTED);
                } else {
                    self::value(inner);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(self::value),
        Value::String(inner) => {
            // A text may hold a document of its own: inline keys, a mesh configuration.
            if inner.trim_start().starts_with(['{', '['])
                && let Ok(mut document) = serde_json::from_str::<Value>(inner)
            {
                self::value(&mut document);
                *inner = document.to_string();
            }
            if let Cow::Owned(clean) = text(inner) {
                *inner = clean;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Only a text is a secret; where there is more below, that is looked through.
fn speaks_of_a_secret(name: &str, inner: &Value) -> bool {
    let bare: String = name
        .chars()
        .filter(|c| !matches!(c, '-' | '_' | '.' | '/'))
        .flat_map(char::to_lowercase)
        .collect();
    let named = NAMES.iter().any(|part| bare.contains(part));
    match inner {
        Value::String(_) => named && !HARMLESS.contains(&bare.as_str()),
        Value::Array(list) => {
            named && list.iter().all(Value::is_string) && !HARMLESS.contains(&bare.as_str())
        }
        _ => false,
    }
}

/// Takes whatever looks like a secret out of a text: private keys in PEM, JSON Web Tokens, and what follows the word
/// that an `Authorization` header begins with.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    let suspicious = text.contains("PRIVATE KEY")
        || text.contains("eyJ")
        || ["earer ", "asic ", "uthorization"]
            .iter()
            .any(|word| text.contains(word))
        || text.contains("UTHORIZATION");
    if !suspicious {
        return Cow::Borrowed(text);
    }
    let text = keys(text);
    let mut out = String::with_capacity(text.len());
    let mut before = "";
    for word in words(&text) {
        let bare = word.trim_end();
        let space = word.get(bare.len()..).unwrap_or_default();
        let scheme = before.trim_end_matches([':', '=', '"', '\'']);
        let scheme = scheme.rsplit(['"', '\'', ':', '=']).next().unwrap_or_default();
        let follows = ["bearer", "basic"].iter().any(|s| scheme.eq_ignore_ascii_case(s));
        if follows && !bare.is_empty() && bare.len() > 3 {
            let tail: String = bare
                .chars()
                .rev()
                .take_while(|c| "\"',}])".contains(*c))
                .collect();
            out.push_str(REDACTED);
            out.extend(tail.chars().rev());
        } else {
            out.push_str(&tokens(bare));
        }
        out.push_str(space);
        before = bare;
    }
    Cow::Owned(out)
}

/// Words, each with the white space that follows it.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let after = rest.get(word..).unwrap_or_default();
        let space = after.len() - after.trim_start().len();
        let (taken, left) = rest.split_at_checked(word + space)?;
        rest = left;
        Some(taken)
    })
}

/// Private keys in PEM, from the line that begins one to the line that ends it, or to the end.
fn keys(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("-----BEGIN ") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let head = from.get(11..).and_then(|head| head.split("-----").next());
        if !head.is_some_and(|head| head.contains("PRIVATE KEY")) {
            let (mark, after) = from.split_at(11);
            out.push_str(mark);
            rest = after;
            continue;
        }
        out.push_str(REDACTED);
        let end = from.find("-----END ").and_then(|end| {
            let after = from.get(end + 9..)?;
            Some(end + 9 + after.find("-----")? + 5)
        });
        rest = end.and_then(|end| from.get(end..)).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// JSON Web Tokens within a word: `eyJ…`, a dot, and so on. One without its signature is one all the same.
fn tokens(word: &str) -> Cow<'_, str> {
    if !word.contains("eyJ") {
        return Cow::Borrowed(word);
    }
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=');
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find("eyJ") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let end = from.find(|c| !part(c)).unwrap_or(from.len());
        let (token, after) = from.split_at(end);
        out.push_str(match token.contains('.') {
            true => REDACTED,
            false => token,
        });
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln";

    #[test]
    fn fields_that_speak_of_secrets_lose_their_values() {
        let mut document = json!({
            "env": [{"name": "PASSWORD", "value": "hunter2"}, {"name": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "headers": [["authorization", "x"], ["x-team", "blue"]],
            "clientSecret": "hunter2", "api_key": "hunter2", "tokens": ["hunter2"], "secrets": ["by-name"],
            "jwks": format!("{{\"keys\":[{{\"kty\":\"oct\",\"k\":\"hunter2\"}},{{\"kty\":\"RSA\",\"n\":\"public\",\"d\":\"hunter2\"}}]}}"),
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "hunter2"},
            "serviceAccountToken": {"audience": "istio-ca"}, "credentialName": "gateway-cert",
            "path": format!("/a?x={JWT}"),
            "note": null,
        });
        value(&mut document);
        let text = document.to_string();
        assert!(!text.contains("hunter2") && !text.contains(JWT), "{text}");
        for kept in [
            "secretKeyRef",
            "blue",
            "public",
            "istio-ca",
            "gateway-cert",
            "by-name",
        ] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
    }

    #[test]
    fn what_looks_like_a_secret_leaves_every_text() {
        let pem = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\n-----END EC PRIVATE KEY-----";
        for (given, expect) in [
            (format!("a {pem} b"), "a REDACTED b".to_owned()),
            ("a -----BEGIN PRIVATE KEY-----\nMHc".into(), "a REDACTED".into()),
            (
                "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----".into(),
                "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----".into(),
            ),
            (
                "authorization: Bearer abcdef\nnext".into(),
                "authorization: Bearer REDACTED\nnext".into(),
            ),
            (
                "{\"authorization\":\"Basic dXNlcjpw\"}".into(),
                "{\"authorization\":\"Basic REDACTED\"}".into(),
            ),
            (format!("token={JWT},x"), "token=REDACTED,x".into()),
            (
                "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0. y".into(),
                "REDACTED y".into(),
            ),
            ("a basic one".into(), "a basic one".into()),
            ("plain".into(), "plain".into()),
        ] {
            assert_eq!(text(&given), expect, "{given}");
        }
    }
}
