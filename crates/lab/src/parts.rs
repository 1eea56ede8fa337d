//! The parts of a mesh: started in their namespaces, logged, started again when they end.

mod config;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capture::Netns;
use capture::process::{Confinement, confine};
use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::pod::{Order, terminate};
use crate::process::logbook::Logbook;
use crate::process::{self, Process, StartError};
use crate::show::Notice;
use crate::site::Site;

pub(crate) use config::write;

/// How long to wait before a part is started again; twice that the next time, and so on.
const BACKOFF: Duration = Duration::from_millis(50);
/// The longest wait.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// A part that has run for this long begins anew.
const STEADY: Duration = Duration::from_secs(10);
/// How long a part may take to end.
const GRACE: Duration = Duration::from_secs(3);

/// How long the other parts wait for the CA's trust bundle.
const ROOTS: Duration = Duration::from_secs(5);
/// How often they look for it.
const ROOTS_POLL: Duration = Duration::from_millis(2);

/// The process ids of what runs, by name: `ca`, `control`, `proxy-NODE`.
pub(crate) type Pids = Arc<Mutex<BTreeMap<String, u32>>>;

/// A part: what it is called, what it is told to be, and where.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    word: &'static str,
    config: PathBuf,
    netns: PathBuf,
}

/// The parts of the mesh, whose configurations were written ([`write()`]).
pub(crate) fn parts(site: &Site) -> Vec<Part> {
    let part = |name: &str, word, netns: &Netns| Part {
        name: name.to_owned(),
        word,
        config: config::path(&site.run, name),
        netns: netns.path().to_owned(),
    };
    let mut all = vec![part("ca", "ca", &site.hub), part("control", "control", &site.hub)];
    all.extend(
        site.nodes
            .iter()
            .map(|node| part(&format!("proxy-{}", node.name), "proxy", &node.netns)),
    );
    all
}

/// Keeps all parts running until the order is given to end, and then until they have.
pub(crate) async fn keep(
    site: Arc<Site>,
    parts: Vec<Part>,
    order: watch::Receiver<Order>,
    pids: Pids,
    notices: mpsc::Sender<Notice>,
) {
    let mut kept = JoinSet::new();
    for part in parts {
        kept.spawn(keep_one(
            Arc::clone(&site),
            part,
            order.clone(),
            Arc::clone(&pids),
            notices.clone(),
        ));
    }
    while kept.join_next().await.is_some() {}
}

async fn keep_one(
    site: Arc<Site>,
    part: Part,
    mut order: watch::Receiver<Order>,
    pids: Pids,
    notices: mpsc::Sender<Notice>,
) {
    let log = site.run.logs().join(format!("{}.log", part.name));
    let book = match Logbook::new(log.clone()) {
        Ok(book) => book,
        Err(error) => {
            let why = format!("error: cannot make `{}`: {error}", log.display());
            let _ = notices.send(Notice::Line(why)).await;
            return;
        }
    };
    let mut backoff = BACKOFF;
    if part.word != "ca" {
        let bundle = site.run.roots();
        tokio::select! {
            () = roots(&bundle) => {}
            () = given(&mut order) => return,
        }
    }
    while *order.borrow() == Order::Run {
        let since = Instant::now();
        let code = match start(&site, &part, &book).await {
            Ok(mut process) => {
                note(&pids, &part.name, Some(process.pid));
                let code = wait(&mut process, &mut order).await;
                note(&pids, &part.name, None);
                code.map(|code| format!("ended with exit code {code}"))
            }
            Err(error) => Some(error.to_string()),
        };
        let Some(why) = code else {
            return;
        };
        if since.elapsed() >= STEADY {
            backoff = BACKOFF;
        }
        let line = format!("{}: {why}; starting it again, see `{}`", part.name, log.display());
        let _ = notices.send(Notice::Line(line)).await;
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            () = given(&mut order) => return,
        }
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

/// Returns when the CA has said whom to trust, or is late: without that, the others would only begin with a failure.
async fn roots(path: &Path) {
    let since = Instant::now();
    while !path.exists() && since.elapsed() < ROOTS {
        tokio::time::sleep(ROOTS_POLL).await;
    }
}

/// Returns when the order is given to end.
pub(crate) async fn given(order: &mut watch::Receiver<Order>) {
    let _ = order.wait_for(|order| *order != Order::Run).await;
}

async fn wait(process: &mut Process, order: &mut watch::Receiver<Order>) -> Option<i32> {
    tokio::select! {
        code = process.ended() => return Some(code),
        () = given(order) => {}
    }
    process.signal(Signal::TERM);
    terminate(process, GRACE, order).await;
    None
}

fn note(pids: &Pids, name: &str, pid: Option<u32>) {
    let mut pids = pids.lock().unwrap_or_else(PoisonError::into_inner);
    match pid {
        Some(pid) => drop(pids.insert(name.to_owned(), pid)),
        None => drop(pids.remove(name)),
    }
}

async fn start(site: &Site, part: &Part, book: &Arc<Logbook>) -> Result<Process, StartError> {
    let pipe = |error: std::io::Error| StartError::Place(format!("cannot make a pipe: {error}"));
    let out = book.pipe().map_err(pipe)?;
    let err = out.try_clone().map_err(pipe)?;
    let netns = Netns::open(&part.netns)?;
    let exe = site.exe.clone();
    let args: [OsString; 3] = [part.word.into(), "--config".into(), part.config.clone().into()];
    let prepare = move || {
        netns.enter()?;
        let mut command = Command::new(exe);
        command.args(args).stdin(Stdio::null()).stdout(out).stderr(err);
        confine(&mut command, Confinement::default());
        Ok((command, process::nothing))
    };
    let (process, ()) = process::start(prepare).await?;
    Ok(process)
}
