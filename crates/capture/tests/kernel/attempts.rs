//! What a mesh pod might try, to reach others past the proxy: with the reason for which each is
//! dropped, and whether it would get there if nothing stopped it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use capture::node::DropReason;
use capture::{PROXY_MARK, plan};
use nix::libc;
use socket2::SockRef;

use crate::packets::{extension, frame, ip, multicast_mac, send_frame, to_node, udp, v4};
use crate::world::{Pod, World, raw, send_raw, sh};

/// In the payload of every attempt.
pub(crate) const NEEDLE: &[u8] = b"MESHWARD-ATTEMPT";

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const UDP: u8 = 17;
const PORT: u16 = 9999;

pub(crate) struct Attempt {
    pub(crate) name: String,
    pub(crate) reason: DropReason,
    /// Whether it arrives where nothing is enforced.
    pub(crate) arrives: bool,
    run: Box<dyn Fn(&Pod)>,
}

impl Attempt {
    fn new(name: impl Into<String>, reason: DropReason, run: impl Fn(&Pod) + 'static) -> Self {
        Self {
            name: name.into(),
            reason,
            arrives: true,
            run: Box::new(run),
        }
    }

    fn by_frame(
        name: impl Into<String>,
        reason: DropReason,
        make: impl Fn(&Pod) -> Vec<u8> + 'static,
    ) -> Self {
        Self::new(name, reason, move |pod| {
            send_frame(&pod.ns, plan::POD_LINK, &make(pod));
        })
    }

    /// A packet in a frame that is all right.
    fn by_packet(
        name: impl Into<String>,
        reason: DropReason,
        make: impl Fn(&Pod) -> Vec<u8> + 'static,
    ) -> Self {
        Self::by_frame(name, reason, move |pod| to_node(pod.port.mac, &make(pod)))
    }

    fn never_arrives(mut self) -> Self {
        self.arrives = false;
        self
    }

    pub(crate) fn run(&self, pod: &Pod) {
        (self.run)(pod);
    }
}

/// All attempts from pod `a`, at the plain pod of the other node.
pub(crate) fn all(world: &World) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for v6 in [false, true] {
        let to = world.pod("q").at(v6, PORT);
        attempts.extend(plain(v6, to));
        attempts.extend(headers(v6, to.ip()));
        attempts.extend(disguised(v6, to, world));
        attempts.extend(link_layer(v6, to.ip()));
    }
    attempts
}

/// Protocols other than TCP, as any program sends them.
fn plain(v6: bool, to: SocketAddr) -> Vec<Attempt> {
    let (family, echo_request, icmp) = if v6 {
        ("IPv6", 128, ICMPV6)
    } else {
        ("IPv4", 8, ICMP)
    };
    let mut attempts = Vec::new();
    for port in [9999, 443, 123, 4789] {
        let to = SocketAddr::from((to.ip(), port));
        attempts.push(Attempt::new(
            format!("{family} UDP to port {port}"),
            DropReason::Udp,
            move |pod| send_udp(pod, to, None),
        ));
    }
    for kind in [echo_request, 13] {
        attempts.push(Attempt::by_packet(
            format!("{family} ICMP type {kind}"),
            DropReason::Icmp,
            move |pod| {
                let message = [&[kind, 0, 0, 0, 0, 1, 0, 1], NEEDLE].concat();
                ip(pod.at(v6, 0).ip(), to.ip(), icmp, &message)
            },
        ));
    }
    for protocol in [4, 33, 41, 47, 50, 89, 112, 132, 136, 253] {
        attempts.push(Attempt::by_packet(
            format!("{family} protocol {protocol}"),
            DropReason::OtherProtocol,
            move |pod| {
                // For the protocols that carry packets: one that is complete.
                let inner = ip(pod.at(v6, 0).ip(), to.ip(), UDP, &udp(1, 2, NEEDLE));
                ip(pod.at(v6, 0).ip(), to.ip(), protocol, &inner)
            },
        ));
    }
    attempts
}

