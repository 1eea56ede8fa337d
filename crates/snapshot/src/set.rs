//! Sets of resources, and the algebra of their differences.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::iter::Peekable;
use std::sync::Arc;

use crate::{Delta, Resource, ResourceName};

type Map = BTreeMap<ResourceName, Arc<Resource>>;

/// A set of resources, by name.
///
/// It may lie over another one that many sets share: then only what differs costs memory.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    shared: Arc<Map>,
    /// What is not shared; it counts where both have a name.
    own: Map,
}

impl Resources {
    /// A set that holds all of `shared` and has nothing of its own yet.
    pub fn over(shared: &Self) -> Self {
        Self {
            shared: Arc::new(shared.flat()),
            own: Map::new(),
        }
    }

    /// Another one over the same set as this one, with nothing of its own yet.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            own: Map::new(),
        }
    }

    /// What does not belong to the set below; all, where there is none.
    pub fn own(&self) -> impl Iterator<Item = (&ResourceName, &Arc<Resource>)> {
        self.own.iter()
    }

    /// Adds or replaces one resource under its own name.
    pub fn insert(&mut self, resource: Arc<Resource>) {
        self.own.insert(resource.name(), resource);
    }

    /// As [`Self::insert`], where the name of the resource is at hand.
    pub fn put(&mut self, name: ResourceName, resource: Arc<Resource>) {
        self.own.insert(name, resource);
    }

    /// The resource of that name.
    pub fn get(&self, name: &ResourceName) -> Option<&Arc<Resource>> {
        self.own.get(name).or_else(|| self.shared.get(name))
    }

    /// All, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ResourceName, &Arc<Resource>)> {
        Both {
            shared: self.shared.iter().peekable(),
            own: self.own.iter().peekable(),
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        let twice = self.own.keys().filter(|name| self.shared.contains_key(*name));
        self.shared.len() + self.own.len() - twice.count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.own.is_empty()
    }

    /// What must change in `self` for it to become `newer`. Takes one walk through both.
    pub fn diff(&self, newer: &Self) -> Delta {
        let mut delta = Delta::default();
        let mut before = self.iter().peekable();
        for (name, new) in newer.iter() {
            while let Some((gone, _)) = before.next_if(|(old, _)| *old < name) {
                delta.removed.push(gone.clone());
            }
            match before.next_if(|(old, _)| *old == name) {
                Some((_, old)) if Arc::ptr_eq(old, new) || old == new => {}
                _ => delta.updated.push(Arc::clone(new)),
            }
        }
        delta.removed.extend(before.map(|(name, _)| name.clone()));
        delta
    }

    /// The same set over `shared`, which holds what this one's shared set does, with the very resources of `before` in place
    /// of those that equal them: what is compared next is the same, and what is held is held once.
    #[must_use]
    pub fn adopt(&self, before: Option<&Self>, shared: &Self) -> Self {
        let mut own = self.own.clone();
        adopt(&mut own, before.map(|before| &before.own));
        Self {
            shared: Arc::clone(&shared.shared),
            own,
        }
    }

    /// [`Self::adopt`], of a set that others lie over.
    #[must_use]
    pub fn adopt_shared(&self, before: &Self) -> Self {
        let mut shared = self.flat();
        adopt(&mut shared, Some(&before.shared));
        Self {
            shared: Arc::new(shared),
            own: Map::new(),
        }
    }

    /// `self` with the difference carried out.
    #[must_use]
    pub fn apply(&self, delta: &Delta) -> Self {
        let gone: BTreeSet<_> = delta.removed.iter().collect();
        let kept = self.iter().filter(|(name, _)| !gone.contains(name));
        let mut own: Map = kept.map(|(n, r)| (n.clone(), Arc::clone(r))).collect();
        for resource in &delta.updated {
            own.insert(resource.name(), Arc::clone(resource));
        }
        Self {
            shared: Arc::default(),
            own,
        }
    }

    fn flat(&self) -> Map {
        self.iter().map(|(n, r)| (n.clone(), Arc::clone(r))).collect()
    }
}

