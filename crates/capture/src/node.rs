//! A node: base rules, and the attachment of pods.
//!
//! Every function acts on the network namespace of the calling thread, which must be the node's.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{Error, Netns, plan};

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
/// The uplink must exist (`hub::install`).
///
/// # Errors
/// When the kernel refuses, with the step that failed.
pub fn install(setup: &NodeSetup) -> Result<(), Error> {
    let _ = setup;
    Err(Error::Invalid("not there yet".to_owned()))
}

/// Takes everything back that `install` and `attach` did.  What is not there is no error.
///
/// # Errors
/// When the kernel refuses, with the step that failed.
pub fn uninstall(setup: &NodeSetup) -> Result<(), Error> {
    let _ = setup;
    Err(Error::Invalid("not there yet".to_owned()))
}

/// Links a pod to the node.  The guard and the capture rules are in force before the link comes up.
///
/// # Errors
/// When the kernel refuses, with the step that failed; nothing is left behind then.
pub fn attach(setup: &NodeSetup, pod_ns: &Netns, pod: &PodPort) -> Result<(), Error> {
    let _ = (setup, pod_ns, pod);
    Err(Error::Invalid("not there yet".to_owned()))
}

/// Removes a pod's link, rules and routes.  What is not there is no error.
///
/// # Errors
/// When the kernel refuses, with the step that failed.
pub fn detach(pod: &PodPort) -> Result<(), Error> {
    let _ = pod;
    Err(Error::Invalid("not there yet".to_owned()))
}

/// The drops by reason, all reasons listed.
///
/// # Errors
/// When the node is not installed.
pub fn drops() -> Result<Vec<Drops>, Error> {
    Err(Error::Invalid("not there yet".to_owned()))
}
