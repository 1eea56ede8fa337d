//! The life of one part: started, started again when it ends, and replaced, stopped or started when somebody says so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use admin::verbs::PartOrder;
use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use super::{Part, Pids, given, roots, start};
use crate::parts::Sockets;
use crate::pod::{Order, terminate};
use crate::process::Process;
use crate::process::logbook::Logbook;
use crate::show::Notice;
use crate::site::Site;

/// How long to wait before a part is started again; twice that the next time, and so on.
const BACKOFF: Duration = Duration::from_millis(50);
/// The longest wait.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// A part that has run for this long begins anew.
const STEADY: Duration = Duration::from_secs(10);
/// How long a part may take to end with the mesh.
const GRACE: Duration = Duration::from_secs(3);
/// How long one may take that is to be started again: what it carries is to end well.
const STOP_GRACE: Duration = Duration::from_secs(8);
/// How long a process may take to stand in the place of another one.
const REPLACED: Duration = Duration::from_secs(40);
/// How often it is looked whether it does.
const POLL: Duration = Duration::from_millis(10);
/// Proxies of one node that leave at once; with one more the oldest has to end.
const MAX_LEAVING: usize = 4;
/// Orders to one part that wait.
const ORDERS: usize = 8;

/// An order, and who waits for it to be done.
pub(crate) type Told = (PartOrder, oneshot::Sender<Result<(), String>>);

/// Where orders to the parts go, by their names.
pub(crate) type Orders = BTreeMap<String, mpsc::Sender<Told>>;

/// Ways to give orders to all of the parts.
pub(crate) fn orders(parts: Vec<Part>) -> (Orders, Vec<(Part, mpsc::Receiver<Told>)>) {
    let mut all = Orders::new();
    let mut with = Vec::new();
    for part in parts {
        let (tell, told) = mpsc::channel(ORDERS);
        all.insert(part.name.clone(), tell);
        with.push((part, told));
    }
    (all, with)
}

/// Who keeps one part.
pub(super) struct Keeper {
    pub(super) site: Arc<Site>,
    pub(super) part: Part,
    pub(super) order: watch::Receiver<Order>,
    pub(super) pids: Pids,
    pub(super) notices: mpsc::Sender<Notice>,
    pub(super) sockets: Sockets,
    pub(super) orders: mpsc::Receiver<Told>,
    /// Processes whose place another one has taken.
    pub(super) leaving: Vec<Process>,
}

/// How a process came to its end.
enum Ended {
    /// By itself.
    Code(i32),
    /// To be started again; somebody waits for that.
    Restart(oneshot::Sender<Result<(), String>>),
    /// Not to be started before somebody says so.
    Stopped,
    /// With the mesh.
    Over,
}

