//! The workloads of this node: who a mark, and an address, stand for.
//!
//! A registration is a file, written before the workload's interface exists (ADR 2), so that a proxy that was started
//! again knows everybody at once. A file that is broken stands for nobody: whoever has that mark is refused.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use identity::TokenFile;
use model::{SpiffeId, canonical_ip};
use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::Registration;

/// The most workloads of a node; files beyond are not read.
const MAX_WORKLOADS: usize = 4096;
/// The largest registration, in bytes.
const MAX_FILE: u64 = 64 * 1024;
/// Marks that were asked for and are nobody's, remembered for a moment.
const MAX_MISSES: usize = 1024;
/// For how long.
const MISS: Duration = Duration::from_millis(200);
/// How often the directory is read where no event came: events can be lost.
const RESCAN: Duration = Duration::from_secs(5);
/// Events that may wait; more are one and the same: read again.
const EVENTS: usize = 8;

/// The workloads of this node.
#[derive(Debug)]
pub(crate) struct Locals {
    directory: PathBuf,
    known: ArcSwap<Known>,
    misses: Mutex<HashMap<u32, Instant>>,
}

#[derive(Debug, Default)]
struct Known {
    by_mark: HashMap<u32, Arc<Registration>>,
    by_address: HashMap<IpAddr, Arc<Registration>>,
}

impl Locals {
    /// The workloads that a directory tells of, as far as it does now.
    pub(crate) fn new(directory: &Path) -> Self {
        let locals = Self {
            directory: directory.to_owned(),
            known: ArcSwap::default(),
            misses: Mutex::default(),
        };
        locals.rescan();
        locals
    }

    /// Who the mark of a captured connection stands for. Reads the directory where it is not known yet: the file is
    /// there before the interface is.
    pub(crate) async fn by_mark(&self, mark: u32) -> Option<Arc<Registration>> {
        if let Some(found) = self.known.load().by_mark.get(&mark) {
            return Some(Arc::clone(found));
        }
        if !self.missing(mark) {
            return None;
        }
        self.rescan();
        self.known.load().by_mark.get(&mark).cloned()
    }

    /// The workload of this node that has the address.
    pub(crate) fn by_address(&self, address: IpAddr) -> Option<Arc<Registration>> {
        self.known.load().by_address.get(&canonical_ip(address)).cloned()
    }

    /// All of them, by mark.
    pub(crate) fn all(&self) -> BTreeMap<u32, Arc<Registration>> {
        let known = self.known.load();
        known.by_mark.iter().map(|(m, r)| (*m, Arc::clone(r))).collect()
    }

    /// Notes that a mark is nobody's; `false` where that was noted a moment ago.
    fn missing(&self, mark: u32) -> bool {
        let mut misses = self.misses.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if misses.len() >= MAX_MISSES {
            misses.retain(|_, since| now.duration_since(*since) < MISS);
        }
        if misses
            .get(&mark)
            .is_some_and(|since| now.duration_since(*since) < MISS)
        {
            return false;
        }
        if misses.len() < MAX_MISSES {
            misses.insert(mark, now);
        }
        true
    }

    /// Reads the directory.
    fn rescan(&self) {
        let mut known = Known::default();
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        for entry in entries.take(MAX_WORKLOADS) {
            let path = entry.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            match read(&path) {
                Ok(registration) => known.add(registration),
                // Taken away between listing and reading.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::error!(path = %path.display(), "a workload is refused: {error}"),
            }
        }
        self.known.store(Arc::new(known));
    }

