//! A container: started, watched, started again.

use std::sync::Arc;
use std::time::Duration;

use capture::Netns;
use capture::process::{Confinement, confine};
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::Instant;

use super::resolve::{Launch, Restart, hostname};
use super::{Live, Order, Pod, network, ready};
use crate::process::{self, Inside, Process, StartError, View};
use crate::site::Site;

/// How long to wait before the first restart; twice that before the next, and so on.
const BACKOFF: Duration = Duration::from_millis(10);
/// The longest wait.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A container that has run for this long begins anew.
const STEADY: Duration = Duration::from_secs(10);
/// How long a container may take to end when the whole mesh does.
const SOON: Duration = Duration::from_secs(3);

/// Keeps one container.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) site: Arc<Site>,
    pub(super) pod: Arc<Pod>,
    pub(super) netns: Arc<Netns>,
    pub(super) launch: Arc<Launch>,
    pub(super) restart: Restart,
}

/// Why a container is not kept any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    /// The pod is to end.
    Ordered,
    /// It has ended, and is not started again.
    Code(i32),
}

impl Keeper {
    /// Keeps it until it is not to run any more.
    pub(super) async fn keep(self) -> Ended {
        let mut order = self.pod.order.subscribe();
        let mut backoff = BACKOFF;
        loop {
            if *order.borrow() != Order::Run {
                return Ended::Ordered;
            }
            let since = Instant::now();
            let code = match self.once(&mut order).await {
                Ok(None) => return Ended::Ordered,
                Ok(Some(code)) => code,
                Err(error) => {
                    self.note(|state| state.message = error.to_string());
                    error.code()
                }
            };
            let again = match self.restart {
                Restart::Always => true,
                Restart::OnFailure => code != 0,
                Restart::Never => false,
            };
            if since.elapsed() >= STEADY {
                backoff = BACKOFF;
            }
            self.note(|state| {
                state.exit = Some(code);
                state.backing_off = again;
                if code != 0 && state.message.is_empty() {
                    state.message = format!("exit code {code}");
                }
            });
            if !again {
                return Ended::Code(code);
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                _ = order.wait_for(|order| *order != Order::Run) => return Ended::Ordered,
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
            self.note(|state| state.restarts = state.restarts.saturating_add(1));
        }
    }

    /// Starts it and waits for its end; `None` where it was ended by order.
    async fn once(&self, order: &mut watch::Receiver<Order>) -> Result<Option<i32>, StartError> {
        let (mut process, inside) = self.start().await?;
        self.pod.live().insert(
            self.launch.name.clone(),
            Live {
                inside: Arc::new(inside),
                launch: Arc::clone(&self.launch),
            },
        );
        self.note(|state| {
            state.running = true;
            state.backing_off = false;
            state.message.clear();
        });
        let watching = tokio::spawn(ready::watch(
            Arc::clone(&self.pod),
            Arc::clone(&self.netns),
            Arc::clone(&self.launch),
        ));
        let code = tokio::select! {
            code = process.ended() => Some(code),
            _ = order.wait_for(|order| *order != Order::Run) => None,
        };
        watching.abort();
        if code.is_none() {
            terminate(&mut process, self.pod.grace(), order).await;
        }
        self.pod.live().remove(&self.launch.name);
        self.note(|state| {
            state.running = false;
            state.ready = false;
        });
        Ok(code)
    }

    async fn start(&self) -> Result<(Process, Inside), StartError> {
        let place = StartError::Place;
        let book = self.pod.book(&self.site, &self.launch.name).map_err(place)?;
        let pipe = |error: std::io::Error| StartError::Place(format!("cannot make a pipe: {error}"));
        let out = book.pipe().map_err(pipe)?;
        let err = out.try_clone().map_err(pipe)?;
        let own_proc = self.site.machine.own_proc;
        let view = View {
            hidden: self.site.hidden(),
            files: network::files(&self.site, &self.pod),
            hostname: hostname(&self.pod).chars().take(64).collect(),
            own_proc,
        };
        let (netns, launch) = (Arc::clone(&self.netns), Arc::clone(&self.launch));
        let prepare = move || {
            process::make(&netns, &view)?;
            if !launch.dir.is_dir() {
                let why = format!(
                    "workingDir `{}` is no directory on this machine",
                    launch.dir.display()
                );
                return Err(StartError::Place(why));
            }
            let mut command = process::command(&launch.argv, &launch.env)?;
            command
                .current_dir(&launch.dir)
                .stdin(std::process::Stdio::null())
                .stdout(out)
                .stderr(err);
            let how = Confinement {
                terminal: false,
                own_proc,
                rights: Some(launch.rights),
            };
            confine(&mut command, how);
            Ok((command, Inside::current(own_proc)?))
        };
        process::start(prepare).await
    }

    fn note(&self, change: impl FnOnce(&mut super::ContainerState)) {
        self.pod.update(|state| {
            if let Some(container) = state.container(&self.launch.name) {
                change(container);
            }
        });
    }
}

/// Ends a process: politely, where it listens, and for as long as the order allows.
pub(crate) async fn terminate(process: &mut Process, grace: Duration, order: &mut watch::Receiver<Order>) {
    let since = Instant::now();
    if process.catches_term() {
        process.signal(Signal::TERM);
        loop {
            let limit = match *order.borrow_and_update() {
                Order::Kill => Duration::ZERO,
                Order::StopSoon => grace.min(SOON),
                Order::Run | Order::Stop => grace,
            };
            tokio::select! {
                _ = process.ended() => return,
                () = tokio::time::sleep_until(since + limit) => break,
                changed = order.changed() => if changed.is_err() { break },
            }
        }
    }
    process.kill();
    process.ended().await;
}
