//! A compiled world that follows the world: of what changes, only what depends on it is compiled again.
//!
//! The unit is a namespace: its objects and pods make one [`Piece`]. A piece is made again where
//!
//! - something in the namespace is another one: an object, a pod, or one of them more or less;
//! - MeshConfig, the operator's options, or an object of the root namespace that counts everywhere is: then all are;
//! - a DestinationRule elsewhere speaks of a host of the namespace, or a host that one of its own rules speaks of comes or goes;
//! - one of its Services gets another cluster address because of Services elsewhere;
//! - it lists an address (Endpoints, EndpointSlice, ServiceEntry) at which a pod elsewhere is or was, or such a list elsewhere names
//!   a pod of it;
//! - a Service that a provider of MeshConfig names comes, goes or changes its ports: then all are;
//! - keys that its tokens are verified by are others;
//! - it is the root namespace, and one of its selectors begins or ceases to find a pod.
//!
//! What is compiled is the same as all of it anew, which [`crate::compile`] does by this very code, and a property test holds.

mod exports;
mod jobs;
mod piece;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::Object;
use model::{Host, ServiceName};
use routing::host::Pattern;
use snapshot::{Delta, Mesh, Resource, ResourceName, Resources, Service};

use crate::addresses::{Allotment, Claim, Claims};
use crate::authz::Providers;
use crate::destination::{Hosts, Rules};
use crate::report::{Report, Said};
use crate::settings::{self, telemetry::Tracers};
use crate::space::{Space, Spaces, age};
use crate::view::{Of, SYSTEM_NAMESPACE, Sky, View, counts_everywhere, mesh_config, root_namespace};
use exports::Exports;
use jobs::Jobs;
use piece::Piece;

/// More claims of addresses than this at once are looked at with all others.
const MANY_CLAIMS: usize = 256;

/// A world and what it compiles to, of which a clone costs little.
#[derive(Clone, Debug, Default)]
pub struct Compilation {
    world: Spaces,
    common: Option<Arc<Common>>,
    exports: Arc<BTreeMap<Arc<str>, Arc<Exports>>>,
    rules: Arc<Rules>,
    hosts: Arc<Hosts>,
    allotment: Arc<Allotment>,
    providers: Arc<Reachable>,
    pieces: Arc<BTreeMap<Arc<str>, Arc<Piece>>>,
    /// Namespaces that list addresses.
    listers: Arc<BTreeSet<Arc<str>>>,
    /// Names of resources that several namespaces have had.
    doubles: Arc<BTreeSet<ResourceName>>,
    /// What every node's proxy has.
    everywhere: Arc<Vec<Arc<Resource>>>,
    /// By node, the namespaces that have pods in the mesh there.
    residents: Arc<BTreeMap<Arc<str>, BTreeSet<Arc<str>>>>,
    /// What belongs to each node.
    nodes: Arc<BTreeMap<Arc<str>, Arc<Resources>>>,
}

/// The settings of the mesh, and what they are made of.
#[derive(Debug)]
struct Common {
    mesh: Arc<Mesh>,
    mesh_config: Option<Arc<Object>>,
    root_objects: Vec<Arc<Object>>,
    said: Said,
}

/// What of MeshConfig's providers can be asked.
#[derive(Clone, PartialEq, Debug, Default)]
struct Reachable {
    authorizers: Providers,
    tracers: Tracers,
}

/// What a change has led to.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Of Services and workloads that proxies ask for.
    pub shared: Delta,
    /// What belongs to a node, whole, of those nodes of which it is another one.
    pub nodes: BTreeMap<String, Resources>,
    /// Namespaces that were compiled.
    pub compiled: BTreeSet<Arc<str>>,
    /// Pods that were looked at.
    pub pods: usize,
}

impl Compilation {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The world that it is of.
    pub fn world(&self) -> &Spaces {
        &self.world
    }

