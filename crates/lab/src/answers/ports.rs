//! What every part listens on. A test holds it against what the kernel says.

use std::net::SocketAddr;

use admin::verbs::Port;
use capture::socket::capture_addresses;
use model::Cidr;

use crate::site::{
    CA_METRICS_PORT, CA_PORT, CONTROL_METRICS_PORT, CONTROL_PORT, METRICS_PORT, Site, hub_name,
};

/// What somebody listens on a port for.
struct Use {
    transport: &'static str,
    purpose: &'static str,
    reach: &'static str,
    authentication: &'static str,
}

const CERTIFICATES: Use = Use {
    transport: "tcp",
    purpose: "certificates: Istio's certificate service over TLS 1.3",
    reach: "nodes, the hub, pods outside the mesh",
    authentication: "a service account token that expires, before the request is read",
};
const CONFIGURATION: Use = Use {
    transport: "tcp",
    purpose: "configuration of proxies: delta xDS over mutual TLS",
    reach: "nodes, the hub, pods outside the mesh",
    authentication: "a certificate of the node account, and the token of a node",
};
const PAGES: Use = Use {
    transport: "tcp",
    purpose: "metrics and health, read-only, without TLS",
    reach: "nodes, the hub, pods outside the mesh",
    authentication: "the address that it comes from",
};
const OUTBOUND: Use = Use {
    transport: "tcp",
    purpose: "connections that pods open",
    reach: "mesh pods of the node, captured; addressed directly it is dropped",
    authentication: "the interface that the packets come by says whose they are",
};
const INBOUND: Use = Use {
    transport: "tcp",
    purpose: "connections to pods",
    reach: "whoever can route to a mesh pod of the node, captured; addressed directly it is dropped",
    authentication: "mutual TLS as PeerAuthentication says, then policy",
};
const DNS: Use = Use {
    transport: "udp",
    purpose: "cluster DNS",
    reach: "pods of the node, captured; addressed directly it is dropped",
    authentication: "the interface that the packets come by says whose they are",
};
const DNS_TCP: Use = Use {
    transport: "tcp",
    ..DNS
};

/// Every port.
pub(super) fn ports(site: &Site) -> Vec<Port> {
    let readers = readers(&site.readers);
    let port = |part: &str, netns: &str, address: SocketAddr, what: Use| Port {
        part: part.to_owned(),
        netns: netns.to_owned(),
        transport: what.transport.to_owned(),
        address,
        purpose: what.purpose.to_owned(),
        reach: what.reach.to_owned(),
        authentication: match what.purpose == PAGES.purpose {
            true => readers.clone(),
            false => what.authentication.to_owned(),
        },
    };
    let mut ports = Vec::new();
    let hub = hub_name(&site.mesh);
    for (part, number, what) in [
        ("ca", CA_PORT, CERTIFICATES),
        ("ca", CA_METRICS_PORT, PAGES),
        ("control", CONTROL_PORT, CONFIGURATION),
        ("control", CONTROL_METRICS_PORT, PAGES),
    ] {
        for address in Site::hub_addresses(number) {
            ports.push(port(part, &hub, address, Use { ..what }));
        }
    }
    for node in &site.nodes {
        let part = format!("proxy-{}", node.name);
        let netns = node.netns.path().file_name().unwrap_or_default();
        let netns = netns.to_string_lossy();
        let mut listens = |addresses: Vec<SocketAddr>, what: fn() -> Use| {
            for address in addresses {
                ports.push(port(&part, &netns, address, what()));
            }
        };
        listens(captured(capture::OUTBOUND_PORT), || OUTBOUND);
        listens(captured(capture::INBOUND_PORT), || INBOUND);
        listens(captured(capture::DNS_PORT), || DNS);
        listens(captured(capture::DNS_PORT), || DNS_TCP);
        let pages = node.ips().map(|ip| SocketAddr::from((ip, METRICS_PORT)));
        listens(pages.to_vec(), || PAGES);
    }
    ports
}

/// Who may read pages, in words.
fn readers(networks: &[Cidr]) -> String {
    if networks.iter().any(|network| network.len() == 0) {
        return "none: whoever reaches it may read".to_owned();
    }
    let named: Vec<String> = networks.iter().map(ToString::to_string).collect();
    format!(
        "the address that it comes from: the part's own machine, or of {}; to others it is reset",
        named.join(", ")
    )
}

fn captured(port: u16) -> Vec<SocketAddr> {
    capture_addresses(port).into_iter().collect()
}
