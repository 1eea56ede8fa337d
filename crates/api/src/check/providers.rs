//! MeshConfig's `extensionProviders`, but for the values of the two that are asked to decide.
//!
//! As for Istio, one that cannot be used leaves the mesh configuration in force: it is an error of its own, and what names it
//! does not get it.

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
            provider.near("name").refuse_part(
                report,
                "the provider has no name",
                "name it: policies refer to the name",
            );
        } else if !seen.insert(name) {
            provider.near("name").refuse_part(
                report,
                "two providers have this name",
                "give each its own name",
            );
        }
        for service in SERVICES.iter().filter_map(|kind| provider.get(kind)) {
            self::service(&service, report);
        }
        let mut kinds = SERVICES.iter().chain(OTHERS).filter(|kind| provider.has(kind));
        match (kinds.next(), kinds.next()) {
            (None, _) => provider.refuse_part(
                report,
                "it does not say what provides",
                "add for example `opentelemetry:`",
            ),
            (Some(first), Some(second)) => provider.near(second).refuse_part(
                report,
                &format!("it is of the kind `{first}` already"),
                "write a provider for each",
            ),
            (Some(_), None) => {}
        }
        if let Some(lightstep) = provider.get("lightstep")
            && lightstep.text("accessToken").is_empty()
        {
            lightstep.refuse_part(report, "it has no `accessToken`", "add it");
        }
        if let Some(telemetry) = provider.get("opentelemetry")
            && telemetry.has("grpc")
            && telemetry.has("http")
        {
            telemetry.near("http").refuse_part(
                report,
                "it cannot stand beside `grpc`",
                "keep the one that is meant",
            );
        }
    }
}

/// `service` and `port`, which every provider that is a service has.
fn service(at: &At<'_>, report: &mut Report<'_>) {
    if let Err(why) = service_name(at.text("service")) {
        at.near("service").refuse_part(
            report,
            &why,
            "write a full name or NAMESPACE/NAME, and the port under `port`",
        );
    }
    if let Err(why) = addresses::port(at.whole("port").unwrap_or(0)) {
        at.near("port")
            .refuse_part(report, &why, "write the number of a port under `port`");
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
