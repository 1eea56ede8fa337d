//! Gateway (semantics 6.1, 6.2).

use std::collections::HashSet;

use super::at::At;
use super::{protocol, tls};
use crate::forms::{addresses, hosts, names};
use crate::kinds::Meta;
use crate::report::Report;
use crate::yaml::Node;

pub(super) fn gateway(meta: &Meta, root: &Node, spec: &Node, report: &mut Report<'_>) {
    let at = At::new(spec, "spec");
    if !names::is_dns_label(&meta.name) {
        report
            .error(
                "MW0112",
                root.span_at("metadata.name"),
                format!("`{}` cannot name a Gateway", meta.name),
            )
            .path("metadata.name")
            .value(&meta.name)
            .remedy("use up to 63 letters, digits and `-`, and no `.`");
    }
    if at.count("servers") == 0 {
        at.near("servers")
            .refuse(report, "the gateway has no server", "add one under `servers:`");
    }
    let mut seen = HashSet::new();
    for server in at.list("servers") {
        self::server(&server, report);
        if let Some(port) = server.get("port") {
            let name = port.text("name");
            if !name.is_empty() && !seen.insert(name) {
                port.near("name").refuse(
                    report,
                    "two servers' ports have this name",
                    "give each its own name",
                );
            }
        }
    }
}

fn server(server: &At<'_>, report: &mut Report<'_>) {
    if server.count("hosts") == 0 {
        server
            .near("hosts")
            .refuse(report, "the server has no host", "name one, or `*`");
    }
    for host in server.list("hosts") {
        host.demand(
            report,
            hosts::of_server(host.own()),
            "write HOST or NAMESPACE/HOST with a full name, `*.example.com` or `*`",
        );
    }
    let bind = server.text("bind");
    let socket = bind.strip_prefix(addresses::UNIX);
    let Some(port) = server.get("port") else { return };
    let number = port.whole("number").unwrap_or(0);
    match socket {
        Some(path) => {
            server
                .near("bind")
                .demand(report, addresses::unix(path), "write `unix:///PATH`");
            if number != 0 {
                port.near("number")
                    .refuse(report, "a Unix socket has no port", "write `number: 0`");
            }
        }
        None => {
            port.demand_port(report, "number");
            server.demand_text(report, "bind", addresses::ip, "write an address, or leave it out");
        }
    }
    if port.whole("targetPort").is_some_and(|n| n > 0) {
        port.near("targetPort")
            .refuse(report, "it means nothing to a Gateway", "leave it out");
    }
    if port.text("name").is_empty() {
        port.near("name")
            .refuse(report, "the port has no name", "name it");
    }
    let name = port.text("protocol");
    if !protocol::is_known(name) {
        return protocol::refuse(&port.near("protocol"), report);
    }
    server_tls(server, &port, name, report);
}

fn server_tls(server: &At<'_>, port: &At<'_>, name: &str, report: &mut Report<'_>) {
    let Some(settings) = server.get("tls") else {
        if protocol::is_tls(name) {
            server.refuse(
                report,
                &format!("{name} needs `tls`"),
                "add `tls:` with a mode and certificates",
            );
        }
        return;
    };
    tls::server(&settings, report);
    if protocol::is_tls(name) {
        if settings.flag("httpsRedirect") {
            settings.near("httpsRedirect").warn(
                report,
                "only a server of plain HTTP can send clients to HTTPS",
                "put it on the HTTP server",
            );
        }
        return;
    }
    let ends = !matches!(settings.text("mode"), "" | "PASSTHROUGH" | "AUTO_PASSTHROUGH");
    let files = ["caCertificates", "privateKey", "serverCertificate"];
    if !protocol::is_http(name) || ends || files.iter().any(|key| !settings.text(key).is_empty()) {
        port.near("protocol").refuse(
            report,
            &format!("{name} is plaintext, and the server has `tls`"),
            "write `HTTPS` or `TLS`, or leave `tls` out",
        );
    }
}
