//! ServiceEntry, WorkloadEntry, WorkloadGroup (semantics 7.4).

use std::collections::HashSet;

use super::at::At;
use super::{ExportTo, export_to, labels, protocol, workload_selector};
use crate::forms::{addresses, hosts, names};
use crate::kinds::Meta;
use crate::report::Report;
use crate::yaml::Node;

const NOT_ALLOCATED: &str = "networking.istio.io/enable-autoallocate-ip";
const WAYPOINT: &str = "istio.io/use-waypoint";

pub(super) fn service(meta: &Meta, spec: &Node, report: &mut Report<'_>) {
    let at = At::new(spec, "spec");
    let resolution = match at.text("resolution") {
        "" => "NONE",
        given => given,
    };
    workload_selector(&at, report);
    for host in at.list("hosts") {
        let text = host.own();
        host.demand(
            report,
            hosts::wildcard(text),
            "write a full name, or one as `*.example.com`",
        );
        if resolution != "DYNAMIC_DNS"
            && let Err(why) = hosts::no_partial_wildcard(text)
        {
            host.warn(report, &why, "write `*.` before a full name");
        }
    }
    for address in at.list("addresses") {
        address.demand(
            report,
            addresses::block(address.own()),
            "write for example 10.1.2.3 or 10.0.0.0/8",
        );
    }
    let ports = service_ports(meta, &at, resolution, report);
    match resolution {
        "NONE" if at.has("workloadSelector") => at.near("workloadSelector").warn(
            report,
            "with `resolution: NONE` nothing is picked from the workloads",
            "write `resolution: STATIC`",
        ),
        "STATIC" => {
            for endpoint in at.list("endpoints") {
                static_endpoint(&endpoint, &ports, report);
            }
        }
        "DNS" | "DNS_ROUND_ROBIN" => resolved(&at, &ports, report),
        "DYNAMIC_DNS" => dynamic(meta, &at, report),
        _ => {}
    }
    several_hosts(&at, resolution, report);
    export_to(meta, &at, ExportTo::Nobody, report);
}

/// Checks the ports, and gives their names.
fn service_ports<'n>(
    meta: &Meta,
    spec: &At<'n>,
    resolution: &str,
    report: &mut Report<'_>,
) -> HashSet<&'n str> {
    let off = meta
        .labels
        .get(NOT_ALLOCATED)
        .is_some_and(|value| value.eq_ignore_ascii_case("false"));
    let without = spec.count("addresses") == 0;
    let allocated = without && resolution != "NONE" && !off;
    let mut names = HashSet::new();
    for port in spec.list("ports") {
        let name = port.text("name");
        port_name(&port.near("name"), name, report);
        names.insert(name);
        protocol::demand(&port, report);
        if without && !allocated && matches!(port.text("protocol"), "" | "TCP") {
            port.warn(
                report,
                "without an address a port of TCP cannot be told from others' with the same number",
                "add `addresses:`, or declare the protocol",
            );
        }
    }
    names
}

fn port_name(at: &At<'_>, name: &str, report: &mut Report<'_>) {
    if !names::is_dns_label(name) {
        at.refuse(
            report,
            &format!("`{name}` cannot name a port"),
            "use up to 63 letters, digits and `-`",
        );
    }
}

fn static_endpoint(endpoint: &At<'_>, ports: &HashSet<&str>, report: &mut Report<'_>) {
    let address = endpoint.text("address");
    let at = endpoint.near("address");
    if address.is_empty() {
        if endpoint.text("network").is_empty() {
            if endpoint.has("address") || endpoint.has("network") {
                at.refuse(report, "it has no address", "write an address");
            }
        } else {
            endpoint.warn(
                report,
                "it has a network and no address",
                "add `address:` where it is known",
            );
        }
    } else if address.starts_with(addresses::UNIX) {
        if ports.len() != 1 {
            at.refuse(
                report,
                "a Unix socket stands for one port, and the service has others",
                "declare exactly one port",
            );
        }
    } else {
        at.demand(
            report,
            addresses::ip(address),
            "write an address, or `resolution: DNS`",
        );
    }
    endpoint_ports(endpoint, ports, report);
    labels(endpoint, "labels", report);
}

fn endpoint_ports(endpoint: &At<'_>, ports: &HashSet<&str>, report: &mut Report<'_>) {
    for (key, port) in endpoint.map("ports") {
        if !ports.contains(key.text.as_str()) {
            port.refuse_key(
                report,
                key,
                "the service has no port of this name",
                "name a port of `spec.ports`",
            );
        }
    }
}

