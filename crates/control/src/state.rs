//! What must not be lost: what was applied and deleted by hand, when each object was first seen, the pods, and
//! the keys of token issuers.
//!
//! Every file is written beside its place and moved there, so that a reader finds the old or the new one, whole. What changes often
//! and is large has a line added for each change (`journal`).

mod journal;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{Origin, Problem, Severity};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::keys::Stored;
use crate::layers::{Above, Held, Key, digest, object_digest};

pub(crate) use journal::Journal;

/// How many objects may be applied or deleted by hand.
pub(crate) const MAX_ABOVE: usize = 10_000;
/// How many names' ages are kept.
const MAX_AGES: usize = 200_000;
/// The longest document that is kept as it was written, in bytes; of a longer one only the object is kept.
const MAX_TEXT: usize = 16 * 1024;

/// Lines above a document that are stood in for, at most.
const MAX_LINES: usize = 1_000_000;

const RECORDS: &str = "objects";
const KEPT: &str = "kept";
const AGES: &str = "ages";
const PODS: &str = "pods";
const KEYS: &str = "keys.json";

/// An object that was applied, and the text that it came in.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub(crate) held: Arc<Held>,
    pub(crate) text: Arc<str>,
}

/// The last good text of a file that is broken now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kept {
    pub(crate) path: PathBuf,
    /// What messages call it.
    pub(crate) shown: String,
    pub(crate) text: String,
}

/// One file of the directory.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    key: Key,
    over: Option<String>,
    /// `None` where the object was deleted.
    applied: Option<Text>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    origin: Origin,
    /// The line of the user's file that `text` begins at, from 1.
    line: u32,
    text: String,
}

/// When each object was first seen, milliseconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    seen: BTreeMap<Key, u64>,
    /// What has changed since it was written, a line each.
    lines: String,
}

impl Ages {
    /// The age of an object, which is `now` where it is new.
    pub(crate) fn of(&mut self, key: &Key, now: u64) -> u64 {
        if let Some(at) = self.seen.get(key) {
            return *at;
        }
        if self.seen.len() < MAX_AGES {
            self.seen.insert(key.clone(), now);
            self.line(key, Some(now));
        }
        now
    }

    /// An object is gone: one of its name that comes later is another one.
    pub(crate) fn forget(&mut self, key: &Key) {
        if self.seen.remove(key).is_some() {
            self.line(key, None);
        }
    }

    fn line(&mut self, key: &Key, at: Option<u64>) {
        if let Ok(line) = serde_json::to_string(&(key, at)) {
            self.lines.push_str(&line);
            self.lines.push('\n');
        }
    }

    /// All of them, as they are written.
    pub(crate) fn whole(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(&self.seen.iter().collect::<Vec<_>>())?)
    }

    /// What has changed since this was asked last, a line each.
    pub(crate) fn news(&mut self) -> String {
        std::mem::take(&mut self.lines)
    }

    fn read(whole: &[u8], lines: &[String]) -> Result<Self, String> {
        let why = |error: serde_json::Error| error.to_string();
        let mut ages = Self::default();
        if !whole.is_empty() {
            let pairs: Vec<(Key, u64)> = serde_json::from_slice(whole).map_err(why)?;
            ages.seen.extend(pairs.into_iter().take(MAX_AGES));
        }
        for line in lines {
            match serde_json::from_str::<(Key, Option<u64>)>(line).map_err(why)? {
                (key, Some(at)) if ages.seen.len() < MAX_AGES => drop(ages.seen.insert(key, at)),
                (_, Some(_)) => {}
                (key, None) => drop(ages.seen.remove(&key)),
            }
        }
        Ok(ages)
    }
}

/// Pods as they are written: an array, one a line.
pub(crate) fn whole_pods<'p>(texts: impl Iterator<Item = &'p str>) -> io::Result<Vec<u8>> {
    let texts: Vec<&str> = texts.collect();
    Ok(format!("[{}]", texts.join(",\n")).into_bytes())
}

