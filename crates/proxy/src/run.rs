//! The life of a proxy.

mod control;
mod drops;
mod spans;
pub mod standalone;
mod takeover;
mod trust;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use identity::{CaClient, CertificateAuthority, StoreOptions, TokenFile};
use model::{Reason, SpiffeId};
use telemetry::{LogTarget, Telemetry, TelemetryOptions};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::locals::Locals;
use crate::registry::Registry;
use crate::shared::{Ending, Purpose, Shared, Sockets, Stage, Standing};
use crate::store::Store;
use crate::store::demand::{self, Demand};
use crate::{Config, admin, dns, inbound, outbound, web};
use control::Control;
use takeover::Before;
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
/// The same where another proxy has taken its place, so that nothing waits for its end.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How long what is broken off may take to be told of.
const FAREWELL: Duration = Duration::from_millis(200);
/// How long after the first snapshot a start is over.
const SETTLED: Duration = Duration::from_secs(1);
/// How often it is looked whether anything is still under way.
const DRAIN_POLL: Duration = Duration::from_millis(20);

type Tasks = JoinSet<Result<(), String>>;

/// Runs until told to stop (SIGTERM or SIGINT: drain, then end), or until another proxy has taken its place and what was
/// open has ended. A part that ends before is the end of all: a proxy
/// that only half works would be trusted for more than it does.
///
/// # Errors
/// It cannot start, or a part of it broke: one sentence.
///
/// The future is boxed so that the code of all that it does is made with this crate, and not once more with the caller.
pub fn run(config: Config) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
    Box::pin(until_told(config))
}

async fn until_told(config: Config) -> Result<(), String> {
    live(
        async || {
            let before = Before::ask(&config).await;
            let ca_id = own(&config, CA_ACCOUNT)?;
            let authority = CaClient::new(config.ca, config.roots.clone(), ca_id);
            share(config, Arc::new(authority), before)
        },
        async |shared, tasks, taking, running| start(shared, tasks, taking, running),
    )
    .await
}

/// The life of any proxy: made, started, and drained when told to stop or when another one has taken its place. Starting is
/// told whether a proxy runs whose place is to be taken.
async fn live(
    share: impl AsyncFnOnce() -> Result<(Shared, Before), String>,
    start: impl AsyncFnOnce(&Arc<Shared>, &mut Tasks, &mut JoinSet<()>, bool) -> Result<(), String>,
) -> Result<(), String> {
    // Nobody of the same user, a pod's process least of all, may read our keys or take our sockets.
    nix::sys::prctl::set_dumpable(false)
        .map_err(|error| format!("cannot keep other processes out of this one: {error}"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let (shared, before) = share().await?;
    let running = before.is_running();
    let shared = Arc::new(shared);
    let mut tasks = Tasks::new();
    let mut taking = JoinSet::new();
    start(&shared, &mut tasks, &mut taking, running).await?;
    tokio::select! {
        ready = before.ready(&shared) => ready?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
        ended = tasks.join_next() => return Err(why(ended)),
    }
    shared.ending.advance(Stage::Running);
    if running {
        takeover::leave(&shared.config.socket).await;
        tasks.spawn(admin::serve(Arc::clone(&shared), Arc::clone(&shared.standing)));
    }
    tracing::info!(node = shared.config.node, "the proxy is there");
    let handed_over = tokio::select! {
        biased;
        () = shared.ending.reached(Stage::HandedOver) => true,
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        ended = tasks.join_next() => return Err(why(ended)),
        // They end by the stage that is waited for above, and may be told of it first.
        Some(_) = taking.join_next() => match shared.ending.stage() {
            Stage::HandedOver => true,
            _ => return Err("a listener ended".to_owned()),
        },
    };
    shared.ending.advance(Stage::Draining);
    if handed_over {
        tokio::select! {
            () = drained(&shared, LEAVE_TIMEOUT) => {}
            _ = terminate.recv() => drained(&shared, DRAIN_TIMEOUT).await,
            _ = interrupt.recv() => drained(&shared, DRAIN_TIMEOUT).await,
        }
    } else {
        drained(&shared, DRAIN_TIMEOUT).await;
    }
    end(&shared).await;
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
    mut before: Before,
) -> Result<(Shared, Before), String> {
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
    let sockets = Sockets::of(std::mem::take(&mut before.offer));
    let demand = Demand::default();
    demand.inherit(std::mem::take(&mut before.names));
    let shared = Shared {
        store: Store::on_demand(),
        demand,
        locals: Locals::new(config.workloads.clone()),
        identities,
        registry: Registry::default(),
        apps: inbound::Apps::default(),
        requests: Arc::default(),
        denials: Arc::default(),
        tokens: Arc::default(),
        authorizers: inbound::Authorizers::default(),
        names: Arc::default(),
        telemetry,
        standing: Arc::new(Standing::new()),
        ending: Ending::starting(),
        sockets,
        config,
    };
    Ok((shared, before))
}

/// Starts everything; `taking` are those that end when told to drain. What takes connections of others waits until the
/// proxy is ready, and so does the rest that can be seen where another proxy still runs.
fn start(
    shared: &Arc<Shared>,
    tasks: &mut Tasks,
    taking: &mut JoinSet<()>,
    running: bool,
) -> Result<(), String> {
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
    let outbound = listen(shared, Purpose::Outbound, capture::OUTBOUND_PORT)?;
    let inbound = listen(shared, Purpose::Inbound, capture::INBOUND_PORT)?;
    dns::start(shared, tasks)?;
    web::start(
        shared,
        tasks,
        if running { Stage::Running } else { Stage::Starting },
    )?;

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
    if !running {
        tasks.spawn(admin::serve(Arc::clone(shared), standing));
    }
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

fn listen(shared: &Shared, purpose: Purpose, port: u16) -> Result<Vec<TcpListener>, String> {
    let bind = |address: SocketAddr| {
        shared
            .sockets
            .listener(purpose, address, capture::socket::tproxy_listener)
            .map_err(|error| format!("cannot take captured connections at {address}: {error}"))
    };
    capture::socket::capture_addresses(port)
        .into_iter()
        .map(bind)
        .collect()
}

/// Waits until nothing is under way, or for as long as that may take.
async fn drained(shared: &Shared, limit: Duration) {
    let begin = Instant::now();
    while is_open(shared) && begin.elapsed() < limit {
        tokio::time::sleep(DRAIN_POLL).await;
    }
}

fn is_open(shared: &Shared) -> bool {
    shared.registry.len() > 0 || shared.ending.carried() > 0
}

/// Breaks off what is still open, so that each leaves its event.
async fn end(shared: &Shared) {
    tracing::info!(
        open = shared.registry.len(),
        connections = shared.ending.carried(),
        "the proxy ends"
    );
    shared.ending.advance(Stage::Over);
    shared.registry.close(Reason::Draining);
    let begin = Instant::now();
    while shared.registry.len() > 0 && begin.elapsed() < FAREWELL {
        tokio::time::sleep(DRAIN_POLL).await;
    }
}
