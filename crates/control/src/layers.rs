//! The layers of the world, and which of them is in force. Pure.
//!
//! Below lie the objects of the files, above them what was applied and deleted by hand. What lies above is in force
//! until the text of the object in the files changes: the newest change wins.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use api::{Object, ObjectRef, Problem};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What tells objects apart: two groups may have a kind of one name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct Key {
    /// The API group; empty for Kubernetes' core.
    pub(crate) group: String,
    pub(crate) kind: String,
    /// Empty for kinds without.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn of(object: &Object) -> Self {
        let group = object.api_version.split_once('/').map_or("", |(group, _)| group);
        Self {
            group: group.to_owned(),
            kind: object.kind_name.clone(),
            namespace: object.meta.namespace.clone(),
            name: object.meta.name.clone(),
        }
    }

    /// The namespace that the object is compiled with: its own, or the one that it is.
    pub(crate) fn space(&self) -> &str {
        match (self.group.as_str(), self.kind.as_str()) {
            ("", "Namespace") => &self.name,
            _ => &self.namespace,
        }
    }

    pub(crate) fn reference(&self) -> ObjectRef {
        ObjectRef {
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reference().fmt(f)
    }
}

/// An object as it is held.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Held {
    pub(crate) key: Key,
    pub(crate) object: Arc<Object>,
    /// Of what was written, without the place and what we add.
    pub(crate) digest: String,
    /// What its text says of it.
    pub(crate) problems: Vec<Problem>,
}

impl Held {
    /// Holds an object with its share of the text's problems, `first_seen` (milliseconds since 1970) being its age
    /// where it does not say.
    pub(crate) fn new(
        mut object: Object,
        problems: &[Problem],
        first_seen: impl FnOnce(&Key) -> u64,
    ) -> Self {
        let key = Key::of(&object);
        let reference = key.reference();
        let own = |problem: &&Problem| problem.object.as_ref() == Some(&reference);
        let problems = problems.iter().filter(own).cloned().collect();
        let digest = object_digest(&object, &object.json);
        if object.meta.creation.is_none() {
            object.meta.creation = Some(first_seen(&key));
        }
        let written = serde_json::to_value(&object.meta).ok();
        let stamp =
            written.and_then(|mut meta| meta.get_mut("creationTimestamp").map(serde_json::Value::take));
        let metadata = object
            .json
            .get_mut("metadata")
            .and_then(serde_json::Value::as_object_mut);
        if let (Some(stamp), Some(metadata)) = (stamp, metadata) {
            metadata.insert("creationTimestamp".to_owned(), stamp);
        }
        Self {
            key,
            object: Arc::new(object),
            digest,
            problems,
        }
    }

    /// `file:line:column`.
    pub(crate) fn origin(&self) -> String {
        let origin = &self.object.origin;
        format!("{}:{}:{}", origin.file, origin.line, origin.column)
    }
}

/// Of what was written. A key that stands twice leaves no trace in the value, so that soundness counts too.
pub(crate) fn object_digest(object: &Object, json: &serde_json::Value) -> String {
    let sound = object.invalid.is_none();
    digest(format!("{sound} {json}").as_bytes())
}

/// A digest that fits into a file name.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// What was done by hand to an object.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Above {
    /// The digest of what the files held then; `None` where they held nothing.
    pub(crate) over: Option<String>,
    /// The object; `None` where it was deleted.
    pub(crate) object: Option<Arc<Held>>,
}

/// What the files hold, by key. There may be several of one name: the compiler says which is used.
pub(crate) type Below = BTreeMap<Key, Vec<Arc<Held>>>;

/// The digest of what the files hold under a name.
pub(crate) fn below_digest(below: &Below, key: &Key) -> Option<String> {
    let objects = below.get(key).filter(|objects| !objects.is_empty())?;
    let all: Vec<&str> = objects.iter().map(|held| held.digest.as_str()).collect();
    Some(all.join("+"))
}

/// What is in force of one name, and whether what lies above it has ended by a newer change of the files.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Laid {
    pub(crate) in_force: Vec<Arc<Held>>,
    pub(crate) ended: bool,
}

/// Lays the layers of one name over each other. `hidden` says that the files held it when this was done last: a deletion ends
/// with the file's object, so that writing it anew brings it back, while an object that was applied stays without it.
pub(crate) fn lay(key: &Key, below: &Below, above: Option<&Above>, hidden: bool) -> Laid {
    let of_files = || below.get(key).cloned().unwrap_or_default();
    let Some(entry) = above else {
        return Laid {
            in_force: of_files(),
            ended: false,
        };
    };
    let written = below_digest(below, key);
    let changed = written.is_some() && written != entry.over;
    let vanished = entry.object.is_none() && written.is_none() && hidden;
    if changed || vanished {
        return Laid {
            in_force: of_files(),
            ended: true,
        };
    }
    Laid {
        in_force: entry.object.iter().cloned().collect(),
        ended: false,
    }
}

#[cfg(test)]
mod tests;
