//! The one writer: takes changes one after the other, lays the layers, compiles, publishes.
//!
//! All of it happens on one thread. While a compilation runs, changes wait in the queue; the next compilation takes all
//! that wait at once. A change that comes to an idle plane is compiled at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use admin::Failure;
use api::{Object, Problem, Severity};
use identity::{Clock, SystemClock};
use model::{Profile, TrustDomain};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use xds::server::Server;

use crate::layers::{Above, Below, Held, Key, below_digest, merge};
use crate::source::{Change, Now};
use crate::state::{Ages, Applied, Directory, MAX_ABOVE};
use crate::view::View;
use crate::world::{FileEntry, Frozen, Reported};

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
    Pods {
        pods: Vec<Reported>,
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
    pods: Vec<Reported>,
    roots: Vec<String>,
    roots_problem: Option<Problem>,
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
        Self {
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
                .filter_map(|value| Reported::new(value).ok())
                .collect(),
            roots: Vec::new(),
            roots_problem: None,
            restored: restored.problems,
            unwritten: None,
            revision: 0,
            dirty: true,
        }
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
        };
        match result {
            Ok(changes) => waiting.push((answer, changes)),
            Err(failure) => drop(answer.send(Err(failure))),
        }
    }

    fn take_files(&mut self, changes: Vec<Change>) {
        for Change { path, now: change } in changes {
            let entry = self.files.remove(&path).unwrap_or_default();
            let entry = match change {
                Now::Gone => continue,
                Now::Unreadable(problem) => FileEntry {
                    objects: entry.objects,
                    problems: vec![*problem],
                },
                Now::File(parsed) => {
                    let others: usize = self.files.values().map(|entry| entry.objects.len()).sum();
                    if others + parsed.objects.len() > MAX_OBJECTS {
                        FileEntry {
                            objects: entry.objects,
                            problems: too_many(parsed.problems, &path),
                        }
                    } else {
                        let (ages, at) = (&mut self.ages, now());
                        entry.next(*parsed, |object, problems| {
                            Arc::new(Held::new(object, problems, |key| ages.of(key, at)))
                        })
                    }
                }
            };
            self.files.insert(path, entry);
        }
        self.below.clear();
        for held in self.files.values().flat_map(|entry| &entry.objects) {
            self.below
                .entry(held.key.clone())
                .or_default()
                .push(Arc::clone(held));
        }
        self.lay();
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

    fn take_pods(&mut self, pods: Vec<Reported>) {
        let same =
            self.pods.len() == pods.len() && self.pods.iter().zip(&pods).all(|(a, b)| a.value == b.value);
        if same {
            return;
        }
        self.pods = pods;
        self.dirty = true;
        let values: Vec<&Value> = self.pods.iter().map(|reported| &reported.value).collect();
        let written = self.directory.write_pods(&values);
        self.note(written);
    }

    fn apply(&mut self, given: Vec<Given>) -> Result<Vec<(Key, &'static str)>, Failure> {
        let (changes, entries) = self.plan(given);
        let more = entries
            .keys()
            .filter(|key| !self.above.contains_key(*key))
            .count();
        if self.above.len() + more > MAX_ABOVE {
            return Err(Failure::no(format!(
                "nothing was applied: at most {MAX_ABOVE} objects may be applied; put them into files of the source"
            )));
        }
        self.directory
            .write(&entries)
            .map_err(|error| unwritten("applied", &error))?;
        for (key, (over, applied)) in entries {
            let object = applied.map(|applied| applied.held);
            self.above.insert(key, Above { over, object });
        }
        self.lay();
        Ok(changes)
    }

    /// What applying would do: compiled, and nothing kept or published.
    fn rehearse(&mut self, given: Vec<Given>) -> Done {
        let (changes, entries) = self.plan(given);
        let mut above = self.above.clone();
        for (key, (over, applied)) in entries {
            let object = applied.map(|applied| applied.held);
            above.insert(key, Above { over, object });
        }
        let merged = merge(&self.below, &above, &self.hidden);
        let frozen = self.freeze(merged.in_force, &above);
        let before = Arc::clone(&self.view.borrow());
        let after = Arc::new(View::compile(Arc::new(frozen), None));
        Done {
            changes,
            before,
            after,
        }
    }

    /// What is to be written, and the word for each object. Of several with one name the last one counts.
    #[expect(
        clippy::type_complexity,
        reason = "the two halves of one result, used where they are made"
    )]
    fn plan(
        &mut self,
        given: Vec<Given>,
    ) -> (
        Vec<(Key, &'static str)>,
        BTreeMap<Key, (Option<String>, Option<Applied>)>,
    ) {
        let (mut changes, mut entries) = (BTreeMap::new(), BTreeMap::new());
        let at = now();
        for Given {
            object,
            problems,
            text,
        } in given
        {
            let held = Arc::new(Held::new(object, &problems, |key| self.ages.of(key, at)));
            let key = held.key.clone();
            let digest = self.in_force_digest(&key);
            let change = match digest {
                Some(digest) if digest == held.digest => "unchanged",
                Some(_) => "configured",
                None => "created",
            };
            changes.insert(key.clone(), change);
            if change == "unchanged" {
                entries.remove(&key);
                continue;
            }
            let over = below_digest(&self.below, &key);
            entries.insert(key, (over, Some(Applied { held, text })));
        }
        (changes.into_iter().collect(), entries)
    }

    fn delete(&mut self, targets: Vec<Vec<Key>>) -> Result<Vec<(Key, &'static str)>, Failure> {
        let (mut changes, mut tombstones, mut removed) = (Vec::new(), BTreeMap::new(), Vec::new());
        for candidates in targets {
            let there: Vec<_> = candidates
                .iter()
                .filter(|key| self.in_force_digest(key).is_some())
                .cloned()
                .collect();
            if there.is_empty() {
                changes.extend(candidates.into_iter().take(1).map(|key| (key, "")));
            }
            for key in there {
                match below_digest(&self.below, &key) {
                    Some(over) => drop(tombstones.insert(key.clone(), (Some(over), None))),
                    None => removed.push(key.clone()),
                }
                changes.push((key, "deleted"));
            }
        }
        let more = tombstones
            .keys()
            .filter(|key| !self.above.contains_key(*key))
            .count();
        if self.above.len() + more > MAX_ABOVE {
            return Err(Failure::no(format!(
                "nothing was deleted: at most {MAX_ABOVE} objects of files may be deleted; take them out of their files"
            )));
        }
        self.directory
            .write(&tombstones)
            .and_then(|()| self.directory.remove(removed.iter()))
            .map_err(|error| unwritten("deleted", &error))?;
        removed.iter().for_each(|key| drop(self.above.remove(key)));
        for (key, (over, _)) in tombstones {
            self.above.insert(key, Above { over, object: None });
        }
        self.lay();
        Ok(changes)
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
            profile: self.profile,
            trust_domain: self.trust_domain.clone(),
            problems,
        }
    }

    fn publish(&mut self) {
        self.dirty = false;
        self.revision += 1;
        let frozen = Arc::new(self.freeze(self.in_force.clone(), &self.above));
        let view = View::compile(frozen, Some(&self.server));
        tracing::debug!(revision = self.revision, versions = ?view.versions, "published");
        self.view.send_replace(Arc::new(view));
    }
}

fn too_many(mut problems: Vec<Problem>, path: &std::path::Path) -> Vec<Problem> {
    let message =
        format!("the files hold more than {MAX_OBJECTS} objects; what this one held before stays in force");
    let mut problem = Problem::new(Severity::Error, TOO_MANY, message).remedy("give fewer");
    problem.file = problems
        .first()
        .map_or_else(|| path.display().to_string(), |first| first.file.clone());
    problems.push(problem);
    problems
}

fn unwritten(what: &str, error: &std::io::Error) -> Failure {
    Failure::undecided(format!(
        "nothing was {what}: the state cannot be written: {error}"
    ))
}

/// Milliseconds since 1970.
fn now() -> u64 {
    u64::try_from(SystemClock.now().as_millis()).unwrap_or(u64::MAX)
}
