//! Finds the rules that may match, so that a decision does not look at all of them.
//!
//! Each rule is entered under the attribute of it that the fewest rules share: an exact value in a table, a prefix or
//! suffix in a sorted chain. What is found is verified in whole. Rules that have no such attribute are always looked at.

mod affix;
mod hash;
mod keys;
mod patch;

use std::collections::{BTreeMap, HashMap};

use crate::compile::{Part, Rule};
use crate::facts::Facts;
use crate::path::without_query;
use affix::Affixes;
use hash::BuildIdentity;
use keys::{Cover, Found, Key, Kinds, Lengths, Names, Way};

/// A run of entries.
#[derive(Clone, Copy, Debug, Default)]
struct Postings {
    start: u32,
    length: u32,
}

/// A rule by its place, and the part of it that led there.
type Entry = (u32, Part);

/// The rules of one action, by what they ask for.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: Box<[Entry]>,
    table: HashMap<u64, Postings, BuildIdentity>,
    kinds: Kinds,
    lengths: Lengths,
    names: Names,
    path_prefixes: Affixes,
    path_suffixes: Affixes,
    host_suffixes: Affixes,
    /// Rules to look at always, ascending.
    scan: Box<[u32]>,
}

/// The place of a rule that is no more.
pub(crate) const GONE: u32 = u32::MAX;

impl Index {
    /// Of `members`, which are places in `rules`, ascending. `http` says whether requests are looked up, or connections.
    pub(crate) fn new(rules: &[Rule], members: &[u32], http: bool) -> Self {
        let ways: Vec<(u32, Vec<Way<'_>>)> = members
            .iter()
            .filter_map(|&at| Some((at, keys::ways(place(rules, at)?, http))))
            .collect();
        let mut shared: HashMap<Key<'_>, u32, BuildIdentity> = HashMap::default();
        let each = ways.iter().flat_map(|(_, ways)| ways).flatten();
        for key in each.flat_map(|(_, covers)| covers).flatten() {
            *shared.entry(*key).or_default() += 1;
        }
        let mut found: BTreeMap<Key<'_>, Vec<Entry>> = BTreeMap::new();
        let mut scan = Vec::new();
        for (at, ways) in &ways {
            match best(ways, |key| shared.get(key).copied().unwrap_or_default()) {
                None => scan.push(*at),
                Some(keys) => {
                    for (key, part) in keys {
                        found.entry(key).or_default().push((*at, part));
                    }
                }
            }
        }
        let mut index = Self {
            scan: scan.into(),
            ..Self::default()
        };
        index.fill(found);
        index
    }

    fn fill(&mut self, found: BTreeMap<Key<'_>, Vec<Entry>>) {
        let mut entries = Vec::new();
        let (mut prefixes, mut suffixes, mut hosts) = (Vec::new(), Vec::new(), Vec::new());
        let mut by_hash: BTreeMap<u64, Vec<Entry>> = BTreeMap::new();
        let mut post = |mut run: Vec<Entry>| {
            run.sort_unstable_by_key(|(at, _)| *at);
            let postings = Postings {
                start: narrow(entries.len()),
                length: narrow(run.len()),
            };
            entries.extend(run);
            postings
        };
        for (key, run) in found {
            self.note(&key);
            match key.found_in() {
                Found::Table(hash) => by_hash.entry(hash).or_default().extend(run),
                Found::PathPrefixes(text) => prefixes.push((text, post(run))),
                Found::PathSuffixes(text) => suffixes.push((text, post(run))),
                Found::HostSuffixes(text) => hosts.push((text, post(run))),
            }
        }
        self.table = by_hash.into_iter().map(|(hash, run)| (hash, post(run))).collect();
        self.path_prefixes = Affixes::new(prefixes);
        self.path_suffixes = Affixes::new(suffixes);
        self.host_suffixes = Affixes::new(hosts);
        self.entries = entries.into();
    }

    /// Keeps what a request must be looked up by for the key to be found.
    fn note(&mut self, key: &Key<'_>) {
        match *key {
            Key::Exact { kind, .. } => self.kinds.add(kind),
            Key::Block { kind, length, v4, .. } => {
                self.kinds.add(kind);
                self.lengths.add(kind, v4, length);
            }
            Key::Header(_, name) => self.names.add_header(name),
            Key::Claim(_, path) => self.names.add_claim(path),
            Key::PathPrefix(_) | Key::PathSuffix(_) | Key::HostSuffix(_) => {}
        }
    }

    fn run(&self, postings: Postings) -> &[Entry] {
        let start = usize::try_from(postings.start).unwrap_or(usize::MAX);
        let length = usize::try_from(postings.length).unwrap_or_default();
        let entries = self.entries.get(start..).and_then(|tail| tail.get(..length));
        entries.unwrap_or_default()
    }

    /// Whether there are no rules.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.scan.is_empty()
    }

