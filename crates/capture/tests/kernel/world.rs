//! Two nodes, a hub, mesh and plain pods; stand-ins for the proxy; clients and sniffers.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::packets::filled;
use capture::nflog::{Report, Reports};
use capture::node::{self, DropReason, NodeSetup, PodPort};
use capture::socket::{self, UdpTproxy, capture_addresses};
use capture::{DNS_PORT, INBOUND_PORT, Netns, OUTBOUND_PORT, hub, plan};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Long enough for an answer on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Long enough for a packet that does pass to be seen; every blocked attempt costs it.
pub(crate) const SHORT: Duration = Duration::from_millis(300);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// What a stand-in proxy took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) port: u16,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) mark: u32,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Pod {
    pub(crate) ns: Netns,
    pub(crate) port: PodPort,
    pub(crate) node: usize,
}

impl Pod {
    pub(crate) fn at(&self, v6: bool, port: u16) -> SocketAddr {
        let ip = if v6 {
            IpAddr::V6(self.port.v6)
        } else {
            IpAddr::V4(self.port.v4)
        };
        SocketAddr::from((ip, port))
    }
}

/// Names: `a` mesh on node 0, `b` mesh on node 1, `p` plain on node 0, `q` plain on node 1.
pub(crate) struct World {
    prefix: String,
    pub(crate) hub: Netns,
    pub(crate) nodes: Vec<Netns>,
    pub(crate) setups: Vec<NodeSetup>,
    pub(crate) pods: BTreeMap<&'static str, Pod>,
    proxies: Vec<Proxy>,
}

impl World {
    /// None, with a word on why, where namespaces cannot be made.
    pub(crate) fn new() -> Option<Self> {
        Self::build(true)
    }

    /// All pods are plain, and the nodes have no rules: routers, nothing more.
    pub(crate) fn without_enforcement() -> Option<Self> {
        let world = Self::build(false)?;
        for node in &world.nodes {
            for table in ["netdev meshward-guard", "inet meshward"] {
                sh(node, &format!("nft delete table {table}"));
            }
        }
        Some(world)
    }

    fn build(mesh: bool) -> Option<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("mwt-{}-{number}-", std::process::id());
        let hub = match Netns::create(&format!("{prefix}hub")) {
            Ok(hub) => hub,
            Err(error) => {
                println!("skipped: {error}: {:?}", std::error::Error::source(&error));
                return None;
            }
        };
        let nodes: Vec<Netns> = (0..2)
            .map(|n| Netns::create(&format!("{prefix}node-{n}")).unwrap())
            .collect();
        hub::install(&hub, &nodes).unwrap();
        let setups: Vec<_> = (0..2).map(|n| NodeSetup::planned(n, 2)).collect();
        for (ns, setup) in nodes.iter().zip(&setups) {
            ns.run(|| node::install(setup)).unwrap().unwrap();
        }
        let mut world = Self {
            prefix,
            hub,
            nodes,
            setups,
            pods: BTreeMap::new(),
            proxies: Vec::new(),
        };
        world.add("a", 0, 0, mesh);
        world.add("p", 0, 1, false);
        world.add("b", 1, 0, mesh);
        world.add("q", 1, 1, false);
        Some(world)
    }

    /// As `new`, with a stand-in proxy on each node.
    pub(crate) fn with_proxies() -> Option<Self> {
        let mut world = Self::new()?;
        world.proxies = world.nodes.iter().map(Proxy::start).collect();
        Some(world)
    }

    pub(crate) fn add(&mut self, name: &'static str, node: u8, number: u8, mesh: bool) {
        let ns = Netns::create(&format!("{}pod-{name}", self.prefix)).unwrap();
        let mark = 0x101 + u32::from(number);
        let port = PodPort {
            mark,
            mac: plan::pod_mac(mark + 0x1000 * u32::from(node)),
            v4: plan::pod_v4(node, number),
            v6: plan::pod_v6(node, number),
            mesh,
        };
        let index = usize::from(node);
        self.nodes[index]
            .run(|| node::attach(&self.setups[index], &ns, &port))
            .unwrap()
            .unwrap();
        let pod = Pod {
            ns,
            port,
            node: index,
        };
        self.pods.insert(name, pod);
    }

    pub(crate) fn pod(&self, name: &str) -> &Pod {
        &self.pods[name]
    }

    /// What the stand-in proxy of a node took next.
    pub(crate) fn seen(&self, node: usize) -> Seen {
        self.proxies[node]
            .seen
            .recv_timeout(PATIENCE)
            .expect("the proxy saw nothing")
    }

    /// As `seen`, of what is there already.
    pub(crate) fn try_seen(&self, node: usize) -> Option<Seen> {
        self.proxies[node].seen.try_recv().ok()
    }

    pub(crate) fn nothing_seen(&self) {
        for proxy in &self.proxies {
            if let Ok(seen) = proxy.seen.recv_timeout(Duration::from_millis(20)) {
                panic!("the proxy saw {seen:?}");
            }
        }
    }

    pub(crate) fn drops(&self, node: usize) -> BTreeMap<DropReason, u64> {
        let drops = self.nodes[node].run(node::drops).unwrap().unwrap();
        drops.into_iter().map(|d| (d.reason, d.packets)).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.proxies.clear();
        for name in Netns::list(&self.prefix).unwrap() {
            Netns::delete(&name).unwrap();
        }
        assert_eq!(Netns::list(&self.prefix).unwrap(), [""; 0]);
    }
}

