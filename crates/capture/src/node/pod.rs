//! A pod on its node: guard, map elements, link, routes; in that order, and back.

use std::net::IpAddr;

use nix::errno::Errno;

use super::base::{
    GUARD, ICMPV6, MESH, MESH_ANSWERS, MESH_LINKS, MESH_V4, MESH_V6, PLAIN_LINKS, TCP, UDP, drop_chain,
};
use super::{CAPTURE_ALL, CAPTURE_ALL_PREFERENCE, CAPTURE_TO, DropReason, NodeSetup, PodPort};
use crate::netlink::route::{Action, Route, Routes, Rule as PolicyRule, octets, tolerate};
use crate::nft::{Base, Batch, Data, Family, Hook, Rule, interface_key};
use crate::{Error, FIRST_POD_MARK, Netns, plan, sysctl};

/// Before any other hook of the device.
const GUARD_PRIORITY: i32 = -500;
const ETHERTYPE_V4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_V6: [u8; 2] = [0x86, 0xdd];
/// Extension headers of IPv6, which name no transport.
const EXTENSIONS: [u8; 8] = [0, 43, 44, 51, 60, 135, 139, 140];

pub(super) fn attach(setup: &NodeSetup, pod_ns: &Netns, pod: &PodPort) -> Result<(), Error> {
    if pod.mark < FIRST_POD_MARK {
        return Err(Error::Invalid(format!("mark {:#x} is below a pod's", pod.mark)));
    }
    let mut routes = Routes::open()?;
    let name = pod.interface();
    // Both ends are down until everything is in force; fails when the name is taken.
    routes.add_veth(
        (&name, Some(plan::NODE_MAC)),
        (plan::POD_LINK, Some(pod.mac)),
        pod_ns,
    )?;
    let result = connect(&mut routes, setup, pod_ns, pod);
    if result.is_err() {
        let _ = detach(pod);
    }
    result
}

pub(super) fn detach(pod: &PodPort) -> Result<(), Error> {
    let mut routes = Routes::open()?;
    let name = pod.interface();
    // The link goes first: nothing may pass it once its guard is gone.
    if let Some(link) = routes.find_link(&name)? {
        routes.delete_link(link)?;
    }
    for v6 in [false, true] {
        routes.delete_rule(&capture_rule(&name, v6))?;
    }
    for address in [IpAddr::V4(pod.v4), IpAddr::V6(pod.v6)] {
        routes.delete_route(&capture_route(address, 0))?;
    }
    for (set, key) in elements(pod).into_iter().map(|(set, key, _)| (set, key)) {
        let mut batch = Batch::default();
        batch.delete_element(MESH, set, key);
        tolerate(batch.commit(), &[Errno::ENOENT])?;
    }
    let mut batch = Batch::default();
    batch.delete_chain(GUARD, &name);
    tolerate(batch.commit(), &[Errno::ENOENT])
}

fn connect(routes: &mut Routes, setup: &NodeSetup, pod_ns: &Netns, pod: &PodPort) -> Result<(), Error> {
    let name = pod.interface();
    let mut batch = Batch::default();
    guard(&mut batch, &name, pod);
    for (set, key, data) in elements(pod) {
        batch.add_elements(MESH, set, &[(key, data)]);
    }
    batch.commit()?;
    let lo = routes.link("lo")?;
    if pod.mesh {
        for v6 in [false, true] {
            routes.add_rule(&capture_rule(&name, v6))?;
        }
        for address in [IpAddr::V4(pod.v4), IpAddr::V6(pod.v6)] {
            routes.add_route(&capture_route(address, lo))?;
        }
    }
    sysctl::quiet(&name)?;
    sysctl::unaddressed(&name)?;
    pod_ns.run(|| pod_side(pod))??;
    let link = routes.link(&name)?;
    routes.set_up(link, true)?;
    for (address, source) in [
        (IpAddr::V4(pod.v4), IpAddr::V4(setup.v4.0)),
        (IpAddr::V6(pod.v6), IpAddr::V6(setup.v6.0)),
    ] {
        routes.add_neighbour(link, address, pod.mac)?;
        routes.add_route(&Route {
            link: Some(link),
            // Without it the kernel might pick the address that is reserved for the proxy.
            source: Some(source),
            ..Route::to(address, host_prefix(address))
        })?;
    }
    Ok(())
}

/// The pod's own end, from within its namespace.
fn pod_side(pod: &PodPort) -> Result<(), Error> {
    let mut routes = Routes::open()?;
    let lo = routes.link("lo")?;
    routes.set_up(lo, true)?;
    sysctl::quiet("all")?;
    sysctl::quiet(plan::POD_LINK)?;
    sysctl::unaddressed(plan::POD_LINK)?;
    let link = routes.link(plan::POD_LINK)?;
    for address in [IpAddr::V4(pod.v4), IpAddr::V6(pod.v6)] {
        routes.add_address(link, address, host_prefix(address))?;
    }
    routes.set_up(link, true)?;
    for (address, gateway) in [
        (IpAddr::V4(pod.v4), IpAddr::V4(plan::APP_SOURCE_V4)),
        (IpAddr::V6(pod.v6), IpAddr::V6(plan::POD_GATEWAY_V6)),
    ] {
        routes.add_neighbour(link, gateway, plan::NODE_MAC)?;
        routes.add_route(&Route {
            link: Some(link),
            gateway: Some(gateway),
            source: Some(address),
            ..default_route(address)
        })?;
    }
    Ok(())
}

