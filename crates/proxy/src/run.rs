//! The life of a proxy: its listeners, its control plane, its certificates, its end.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use capture::node::DropReason;
use capture::socket::{capture_addresses, tproxy_listener};
use identity::{CaClient, TokenFile};
use model::{SpiffeId, TrustDomain};
use snapshot::{Index, Resources, TlsVersion};
use telemetry::{Event, EventKind, LogTarget, Peer, Reporter, Telemetry, TelemetryOptions};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::locals::Locals;
use crate::registry::Registry;
use crate::shared::Shared;
use crate::store::Store;
use crate::{Config, admin, dns, inbound, outbound, web};

/// The namespace of the mesh's own identities, and the service accounts of its parts.
const SYSTEM: &str = "meshward-system";
/// How long what is under way may take after the proxy was told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// How often dropped packets are counted.
const DROPS: Duration = Duration::from_secs(1);
/// How often the trust bundle is looked for until it is there.
const ROOTS: Duration = Duration::from_millis(50);

/// Runs until told to stop (SIGTERM or SIGINT: drain, then end).
///
/// # Errors
/// It cannot start: one sentence.
pub async fn run(config: Config) -> Result<(), String> {
    // No process of a pod may take descriptors or memory from this one, whatever its rights in its own namespaces.
    nix::sys::prctl::set_dumpable(false).map_err(|e| format!("prctl: {e}"))?;
    let (stop, draining) = watch::channel(false);
    let shared = Arc::new(shared(config, draining)?);
    let listeners = Listeners::open(&shared.config)?;
    spawn_all(&shared, listeners);
    tracing::info!(node = shared.config.node, "serving");
    told_to_stop().await?;
    tracing::info!("draining");
    stop.send_replace(true);
    let idle = async {
        while shared.registry.len() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(DRAIN, idle).await.is_err() {
        tracing::warn!(open = shared.registry.len(), "ended with work under way");
    }
    Ok(())
}

fn shared(config: Config, draining: watch::Receiver<bool>) -> Result<Shared, String> {
    let telemetry = Telemetry::start(&TelemetryOptions {
        target: config.access_log.clone().map_or(LogTarget::None, LogTarget::File),
        format: config.log_format,
    })
    .map_err(|e| format!("access log: {e}"))?;
    let ca = CaClient::new(config.ca, config.roots.clone(), own(&config.trust_domain, "ca")?);
    let options = identity::StoreOptions {
        lifetime: Duration::from_secs(config.leaf_lifetime_s),
        ..identity::StoreOptions::default()
    };
    let identities = identity::Store::new(Arc::new(ca), options);
    identities.set_trust_domains(config.trust_domain.clone(), Vec::new());
    Ok(Shared {
        store: Store::new(),
        locals: Locals::new(&config.workloads),
        identities,
        registry: Registry::default(),
        telemetry,
        draining,
        dropped: Mutex::default(),
        config,
    })
}

/// An identity of the mesh's own.
fn own(trust_domain: &TrustDomain, account: &str) -> Result<SpiffeId, String> {
    SpiffeId::new(trust_domain.clone(), SYSTEM, account).map_err(|e| e.to_string())
}

/// Everything that is listened on, opened before anything is served: all or nothing.
struct Listeners {
    outbound: Vec<TcpListener>,
    inbound: Vec<TcpListener>,
    dns: Vec<TcpListener>,
    dns_datagrams: Vec<capture::socket::UdpTproxy>,
    web: Vec<TcpListener>,
}

impl Listeners {
    fn open(config: &Config) -> Result<Self, String> {
        let tcp = |port| -> Result<Vec<TcpListener>, String> {
            capture_addresses(port)
                .into_iter()
                .map(|address| tproxy_listener(address).map_err(|e| format!("listen on {address}: {e}")))
                .collect()
        };
        let udp = |address| {
            capture::socket::UdpTproxy::bind(address).map_err(|e| format!("listen on {address}/udp: {e}"))
        };
        let web = |address| {
            let listener = std::net::TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener)
            });
            listener.map_err(|e| format!("listen on {address}: {e}"))
        };
        Ok(Self {
            outbound: tcp(capture::OUTBOUND_PORT)?,
            inbound: tcp(capture::INBOUND_PORT)?,
            dns: tcp(capture::DNS_PORT)?,
            dns_datagrams: capture_addresses(capture::DNS_PORT)
                .into_iter()
                .map(udp)
                .collect::<Result<_, _>>()?,
            web: config
                .metrics
                .iter()
                .copied()
                .map(web)
                .collect::<Result<_, _>>()?,
        })
    }
}

