//! What must not be lost: what was applied and deleted by hand, when each object was first seen, the pods, and
//! the keys of token issuers.
//!
//! Every file is written beside its place and moved there, so that a reader finds the old or the new one, whole.

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
const AGES: &str = "ages.json";
const PODS: &str = "pods.json";
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
    changed: bool,
}

impl Ages {
    /// The age of an object, which is `now` where it is new.
    pub(crate) fn of(&mut self, key: &Key, now: u64) -> u64 {
        if let Some(at) = self.seen.get(key) {
            return *at;
        }
        if self.seen.len() < MAX_AGES {
            self.seen.insert(key.clone(), now);
            self.changed = true;
        }
        now
    }

    /// An object is gone: one of its name that comes later is another one.
    pub(crate) fn forget(&mut self, key: &Key) {
        self.changed |= self.seen.remove(key).is_some();
    }
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
    pub(crate) pods: Vec<Value>,
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
        if let Some(seen) = self.read(AGES, &mut restored.problems) {
            let pairs: Vec<(Key, u64)> = seen;
            restored.ages.seen = pairs.into_iter().take(MAX_AGES).collect();
        }
        restored.pods = self.read(PODS, &mut restored.problems).unwrap_or_default();
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

    /// Writes what was done by hand: all of it, or none where the disk is full or not writable.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn write(&self, changes: &BTreeMap<Key, (Option<String>, Option<Applied>)>) -> io::Result<()> {
        let mut written = Vec::with_capacity(changes.len());
        for (key, (over, applied)) in changes {
            let record = Record {
                key: key.clone(),
                over: over.clone(),
                applied: applied.as_ref().map(text),
            };
            match serde_json::to_vec(&record)
                .map_err(io::Error::from)
                .and_then(|bytes| self.beside(&record_name(key), &bytes))
            {
                Ok(pair) => written.push(pair),
                Err(error) => {
                    written
                        .iter()
                        .for_each(|(beside, _)| drop(fs::remove_file(beside)));
                    return Err(error);
                }
            }
        }
        written
            .iter()
            .try_for_each(|(beside, place)| fs::rename(beside, place))
    }

    /// Removes records; one that is not there is no error.
    pub(crate) fn remove<'k>(&self, keys: impl Iterator<Item = &'k Key>) -> io::Result<()> {
        let mut paths = keys.map(|key| self.root.join(record_name(key)));
        paths.try_for_each(|path| remove(&path))
    }

    /// Writes the ages, where they have changed.
    pub(crate) fn write_ages(&self, ages: &mut Ages) -> io::Result<()> {
        if ages.changed {
            self.replace(AGES, &ages.seen.iter().collect::<Vec<_>>())?;
            ages.changed = false;
        }
        Ok(())
    }

    /// Writes the pods, each as JSON.
    pub(crate) fn write_pods(&self, pods: &[&str]) -> io::Result<()> {
        let text = format!("[{}]", pods.join(","));
        let (beside, place) = self.beside(PODS, text.as_bytes())?;
        fs::rename(beside, place)
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
        let (beside, place) = self.beside(name, &serde_json::to_vec(value)?)?;
        fs::rename(beside, place)
    }

    /// Writes beside the place; returns both paths.
    fn beside(&self, name: &str, bytes: &[u8]) -> io::Result<(PathBuf, PathBuf)> {
        let place = self.root.join(name);
        let beside = place.with_extension("new");
        let write = || {
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(bytes)?;
            file.sync_data()
        };
        write().inspect_err(|_| drop(fs::remove_file(&beside)))?;
        Ok((beside, place))
    }
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
