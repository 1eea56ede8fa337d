//! A node: base rules, and the attachment of pods.
//!
//! Every function acts on the network namespace of the calling thread, which must be the node's.

mod base;
mod pod;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::route::{self, Action, Route, Routes, Rule};
use crate::{Error, Netns, nft, plan, sysctl};

/// The routing table that keeps everything on the node.
const CAPTURE_ALL: u32 = 100;
/// The routing table that keeps what is addressed to mesh pods and cluster DNS.
const CAPTURE_TO: u32 = 101;
const OWN_PREFERENCE: u32 = 90;
const CAPTURE_ALL_PREFERENCE: u32 = 100;
const CAPTURE_TO_PREFERENCE: u32 = 110;
const APP_SOURCES: [IpAddr; 2] = [IpAddr::V4(plan::APP_SOURCE_V4), IpAddr::V6(plan::APP_SOURCE_V6)];

/// A node and its place on the fabric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSetup {
    /// The link to the other nodes and the world.
    pub uplink: String,
    /// The node's own addresses, with prefix lengths.
    pub v4: (Ipv4Addr, u8),
    /// See `v4`.
    pub v6: (Ipv6Addr, u8),
    /// Default gateways.
    pub gateway: (Ipv4Addr, Ipv6Addr),
    /// The networks of the node's own pods.
    pub pods: ((Ipv4Addr, u8), (Ipv6Addr, u8)),
    /// The other nodes' pods.
    pub peers: Vec<PeerNode>,
    /// The networks of cluster addresses.
    pub services: ((Ipv4Addr, u8), (Ipv6Addr, u8)),
    /// The addresses of cluster DNS.
    pub cluster_dns: (Ipv4Addr, Ipv6Addr),
}

/// Another node, as a route to its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerNode {
    /// The network of its pods.
    pub pods_v4: (Ipv4Addr, u8),
    /// The IPv6 network of its pods.
    pub pods_v6: (Ipv6Addr, u8),
    /// The node's own addresses.
    pub via: (Ipv4Addr, Ipv6Addr),
}

impl NodeSetup {
    /// Node `index` of `nodes` by the addressing plan.
    pub fn planned(index: u8, nodes: u8) -> Self {
        let peers = (0..nodes).filter(|&n| n != index).map(|n| PeerNode {
            pods_v4: plan::pods_v4(n),
            pods_v6: plan::pods_v6(n),
            via: (plan::node_v4(n), plan::node_v6(n)),
        });
        Self {
            uplink: plan::UPLINK.to_owned(),
            v4: (plan::node_v4(index), plan::FABRIC_PREFIX.0),
            v6: (plan::node_v6(index), plan::FABRIC_PREFIX.1),
            gateway: (plan::HUB_V4, plan::HUB_V6),
            pods: (plan::pods_v4(index), plan::pods_v6(index)),
            peers: peers.collect(),
            services: (plan::SERVICES_V4, plan::SERVICES_V6),
            cluster_dns: (plan::CLUSTER_DNS_V4, plan::CLUSTER_DNS_V6),
        }
    }
}

/// A pod's place on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodPort {
    /// Identifies the interface: unique on the node, at least `FIRST_POD_MARK`.
    pub mark: u32,
    /// The pod's own MAC address.
    pub mac: [u8; 6],
    /// The pod's address.
    pub v4: Ipv4Addr,
    /// The pod's IPv6 address.
    pub v6: Ipv6Addr,
    /// Whether the pod is in the mesh (captured) or plain (routed).
    pub mesh: bool,
}