/// The pods by name, as text: of an array, one a line or not, and of lines that are a pod, or the name of one that is gone.
fn read_pods(whole: &[u8], lines: &[String]) -> Result<BTreeMap<String, String>, String> {
    #[derive(Deserialize)]
    struct Named {
        metadata: Meta,
    }
    #[derive(Deserialize)]
    struct Meta {
        name: String,
        namespace: String,
    }
    let why = |error: serde_json::Error| error.to_string();
    let name = |text: &str| -> Result<String, String> {
        let Named { metadata } = serde_json::from_str(text).map_err(why)?;
        Ok(format!("{}/{}", metadata.namespace, metadata.name))
    };
    let mut pods = BTreeMap::new();
    let whole = String::from_utf8_lossy(whole);
    let inner = whole
        .trim()
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let each = inner
        .unwrap_or_default()
        .split(",\n")
        .filter(|text| !text.is_empty());
    let found: Result<Vec<_>, _> = each
        .map(|text| Ok::<_, String>((name(text)?, text.to_owned())))
        .collect();
    match found {
        Ok(found) if inner.is_some() || whole.is_empty() => pods.extend(found),
        // Not one a line.
        _ => {
            for value in serde_json::from_str::<Vec<Value>>(&whole).map_err(why)? {
                let text = value.to_string();
                pods.insert(name(&text)?, text);
            }
        }
    }
    for line in lines {
        match serde_json::from_str::<String>(line) {
            Ok(gone) => drop(pods.remove(&gone)),
            Err(_) => drop(pods.insert(name(line)?, line.clone())),
        }
    }
    Ok(pods)
}

/// The directory.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    root: PathBuf,
}

/// What was found in it.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) above: BTreeMap<Key, Above>,
    pub(crate) ages: Ages,
    /// As they were reported, JSON.
    pub(crate) pods: Vec<String>,
    /// Where changes of the pods go.
    pub(crate) pod_journal: Option<Journal>,
    /// Where changes of the ages go.
    pub(crate) age_journal: Option<Journal>,
    pub(crate) keys: Vec<Stored>,
    pub(crate) kept: Vec<Kept>,
    pub(crate) problems: Vec<Problem>,
}

