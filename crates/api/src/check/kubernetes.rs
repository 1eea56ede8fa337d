//! Kubernetes' kinds: what its API server would refuse.

use std::collections::HashSet;

use super::capture;
use crate::report::Report;
use crate::yaml::Node;

/// A Service's ports.
pub(super) fn service(spec: &Node, report: &mut Report<'_>) {
    let ports = spec.child("ports").map(Node::items).unwrap_or_default();
    let external = spec.child("type").and_then(Node::text) == Some("ExternalName");
    let headless = spec.child("clusterIP").and_then(Node::text) == Some("None");
    if external {
        let name = spec.child("externalName").and_then(Node::text);
        if name.is_none_or(str::is_empty) {
            report
                .error(
                    "MW0102",
                    spec.span_at("type"),
                    "an ExternalName Service needs `externalName`",
                )
                .path("spec.externalName")
                .remedy("add the name that it stands for");
        }
    } else if ports.is_empty() && !headless {
        report
            .error("MW0102", spec.span, "the Service has no `ports`")
            .path("spec.ports")
            .remedy("add `ports:` with a `port:`");
    }
    let (mut numbers, mut names) = (HashSet::new(), HashSet::new());
    for (index, port) in ports.iter().enumerate() {
        let transport = port.child("protocol").and_then(Node::text).unwrap_or("TCP");
        let number = port.child("port").and_then(Node::written).unwrap_or_default();
        let at = |name: &str| port.child(name).map_or(port.span, |node| node.span);
        if !numbers.insert((number, transport)) {
            report
                .error(
                    "MW0202",
                    at("port"),
                    format!("port {number}/{transport} is there twice"),
                )
                .path(format!("spec.ports[{index}].port"))
                .value(number)
                .remedy("give one of the two another number, or remove it");
        }
        let name = port.child("name").and_then(Node::text).unwrap_or_default();
        if ports.len() > 1 && name.is_empty() {
            report
                .error("MW0102", port.span, "one of several ports has no name")
                .path(format!("spec.ports[{index}].name"))
                .remedy("name it by its protocol, for example `http-web`");
        } else if !name.is_empty() && !names.insert(name) {
            report
                .error(
                    "MW0202",
                    at("name"),
                    format!("the port name `{name}` is there twice"),
                )
                .path(format!("spec.ports[{index}].name"))
                .value(name)
                .remedy("name each port once");
        }
    }
}

/// A Deployment, a StatefulSet or a DaemonSet: its selector must select its own pods.
pub(super) fn workload(kind: &str, spec: &Node, report: &mut Report<'_>) {
    template(spec, report);
    let Some(selector) = spec.child("selector").filter(|node| !node.is_null()) else {
        return;
    };
    let wanted = selector
        .child("matchLabels")
        .map(Node::entries)
        .unwrap_or_default();
    let expressions = selector
        .child("matchExpressions")
        .map(Node::items)
        .unwrap_or_default();
    if wanted.is_empty() && expressions.is_empty() {
        report
            .error(
                "MW0218",
                selector.span,
                format!("the {kind}'s selector selects nothing of its own"),
            )
            .path("spec.selector")
            .remedy("add `matchLabels:` with labels of the template");
    }
    let labels = spec
        .child("template")
        .and_then(|t| t.child("metadata"))
        .and_then(|m| m.child("labels"));
    for (key, value) in wanted {
        let own = labels.and_then(|l| l.child(&key.text)).and_then(Node::text);
        if own == value.text() {
            continue;
        }
        let text = value.text().unwrap_or_default();
        report
            .error(
                "MW0218",
                key.span,
                format!(
                    "the template has no label `{}: {text}`, so the {kind} would not own its pods",
                    key.text
                ),
            )
            .path(format!("spec.selector.matchLabels.{}", key.text))
            .value(text)
            .remedy(format!(
                "add `{}: {text}` to spec.template.metadata.labels",
                key.text
            ));
    }
}

/// The pods of a workload.
pub(super) fn template(spec: &Node, report: &mut Report<'_>) {
    let template = spec.child("template");
    if let Some(template) = template {
        let (metadata, pods) = (template.child("metadata"), template.child("spec"));
        capture::pod(metadata, pods, "spec.template.metadata", report);
    }
    if let Some(pods) = template.and_then(|t| t.child("spec")) {
        pod(pods, "spec.template.spec", report);
    }
}

/// A pod's containers.
pub(super) fn pod(spec: &Node, path: &str, report: &mut Report<'_>) {
    let Some((key, containers)) = spec.entry("containers") else {
        return;
    };
    if containers.items().is_empty() && !containers.is_null() {
        report
            .error("MW0102", key.span, "the pod has no container")
            .path(format!("{path}.containers"))
            .remedy("add one with `name:` and `image:`");
    }
    let mut names = HashSet::new();
    let init = spec.child("initContainers").map(Node::items).unwrap_or_default();
    for (index, container) in containers.items().iter().chain(init).enumerate() {
        let name = container.child("name").and_then(Node::text).unwrap_or_default();
        let at = |field: &str| container.child(field).map_or(container.span, |node| node.span);
        if !name.is_empty() && !names.insert(name) {
            report
                .error(
                    "MW0202",
                    at("name"),
                    format!("the container name `{name}` is there twice"),
                )
                .path(format!("{path}.containers[{index}].name"))
                .value(name)
                .remedy("name each container once");
        }
        if container
            .child("image")
            .and_then(Node::text)
            .is_none_or(str::is_empty)
        {
            report
                .error(
                    "MW0102",
                    container.span,
                    format!("the container `{name}` has no `image`"),
                )
                .path(format!("{path}.containers[{index}].image"))
                .remedy("add an `image:`");
        }
    }
}