    /// Brings it to another world. Takes time with what differs, and a look at the pointer of each namespace.
    pub fn update(&mut self, world: Spaces) -> Touched {
        let changed = differing(&self.world.by_name, &world.by_name);
        let first = self.common.is_none();
        let new_options = first || !Arc::ptr_eq(&self.world.options, &world.options);
        if new_options {
            self.allotment = Arc::new(Allotment::new(&world.options.dns_vips));
        }
        let mut dirty = self.take_exports(&world, &changed, new_options);
        let before = self.common.clone();
        let common = self.settings(&world, &changed, new_options);
        let same_mesh = before.as_ref().is_some_and(|before| before.mesh == common.mesh);
        let same_config = !new_options
            && before
                .as_ref()
                .is_some_and(|before| same(&before.mesh_config, &common.mesh_config));
        let same_sky = same_config
            && before.is_some_and(|before| {
                let pairs = before.root_objects.iter().zip(&common.root_objects);
                before.root_objects.len() == common.root_objects.len()
                    && pairs.into_iter().all(|(a, b)| Arc::ptr_eq(a, b))
            });
        self.common = Some(Arc::clone(&common));
        if !same_sky {
            dirty.extend(world.by_name.keys().cloned());
        }
        dirty.extend(self.other_keys(&world));
        let made = Jobs::new(self, &world, &common, &changed, same_config).run(dirty);
        let same_roots = !first && self.world.roots == world.roots;
        self.world = world;
        self.providers = made.providers;
        self.take_in(made.pieces, same_mesh && same_roots)
    }

    /// Takes in what namespaces say to others; returns those that it is said to.
    fn take_exports(
        &mut self,
        world: &Spaces,
        changed: &BTreeSet<Arc<str>>,
        new_options: bool,
    ) -> BTreeSet<Arc<str>> {
        let mut dirty = changed.clone();
        let looked_at: BTreeSet<_> = match new_options {
            true => changed.iter().chain(world.by_name.keys()).cloned().collect(),
            false => changed.clone(),
        };
        let nothing = Arc::new(Exports::default());
        let (mut claimed, mut claim): (Claims, Claims) = Default::default();
        let all = Arc::make_mut(&mut self.exports);
        for name in &looked_at {
            let before = all.remove(name).unwrap_or_else(|| Arc::clone(&nothing));
            let now = match world.by_name.get(name) {
                Some(space) => Arc::new(Exports::of(space, &world.options, &before)),
                None => Arc::clone(&nothing),
            };
            if new_options || !now.has_rules_of(&before) {
                let patterns = before.rules.iter().chain(&now.rules).map(|rule| &rule.pattern);
                for pattern in patterns {
                    match pattern {
                        Pattern::Exact(host) => dirty.extend(self.hosts.of(host).cloned()),
                        Pattern::Suffix(_) | Pattern::Any => dirty.extend(world.by_name.keys().cloned()),
                    }
                }
                Arc::make_mut(&mut self.rules).set(name, now.rules.clone());
            }
            if now.hosts != before.hosts {
                let hosts = Arc::make_mut(&mut self.hosts);
                for host in hosts.set(name, &before.hosts, &now.hosts) {
                    dirty.extend(self.rules.about(&host).into_iter().cloned());
                }
            }
            claimed.extend(before.claims.iter().map(owned));
            claim.extend(now.claims.iter().map(owned));
            if world.by_name.contains_key(name) {
                all.insert(Arc::clone(name), now);
            }
        }
        if new_options {
            claimed.clear();
        }
        let is_same = |(name, one): (&ServiceName, &Claim)| {
            claimed
                .get(name)
                .is_some_and(|other| Arc::ptr_eq(&one.object, &other.object))
        };
        if new_options || claimed.len() != claim.len() || !claim.iter().all(is_same) {
            let allotment = Arc::make_mut(&mut self.allotment);
            let all = || all.values().flat_map(|exports| &exports.claims).collect();
            let concerned = allotment.change(&claimed, &claim, MANY_CLAIMS, all);
            let spaces = concerned.iter().map(ServiceName::namespace);
            dirty.extend(spaces.filter_map(|name| Some(world.by_name.get_key_value(name)?.0.clone())));
        }
        dirty
    }