/// Replaces what equals what was there before by that, in one walk through both.
fn adopt(now: &mut Map, before: Option<&Map>) {
    let mut before = before.into_iter().flatten().peekable();
    for (name, new) in now {
        while before.next_if(|(old, _)| *old < name).is_some() {}
        if let Some((_, old)) = before.next_if(|(old, _)| *old == name)
            && old == new
        {
            *new = Arc::clone(old);
        }
    }
}

impl PartialEq for Resources {
    fn eq(&self, other: &Self) -> bool {
        (Arc::ptr_eq(&self.shared, &other.shared) && self.own == other.own) || self.iter().eq(other.iter())
    }
}

impl Eq for Resources {}

impl FromIterator<Arc<Resource>> for Resources {
    fn from_iter<T: IntoIterator<Item = Arc<Resource>>>(iter: T) -> Self {
        Self {
            shared: Arc::default(),
            own: iter.into_iter().map(|r| (r.name(), r)).collect(),
        }
    }
}

impl FromIterator<Resource> for Resources {
    fn from_iter<T: IntoIterator<Item = Resource>>(iter: T) -> Self {
        iter.into_iter().map(Arc::new).collect()
    }
}

/// Two sorted maps in one order, each name once.
struct Both<'a> {
    shared: Peekable<btree_map::Iter<'a, ResourceName, Arc<Resource>>>,
    own: Peekable<btree_map::Iter<'a, ResourceName, Arc<Resource>>>,
}

impl<'a> Iterator for Both<'a> {
    type Item = (&'a ResourceName, &'a Arc<Resource>);

    fn next(&mut self) -> Option<Self::Item> {
        let (Some((below, _)), Some((above, _))) = (self.shared.peek(), self.own.peek()) else {
            return self.own.next().or_else(|| self.shared.next());
        };
        match below.cmp(above) {
            std::cmp::Ordering::Less => self.shared.next(),
            std::cmp::Ordering::Greater => self.own.next(),
            std::cmp::Ordering::Equal => {
                self.shared.next();
                self.own.next()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One of a few resources, so that names meet.
    fn one((name, value): &(u8, u8)) -> Resource {
        match name % 6 {
            0 => Resource::Roots(vec![value.to_string()]),
            1 => Resource::HttpPorts(vec![u16::from(*value)]),
            n => Resource::Absent(ResourceName::from(n.to_string().as_str())),
        }
    }

    fn set(of: &[(u8, u8)]) -> Resources {
        of.iter().map(one).collect()
    }

    proptest! {
        #[test]
        fn a_set_over_another_is_the_set_of_both(below in proptest::collection::vec(any::<(u8, u8)>(), 0..8),
                                                 above in proptest::collection::vec(any::<(u8, u8)>(), 0..8),
                                                 other in proptest::collection::vec(any::<(u8, u8)>(), 0..8)) {
            let mut layered = Resources::over(&set(&below));
            let mut plain = set(&below);
            for (_, resource) in set(&above).iter() {
                layered.insert(Arc::clone(resource));
                plain.insert(Arc::clone(resource));
            }
            prop_assert_eq!(&layered, &plain);
            prop_assert_eq!(layered.len(), plain.iter().count());
            prop_assert!(layered.diff(&plain).is_empty());
            let other = set(&other);
            prop_assert_eq!(layered.apply(&layered.diff(&other)), other.clone());
            prop_assert_eq!(other.apply(&other.diff(&layered)), plain);
            let shared = layered.adopt_shared(&Resources::over(&other));
            prop_assert_eq!(&shared, &layered);
            for (name, resource) in shared.iter() {
                let same = other.get(name).is_some_and(|old| old == resource);
                prop_assert_eq!(same, other.get(name).is_some_and(|old| Arc::ptr_eq(old, resource)));
            }
            prop_assert_eq!(&layered.adopt(Some(&other), &layered.beside()), &layered);
        }
    }
}