impl Keeper {
    /// Keeps it until the order is given to end, and then until it has.
    pub(super) async fn run(mut self) {
        let log = self.site.run.logs().join(format!("{}.log", self.part.name));
        let book = match Logbook::new(log.clone()) {
            Ok(book) => book,
            Err(error) => {
                let why = format!("error: cannot make `{}`: {error}", log.display());
                let _ = self.notices.send(Notice::Line(why)).await;
                return;
            }
        };
        if self.part.word != "ca" {
            let bundle = self.site.run.roots();
            tokio::select! {
                () = roots(&bundle) => {}
                () = given(&mut self.order) => return,
            }
        }
        let mut backoff = BACKOFF;
        let mut waiting = None;
        while *self.order.borrow() == Order::Run {
            let since = Instant::now();
            let why = match start(&self.site, &self.part, &book).await {
                Ok(process) => match self.watch(process, &book, waiting.take()).await {
                    Ended::Code(code) => format!("ended with exit code {code}"),
                    Ended::Restart(done) => {
                        waiting = Some(done);
                        continue;
                    }
                    Ended::Stopped => {
                        waiting = self.stopped().await;
                        continue;
                    }
                    Ended::Over => break,
                },
                Err(error) => error.to_string(),
            };
            if since.elapsed() >= STEADY {
                backoff = BACKOFF;
            }
            let name = &self.part.name;
            let line = format!("{name}: {why}; starting it again, see `{}`", log.display());
            let _ = self.notices.send(Notice::Line(line)).await;
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = given(&mut self.order) => break,
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
        for process in &self.leaving {
            process.signal(Signal::TERM);
        }
        for mut process in std::mem::take(&mut self.leaving) {
            terminate(&mut process, GRACE, &mut self.order).await;
        }
    }

    /// Watches a process that has been started to its end, and does what is ordered meanwhile.
    async fn watch(
        &mut self,
        mut process: Process,
        book: &Arc<Logbook>,
        waiting: Option<oneshot::Sender<Result<(), String>>>,
    ) -> Ended {
        self.note(&process);
        if let Some(done) = waiting {
            let (path, pid) = (self.socket(), process.pid);
            tokio::spawn(async move {
                let there = path.answers(pid).await;
                let _ = done.send(there);
            });
        }
        let ended = loop {
            let (order, done) = tokio::select! {
                code = process.ended() => break Ended::Code(code),
                () = given(&mut self.order) => {
                    process.signal(Signal::TERM);
                    terminate(&mut process, GRACE, &mut self.order).await;
                    break Ended::Over;
                }
                Some(told) = self.orders.recv() => told,
            };
            match order {
                PartOrder::Start => drop(done.send(Ok(()))),
                PartOrder::Restart => {
                    terminate(&mut process, STOP_GRACE, &mut self.order).await;
                    break Ended::Restart(done);
                }
                PartOrder::Stop => {
                    terminate(&mut process, STOP_GRACE, &mut self.order).await;
                    let _ = done.send(Ok(()));
                    break Ended::Stopped;
                }
                PartOrder::Replace => {
                    let replaced = self.replace(&mut process, book).await;
                    let _ = done.send(replaced);
                }
            }
        };
        self.pids().remove(&self.part.name);
        ended
    }

    /// Waits until it is to run again; with who waits for it.
    async fn stopped(&mut self) -> Option<oneshot::Sender<Result<(), String>>> {
        loop {
            let told = tokio::select! {
                told = self.orders.recv() => told,
                () = given(&mut self.order) => return None,
            };
            match told {
                None => {
                    given(&mut self.order).await;
                    return None;
                }
                Some((PartOrder::Start | PartOrder::Restart, done)) => return Some(done),
                Some((PartOrder::Stop, done)) => drop(done.send(Ok(()))),
                Some((PartOrder::Replace, done)) => {
                    drop(done.send(Err(format!("{} does not run", self.part.name))));
                }
            }
        }
    }

    /// Starts another process, which takes the place of the one that runs; that one leaves when it has no more to do.
    async fn replace(&mut self, process: &mut Process, book: &Arc<Logbook>) -> Result<(), String> {
        let name = self.part.name.clone();
        let Place::At(socket) = self.socket() else {
            return Err(format!(
                "{name} is no proxy: it can be restarted and not replaced"
            ));
        };
        if self.part.word != "proxy" {
            return Err(format!(
                "{name} is no proxy: it can be restarted and not replaced"
            ));
        }
        let mut new = start(&self.site, &self.part, book)
            .await
            .map_err(|error| error.to_string())?;
        let taken = async {
            while pid_at(&socket).await != Some(new.pid) {
                tokio::time::sleep(POLL).await;
            }
        };
        let mut end = new.clone();
        tokio::select! {
            () = taken => {}
            code = end.ended() => {
                let log = self.site.run.logs().join(format!("{name}.log"));
                return Err(format!(
                    "the new process ended with exit code {code}, and the one that ran goes on; see `{}`",
                    log.display()
                ));
            }
            () = tokio::time::sleep(REPLACED) => {
                new.kill();
                new.ended().await;
                return Err(format!("the new process was not ready in {} s, and the one that ran goes on", REPLACED.as_secs()));
            }
        }
        let old = std::mem::replace(process, new);
        self.note(process);
        self.leaving.retain(|process| !process.is_over());
        while self.leaving.len() >= MAX_LEAVING {
            self.leaving.remove(0).signal(Signal::TERM);
        }
        self.leaving.push(old);
        Ok(())
    }

    /// Tells who runs; of a proxy the sockets are asked for, to be held.
    fn note(&self, process: &Process) {
        self.pids().insert(self.part.name.clone(), process.pid);
        if let (Some(node), Place::At(path)) = (self.part.name.strip_prefix("proxy-"), self.socket()) {
            tokio::spawn(self.sockets.clone().follow(node.to_owned(), path, process.pid));
        }
    }

    fn pids(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u32>> {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the part answers.
    fn socket(&self) -> Place {
        match (self.part.word, self.part.name.strip_prefix("proxy-")) {
            ("proxy", Some(node)) => Place::At(self.site.run.proxy_socket(node)),
            ("control", _) => Place::At(self.site.run.control_socket()),
            _ => Place::None,
        }
    }
}

/// Where a part answers, if it does.
enum Place {
    At(PathBuf),
    None,
}

impl Place {
    /// Returns once a process answers there; at once where there is nothing to ask.
    async fn answers(self, pid: u32) -> Result<(), String> {
        let Self::At(path) = self else {
            return Ok(());
        };
        let answers = async {
            while pid_at(&path).await != Some(pid) {
                tokio::time::sleep(POLL).await;
            }
        };
        timeout(REPLACED, answers)
            .await
            .map_err(|_| format!("it was started, and does not answer at `{}`", path.display()))
    }
}

/// The process that answers at a path.
pub(super) async fn pid_at(path: &Path) -> Option<u32> {
    // What is asked is nothing that is known: that somebody is there is all.
    let answer = admin::call(path, "", Value::Null, Vec::new()).await.ok()?;
    let pid = answer.peer_pid();
    let _ = timeout(Duration::from_secs(1), answer.finish()).await;
    pid
}
