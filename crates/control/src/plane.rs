//! The one writer: takes changes one after the other, lays the layers, compiles, publishes.
//!
//! All of it happens on one thread. While a compilation runs, changes wait in the queue; the next compilation takes all
//! that wait at once. A change that comes to an idle plane is compiled at once.

mod by_hand;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use admin::Failure;
use api::{Object, Parsed, Problem, Severity};
use identity::{Clock, SystemClock};
use jwt::Jwks;
use model::{Profile, TrustDomain};
use tokio::sync::{mpsc, oneshot, watch};
use xds::server::Server;

use crate::keys::{Keys, Known, Stored};
use crate::layers::{Above, Below, Held, Key, merge};
use crate::source::{Change, Now};
use crate::state::{Ages, Directory, Kept};
use crate::verbs::MAX_PODS;
use crate::view::View;
use crate::world::{FileEntry, Frozen, Reported, parse};

/// How many objects the files may hold together.
const MAX_OBJECTS: usize = 100_000;
/// How many changes are taken before the next compilation.
const MAX_BATCH: usize = 64;
/// Changes that wait.
pub(crate) const QUEUE: usize = 64;
/// There is more than is held.
const TOO_MANY: &str = "MW0605";
/// The trust bundle cannot be used.
const ROOTS: &str = "MW0607";

/// An object to be applied, with what its text says of it, and the text.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) object: Object,
    pub(crate) problems: Arc<[Problem]>,
    pub(crate) text: Arc<str>,
}

/// What was done to the objects, and the world before and after.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) changes: Vec<(Key, &'static str)>,
    pub(crate) before: Arc<View>,
    pub(crate) after: Arc<View>,
}

/// Where an answer goes. Nobody may be waiting any more.
pub(crate) type Answer = oneshot::Sender<Result<Done, Failure>>;

/// A change.
#[derive(Debug)]
pub(crate) enum Command {
    Files(Vec<Change>),
    /// The trust bundle, PEM, or why it cannot be read.
    Roots(Result<String, String>),
    Apply {
        given: Vec<Given>,
        dry_run: bool,
        answer: Answer,
    },
    /// Objects by the keys that each may have; an object that is not there has the change ``.
    Delete {
        targets: Vec<Vec<Key>>,
        answer: Answer,
    },
    /// What is known of the keys of token issuers.
    Keys(Known),
    /// All pods.
    Pods {
        pods: Vec<Arc<Reported>>,
        answer: Answer,
    },
    /// Pods that have changed, and those that are gone, `namespace/name`.
    PodsChange {
        changed: Vec<Arc<Reported>>,
        gone: Vec<String>,
        answer: Answer,
    },
}