impl PodPort {
    /// The name of the node's end of the pod's link.
    pub fn interface(&self) -> String {
        format!("pod-{:x}", self.mark)
    }
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// From a mesh pod: UDP other than DNS.
    Udp,
    /// From a mesh pod: ICMP or ICMPv6.
    Icmp,
    /// From a mesh pod: neither TCP, UDP nor ICMP.
    OtherProtocol,
    /// From any pod: a source address that is not the pod's.
    SpoofedSource,
    /// From any pod: a MAC address that is not the pod's, a frame that is not for the node, or
    /// neither IPv4 nor IPv6.
    BadL2,
    /// From a mesh pod: a fragment, IPv4 options or an IPv6 extension header.
    FragmentOrOptions,
    /// From a pod interface that nobody attached.
    UnknownInterface,
    /// To a mesh pod from outside: not TCP.
    ToPodNotTcp,
    /// From a process of the node to a mesh pod, other than the proxy.
    NodeToPod,
    /// Forwarding that no rule foresees.
    Forward,
    /// To a capture port by its own number.
    CapturePortDirect,
    /// For the proxy, which does not listen.
    ProxyAbsent,
    /// To an address of the node that is not offered to the sender.
    ToNode,
    /// Neighbour and multicast discovery, which a routed pod link has no use for.
    Discovery,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 14] = [
        Self::Udp,
        Self::Icmp,
        Self::OtherProtocol,
        Self::SpoofedSource,
        Self::BadL2,
        Self::FragmentOrOptions,
        Self::UnknownInterface,
        Self::ToPodNotTcp,
        Self::NodeToPod,
        Self::Forward,
        Self::CapturePortDirect,
        Self::ProxyAbsent,
        Self::ToNode,
        Self::Discovery,
    ];

    /// The stable name: in counters, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::OtherProtocol => "other_protocol",
            Self::SpoofedSource => "spoofed_source",
            Self::BadL2 => "bad_l2",
            Self::FragmentOrOptions => "fragment_or_options",
            Self::UnknownInterface => "unknown_interface",
            Self::ToPodNotTcp => "to_pod_not_tcp",
            Self::NodeToPod => "node_to_pod",
            Self::Forward => "forward",
            Self::CapturePortDirect => "capture_port_direct",
            Self::ProxyAbsent => "proxy_absent",
            Self::ToNode => "to_node",
            Self::Discovery => "discovery",
        }
    }

    /// The reason of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// What was dropped for one reason since `install`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drops {
    /// Why.
    pub reason: DropReason,
    /// How many packets.
    pub packets: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Makes the namespace a node: addresses, sysctls, routing by interface and the base rules.
/// The uplink must exist (`hub::install`).  Replaces the rules of an earlier `install`.
///
/// # Errors
/// When the kernel refuses, with the step that failed.
pub fn install(setup: &NodeSetup) -> Result<(), Error> {
    // Rules come before links: nothing may pass a node that is half there.
    base::install(setup)?;
    node_sysctls(&setup.uplink)?;
    let mut routes = Routes::open()?;
    let lo = routes.link("lo")?;
    routes.set_up(lo, true)?;
    for address in APP_SOURCES {
        routes.add_address(lo, address, pod::host_prefix(address))?;
    }
    for rule in policy_rules() {
        routes.add_rule(&rule)?;
    }
    for route in captured_routes(setup, lo) {
        routes.add_route(&route)?;
    }
    let uplink = routes.link(&setup.uplink)?;
    routes.add_address(uplink, IpAddr::V4(setup.v4.0), setup.v4.1)?;
    routes.add_address(uplink, IpAddr::V6(setup.v6.0), setup.v6.1)?;
    routes.set_up(uplink, true)?;
    for route in fabric_routes(setup, uplink) {
        routes.add_route(&route)?;
    }
    Ok(())
}

/// Takes everything back that `install` and `attach` did.  What is not there is no error.
///
/// # Errors
/// When the kernel refuses, with the step that failed.
pub fn uninstall(setup: &NodeSetup) -> Result<(), Error> {
    let mut routes = Routes::open()?;
    for (link, name) in routes.links()? {
        if name.starts_with("pod-") || name == setup.uplink {
            routes.delete_link(link)?;
        }
    }
    let lo = routes.link("lo")?;
    for v6 in [false, true] {
        for preference in [OWN_PREFERENCE, CAPTURE_ALL_PREFERENCE, CAPTURE_TO_PREFERENCE] {
            routes.delete_rules(v6, preference)?;
        }
    }
    for table in [CAPTURE_ALL, CAPTURE_TO] {
        routes.flush_table(table)?;
    }
    // Those by the uplink went with it.
    for route in fabric_routes(setup, 0) {
        if route.action == Action::Unreachable {
            routes.delete_route(&route)?;
        }
    }
    for address in APP_SOURCES {
        routes.delete_address(lo, address, pod::host_prefix(address))?;
    }
    crate::services::remove()?;
    base::uninstall()
}

/// Links a pod to the node.  The guard and the capture rules are in force before the link comes up.
///
/// # Errors
/// When the kernel refuses, with the step that failed; nothing is left behind then.
pub fn attach(setup: &NodeSetup, pod_ns: &Netns, pod: &PodPort) -> Result<(), Error> {
    pod::attach(setup, pod_ns, pod)
}

/// Removes a pod's link, rules and routes.  What is not there is no error.
///
/// # Errors
/// When the kernel refuses, with the step that failed.
pub fn detach(pod: &PodPort) -> Result<(), Error> {
    pod::detach(pod)
}

