//! An index made of another one, of which some rules are no more, some are new, and the rest stand at other places in the
//! same order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::affix::Affixes;
use super::hash::BuildIdentity;
use super::keys::{Found, Key};
use super::{Entry, GONE, Index, Postings, best, keys, narrow, place};
use crate::compile::Rule;

/// New entries, by where they belong.
#[derive(Debug, Default)]
struct Fresh {
    table: HashMap<u64, Vec<Entry>, BuildIdentity>,
    path_prefixes: BTreeMap<Arc<[u8]>, Vec<Entry>>,
    path_suffixes: BTreeMap<Arc<[u8]>, Vec<Entry>>,
    host_suffixes: BTreeMap<Arc<[u8]>, Vec<Entry>>,
}

impl Fresh {
    fn add(&mut self, key: &Key<'_>, entry: Entry) {
        let run = match key.found_in() {
            Found::Table(hash) => self.table.entry(hash).or_default(),
            Found::PathPrefixes(text) => self.path_prefixes.entry(text).or_default(),
            Found::PathSuffixes(text) => self.path_suffixes.entry(text).or_default(),
            Found::HostSuffixes(text) => self.host_suffixes.entry(text).or_default(),
        };
        run.push(entry);
    }
}

/// The entries of the index that is made.
struct Entries<'a> {
    old: &'a Index,
    /// By the place of each rule that there was, the one that it has.
    moved: &'a [u32],
    new: Vec<Entry>,
}

impl Entries<'_> {
    fn moved(&self, at: u32) -> Option<u32> {
        let now = self.moved.get(usize::try_from(at).ok()?)?;
        (*now != GONE).then_some(*now)
    }

    /// A run as it is now, with what is new in it; `None` where nothing is left.
    fn carry(&mut self, old: Postings, more: Option<Vec<Entry>>) -> Option<Postings> {
        let start = self.new.len();
        for (at, part) in self.old.run(old) {
            let moved = self.moved(*at);
            self.new.extend(moved.map(|at| (at, *part)));
        }
        if let Some(more) = more {
            self.new.extend(more);
            if let Some(run) = self.new.get_mut(start..) {
                run.sort_unstable_by_key(|(at, _)| *at);
            }
        }
        let postings = Postings {
            start: narrow(start),
            length: narrow(self.new.len() - start),
        };
        (postings.length > 0).then_some(postings)
    }

    fn affixes(&mut self, old: &Affixes, mut fresh: BTreeMap<Arc<[u8]>, Vec<Entry>>) -> Affixes {
        let mut texts = Vec::with_capacity(old.len() + fresh.len());
        for (text, postings) in old.iter() {
            let postings = self.carry(postings, fresh.remove(text));
            texts.extend(postings.map(|postings| (Arc::clone(text), postings)));
        }
        for (text, run) in fresh {
            let postings = self.carry(Postings::default(), Some(run));
            texts.extend(postings.map(|postings| (text, postings)));
        }
        Affixes::new(texts)
    }
}

impl Index {
    /// `moved` holds, by the place of each rule that there was, its place in `rules`, ascending, or [`GONE`]; `members` are
    /// the new ones.
    pub(crate) fn patched(&self, rules: &[Rule], moved: &[u32], members: &[u32], http: bool) -> Self {
        let mut index = Self {
            kinds: self.kinds,
            lengths: self.lengths.clone(),
            names: self.names.clone(),
            ..Self::default()
        };
        let mut entries = Entries {
            old: self,
            moved,
            new: Vec::with_capacity(self.entries.len() + members.len()),
        };
        let mut fresh = Fresh::default();
        let mut scan: Vec<u32> = self.scan.iter().filter_map(|at| entries.moved(*at)).collect();
        for &at in members {
            let Some(rule) = place(rules, at) else { continue };
            match best(&keys::ways(rule, http), |key| self.sharing(key)) {
                None => scan.push(at),
                Some(keys) => {
                    for (key, part) in keys {
                        index.note(&key);
                        fresh.add(&key, (at, part));
                    }
                }
            }
        }
        scan.sort_unstable();
        index.table.reserve(self.table.len() + fresh.table.len());
        for (hash, postings) in &self.table {
            let postings = entries.carry(*postings, fresh.table.remove(hash));
            index.table.extend(postings.map(|postings| (*hash, postings)));
        }
        for (hash, run) in fresh.table {
            let postings = entries.carry(Postings::default(), Some(run));
            index.table.extend(postings.map(|postings| (hash, postings)));
        }
        index.path_prefixes = entries.affixes(&self.path_prefixes, fresh.path_prefixes);
        index.path_suffixes = entries.affixes(&self.path_suffixes, fresh.path_suffixes);
        index.host_suffixes = entries.affixes(&self.host_suffixes, fresh.host_suffixes);
        index.entries = entries.new.into();
        index.scan = scan.into();
        index
    }

    /// How many rules would be found by a key with one more.
    fn sharing(&self, key: &Key<'_>) -> u32 {
        let found = match key.found_in() {
            Found::Table(hash) => self.table.get(&hash).copied(),
            Found::PathPrefixes(text) => self.path_prefixes.get(&text),
            Found::PathSuffixes(text) => self.path_suffixes.get(&text),
            Found::HostSuffixes(text) => self.host_suffixes.get(&text),
        };
        found.map_or(1, |postings| postings.length.saturating_add(1))
    }
}