    /// The settings of the mesh; the very ones from before, where nothing of them is another one.
    fn settings(&self, world: &Spaces, changed: &BTreeSet<Arc<str>>, new_options: bool) -> Arc<Common> {
        let system = world.by_name.get(SYSTEM_NAMESPACE);
        let config = system.and_then(|space| space.objects.iter().filter_map(mesh_config).next_back());
        let root = root_namespace(config);
        let mesh_config = config.map(|of| Arc::clone(of.object));
        let sidecars = |exports: &BTreeMap<Arc<str>, Arc<Exports>>| {
            let each = exports.values().flat_map(|exports| &exports.sidecars);
            let mut all: Vec<_> = each.cloned().collect();
            all.sort_by(|a, b| age(a, b));
            all
        };
        if let Some(before) = self.common.as_ref().filter(|_| !new_options) {
            let quiet = changed.iter().all(|name| {
                let exports = self.exports.get(name);
                let held = self.pieces.get(name).map(|piece| &piece.exports.sidecars);
                let now = exports.map(|exports| &exports.sidecars);
                let same_sidecars = match (held, now) {
                    (Some(a), Some(b)) => {
                        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
                    }
                    (Some(one), None) | (None, Some(one)) => one.is_empty(),
                    (None, None) => true,
                };
                same_sidecars && name.as_ref() != root
            });
            let bundles = mesh_config.as_ref().and_then(crate::view::mesh_config);
            let mut bundles = bundles
                .into_iter()
                .flat_map(|config| settings::roots::wanted(config.body));
            let same_bundles =
                bundles.all(|(source, _)| self.world.jwks.get(&source) == world.jwks.get(&source));
            if quiet && same_bundles && same(&before.mesh_config, &mesh_config) {
                return Arc::clone(before);
            }
        }
        let root_objects: Vec<_> = world.by_name.get(root).map_or_else(Vec::new, |space| {
            let all = space.objects.iter();
            all.filter(|object| counts_everywhere(object)).cloned().collect()
        });
        let sidecars = sidecars(&self.exports);
        let mut report = Report::of_all();
        let mesh = {
            let sky = Sky {
                options: &world.options,
                jwks: &world.jwks,
                mesh_config: mesh_config.as_ref().and_then(crate::view::mesh_config),
                root_objects: &[],
                spaces: &world.by_name,
            };
            let nothing = Space::default();
            let view = View::of_sidecars(&sidecars, sky, &nothing);
            // What is to be said of each is told by its namespace.
            let scopes = settings::scopes::scopes(&view, &mut Report::of_all());
            settings::mesh(&view, &scopes, &mut report)
        };
        Arc::new(Common {
            mesh: Arc::new(mesh),
            mesh_config,
            root_objects,
            said: report.finish().0,
        })
    }

