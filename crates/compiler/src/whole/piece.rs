//! What one namespace compiles to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::WorkloadUid;
use snapshot::{Resource, Service};

use super::exports::Exports;
use crate::PodView;
use crate::authz::Tried;
use crate::inbound::{self, Told};
use crate::report::{Asked, Said};
use crate::services::{Member, Population};

pub(super) use crate::inbound::Named;

/// All of it.
#[derive(Debug)]
pub(super) struct Piece {
    /// What it says to others.
    pub(super) exports: Arc<Exports>,
    pub(super) population: Arc<Population>,
    /// Those of entries too; by name.
    pub(super) services: Vec<Arc<Service>>,
    /// Service ports that end at pods of other namespaces, by namespace.
    pub(super) foreign: BTreeMap<Arc<str>, BTreeMap<WorkloadUid, Vec<Member>>>,
    /// Addresses that somebody lists here.
    pub(super) listed: BTreeSet<IpAddr>,
    /// Services and workloads that proxies ask for, by name.
    pub(super) shared: Named,
    /// Services that every proxy has.
    pub(super) entries: Vec<Arc<Resource>>,
    /// By node, what its proxy needs for the pods of this namespace, by name.
    pub(super) nodes: BTreeMap<Arc<str>, Named>,
    /// Of each pod, what people are told of what stands before it.
    pub(super) told: Vec<Option<Told>>,
    /// Where keys have to be fetched from, and how long that may take, in milliseconds.
    pub(super) key_sources: BTreeMap<String, u64>,
    pub(super) said: Said,
    /// Selectors that look for pods everywhere.
    pub(super) asked: Vec<Asked>,
    pub(super) tried: Tried,
}

impl Piece {
    /// What is as it was before is held once, and is seen to be the same.
    pub(super) fn adopt(&mut self, before: &Self) {
        adopt(&mut self.shared, &before.shared);
        for (node, named) in &mut self.nodes {
            if let Some(before) = before.nodes.get(node) {
                adopt(named, before);
            }
        }
        for (new, old) in self.entries.iter_mut().zip(&before.entries) {
            if new == old {
                *new = Arc::clone(old);
            }
        }
        let mut held = before.services.iter().peekable();
        for new in &mut self.services {
            while held.next_if(|old| old.name < new.name).is_some() {}
            if let Some(old) = held.next_if(|old| old.name == new.name)
                && old == new
            {
                *new = Arc::clone(old);
            }
        }
    }

    /// The pods, for people.
    pub(super) fn views(&self) -> impl Iterator<Item = PodView> {
        let each = self.population.pods.iter().zip(&self.told);
        each.map(|(pod, told)| inbound::view(pod, told.as_ref()))
    }
}

fn adopt(now: &mut Named, before: &Named) {
    let mut before = before.iter().peekable();
    for (name, new) in now {
        while before.next_if(|(old, _)| old < name).is_some() {}
        if let Some((held, old)) = before.next_if(|(old, _)| old == name) {
            *name = held.clone();
            if old == new {
                *new = Arc::clone(old);
            }
        }
    }
}
