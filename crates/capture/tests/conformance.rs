//! `capture-verdicts`: which process gets a connection by Istio's rules, by uid, gid, mark, address and port, as a kernel was seen to
//! decide; compared with what our capture does with the same probe on real network namespaces.
//!
//! Istio's rules live in the pod and have exceptions that are settings; ours live on the node and have none. So where Istio
//! captures, or leaves a connection within the pod, ours must do the same; where its settings let one out, or in, uncaptured,
//! ours must not, and the case is counted as not applicable with the reason.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is tests, the functions that they share included"
)]
#![allow(dead_code, reason = "the kernel tests share the world and use all of it")]

#[path = "kernel/packets.rs"]
mod packets;
#[path = "kernel/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use capture::{DNS_PORT, INBOUND_PORT, OUTBOUND_PORT};
use nix::libc;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use testkit::conformance::{self, Tally};

use crate::world::{Echo, Sniffer, World};

const SET: &str = "capture-verdicts";

/// How long a probe may take that nobody answers.
const WAIT: Duration = Duration::from_millis(400);

/// One probe, apart from what was observed of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Probe {
    inbound: bool,
    udp: bool,
    uid: u32,
    gid: u32,
    mark: Option<u32>,
    to: IpAddr,
    port: u16,
}

/// Who got it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// The proxy, at this port.
    Proxy(u16),
    /// The application in the pod, uncaptured.
    App,
    /// Whoever was addressed, past the proxy.
    Direct,
    /// Nobody.
    Nobody,
}

impl Probe {
    fn of(value: &Value) -> Self {
        let number = |name: &str| u32::try_from(value[name].as_u64().unwrap_or_default()).unwrap();
        let mark = value["mark"].as_str().map(|text| {
            let digits = text.trim_start_matches("0x");
            u32::from_str_radix(digits, 16).unwrap()
        });
        Self {
            inbound: value["dir"] == "in",
            udp: value["proto"] == "udp",
            uid: number("uid"),
            gid: number("gid"),
            mark,
            to: value["dst"].as_str().unwrap().parse().unwrap(),
            port: u16::try_from(number("port")).unwrap(),
        }
    }

    /// Whether it stays in the pod.
    fn is_own(&self) -> bool {
        !self.inbound && (self.to.is_loopback() || self.to == OWN[0] || self.to == OWN[1])
    }

    /// In our world: the pod `a`, and `q` for its peer.
    fn address(&self, world: &World) -> SocketAddr {
        let v6 = self.to.is_ipv6();
        let ip = match self.to {
            own if OWN.contains(&own) => world.pod("a").at(v6, 0).ip(),
            peer if PEER.contains(&peer) => world.pod("q").at(v6, 0).ip(),
            other => other,
        };
        SocketAddr::new(ip, self.port)
    }
}

/// The pod and its peer in the data.
const OWN: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 0, 2)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)),
];
const PEER: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 0, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
];

/// The world, and who listens in it.
struct Bench {
    world: World,
    apps: Vec<Echo>,
    outside: Vec<Sniffer>,
    number: u32,
}

impl Bench {
    fn new(ports: impl Iterator<Item = u16>) -> Option<Self> {
        let world = World::with_proxies()?;
        let apps = ports.map(|port| Echo::start(&world.pod("a").ns, port)).collect();
        let q = Sniffer::new(&world.pod("q").ns, "q");
        let hub = Sniffer::new(&world.hub, "hub");
        Some(Self {
            world,
            apps,
            outside: vec![q, hub],
            number: 0,
        })
    }