/// A thread with a runtime in a node's namespace, as long as this lives.
struct InNode {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl InNode {
    /// Returns when `start` is done; what it has spawned runs on.
    fn start<F: Future<Output = ()>>(node: &Netns, start: impl FnOnce() -> F + Send + 'static) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let path = node.path().to_owned();
        let thread = thread::spawn(move || {
            Netns::open(&path).unwrap().enter().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                start().await;
                ready.send(()).unwrap();
                let _ = stopped.await;
            });
        });
        is_ready.recv().unwrap();
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for InNode {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Reads the reports of drops of a node.
pub(crate) struct Reader {
    reports: mpsc::Receiver<Report>,
    _thread: InNode,
}

impl Reader {
    pub(crate) fn start(node: &Netns) -> Self {
        let (tell, reports) = mpsc::channel();
        let thread = InNode::start(node, async move || {
            let mut reports = Reports::open().unwrap();
            // There is one reader at a time.
            assert!(Reports::open().is_err());
            tokio::spawn(async move { while tell.send(reports.next().await.unwrap()).is_ok() {} });
        });
        Self {
            reports,
            _thread: thread,
        }
    }

    /// The next report with that reason.
    pub(crate) fn next(&self, reason: DropReason) -> Option<Report> {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let report = self.reports.recv_timeout(left).ok()?;
            if report.reason == reason {
                return Some(report);
            }
        }
    }

    pub(crate) fn forget(&self) {
        while self.reports.try_recv().is_ok() {}
    }
}

struct Proxy {
    seen: mpsc::Receiver<Seen>,
    _thread: InNode,
}

impl Proxy {
    fn start(node: &Netns) -> Self {
        let (tell, seen) = mpsc::channel();
        let thread = InNode::start(node, async move || {
            for port in [OUTBOUND_PORT, INBOUND_PORT, DNS_PORT] {
                for address in capture_addresses(port) {
                    let listener = socket::tproxy_listener(address).unwrap();
                    tokio::spawn(serve(listener, port, tell.clone()));
                }
            }
            for address in capture_addresses(DNS_PORT) {
                let udp = UdpTproxy::bind(address).unwrap();
                tokio::spawn(serve_udp(udp, tell.clone()));
            }
        });
        Self {
            seen,
            _thread: thread,
        }
    }
}

async fn serve(listener: tokio::net::TcpListener, port: u16, tell: mpsc::Sender<Seen>) {
    loop {
        let (mut stream, source) = listener.accept().await.unwrap();
        let tell = tell.clone();
        tokio::spawn(async move {
            let mut bytes = vec![0; 2048];
            let Ok(length) = stream.read(&mut bytes).await else {
                return;
            };
            bytes.truncate(length);
            let seen = Seen {
                port,
                source,
                destination: socket::original_dst(&stream).unwrap(),
                mark: socket::mark(&stream).unwrap(),
                bytes: bytes.clone(),
            };
            let _ = tell.send(seen);
            let _ = stream.write_all(&bytes).await;
        });
    }
}

async fn serve_udp(udp: UdpTproxy, tell: mpsc::Sender<Seen>) {
    let mut buffer = vec![0; 2048];
    loop {
        let datagram = udp.recv(&mut buffer).await.unwrap();
        let bytes = buffer[..datagram.length].to_vec();
        let _ = tell.send(Seen {
            port: DNS_PORT,
            source: datagram.source,
            destination: datagram.destination,
            mark: datagram.mark,
            bytes: bytes.clone(),
        });
        udp.reply(&datagram, &bytes).unwrap();
    }
}

/// Sends a text over TCP and returns what came back, with the client's own address.
pub(crate) fn tcp(ns: &Netns, to: SocketAddr, text: &str, wait: Duration) -> io::Result<SocketAddr> {
    ns.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, wait)?;
        stream.set_read_timeout(Some(wait))?;
        stream.write_all(text.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        assert_eq!(answer, text);
        stream.local_addr()
    })
    .unwrap()
}

