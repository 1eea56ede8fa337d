//! Sidecar (semantics 7.5).

use std::collections::{HashMap, HashSet};

use super::at::At;
use super::virtual_service::destination;
use super::{protocol, tls, traffic, workload_selector};
use crate::forms::{addresses, hosts, names};
use crate::kinds::Meta;
use crate::report::Report;
use crate::yaml::Node;

pub(super) fn sidecar(meta: &Meta, spec: &Node, report: &mut Report<'_>) {
    let at = At::new(spec, "spec");
    workload_selector(&at, report);
    let policy = at.get("outboundTrafficPolicy");
    let nothing = at.count("egress") == 0 && at.count("ingress") == 0;
    if nothing && policy.is_none() && !at.has("inboundConnectionPool") {
        at.refuse(
            report,
            "the Sidecar says nothing",
            "add `egress:`, `ingress:` or `outboundTrafficPolicy:`",
        );
    }
    let mut ports = HashSet::new();
    for listener in at.list("ingress") {
        ingress(&listener, &mut ports, report);
    }
    if let Some(pool) = at.get("inboundConnectionPool") {
        traffic::pool(&pool, report);
    }
    egress(meta, &at, report);
    if let Some(policy) = policy
        && let Some(proxy) = policy.get("egressProxy")
    {
        egress_proxy(&policy, &proxy, report);
    }
}

fn egress_proxy(policy: &At<'_>, proxy: &At<'_>, report: &mut Report<'_>) {
    if policy.text("mode") != "ALLOW_ANY" {
        return proxy.refuse(report, "it goes with ALLOW_ANY alone", "write `mode: ALLOW_ANY`");
    }
    let host = proxy.near("host");
    host.demand(report, hosts::full(proxy.text("host")), "write a full name");
    if !proxy.has("port") {
        return proxy.refuse(report, "it names no `port`", "add `port: {number: …}`");
    }
    if hosts::full(proxy.text("host")).is_ok() {
        destination(proxy, report);
    }
}

fn ingress(listener: &At<'_>, ports: &mut HashSet<i64>, report: &mut Report<'_>) {
    let Some(port) = listener.get("port") else { return };
    listened_port(&port, report);
    port.demand_port(report, "number");
    let number = port.whole("number").unwrap_or(0);
    if number == 0 && !port.has("number") {
        port.refuse(report, "it has no `number`", "add the number of a port");
    }
    listener.demand_text(report, "bind", addresses::ip, "write an address, or leave it out");
    once(&port, number, ports, report);
    if let Some(endpoint) = listener.get("defaultEndpoint").filter(|at| !at.own().is_empty()) {
        default_endpoint(&endpoint, report);
    }
    if let Some(settings) = listener.get("tls") {
        ingress_tls(&settings, &port, report);
    }
    if let Some(pool) = listener.get("connectionPool") {
        traffic::pool(&pool, report);
        if pool.has("http") && !protocol::is_http(port.text("protocol")) {
            pool.near("http").warn(
                report,
                "the port is not HTTP, so that this has no effect",
                "declare the port as HTTP, or leave it out",
            );
        }
    }
}

fn ingress_tls(settings: &At<'_>, port: &At<'_>, report: &mut Report<'_>) {
    for key in ["subjectAltNames", "credentialNames", "tlsCertificates"] {
        if settings.count(key) > 0 {
            settings
                .near(key)
                .refuse(report, "a Sidecar does not take it", "leave it out");
        }
    }
    if !settings.text("credentialName").is_empty() {
        settings
            .near("credentialName")
            .refuse(report, "a Sidecar does not take it", "name files");
    }
    if settings.flag("httpsRedirect") {
        settings
            .near("httpsRedirect")
            .refuse(report, "a Sidecar does not take it", "leave it out");
    }
    if matches!(settings.text("mode"), "ISTIO_MUTUAL" | "AUTO_PASSTHROUGH") {
        settings.near("mode").refuse(
            report,
            "a Sidecar's listener cannot have this mode",
            "write `SIMPLE` or `MUTUAL`; the mesh's own TLS needs nothing here",
        );
    }
    if !protocol::is_tls(port.text("protocol")) {
        port.near("protocol").refuse(
            report,
            "the port is plaintext, and its listener has `tls`",
            "write `HTTPS` or `TLS`, or leave `tls` out",
        );
    }
    tls::server(settings, report);
}

/// What ports of both directions have in common.
fn listened_port(port: &At<'_>, report: &mut Report<'_>) {
    if port.whole("targetPort").is_some_and(|n| n > 0) {
        port.near("targetPort")
            .refuse(report, "it means nothing to a Sidecar", "leave it out");
    }
    let name = port.text("name");
    if !name.is_empty() && !names::is_dns_label(name) {
        port.near("name").refuse(
            report,
            &format!("`{name}` cannot name a port"),
            "use up to 63 letters, digits and `-`",
        );
    }
    protocol::demand(port, report);
}

