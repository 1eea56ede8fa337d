//! Which of many prefixes (or suffixes, read backwards) a text has.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Postings;

/// Sorted texts, each with the longest other one that it starts with.
///
/// All prefixes of a text that are here form a chain: the longest is the last entry that sorts before the text, or one
/// of those that this starts with.
#[derive(Debug, Default)]
pub(super) struct Affixes {
    entries: Box<[Entry]>,
}

#[derive(Debug)]
struct Entry {
    text: Arc<[u8]>,
    parent: Option<u32>,
    postings: Postings,
}

impl Affixes {
    pub(super) fn new(mut texts: Vec<(Arc<[u8]>, Postings)>) -> Self {
        texts.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut entries: Vec<Entry> = Vec::with_capacity(texts.len());
        let mut open: Vec<u32> = Vec::new();
        for (place, (text, postings)) in (0..).zip(texts) {
            let starts = |at: &u32| entry(&entries, *at).is_some_and(|e| text.starts_with(&e.text));
            while open.last().is_some_and(|at| !starts(at)) {
                open.pop();
            }
            let parent = open.last().copied();
            open.push(place);
            entries.push(Entry {
                text,
                parent,
                postings,
            });
        }
        Self {
            entries: entries.into(),
        }
    }

    /// The texts with what is posted at each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<[u8]>, Postings)> {
        self.entries.iter().map(|entry| (&entry.text, entry.postings))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, text: &[u8]) -> Option<Postings> {
        let at = self
            .entries
            .binary_search_by(|entry| (*entry.text).cmp(text))
            .ok()?;
        Some(self.entries.get(at)?.postings)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Visits the postings of all entries that `text` starts with, the longest first.
    pub(super) fn visit(&self, text: impl Iterator<Item = u8> + Clone, mut visit: impl FnMut(Postings)) {
        let after = self
            .entries
            .partition_point(|e| e.text.iter().copied().cmp(text.clone()) != Ordering::Greater);
        let Some(last) = after.checked_sub(1) else { return };
        let Some(last) = self.entries.get(last) else {
            return;
        };
        // So much of it the text has; every entry on the chain is a prefix of this one.
        let common = last
            .text
            .iter()
            .copied()
            .zip(text)
            .take_while(|(a, b)| a == b)
            .count();
        let mut at = Some(last);
        while let Some(here) = at {
            if here.text.len() <= common {
                visit(here.postings);
            }
            at = here.parent.and_then(|parent| entry(&self.entries, parent));
        }
    }
}

fn entry(entries: &[Entry], at: u32) -> Option<&Entry> {
    entries.get(usize::try_from(at).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_what_a_scan_finds(
            texts in prop::collection::btree_set("[ab/]{0,5}", 0..12),
            text in "[ab/]{0,7}",
        ) {
            let list: Vec<String> = texts.into_iter().collect();
            let affixes = Affixes::new(
                (0..).zip(&list)
                    .map(|(i, t)| (t.as_bytes().into(), Postings { start: i, length: 1 }))
                    .collect(),
            );
            let mut found = Vec::new();
            affixes.visit(text.bytes(), |p| found.push(p.start));
            found.sort_unstable();
            let expect: Vec<u32> = (0..).zip(&list)
                .filter(|(_, t)| text.starts_with(t.as_str()))
                .map(|(i, _)| i)
                .collect();
            prop_assert_eq!(found, expect);
        }
    }
}
