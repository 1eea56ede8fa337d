//! VirtualService (semantics 6.4): hosts, gateways, routes of TLS and TCP; `http` holds those of HTTP.

mod http;
mod reach;

use std::collections::HashSet;

use super::at::At;
use super::destination_rule::subset_name;
use super::{ExportTo, export_to, labels};
use crate::forms::{addresses, hosts, names};
use crate::kinds::Meta;
use crate::report::Report;
use crate::yaml::Node;

/// What stands for all proxies of the mesh among `gateways`.
const MESH: &str = "mesh";

pub(super) fn service(meta: &Meta, spec: &Node, report: &mut Report<'_>) {
    let at = At::new(spec, "spec");
    let delegate = at.count("hosts") == 0;
    if delegate {
        for key in ["gateways", "tls", "tcp"].into_iter().filter(|k| at.count(k) > 0) {
            at.near(key).refuse(
                report,
                "without `hosts` this is a delegate, which has HTTP routes alone",
                "add `hosts:`, or leave it out",
            );
        }
    }
    let routed = Routed::of(&at);
    gateway_names(&at, report);
    service_hosts(&at, &routed, report);
    if ["http", "tls", "tcp"].iter().all(|key| at.count(key) == 0) {
        at.refuse(report, "it has no route", "add `http:`, `tls:` or `tcp:`");
    }
    for route in at.list("http") {
        http::route(&route, delegate, routed.at_gateway, report);
    }
    for route in at.list("tls") {
        tls_route(&route, &routed, report);
    }
    for route in at.list("tcp") {
        for wanted in route.list("match") {
            connection_match(&wanted, report);
        }
        destinations(&route, report);
    }
    export_to(meta, &at, ExportTo::Any, report);
    for key in ["http", "tcp", "tls"] {
        reach::routes(&at, key, report);
    }
}

/// What the hosts and gateways say of the whole.
struct Routed<'n> {
    /// Whether no proxy of a workload has the routes.
    at_gateway: bool,
    /// Whether all of them have.
    in_mesh: bool,
    /// Whether TLS is routed by its server name, so that a gateway's own names may be hosts.
    by_name: bool,
    exact: HashSet<&'n str>,
    /// What follows the `*` of wildcards.
    endings: HashSet<&'n str>,
}

impl<'n> Routed<'n> {
    fn of(spec: &At<'n>) -> Self {
        let named = spec.list("gateways").any(|gateway| gateway.own() == MESH);
        let any = spec.count("gateways") > 0;
        let all: Vec<&str> = spec.list("hosts").map(|host| host.own()).collect();
        let by_name = spec
            .list("tls")
            .flat_map(|route| route.list("match").collect::<Vec<_>>())
            .any(|wanted| wanted.count("sniHosts") > 0);
        Self {
            at_gateway: any && !named,
            in_mesh: !any || named,
            by_name,
            exact: all
                .iter()
                .copied()
                .filter(|host| !host.starts_with('*'))
                .collect(),
            endings: all.iter().filter_map(|host| host.strip_prefix('*')).collect(),
        }
    }

    /// Whether one of the hosts covers all names of this one.
    fn covers(&self, host: &str) -> bool {
        match host.strip_prefix('*') {
            None => self.exact.contains(host) || self.ends(host),
            Some(ending) => self.ends(ending),
        }
    }

    fn ends(&self, name: &str) -> bool {
        endings(name).any(|ending| self.endings.contains(ending))
    }
}

/// What a name ends in, itself first and nothing last. A name is at most 255 bytes by then.
fn endings(name: &str) -> impl Iterator<Item = &str> {
    (0..=name.len()).filter_map(|from| name.get(from..))
}

fn service_hosts(spec: &At<'_>, routed: &Routed<'_>, report: &mut Report<'_>) {
    let remedy = "write a full name, one as `*.example.com`, or an address";
    let mut fine = true;
    for host in spec.list("hosts") {
        let text = host.own();
        let verdict = if routed.at_gateway {
            hosts::at_gateway(text, routed.by_name)
        } else {
            hosts::wildcard(text)
        };
        match verdict {
            Err(_) if addresses::is_ip(text) => {}
            Err(why) => {
                fine = false;
                host.refuse(report, &why, remedy);
            }
            Ok(()) if routed.in_mesh && text == "*" => {
                fine = false;
                host.refuse(
                    report,
                    "`*` would take all traffic of the mesh",
                    "name hosts, or bind it to a gateway alone",
                );
            }
            Ok(()) => {}
        }
    }
    if !fine {
        return;
    }
    let mut seen = HashSet::new();
    for host in spec.list("hosts") {
        let text = host.own();
        let within = match text.strip_prefix('*') {
            Some(ending) => endings(ending).skip(1).any(|e| routed.endings.contains(e)),
            None => routed.ends(text),
        };
        if within || !seen.insert(text) {
            host.refuse(
                report,
                &format!("`{text}` and another host of the list overlap"),
                "keep one, or write a VirtualService for each",
            );
        }
    }
}

