//! DestinationRule (semantics 6.5 to 6.7).

use std::collections::HashSet;

use super::at::At;
use super::{ExportTo, export_to, labels, selector, tls, traffic};
use crate::forms::{addresses, hosts, names};
use crate::kinds::Meta;
use crate::report::Report;
use crate::yaml::Node;

const PARTS: &[&str] = &[
    "loadBalancer",
    "connectionPool",
    "outlierDetection",
    "tls",
    "portLevelSettings",
    "tunnel",
    "proxyProtocol",
    "retryBudget",
];

pub(super) fn rule(meta: &Meta, spec: &Node, report: &mut Report<'_>) {
    let at = At::new(spec, "spec");
    if let Some(host) = at.get("host") {
        host.demand(
            report,
            hosts::wildcard(host.own()),
            "write the name of a service, as `web`, `web.ns.svc.cluster.local` or `*.example.com`",
        );
    }
    if let Some(policy) = at.get("trafficPolicy") {
        traffic_policy(meta, &policy, report);
    }
    let mut seen = HashSet::new();
    for subset in at.list("subsets") {
        let name = subset.text("name");
        if !seen.insert(name) {
            subset
                .near("name")
                .refuse(report, "two subsets have this name", "give one of them another");
        }
        subset_name(&subset.near("name"), name, report);
        labels(&subset, "labels", report);
        if let Some(policy) = subset.get("trafficPolicy") {
            traffic_policy(meta, &policy, report);
        }
    }
    let export = if at.has("workloadSelector") {
        ExportTo::Own
    } else {
        ExportTo::Any
    };
    export_to(meta, &at, export, report);
    selector(spec, "workloadSelector", report);
}

/// The name of a subset, where it is defined and where it is used.
pub(super) fn subset_name(at: &At<'_>, name: &str, report: &mut Report<'_>) {
    if !names::is_dns_label(name) {
        at.refuse(
            report,
            &format!("`{name}` cannot name a subset"),
            "use up to 63 letters, digits and `-`",
        );
    }
}

fn traffic_policy(meta: &Meta, policy: &At<'_>, report: &mut Report<'_>) {
    if !PARTS.iter().any(|part| policy.node.set(part).is_some_and(says)) {
        return policy.refuse(
            report,
            "the policy says nothing",
            "say what is meant, or leave it out",
        );
    }
    if policy.has("tunnel")
        && let Some(proxy) = policy.get("proxyProtocol")
    {
        return proxy.refuse(
            report,
            "it cannot stand beside `tunnel`",
            "keep the one that is meant",
        );
    }
    parts(meta, policy, report);
    for settings in policy.list("portLevelSettings") {
        match settings.get("port") {
            None => settings.refuse(report, "it names no `port`", "add `port: {number: …}`"),
            Some(port) => port.demand_port(report, "number"),
        }
        if PARTS.iter().take(4).any(|part| settings.has(part)) {
            parts(meta, &settings, report);
        } else {
            settings.refuse(
                report,
                "the policy says nothing of its port",
                "say what is meant, or take it out",
            );
        }
    }
    if let Some(tunnel) = policy.get("tunnel") {
        tunnel_settings(&tunnel, report);
    }
}

/// An empty list is as good as none.
fn says(part: &Node) -> bool {
    !part.is_empty_list()
}

fn parts(meta: &Meta, policy: &At<'_>, report: &mut Report<'_>) {
    let outliers = policy.get("outlierDetection");
    if let Some(outliers) = &outliers {
        traffic::outliers(outliers, report);
    }
    if let Some(pool) = policy.get("connectionPool") {
        traffic::pool(&pool, report);
    }
    if let Some(balancer) = policy.get("loadBalancer") {
        traffic::balancer(&balancer, outliers.is_some(), report);
    }
    if let Some(settings) = policy.get("tls") {
        tls::client(&settings, &meta.namespace, report);
    }
}

fn tunnel_settings(tunnel: &At<'_>, report: &mut Report<'_>) {
    if !matches!(tunnel.text("protocol"), "" | "CONNECT" | "POST") {
        tunnel.near("protocol").refuse(
            report,
            "it is neither CONNECT nor POST",
            "write `CONNECT` or `POST`",
        );
    }
    let host = tunnel.text("targetHost");
    if !addresses::is_ip(host) {
        tunnel
            .near("targetHost")
            .demand(report, hosts::full(host), "write a full name or an address");
    }
    tunnel.demand_port(report, "targetPort");
}