/// What waits for the next view.
type Waiting = (Answer, Vec<(Key, &'static str)>);

/// What the owner holds.
pub(crate) struct Plane {
    server: Server,
    directory: Directory,
    profile: Profile,
    trust_domain: TrustDomain,
    nodes: Vec<String>,
    view: watch::Sender<Arc<View>>,
    files: BTreeMap<PathBuf, FileEntry>,
    below: Below,
    above: BTreeMap<Key, Above>,
    /// Names that the files held when the layers were laid last.
    hidden: BTreeSet<Key>,
    in_force: Vec<Arc<Held>>,
    ages: Ages,
    pods: Vec<Arc<Reported>>,
    roots: Vec<String>,
    roots_problem: Option<Problem>,
    jwks: BTreeMap<String, Arc<Jwks>>,
    /// Keys as a restart finds them again.
    stored: Vec<Stored>,
    /// What was found when the state was read.
    restored: Vec<Problem>,
    /// Why the state cannot be written, where it cannot.
    unwritten: Option<Problem>,
    revision: u64,
    dirty: bool,
}

impl Plane {
    /// A plane with what the state directory holds, and an empty view.
    pub(crate) fn new(
        config: &crate::config::Config,
        directory: Directory,
        server: Server,
        view: watch::Sender<Arc<View>>,
    ) -> Self {
        let restored = directory.restore(now());
        let mut plane = Self {
            server,
            directory,
            profile: config.profile,
            trust_domain: config.trust_domain.clone(),
            nodes: config.nodes.clone(),
            view,
            files: BTreeMap::new(),
            below: Below::new(),
            above: restored.above,
            hidden: BTreeSet::new(),
            in_force: Vec::new(),
            ages: restored.ages,
            pods: restored
                .pods
                .into_iter()
                .filter_map(|value| Reported::new(&value).ok().map(Arc::new))
                .collect(),
            roots: Vec::new(),
            roots_problem: None,
            jwks: Keys::first(&restored.keys),
            stored: restored.keys,
            restored: restored.problems,
            unwritten: None,
            revision: 0,
            dirty: true,
        };
        for Kept { path, shown, text } in restored.kept {
            let parsed = parse(&shown, text.as_bytes());
            let entry = plane.read(FileEntry::default(), (shown, Arc::from(text)), parsed);
            plane.files.insert(
                path,
                FileEntry {
                    is_old: true,
                    ..entry
                },
            );
        }
        plane
    }

    /// Files that something is known of before they are read.
    pub(crate) fn expected(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.files.keys().cloned()
    }

    /// Keys that were fetched before.
    pub(crate) fn stored(&self) -> Vec<Stored> {
        self.stored.clone()
    }

    /// Works until nobody can send changes any more. `first` is what there is when it begins: nothing is published
    /// before that is known.
    pub(crate) fn run(mut self, first: Vec<Command>, mut queue: mpsc::Receiver<Command>) {
        let mut waiting = Vec::new();
        first
            .into_iter()
            .for_each(|command| self.take(command, &mut waiting));
        self.lay();
        self.publish();
        while let Some(command) = queue.blocking_recv() {
            self.take(command, &mut waiting);
            for _ in 1..MAX_BATCH {
                let Ok(command) = queue.try_recv() else { break };
                self.take(command, &mut waiting);
            }
            let before = Arc::clone(&self.view.borrow());
            if self.dirty {
                self.publish();
            }
            let after = Arc::clone(&self.view.borrow());
            for (answer, changes) in waiting.drain(..) {
                let (before, after) = (Arc::clone(&before), Arc::clone(&after));
                drop(answer.send(Ok(Done {
                    changes,
                    before,
                    after,
                })));
            }
        }
    }

    fn take(&mut self, command: Command, waiting: &mut Vec<Waiting>) {
        let (answer, result) = match command {
            Command::Files(changes) => return self.take_files(changes),
            Command::Roots(read) => return self.take_roots(read),
            Command::Keys(known) => return self.take_keys(known),
            Command::Apply {
                given,
                dry_run: true,
                answer,
            } => {
                drop(answer.send(Ok(self.rehearse(given))));
                return;
            }
            Command::Apply {
                given,
                dry_run: false,
                answer,
            } => (answer, self.apply(given)),
            Command::Delete { targets, answer } => (answer, self.delete(targets)),
            Command::Pods { pods, answer } => {
                self.take_pods(pods);
                (answer, Ok(Vec::new()))
            }
            Command::PodsChange {
                changed,
                gone,
                answer,
            } => (answer, self.change_pods(changed, &gone)),
        };
        match result {
            Ok(changes) => waiting.push((answer, changes)),
            Err(failure) => drop(answer.send(Err(failure))),
        }
    }

    fn take_files(&mut self, changes: Vec<Change>) {
        for Change { path, now: change } in changes {
            let entry = self.files.remove(&path).unwrap_or_default();
            let was_old = entry.is_old;
            let entry = match change {
                Now::Gone => None,
                Now::Unreadable(problem) => Some(entry.stays(vec![*problem])),
                Now::File { shown, text, parsed } => Some(self.read(entry, (shown, text), *parsed)),
            };
            let is_old = entry.as_ref().is_some_and(|entry| entry.is_old);
            let kept = match &entry {
                Some(FileEntry {
                    good: Some((shown, text)),
                    ..
                }) if is_old && !was_old => {
                    let (shown, text) = (shown.clone(), text.to_string());
                    self.directory.keep(&Kept {
                        path: path.clone(),
                        shown,
                        text,
                    })
                }
                _ if was_old && !is_old => self.directory.unkeep(&path),
                _ => Ok(()),
            };
            if let Err(error) = kept {
                tracing::error!(%error, path = %path.display(), "its last good text does not outlive a restart");
            }
            self.files.extend(entry.map(|entry| (path, entry)));
        }
        self.gather();
        self.lay();
    }

    fn read(&mut self, before: FileEntry, text: (String, Arc<str>), parsed: Parsed) -> FileEntry {
        let others: usize = self.files.values().map(|entry| entry.objects.len()).sum();
        if others + parsed.objects.len() > MAX_OBJECTS {
            return before.stays(too_many(parsed.problems, &text.0));
        }
        let (ages, at) = (&mut self.ages, now());
        before.next(text, parsed, |object, problems| {
            Arc::new(Held::new(object, problems, |key| ages.of(key, at)))
        })
    }

    /// The objects of all files, by key.
    fn gather(&mut self) {
        self.below.clear();
        for held in self.files.values().flat_map(|entry| &entry.objects) {
            let same = self.below.entry(held.key.clone()).or_default();
            same.push(Arc::clone(held));
        }
    }

    fn take_roots(&mut self, read: Result<String, String>) {
        self.dirty = true;
        match read {
            Ok(pem) => {
                self.roots = vec![pem];
                self.roots_problem = None;
            }
            Err(why) => {
                let problem = Problem::new(
                    Severity::Error,
                    ROOTS,
                    format!("the trust bundle cannot be used: {why}"),
                );
                self.roots_problem = Some(problem.remedy("see that the certificate authority runs"));
            }
        }
    }

    fn take_keys(&mut self, known: Known) {
        self.dirty |= self.jwks != known.jwks;
        self.jwks = known.jwks;
        if self.stored != known.stored {
            self.stored = known.stored;
            if let Err(error) = self.directory.write_keys(&self.stored) {
                tracing::error!(%error, "the keys of issuers do not outlive a restart");
            }
        }
    }

    fn take_pods(&mut self, pods: Vec<Arc<Reported>>) {
        let same =
            self.pods.len() == pods.len() && self.pods.iter().zip(&pods).all(|(a, b)| a.text == b.text);
        if same {
            return;
        }
        self.pods = pods;
        self.dirty = true;
        let texts: Vec<&str> = self.pods.iter().map(|reported| &*reported.text).collect();
        let written = self.directory.write_pods(&texts);
        self.note(written);
    }

    fn change_pods(
        &mut self,
        changed: Vec<Arc<Reported>>,
        gone: &[String],
    ) -> Result<Vec<(Key, &'static str)>, Failure> {
        fn name(pod: &Reported) -> (&str, &str) {
            (&pod.pod.metadata.namespace, &pod.pod.metadata.name)
        }
        let gone = gone.iter().filter_map(|text| text.split_once('/'));
        let replaced: HashSet<_> = changed.iter().map(|pod| name(pod)).chain(gone).collect();
        let kept = self.pods.iter().filter(|pod| !replaced.contains(&name(pod)));
        let mut pods: Vec<_> = kept.cloned().collect();
        pods.extend(changed);
        if pods.len() > MAX_PODS {
            return Err(Failure::input(format!("at most {MAX_PODS} pods may be reported")));
        }
        self.take_pods(pods);
        Ok(Vec::new())
    }

    fn in_force_digest(&self, key: &Key) -> Option<&str> {
        let first = self.in_force.partition_point(|held| held.key < *key);
        let held = self.in_force.get(first).filter(|held| held.key == *key)?;
        Some(&held.digest)
    }

    /// Lays the layers anew, and drops what has ended by it.
    fn lay(&mut self) {
        self.dirty = true;
        let merged = merge(&self.below, &self.above, &self.hidden);
        for key in &merged.ended {
            self.above.remove(key);
        }
        let removed = self.directory.remove(merged.ended.iter());
        let known: BTreeSet<Key> = self.below.keys().chain(self.above.keys()).cloned().collect();
        let before = std::mem::take(&mut self.in_force);
        for held in before.iter().filter(|held| !known.contains(&held.key)) {
            self.ages.forget(&held.key);
        }
        self.hidden = self.below.keys().cloned().collect();
        self.in_force = merged.in_force;
        let written = removed.and_then(|()| self.directory.write_ages(&mut self.ages));
        self.note(written);
    }

    /// What could not be written is no reason not to go on: it is told, and written the next time.
    fn note(&mut self, written: std::io::Result<()>) {
        self.unwritten = written.err().map(|error| {
            tracing::error!(%error, "the state cannot be written");
            let message = format!("the state cannot be written: {error}");
            Problem::new(Severity::Error, "MW0604", message)
                .remedy("make room; a restart may forget the newest changes")
        });
    }

    fn freeze(&self, held: Vec<Arc<Held>>, above: &BTreeMap<Key, Above>) -> Frozen {
        let of_files = self.files.values().flat_map(|entry| &entry.problems);
        let of_above = above.values().filter_map(|entry| entry.object.as_ref());
        let own = self
            .restored
            .iter()
            .chain(&self.unwritten)
            .chain(&self.roots_problem);
        let problems = own
            .chain(of_files)
            .chain(of_above.flat_map(|held| &held.problems))
            .cloned()
            .collect();
        Frozen {
            revision: self.revision,
            held,
            pods: self.pods.clone(),
            nodes: self.nodes.clone(),
            roots: self.roots.clone(),
            jwks: self.jwks.clone(),
            profile: self.profile,
            trust_domain: self.trust_domain.clone(),
            problems,
        }
    }

    fn publish(&mut self) {
        self.dirty = false;
        self.revision += 1;
        let frozen = Arc::new(self.freeze(self.in_force.clone(), &self.above));
        let before = Arc::clone(&self.view.borrow());
        let view = View::compile(frozen, Some((&self.server, &before)));
        tracing::debug!(revision = self.revision, versions = ?view.versions, "published");
        self.view.send_replace(Arc::new(view));
    }
}

fn too_many(mut problems: Vec<Problem>, shown: &str) -> Vec<Problem> {
    let message =
        format!("the files hold more than {MAX_OBJECTS} objects; what this one held before stays in force");
    let mut problem = Problem::new(Severity::Error, TOO_MANY, message).remedy("give fewer");
    problem.file = shown.to_owned();
    problems.push(problem);
    problems
}

/// Milliseconds since 1970.
fn now() -> u64 {
    u64::try_from(SystemClock.now().as_millis()).unwrap_or(u64::MAX)
}
