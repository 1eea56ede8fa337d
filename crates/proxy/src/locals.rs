//! The workloads of this node: who a mark, and an address, stand for.
//!
//! A directory holds one file a workload, `MARK.json`, put there by rename before the workload's interface comes up. It
//! is followed, and read anew whole at each change: what is in force is always what a directory once was. A file that
//! cannot be used is an error in the log, and its workload is nobody: everything that it opens is refused.
//!
//! A mark is that of an interface and believed; whoever attaches workloads gives a mark to another one only after the
//! file of the first has been gone for longer than it takes to notice.

mod certificates;
mod read;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::canonical_ip;
use notify::Watcher;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Registration;
use certificates::Certificates;

/// How long a mark that has no file is remembered to have none.
const MISS_LIFE: Duration = Duration::from_secs(1);

/// How many of them are remembered at once.
const MAX_MISSES: usize = 1024;

/// How often the directory is read without having been told of a change.
const RESCAN: Duration = Duration::from_secs(30);

/// The workloads of this node.
#[derive(Debug, Default)]
pub(crate) struct Locals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    known: ArcSwap<Known>,
    /// Held by whoever reads files, so that older readings never replace newer ones.
    reading: Mutex<()>,
    misses: Mutex<HashMap<u32, Instant>>,
    changed: watch::Sender<()>,
    /// Whether the directory was read.
    read: AtomicBool,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            directory: PathBuf::new(),
            known: ArcSwap::default(),
            reading: Mutex::default(),
            misses: Mutex::default(),
            changed: watch::Sender::new(()),
            read: AtomicBool::new(false),
        }
    }
}

/// The registrations as they were at one time.
#[derive(Debug, Default)]
struct Known {
    by_mark: HashMap<u32, Arc<Registration>>,
    by_address: HashMap<IpAddr, Arc<Registration>>,
}

impl Known {
    /// An address that two workloads claim is nobody's.
    fn new(registrations: impl IntoIterator<Item = Arc<Registration>>) -> Self {
        let mut known = Self::default();
        let mut claimed: HashMap<IpAddr, Option<Arc<Registration>>> = HashMap::new();
        for registration in registrations {
            for address in &registration.addresses {
                claimed
                    .entry(canonical_ip(*address))
                    .and_modify(|holder| {
                        tracing::error!(%address, pod = registration.pod, "two workloads claim an address, none has it");
                        *holder = None;
                    })
                    .or_insert_with(|| Some(Arc::clone(&registration)));
            }
            known.by_mark.insert(registration.mark, registration);
        }
        known.by_address = claimed
            .into_iter()
            .filter_map(|(address, holder)| Some((address, holder?)))
            .collect();
        known
    }
}

