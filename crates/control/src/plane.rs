//! The one writer: takes changes one after the other, lays the layers, compiles, publishes.
//!
//! All of it happens on one thread. While a compilation runs, changes wait in the queue; the next compilation takes all
//! that wait at once. A change that comes to an idle plane is compiled at once.

mod by_hand;
mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use admin::Failure;
use api::{Object, Parsed, Problem, Severity};
use compiler::{Compilation, Space, Spaces};
use identity::{Clock, SystemClock};
use jwt::Jwks;
use model::{Profile, TrustDomain};
use tokio::sync::{mpsc, oneshot, watch};
use xds::server::Server;

use crate::keys::{Keys, Known, Stored};
use crate::layers::{Above, Below, Held, Key, lay};
use crate::source::{Change, Now};
use crate::state::{Ages, Begun, Directory, Journal, Kept, whole_pods};
use crate::view::View;
use crate::world::{CONFIGURATION, FileEntry, Frozen, InForce, Pods, Reported, parse};

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
    nodes: Arc<Vec<String>>,
    view: watch::Sender<Arc<View>>,
    files: BTreeMap<PathBuf, FileEntry>,
    /// What the files' texts say, told anew when one of them has changed.
    file_problems: Arc<Vec<Problem>>,
    /// Of MeshConfig.
    of_configuration: Arc<Vec<Problem>>,
    /// And with what the texts of applied objects say.
    problems: Arc<Vec<Problem>>,
    below: Below,
    above: BTreeMap<Key, Above>,
    /// What lies above and has problems of its own.
    troubled: BTreeMap<Key, Arc<Held>>,
    in_force: Arc<InForce>,
    /// Namespaces in which something is another one since it was published.
    touched: BTreeSet<Arc<str>>,
    whole: Compilation,
    spaces: Spaces,
    /// Nodes that could not be told what they are to know.
    refused: BTreeSet<String>,
    /// Records of what was applied, which are brought to the disk while proxies are told.
    begun: Begun,
    ages: Ages,
    age_journal: Option<Journal>,
    pod_journal: Option<Journal>,
    pods: Arc<Pods>,
    roots: Arc<Vec<String>>,
    roots_problem: Option<Problem>,
    jwks: Arc<BTreeMap<String, Arc<Jwks>>>,
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
            nodes: Arc::new(config.nodes.clone()),
            view,
            files: BTreeMap::new(),
            file_problems: Arc::default(),
            of_configuration: Arc::default(),
            problems: Arc::default(),
            below: Below::new(),
            troubled: BTreeMap::new(),
            above: restored.above,
            in_force: Arc::default(),
            touched: BTreeSet::new(),
            whole: Compilation::new(),
            spaces: Spaces {
                nodes: Arc::new(config.nodes.iter().cloned().collect()),
                options: Arc::new(compiler::Options {
                    profile: config.profile,
                    trust_domain: Some(config.trust_domain.clone()),
                    ..compiler::Options::default()
                }),
                ..Spaces::default()
            },
            refused: BTreeSet::new(),
            begun: Begun::default(),
            ages: restored.ages,
            // Until what was restored has been taken in, nothing is written of it.
            age_journal: None,
            pod_journal: None,
            pods: Arc::default(),
            roots: Arc::default(),
            roots_problem: None,
            jwks: Arc::new(Keys::first(&restored.keys)),
            stored: restored.keys,
            restored: restored.problems,
            unwritten: None,
            revision: 0,
            dirty: true,
        };
        let pods = restored.pods.iter().filter_map(|text| Reported::read(text).ok());
        plane.put_pods(pods.map(Arc::new).collect(), &[]);
        (plane.age_journal, plane.pod_journal) = (restored.age_journal, restored.pod_journal);
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
        let above: BTreeSet<Key> = self.above.keys().cloned().collect();
        self.lay(above, &Below::new());
        self.publish();
        self.settle();
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
            // What is answered to have been taken outlives whatever happens.
            let finished = self.finish();
            if let Err(error) = &finished {
                self.note(Err(std::io::Error::new(error.kind(), error.to_string())));
                self.publish();
            }
            for (answer, changes) in waiting.drain(..) {
                let (before, after) = (Arc::clone(&before), Arc::clone(&after));
                let done = match &finished {
                    Err(error) if !changes.is_empty() => Err(Failure::undecided(format!(
                        "it is in force, and a restart forgets it: the state cannot be written: {error}"
                    ))),
                    _ => Ok(Done {
                        changes,
                        before,
                        after,
                    }),
                };
                drop(answer.send(done));
            }
            self.settle();
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
        // What ends by them is taken from its place.
        let finished = self.finish();
        self.note(finished);
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
        let told = self.files.values().flat_map(|entry| &entry.problems);
        self.file_problems = Arc::new(told.cloned().collect());
        self.tell();
        let before = self.gather();
        self.lay(BTreeSet::new(), &before);
    }

    /// What the texts say, of files and of what lies above them.
    fn tell(&mut self) {
        self.dirty = true;
        let above = self.troubled.values().flat_map(|held| &held.problems);
        self.problems = Arc::new(self.file_problems.iter().chain(above).cloned().collect());
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

    /// The objects of all files, by key. Returns what they held before of those names of which it is another one.
    fn gather(&mut self) -> BTreeMap<Key, Vec<Arc<Held>>> {
        let mut now = Below::new();
        for held in self.files.values().flat_map(|entry| &entry.objects) {
            let same = now.entry(held.key.clone()).or_default();
            same.push(Arc::clone(held));
        }
        let differs = |key: &Key, held: &[Arc<Held>], others: &Below| {
            let others = others.get(key).map(Vec::as_slice).unwrap_or_default();
            held.len() != others.len() || held.iter().zip(others).any(|(a, b)| !Arc::ptr_eq(a, b))
        };
        let new = now.iter().filter(|(key, held)| differs(key, held, &self.below));
        let mut changed: Below = new.map(|(key, _)| (key.clone(), Vec::new())).collect();
        let old = std::mem::take(&mut self.below).into_iter();
        changed.extend(old.filter(|(key, held)| differs(key, held, &now)));
        self.below = now;
        changed
    }

    fn take_roots(&mut self, read: Result<String, String>) {
        self.dirty = true;
        match read {
            Ok(pem) => {
                self.roots = Arc::new(vec![pem]);
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
        if *self.jwks != known.jwks {
            self.dirty = true;
            self.jwks = Arc::new(known.jwks);
        }
        if self.stored != known.stored {
            self.stored = known.stored;
            if let Err(error) = self.directory.write_keys(&self.stored) {
                tracing::error!(%error, "the keys of issuers do not outlive a restart");
            }
        }
    }

    fn in_force_digest(&self, key: &Key) -> Option<&str> {
        let held = self.in_force.get(key.space())?.get(key)?.first()?;
        Some(&held.digest)
    }

    /// Lays the layers of these names anew, and of those of which the files hold something else than `before`; drops what has
    /// ended by it.
    fn lay(&mut self, mut keys: BTreeSet<Key>, before: &Below) {
        self.dirty |= !keys.is_empty() || !before.is_empty();
        keys.extend(before.keys().cloned());
        let mut ended = Vec::new();
        for key in keys {
            let hidden = before
                .get(&key)
                .map_or_else(|| self.below.contains_key(&key), |held| !held.is_empty());
            let laid = lay(&key, &self.below, self.above.get(&key), hidden);
            if laid.ended {
                self.above.remove(&key);
            }
            let held = self.above.get(&key).and_then(|above| above.object.as_ref());
            let trouble = held.filter(|held| !held.problems.is_empty()).cloned();
            let was_troubled = match &trouble {
                Some(held) => self.troubled.insert(key.clone(), Arc::clone(held)).is_some(),
                None => self.troubled.remove(&key).is_some(),
            };
            if trouble.is_some() || was_troubled {
                self.tell();
            }
            let space: Arc<str> = Arc::from(key.space());
            let of_space = Arc::make_mut(&mut self.in_force)
                .entry(Arc::clone(&space))
                .or_default();
            let of_space = Arc::make_mut(of_space);
            let was_there = of_space.remove(&key).is_some();
            let known = self.below.contains_key(&key) || self.above.contains_key(&key);
            if was_there && !known {
                self.ages.forget(&key);
            }
            if !laid.in_force.is_empty() {
                of_space.insert(key.clone(), laid.in_force);
            }
            if of_space.is_empty() {
                Arc::make_mut(&mut self.in_force).remove(&space);
            }
            self.touched.insert(space);
            if laid.ended {
                ended.push(key);
            }
        }
        let removed = self.directory.remove(ended.iter());
        let news = self.ages.news();
        let journal = self.age_journal.as_mut().filter(|_| !news.is_empty());
        let added = journal.map_or(Ok(()), |journal| journal.add(&news));
        self.note(removed.and(added));
    }

    /// Brings the records of what was applied to the disk and to their places. What could not be brought is tried again
    /// whenever something happens, and told until it could.
    fn finish(&mut self) -> std::io::Result<()> {
        if self.begun.is_empty() {
            return Ok(());
        }
        self.directory.finish(&mut self.begun)
    }

    /// Brings to the disk what nobody waits for.
    fn settle(&mut self) {
        let Self {
            ages,
            age_journal,
            pod_journal,
            pods,
            ..
        } = self;
        let of_ages = age_journal
            .as_mut()
            .map_or(Ok(()), |journal| journal.settle(|| ages.whole()));
        let all = || {
            whole_pods(
                pods.values()
                    .flat_map(|space| space.values())
                    .map(|pod| &*pod.text),
            )
        };
        let of_pods = pod_journal.as_mut().map_or(Ok(()), |journal| journal.settle(all));
        let was = self.unwritten.is_some();
        let records = self.finish();
        self.note(records.and(of_ages).and(of_pods));
        self.dirty |= self.unwritten.is_some() != was;
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

    fn freeze(&self) -> Frozen {
        let own = self
            .restored
            .iter()
            .chain(&self.unwritten)
            .chain(&self.roots_problem);
        Frozen {
            revision: self.revision,
            in_force: Arc::clone(&self.in_force),
            pods: Arc::clone(&self.pods),
            nodes: Arc::clone(&self.nodes),
            roots: Arc::clone(&self.roots),
            profile: self.profile,
            trust_domain: self.trust_domain.clone(),
            own_problems: own.cloned().collect(),
            problems: Arc::clone(&self.problems),
            of_configuration: Arc::clone(&self.of_configuration),
        }
    }

    fn publish(&mut self) {
        self.dirty = false;
        self.revision += 1;
        let touched = std::mem::take(&mut self.touched);
        if touched.contains(CONFIGURATION) {
            self.of_configuration = Arc::new(self.freeze().configuration_problems());
        }
        for name in touched {
            put_space(&mut self.spaces, &name, &self.in_force, &self.pods);
        }
        self.spaces.roots = Arc::clone(&self.roots);
        self.spaces.jwks = Arc::clone(&self.jwks);
        let touched = self.whole.update(self.spaces.clone());
        tracing::debug!(
            revision = self.revision,
            namespaces = touched.compiled.len(),
            pods = touched.pods,
            nodes = touched.nodes.len(),
            "compiled"
        );
        let mut view = View::new(self.freeze(), self.whole.clone());
        self.refused = view.publish(touched, &self.refused, &self.server);
        self.view.send_replace(Arc::new(view));
    }
}

/// What the compiler is given of a namespace.
fn put_space(spaces: &mut Spaces, name: &Arc<str>, in_force: &InForce, pods: &Pods) {
    let held = in_force
        .get(name)
        .into_iter()
        .flat_map(|space| space.values())
        .flatten();
    let objects: Vec<_> = held.map(|held| Arc::clone(&held.object)).collect();
    let pods = pods.get(name).into_iter().flat_map(|space| space.values());
    let pods: Vec<_> = pods.map(|reported| Arc::clone(&reported.pod)).collect();
    if objects.is_empty() && pods.is_empty() {
        spaces.by_name.remove(name);
    } else {
        let space = Space::new(objects, pods);
        spaces.by_name.insert(Arc::clone(name), Arc::new(space));
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

#[cfg(test)]
mod tests;