fn spawn_all(shared: &Arc<Shared>, listeners: Listeners) {
    for listener in listeners.outbound {
        tokio::spawn(outbound::serve(Arc::clone(shared), listener));
    }
    for listener in listeners.inbound {
        tokio::spawn(inbound::serve(Arc::clone(shared), listener));
    }
    let dns = Arc::new(dns::Dns::new(Arc::clone(shared)));
    for listener in listeners.dns {
        tokio::spawn(Arc::clone(&dns).serve(listener));
    }
    for socket in listeners.dns_datagrams {
        tokio::spawn(Arc::clone(&dns).serve_datagrams(socket));
    }
    for listener in listeners.web {
        tokio::spawn(web::serve(Arc::clone(shared), listener));
    }
    tokio::spawn(answer(Arc::clone(shared)));
    tokio::spawn(recheck(Arc::clone(shared)));
    tokio::spawn(count_drops(Arc::clone(shared)));
    tokio::spawn(learn(Arc::clone(shared)));
}

async fn answer(shared: Arc<Shared>) {
    let socket = shared.config.socket.clone();
    if let Err(error) = ::admin::serve(&socket, Arc::new(admin::Admin(shared))).await {
        tracing::error!(path = %socket.display(), "the command line cannot reach this proxy: {error}");
    }
}

