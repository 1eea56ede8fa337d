//! What is dropped: every reason has a real attempt, seen not to arrive, counted, and reported.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use capture::nflog::Report;
use capture::node::DropReason;
use capture::{DNS_PORT, INBOUND_PORT, Netns, OUTBOUND_PORT, PROXY_MARK, plan, socket};
use nix::net::if_::if_nametoindex;

use crate::attempts::{self, NEEDLE};
use crate::packets::{ip, send_frame, to_node, udp as udp_bytes};
use crate::world::{PATIENCE, Reader, SHORT, Sniffer, World, raw, send_raw, sh, tcp, udp};

/// In the payload of what shows that sniffers are awake.
const ALIVE: &[u8] = b"MESHWARD-SNIFFERS-AWAKE";

/// Runs an attempt and returns its report.  The counter must rise with it.
fn refused(
    world: &World,
    node: usize,
    reader: &Reader,
    reason: DropReason,
    name: &str,
    attempt: impl FnOnce(),
) -> Report {
    reader.forget();
    let before = world.drops(node)[&reason];
    attempt();
    let report = reader.next(reason);
    let report = report.unwrap_or_else(|| panic!("{name}: no report with the reason {reason:?}"));
    let after = world.drops(node)[&reason];
    assert!(
        after > before,
        "{name}: {reason:?} counted {before}, then {after}"
    );
    report
}