    /// Follows the directory for ever, and sees to it that each identity of a workload here has a certificate.
    pub(crate) async fn follow(&self, identities: identity::Store) {
        let (tell, mut told) = mpsc::channel(EVENTS);
        let watcher = notify::recommended_watcher(move |_| {
            // Full means that somebody will look anyway.
            let _ = tell.try_send(());
        });
        // Kept alive for as long as it is followed; without one the directory is read now and then.
        let _watcher = watcher.and_then(|mut watcher| {
            watcher.watch(&self.directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        if let Err(error) = &_watcher {
            tracing::warn!(%error, "workloads are looked for every {} s only", RESCAN.as_secs());
        }
        let mut held: BTreeMap<SpiffeId, PathBuf> = BTreeMap::new();
        loop {
            self.rescan();
            let wanted = self.identities();
            for (id, token) in &wanted {
                if held.get(id) != Some(token) {
                    ensure(&identities, id.clone(), token.clone());
                }
            }
            held.keys()
                .filter(|id| !wanted.contains_key(id))
                .for_each(|id| identities.forget(id));
            held = wanted;
            let _ = tokio::time::timeout(RESCAN, told.recv()).await;
        }
    }

    /// The identities of the workloads here, each with a token that proves it.
    pub(crate) fn identities(&self) -> BTreeMap<SpiffeId, PathBuf> {
        let registrations = self.all();
        let of = |r: &Arc<Registration>| Some((r.identity.clone()?, r.token.clone()));
        registrations.values().filter_map(of).collect()
    }
}

impl Known {
    fn add(&mut self, registration: Registration) {
        let registration = Arc::new(registration);
        for address in &registration.addresses {
            self.by_address
                .insert(canonical_ip(*address), Arc::clone(&registration));
        }
        self.by_mark.insert(registration.mark, registration);
    }
}

fn ensure(identities: &identity::Store, id: SpiffeId, token: PathBuf) {
    let identities = identities.clone();
    tokio::spawn(async move {
        if let Err(error) = identities.ensure(&id, TokenFile(token)).await {
            tracing::error!(%id, "no certificate yet: {error}");
        }
    });
}

/// Reads one registration; its name must be its mark.
fn read(path: &Path) -> io::Result<Registration> {
    let broken = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if std::fs::metadata(path)?.len() > MAX_FILE {
        return Err(broken(format!("it has more than {MAX_FILE} bytes")));
    }
    let registration: Registration =
        serde_json::from_slice(&std::fs::read(path)?).map_err(|e| broken(e.to_string()))?;
    let named = path
        .file_stem()
        .and_then(|s| s.to_str())
        .and_then(|s| s.parse().ok());
    if named != Some(registration.mark) {
        return Err(broken(format!("it says mark {}", registration.mark)));
    }
    Ok(registration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, mark: u32, text: &str) {
        let next = directory.join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, directory.join(format!("{mark}.json"))).unwrap();
    }

    fn registration(mark: u32, address: &str) -> String {
        serde_json::json!({
            "mark": mark, "uid": format!("uid-{mark}"), "namespace": "a", "pod": "p",
            "identity": "spiffe://cluster.local/ns/a/sa/s", "addresses": [address], "token": "/nowhere",
        })
        .to_string()
    }

    #[tokio::test]
    async fn a_file_that_came_after_the_start_is_found_when_it_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let locals = Locals::new(directory.path());
        assert!(locals.by_mark(300).await.is_none());
        // The miss is remembered only for a moment.
        write(directory.path(), 300, &registration(300, "10.77.0.2"));
        tokio::time::sleep(MISS).await;
        assert_eq!(locals.by_mark(300).await.unwrap().uid.as_str(), "uid-300");
        let found = locals.by_address("::ffff:10.77.0.2".parse().unwrap());
        assert_eq!(found.unwrap().mark, 300);
    }

    #[tokio::test]
    async fn what_is_broken_stands_for_nobody() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), 300, "{\"mark\": 300");
        write(directory.path(), 301, &registration(302, "10.77.0.3"));
        write(
            directory.path(),
            303,
            &registration(303, "10.77.0.4").replace("\"pod\"", "\"pot\""),
        );
        write(directory.path(), 304, &registration(304, "10.77.0.5"));
        let locals = Locals::new(directory.path());
        for mark in [300, 301, 302, 303] {
            assert!(locals.by_mark(mark).await.is_none(), "{mark}");
        }
        assert!(locals.by_mark(304).await.is_some());
        assert_eq!(locals.all().len(), 1);
    }
}