/// First the roots, then the node's own certificate, then what the control plane says, for ever.
async fn learn(shared: Arc<Shared>) {
    let node = match own(&shared.config.trust_domain, "node") {
        Ok(node) => node,
        Err(error) => {
            tracing::error!("no identity of this node's own: {error}");
            return;
        }
    };
    let control = match own(&shared.config.trust_domain, "control") {
        Ok(control) => control,
        Err(error) => {
            tracing::error!("no identity of the control plane: {error}");
            return;
        }
    };
    first_roots(&shared).await;
    let following = Arc::clone(&shared);
    tokio::spawn(async move { following.locals.follow(following.identities.clone()).await });
    let token = TokenFile(shared.config.token.clone());
    while let Err(error) = shared.identities.ensure(&node, token.clone()).await {
        tracing::error!("no certificate of this node's own: {error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let jitter = || {
        let mut byte = [0; 1];
        let _ = aws_lc_rs::rand::fill(&mut byte);
        byte.first().map_or(0.0, |b| f64::from(*b) / 255.0)
    };
    let options = xds::client::Options::new(shared.config.node.clone(), jitter);
    let connect = Control {
        shared: Arc::clone(&shared),
        node,
        control,
    };
    xds::client::run(options, connect, move |resources, version| {
        take(&shared, &resources, version)
    })
    .await
}

/// The bundle that the CA writes; without it nobody can be verified, so there is nothing else to do.
async fn first_roots(shared: &Shared) {
    loop {
        if let Ok(text) = std::fs::read_to_string(&shared.config.roots)
            && shared.identities.set_roots(&[text]).is_ok()
        {
            return;
        }
        tokio::time::sleep(ROOTS).await;
    }
}

/// Puts a snapshot into force: whom to believe first, then what to do.
fn take(shared: &Shared, resources: &Resources, version: u64) -> Result<(), String> {
    let index = Index::build(resources).map_err(|e| e.to_string())?;
    let mesh = index.mesh();
    if !index.roots().is_empty() {
        shared
            .identities
            .set_roots(index.roots())
            .map_err(|e| format!("roots: {e}"))?;
    }
    shared
        .identities
        .set_trust_domains(mesh.trust_domain.clone(), mesh.trust_domain_aliases.clone());
    shared.identities.set_min_tls(mesh.min_tls == TlsVersion::V1_3);
    shared.store.put(index, version);
    shared
        .telemetry
        .gauge("snapshot_version", i64::try_from(version).unwrap_or(i64::MAX));
    tracing::info!(version, resources = resources.len(), "a snapshot is in force");
    Ok(())
}

/// How the control plane is reached: as the node, and nobody but the control plane at the other end.
struct Control {
    shared: Arc<Shared>,
    node: SpiffeId,
    control: SpiffeId,
}

impl xds::client::Connect for Control {
    type Io = identity::ClientStream<TcpStream>;

    async fn connect(&mut self) -> Result<(Self::Io, String), String> {
        let config = &self.shared.config;
        let token = TokenFile(config.token.clone())
            .read()
            .map_err(|e| e.to_string())?;
        let tcp = TcpStream::connect(config.control)
            .await
            .map_err(|e| format!("{}: {e}", config.control))?;
        tcp.set_nodelay(true).map_err(|e| e.to_string())?;
        let expected = [self.control.clone()];
        let alpn: [&[u8]; 1] = [b"h2"];
        let connected = self
            .shared
            .identities
            .connect(&self.node, tcp, "", &expected, &alpn)
            .await
            .map_err(|e| e.to_string())?;
        Ok((connected.stream, token.to_string()))
    }
}

/// Each new snapshot asks everything that is open (P55).
async fn recheck(shared: Arc<Shared>) {
    let mut version = shared.store.version();
    while version.changed().await.is_ok() {
        let Some(index) = shared.store.current() else {
            continue;
        };
        let asked = Arc::clone(&shared);
        // Many closures, perhaps: not on a thread that carries traffic.
        let done = tokio::task::spawn_blocking(move || asked.registry.recheck(&index)).await;
        if let Err(error) = done {
            tracing::error!("open connections could not be decided again: {error}");
        }
    }
}

/// Counts what capture dropped, and leaves a line for each reason that grew.
async fn count_drops(shared: Arc<Shared>) {
    let mut before: BTreeMap<DropReason, u64> = BTreeMap::new();
    loop {
        tokio::time::sleep(DROPS).await;
        let drops = match tokio::task::spawn_blocking(capture::node::drops).await {
            Ok(Ok(drops)) => drops,
            Ok(Err(error)) => {
                tracing::debug!("dropped packets cannot be counted: {error}");
                continue;
            }
            Err(error) => {
                tracing::error!("dropped packets are not counted any more: {error}");
                return;
            }
        };
        let counts: Vec<_> = drops.iter().map(|d| (d.reason.name(), d.packets)).collect();
        shared.telemetry.drops(&counts);
        for drop in &drops {
            let last = before.insert(drop.reason, drop.packets).unwrap_or(0);
            let new = drop.packets.saturating_sub(last);
            if new > 0 && drop.reason != DropReason::Discovery {
                shared.telemetry.emit(dropped(drop.reason, new));
            }
        }
        let counted = drops.iter().map(|d| (d.reason.name().to_owned(), d.packets));
        *shared.dropped.lock().unwrap_or_else(PoisonError::into_inner) = counted.collect();
    }
}

fn dropped(reason: DropReason, packets: u64) -> Event {
    let nobody = Arc::new(Peer::default());
    let mut event = Event::new(
        EventKind::Drop,
        Reporter::Source,
        SystemTime::now(),
        Arc::clone(&nobody),
        nobody,
    );
    event.decision = telemetry::Decision::Deny;
    event.details = format!("dropped_{}", reason.name()).into();
    event.message = Some(format!("{packets} packets").into());
    event
}

fn told_to_stop() -> impl Future<Output = Result<(), String>> {
    async {
        let handler = |kind| signal(kind).map_err(|e| format!("signals: {e}"));
        let (mut term, mut int) = (
            handler(SignalKind::terminate())?,
            handler(SignalKind::interrupt())?,
        );
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        Ok(())
    }
}