fn text(bytes: &'static [u8]) -> &'static str {
    std::str::from_utf8(bytes).unwrap()
}

/// A source and a destination address as they stand in a packet's header.
fn header_pair(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let packet = ip(source, destination, 0, &[]);
    packet[if source.is_ipv4() { 12 } else { 8 }..].to_vec()
}

fn link(ns: &Netns, name: &str) -> u32 {
    ns.run(|| if_nametoindex(name).unwrap()).unwrap()
}

fn victims(world: &World) -> Vec<Sniffer> {
    let pods = ["b", "p", "q"].map(|n| Sniffer::new(&world.pod(n).ns, n));
    let mut sniffers = Vec::from(pods);
    sniffers.push(Sniffer::new(&world.hub, "hub"));
    sniffers
}

#[test]
fn nothing_that_a_mesh_pod_sends_past_the_proxy_arrives() {
    let Some(world) = World::with_proxies() else {
        return;
    };
    let a = world.pod("a");
    let reader = Reader::start(&world.nodes[0]);
    let interface = link(&world.nodes[0], &a.port.interface());
    let sniffers = victims(&world);
    for attempt in attempts::all(&world) {
        let name = &attempt.name;
        let report = refused(&world, 0, &reader, attempt.reason, name, || attempt.run(a));
        assert_eq!(
            (report.mark, report.interface),
            (a.port.mark, interface),
            "{name}"
        );
        assert!(
            report.packet.is_some() || attempt.reason == DropReason::BadL2,
            "{name}"
        );
        for sniffer in &sniffers {
            assert!(!sniffer.saw(NEEDLE), "{name} arrived at {}", sniffer.name());
        }
    }
    world.nothing_seen();
    // Silence is no proof unless the sniffers are awake.
    let (p, q) = (world.pod("p"), world.pod("q"));
    let _ = udp(&p.ns, q.at(false, 9), text(ALIVE), SHORT);
    let _ = udp(&q.ns, p.at(false, 9), text(ALIVE), SHORT);
    for sniffer in &sniffers {
        match sniffer.name() {
            "b" => assert_awake(&world, "b", sniffer),
            name => assert!(sniffer.saw(ALIVE), "{name}"),
        }
    }
}

#[test]
fn each_layer_holds_alone() {
    const NO_GUARD: &str = "nft delete table netdev meshward-guard";
    const NO_RULES: &str = "nft delete table inet meshward";
    const NO_ROUTING: &str = "ip rule del pref 100; ip -6 rule del pref 100";
    for (alone, gone) in [
        ("rules", [NO_GUARD, NO_ROUTING]),
        ("guard", [NO_RULES, NO_ROUTING]),
        ("routing", [NO_GUARD, NO_RULES]),
    ] {
        let Some(world) = World::new() else {
            return;
        };
        sh(&world.nodes[0], &gone.join("; "));
        let mut sniffers = victims(&world);
        if alone == "routing" {
            // Routing delivers to the node, which answers a forged source with an error that quotes:
            // nothing is forwarded, yet the neighbour whose address was taken hears of it.
            sniffers.retain(|sniffer| sniffer.name() != "p");
        }
        for attempt in attempts::all(&world) {
            // A guard judges whose packet it is and whether it is whole, not where it goes.
            if alone == "guard" && attempt.reason == DropReason::Udp {
                continue;
            }
            attempt.run(world.pod("a"));
            for sniffer in &sniffers {
                let arrived = sniffer.saw(NEEDLE);
                assert!(
                    !arrived,
                    "{alone}: {} arrived at {}",
                    attempt.name,
                    sniffer.name()
                );
            }
        }
        std::thread::sleep(SHORT);
        for sniffer in &sniffers {
            assert!(!sniffer.saw(NEEDLE), "{alone}: at {}", sniffer.name());
        }
    }
}

#[test]
fn the_same_attempts_arrive_where_nothing_is_enforced() {
    let Some(world) = World::without_enforcement() else {
        return;
    };
    let sniffer = Sniffer::new(&world.pod("q").ns, "q");
    for attempt in attempts::all(&world) {
        attempt.run(world.pod("a"));
        if !attempt.arrives {
            continue;
        }
        let end = Instant::now() + PATIENCE;
        while !sniffer.saw(NEEDLE) {
            assert!(Instant::now() < end, "{} does not arrive", attempt.name);
            std::thread::yield_now();
        }
    }
}

#[test]
fn marks_and_users_change_nothing_for_tcp() {
    let Some(world) = World::with_proxies() else {
        return;
    };
    let a = world.pod("a");
    for v6 in [false, true] {
        let to = world.pod("q").at(v6, 8080);
        for mark in [PROXY_MARK, world.pod("b").port.mark, 1] {
            a.ns.run(|| {
                use std::io::Write;
                let domain = if v6 {
                    socket2::Domain::IPV6
                } else {
                    socket2::Domain::IPV4
                };
                let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
                socket.set_mark(mark).unwrap();
                socket.connect_timeout(&to.into(), PATIENCE).unwrap();
                (&socket).write_all(b"hello").unwrap();
            })
            .unwrap();
            let seen = world.seen(0);
            assert_eq!((seen.port, seen.mark), (OUTBOUND_PORT, a.port.mark));
        }
    }
    world.nothing_seen();
}

#[test]
fn a_report_says_who_and_where() {
    let Some(world) = World::new() else {
        return;
    };
    let a = world.pod("a");
    let reader = Reader::start(&world.nodes[0]);
    for v6 in [false, true] {
        let to = world.pod("q").at(v6, 9999);
        let attempt = || drop(udp(&a.ns, to, "hello", SHORT));
        let packet = refused(&world, 0, &reader, DropReason::Udp, "UDP", attempt)
            .packet
            .unwrap();
        assert_eq!((packet.source, packet.destination), (a.at(v6, 0).ip(), to.ip()));
        assert_eq!((packet.protocol, packet.ports.unwrap().1), (17, 9999));
        assert_eq!(packet.length, if v6 { 40 + 8 + 5 } else { 20 + 8 + 5 });
    }
}

#[test]
fn only_tcp_gets_to_a_mesh_pod() {
    let Some(world) = World::with_proxies() else {
        return;
    };
    let a = world.pod("a");
    let reader = Reader::start(&world.nodes[0]);
    let sniffer = Sniffer::new(&a.ns, "a");
    let reason = DropReason::ToPodNotTcp;
    for v6 in [false, true] {
        let to = a.at(v6, 9999);
        for (name, from) in [
            ("hub", &world.hub),
            ("p", &world.pod("p").ns),
            ("q", &world.pod("q").ns),
            ("node 1", &world.nodes[1]),
        ] {
            let attempt = || drop(udp(from, to, text(NEEDLE), SHORT));
            let report = refused(&world, 0, &reader, reason, name, attempt);
            assert_eq!(report.mark, a.port.mark, "{name}");
        }
        let q = world.pod("q");
        for protocol in [1, 47, 58, 132] {
            let packet = ip(q.at(v6, 0).ip(), to.ip(), protocol, NEEDLE);
            let attempt = || send_frame(&q.ns, plan::POD_LINK, &to_node(q.port.mac, &packet));
            refused(
                &world,
                0,
                &reader,
                reason,
                &format!("protocol {protocol}"),
                attempt,
            );
        }
        assert!(!sniffer.saw(NEEDLE));
    }
    assert_awake(&world, "a", &sniffer);
    world.nothing_seen();
}

/// A packet that does get to a mesh pod.
fn assert_awake(world: &World, pod: &str, sniffer: &Sniffer) {
    let pod = world.pod(pod);
    world.nodes[pod.node]
        .run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let refused = runtime.block_on(socket::connect_app(pod.at(false, 9)));
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        })
        .unwrap();
    let source = IpAddr::V4(plan::APP_SOURCE_V4);
    assert!(
        sniffer.saw(&header_pair(source, pod.at(false, 9).ip())),
        "{}",
        sniffer.name()
    );
}

