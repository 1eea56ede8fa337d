//! What can be asked of a compilation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{ObjectRef, Problem};
use snapshot::{Mesh, Resources, Service};

use super::piece::Piece;
use super::{Compilation, differing};
use crate::report::Said;
use crate::settings::roots;
use crate::view::{SYSTEM_NAMESPACE, mesh_config};
use crate::{Compiled, Effect, PlainService, PodView};

impl Compilation {
    /// All of it, as [`crate::compile`] gives it. Takes time with the whole world.
    pub fn flat(&self) -> Compiled {
        let asked_for = self.pieces.values().flat_map(|piece| &piece.shared);
        let shared: Resources = asked_for.map(|(_, resource)| Arc::clone(resource)).collect();
        let base = Resources::over(&shared);
        let nodes = self.nodes.iter().map(|(node, own)| {
            let mut resources = base.beside();
            own.own()
                .for_each(|(name, resource)| resources.put(name.clone(), Arc::clone(resource)));
            (node.as_ref().to_owned(), resources)
        });
        let (problems, effects) = Said::all(self.said());
        Compiled {
            nodes: nodes.collect(),
            problems,
            effects,
            plain_services: self.plain_services().collect(),
            pods: self.pods().collect(),
            key_sources: self.key_sources(),
            shared: base,
        }
    }

    fn said(&self) -> impl Iterator<Item = &Said> {
        let settings = self.common.iter().map(|common| &common.said);
        settings.chain(self.pieces.values().map(|piece| &piece.said))
    }

    /// What an object does. Takes a look into each namespace for an object of the root one and for a DestinationRule, else into
    /// its own.
    pub fn effect(&self, object: &ObjectRef) -> Option<Effect> {
        let own = self
            .pieces
            .get(object.namespace.as_str())
            .map(|piece| &piece.said);
        let is_root = object.namespace == self.root_namespace();
        if is_root || matches!(object.kind.as_str(), "DestinationRule" | "Sidecar") {
            return Said::effect(object, self.said());
        }
        Said::effect(object, own.into_iter())
    }

    /// What each object does, ordered by object.
    pub fn effects(&self) -> Vec<Effect> {
        Said::all(self.said()).1
    }

    /// What is wrong, or not as it was most likely meant; ordered by place.
    pub fn problems(&self) -> Vec<Problem> {
        Said::all(self.said()).0
    }

    /// The problems of one object: a look into each namespace for one of the root namespace, else into its own.
    pub fn problems_of(&self, object: &ObjectRef) -> Vec<Problem> {
        let about = |problem: &&Problem| problem.object.as_ref() == Some(object);
        let is_root = object.namespace == self.root_namespace() || object.namespace == SYSTEM_NAMESPACE;
        let single = [object.namespace.as_str(), object.name.as_str()];
        let said: Vec<&Said> =
            match is_root || matches!(object.kind.as_str(), "DestinationRule" | "Sidecar" | "Service") {
                true => self.said().collect(),
                false => single
                    .iter()
                    .filter_map(|name| Some(&self.pieces.get(*name)?.said))
                    .collect(),
            };
        let found = said
            .into_iter()
            .flat_map(|said| said.problems.iter().filter(about));
        let mut found: Vec<Problem> = found.cloned().collect();
        crate::report::order(&mut found);
        found
    }

    /// Whether the problems are those of another one.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let settings = |whole: &Self| whole.common.as_ref().map(|common| common.said.clone());
        let one =
            |piece: Option<&Arc<Piece>>| piece.map(|piece| piece.said.problems.clone()).unwrap_or_default();
        let names = differing(&self.pieces, &other.pieces);
        settings(self) == settings(other)
            && names
                .iter()
                .all(|name| one(self.pieces.get(name)) == one(other.pieces.get(name)))
    }

    /// Whether the Services are those of another one, pointer by pointer, in each namespace that was compiled since.
    pub fn serves_the_same(&self, other: &Self) -> bool {
        let names = differing(&self.pieces, &other.pieces);
        names.iter().all(|name| {
            let services = |whole: &Self| {
                whole
                    .pieces
                    .get(name)
                    .map(|piece| piece.services.clone())
                    .unwrap_or_default()
            };
            let (a, b) = (services(self), services(other));
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| Arc::ptr_eq(a, b))
        })
    }

    /// Namespaces of which something was compiled that is another one than in `other`.
    pub fn differs_from(&self, other: &Self) -> BTreeSet<Arc<str>> {
        differing(&self.pieces, &other.pieces)
    }

    /// The pods of a namespace, for people.
    pub fn pods_of(&self, namespace: &str) -> impl Iterator<Item = PodView> {
        self.pieces
            .get(namespace)
            .into_iter()
            .flat_map(|piece| piece.views())
    }

    /// The namespace whose objects count everywhere.
    pub fn root_namespace(&self) -> &str {
        self.common
            .as_ref()
            .map_or(SYSTEM_NAMESPACE, |common| &common.mesh.root_namespace)
    }

    /// The settings of the mesh.
    pub fn mesh(&self) -> Option<&Arc<Mesh>> {
        self.common.as_ref().map(|common| &common.mesh)
    }

    /// Cluster addresses for pods outside the mesh; the same on every node.
    pub fn plain_services(&self) -> impl Iterator<Item = PlainService> {
        let mut all: Vec<&Arc<Service>> = self.pieces.values().flat_map(|piece| &piece.services).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        crate::services::plain(&all).into_iter()
    }

    /// The pods, for people; ordered by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = PodView> {
        self.pieces.values().flat_map(|piece| piece.views())
    }

    /// Where keys have to be fetched from, and how long that may take, in milliseconds.
    pub fn key_sources(&self) -> BTreeMap<String, u64> {
        let mut all: BTreeMap<String, u64> = BTreeMap::new();
        for (source, timeout) in self.pieces.values().flat_map(|piece| &piece.key_sources) {
            let longest = all.entry(source.clone()).or_default();
            *longest = (*longest).max(*timeout);
        }
        let config = self
            .common
            .as_ref()
            .and_then(|common| common.mesh_config.as_ref());
        let config = config.and_then(mesh_config);
        all.extend(config.into_iter().flat_map(|config| roots::wanted(config.body)));
        all
    }

    /// What belongs to each node.
    pub fn nodes(&self) -> &BTreeMap<Arc<str>, Arc<Resources>> {
        &self.nodes
    }
}