    /// Namespaces whose tokens are verified by other keys now.
    fn other_keys(&self, world: &Spaces) -> BTreeSet<Arc<str>> {
        let (before, now) = (&self.world.jwks, &world.jwks);
        if Arc::ptr_eq(before, now) || before == now {
            return BTreeSet::new();
        }
        let named = self.pieces.iter().filter(|(_, piece)| {
            let mut sources = piece.key_sources.keys();
            sources.any(|source| before.get(source) != now.get(source))
        });
        named.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Takes in what was made, and tells what is another one by it.
    fn take_in(&mut self, made: BTreeMap<Arc<str>, Option<Piece>>, same_mesh: bool) -> Touched {
        let mut touched = Touched::default();
        let mut nodes: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut same_everywhere = same_mesh;
        let (first, mut fresh) = (self.pieces.is_empty(), BTreeSet::new());
        let pieces = Arc::make_mut(&mut self.pieces);
        for (name, now) in made {
            touched.compiled.insert(Arc::clone(&name));
            let before = pieces.remove(&name);
            let mut now = now;
            if let (Some(now), Some(before)) = (&mut now, &before) {
                now.adopt(before);
            }
            let (held, has) = (before.as_deref(), now.as_ref());
            let shared =
                |piece: Option<&'_ Piece>| piece.map(|piece| piece.shared.clone()).unwrap_or_default();
            difference(&shared(held), &shared(has), &mut touched.shared, &mut fresh);
            let entries =
                |piece: Option<&Piece>| piece.map(|piece| piece.entries.clone()).unwrap_or_default();
            same_everywhere &= entries(held) == entries(has);
            let of_nodes = [held, has]
                .into_iter()
                .flatten()
                .flat_map(|piece| piece.nodes.keys());
            for node in of_nodes.cloned().collect::<BTreeSet<_>>() {
                let part = |piece: Option<&Piece>| piece.and_then(|piece| piece.nodes.get(&node).cloned());
                if part(held) == part(has) {
                    continue;
                }
                let residents = Arc::make_mut(&mut self.residents)
                    .entry(Arc::clone(&node))
                    .or_default();
                match part(has) {
                    Some(_) => drop(residents.insert(Arc::clone(&name))),
                    None => drop(residents.remove(&name)),
                }
                nodes.insert(node);
            }
            let lists = has.is_some_and(|piece| !piece.listed.is_empty());
            if lists != self.listers.contains(&name) {
                let listers = Arc::make_mut(&mut self.listers);
                match lists {
                    true => drop(listers.insert(Arc::clone(&name))),
                    false => drop(listers.remove(&name)),
                }
            }
            if let Some(piece) = now {
                touched.pods += piece.population.pods.len();
                pieces.insert(name, Arc::new(piece));
            }
        }
        if first {
            let mut seen = BTreeSet::new();
            let names = self
                .pieces
                .values()
                .flat_map(|piece| &piece.shared)
                .map(|(name, _)| name);
            let doubles = names.filter(|name| !seen.insert(*name)).cloned().collect();
            self.doubles = Arc::new(doubles);
        } else {
            self.settle(&mut touched.shared, &fresh);
        }
        if !same_everywhere {
            self.everywhere = Arc::new(self.of_every_node());
        }
        let all: BTreeSet<Arc<str>> = self
            .world
            .nodes
            .iter()
            .map(|node| Arc::from(node.as_str()))
            .collect();
        if self.nodes.keys().any(|node| !all.contains(node)) {
            Arc::make_mut(&mut self.nodes).retain(|node, _| all.contains(node));
        }
        for node in all {
            if same_everywhere && !nodes.contains(&node) && self.nodes.contains_key(&node) {
                continue;
            }
            let own = self.of_node(&node);
            touched.nodes.insert(node.as_ref().to_owned(), own.clone());
            Arc::make_mut(&mut self.nodes).insert(node, Arc::new(own));
        }
        touched
    }

    /// Names that are in several namespaces, which is wrong and happens: the last of them by the name of the namespace has it, as
    /// in a world that is compiled anew.
    fn settle(&mut self, delta: &mut Delta, fresh: &BTreeSet<ResourceName>) {
        let pieces = Arc::clone(&self.pieces);
        let there = |name: &ResourceName| -> Vec<Arc<Resource>> {
            let each = pieces.values().filter_map(|piece| {
                let at = piece.shared.binary_search_by(|(held, _)| held.cmp(name)).ok()?;
                piece.shared.get(at).map(|(_, resource)| Arc::clone(resource))
            });
            each.collect()
        };
        for name in fresh.iter().filter(|name| there(name).len() > 1) {
            Arc::make_mut(&mut self.doubles).insert(name.clone());
        }
        if self.doubles.is_empty() {
            return;
        }
        let updated = delta.updated.iter().map(|resource| resource.name());
        let doubtful = updated
            .chain(delta.removed.iter().cloned())
            .filter(|name| self.doubles.contains(name));
        let last: BTreeMap<_, _> = doubtful
            .filter_map(|name| Some((name.clone(), there(&name).pop()?)))
            .collect();
        if last.is_empty() {
            return;
        }
        delta.removed.retain(|name| !last.contains_key(name));
        delta
            .updated
            .retain(|resource| !last.contains_key(&resource.name()));
        delta.updated.extend(last.into_values());
    }

    /// What entries declare is found by addresses and hosts that nobody can be asked about by name: every proxy has it.
    fn of_every_node(&self) -> Vec<Arc<Resource>> {
        let mesh = self
            .common
            .iter()
            .map(|common| Resource::Mesh(Arc::clone(&common.mesh)));
        let roots = std::iter::once(Resource::Roots(self.world.roots.to_vec()));
        let entries = self.pieces.values().flat_map(|piece| &piece.entries);
        let made = mesh.chain(roots).map(Arc::new);
        made.chain(entries.cloned()).collect()
    }

    fn of_node(&self, node: &str) -> Resources {
        let mut own: Resources = self.everywhere.iter().cloned().collect();
        let residents = self.residents.get(node).into_iter().flatten();
        let parts = residents.filter_map(|name| self.pieces.get(name)?.nodes.get(node));
        parts
            .flatten()
            .for_each(|(name, resource)| own.put(name.clone(), Arc::clone(resource)));
        own
    }
}

fn owned((name, claim): (&ServiceName, &Claim)) -> (ServiceName, Claim) {
    (name.clone(), claim.clone())
}

fn same(a: &Option<Arc<Object>>, b: &Option<Arc<Object>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// The names under which not the same thing lies.
fn differing<T>(a: &BTreeMap<Arc<str>, Arc<T>>, b: &BTreeMap<Arc<str>, Arc<T>>) -> BTreeSet<Arc<str>> {
    let other = |(name, space): (&Arc<str>, &Arc<T>), in_that: &BTreeMap<Arc<str>, Arc<T>>| {
        let same = in_that.get(name).is_some_and(|held| Arc::ptr_eq(held, space));
        (!same).then(|| Arc::clone(name))
    };
    let gone = a.iter().filter_map(|one| other(one, b));
    gone.chain(b.iter().filter_map(|one| other(one, a))).collect()
}

/// What leads from one list to the other, and which names are new; both are ordered by name.
fn difference(
    before: &piece::Named,
    now: &piece::Named,
    delta: &mut Delta,
    fresh: &mut BTreeSet<ResourceName>,
) {
    let mut before = before.iter().peekable();
    for (name, new) in now {
        while let Some((gone, _)) = before.next_if(|(old, _)| old < name) {
            delta.removed.push(gone.clone());
        }
        match before.next_if(|(old, _)| old == name) {
            Some((_, old)) if Arc::ptr_eq(old, new) || old == new => {}
            Some(_) => delta.updated.push(Arc::clone(new)),
            None => {
                fresh.insert(name.clone());
                delta.updated.push(Arc::clone(new));
            }
        }
    }
    delta.removed.extend(before.map(|(name, _)| name.clone()));
}

/// The names of all hosts that providers of MeshConfig are at.
fn hosts_of_providers(common: &Common) -> BTreeSet<Host> {
    let Some(config) = common.mesh_config.as_ref().and_then(mesh_config) else {
        return BTreeSet::new();
    };
    let named = Providers::hosts(config)
        .into_iter()
        .chain(settings::telemetry::hosts(config.body));
    named.filter_map(|host| host.parse().ok()).collect()
}

impl Reachable {
    /// By these Services, which are all that have one of [`hosts_of_providers`].
    fn new(common: &Common, secure: bool, services: &[Arc<Service>]) -> Self {
        let config: Option<Of<'_, _>> = common.mesh_config.as_ref().and_then(mesh_config);
        Self {
            authorizers: Providers::new(config, secure, services),
            tracers: config
                .map(|config| settings::telemetry::tracers(config.body, services))
                .unwrap_or_default(),
        }
    }
}

/// A resource by its own name, in lists that are kept by name.
fn by_name(resource: Resource) -> (ResourceName, Arc<Resource>) {
    (resource.name(), Arc::new(resource))
}