/// Packets whose headers hide what they carry.
fn headers(v6: bool, to: IpAddr) -> Vec<Attempt> {
    let reason = DropReason::FragmentOrOptions;
    if v6 {
        let kinds = [0, 43, 44, 51, 60, 135, 139, 140];
        let by = |kind| {
            Attempt::by_packet(format!("IPv6 extension header {kind}"), reason, move |pod| {
                ip(pod.at(true, 0).ip(), to, kind, &extension(kind, NEEDLE))
            })
        };
        return kinds.map(by).into();
    }
    const MORE: u16 = 0x2000;
    let payload = || udp(4000, PORT, &[NEEDLE, &[0; 8]].concat());
    vec![
        Attempt::by_packet("IPv4 first fragment", reason, move |pod| {
            v4(pod.at(false, 0).ip(), to, UDP, &[], MORE, &payload())
        }),
        Attempt::by_packet("IPv4 later fragment", reason, move |pod| {
            v4(pod.at(false, 0).ip(), to, 6, &[], 3, &payload())
        }),
        Attempt::by_packet("IPv4 options: padding", reason, move |pod| {
            v4(pod.at(false, 0).ip(), to, 6, &[1, 1, 1, 0], 0, &payload())
        }),
        Attempt::by_packet("IPv4 options: record route", reason, move |pod| {
            let record = [7, 7, 4, 0, 0, 0, 0, 0];
            v4(pod.at(false, 0).ip(), to, 6, &record, 0, &payload())
        }),
        Attempt::by_packet("IPv4 options: loose source route", reason, move |pod| {
            let route = [131, 7, 4, 192, 168, 77, 1, 0];
            v4(pod.at(false, 0).ip(), to, 6, &route, 0, &payload())
        })
        .never_arrives(),
    ]
}

/// Attempts to look like somebody else, or to undo what a pod might think that captures it.
fn disguised(v6: bool, to: SocketAddr, world: &World) -> Vec<Attempt> {
    let family = if v6 { "IPv6" } else { "IPv4" };
    let neighbour = world.pod("p").at(v6, 0).ip();
    let other_mark = world.pod("b").port.mark;
    let outside: IpAddr = if v6 {
        "2001:db8::7".parse().unwrap()
    } else {
        "203.0.113.7".parse().unwrap()
    };
    let mut attempts = Vec::new();
    for source in [neighbour, outside, plan::app_source(to.ip())] {
        let packet = move || ip(source, to.ip(), UDP, &udp(4000, PORT, NEEDLE));
        // A node takes nobody else's word for its own address.
        let arrives = source != plan::app_source(source);
        let reason = DropReason::SpoofedSource;
        let name = format!("{family} source {source} by AF_PACKET");
        let by_frame = Attempt::by_packet(name, reason, move |_| packet());
        let name = format!("{family} source {source} by IP_HDRINCL");
        let by_socket = Attempt::new(name, reason, move |pod| {
            send_raw(&raw(&pod.ns, v6), to.ip(), &packet()).unwrap();
        });
        attempts.extend([by_frame, by_socket].map(|attempt| Attempt { arrives, ..attempt }));
    }
    attempts.push(Attempt::new(
        format!("{family} a second address"),
        DropReason::SpoofedSource,
        move |pod| {
            let prefix = if v6 { "128 nodad" } else { "32" };
            let change = |verb| sh(&pod.ns, &format!("ip addr {verb} {neighbour}/{prefix} dev eth0"));
            change("add");
            send_udp_from(pod, neighbour, to);
            change("del");
        },
    ));
    for mark in [PROXY_MARK, other_mark, 1] {
        attempts.push(Attempt::new(
            format!("{family} UDP with SO_MARK {mark:#x}"),
            DropReason::Udp,
            move |pod| send_udp(pod, to, Some(mark)),
        ));
    }
    attempts.push(Attempt::new(
        format!("{family} UDP as user 1337"),
        DropReason::Udp,
        move |pod| as_user_1337(pod, to),
    ));
    attempts.push(Attempt::new(
        format!("{family} UDP without the pod's own rules"),
        DropReason::Udp,
        move |pod| {
            sh(
                &pod.ns,
                "nft flush ruleset && ip rule add pref 5 lookup main && ip -6 rule add pref 5 lookup main",
            );
            send_udp(pod, to, None);
            sh(&pod.ns, "ip rule del pref 5 && ip -6 rule del pref 5");
        },
    ));
    attempts.push(Attempt::new(
        format!("{family} UDP by destination NAT in the pod"),
        DropReason::Udp,
        move |pod| {
            let (word, bait) = if v6 { ("ip6", "2001:db8::9") } else { ("ip", "203.0.113.9") };
            sh(
                &pod.ns,
                &format!(
                    "nft 'add table {word} t; add chain {word} t o {{ type nat hook output priority -100; }}; \
                     add rule {word} t o {word} daddr {bait} dnat to {}'",
                    to.ip()
                ),
            );
            send_udp(pod, SocketAddr::from((bait.parse::<IpAddr>().unwrap(), PORT)), None);
            sh(&pod.ns, "nft flush ruleset");
        },
    ));
    attempts.push(Attempt::new(
        format!("{family} UDP by a renamed link"),
        DropReason::Udp,
        move |pod| {
            rename(pod, "eth0", "wan0");
            send_udp(pod, to, None);
            rename(pod, "wan0", "eth0");
        },
    ));
    attempts
}

