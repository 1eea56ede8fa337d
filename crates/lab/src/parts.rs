//! The parts of a mesh: started in their namespaces, logged, started again when they end.

mod config;
mod keeper;
mod sockets;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use capture::Netns;
use capture::process::{Confinement, confine};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::pod::Order;
use crate::process::logbook::Logbook;
use crate::process::{self, Process, StartError};
use crate::show::Notice;
use crate::site::Site;

pub(crate) use config::write;
use keeper::Keeper;
pub(crate) use keeper::{Orders, Told, orders};
pub(crate) use sockets::Sockets;

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
    parts: Vec<(Part, mpsc::Receiver<Told>)>,
    order: watch::Receiver<Order>,
    pids: Pids,
    notices: mpsc::Sender<Notice>,
    sockets: Sockets,
) {
    let mut kept = JoinSet::new();
    for (part, orders) in parts {
        let keeper = Keeper {
            site: Arc::clone(&site),
            part,
            order: order.clone(),
            pids: Arc::clone(&pids),
            notices: notices.clone(),
            sockets: sockets.clone(),
            orders,
            leaving: Vec::new(),
        };
        kept.spawn(keeper.run());
    }
    while kept.join_next().await.is_some() {}
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
