//! What one object can say about itself beyond its structure.

mod at;
mod authentication;
mod authorization;
mod capture;
mod destination_rule;
mod entries;
mod expression;
mod extensions;
mod gateway;
mod guardrail;
mod kubernetes;
mod mesh;
mod names;
mod protocol;
mod providers;
mod sidecar;
mod telemetry;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;
mod traffic;
mod virtual_service;

use std::collections::HashSet;

use at::At;

use crate::forms;
use crate::kinds::{DRY_RUN, Meta};
use crate::known::KnownKind;
use crate::report::Report;
use crate::yaml::Node;

pub(crate) use mesh::{config as mesh_config, networks as mesh_networks, proxy_config};
pub(crate) use names::names;

/// The rules of the kind.
pub(crate) fn object(known: &KnownKind, meta: &Meta, root: &Node, report: &mut Report<'_>) {
    annotations(known, meta, root, report);
    let Some(spec) = root.set("spec") else {
        return;
    };
    match (known.group, known.kind) {
        ("security.istio.io", "PeerAuthentication") => authentication::peer(spec, report),
        ("security.istio.io", "RequestAuthentication") => tokens::request(spec, report),
        ("security.istio.io", "AuthorizationPolicy") => {
            authorization::policy(meta, root, spec, report);
        }
        ("networking.istio.io", "DestinationRule") => destination_rule::rule(meta, spec, report),
        ("networking.istio.io", "VirtualService") => virtual_service::service(meta, spec, report),
        ("networking.istio.io", "Gateway") => gateway::gateway(meta, root, spec, report),
        ("networking.istio.io", "Sidecar") => sidecar::sidecar(meta, spec, report),
        ("networking.istio.io", "ServiceEntry") => entries::service(meta, spec, report),
        ("networking.istio.io", "WorkloadEntry") => entries::workload(spec, report),
        ("networking.istio.io", "WorkloadGroup") => entries::group(spec, report),
        ("networking.istio.io", "EnvoyFilter") => extensions::envoy_filter(spec, report),
        ("networking.istio.io", "ProxyConfig") => telemetry::proxy_config(spec, report),
        ("telemetry.istio.io", "Telemetry") => telemetry::telemetry(spec, report),
        ("extensions.istio.io", "WasmPlugin" | "TrafficExtension") => extensions::plugin(spec, report),
        ("meshward.dev", "Guardrail") => guardrail::guardrail(spec, report),
        ("", "Service") => kubernetes::service(spec, report),
        ("", "Pod") => {
            capture::pod(root.child("metadata"), Some(spec), "metadata", report);
            kubernetes::pod(spec, "spec", report);
        }
        ("apps", _) => kubernetes::workload(known.kind, spec, report),
        ("batch", "Job") => kubernetes::template(spec, report),
        _ => {}
    }
}

/// Annotations of Istio's that are not for users, or not for this kind.
fn annotations(known: &KnownKind, meta: &Meta, root: &Node, report: &mut Report<'_>) {
    if !known.group.ends_with(".istio.io") {
        return;
    }
    let policy = known.kind == "AuthorizationPolicy";
    let banned = [
        (DRY_RUN, !policy),
        ("internal.istio.io/webhook-always-reject", true),
        ("internal.istio.io/parents", true),
        ("internal.istio.io/parent-namespace", true),
    ];
    for (name, _) in banned
        .into_iter()
        .filter(|(name, no)| *no && meta.annotations.contains_key(*name))
    {
        let path = format!("metadata.annotations.{name}");
        let why = if name == DRY_RUN {
            format!("`{name}` goes with AuthorizationPolicy, not with {}", known.kind)
        } else {
            format!("`{name}` is not for users to set")
        };
        report
            .error("MW0212", root.span_at(&path), why)
            .path(path)
            .remedy("take the annotation out");
    }
}

/// Whom an object may be exported to, besides a namespace, `.` and `*`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ExportTo {
    /// Nothing else.
    Any,
    /// `~` as well: to nobody but the workloads that stand for it.
    Nobody,
    /// Only its own namespace.
    Own,
}

/// `exportTo`.
fn export_to(meta: &Meta, spec: &At<'_>, allowed: ExportTo, report: &mut Report<'_>) {
    let own = meta.namespace.as_str();
    let mut seen = HashSet::new();
    let count = spec.count("exportTo");
    for to in spec.list("exportTo") {
        let text = to.own();
        let name = if text == "." { own } else { text };
        if !seen.insert(name) {
            to.refuse(report, "it is named twice", "take one out");
        }
        if text == "~" && allowed != ExportTo::Nobody {
            to.refuse(
                report,
                "only a ServiceEntry can be exported to nobody",
                "write `.`",
            );
        } else if !matches!(text, "." | "*" | "~") && !forms::names::is_dns_label(text) {
            to.refuse(
                report,
                &format!("`{text}` cannot be a namespace"),
                "write `.`, `*` or a namespace",
            );
        }
        if count > 1 && matches!(text, "*" | "~") {
            to.refuse(
                report,
                &format!("`{text}` stands beside others"),
                "keep it alone, or take it out",
            );
        }
        if allowed == ExportTo::Own && name != own {
            to.refuse(
                report,
                "a rule with `workloadSelector` is for its own namespace",
                "write `.`",
            );
        }
    }
}

/// A map of labels: their keys and values are such.
fn labels(at: &At<'_>, key: &str, report: &mut Report<'_>) {
    for (name, value) in at.map(key) {
        let remedy = "use letters, digits, `-`, `_` and `.`, a letter or digit at both ends";
        if !forms::names::is_istio_label_key(&name.text) {
            value.refuse_key(
                report,
                name,
                &format!("`{}` cannot be the key of a label", name.text),
                remedy,
            );
        }
        if !forms::names::is_long_label_value(value.own()) {
            value.refuse(
                report,
                &format!("`{}` cannot be the value of a label", value.own()),
                remedy,
            );
        }
    }
}

/// `workloadSelector` of the networking kinds. What its labels cannot be, the schema says.
fn workload_selector(spec: &At<'_>, report: &mut Report<'_>) {
    let Some(selector) = spec.get("workloadSelector") else {
        return;
    };
    if selector.map("labels").next().is_none() {
        selector.warn(
            report,
            "the selector is empty: it selects every workload of the namespace",
            "name the labels that are meant, or leave it out",
        );
    }
    for (key, value) in selector.map("labels") {
        if key.text.is_empty() || key.text.contains('*') {
            value.refuse_key(
                report,
                key,
                "labels have no wildcards, and have a name",
                "name the whole label, or leave it out to select more",
            );
        }
    }
}

/// A selector of Istio's: wildcards are no labels, and an empty one selects everything (semantics 1.1, 2.16).
fn selector(spec: &Node, name: &str, report: &mut Report<'_>) {
    let Some(node) = spec.set(name) else {
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
            .path(format!("spec.{name}"))
            .remedy("name the labels that are meant, or leave it out");
    }
    for (key, value) in entries {
        if key.text.is_empty() {
            report
                .error("MW0111", value.span, "a label of the selector has no name")
                .path(format!("spec.{name}.matchLabels"))
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
                .path(format!("spec.{name}.matchLabels.{}", key.text))
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
    if reference.set("name").is_some_and(|name| name.text() == Some("")) {
        report
            .error("MW0102", at("name"), "the target has no `name`")
            .remedy("add a `name:`");
    }
}
