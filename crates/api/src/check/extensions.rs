//! EnvoyFilter, WasmPlugin, TrafficExtension: what their schemas do not say. What a patch holds is Envoy's to read.

use super::at::At;
use super::{selector, targets, workload_selector};
use crate::forms::regex;
use crate::report::Report;
use crate::yaml::Node;

/// The longest pattern of versions that is looked at, in bytes.
const MAX_VERSION: usize = 1024;
const HTTP_MANAGERS: &[&str] = &[
    "envoy.filters.network.http_connection_manager",
    "envoy.http_connection_manager",
];

/// WasmPlugin and TrafficExtension.
pub(super) fn plugin(spec: &Node, report: &mut Report<'_>) {
    selector(spec, "selector", report);
    targets(spec, report);
}

pub(super) fn envoy_filter(spec: &Node, report: &mut Report<'_>) {
    let at = At::new(spec, "spec");
    at.warn(
        report,
        "an EnvoyFilter speaks of Envoy's insides, which change without notice, and there is no Envoy here",
        "say it with another kind",
    );
    workload_selector(&at, report);
    for patch in at.list("configPatches") {
        if patch
            .get("match")
            .is_some_and(|m| m.text("context") == "WAYPOINT")
        {
            continue;
        }
        self::patch(&patch, report);
    }
}

fn patch(patch: &At<'_>, report: &mut Report<'_>) {
    let target = patch.text("applyTo");
    if matches!(target, "" | "INVALID") {
        return patch
            .near("applyTo")
            .refuse(report, "it does not say what is patched", "add `applyTo:`");
    }
    let Some(change) = patch.get("patch") else {
        return patch.refuse(report, "it has no `patch`", "add `patch:`");
    };
    let operation = change.text("operation");
    if matches!(operation, "" | "INVALID") {
        return change.near("operation").refuse(
            report,
            "it does not say how it is patched",
            "add `operation:`",
        );
    }
    if operation != "REMOVE" && !change.has("value") {
        return change.refuse(report, &format!("{operation} needs a `value`"), "add `value:`");
    }
    let Some(wanted) = patch.get("match") else { return };
    if let Some(version) = wanted
        .get("proxy")
        .and_then(|proxy| proxy.get("proxyVersion"))
        .filter(|version| !version.own().is_empty())
    {
        if version.own().len() > MAX_VERSION {
            version.warn(report, "the pattern is too long, and ignored", "write less");
        } else {
            version.demand(
                report,
                regex::re2(version.own()),
                "write a regular expression of RE2",
            );
        }
    }
    let class = match target {
        "LISTENER" | "FILTER_CHAIN" | "NETWORK_FILTER" | "HTTP_FILTER" => "listener",
        "ROUTE_CONFIGURATION" | "VIRTUAL_HOST" | "HTTP_ROUTE" => "routeConfiguration",
        "CLUSTER" => "cluster",
        _ => return,
    };
    let other = ["listener", "routeConfiguration", "cluster", "waypoint"]
        .into_iter()
        .find(|key| *key != class && wanted.has(key));
    if let Some(other) = other.filter(|_| !wanted.has(class)) {
        return wanted.near(other).refuse(
            report,
            &format!("{target} is matched by `{class}`"),
            "match it by that, or patch something else",
        );
    }
    let filter = wanted
        .get("listener")
        .and_then(|listener| listener.get("filterChain"))
        .and_then(|chain| chain.get("filter"));
    if let Some(filter) = filter {
        listener_filter(target, &filter, report);
    }
}

fn listener_filter(target: &str, filter: &At<'_>, report: &mut Report<'_>) {
    if matches!(target, "LISTENER" | "FILTER_CHAIN") {
        filter.warn(
            report,
            &format!("it has no effect where a {target} is patched"),
            "leave it out",
        );
    }
    let name = filter.text("name");
    if name.is_empty() {
        return filter.refuse(report, "it names no filter", "add `name:`");
    }
    let Some(inner) = filter.get("subFilter") else {
        return;
    };
    if target != "HTTP_FILTER" {
        inner.refuse(
            report,
            "only an HTTP_FILTER lies inside of another",
            "leave it out",
        );
    } else if !HTTP_MANAGERS.contains(&name) {
        inner.refuse(
            report,
            "HTTP filters lie inside of the connection manager",
            "write `name: envoy.filters.network.http_connection_manager` above it",
        );
    } else if inner.text("name").is_empty() {
        inner.refuse(report, "it names no filter", "add `name:`");
    }
}
