//! What passes, and where it lands.

use std::net::{IpAddr, SocketAddr};

use capture::services::{self, Protocol, ServiceDnat};
use capture::{DNS_PORT, INBOUND_PORT, OUTBOUND_PORT, PROXY_MARK, node, plan, socket};

use crate::world::{Echo, PATIENCE, SHORT, World, tcp, udp};

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn tcp_from_a_mesh_pod_lands_on_the_outbound_port_wherever_it_goes() {
    let Some(world) = World::with_proxies() else {
        return;
    };
    let a = world.pod("a");
    for destination in [
        address("1.2.3.4:80"),
        address("[2001:db8::1]:443"),
        address("10.96.0.77:8000"),
        address("[fd77:96::77]:8000"),
        address("192.168.77.1:15012"),
        address("192.168.77.10:22"),
        address("169.254.1.1:9"),
        address("[fd77::a9fe:101]:9"),
        world.pod("b").at(false, 8080),
        world.pod("q").at(true, 8080),
        address("8.8.8.8:15001"),
    ] {
        let client = tcp(&a.ns, destination, "hello", PATIENCE).unwrap();
        let seen = world.seen(0);
        assert_eq!((seen.port, seen.destination), (OUTBOUND_PORT, destination));
        assert_eq!((seen.source, seen.mark), (client, a.port.mark));
    }
    world.nothing_seen();
}

#[test]
fn dns_lands_on_the_dns_port() {
    let Some(world) = World::with_proxies() else {
        return;
    };
    let a = world.pod("a");
    for destination in [
        address("10.96.0.10:53"),
        address("[fd77:96::a]:53"),
        address("8.8.8.8:53"),
        address("[2001:db8::8]:53"),
    ] {
        for ask in [udp, tcp] {
            let client = ask(&a.ns, destination, "query", PATIENCE).unwrap();
            let seen = world.seen(0);
            assert_eq!((seen.port, seen.destination), (DNS_PORT, destination));
            assert_eq!((seen.source, seen.mark), (client, a.port.mark));
        }
    }
    // A plain pod's goes there for cluster DNS only.
    let q = world.pod("q");
    for destination in [address("10.96.0.10:53"), address("[fd77:96::a]:53")] {
        for ask in [udp, tcp] {
            let client = ask(&q.ns, destination, "query", PATIENCE).unwrap();
            let seen = world.seen(1);
            assert_eq!((seen.port, seen.destination), (DNS_PORT, destination));
            assert_eq!((seen.source, seen.mark), (client, q.port.mark));
        }
    }
    let outside = Echo::start(&world.hub, 53);
    for destination in [address("192.168.77.1:53"), address("[fd77:ff::1]:53")] {
        let client = udp(&q.ns, destination, "query", PATIENCE).unwrap();
        assert_eq!(outside.callers.recv_timeout(PATIENCE).unwrap(), client);
    }
    world.nothing_seen();
}

#[test]
fn what_is_meant_for_a_mesh_pod_lands_on_the_inbound_port() {
    let Some(world) = World::with_proxies() else {
        return;
    };
    for (from, to) in [("p", "a"), ("p", "b"), ("q", "a"), ("q", "b")] {
        let (from, to) = (world.pod(from), world.pod(to));
        for v6 in [false, true] {
            let destination = to.at(v6, 8080);
            let client = tcp(&from.ns, destination, "hello", PATIENCE).unwrap();
            let seen = world.seen(to.node);
            assert_eq!((seen.port, seen.destination), (INBOUND_PORT, destination));
            assert_eq!((seen.source, seen.mark), (client, to.port.mark));
        }
    }
    // From the world outside, from another node, and on odd ports.
    let b = world.pod("b");
    for from in [&world.hub, &world.nodes[0]] {
        for port in [22, 53, 15001, 15006, 15008] {
            let destination = b.at(port == 53, port);
            let client = tcp(from, destination, "hello", PATIENCE).unwrap();
            let seen = world.seen(1);
            assert_eq!((seen.port, seen.destination), (INBOUND_PORT, destination));
            assert_eq!((seen.source, seen.mark), (client, b.port.mark));
        }
    }
    world.nothing_seen();
}

fn service(vip: &str, protocol: Protocol, backends: Vec<SocketAddr>) -> ServiceDnat {
    let vip = address(vip);
    ServiceDnat {
        vip: vip.ip(),
        port: vip.port(),
        protocol,
        backends,
    }
}

