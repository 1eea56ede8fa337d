//! RequestAuthentication (semantics 4.1), as far as one object shows it.

use serde_json::Value;

use super::at::At;
use super::{selector, targets};
use crate::forms::addresses::is_web_address;
use crate::forms::{durations, headers};
use crate::problem::Span;
use crate::report::Report;
use crate::yaml::Node;

const KEYS: &[&str] = &["jwksUri", "jwks_uri", "jwks"];

pub(super) fn request(spec: &Node, report: &mut Report<'_>) {
    selector(spec, "selector", report);
    targets(spec, report);
    for rule in At::new(spec, "spec").list("jwtRules") {
        jwt_rule(&rule, report);
    }
}

fn jwt_rule(rule: &At<'_>, report: &mut Report<'_>) {
    not_empty(rule, "issuer", report);
    issuer_and_keys(rule, report);
    for list in ["audiences", "fromParams", "fromCookies", "spaceDelimitedClaims"] {
        for item in rule.list(list).filter(|item| item.node.text() == Some("")) {
            refuse(
                &item,
                report,
                &format!("an entry of `{list}` is empty"),
                "give it a text, or take it out",
            );
        }
    }
    for name in ["jwksUri", "jwks_uri"] {
        if let Some(address) = rule.get(name)
            && let Some(text) = address.node.text()
            && !is_web_address(text)
        {
            refuse(
                &address,
                report,
                &format!("`{text}` is not an http or https address"),
                "write it as https://HOST[:PORT]/PATH",
            );
        }
    }
    if let Some(keys) = rule.get("jwks").filter(|keys| !keys.own().is_empty()) {
        key_set(&keys, report);
    }
    for output in rule.list("outputClaimToHeaders") {
        not_empty(&output, "claim", report);
        not_empty(&output, "header", report);
        if let Some(header) = output.get("header").filter(|header| !header.own().is_empty())
            && let Err(why) = headers::strict_name(header.own())
        {
            refuse(&header, report, &why, "use letters, digits, `-` and `_`");
        }
    }
    for header in rule.list("fromHeaders") {
        not_empty(&header, "name", report);
    }
    if let Some(timeout) = rule.get("timeout")
        && let Some(text) = timeout.node.text()
        && let Err(why) = durations::whole_ms(text)
    {
        refuse(&timeout, report, &why, "write for example `5s`");
    }
}

/// Whose tokens, and by which keys.
fn issuer_and_keys(rule: &At<'_>, report: &mut Report<'_>) {
    let mut there = rule
        .node
        .entries()
        .iter()
        .filter(|(key, value)| KEYS.contains(&key.text.as_str()) && !value.is_null());
    if let (Some((first, _)), Some((second, _))) = (there.next(), there.next()) {
        let why = format!("`{}` and `{}` cannot both be set", first.text, second.text);
        told(rule, second.span, report, &why, "keep the one that is meant");
    }
    if rule.has("issuer") {
        return;
    }
    if !rule.has("jwksUri") && !rule.has("jwks_uri") {
        report
            .error(
                "MW0102",
                rule.node.span,
                "the rule has neither `issuer` nor `jwksUri`",
            )
            .path(&rule.path)
            .remedy("add `issuer:`");
    } else {
        report
            .error(
                "MW0303",
                rule.node.span,
                "without `issuer` the tokens of every issuer are accepted that the keys fit",
            )
            .path(&rule.path)
            .remedy("add `issuer:`");
    }
}

fn not_empty(at: &At<'_>, name: &str, report: &mut Report<'_>) {
    if let Some(value) = at.get(name).filter(|value| value.node.text() == Some("")) {
        refuse(
            &value,
            report,
            &format!("`{name}` is empty"),
            &format!("give `{name}` a text"),
        );
    }
}

fn key_set(at: &At<'_>, report: &mut Report<'_>) {
    let paste = "paste the issuer's key set as it is";
    let set = serde_json::from_str::<Value>(at.own()).ok();
    let Some(keys) = set.as_ref().and_then(|set| set.get("keys")?.as_array()) else {
        return refuse(
            at,
            report,
            "`jwks` is not a JSON object with a list `keys`",
            paste,
        );
    };
    let mut faults = keys.iter().map(key_fault).enumerate();
    if let Some((index, why)) = faults.find_map(|(index, why)| Some((index, why?))) {
        return refuse(at, report, &format!("key {index} of `jwks` {why}"), paste);
    }
    let private = |key: &Value| ["d", "p", "q", "k"].iter().any(|part| key.get(part).is_some());
    if keys.iter().any(private) {
        report
            .warning("MW0208", at.node.span, "`jwks` holds a private or a shared key")
            .path(&at.path)
            .remedy("keep public keys here only, and replace the key that was shown");
    }
}

/// Why it is not a key (RFC 7517, 7518, 8037): its type and its parts. Whether the numbers make a key is found where it
/// is used.
fn key_fault(key: &Value) -> Option<String> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let parts: &[&str] = match text("kty") {
        Some("RSA") => &["n", "e"],
        Some("EC") => &["x", "y"],
        Some("OKP") => &["x"],
        Some("oct") => &["k"],
        Some(other) => return Some(format!("has the type `{other}`, which is not known")),
        None => return Some("has no `kty`".to_owned()),
    };
    if matches!(text("kty"), Some("EC" | "OKP")) && text("crv").is_none() {
        return Some("has no `crv`".to_owned());
    }
    let base64 = |text: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_+/=".contains(&b);
        !text.is_empty() && text.bytes().all(fits)
    };
    if let Some(part) = parts.iter().find(|part| !text(part).is_some_and(base64)) {
        return Some(format!("has no `{part}` in base64"));
    }
    ["kid", "alg", "use"]
        .iter()
        .find(|name| key.get(**name).is_some_and(|value| !value.is_string()))
        .map(|name| format!("has a `{name}` that is not text"))
}

fn refuse(at: &At<'_>, report: &mut Report<'_>, why: &str, remedy: &str) {
    told(at, at.node.span, report, why, remedy);
}

/// What a key set holds is not shown again: it may be a secret.
fn told(at: &At<'_>, span: Span, report: &mut Report<'_>, why: &str, remedy: &str) {
    let shown = at.node.written().filter(|_| !at.path.ends_with(".jwks"));
    report
        .error("MW0207", span, why)
        .path(&at.path)
        .value(shown.unwrap_or_default())
        .remedy(remedy);
}