impl Directory {
    /// Opens it; makes it where it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        for part in [RECORDS, KEPT] {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(root.join(part))?;
        }
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Reads everything; `now` is the age of what has none. What cannot be read is told and left where it is.
    pub(crate) fn restore(&self, now: u64) -> Restored {
        let mut restored = Restored::default();
        let problems = &mut restored.problems;
        let (ages, journal) = self.journal(AGES, Ages::read, problems);
        (restored.ages, restored.age_journal) = (ages, Some(journal));
        let (pods, journal) = self.journal(PODS, read_pods, problems);
        (restored.pods, restored.pod_journal) = (pods.into_values().collect(), Some(journal));
        restored.keys = self.read(KEYS, &mut restored.problems).unwrap_or_default();
        for name in self.names(KEPT, &mut restored.problems) {
            let kept = self.read(&name, &mut restored.problems);
            restored.kept.extend(kept);
        }
        for name in self.names(RECORDS, &mut restored.problems) {
            let Some(record) = self.read::<Record>(&name, &mut restored.problems) else {
                continue;
            };
            match entry(&record, &mut restored.ages, now) {
                Some(entry) => {
                    restored.above.insert(record.key, entry);
                }
                None => restored
                    .problems
                    .push(broken(&self.root.join(name), "it does not hold its object")),
            }
        }
        restored
    }

    /// What a journal holds; nothing, where it cannot be read.
    fn journal<T: Default>(
        &self,
        name: &str,
        read: impl FnOnce(&[u8], &[String]) -> Result<T, String>,
        problems: &mut Vec<Problem>,
    ) -> (T, Journal) {
        let mut journal = Journal::new(&self.root, name);
        let found = journal.read().map_err(|error| error.to_string());
        let found = found.and_then(|(whole, lines)| read(&whole, &lines));
        let found = found.unwrap_or_else(|why| {
            problems.push(broken(&self.root.join(format!("{name}.json")), &why));
            T::default()
        });
        (found, journal)
    }

    /// The files of a part, in order.
    fn names(&self, part: &str, problems: &mut Vec<Problem>) -> Vec<String> {
        let path = self.root.join(part);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) => {
                problems.push(broken(&path, &error.to_string()));
                return Vec::new();
            }
        };
        let names = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<_> = names
            .filter(|name| name.ends_with(".json"))
            .map(|name| format!("{part}/{name}"))
            .take(MAX_ABOVE)
            .collect();
        names.sort();
        names
    }

    fn read<T: serde::de::DeserializeOwned>(&self, name: &str, problems: &mut Vec<Problem>) -> Option<T> {
        let path = self.root.join(name);
        let read = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error.to_string()),
        };
        read.map_err(|why| problems.push(broken(&path, &why))).ok()
    }

    /// Writes what was done by hand beside its place: all of it, or none where the disk is full or not writable. It counts from
    /// [`Self::finish`] on.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn begin(
        &self,
        changes: &BTreeMap<Key, (Option<String>, Option<Applied>)>,
    ) -> io::Result<Begun> {
        let mut begun = Begun::default();
        for (key, (over, applied)) in changes {
            let record = Record {
                key: key.clone(),
                over: over.clone(),
                applied: applied.as_ref().map(text),
            };
            let place = self.root.join(record_name(key));
            let written = serde_json::to_vec(&record).map_err(io::Error::from);
            match written.and_then(|bytes| unsynced(&place, &bytes)) {
                Ok((beside, file)) => drop(begun.0.insert(place, (beside, file))),
                Err(error) => {
                    begun
                        .0
                        .values()
                        .for_each(|(beside, _)| drop(fs::remove_file(beside)));
                    return Err(error);
                }
            }
        }
        Ok(begun)
    }

    /// Brings what was begun to the disk and to its place. What could not be stays begun.
    ///
    /// # Errors
    /// What the system says of the first that could not.
    pub(crate) fn finish(&self, begun: &mut Begun) -> io::Result<()> {
        let mut finished = Ok(());
        begun.0.retain(|place, (beside, file)| {
            let done = file.sync_data().and_then(|()| fs::rename(beside, place));
            let failed = done.is_err();
            if finished.is_ok() {
                finished = done;
            }
            failed
        });
        finished
    }

    /// Removes records; one that is not there is no error.
    pub(crate) fn remove<'k>(&self, keys: impl Iterator<Item = &'k Key>) -> io::Result<()> {
        let mut paths = keys.map(|key| self.root.join(record_name(key)));
        paths.try_for_each(|path| remove(&path))
    }

    /// Writes the keys of token issuers.
    pub(crate) fn write_keys(&self, keys: &[Stored]) -> io::Result<()> {
        self.replace(KEYS, &keys)
    }

    /// Writes the last good text of a file that has broken.
    pub(crate) fn keep(&self, kept: &Kept) -> io::Result<()> {
        self.replace(&kept_name(&kept.path), kept)
    }

    /// Removes it; one that is not there is no error.
    pub(crate) fn unkeep(&self, path: &Path) -> io::Result<()> {
        remove(&self.root.join(kept_name(path)))
    }

    fn replace(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        let (beside, place) = beside(&self.root.join(name), &serde_json::to_vec(value)?)?;
        fs::rename(beside, place)
    }
}

/// Records that are written, and neither on the disk nor at their place; by that. A later one of a place stands for an earlier one.
#[derive(Debug, Default)]
pub(crate) struct Begun(BTreeMap<PathBuf, (PathBuf, fs::File)>);