#[test]
fn cluster_addresses_lead_plain_pods_to_backends() {
    let Some(world) = World::with_proxies() else {
        return;
    };
    let p = world.pod("p");
    let _servers = [Echo::start(&world.pod("q").ns, 8080), Echo::start(&p.ns, 8080)];
    for v6 in [false, true] {
        let vip = |n: u8, port: u16| {
            let ip = if v6 {
                format!("[fd77:96::{n}]:{port}")
            } else {
                format!("10.96.0.{n}:{port}")
            };
            address(&ip)
        };
        let text = |a: SocketAddr| a.to_string();
        let [a, b, q] = ["a", "b", "q"].map(|n| world.pod(n).at(v6, 8080));
        let table = [
            service(&text(vip(20, 80)), Protocol::Tcp, vec![a]),
            service(&text(vip(21, 80)), Protocol::Tcp, vec![b]),
            service(&text(vip(22, 80)), Protocol::Tcp, vec![q]),
            service(&text(vip(22, 80)), Protocol::Udp, vec![q]),
            service(&text(vip(23, 80)), Protocol::Tcp, vec![a, b]),
            service(&text(vip(24, 80)), Protocol::Tcp, vec![]),
        ];
        let node = &world.nodes[0];
        node.run(|| services::set(&table)).unwrap().unwrap();
        for (number, backend, at) in [(20, a, 0), (21, b, 1)] {
            let client = tcp(&p.ns, vip(number, 80), "hello", PATIENCE).unwrap();
            let seen = world.seen(at);
            assert_eq!((seen.port, seen.destination), (INBOUND_PORT, backend));
            assert_eq!(seen.source, client);
        }
        tcp(&p.ns, vip(22, 80), "hello", PATIENCE).unwrap();
        udp(&p.ns, vip(22, 80), "hello", PATIENCE).unwrap();
        tcp(node, vip(22, 80), "hello", PATIENCE).unwrap();
        // Both backends are taken, sooner or later: never in 40 tries is one in 5 * 10^11.
        let mut taken = [0, 0];
        for _ in 0..40 {
            tcp(&p.ns, vip(23, 80), "hello", PATIENCE).unwrap();
            for (node, count) in taken.iter_mut().enumerate() {
                while let Some(seen) = world.try_seen(node) {
                    assert_eq!(seen.destination, [a, b][node]);
                    *count += 1;
                }
            }
        }
        assert!(taken[0] > 0 && taken[1] > 0, "{taken:?}");
        // Said at once the first time; the kernel limits how often it does.
        let error = tcp(&p.ns, vip(24, 80), "hello", PATIENCE).unwrap_err();
        let unreachable = [
            std::io::ErrorKind::HostUnreachable,
            std::io::ErrorKind::NetworkUnreachable,
        ];
        assert!(unreachable.contains(&error.kind()), "{error}");
        for nothing in [vip(22, 81), vip(99, 80)] {
            assert!(tcp(&p.ns, nothing, "hello", SHORT).is_err());
        }
        // The table is replaced whole.
        node.run(|| services::set(&[])).unwrap().unwrap();
        assert!(tcp(&p.ns, vip(20, 80), "hello", SHORT).is_err());
    }
    // A mesh pod's connections to a cluster address are the proxy's to balance.
    let table = [service("10.96.0.20:80", Protocol::Tcp, vec![p.at(false, 8080)])];
    world.nodes[0].run(|| services::set(&table)).unwrap().unwrap();
    let vip = address("10.96.0.20:80");
    tcp(&world.pod("a").ns, vip, "hello", PATIENCE).unwrap();
    let seen = world.seen(0);
    assert_eq!((seen.port, seen.destination), (OUTBOUND_PORT, vip));
}

#[test]
fn plain_pods_reach_each_other_the_world_and_the_nodes() {
    let Some(world) = World::with_proxies() else {
        return;
    };
    let servers = [
        (&world.pod("p").ns, "p"),
        (&world.pod("q").ns, "q"),
        (&world.hub, "hub"),
        (&world.nodes[0], "node 0"),
        (&world.nodes[1], "node 1"),
    ];
    let echoes: Vec<_> = servers.iter().map(|(ns, _)| Echo::start(ns, 8080)).collect();
    for v6 in [false, true] {
        let of = |v4, v6_address| {
            SocketAddr::from((
                if v6 {
                    IpAddr::V6(v6_address)
                } else {
                    IpAddr::V4(v4)
                },
                8080,
            ))
        };
        let addresses = [
            world.pod("p").at(v6, 8080),
            world.pod("q").at(v6, 8080),
            of(plan::HUB_V4, plan::HUB_V6),
            of(plan::node_v4(0), plan::node_v6(0)),
            of(plan::node_v4(1), plan::node_v6(1)),
        ];
        for (from, from_name) in servers {
            for ((to, echo), to_name) in addresses.iter().zip(&echoes).zip(servers) {
                for ask in [tcp, udp] {
                    let client = ask(from, *to, "hello", PATIENCE)
                        .unwrap_or_else(|e| panic!("{from_name} to {} {to}: {e}", to_name.1));
                    assert_eq!(echo.callers.recv_timeout(PATIENCE).unwrap(), client);
                }
            }
        }
    }
    world.nothing_seen();
}

