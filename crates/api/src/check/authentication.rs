//! PeerAuthentication and RequestAuthentication.

use serde_json::Value;

use super::{selector, targets};
use crate::forms::addresses::is_web_address;
use crate::forms::durations;
use crate::report::Report;
use crate::yaml::Node;

/// Semantics 1.1.
pub(super) fn peer(spec: &Node, report: &mut Report<'_>) {
    selector(spec, "selector", report);
    let Some((key, ports)) = spec.entry("portLevelMtls").filter(|(_, node)| !node.is_null()) else {
        return;
    };
    if ports.entries().is_empty() {
        report
            .error("MW0206", key.span, "`portLevelMtls` is there and names no port")
            .path("spec.portLevelMtls")
            .remedy("name a port, or leave it out");
    }
    let labels = spec.child("selector").and_then(|s| s.child("matchLabels"));
    if labels.is_none_or(|labels| labels.entries().is_empty()) {
        report
            .error(
                "MW0206",
                key.span,
                "`portLevelMtls` needs a `selector`: ports belong to a workload",
            )
            .path("spec.portLevelMtls")
            .remedy("add `selector:` with the workload's labels");
    }
    for (port, _) in ports.entries() {
        if port.text.parse::<u16>().is_ok_and(|number| number > 0) {
            continue;
        }
        report
            .error(
                "MW0206",
                port.span,
                format!("`{}` is not a port from 1 to 65535", port.text),
            )
            .path(format!("spec.portLevelMtls.{}", port.text))
            .value(&port.text)
            .remedy("write the workload's port (the container's, not the Service's)");
    }
}

/// Semantics 4.1, as far as one object shows it.
pub(super) fn request(spec: &Node, report: &mut Report<'_>) {
    selector(spec, "selector", report);
    targets(spec, report);
    for rule in spec.child("jwtRules").map(Node::items).unwrap_or_default() {
        if !rule.is_null() {
            jwt_rule(rule, report);
        }
    }
}

fn jwt_rule(rule: &Node, report: &mut Report<'_>) {
    not_empty(rule, "issuer", report);
    issuer_and_keys(rule, report);
    for list in ["audiences", "fromParams", "fromCookies", "spaceDelimitedClaims"] {
        for item in rule.child(list).map(Node::items).unwrap_or_default() {
            if item.text().is_some_and(str::is_empty) {
                report
                    .error("MW0207", item.span, format!("an entry of `{list}` is empty"))
                    .remedy("give it a text, or take it out");
            }
        }
    }
    for name in ["jwksUri", "jwks_uri"] {
        if let Some(node) = rule.child(name)
            && let Some(text) = node.text()
            && !text.is_empty()
            && !is_web_address(text)
        {
            report
                .error(
                    "MW0207",
                    node.span,
                    format!("`{text}` is not an http or https address"),
                )
                .value(text)
                .remedy("write it as https://HOST[:PORT]/PATH");
        }
    }
    if let Some(node) = rule.child("jwks")
        && let Some(text) = node.text()
        && !text.is_empty()
    {
        key_set(node, text, report);
    }
    for output in rule
        .child("outputClaimToHeaders")
        .map(Node::items)
        .unwrap_or_default()
    {
        not_empty(output, "claim", report);
        not_empty(output, "header", report);
        if let Some(node) = output.child("header")
            && let Some(text) = node.text()
            && !text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        {
            report
                .error(
                    "MW0207",
                    node.span,
                    format!("`{text}` is not the name of a header"),
                )
                .value(text)
                .remedy("use letters, digits, `-` and `_`");
        }
    }
    for header in rule.child("fromHeaders").map(Node::items).unwrap_or_default() {
        not_empty(header, "name", report);
    }
    if let Some(node) = rule.child("timeout")
        && let Some(text) = node.text()
        && let Err(why) = durations::whole_ms(text)
    {
        report
            .error("MW0207", node.span, why)
            .value(text)
            .remedy("write for example `5s`");
    }
}

/// Whose tokens, and by which keys.
fn issuer_and_keys(rule: &Node, report: &mut Report<'_>) {
    let mut keys = rule.entries().iter().filter(|(key, value)| {
        matches!(key.text.as_str(), "jwksUri" | "jwks_uri" | "jwks") && !value.is_null()
    });
    let first = keys.next();
    if let (Some((first, _)), Some((second, _))) = (first, keys.next()) {
        report
            .error(
                "MW0207",
                second.span,
                format!("`{}` and `{}` cannot both be set", first.text, second.text),
            )
            .value(&second.text)
            .remedy("keep the one that is meant");
    }
    if rule.set("issuer").is_some() {
        return;
    }
    if rule.set("jwksUri").is_none() && rule.set("jwks_uri").is_none() {
        report
            .error("MW0102", rule.span, "the rule has neither `issuer` nor `jwksUri`")
            .remedy("add `issuer:`");
    } else {
        report
            .error(
                "MW0303",
                rule.span,
                "without `issuer` the tokens of every issuer are accepted that the keys fit",
            )
            .remedy("add `issuer:`");
    }
}

fn not_empty(node: &Node, name: &str, report: &mut Report<'_>) {
    if let Some(value) = node.child(name)
        && value.text().is_some_and(str::is_empty)
    {
        report
            .error("MW0207", value.span, format!("`{name}` is empty"))
            .remedy(format!("give `{name}` a text"));
    }
}

fn key_set(node: &Node, text: &str, report: &mut Report<'_>) {
    let set = serde_json::from_str::<Value>(text).ok();
    let Some(keys) = set.as_ref().and_then(|set| set.get("keys")?.as_array()) else {
        report
            .error(
                "MW0207",
                node.span,
                "`jwks` is not a JSON object with a list `keys`",
            )
            .path("spec.jwtRules")
            .remedy("paste the issuer's key set as it is");
        return;
    };
    if let Some((index, why)) = keys
        .iter()
        .map(key_fault)
        .enumerate()
        .find_map(|(i, why)| Some((i, why?)))
    {
        report
            .error("MW0207", node.span, format!("key {index} of `jwks` {why}"))
            .path("spec.jwtRules")
            .remedy("paste the issuer's key set as it is");
        return;
    }
    let private = |key: &Value| ["d", "p", "q", "k"].iter().any(|part| key.get(part).is_some());
    if keys.iter().any(private) {
        report
            .warning("MW0208", node.span, "`jwks` holds a private or a shared key")
            .path("spec.jwtRules")
            .remedy("keep public keys here only, and replace the key that was shown");
    }
}

/// Why it is not a key (RFC 7517, 7518, 8037): its type and its parts. Whether the numbers make a key is found where it is used.
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
    let base64 = |text: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_+/=".contains(&b);
        !text.is_empty() && text.bytes().all(fits)
    };
    let curve = text("kty").is_some_and(|kind| matches!(kind, "EC" | "OKP")) && text("crv").is_none();
    if curve {
        return Some("has no `crv`".to_owned());
    }
    if let Some(part) = parts.iter().find(|part| !text(part).is_some_and(base64)) {
        return Some(format!("has no `{part}` in base64"));
    }
    ["kid", "alg", "use"]
        .iter()
        .find(|name| key.get(**name).is_some_and(|value| !value.is_string()))
        .map(|name| format!("has a `{name}` that is not text"))
}