    /// The first rule, in the order of policies, that matches and that `also` takes.
    pub(crate) fn first(
        &self,
        rules: &[Rule],
        facts: &Facts<'_>,
        also: impl Fn(&Rule) -> bool,
    ) -> Option<u32> {
        let mut best: Option<u32> = None;
        let mut verify = |at: u32, part: Part| {
            let better = best.is_none_or(|best| at < best);
            if better && place(rules, at).is_some_and(|rule| rule.matches(part, facts) && also(rule)) {
                best = Some(at);
            }
        };
        let mut run = |postings: Postings| {
            for &(at, part) in self.run(postings) {
                verify(at, part);
            }
        };
        if !self.table.is_empty() {
            keys::lookups(facts, self.kinds, &self.lengths, &self.names, |hash| {
                if let Some(postings) = self.table.get(&hash) {
                    run(*postings);
                }
            });
        }
        if let Some(http) = &facts.http {
            let path = without_query(http.path);
            if !self.path_prefixes.is_empty() {
                self.path_prefixes.visit(path.bytes(), &mut run);
            }
            if !self.path_suffixes.is_empty() {
                self.path_suffixes.visit(path.bytes().rev(), &mut run);
            }
            if !self.host_suffixes.is_empty() {
                let host = http.authority.bytes().rev().map(|b| b.to_ascii_lowercase());
                self.host_suffixes.visit(host, &mut run);
            }
        }
        for &at in &self.scan {
            verify(at, Part::Whole);
        }
        best
    }
}

pub(crate) fn place(rules: &[Rule], at: u32) -> Option<&Rule> {
    rules.get(usize::try_from(at).ok()?)
}

/// Sets are far from so large; what would not fit is looked at by no index and counted by `len`.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The way whose most crowded key is the least crowded, with its keys.
///
/// `sharing` is how many rules are found by a key.
fn best<'a>(ways: &[Way<'a>], sharing: impl Fn(&Key<'a>) -> u32) -> Option<Vec<(Key<'a>, Part)>> {
    // Exact keys first where the crowd is the same: a table is faster than a chain.
    let crowd = |cover: &Cover<'a>| {
        let cost = |key: &Key<'a>| {
            let chained = !matches!(key, Key::Exact { .. });
            (sharing(key), chained)
        };
        cover.iter().map(cost).max().unwrap_or_default()
    };
    let choose = |way: &Way<'a>| {
        let mut chosen = Vec::new();
        let mut worst = (0, false);
        for (part, covers) in way {
            let cover = covers.iter().min_by_key(|cover| crowd(cover))?;
            worst = worst.max(crowd(cover));
            chosen.extend(cover.iter().map(|key| (*key, *part)));
        }
        Some((worst, chosen))
    };
    ways.iter()
        .filter_map(choose)
        .min_by_key(|(worst, _)| *worst)
        .map(|(_, chosen)| chosen)
}