impl Begun {
    /// And these.
    pub(crate) fn add(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// Whether nothing was begun that has not its place.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Writes beside the place, and brings it to the disk; returns both paths.
fn beside(place: &Path, bytes: &[u8]) -> io::Result<(PathBuf, PathBuf)> {
    let (beside, file) = unsynced(place, bytes)?;
    file.sync_data().inspect_err(|_| drop(fs::remove_file(&beside)))?;
    Ok((beside, place.to_owned()))
}

fn unsynced(place: &Path, bytes: &[u8]) -> io::Result<(PathBuf, fs::File)> {
    let beside = place.with_extension("new");
    let write = || -> io::Result<fs::File> {
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(bytes)?;
        Ok(file)
    };
    let file = write().inspect_err(|_| drop(fs::remove_file(&beside)))?;
    Ok((beside, file))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn kept_name(path: &Path) -> String {
    format!("{KEPT}/{}.json", digest(path.as_os_str().as_encoded_bytes()))
}

fn record_name(key: &Key) -> String {
    let Key {
        group,
        kind,
        namespace,
        name,
    } = key;
    let whole = format!("{group}\0{kind}\0{namespace}\0{name}");
    format!("{RECORDS}/{}.json", digest(whole.as_bytes()))
}

/// What an object is read from again: its document as it was written, where that is short; else its value, which has not
/// the places of its fields; and the whole text where neither gives the same object: what is broken must stay so.
fn text(applied: &Applied) -> Text {
    let object = &applied.held.object;
    let origin = || object.origin.clone();
    let (line, document) = document(&applied.text, object.origin.line);
    let mut unstamped = object.json.clone();
    let metadata = unstamped.get_mut("metadata").and_then(Value::as_object_mut);
    if let Some(metadata) = metadata {
        metadata.remove("creationTimestamp");
    }
    let short = (document.len() <= MAX_TEXT).then_some((line, document));
    let values = [&unstamped, &object.json].map(|value| (object.origin.line, value.to_string()));
    let same = |text: &Text| {
        let found = find(text, &applied.held.key);
        found.is_some_and(|(found, _)| object_digest(&found, &found.json) == applied.held.digest)
    };
    let candidates = short.into_iter().chain(values);
    let mut texts = candidates.map(|(line, text)| Text {
        origin: origin(),
        line,
        text,
    });
    texts.find(same).unwrap_or_else(|| Text {
        origin: origin(),
        line: 1,
        text: applied.text.to_string(),
    })
}

/// The document of a text that holds the line, and the line that it begins at.
fn document(text: &str, line: u32) -> (u32, String) {
    let is_border = |text: &str| text.starts_with("---") || text.starts_with("...");
    let numbered = || (1_u32..).zip(text.split_inclusive('\n'));
    let first = numbered()
        .filter(|(number, text)| *number <= line && is_border(text))
        .last()
        .map_or(1, |(number, _)| number);
    let document = numbered()
        .skip_while(|(number, _)| *number < first)
        .take_while(|(number, text)| *number <= line || !is_border(text));
    (first, document.map(|(_, text)| text).collect())
}

/// The object in a text, with every place as in the user's file.
fn find(Text { origin, line, text }: &Text, key: &Key) -> Option<(api::Object, Vec<Problem>)> {
    let above = usize::try_from(line.saturating_sub(1))
        .unwrap_or_default()
        .min(MAX_LINES);
    let padded = format!("{}{text}", "\n".repeat(above));
    let parsed = crate::world::parse(&origin.file, padded.as_bytes());
    // The last one of a name is the one that was taken.
    let mut objects = parsed.objects.into_iter();
    let mut object = objects.rfind(|object| Key::of(object) == *key)?;
    object.origin = origin.clone();
    Some((object, parsed.problems))
}

/// What a record says; `None` where its text does not hold the object.
fn entry(record: &Record, ages: &mut Ages, now: u64) -> Option<Above> {
    let object = match &record.applied {
        None => None,
        Some(text) => {
            let (object, problems) = find(text, &record.key)?;
            Some(Arc::new(Held::new(object, &problems, |key| ages.of(key, now))))
        }
    };
    Some(Above {
        over: record.over.clone(),
        object,
    })
}

fn broken(path: &Path, why: &str) -> Problem {
    let message = format!("`{}` cannot be used: {why}", path.display());
    Problem::new(Severity::Error, "MW0604", message)
        .remedy("apply again what was applied; remove the file where it is broken")
}

#[cfg(test)]
mod tests;
