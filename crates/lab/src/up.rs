//! `meshward up`: makes the place, starts the parts, keeps the pods, and takes it all down again.

mod detach;
mod rootless;
mod sources;
mod trial;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use admin::RunDir;
use admin::verbs::{Desired, Report, Status};
use capture::plan::MAX_NODES;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, broadcast, mpsc, watch};

use crate::answers::Desk;
use crate::engine::{self, Engine, Outputs, Overview};
use crate::parts::{self, Pids, given};
use crate::pod::Order;
use crate::process::logbook::Logbook;
use crate::remains::{Lock, LockError, clear, finish};
use crate::show::{self, Notice, line};
use crate::site::tokens::Tokens;
use crate::site::{self, Site};

/// Set for the process that is to stay in the background.
const BACKGROUND: &str = "MESHWARD_UP_BACKGROUND";
/// How many steps of taking down wait to be read.
const STEPS: usize = 64;
/// How long those who asked for the end may take to read that it has come.
const FAREWELL: Duration = Duration::from_millis(50);
/// How often it is looked whether the proxies have the newest configuration.
const SETTLE_POLL: Duration = Duration::from_millis(10);
/// How long the control plane may take to answer to that.
const ASKING: Duration = Duration::from_secs(1);

/// What is made before anything runs.
struct Prepared {
    site: Arc<Site>,
    lock: Lock,
    sources: Vec<control::Source>,
}

pub(crate) fn up(up: cli::Up) -> u8 {
    if !(1..=MAX_NODES).contains(&up.nodes) {
        line(&format!(
            "error: --nodes {}: 1 to {MAX_NODES} are possible",
            up.nodes
        ));
        return 64;
    }
    let run = match RunDir::of(&up.name) {
        Ok(run) => run,
        Err(error) => {
            line(&format!("error: {error}"));
            return 64;
        }
    };
    let background = std::env::var_os(BACKGROUND).is_some();
    if up.detach && !background {
        return detach::start(&up, &run);
    }
    if background && !rootless::inside() {
        // So that no terminal can end it; fails only where that is so already.
        let _ = nix::unistd::setsid();
    }
    if !nix::unistd::geteuid().is_root() {
        line(&format!("error: {}", rootless::enter()));
        return 2;
    }
    let log = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(std::io::stderr);
    let _ = log.without_time().with_target(false).try_init();
    more_descriptors();
    let prepared = match prepare(&up, run) {
        Ok(prepared) => prepared,
        Err(why) => {
            line(&format!("error: {why}"));
            return 2;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(serve(up, prepared, background)),
        Err(error) => {
            line(&format!("error: no runtime: {error}"));
            2
        }
    }
}

/// A pod takes a dozen descriptors, and a proxy two a connection: the usual 1024 would end at some eighty pods.
fn more_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the number of open files stays limited");
    }
}

fn prepare(up: &cli::Up, run: RunDir) -> Result<Prepared, String> {
    let mut lock = Lock::take(&run).map_err(|error| match error {
        LockError::Held(holder) => {
            let process = holder.map(|holder| format!(", process {}", holder.pid)).unwrap_or_default();
            let name = &up.name;
            format!("mesh `{name}` runs already{process}; `meshward down --name {name}` ends it, another `--name` starts another")
        }
        LockError::Io(error) => format!("cannot use `{}`: {error}", run.root().display()),
    })?;
    clear(&up.name, &run, &mut lock, |step| {
        line(&format!("remains of an earlier run: {step}"))
    })?;
    let made = build(up, run.clone()).and_then(|made| lock.take_names(&up.name).map(|()| made));
    match made {
        Ok((site, sources)) => Ok(Prepared {
            site: Arc::new(site),
            lock,
            sources,
        }),
        Err(why) => {
            // Nothing is kept of an attempt.
            let _ = clear(&up.name, &run, &mut lock, |_| {});
            finish(&run, lock);
            Err(why)
        }
    }
}

fn build(up: &cli::Up, run: RunDir) -> Result<(Site, Vec<control::Source>), String> {
    run.create()
        .map_err(|error| format!("cannot make `{}`: {error}", run.root().display()))?;
    let sources = sources::resolve(&up.sources, &run)?;
    let trust_domain = sources::trust_domain(&sources, up.recursive);
    let exe =
        std::env::current_exe().map_err(|error| format!("cannot tell what program this is: {error}"))?;
    let machine = site::Machine {
        own_proc: trial::own_proc(),
        one_user: rootless::inside(),
    };
    if machine.one_user && !up.quiet {
        line("without root: there is one user alone, so `runAsUser` and `runAsGroup` are not honoured");
    }
    let tokens = Tokens::new(&run)?;
    tokens.for_control()?;
    for index in 0..up.nodes {
        tokens.for_node(&site::node_name(index))?;
    }
    let (hub, nodes) = site::build(&up.name, up.nodes).map_err(|why| {
        format!("{why}; it needs root with CAP_SYS_ADMIN and CAP_NET_ADMIN, or user namespaces without root")
    })?;
    for node in &nodes {
        // The proxy follows the directory: it has to be there first.
        let dir = run.workloads(&node.name);
        std::fs::create_dir_all(&dir).map_err(|error| format!("cannot make `{}`: {error}", dir.display()))?;
    }
    let site = Site {
        mesh: up.name.clone(),
        run,
        hub,
        nodes,
        tokens,
        trust_domain,
        images: up.images.clone(),
        readers: site::readers(up),
        exe,
        machine,
    };
    parts::write(&site, up, sources.clone())?;
    Ok((site, sources))
}

