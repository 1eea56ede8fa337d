//! Guardrail: each part says something, and its rules are such as AuthorizationPolicy takes.

use super::authorization;
use crate::report::Report;
use crate::yaml::Node;

pub(super) fn guardrail(spec: &Node, report: &mut Report<'_>) {
    let present = |name: &str| spec.child(name).filter(|node| !node.is_null());
    for name in ["namespaces", "notNamespaces"] {
        for item in present(name).map(Node::items).unwrap_or_default() {
            let Some(text) = item.text() else { continue };
            let middle = text
                .strip_prefix('*')
                .or_else(|| text.strip_suffix('*'))
                .unwrap_or(text);
            if text.is_empty() || middle.contains('*') {
                report
                    .error("MW0215", item.span, format!("`{text}` is not a namespace"))
                    .path(format!("spec.{name}"))
                    .value(text)
                    .remedy("write a name, with `*` at one end for any text there");
            }
        }
    }
    if let Some(mode) = present("mtls").and_then(|mtls| mtls.child("mode"))
        && matches!(mode.text(), Some("UNSET" | "DISABLE"))
    {
        report
            .error(
                "MW0215",
                mode.span,
                "as the least that is asked for, this asks for nothing",
            )
            .path("spec.mtls.mode")
            .value(mode.text().unwrap_or_default())
            .remedy("write `STRICT` or `PERMISSIVE`, or leave `mtls` out");
    }
    for name in ["deny", "ceiling"] {
        let Some(rules) = present(name) else { continue };
        if rules.items().is_empty() && rules.written().is_none() {
            report
                .error("MW0215", rules.span, format!("`{name}` has no rules"))
                .path(format!("spec.{name}"))
                .remedy("say what is meant, or leave it out");
        }
        authorization::rules(rules, &format!("spec.{name}"), report);
    }
    if ["mtls", "deny", "ceiling"]
        .into_iter()
        .all(|name| present(name).is_none())
    {
        report
            .error("MW0215", spec.span, "the guardrail holds nothing")
            .path("spec")
            .remedy("add `mtls`, `deny` or `ceiling`");
    }
}
