//! Starting, and the tasks beside the plane.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use identity::{CertificateAuthority, Clock as _, SystemClock};
use meshward_http::pages;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use xds::server::Server;

use crate::config::Config;
use crate::keys::Keys;
use crate::plane::{Command, Plane, QUEUE};
use crate::source::{Scanner, follow};
use crate::state::Directory;
use crate::tls::{Gate, authority};
use crate::verbs::{Desk, Meters};
use crate::view::View;

/// How often the trust bundle is looked at.
const ROOTS_POLL: Duration = Duration::from_secs(1);
/// The same, while there is none: everything waits for it.
const ROOTS_POLL_FIRST: Duration = Duration::from_millis(20);
/// The largest trust bundle, in bytes.
const MAX_ROOTS: u64 = 1024 * 1024;

/// Runs until told to stop (SIGTERM or SIGINT).
///
/// The sources, what was applied and the pods that were reported before are read and published before anybody is
/// answered: a proxy never gets less than it had because the control plane was restarted.
///
/// # Errors
/// It cannot start: one sentence.
///
/// The future is boxed so that the code of all that it does is made with this crate, and not once more with the caller.
pub fn run(config: Config) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
    Box::pin(until_told(config))
}

async fn until_told(config: Config) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let authority = Arc::new(authority(&config)?);
    let mut tasks = start(config, authority).await?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = tasks.join_next() => Err(match ended {
            Some(Ok(Err(why))) => why,
            Some(Err(error)) => format!("a part of the control plane broke: {error}"),
            Some(Ok(Ok(()))) | None => "a part of the control plane ended".to_owned(),
        }),
    }
}

/// Starts everything; all of it ends when the set is dropped.
pub(crate) async fn start(
    config: Config,
    authority: Arc<dyn CertificateAuthority>,
) -> Result<JoinSet<Result<(), String>>, String> {
    let gate = Arc::new(Gate::new(&config, authority)?);
    let server = Server::new();
    let (view, views) = watch::channel(Arc::new(View::default()));
    let (commands, queue) = mpsc::channel(QUEUE);
    let mut listeners = Vec::new();
    for address in &config.listen {
        let listening = TcpListener::bind(address).await;
        listeners.push(listening.map_err(|error| format!("cannot listen on {address}: {error}"))?);
    }
    let directory = Directory::open(&config.state).map_err(|error| {
        format!(
            "the state directory `{}` cannot be used: {error}",
            config.state.display()
        )
    })?;

    let mut scanner = Scanner::new(config.sources.clone(), config.recursive);
    let roots = read_roots(&config.roots);
    let plane_config = config.clone();
    let plane_server = server.clone();
    let first_roots = roots.clone();
    let (scanner, plane, first, stored) = tokio::task::spawn_blocking(move || {
        let plane = Plane::new(&plane_config, directory, plane_server, view);
        scanner.expect(plane.expected());
        let scan = scanner.scan(|_| false);
        let first = vec![Command::Files(scan.changes), Command::Roots(first_roots)];
        let stored = plane.stored();
        (scanner, plane, first, stored)
    })
    .await
    .map_err(|error| error.to_string())?;

    let mut tasks = JoinSet::new();
    tasks.spawn_blocking(move || {
        plane.run(first, queue);
        Ok(())
    });
    let mut published = views.clone();
    let ready = published.wait_for(|view| view.frozen.revision > 0).await;
    drop(ready.map_err(|_| "the first world could not be compiled".to_owned())?);

    tasks.spawn(follow_roots(
        config.roots.clone(),
        roots,
        Arc::clone(&gate),
        commands.clone(),
    ));
    let keys = Keys::new(config.fetching.clone(), stored);
    tasks.spawn(keys.run(views.clone(), commands.clone()));
    let changes = commands.clone();
    tasks.spawn(async move {
        let (to, mut from) = mpsc::channel(QUEUE);
        let following = follow(scanner, to);
        let passing = async {
            while let Some(found) = from.recv().await {
                if changes.send(Command::Files(found)).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(following, passing);
        Err("the sources are not followed any more".to_owned())
    });
    let own_gate = Arc::clone(&gate);
    let (own, mut rooted) = (Arc::clone(&gate), views.clone());
    tasks.spawn(async move {
        // Without roots the certificate authority cannot be known; asking would only put the next attempt off.
        drop(rooted.wait_for(|view| !view.frozen.roots.is_empty()).await);
        own.enter().await;
        std::future::pending().await
    });
    for listener in listeners {
        let (server, gate) = (server.clone(), Arc::clone(&gate));
        tasks.spawn(async move {
            server.serve(listener, gate).await;
            Err("discovery is not served any more".to_owned())
        });
    }
    let meters = Arc::new(Meters::new(server.clone(), views.clone()));
    tasks.spawn(Arc::clone(&meters).follow());
    let guard = Arc::new(pages::Guard::new(config.metrics_allow.clone()));
    for listener in pages::listen(&config.metrics).await? {
        let (meters, guard) = (Arc::clone(&meters), Arc::clone(&guard));
        tasks.spawn(async move {
            pages::answer(listener, meters, guard).await;
            Ok(())
        });
    }
    let desk = Arc::new(Desk::new(commands, views, server, meters).with_gate(own_gate));
    let socket = config.socket.clone();
    tasks.spawn(async move {
        let ended = admin::serve(&socket, desk).await;
        Err(match ended {
            Ok(()) => "the socket is not served any more".to_owned(),
            Err(error) => format!("the socket `{}` cannot be served: {error}", socket.display()),
        })
    });
    Ok(tasks)
}

fn read_roots(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let named = |error: std::io::Error| format!("`{}`: {error}", path.display());
    let now = i64::try_from(SystemClock.now().as_secs()).unwrap_or(i64::MAX);
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(named)?;
    file.take(MAX_ROOTS).read_to_string(&mut text).map_err(named)?;
    usable(&text, now).map_err(|why| format!("`{}`: {why}", path.display()))?;
    Ok(text)
}

/// Whether peers can be judged by a bundle: by its certificates, and at this time, Unix seconds, by its revocation lists.
fn usable(text: &str, now: i64) -> Result<(), String> {
    identity::pki::certificates(text)?;
    if !text.contains("X509 CRL") {
        return Ok(());
    }
    let anchors = identity::Anchors::from_pem(&[text.to_owned()]).map_err(|e| e.to_string())?;
    match anchors.lists().into_iter().find(|list| list.next_update <= now) {
        None => Ok(()),
        Some(list) => Err(format!(
            "the revocation list of `{}` has expired, so that nothing it has signed is believed; put a new `ca-crl.pem` in place",
            list.issuer
        )),
    }
}

/// Follows the trust bundle. One that breaks leaves the one before in force.
async fn follow_roots(
    path: PathBuf,
    mut last: Result<String, String>,
    gate: Arc<Gate>,
    commands: mpsc::Sender<Command>,
) -> Result<(), String> {
    loop {
        if let Ok(pem) = &last
            && let Err(why) = gate.set_roots(pem)
        {
            tracing::error!("{why}");
        }
        let next = loop {
            let pause = if last.is_ok() {
                ROOTS_POLL
            } else {
                ROOTS_POLL_FIRST
            };
            tokio::time::sleep(pause).await;
            let next = read_roots(&path);
            if next != last {
                break next;
            }
        };
        last.clone_from(&next);
        if commands.send(Command::Roots(next)).await.is_err() {
            return Ok(());
        }
    }
}
