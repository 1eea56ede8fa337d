//! MeshConfig's `extensionProviders`, but for the two that are asked to decide.

use std::collections::HashSet;

use super::at::At;
use crate::forms::{Verdict, addresses, hosts};
use crate::report::Report;

/// Providers that are a service: its name and port are demanded.
const SERVICES: &[&str] = &[
    "zipkin",
    "lightstep",
    "datadog",
    "opencensus",
    "skywalking",
    "opentelemetry",
    "envoyHttpAls",
    "envoyTcpAls",
    "envoyOtelAls",
];
/// Providers that need nothing, or are read elsewhere.
const OTHERS: &[&str] = &[
    "envoyExtAuthzHttp",
    "envoyExtAuthzGrpc",
    "stackdriver",
    "prometheus",
    "envoyFileAccessLog",
    "sds",
];

pub(super) fn providers(config: &At<'_>, report: &mut Report<'_>) {
    let mut seen = HashSet::new();
    for provider in config.list("extensionProviders") {
        let name = provider.text("name");
        if name.is_empty() {
            provider.near("name").refuse(
                report,
                "the provider has no name",
                "name it: policies refer to the name",
            );
        } else if !seen.insert(name) {
            provider
                .near("name")
                .refuse(report, "two providers have this name", "give each its own name");
        }
        for service in SERVICES.iter().filter_map(|kind| provider.get(kind)) {
            self::service(&service, report);
        }
        if !SERVICES.iter().chain(OTHERS).any(|kind| provider.has(kind)) {
            provider.refuse(
                report,
                "it does not say what provides",
                "add for example `opentelemetry:`",
            );
        }
        if let Some(lightstep) = provider.get("lightstep")
            && lightstep.text("accessToken").is_empty()
        {
            lightstep.refuse(report, "it has no `accessToken`", "add it");
        }
        if let Some(telemetry) = provider.get("opentelemetry")
            && telemetry.has("grpc")
            && telemetry.has("http")
        {
            telemetry.near("http").refuse(
                report,
                "it cannot stand beside `grpc`",
                "keep the one that is meant",
            );
        }
    }
}

/// `service` and `port`, which every provider that is a service has.
pub(super) fn service(at: &At<'_>, report: &mut Report<'_>) {
    at.near("service").demand(
        report,
        service_name(at.text("service")),
        "write a full name or NAMESPACE/NAME, and the port under `port`",
    );
    if at.has("port") {
        at.demand_port(report, "port");
    } else {
        at.refuse(report, "it has no `port`", "add the number of a port");
    }
}

/// `HOST`, an address, or `NAMESPACE/HOST`.
fn service_name(text: &str) -> Verdict {
    if text.is_empty() {
        return Err("it names no `service`".to_owned());
    }
    if text.contains('/') {
        return hosts::behind_namespace(text);
    }
    hosts::full(text).or_else(|why| if addresses::is_ip(text) { Ok(()) } else { Err(why) })
}
