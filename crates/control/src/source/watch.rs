//! What the kernel says of directories.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::MAX_FILES;

/// How long a file that somebody writes to is left alone, at most: after that it is read as it is.
const WRITING: Duration = Duration::from_millis(500);

/// Tells when to look again, and which files are being written. Clones are the same one.
#[derive(Clone)]
pub(super) struct Notices {
    shared: Arc<Shared>,
    watched: Arc<Mutex<Watched>>,
}

#[derive(Default)]
struct Shared {
    wake: Notify,
    /// Files that were written to and not closed since.
    writing: Mutex<HashMap<PathBuf, Instant>>,
}

#[derive(Default)]
struct Watched {
    watcher: Option<RecommendedWatcher>,
    /// Path, device and inode: a directory that was replaced is another one.
    directories: HashSet<(PathBuf, u64, u64)>,
    complete: bool,
}

impl Notices {
    pub(super) fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let told = Arc::clone(&shared);
        let watcher = notify::recommended_watcher(move |event| told.take(event))
            .inspect_err(|error| tracing::warn!(%error, "the sources are looked at in turns: no notices"))
            .ok();
        let watched = Watched {
            complete: watcher.is_some(),
            watcher,
            ..Watched::default()
        };
        Self {
            shared,
            watched: Arc::new(Mutex::new(watched)),
        }
    }

    /// Returns once something has happened since the last time.
    pub(super) async fn next(&self) {
        self.shared.wake.notified().await;
    }

    /// Whether every directory is watched.
    pub(super) fn complete(&self) -> bool {
        self.watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .complete
    }

    /// Whether somebody has the file open and has written to it. What was moved to its place is complete.
    pub(super) fn is_being_written(&self, path: &Path) -> bool {
        let mut writing = self.shared.writing.lock().unwrap_or_else(PoisonError::into_inner);
        match writing.get(path) {
            Some(since) if since.elapsed() < WRITING => true,
            Some(_) => {
                writing.remove(path);
                false
            }
            None => false,
        }
    }

    /// Watches these directories and no others.
    pub(super) fn watch(&self, directories: &[PathBuf]) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let Watched {
            watcher: Some(watcher),
            directories: before,
            complete,
        } = &mut *watched
        else {
            return;
        };
        let wanted: HashSet<_> = directories.iter().filter_map(|path| identify(path)).collect();
        for (path, ..) in before.difference(&wanted) {
            // It may be gone, and its watch with it.
            drop(watcher.unwatch(path));
        }
        before.retain(|one| wanted.contains(one));
        *complete = true;
        for one in wanted {
            if before.contains(&one) {
                continue;
            }
            match watcher.watch(&one.0, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    before.insert(one);
                    // What happened between looking and watching would be missed else.
                    self.shared.wake.notify_one();
                }
                Err(error) => {
                    *complete = false;
                    tracing::warn!(%error, path = %one.0.display(), "looked at in turns: no notices");
                }
            }
        }
    }
}

fn identify(path: &Path) -> Option<(PathBuf, u64, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((path.to_owned(), found.dev(), found.ino()))
}

impl Shared {
    fn take(&self, event: notify::Result<Event>) {
        let Ok(event) = event else {
            self.wake.notify_one();
            return;
        };
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        match event.kind {
            // Our own reading.
            EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write) => return,
            EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => {
                if writing.len() < MAX_FILES {
                    writing.extend(event.paths.into_iter().map(|path| (path, Instant::now())));
                }
            }
            EventKind::Modify(ModifyKind::Metadata(_)) | EventKind::Create(_) => {}
            _ => writing.retain(|path, _| !event.paths.contains(path)),
        }
        drop(writing);
        self.wake.notify_one();
    }
}