    /// Sends it, and says who got it.
    fn send(&mut self, probe: &Probe) -> Verdict {
        self.number += 1;
        // Of one length, so that none is a part of another.
        let token = format!("verdict-{:06}", self.number);
        let to = probe.address(&self.world);
        let from = if probe.inbound { "q" } else { "a" };
        let (who, text) = (probe.clone(), token.clone());
        let _ = self.world.pod(from).ns.run(move || tell(&who, to, &text));
        let end = Instant::now() + WAIT;
        loop {
            while let Some(seen) = self.world.try_seen(0) {
                if seen.bytes == token.as_bytes() {
                    return Verdict::Proxy(seen.port);
                }
            }
            // Inbound it passes the pod's peer on its way: only what the application got counts.
            let left = !probe.inbound && self.outside.iter().any(|sniffer| sniffer.saw(token.as_bytes()));
            if left {
                return Verdict::Direct;
            }
            if self.apps.iter().any(|app| app.callers.try_recv().is_ok()) {
                return Verdict::App;
            }
            if Instant::now() > end {
                return Verdict::Nobody;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Sends the text as the user that the probe names. This thread ends soon.
fn tell(probe: &Probe, to: SocketAddr, text: &str) -> std::io::Result<()> {
    let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let (uid, gid) = (libc::c_long::from(probe.uid), libc::c_long::from(probe.gid));
    #[expect(unsafe_code, reason = "libc's own wrapper would change every thread")]
    // SAFETY: no pointers; only this thread, which ends soon, changes its user.
    unsafe {
        libc::syscall(libc::SYS_setresgid, gid, gid, gid);
        libc::syscall(libc::SYS_setresuid, uid, uid, uid);
    }
    if probe.udp {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        UdpSocket::bind(any)?.send_to(text.as_bytes(), to)?;
        return Ok(());
    }
    let mut stream = match probe.mark {
        None => std::net::TcpStream::connect_timeout(&to, WAIT)?,
        Some(mark) => {
            // Only root sends with a mark in the data.
            let socket = Socket::new(domain, Type::STREAM, None)?;
            socket.set_mark(mark)?;
            socket.connect_timeout(&to.into(), WAIT)?;
            socket.into()
        }
    };
    stream.set_read_timeout(Some(WAIT))?;
    stream.write_all(text.as_bytes())?;
    let _ = stream.read(&mut [0; 64]);
    Ok(())
}

/// Whether what Istio's rules did has a counterpart here; the reason where not.
fn without_counterpart(probe: &Probe, observed: &str) -> Option<&'static str> {
    match observed.split(':').next().unwrap_or_default() {
        "none" => Some("no verdict was observed"),
        "direct" => Some("let out by Istio's settings, its user, group or mark; here nothing is"),
        "app" if probe.inbound => Some("let in by Istio's settings, its ports or family; here nothing is"),
        "app" if !probe.is_own() => Some("the pod answered for an address that is not its own"),
        "proxy" if probe.is_own() => {
            Some("there is no proxy in the pod to call itself by, and no DNS at its own addresses")
        }
        _ => None,
    }
}

/// Whether ours is what Istio's rules did.
fn agrees(probe: &Probe, observed: &str, ours: Verdict) -> bool {
    match (observed.split_once(':'), ours) {
        // Where Istio has a proxy's port, ours has the same number: but DNS is always DNS, and an inbound capture port is no way
        // past the inbound side.
        (Some(("proxy", "15001")), Verdict::Proxy(INBOUND_PORT)) if probe.inbound => true,
        (Some(("proxy", "15001")), Verdict::Proxy(DNS_PORT)) => probe.port == 53,
        (Some(("proxy", port)), Verdict::Proxy(ours)) => {
            let known = [OUTBOUND_PORT, INBOUND_PORT, DNS_PORT].contains(&ours);
            known && port.parse() == Ok(ours)
        }
        (Some(("app", _)), Verdict::App) => true,
        _ => false,
    }
}

#[test]
fn capture_verdicts() {
    let Some(set) = conformance::set(SET) else {
        return;
    };
    let data = conformance::json(&set.join("cases.json"));
    let cases = data["cases"].as_array().unwrap();
    let mut ours: BTreeMap<Probe, Option<Verdict>> = BTreeMap::new();
    for probe in cases.iter().flat_map(|case| case["probes"].as_array().unwrap()) {
        ours.insert(Probe::of(probe), None);
    }
    let mut ports: Vec<u16> = ours.keys().map(|probe| probe.port).collect();
    ports.sort_unstable();
    ports.dedup();
    let Some(mut bench) = Bench::new(ports.into_iter()) else {
        return;
    };
    for (probe, verdict) in &mut ours {
        *verdict = Some(bench.send(probe));
    }
    let mut tally = Tally::default();
    for case in cases {
        for value in case["probes"].as_array().unwrap() {
            let probe = Probe::of(value);
            let observed = value["verdict"].as_str().unwrap();
            let verdict = ours[&probe].unwrap();
            let name = format!("{}: {value}", case["id"].as_str().unwrap());
            // Whatever Istio's settings are: nothing leaves past the proxy, and nothing comes in past it.
            let past = verdict == Verdict::Direct || (probe.inbound && verdict == Verdict::App);
            match without_counterpart(&probe, observed) {
                _ if past => tally.fail(name, format!("{verdict:?}: past the proxy")),
                Some(why) => tally.not_applicable(why),
                None if agrees(&probe, observed, verdict) => tally.pass(),
                None => tally.fail(name, format!("{verdict:?}")),
            }
        }
    }
    drop(bench);
    tally.finish(SET);
}