/// `gateways`, of the whole and of a match.
fn gateway_names(at: &At<'_>, report: &mut Report<'_>) {
    for gateway in at.list("gateways") {
        let text = gateway.own();
        let Some((namespace, name)) = text.split_once('/') else {
            if let Some((name, rest)) = text.split_once('.') {
                let namespace = rest.split('.').next().unwrap_or_default();
                gateway.warn(
                    report,
                    "gateways are no longer named by a full name",
                    &format!("write `{namespace}/{name}`"),
                );
            }
            gateway.demand(report, hosts::full(text), "write NAMESPACE/NAME or NAME");
            continue;
        };
        if !names::is_dns_label(namespace) || !names::is_dns_label(name) {
            gateway.refuse(
                report,
                &format!("`{text}` cannot name a gateway"),
                "write NAMESPACE/NAME, each of letters, digits and `-`",
            );
        }
    }
}

/// What matches of TCP, TLS and HTTP have in common.
fn connection_match(wanted: &At<'_>, report: &mut Report<'_>) {
    for subnet in wanted.list("destinationSubnets") {
        subnet.demand(
            report,
            addresses::block(subnet.own()),
            "write for example 10.1.2.3 or 10.0.0.0/8",
        );
    }
    if wanted.whole("port").is_some_and(|number| number != 0) {
        wanted.demand_port(report, "port");
    }
    labels(wanted, "sourceLabels", report);
    gateway_names(wanted, report);
}

fn tls_route(route: &At<'_>, routed: &Routed<'_>, report: &mut Report<'_>) {
    if route.count("match") == 0 {
        route.near("match").refuse(
            report,
            "a route of TLS matches something",
            "add `match:` with `sniHosts`",
        );
    }
    for wanted in route.list("match") {
        if wanted.count("sniHosts") == 0 {
            wanted
                .near("sniHosts")
                .refuse(report, "it names no host", "add `sniHosts:`");
        }
        for host in wanted.list("sniHosts") {
            server_name(&host, routed, report);
        }
        connection_match(&wanted, report);
    }
    destinations(route, report);
}

fn server_name(host: &At<'_>, routed: &Routed<'_>, report: &mut Report<'_>) {
    let text = host.own();
    let verdict = if routed.at_gateway {
        hosts::at_gateway(text, true)
    } else {
        hosts::wildcard(text)
    };
    match verdict {
        Err(_) if addresses::is_ip(text) => host.warn(
            report,
            "a server's name in TLS is never an address (RFC 6066)",
            "write a host",
        ),
        Err(why) => host.refuse(report, &why, "write a full name, or one as `*.example.com`"),
        Ok(()) if !routed.covers(text) => host.refuse(
            report,
            &format!("`{text}` is none of the hosts of the VirtualService"),
            "add it to `spec.hosts`",
        ),
        Ok(()) => {}
    }
}

/// `route` of TLS and TCP.
fn destinations(route: &At<'_>, report: &mut Report<'_>) {
    if route.count("route") == 0 {
        route
            .near("route")
            .refuse(report, "it leads nowhere", "add `route:` with a destination");
    }
    weighted(route, report);
}

/// The destinations of a route, and their weights.
fn weighted(route: &At<'_>, report: &mut Report<'_>) {
    let mut total: i64 = 0;
    for to in route.list("route") {
        if let Some(target) = to.get("destination") {
            destination(&target, report);
        }
        to.demand_not_negative(report, "weight");
        total = total.saturating_add(to.whole("weight").unwrap_or(0));
    }
    if route.count("route") > 1 && total == 0 {
        route.near("route").refuse(
            report,
            "the weights make 0 together",
            "give each destination a weight",
        );
    }
}

/// `destination`.
pub(super) fn destination(target: &At<'_>, report: &mut Report<'_>) {
    let host = target.text("host");
    let at = target.near("host");
    if host == "*" {
        at.refuse(report, "a destination is one host", "name a service");
    } else {
        at.demand(
            report,
            hosts::wildcard(host),
            "write the name of a service, as `web` or `web.ns.svc.cluster.local`",
        );
    }
    let subset = target.text("subset");
    if !subset.is_empty() {
        subset_name(&target.near("subset"), subset, report);
    }
    if let Some(port) = target.get("port") {
        if port.has("number") {
            port.demand_port(report, "number");
        } else {
            port.refuse(report, "it has no `number`", "add the number of a port");
        }
    }
}
