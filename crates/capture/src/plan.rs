//! The addressing plan of a mesh on one machine: every number that is not configured.
//!
//! All of it lives in namespaces of the mesh, so that two meshes on a machine never collide.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The most nodes that a mesh on one machine may have.
pub const MAX_NODES: u8 = 64;
/// The most pods that a node's pod network holds.
pub const MAX_PODS_PER_NODE: u8 = 250;
/// The name of the hub's bridge.
pub const FABRIC: &str = "fabric";
/// The name of a node's link to the hub.
pub const UPLINK: &str = "up0";
/// The name of a pod's only link besides `lo`.
pub const POD_LINK: &str = "eth0";
/// The hub's address: the certificate authority, the control plane and the world outside.
pub const HUB_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
/// The hub's IPv6 address.
pub const HUB_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0xff, 0, 0, 0, 0, 0, 1);
/// Prefix lengths of the fabric.
pub const FABRIC_PREFIX: (u8, u8) = (24, 64);
/// A pod's IPv4 gateway, and the source address of connections from the proxy to a local application.
pub const APP_SOURCE_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The source address of IPv6 connections from the proxy to a local application.
pub const APP_SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0xa9fe, 0x0101);
/// A pod's IPv6 gateway; never configured anywhere, only a static neighbour of the pod.
pub const POD_GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The MAC address of the node's end of every pod link.
pub const NODE_MAC: [u8; 6] = [0xee; 6];
/// The network of ClusterIPs.
pub const SERVICES_V4: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 96, 0, 0), 16);
/// The network of IPv6 ClusterIPs.
pub const SERVICES_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd77, 0x96, 0, 0, 0, 0, 0, 0), 112);
/// The address of cluster DNS.
pub const CLUSTER_DNS_V4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The IPv6 address of cluster DNS.
pub const CLUSTER_DNS_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0x96, 0, 0, 0, 0, 0, 0xa);

/// The address of node `index` on the fabric.
pub fn node_v4(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, 10_u8.saturating_add(index))
}

/// The IPv6 address of node `index` on the fabric.
pub fn node_v6(index: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0xff, 0, 0, 0, 0, 0, 10 + u16::from(index))
}

/// The network of the pods of node `index`, with its prefix length.
pub fn pods_v4(index: u8) -> (Ipv4Addr, u8) {
    (Ipv4Addr::new(10, 77, index, 0), 24)
}

/// The IPv6 network of the pods of node `index`, with its prefix length.
pub fn pods_v6(index: u8) -> (Ipv6Addr, u8) {
    (Ipv6Addr::new(0xfd77, 1, u16::from(index), 0, 0, 0, 0, 0), 64)
}

/// The address of pod `number` (from 0) of node `index`.
pub fn pod_v4(index: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, index, 2_u8.saturating_add(number))
}

/// The IPv6 address of pod `number` (from 0) of node `index`.
pub fn pod_v6(index: u8, number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 1, u16::from(index), 0, 0, 0, 0, 2 + u16::from(number))
}

/// A locally administered MAC address, different for every mark.
pub fn pod_mac(mark: u32) -> [u8; 6] {
    let [a, b, c, d] = mark.to_be_bytes();
    [0x02, 0x77, a, b, c, d]
}

/// The source address of the proxy's connections to a local application of `destination`'s family.
pub fn app_source(destination: IpAddr) -> IpAddr {
    match destination {
        IpAddr::V4(_) => IpAddr::V4(APP_SOURCE_V4),
        IpAddr::V6(_) => IpAddr::V6(APP_SOURCE_V6),
    }
}