#[test]
fn of_the_node_only_the_proxy_opens_connections_to_a_mesh_pod() {
    let Some(world) = World::with_proxies() else {
        return;
    };
    let (a, node) = (world.pod("a"), &world.nodes[0]);
    let reader = Reader::start(node);
    let interface = link(node, &a.port.interface());
    let sniffer = Sniffer::new(&a.ns, "a");
    let reason = DropReason::NodeToPod;
    let connect = |source: IpAddr, mark: u32, to: SocketAddr| {
        node.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let connecting = socket::connect_from(source, mark, to);
                let end = tokio::time::timeout(SHORT, connecting).await;
                assert!(!matches!(end, Ok(Ok(_))), "{source} {mark:#x} {to}");
            });
        })
        .unwrap();
    };
    for v6 in [false, true] {
        let to = a.at(v6, 8080);
        let (own, app) = if v6 {
            (IpAddr::V6(plan::node_v6(0)), IpAddr::V6(plan::APP_SOURCE_V6))
        } else {
            (IpAddr::V4(plan::node_v4(0)), IpAddr::V4(plan::APP_SOURCE_V4))
        };
        let other_pod = world.pod("b").at(v6, 0).ip();
        for (source, mark) in [
            (own, 0),
            (own, PROXY_MARK),
            (app, 0),
            (app, a.port.mark),
            (other_pod, PROXY_MARK),
            (other_pod, a.port.mark),
        ] {
            let name = format!("TCP from {source} with mark {mark:#x}");
            let report = refused(&world, 0, &reader, reason, &name, || connect(source, mark, to));
            assert_eq!(report.interface, interface, "{name}");
        }
        let attempt = || drop(udp(node, to, text(NEEDLE), SHORT));
        refused(&world, 0, &reader, reason, "UDP", attempt);
        let packet = ip(own, to.ip(), 132, NEEDLE);
        let attempt = || assert!(send_raw(&raw(node, v6), to.ip(), &packet).is_err());
        refused(&world, 0, &reader, reason, "raw", attempt);
        let pairs = [own, app, other_pod].map(|source| header_pair(source, to.ip()));
        assert!(!sniffer.saw_any(&pairs.each_ref().map(Vec::as_slice)));
    }
    assert_awake(&world, "a", &sniffer);
    world.nothing_seen();
}

#[test]
fn capture_ports_and_node_addresses_are_not_for_others() {
    let Some(world) = World::with_proxies() else {
        return;
    };
    let reader = Reader::start(&world.nodes[0]);
    let node_addresses = [IpAddr::V4(plan::node_v4(0)), IpAddr::V6(plan::node_v6(0))];
    for address in node_addresses {
        for port in [OUTBOUND_PORT, INBOUND_PORT, DNS_PORT] {
            let to = SocketAddr::from((address, port));
            for (name, from) in [("hub", &world.hub), ("p", &world.pod("p").ns)] {
                let attempt = || assert!(tcp(from, to, "hello", SHORT).is_err());
                let name = format!("{name} to {to}");
                refused(&world, 0, &reader, DropReason::CapturePortDirect, &name, attempt);
            }
            let attempt = || drop(udp(&world.hub, to, "hello", SHORT));
            refused(&world, 0, &reader, DropReason::CapturePortDirect, "UDP", attempt);
        }
    }
    // The addresses that stand for the proxy, from the wire and from a plain pod.
    let p = world.pod("p");
    for to in [IpAddr::V4(plan::APP_SOURCE_V4), IpAddr::V6(plan::APP_SOURCE_V6)] {
        let to = SocketAddr::from((to, 8080));
        let attempt = || assert!(tcp(&p.ns, to, "hello", SHORT).is_err());
        refused(&world, 0, &reader, DropReason::ToNode, "p", attempt);
    }
    let via = |address| {
        sh(
            &world.hub,
            &format!("ip route replace {} via {}", plan::APP_SOURCE_V4, address),
        )
    };
    via(plan::node_v4(0));
    let to = SocketAddr::from((plan::APP_SOURCE_V4, 8080));
    let attempt = || assert!(tcp(&world.hub, to, "hello", SHORT).is_err());
    refused(&world, 0, &reader, DropReason::ToNode, "hub", attempt);
    world.nothing_seen();
}