/// The drops by reason, all reasons listed.
///
/// # Errors
/// When the node is not installed.
pub fn drops() -> Result<Vec<Drops>, Error> {
    let mut counted = nft::counters(base::MESH)?;
    counted.extend(nft::counters(base::GUARD)?);
    let drops = DropReason::ALL.into_iter().map(|reason| {
        let mut drops = Drops {
            reason,
            packets: 0,
            bytes: 0,
        };
        for (_, packets, bytes) in counted.iter().filter(|c| c.0 == reason.name()) {
            drops.packets = drops.packets.saturating_add(*packets);
            drops.bytes = drops.bytes.saturating_add(*bytes);
        }
        drops
    });
    Ok(drops.collect())
}

fn node_sysctls(uplink: &str) -> Result<(), Error> {
    sysctl::forwarding()?;
    sysctl::quiet(uplink)?;
    // An accepted socket has the mark of the packet that opened it: the workload's.
    sysctl::set("ipv4/tcp_fwmark_accept", "1")?;
    // Resets and the like, which no socket sends, are marked as what they answer.
    sysctl::set("ipv4/fwmark_reflect", "1")?;
    sysctl::set("ipv6/fwmark_reflect", "1")?;
    // Connections to one application share an address, and so 64 Ki ports.
    sysctl::set_if_there("ipv4/tcp_tw_reuse", "1")?;
    sysctl::set_if_there("ipv4/ip_local_port_range", "16384 65535")
}

/// Own packets go by the main table; packets that came in for a captured address stay here.
/// A mesh pod's rule, between the two, keeps everything that it sends.
fn policy_rules() -> Vec<Rule<'static>> {
    let rules = [false, true].map(|v6| {
        [
            Rule {
                v6,
                preference: OWN_PREFERENCE,
                iif: Some("lo"),
                table: route::MAIN,
            },
            Rule {
                v6,
                preference: CAPTURE_TO_PREFERENCE,
                iif: None,
                table: CAPTURE_TO,
            },
        ]
    });
    rules.into_iter().flatten().collect()
}

fn captured_routes(setup: &NodeSetup, lo: u32) -> Vec<Route> {
    let local = |table, route: Route| Route {
        table,
        action: Action::Local,
        link: Some(lo),
        ..route
    };
    let (dns_v4, dns_v6) = setup.cluster_dns;
    let ((services_v4, prefix_v4), (services_v6, prefix_v6)) = setup.services;
    let mut routes = Vec::new();
    for (dns, services, prefix) in [
        (IpAddr::V4(dns_v4), IpAddr::V4(services_v4), prefix_v4),
        (IpAddr::V6(dns_v6), IpAddr::V6(services_v6), prefix_v6),
    ] {
        routes.push(local(CAPTURE_ALL, pod::default_route(dns)));
        routes.push(local(CAPTURE_TO, Route::to(dns, pod::host_prefix(dns))));
        // A cluster address that survived destination NAT has no backend: say so at once.
        routes.push(Route {
            table: CAPTURE_TO,
            action: Action::Unreachable,
            ..Route::to(services, prefix)
        });
    }
    routes
}

fn fabric_routes(setup: &NodeSetup, uplink: u32) -> Vec<Route> {
    let (own_v4, own_v6) = (IpAddr::V4(setup.v4.0), IpAddr::V6(setup.v6.0));
    let through = |route: Route, gateway: IpAddr| Route {
        link: Some(uplink),
        gateway: Some(gateway),
        source: Some(if gateway.is_ipv4() { own_v4 } else { own_v6 }),
        ..route
    };
    let mut routes = vec![
        through(pod::default_route(own_v4), IpAddr::V4(setup.gateway.0)),
        through(pod::default_route(own_v6), IpAddr::V6(setup.gateway.1)),
    ];
    for peer in &setup.peers {
        let (v4, v4_prefix) = peer.pods_v4;
        let (v6, v6_prefix) = peer.pods_v6;
        routes.push(through(Route::to(v4, v4_prefix), IpAddr::V4(peer.via.0)));
        routes.push(through(Route::to(v6, v6_prefix), IpAddr::V6(peer.via.1)));
    }
    // An address of this node's that no pod has would go round between node and gateway.
    let (pods_v4, pods_v6) = setup.pods;
    for (pods, prefix) in [
        (IpAddr::V4(pods_v4.0), pods_v4.1),
        (IpAddr::V6(pods_v6.0), pods_v6.1),
    ] {
        routes.push(Route {
            action: Action::Unreachable,
            ..Route::to(pods, prefix)
        });
    }
    routes
}
