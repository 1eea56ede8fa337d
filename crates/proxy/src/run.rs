//! The life of a proxy.

mod control;
mod drops;
mod spans;
pub mod standalone;
mod trust;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use identity::{CaClient, CertificateAuthority, StoreOptions, TokenFile};
use model::SpiffeId;
use telemetry::{LogTarget, Telemetry, TelemetryOptions};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::locals::Locals;
use crate::registry::Registry;
use crate::shared::{Shared, Standing};
use crate::store::Store;
use crate::store::demand::{self, Demand};
use crate::{Config, admin, dns, inbound, outbound, web};
use control::Control;
use trust::Trust;

/// The namespace of the mesh's own identities.
const SYSTEM_NAMESPACE: &str = "meshward-system";
/// The service account of every node's proxy.
const NODE_ACCOUNT: &str = "node";
/// The control plane's service account.
const CONTROL_ACCOUNT: &str = "control";
/// The certificate authority's service account.
const CA_ACCOUNT: &str = "ca";

/// How long what is under way may take once the proxy is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long after the first snapshot a start is over.
const SETTLED: Duration = Duration::from_secs(1);
/// How often it is looked whether anything is still under way.
const DRAIN_POLL: Duration = Duration::from_millis(20);

type Tasks = JoinSet<Result<(), String>>;

/// Runs until told to stop (SIGTERM or SIGINT: drain, then end). A part that ends before is the end of all: a proxy
/// that only half works would be trusted for more than it does.
///
/// # Errors
/// It cannot start, or a part of it broke: one sentence.
pub async fn run(config: Config) -> Result<(), String> {
    live(
        |draining| {
            let ca_id = own(&config, CA_ACCOUNT)?;
            let authority = CaClient::new(config.ca, config.roots.clone(), ca_id);
            share(config, Arc::new(authority), draining)
        },
        async |shared, tasks, taking| start(shared, tasks, taking).await,
    )
    .await
}

