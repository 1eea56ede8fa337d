//! PeerAuthentication and RequestAuthentication.

use serde_json::Value;

use super::{selector, targets};
use crate::report::Report;
use crate::yaml::Node;

/// Semantics 1.1.
pub(super) fn peer(spec: &Node, report: &mut Report<'_>) {
    selector(spec, report);
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
    selector(spec, report);
    targets(spec, report);
    for rule in spec.child("jwtRules").map(Node::items).unwrap_or_default() {
        jwt_rule(rule, report);
    }
}

fn jwt_rule(rule: &Node, report: &mut Report<'_>) {
    not_empty(rule, "issuer", report);
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
        && crate::duration_ms(text).is_none_or(|ms| ms == 0)
    {
        report
            .error(
                "MW0207",
                node.span,
                format!("`{text}` is not a duration above zero"),
            )
            .value(text)
            .remedy("write for example `5s`");
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
    let keys = serde_json::from_str::<Value>(text).ok();
    let Some(keys) = keys.as_ref().and_then(|set| set.get("keys")?.as_array()) else {
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
    let private = |key: &Value| ["d", "p", "q", "k"].iter().any(|part| key.get(part).is_some());
    if keys.iter().any(private) {
        report
            .warning("MW0208", node.span, "`jwks` holds a private or a shared key")
            .path("spec.jwtRules")
            .remedy("keep public keys here only, and replace the key that was shown");
    }
}

/// `http://` or `https://`, a host, and a port that is a number where there is one.
fn is_web_address(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    if !matches!(scheme, "http" | "https") {
        return false;
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    model::split_authority(authority).is_some_and(|(host, _)| !host.is_empty())
}
