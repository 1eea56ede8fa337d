//! What is applied and deleted by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use admin::Failure;

use super::{Done, Given, Plane, now};
use crate::layers::{Above, Held, Key, below_digest, merge};
use crate::state::{Applied, MAX_ABOVE};
use crate::view::View;

/// What is to be written of each object: the digest of what it lies over, and the object where it is not deleted.
type Entries = BTreeMap<Key, (Option<String>, Option<Applied>)>;

impl Plane {
    pub(super) fn apply(&mut self, given: Vec<Given>) -> Result<Vec<(Key, &'static str)>, Failure> {
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
        self.directory.write(&entries).map_err(|error| {
            self.forget_unknown(entries.keys());
            unwritten("applied", &error)
        })?;
        for (key, (over, applied)) in entries {
            let object = applied.map(|applied| applied.held);
            self.above.insert(key, Above { over, object });
        }
        self.lay();
        Ok(changes)
    }

    /// Forgets the ages of objects that were looked at and not taken.
    fn forget_unknown<'k>(&mut self, keys: impl Iterator<Item = &'k Key>) {
        for key in keys {
            if !self.above.contains_key(key) && !self.below.contains_key(key) {
                self.ages.forget(key);
            }
        }
    }

    /// What applying would do: compiled, and nothing kept or published.
    pub(super) fn rehearse(&mut self, given: Vec<Given>) -> Done {
        let (changes, entries) = self.plan(given);
        self.forget_unknown(entries.keys());
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
    fn plan(&mut self, given: Vec<Given>) -> (Vec<(Key, &'static str)>, Entries) {
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

    pub(super) fn delete(&mut self, targets: Vec<Vec<Key>>) -> Result<Vec<(Key, &'static str)>, Failure> {
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
}

fn unwritten(what: &str, error: &std::io::Error) -> Failure {
    Failure::undecided(format!(
        "nothing was {what}: the state cannot be written: {error}"
    ))
}