pub(super) fn default_route(family: IpAddr) -> Route {
    match family {
        IpAddr::V4(_) => Route::to(std::net::Ipv4Addr::UNSPECIFIED, 0),
        IpAddr::V6(_) => Route::to(std::net::Ipv6Addr::UNSPECIFIED, 0),
    }
}

pub(super) fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn capture_rule(interface: &str, v6: bool) -> PolicyRule<'_> {
    PolicyRule {
        v6,
        preference: CAPTURE_ALL_PREFERENCE,
        iif: Some(interface),
        table: CAPTURE_ALL,
    }
}

/// What comes in for the pod's address stays on the node.
fn capture_route(address: IpAddr, lo: u32) -> Route {
    Route {
        table: CAPTURE_TO,
        action: Action::Local,
        link: (lo != 0).then_some(lo),
        ..Route::to(address, host_prefix(address))
    }
}

fn elements(pod: &PodPort) -> Vec<(&'static str, Vec<u8>, Data)> {
    let key = interface_key(&pod.interface());
    if !pod.mesh {
        return vec![(PLAIN_LINKS, key, Data::Mark(pod.mark))];
    }
    let mut pair = key.clone();
    pair.extend_from_slice(&pod.mark.to_ne_bytes());
    vec![
        (MESH_LINKS, key, Data::Mark(pod.mark)),
        (MESH_ANSWERS, pair, Data::Nothing),
        (MESH_V4, octets(IpAddr::V4(pod.v4)), Data::Mark(pod.mark)),
        (MESH_V6, octets(IpAddr::V6(pod.v6)), Data::Mark(pod.mark)),
    ]
}

/// The chain on the pod's device: only the pod's own addresses, and from a mesh pod only whole
/// packets without detours whose transport is plain to see.
fn guard(batch: &mut Batch, name: &str, pod: &PodPort) {
    let base = Base {
        nat: false,
        hook: Hook::Ingress(name),
        priority: GUARD_PRIORITY,
        accept: false,
    };
    batch.add_chain(GUARD, name, Some(base));
    let mut add = |rule: Rule| batch.add_rule(GUARD, name, &rule);
    let refuse = |rule: Rule, reason| rule.goto(drop_chain(reason));
    // So that reports of drops tell whose packet it was.
    add(Rule::new().set_mark(pod.mark));
    let frame = |offset, bytes: &[u8], equal| Rule::new().link_bytes(offset, bytes, equal);
    add(refuse(frame(6, &pod.mac, false), DropReason::BadL2));
    for next in [0, ICMPV6] {
        let multicast = frame(12, &ETHERTYPE_V6, true)
            .network_bytes(6, &[next], true)
            .network_bytes(24, &[0xff, 0x02], true);
        add(refuse(multicast, DropReason::Discovery));
    }
    add(refuse(frame(0, &plan::NODE_MAC, false), DropReason::BadL2));
    for family in Family::BOTH {
        let (ethertype, source_at, source, transport_at) = match family {
            Family::V4 => (ETHERTYPE_V4, 12, octets(IpAddr::V4(pod.v4)), 9),
            Family::V6 => (ETHERTYPE_V6, 8, octets(IpAddr::V6(pod.v6)), 6),
        };
        let packet = || frame(12, &ethertype, true);
        let foreign = packet().network_bytes(source_at, &source, false);
        add(refuse(foreign, DropReason::SpoofedSource));
        if !pod.mesh {
            // A routed packet starts without a mark: marks are for what is captured.
            add(packet().set_mark(0).accept());
            continue;
        }
        let carries = |protocol: u8| packet().network_bytes(transport_at, &[protocol], true);
        if family == Family::V4 {
            let options = packet().network_masked_not(0, &[0x0f], &[0x05]);
            add(refuse(options, DropReason::FragmentOrOptions));
            let fragment = packet().network_masked_not(6, &[0x3f, 0xff], &[0, 0]);
            add(refuse(fragment, DropReason::FragmentOrOptions));
            add(refuse(carries(1), DropReason::Icmp));
        } else {
            for extension in EXTENSIONS {
                add(refuse(carries(extension), DropReason::FragmentOrOptions));
            }
            add(refuse(carries(ICMPV6), DropReason::Icmp));
        }
        for protocol in [TCP, UDP] {
            add(carries(protocol).accept());
        }
        add(refuse(packet(), DropReason::OtherProtocol));
    }
    add(refuse(Rule::new(), DropReason::BadL2));
}