/// The life of any proxy: made, started, and drained when told to stop.
async fn live(
    share: impl FnOnce(watch::Receiver<bool>) -> Result<Shared, String>,
    start: impl AsyncFnOnce(&Arc<Shared>, &mut Tasks, &mut JoinSet<()>) -> Result<(), String>,
) -> Result<(), String> {
    // Nobody of the same user, a pod's process least of all, may read our keys or take our sockets.
    nix::sys::prctl::set_dumpable(false)
        .map_err(|error| format!("cannot keep other processes out of this one: {error}"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let (told, draining) = watch::channel(false);
    let shared = Arc::new(share(draining)?);
    let mut tasks = Tasks::new();
    let mut taking = JoinSet::new();
    start(&shared, &mut tasks, &mut taking).await?;
    tracing::info!(node = shared.config.node, "the proxy is there");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = tasks.join_next() => return Err(why(ended)),
        Some(_) = taking.join_next() => return Err("a listener ended".to_owned()),
    }
    told.send_replace(true);
    drain(&shared).await;
    shared.telemetry.flush();
    Ok(())
}

fn why(ended: Option<Result<Result<(), String>, JoinError>>) -> String {
    match ended {
        Some(Ok(Err(why))) => why,
        Some(Err(error)) => format!("a part of the proxy broke: {error}"),
        Some(Ok(Ok(()))) | None => "a part of the proxy ended".to_owned(),
    }
}

fn own(config: &Config, account: &str) -> Result<SpiffeId, String> {
    SpiffeId::new(config.trust_domain.clone(), SYSTEM_NAMESPACE, account).map_err(|error| error.to_string())
}

fn share(
    config: Config,
    authority: Arc<dyn CertificateAuthority>,
    draining: watch::Receiver<bool>,
) -> Result<Shared, String> {
    let target = config.access_log.clone().map_or(LogTarget::None, LogTarget::File);
    let options = TelemetryOptions {
        target,
        format: config.log_format,
    };
    let telemetry =
        Telemetry::start(&options).map_err(|error| format!("the access log cannot be opened: {error}"))?;
    let options = StoreOptions {
        lifetime: Duration::from_secs(config.leaf_lifetime_s),
        ..StoreOptions::default()
    };
    let identities = identity::Store::new(authority, options);
    identities.set_trust_domains(config.trust_domain.clone(), Vec::new());
    Ok(Shared {
        store: Store::on_demand(),
        demand: Demand::default(),
        locals: Locals::new(config.workloads.clone()),
        identities,
        registry: Registry::default(),
        apps: inbound::Apps::default(),
        requests: Arc::default(),
        denials: Arc::default(),
        tokens: Arc::default(),
        authorizers: inbound::Authorizers::default(),
        telemetry,
        standing: Arc::new(Standing::new()),
        draining,
        config,
    })
}

/// Starts everything; `taking` are those that end when told to drain.
async fn start(shared: &Arc<Shared>, tasks: &mut Tasks, taking: &mut JoinSet<()>) -> Result<(), String> {
    let standing = Arc::clone(&shared.standing);
    let trust = Arc::new(Trust::new(shared.identities.clone()));
    let own_id = own(&shared.config, NODE_ACCOUNT)?;
    let token = TokenFile(shared.config.token.clone());
    let control = Control {
        address: shared.config.control,
        expected: own(&shared.config, CONTROL_ACCOUNT)?,
        own: own_id,
        token,
        identities: shared.identities.clone(),
        standing: Arc::clone(&standing),
    };
    // Sockets first: what cannot be had is known before anything else begins.
    let outbound = listen(capture::OUTBOUND_PORT)?;
    let inbound = listen(capture::INBOUND_PORT)?;
    dns::start(shared, tasks)?;
    web::start(shared, tasks).await?;

    tasks.spawn(trust::follow(shared.config.roots.clone(), Arc::clone(&trust)));
    let all = Arc::clone(shared);
    tasks.spawn(async move { all.locals.follow(&all.identities).await });
    let all = Arc::clone(shared);
    tasks.spawn(async move {
        all.registry.follow(&all.store).await;
        Ok(())
    });
    tasks.spawn(demand::forget(Arc::clone(shared)));
    tasks.spawn(control::follow(Arc::clone(shared), control, trust));
    tasks.spawn(drops::watch(Arc::clone(shared), Arc::clone(&standing)));
    if let Some(finished) = shared.telemetry.take_spans() {
        tasks.spawn(spans::export(Arc::clone(shared), finished));
    }
    tasks.spawn(started(Arc::clone(shared)));
    tasks.spawn(admin::serve(Arc::clone(shared), standing));
    for listener in outbound {
        taking.spawn(outbound::serve(Arc::clone(shared), listener));
    }
    for listener in inbound {
        taking.spawn(inbound::serve(Arc::clone(shared), listener));
    }
    Ok(())
}

/// Gives back what only starting needed, once it is over. The task stays, as all do.
async fn started(shared: Arc<Shared>) -> Result<(), String> {
    let mut version = shared.store.version();
    if shared.store.current().is_none() {
        let _ = version.changed().await;
    }
    tokio::time::sleep(SETTLED).await;
    if let Err(error) = capture::release_code() {
        tracing::debug!(%error, "code that only starting needed stays in memory");
    }
    std::future::pending().await
}

fn listen(port: u16) -> Result<Vec<TcpListener>, String> {
    let bind = |address: SocketAddr| {
        capture::socket::tproxy_listener(address)
            .map_err(|error| format!("cannot take captured connections at {address}: {error}"))
    };
    capture::socket::capture_addresses(port)
        .into_iter()
        .map(bind)
        .collect()
}

/// Waits until nothing is under way, or for as long as that may take.
async fn drain(shared: &Shared) {
    let begin = Instant::now();
    while shared.registry.len() > 0 && begin.elapsed() < DRAIN_TIMEOUT {
        tokio::time::sleep(DRAIN_POLL).await;
    }
    tracing::info!(open = shared.registry.len(), "the proxy ends");
}