fn resolved(spec: &At<'_>, ports: &HashSet<&str>, report: &mut Report<'_>) {
    if spec.count("endpoints") == 0
        && let Some(host) = spec.list("hosts").find(|host| hosts::full(host.own()).is_err())
        && hosts::wildcard(host.own()).is_ok()
    {
        host.refuse(
            report,
            "a wildcard cannot be resolved",
            "write a full name, or say where it is under `endpoints`",
        );
    }
    for endpoint in spec.list("endpoints") {
        let address = endpoint.text("address");
        if !addresses::is_ip(address) {
            endpoint
                .near("address")
                .demand(report, hosts::full(address), "write a full name or an address");
        }
        endpoint_ports(&endpoint, ports, report);
        labels(&endpoint, "labels", report);
    }
    let tcp = spec
        .list("ports")
        .any(|port| protocol::is_tcp(port.text("protocol")));
    if spec.count("addresses") > 0 && spec.count("hosts") > 1 && tcp {
        spec.near("hosts").warn(
            report,
            "several hosts share the addresses, and bytes do not say which is meant",
            "write a ServiceEntry for each host",
        );
    }
}

fn dynamic(meta: &Meta, spec: &At<'_>, report: &mut Report<'_>) {
    for host in spec.list("hosts").filter(|host| !host.own().starts_with('*')) {
        host.refuse(
            report,
            "DYNAMIC_DNS resolves wildcards alone",
            "write for example `*.example.com`, or `resolution: DNS`",
        );
    }
    for key in ["addresses", "endpoints"] {
        if spec.count(key) > 0 {
            spec.near(key).refuse(
                report,
                "DYNAMIC_DNS finds addresses by the host of each request",
                "leave it out",
            );
        }
    }
    for port in spec.list("ports") {
        if !protocol::one_of(port.text("protocol"), &["HTTP", "TLS", "GRPC", "HTTP2"]) {
            port.near("protocol").refuse(
                report,
                "DYNAMIC_DNS reads the host from HTTP, HTTP2, GRPC or TLS",
                "declare one of them",
            );
        }
    }
    let waypoint = meta.labels.get(WAYPOINT);
    let waypoint = waypoint.is_some_and(|name| !name.is_empty() && !name.eq_ignore_ascii_case("none"));
    if spec.text("location") == "MESH_INTERNAL" && waypoint {
        spec.near("location").refuse(
            report,
            "a waypoint resolves only what is outside of the mesh",
            "write `MESH_EXTERNAL`",
        );
    }
}

/// Only HTTP and TLS say which host is meant.
fn several_hosts(spec: &At<'_>, resolution: &str, report: &mut Report<'_>) {
    if resolution == "NONE" || spec.count("hosts") < 2 {
        return;
    }
    let plain = spec.list("ports").find(|port| {
        let name = port.text("protocol");
        !protocol::is_http(name) && !protocol::is_tls(name)
    });
    if let Some(port) = plain {
        port.refuse(
            report,
            "several hosts share a port that is neither HTTP nor TLS, so that none is meant",
            "write a ServiceEntry for each host, or declare the protocol",
        );
    }
}

pub(super) fn workload(spec: &Node, report: &mut Report<'_>) {
    let at = At::new(spec, "spec");
    let address = at.text("address");
    if address.is_empty() {
        if !at.text("network").is_empty() {
            at.warn(
                report,
                "it has a network and no address",
                "add `address:` where it is known",
            );
        } else if at.has("address") || at.has("network") {
            at.near("address")
                .refuse(report, "it has no address", "write an address");
        }
    } else if !address.starts_with(addresses::UNIX) && !addresses::is_ip(address) {
        at.near("address")
            .demand(report, hosts::full(address), "write an address or a full name");
    }
    labels(&at, "labels", report);
}

pub(super) fn group(spec: &Node, report: &mut Report<'_>) {
    let at = At::new(spec, "spec");
    if let Some(metadata) = at.get("metadata") {
        labels(&metadata, "labels", report);
    }
    let Some(probe) = at.get("probe") else { return };
    // Istio's webhook does not know `grpc`, which its schema has.
    if !["httpGet", "tcpSocket", "exec"].iter().any(|way| probe.has(way)) {
        probe.refuse(
            report,
            "it does not say how to ask",
            "add `httpGet:`, `tcpSocket:` or `exec:`",
        );
    }
    if let Some(exec) = probe.get("exec")
        && exec.count("command") == 0
    {
        exec.refuse(
            report,
            "the command is empty",
            "write the program and its arguments",
        );
    }
    if let Some(http) = probe.get("httpGet") {
        for header in http.list("httpHeaders") {
            let name = header.near("name");
            if name.own().is_empty() {
                name.refuse(report, "the header has no name", "name it");
            } else if name.own().contains('_') {
                name.refuse(
                    report,
                    "a probe's header has no `_`",
                    "use letters, digits and `-`",
                );
            }
        }
    }
}