/// Frames that are wrong below IP.
fn link_layer(v6: bool, to: IpAddr) -> Vec<Attempt> {
    const OTHER: [u8; 6] = [0x02, 0x99, 0, 0, 0, 1];
    let family = if v6 { "IPv6" } else { "IPv4" };
    let packet = move |pod: &Pod| ip(pod.at(v6, 0).ip(), to, UDP, &udp(4000, PORT, NEEDLE));
    let mut attempts = vec![
        Attempt::by_frame(
            format!("{family} from a foreign MAC address"),
            DropReason::BadL2,
            move |pod| to_node(OTHER, &packet(pod)),
        ),
        Attempt::by_frame(
            format!("{family} to a foreign MAC address"),
            DropReason::BadL2,
            move |pod| {
                let mut bytes = to_node(pod.port.mac, &packet(pod));
                bytes[..6].copy_from_slice(&OTHER);
                bytes
            },
        )
        .never_arrives(),
    ];
    for ethertype in [0x0806, 0x88b5, 0x8100, 0x8847, 0x8864] {
        let by = move |pod: &Pod| {
            // Behind a VLAN tag, the ethertype of what follows.
            let inner = if v6 {
                [0, 7, 0x86, 0xdd]
            } else {
                [0, 7, 0x08, 0x00]
            };
            let payload = [&inner, &packet(pod)[..]].concat();
            frame(plan::NODE_MAC, pod.port.mac, ethertype, &payload)
        };
        let name = format!("{family} in a frame of type {ethertype:#x}");
        attempts.push(Attempt::by_frame(name, DropReason::BadL2, by).never_arrives());
    }
    if v6 {
        for group in [
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
            "ff02::1:ff00:2".parse().unwrap(),
        ] {
            let by = move |pod: &Pod| {
                let message = [&[135, 0, 0, 0, 0, 0, 0, 0], NEEDLE].concat();
                let packet = ip(pod.at(true, 0).ip(), IpAddr::V6(group), ICMPV6, &message);
                frame(multicast_mac(group), pod.port.mac, 0x86dd, &packet)
            };
            let name = format!("IPv6 discovery to {group}");
            attempts.push(Attempt::by_frame(name, DropReason::Discovery, by).never_arrives());
        }
    }
    attempts
}

fn rename(pod: &Pod, from: &str, to: &str) {
    let gateway = [plan::APP_SOURCE_V4.to_string(), plan::POD_GATEWAY_V6.to_string()];
    let [m0, m1, m2, m3, m4, m5] = plan::NODE_MAC;
    let mac = format!("{m0:x}:{m1:x}:{m2:x}:{m3:x}:{m4:x}:{m5:x}");
    let mut script =
        format!("ip link set {from} down && ip link set {from} name {to} && ip link set {to} up");
    script += &format!(" && ip addr replace {}/128 dev {to} nodad", pod.port.v6);
    for gateway in gateway {
        script += &format!(
            " && ip neigh replace {gateway} lladdr {mac} dev {to} && ip route replace default via {gateway} dev {to} onlink"
        );
    }
    sh(&pod.ns, &script);
}

fn send_udp(pod: &Pod, to: SocketAddr, mark: Option<u32>) {
    pod.ns.run(|| send_udp_here(any(to.is_ipv6()), to, mark)).unwrap();
}

fn send_udp_from(pod: &Pod, from: IpAddr, to: SocketAddr) {
    pod.ns.run(|| send_udp_here(from, to, None)).unwrap();
}

fn send_udp_here(from: IpAddr, to: SocketAddr, mark: Option<u32>) {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark).unwrap();
    }
    socket.send_to(NEEDLE, to).unwrap();
}

/// Where only one user is mapped, as the one that there is.
fn as_user_1337(pod: &Pod, to: SocketAddr) {
    const USER: libc::c_long = 1337;
    pod.ns
        .run(|| {
            #[expect(unsafe_code, reason = "libc's own wrapper would change every thread")]
            // SAFETY: no pointers; only this thread, which ends soon, changes its user.
            unsafe {
                libc::syscall(libc::SYS_setresgid, USER, USER, USER);
                libc::syscall(libc::SYS_setresuid, USER, USER, USER);
            }
            send_udp_here(any(to.is_ipv6()), to, None);
        })
        .unwrap();
}

fn any(v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
    }
}
