//! PeerAuthentication.

use super::selector;
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