#[test]
fn a_node_is_no_way_through() {
    let Some(world) = World::with_proxies() else {
        return;
    };
    let reader = Reader::start(&world.nodes[0]);
    let sniffer = Sniffer::new(&world.nodes[1], "node 1");
    sh(
        &world.hub,
        &format!(
            "ip route replace 198.51.100.1 via {}; ip -6 route replace 2001:db8::51 via {}",
            plan::node_v4(0),
            plan::node_v6(0)
        ),
    );
    sh(
        &world.nodes[0],
        &format!(
            "ip route replace 198.51.100.1 via {}; ip -6 route replace 2001:db8::51 via {}",
            plan::node_v4(1),
            plan::node_v6(1)
        ),
    );
    for to in ["198.51.100.1:9", "[2001:db8::51]:9"] {
        let to = to.parse().unwrap();
        let attempt = || drop(udp(&world.hub, to, text(NEEDLE), SHORT));
        refused(&world, 0, &reader, DropReason::Forward, "hub", attempt);
        assert!(!sniffer.saw(NEEDLE));
    }
}

#[test]
fn without_a_proxy_nothing_passes() {
    let Some(world) = World::new() else {
        return;
    };
    let [a, p, q] = ["a", "p", "q"].map(|n| world.pod(n));
    let reader = Reader::start(&world.nodes[0]);
    let at_q = Sniffer::new(&q.ns, "q");
    let at_a = Sniffer::new(&a.ns, "a");
    let reason = DropReason::ProxyAbsent;
    for v6 in [false, true] {
        let (dns, hub) = if v6 {
            (IpAddr::V6(plan::CLUSTER_DNS_V6), IpAddr::V6(plan::HUB_V6))
        } else {
            (IpAddr::V4(plan::CLUSTER_DNS_V4), IpAddr::V4(plan::HUB_V4))
        };
        let dns = SocketAddr::from((dns, 53));
        for (name, from, to, ask) in [
            ("TCP out", &a.ns, q.at(v6, 80), tcp as fn(&_, _, &_, _) -> _),
            ("DNS by TCP", &a.ns, dns, tcp),
            ("DNS by UDP", &a.ns, dns, udp),
            ("DNS elsewhere", &a.ns, q.at(v6, 53), udp),
            ("DNS of a plain pod", &p.ns, dns, udp),
            ("TCP in", &world.hub, a.at(v6, 80), tcp),
            ("TCP in from a neighbour", &p.ns, a.at(v6, 80), tcp),
            ("TCP in from the other node", &q.ns, a.at(v6, 80), tcp),
        ] {
            let attempt = || assert!(ask(from, to, text(NEEDLE), SHORT).is_err(), "{name}");
            refused(&world, 0, &reader, reason, name, attempt);
        }
        let [a_ip, p_ip, q_ip] = [a, p, q].map(|pod| pod.at(v6, 0).ip());
        assert!(!at_q.saw(&header_pair(a_ip, q_ip)));
        let pairs = [hub, p_ip, q_ip].map(|source| header_pair(source, a_ip));
        assert!(!at_a.saw_any(&pairs.each_ref().map(Vec::as_slice)));
    }
    assert_awake(&world, "a", &at_a);
}

#[test]
fn a_link_that_nobody_attached_gets_nowhere() {
    let Some(world) = World::with_proxies() else {
        return;
    };
    let reader = Reader::start(&world.nodes[0]);
    let sniffers = victims(&world);
    let q = world.pod("q");
    sh(
        &world.nodes[0],
        "ip link add pod-fff type veth peer name intruder; ip link set pod-fff up; ip link set intruder up; \
         ip link set pod-fff address ee:ee:ee:ee:ee:ee",
    );
    for v6 in [false, true] {
        // As the pod that is there, and as one that might be.
        for source in [world.pod("a").at(v6, 0).ip(), world.pod("p").at(v6, 0).ip()] {
            for protocol in [6, 17] {
                let packet = ip(
                    source,
                    q.at(v6, 0).ip(),
                    protocol,
                    &udp_bytes(9, 53, &[NEEDLE, &[0; 20]].concat()),
                );
                let attempt =
                    || send_frame(&world.nodes[0], "intruder", &to_node([2, 0, 0, 0, 0, 9], &packet));
                refused(
                    &world,
                    0,
                    &reader,
                    DropReason::UnknownInterface,
                    "intruder",
                    attempt,
                );
            }
        }
    }
    for sniffer in &sniffers {
        assert!(!sniffer.saw(NEEDLE), "{}", sniffer.name());
    }
    world.nothing_seen();
}