fn once(port: &At<'_>, number: i64, ports: &mut HashSet<i64>, report: &mut Report<'_>) {
    if number != 0 && !ports.insert(number) {
        port.near("number")
            .refuse(report, "two listeners have this port", "give one of them another");
    }
}

fn default_endpoint(at: &At<'_>, report: &mut Report<'_>) {
    let remedy = "write `127.0.0.1:PORT`, `0.0.0.0:PORT`, `[::1]:PORT`, `[::]:PORT` or `unix:///PATH`";
    let text = at.own();
    if let Some(path) = text.strip_prefix(addresses::UNIX) {
        return at.demand(report, addresses::unix(path), remedy);
    }
    let fits = addresses::split_host_port(text).is_some_and(|(host, port)| {
        matches!(host, "" | "127.0.0.1" | "0.0.0.0" | "::1" | "::")
            && port
                .parse::<i64>()
                .is_ok_and(|port| addresses::port(port).is_ok())
    });
    if !fits {
        at.refuse(
            report,
            &format!("`{text}` is not a port of the workload itself"),
            remedy,
        );
    }
}

fn egress(meta: &Meta, spec: &At<'_>, report: &mut Report<'_>) {
    let (mut ports, mut sockets) = (HashSet::new(), HashSet::new());
    let last = spec.count("egress").saturating_sub(1);
    for (index, listener) in spec.list("egress").enumerate() {
        match listener.get("port") {
            None if index != last => listener.refuse(
                report,
                "a listener without `port` takes all that is left, and is the last of the list",
                "put it last, or add `port:`",
            ),
            None => {}
            Some(port) => {
                listened_port(&port, report);
                egress_port(&listener, &port, (&mut ports, &mut sockets), report);
            }
        }
        imported(meta, &listener, report);
    }
}

fn egress_port<'n>(
    listener: &At<'n>,
    port: &At<'n>,
    (ports, sockets): (&mut HashSet<i64>, &mut HashSet<&'n str>),
    report: &mut Report<'_>,
) {
    let number = port.whole("number").unwrap_or(0);
    if number != 0 {
        port.demand_port(report, "number");
        listener.demand_text(report, "bind", addresses::ip, "write an address, or leave it out");
        return once(port, number, ports, report);
    }
    let bind = listener.text("bind");
    let at = listener.near("bind");
    match bind.strip_prefix(addresses::UNIX) {
        None => at.refuse(
            report,
            "a listener without a port's number listens to a Unix socket",
            "write `bind: unix:///PATH`, or the number of a port",
        ),
        Some(path) => at.demand(report, addresses::unix(path), "write `unix:///PATH`"),
    }
    if listener.text("captureMode") == "IPTABLES" {
        listener.near("captureMode").refuse(
            report,
            "nothing is captured for a Unix socket",
            "write `DEFAULT` or `NONE`",
        );
    }
    if !sockets.insert(bind) {
        at.refuse(
            report,
            "two listeners have this socket",
            "give one of them another",
        );
    }
}

/// `hosts` of an egress listener.
fn imported(meta: &Meta, listener: &At<'_>, report: &mut Report<'_>) {
    if listener.count("hosts") == 0 {
        listener.near("hosts").refuse(
            report,
            "the listener imports no host",
            "name one, as `./*` or `~/*` for none",
        );
    }
    let mut seen: HashMap<&str, HashSet<&str>> = HashMap::new();
    for host in listener.list("hosts") {
        let text = host.own();
        host.demand(
            report,
            hosts::behind_namespace(text),
            "write NAMESPACE/HOST, as `./*`, `*/*.example.com` or `ns/web.ns.svc.cluster.local`",
        );
        let Some((namespace, name)) = text.split_once('/').filter(|(ns, _)| !ns.starts_with('~')) else {
            continue;
        };
        let namespace = if namespace == "." {
            &meta.namespace
        } else {
            namespace
        };
        let named = seen.entry(namespace).or_default();
        let twice = if name == "*" {
            !named.is_empty()
        } else {
            named.contains(name) || named.contains("*")
        };
        if twice {
            host.warn(report, "it is imported already", "take it out");
        }
        named.insert(name);
    }
    if seen.len() > 1 && seen.get("*").is_some_and(|named| named.contains("*")) {
        listener.near("hosts").warn(
            report,
            "`*/*` imports all, so that the others mean nothing",
            "keep `*/*`, or the others",
        );
    }
}