impl Locals {
    /// Those of the directory; none before [`Locals::follow`] has read it, or somebody asked for a mark.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self(Arc::new(Inner {
            directory,
            ..Inner::default()
        }))
    }

    /// These, and no directory.
    pub(crate) fn of(registrations: impl IntoIterator<Item = Registration>) -> Self {
        let locals = Self::default();
        let known = Known::new(registrations.into_iter().map(Arc::new));
        locals.0.known.store(Arc::new(known));
        locals.0.read.store(true, Ordering::Release);
        locals
    }

    /// Who the mark of a captured connection stands for. Reads the directory where it is not known yet: the file is
    /// there before the interface is.
    pub(crate) async fn by_mark(&self, mark: u32) -> Option<Arc<Registration>> {
        if let Some(found) = self.0.known.load().by_mark.get(&mark) {
            return Some(Arc::clone(found));
        }
        if mark < capture::FIRST_POD_MARK || self.0.directory.as_os_str().is_empty() || self.missed(mark) {
            return None;
        }
        let inner = Arc::clone(&self.0);
        let found = tokio::task::spawn_blocking(move || inner.look_up(mark)).await;
        let found = found.ok().flatten();
        if found.is_none() {
            self.miss(mark);
        }
        found
    }

    /// The workload of this node that has the address.
    pub(crate) fn by_address(&self, address: IpAddr) -> Option<Arc<Registration>> {
        let known = self.0.known.load();
        known.by_address.get(&canonical_ip(address)).cloned()
    }

    /// Whether all are known: the directory has been read, or there is none.
    pub(crate) fn are_read(&self) -> bool {
        self.0.read.load(Ordering::Acquire)
    }

    /// All, in no particular order.
    pub(crate) fn all(&self) -> Vec<Arc<Registration>> {
        self.0.known.load().by_mark.values().cloned().collect()
    }

    /// Reads the directory, and from then on whenever it changes; sees to it that each identity has a certificate, and
    /// that one which no workload has any more is forgotten.
    ///
    /// # Errors
    /// The directory cannot be read or watched.
    pub(crate) async fn follow(&self, identities: &identity::Store) -> Result<(), String> {
        let directory = &self.0.directory;
        let unwatched = |e: notify::Error| format!("cannot watch `{}`: {e}", directory.display());
        let (told, mut telling) = watch::channel(());
        let mut watcher = notify::recommended_watcher(move |event| {
            if is_change(&event) {
                told.send_replace(());
            }
        })
        .map_err(unwatched)?;
        // Watched before it is read: what changes in between is told of.
        watcher
            .watch(directory, notify::RecursiveMode::NonRecursive)
            .map_err(unwatched)?;
        self.reread().await?;
        let mut changed = self.0.changed.subscribe();
        let mut certificates = Certificates::new(identities.clone());
        loop {
            certificates.keep(&self.all());
            tokio::select! {
                _ = telling.changed() => self.reread_or_keep().await,
                () = tokio::time::sleep(RESCAN) => self.reread_or_keep().await,
                // Somebody asked for a mark and found it.
                _ = changed.changed() => {}
            }
        }
    }

    async fn reread_or_keep(&self) {
        if let Err(why) = self.reread().await {
            tracing::error!("the workloads stay as they were: {why}");
        }
    }

    async fn reread(&self) -> Result<(), String> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || inner.read_all())
            .await
            .map_err(|e| e.to_string())?
    }

    fn missed(&self, mark: u32) -> bool {
        let misses = locked(&self.0.misses);
        misses.get(&mark).is_some_and(|at| at.elapsed() < MISS_LIFE)
    }

    fn miss(&self, mark: u32) {
        let mut misses = locked(&self.0.misses);
        if misses.len() >= MAX_MISSES {
            misses.retain(|_, at| at.elapsed() < MISS_LIFE);
        }
        if misses.len() < MAX_MISSES {
            misses.insert(mark, Instant::now());
        }
    }
}

impl Inner {
    /// Blocks: reads all files.
    fn read_all(&self) -> Result<(), String> {
        let _reading = locked(&self.reading);
        let registrations = read::directory(&self.directory)?;
        self.known.store(Arc::new(Known::new(registrations)));
        self.read.store(true, Ordering::Release);
        Ok(())
    }

    /// Blocks: reads the file of one mark.
    fn look_up(&self, mark: u32) -> Option<Arc<Registration>> {
        let _reading = locked(&self.reading);
        let known = self.known.load_full();
        if let Some(found) = known.by_mark.get(&mark) {
            return Some(Arc::clone(found));
        }
        let path = file(&self.directory, mark);
        let found = match read::one(&path) {
            Ok(found) => Arc::new(found),
            Err(error) => {
                tracing::error!("{error}");
                return None;
            }
        };
        let all = known.by_mark.values().chain([&found]).map(Arc::clone);
        self.known.store(Arc::new(Known::new(all)));
        self.changed.send_replace(());
        Some(found)
    }
}

/// Whether the directory is to be read again. That somebody reads in it, we ourselves foremost, is no reason.
fn is_change(event: &notify::Result<notify::Event>) -> bool {
    use notify::event::{AccessKind, AccessMode, EventKind};
    event.as_ref().map_or(true, |event| match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    })
}

/// The file of a mark.
fn file(directory: &Path, mark: u32) -> PathBuf {
    directory.join(format!("{mark}.json"))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
