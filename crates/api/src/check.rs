//! What one object can say about itself beyond its structure.

mod authentication;
mod authorization;
mod guardrail;
mod kubernetes;
mod names;

use crate::kinds::Meta;
use crate::known::KnownKind;
use crate::report::Report;
use crate::yaml::Node;

pub(crate) use names::names;

/// The rules of the kind.
pub(crate) fn object(known: &KnownKind, meta: &Meta, root: &Node, report: &mut Report<'_>) {
    let Some(spec) = root.child("spec").filter(|node| !node.is_null()) else {
        return;
    };
    match (known.group, known.kind) {
        ("security.istio.io", "PeerAuthentication") => authentication::peer(spec, report),
        ("security.istio.io", "RequestAuthentication") => authentication::request(spec, report),
        ("security.istio.io", "AuthorizationPolicy") => {
            authorization::policy(meta, root, spec, report);
        }
        ("meshward.dev", "Guardrail") => guardrail::guardrail(spec, report),
        ("", "Service") => kubernetes::service(spec, report),
        ("", "Pod") => kubernetes::pod(spec, "spec", report),
        ("apps", _) => kubernetes::workload(known.kind, spec, report),
        ("batch", "Job") => kubernetes::template(spec, report),
        _ => {}
    }
}

/// A selector of Istio's: wildcards are no labels, and an empty one selects everything (semantics 1.1, 2.16).
fn selector(spec: &Node, report: &mut Report<'_>) {
    let Some(node) = spec.child("selector").filter(|node| !node.is_null()) else {
        return;
    };
    let labels = node.child("matchLabels");
    let entries = labels.map(Node::entries).unwrap_or_default();
    if entries.is_empty() {
        report
            .warning(
                "MW0201",
                node.span,
                "the selector is empty: it selects every workload, as if it were not there",
            )
            .path("spec.selector")
            .remedy("name the labels that are meant, or leave `selector` out");
    }
    for (key, value) in entries {
        if key.text.is_empty() {
            report
                .error("MW0111", value.span, "a label of the selector has no name")
                .path("spec.selector.matchLabels")
                .remedy("write `NAME: VALUE`");
        }
        let text = value.text().unwrap_or_default();
        if text.contains('*') || key.text.contains('*') {
            report
                .error(
                    "MW0203",
                    value.span,
                    format!(
                        "`{}: {text}` is compared letter by letter: labels have no wildcards",
                        key.text
                    ),
                )
                .path(format!("spec.selector.matchLabels.{}", key.text))
                .value(text)
                .remedy("name the whole label, or leave it out to select more");
        }
    }
}

/// `targetRef` and `targetRefs` (semantics 2.2): at most one way to select, in the same namespace, of a kind that can be one.
fn targets(spec: &Node, report: &mut Report<'_>) {
    let ways: Vec<_> = ["selector", "targetRef", "targetRefs"]
        .into_iter()
        .filter_map(|name| Some((name, spec.entry(name)?)))
        .filter(|(_, (_, node))| !node.is_null())
        .collect();
    if let [(first, _), .., (last, (key, _))] = ways.as_slice() {
        report
            .error(
                "MW0204",
                key.span,
                format!("`{first}` and `{last}` cannot both be set"),
            )
            .path(format!("spec.{last}"))
            .remedy("keep the one that is meant");
    }
    let single = spec.child("targetRef").into_iter();
    for reference in single.chain(spec.child("targetRefs").map(Node::items).unwrap_or_default()) {
        target(reference, report);
    }
}

fn target(reference: &Node, report: &mut Report<'_>) {
    let text = |name: &str| reference.child(name).and_then(Node::text).unwrap_or_default();
    let at = |name: &str| reference.child(name).map_or(reference.span, |node| node.span);
    if !text("namespace").is_empty() {
        report
            .error(
                "MW0205",
                at("namespace"),
                "a target is always of the policy's own namespace",
            )
            .value(text("namespace"))
            .remedy("leave `namespace` out, and put the policy into that namespace");
    }
    let known = matches!(
        (text("group"), text("kind")),
        ("gateway.networking.k8s.io", "Gateway" | "GatewayClass")
            | ("" | "core", "Service")
            | ("networking.istio.io", "ServiceEntry")
    );
    if !known {
        report
            .error(
                "MW0205",
                at("kind"),
                format!("`{}` of group `{}` cannot be a target", text("kind"), text("group")),
            )
            .value(text("kind"))
            .remedy("write Gateway or GatewayClass of gateway.networking.k8s.io, Service, or ServiceEntry of networking.istio.io");
    }
    if text("name").is_empty() {
        report
            .error("MW0102", at("name"), "the target has no `name`")
            .remedy("add a `name:`");
    }
}