/// The ends of the channels that the tasks share.
struct Wires {
    order: watch::Sender<Order>,
    parts: watch::Sender<Order>,
    overview: watch::Receiver<Arc<Overview>>,
    settled: watch::Receiver<bool>,
    notices: mpsc::Sender<Notice>,
    steps: broadcast::Sender<String>,
    down: watch::Sender<bool>,
}

async fn serve(up: cli::Up, prepared: Prepared, background: bool) -> u8 {
    let Prepared {
        site,
        mut lock,
        sources,
    } = prepared;
    let (engine_done, parts_done, wires) = start(&up, &site, sources);
    let mut order = wires.order.subscribe();
    let code = tokio::select! {
        code = watch_over(&up, &wires, background) => code,
        () = given(&mut order) => if *wires.settled.borrow() { 0 } else { 130 },
    };
    let say = |step: String| {
        if !up.quiet {
            line(&step);
        }
        let _ = wires.steps.send(step);
    };
    say(format!("taking down mesh `{}`", up.name));
    ended(engine_done, "the pods", &say).await;
    wires.parts.send_if_modified(|parts| {
        let first = *parts == Order::Run;
        if first {
            *parts = Order::StopSoon;
        }
        first
    });
    ended(parts_done, "the parts", &say).await;
    let (run, name, steps) = (site.run.clone(), up.name.clone(), wires.steps.clone());
    let quiet = up.quiet;
    let cleared = tokio::task::spawn_blocking(move || {
        let cleared = clear(&name, &run, &mut lock, |step| {
            if !quiet {
                line(&step);
            }
            let _ = steps.send(step);
        });
        (cleared, run, lock)
    });
    match cleared.await {
        Ok((Ok(()), run, lock)) => {
            wires.down.send_replace(true);
            tokio::time::sleep(FAREWELL).await;
            finish(&run, lock);
            code
        }
        Ok((Err(why), ..)) => {
            line(&format!("error: {why}"));
            2
        }
        Err(error) => {
            line(&format!("error: {error}"));
            2
        }
    }
}

type Done = tokio::task::JoinHandle<()>;

/// Waits for the end, and says so while it lasts.
async fn ended(mut done: Done, what: &str, say: &impl Fn(String)) {
    while tokio::time::timeout(show::SILENCE, &mut done).await.is_err() {
        say(format!("waiting for {what} to end"));
    }
}

fn start(up: &cli::Up, site: &Arc<Site>, sources: Vec<control::Source>) -> (Done, Done, Wires) {
    let (order, ordered) = watch::channel(Order::Run);
    let (parts_order, parts_ordered) = watch::channel(Order::Run);
    let (notices, told) = mpsc::channel(show::QUEUE);
    let (overview_to, overview) = watch::channel(Arc::new(Overview::default()));
    let (report_to, report) = watch::channel(Arc::new(Report::default()));
    let (services_to, services) = watch::channel(Arc::default());
    // Every node began with none.
    let (served_to, served) = watch::channel(Arc::default());
    let (settled_to, settled) = watch::channel(false);
    let (steps, _) = broadcast::channel(STEPS);
    let (down, is_down) = watch::channel(false);
    let pids = Pids::default();
    tokio::spawn(listen_to_signals(order.clone()));
    tokio::spawn(hurry(ordered.clone(), parts_order.clone()));
    let book = Logbook::new(site.run.logs().join("up.log")).ok();
    tokio::spawn(show::tell(told, overview.clone(), up.quiet, book));
    let progress = format!(
        "mesh `{}`: starting ca, control and {} proxies",
        up.name,
        site.nodes.len()
    );
    let _ = notices.try_send(Notice::Progress(progress));

    let (part_orders, parts) = parts::orders(parts::parts(site));
    let sockets = parts::Sockets::default();
    let parts_done = tokio::spawn(parts::keep(
        Arc::clone(site),
        parts,
        parts_ordered,
        Arc::clone(&pids),
        notices.clone(),
        sockets.clone(),
    ));
    let out = Outputs {
        overview: overview_to,
        report: report_to,
        services: services_to,
        notices: notices.clone(),
    };
    let (desired_to, desired) = mpsc::channel(engine::QUEUE);
    let began = Arc::new(Notify::new());
    let socket = site.run.control_socket();
    tokio::spawn(engine::follow(socket.clone(), desired_to, Arc::clone(&began)));
    let (heard_to, heard) = watch::channel(Arc::new(Report::default()));
    tokio::spawn(engine::report(socket.clone(), report.clone(), began, heard_to));
    tokio::spawn(engine::services(Arc::clone(site), services, served_to));
    let engine_done = tokio::spawn(Engine::new(Arc::clone(site), out).run(desired, ordered));
    let known = move || *heard.borrow() == *report.borrow();
    tokio::spawn(settle(socket, overview.clone(), known, served, settled_to));
    let tokens = Arc::clone(site);
    tokio::spawn(async move { tokens.tokens.renew().await });
    let desk = Arc::new(Desk {
        site: Arc::clone(site),
        profile: up.profile,
        sources: sources
            .into_iter()
            .map(|source| PathBuf::from(source.shown))
            .collect(),
        overview: overview.clone(),
        settled: settled.clone(),
        pids,
        parts: part_orders,
        sockets,
        order: order.clone(),
        steps: steps.clone(),
        down: is_down,
    });
    let (socket, failed) = (site.run.up_socket(), notices.clone());
    tokio::spawn(async move {
        if let Err(error) = admin::serve(&socket, desk).await {
            let text = format!("error: cannot answer at `{}`: {error}", socket.display());
            let _ = failed.send(Notice::Line(text)).await;
        }
    });
    let wires = Wires {
        order,
        parts: parts_order,
        overview,
        settled,
        notices,
        steps,
        down,
    };
    (engine_done, parts_done, wires)
}