/// Sends a datagram and waits for the same from the address that it was sent to.
pub(crate) fn udp(ns: &Netns, to: SocketAddr, text: &str, wait: Duration) -> io::Result<SocketAddr> {
    ns.run(|| {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(wait))?;
        socket.send(text.as_bytes())?;
        let mut answer = [0; 2048];
        let length = socket.recv(&mut answer)?;
        assert_eq!(&answer[..length], text.as_bytes());
        socket.local_addr()
    })
    .unwrap()
}

/// An echo server in a namespace, on TCP and UDP of both families; tells who called.
pub(crate) struct Echo {
    pub(crate) callers: mpsc::Receiver<SocketAddr>,
    stop: Arc<AtomicBool>,
}

impl Echo {
    pub(crate) fn start(ns: &Netns, port: u16) -> Self {
        let (tell, callers) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (listener, datagrams) = ns
            .run(|| {
                (
                    TcpListener::bind(("::", port)).unwrap(),
                    UdpSocket::bind(("::", port)).unwrap(),
                )
            })
            .unwrap();
        listener.set_nonblocking(true).unwrap();
        datagrams
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((mut stream, caller)) = listener.accept() {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let length = stream.read(&mut buffer).unwrap_or(0);
                    let _ = stream.write_all(&buffer[..length]);
                    let _ = tell.send(canonical(caller));
                }
                if let Ok((length, caller)) = datagrams.recv_from(&mut buffer) {
                    let _ = datagrams.send_to(&buffer[..length], caller);
                    let _ = tell.send(canonical(caller));
                }
            }
        });
        Self { callers, stop }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::from((address.ip().to_canonical(), address.port()))
}

/// Every frame that reaches a namespace.
pub(crate) struct Sniffer {
    socket: Socket,
    what: String,
}

impl Sniffer {
    pub(crate) fn new(ns: &Netns, what: &str) -> Self {
        const ALL: u16 = 3;
        let protocol = Protocol::from(i32::from(ALL.to_be()));
        let socket = ns
            .run(|| Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap())
            .unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.set_recv_buffer_size(1 << 22);
        Self {
            socket,
            what: what.to_owned(),
        }
    }

    /// Whether a frame with these bytes came since the last call.
    pub(crate) fn saw(&self, needle: &[u8]) -> bool {
        self.saw_any(&[needle])
    }

    /// As `saw`, for any of several.
    pub(crate) fn saw_any(&self, needles: &[&[u8]]) -> bool {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 70_000];
        let mut found = false;
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let frame = filled(&buffer[..length]);
            let holds = |needle: &&[u8]| frame.windows(needle.len()).any(|w| w == *needle);
            found |= needles.iter().any(holds);
        }
        found
    }

    pub(crate) fn name(&self) -> &str {
        &self.what
    }
}

/// Runs a shell script in a namespace; it must succeed.
pub(crate) fn sh(ns: &Netns, script: &str) {
    let run = || Command::new("sh").args(["-ec", script]).output().unwrap();
    let output = ns.run(run).unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
}

/// A raw IP socket, for whole packets of one's own making.
pub(crate) fn raw(ns: &Netns, v6: bool) -> OwnedFd {
    const IPPROTO_RAW: i32 = 255;
    ns.run(|| {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(IPPROTO_RAW))).unwrap();
        if !v6 {
            socket.set_header_included_v4(true).unwrap();
        }
        OwnedFd::from(socket)
    })
    .unwrap()
}

pub(crate) fn send_raw(socket: &OwnedFd, to: IpAddr, packet: &[u8]) -> io::Result<usize> {
    let socket = Socket::from(socket.try_clone().unwrap());
    socket.send_to(packet, &SocketAddr::from((to, 0)).into())
}
