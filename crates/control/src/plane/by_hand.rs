//! What is applied and deleted by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use admin::Failure;

use super::{Done, Given, Plane, now, put_space};
use crate::layers::{Above, Below, Held, Key, below_digest, lay};
use crate::state::{Applied, MAX_ABOVE};
use crate::view::View;
use crate::world::Frozen;

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
        // What was applied before has its place first: another record of the same object is written where that one is.
        let begun = self.finish().and_then(|()| self.directory.begin(&entries));
        let begun = begun.map_err(|error| {
            self.forget_unknown(entries.keys());
            unwritten("applied", &error)
        })?;
        self.begun.add(begun);
        let keys = entries.keys().cloned().collect();
        for (key, (over, applied)) in entries {
            let object = applied.map(|applied| applied.held);
            self.above.insert(key, Above { over, object });
        }
        self.lay(keys, &Below::new());
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
        let (mut spaces, mut in_force) = (self.spaces.clone(), Arc::clone(&self.in_force));
        let others = self
            .troubled
            .iter()
            .filter(|(key, _)| !entries.contains_key(*key));
        let others = others.flat_map(|(_, held)| &held.problems);
        let mut problems: Vec<_> = self.file_problems.iter().chain(others).cloned().collect();
        let mut touched = self.touched.clone();
        for (key, (over, applied)) in entries {
            let object = applied.map(|applied| applied.held);
            problems.extend(object.iter().flat_map(|held| held.problems.iter().cloned()));
            let hidden = self.below.contains_key(&key);
            let laid = lay(&key, &self.below, Some(&Above { over, object }), hidden);
            let space: Arc<str> = Arc::from(key.space());
            let of_space = Arc::make_mut(&mut in_force)
                .entry(Arc::clone(&space))
                .or_default();
            Arc::make_mut(of_space).insert(key, laid.in_force);
            touched.insert(space);
        }
        for name in &touched {
            put_space(&mut spaces, name, &in_force, &self.pods);
        }
        let mut whole = self.whole.clone();
        whole.update(spaces);
        let mut frozen = Frozen {
            in_force,
            problems: Arc::new(problems),
            ..self.freeze()
        };
        frozen.of_configuration = Arc::new(frozen.configuration_problems());
        let before = Arc::clone(&self.view.borrow());
        let after = Arc::new(View::new(frozen, whole));
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
        // What was applied before has its place before it is taken away.
        self.finish()
            .and_then(|()| self.directory.finish(&mut self.directory.begin(&tombstones)?))
            .and_then(|()| self.directory.remove(removed.iter()))
            .map_err(|error| unwritten("deleted", &error))?;
        removed.iter().for_each(|key| drop(self.above.remove(key)));
        let keys = removed.iter().chain(tombstones.keys()).cloned().collect();
        for (key, (over, _)) in tombstones {
            self.above.insert(key, Above { over, object: None });
        }
        self.lay(keys, &Below::new());
        Ok(changes)
    }
}

fn unwritten(what: &str, error: &std::io::Error) -> Failure {
    Failure::undecided(format!(
        "nothing was {what}: the state cannot be written: {error}"
    ))
}