/// Shows the table once all is ready, or what is missing when it is not in time; then stays.
async fn watch_over(up: &cli::Up, wires: &Wires, background: bool) -> u8 {
    let mut settled = wires.settled.clone();
    let limit = Duration::from_millis(up.wait_ms);
    let ready = tokio::time::timeout(limit, settled.wait_for(|settled| *settled))
        .await
        .is_ok();
    if !ready {
        let missing = show::missing(&wires.overview.borrow());
        let text = format!("not ready after {:.1}s: {missing}", limit.as_secs_f64());
        let _ = wires.notices.send(Notice::Line(text)).await;
    }
    if !background {
        let _ = cli::ps(&up.name, up.json).await;
        let _ = wires
            .notices
            .send(Notice::Progress("Ctrl-C takes it down".to_owned()))
            .await;
    }
    std::future::pending().await
}

/// The first signal asks for the end, the second for it at once.
async fn listen_to_signals(order: watch::Sender<Order>) {
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
        return;
    };
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        order.send_modify(|order| {
            *order = if *order == Order::Run {
                Order::StopSoon
            } else {
                Order::Kill
            };
        });
    }
}

/// What is to end at once is to do so everywhere.
async fn hurry(mut order: watch::Receiver<Order>, parts: watch::Sender<Order>) {
    if order.wait_for(|order| *order == Order::Kill).await.is_ok() {
        parts.send_replace(Order::Kill);
    }
}

/// Says when, for the first time, all pods were ready, the control plane knew (`known`), all proxies had the newest
/// configuration, and all nodes the newest cluster addresses of pods outside the mesh (`served`).
async fn settle(
    socket: PathBuf,
    mut overview: watch::Receiver<Arc<Overview>>,
    known: impl Fn() -> bool + Send,
    served: watch::Receiver<Arc<Vec<Value>>>,
    settled: watch::Sender<bool>,
) {
    loop {
        if overview.wait_for(|overview| overview.ready()).await.is_err() {
            return;
        }
        if known() && in_force(&socket).await && reached(&socket, &served).await && overview.borrow().ready()
        {
            settled.send_replace(true);
            return;
        }
        tokio::time::sleep(SETTLE_POLL).await;
    }
}

/// Whether the nodes hold the cluster addresses that the control plane wants them to hold now. What was told to us may
/// be older than the newest report, so it is asked.
async fn reached(socket: &std::path::Path, served: &watch::Receiver<Arc<Vec<Value>>>) -> bool {
    let asking = async {
        let answer = admin::call(socket, "desired", Value::Null, Vec::new()).await;
        serde_json::from_value::<Desired>(answer.ok()?.item().await?).ok()
    };
    let desired = tokio::time::timeout(ASKING, asking).await.ok().flatten();
    desired.is_some_and(|desired| desired.plain_services == **served.borrow())
}

async fn in_force(socket: &std::path::Path) -> bool {
    let asking = async {
        let answer = admin::call(socket, "status", Value::Null, Vec::new())
            .await
            .ok()?;
        serde_json::from_value::<Status>(answer.finish().await.ok()?).ok()
    };
    let status = tokio::time::timeout(ASKING, asking).await.ok().flatten();
    status.is_some_and(|status| {
        !status.nodes.is_empty()
            && status
                .nodes
                .iter()
                .all(|node| node.connected && node.published > 0 && node.published == node.acknowledged)
    })
}

/// The words that this process was started with, without the program.
fn own_words() -> impl Iterator<Item = OsString> {
    std::env::args_os().skip(1)
}