#[test]
fn the_proxy_reaches_a_local_application() {
    let Some(world) = World::with_proxies() else {
        return;
    };
    let a = world.pod("a");
    let echo = Echo::start(&a.ns, 8080);
    for v6 in [false, true] {
        for _ in 0..3 {
            let answer = world.nodes[0].run(|| ask_app(a.at(v6, 8080))).unwrap().unwrap();
            assert_eq!(answer, b"hello");
            let caller = echo.callers.recv_timeout(PATIENCE).unwrap();
            assert_eq!(caller.ip(), plan::app_source(a.at(v6, 0).ip()));
        }
        // A port that nobody listens on is refused at once, not after a timeout.
        let error = world.nodes[0]
            .run(|| ask_app(a.at(v6, 8081)))
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    world.nothing_seen();
}

#[test]
fn the_proxy_reaches_others_with_the_callers_address() {
    let Some(world) = World::with_proxies() else {
        return;
    };
    let a = world.pod("a");
    let _servers = [
        Echo::start(&world.pod("p").ns, 8080),
        Echo::start(&world.pod("q").ns, 8080),
        Echo::start(&world.hub, 8080),
    ];
    let text: Vec<u8> = (0..2000_u32).map(|n| n.to_ne_bytes()[0]).collect();
    for v6 in [false, true] {
        let source = a.at(v6, 0).ip();
        let ask = |mark, to| world.nodes[0].run(|| ask(source, mark, to, &text)).unwrap();
        // A mesh pod of another node: its proxy sees the caller's address, and answers it.
        for mark in [PROXY_MARK, a.port.mark, PROXY_MARK] {
            let b = world.pod("b").at(v6, 8080);
            let (client, answer) = ask(mark, b).unwrap();
            assert!(answer == text, "{} bytes came back", answer.len());
            let seen = world.seen(1);
            assert_eq!((seen.port, seen.destination), (INBOUND_PORT, b));
            assert_eq!((seen.source, seen.mark), (client, world.pod("b").port.mark));
            assert_eq!(client.ip(), source);
        }
        // Plain pods here and there, and the world outside.
        let hub = if v6 {
            IpAddr::V6(plan::HUB_V6)
        } else {
            IpAddr::V4(plan::HUB_V4)
        };
        for to in [
            world.pod("p").at(v6, 8080),
            world.pod("q").at(v6, 8080),
            SocketAddr::from((hub, 8080)),
        ] {
            let (client, answer) = ask(a.port.mark, to).unwrap();
            assert_eq!((client.ip(), answer.len()), (source, text.len()));
        }
        // Refusals come back as well.
        let refused = ask(PROXY_MARK, SocketAddr::from((hub, 8081))).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    world.nothing_seen();
}

/// Sends a text from `source` and returns the client's address and the answer.
fn ask(source: IpAddr, mark: u32, to: SocketAddr, text: &[u8]) -> std::io::Result<(SocketAddr, Vec<u8>)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, async {
            let mut stream = socket::connect_from(source, mark, to).await?;
            stream.write_all(text).await?;
            let mut answer = vec![0; text.len()];
            stream.read_exact(&mut answer).await?;
            Ok((stream.local_addr()?, answer))
        })
        .await?
    })
}

fn ask_app(to: SocketAddr) -> std::io::Result<Vec<u8>> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, async {
            let mut stream = socket::connect_app(to).await?;
            stream.write_all(b"hello").await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok(answer)
        })
        .await
        .unwrap()
    })
}

#[test]
fn a_detached_pod_leaves_nothing_and_may_come_back() {
    let Some(mut world) = World::with_proxies() else {
        return;
    };
    let pod = world.pods.remove("a").unwrap();
    let rules = || listing(&world.nodes[0]);
    let before = rules();
    assert!(before.contains("pod-101"));
    for _ in 0..2 {
        world.nodes[0].run(|| node::detach(&pod.port)).unwrap().unwrap();
    }
    let after = rules();
    assert!(!after.contains("pod-101"), "{after}");
    assert!(!after.contains("10.77.0.2 "), "{after}");
    world.nodes[0]
        .run(|| node::attach(&world.setups[0], &pod.ns, &pod.port))
        .unwrap()
        .unwrap();
    tcp(&pod.ns, address("1.2.3.4:80"), "hello", PATIENCE).unwrap();
    assert_eq!(world.seen(0).mark, pod.port.mark);
    // Taken: the one that is there is left alone.
    let again = world.nodes[0]
        .run(|| node::attach(&world.setups[0], &pod.ns, &pod.port))
        .unwrap();
    assert!(again.unwrap_err().to_string().contains("EEXIST"));
    tcp(&pod.ns, address("1.2.3.4:80"), "hello", PATIENCE).unwrap();
    world.nodes[0]
        .run(|| node::uninstall(&world.setups[0]))
        .unwrap()
        .unwrap();
    let bare = listing(&world.nodes[0]);
    for word in ["meshward", "pod-", "up0", "lookup 10", "169.254"] {
        assert!(!bare.contains(word), "{word}: {bare}");
    }
}

/// Everything that `ip` and `nft` show of a namespace.
fn listing(ns: &capture::Netns) -> String {
    let commands = [
        "ip addr",
        "ip rule",
        "ip -6 rule",
        "ip route show table all",
        "ip -6 route show table all",
        "ip neigh",
        "nft list ruleset",
    ];
    ns.run(|| {
        commands.map(|command| {
            let words: Vec<_> = command.split(' ').collect();
            match std::process::Command::new(words[0]).args(&words[1..]).output() {
                Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
                Err(e) => panic!("`{command}` is needed by this test: {e}"),
            }
        })
    })
    .unwrap()
    .concat()
}
