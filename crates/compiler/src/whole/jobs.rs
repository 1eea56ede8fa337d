//! Compiling namespaces again, all steps of those that need it, in the order in which one depends on another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use snapshot::{Resource, Service};

use super::piece::Piece;
use super::{Common, Compilation, Reachable, by_name, hosts_of_providers};
use crate::authn::Authn;
use crate::authn::request::Requests;
use crate::authz::{Authz, Guardrails, Tried};
use crate::destination::Ruling;
use crate::inbound::{self, Guards};
use crate::pods;
use crate::report::Report;
use crate::services::{Found, Ground, Member, Population, Services};
use crate::settings::scopes::scopes;
use crate::settings::telemetry::Telemetries;
use crate::space::{Spaces, age};
use crate::view::{Sky, View, mesh_config, root_namespace};

/// What comes out: the pieces, `None` where there is no namespace any more.
pub(super) struct Made {
    pub(super) providers: Arc<Reachable>,
    pub(super) pieces: BTreeMap<Arc<str>, Option<Piece>>,
}

/// The work.
pub(super) struct Jobs<'w> {
    world: &'w Spaces,
    common: &'w Common,
    /// Namespaces in which something is another one.
    changed: &'w BTreeSet<Arc<str>>,
    /// Whether what was tried of policies still holds.
    keep_tried: bool,
    sky: Sky<'w>,
    people: People<'w>,
    begun: BTreeMap<Arc<str>, Job<'w>>,
    gone: BTreeSet<Arc<str>>,
}

/// One namespace.
struct Job<'w> {
    view: View<'w>,
    report: Report,
    services: Option<Services>,
}

/// The pods of all namespaces.
struct People<'w> {
    before: &'w Compilation,
    world: &'w Spaces,
    /// Of namespaces that are being compiled.
    new: BTreeMap<Arc<str>, Arc<Population>>,
}

impl People<'_> {
    fn of(&self, name: &str) -> Option<&Population> {
        let before = || {
            self.before
                .pieces
                .get(name)
                .map(|piece| piece.population.as_ref())
        };
        self.new.get(name).map(AsRef::as_ref).or_else(before)
    }

    /// The pod at an address: of several the first that is in the mesh, else the first.
    fn at(&self, address: IpAddr) -> Option<Found<'_>> {
        let each = self.world.by_name.keys().filter_map(|name| {
            let population = self.of(name)?;
            let index = population.at(address)?;
            Some(Found { population, index })
        });
        let mut first = None;
        for found in each {
            if found.pod().is_some_and(|pod| pod.identity.is_some()) {
                return Some(found);
            }
            first.get_or_insert(found);
        }
        first
    }
}

impl<'w> Jobs<'w> {
    pub(super) fn new(
        before: &'w Compilation,
        world: &'w Spaces,
        common: &'w Common,
        changed: &'w BTreeSet<Arc<str>>,
        keep_tried: bool,
    ) -> Self {
        let sky = Sky {
            options: &world.options,
            jwks: &world.jwks,
            mesh_config: common.mesh_config.as_ref().and_then(mesh_config),
            root_objects: &common.root_objects,
            spaces: &world.by_name,
        };
        Self {
            world,
            common,
            changed,
            keep_tried,
            sky,
            people: People {
                before,
                world,
                new: BTreeMap::new(),
            },
            begun: BTreeMap::new(),
            gone: BTreeSet::new(),
        }
    }

    /// Compiles these namespaces and all that depend on what becomes of them.
    pub(super) fn run(mut self, dirty: BTreeSet<Arc<str>>) -> Made {
        dirty.into_iter().for_each(|name| self.begin(&name));
        for name in self.who_saw_pods() {
            self.begin(&name);
        }
        self.serve();
        let mut providers = Arc::clone(&self.before().providers);
        let now = self.providers();
        if now != *providers {
            providers = Arc::new(now);
            let all: Vec<_> = self.world.by_name.keys().cloned().collect();
            all.iter().for_each(|name| self.begin(name));
            self.serve();
        }
        let gone = self.gone.iter().map(|name| (Arc::clone(name), None));
        let mut pieces: BTreeMap<_, _> = gone.collect();
        let members: BTreeMap<_, _> = self
            .begun
            .iter()
            .map(|(name, job)| (Arc::clone(name), self.members(name, job)))
            .collect();
        let Self {
            begun,
            people,
            common,
            keep_tried,
            ..
        } = self;
        for (name, job) in begun {
            let before = people.before;
            let tried = before
                .pieces
                .get(&name)
                .filter(|_| keep_tried)
                .map(|piece| &piece.tried);
            let Some(population) = people.new.get(&name) else {
                continue;
            };
            let members = members.get(&name).map(Vec::as_slice).unwrap_or_default();
            let piece = finish(before, common, &name, job, population, members, &providers, tried);
            pieces.insert(name, piece);
        }
        Made { providers, pieces }
    }

    fn before(&self) -> &'w Compilation {
        self.people.before
    }

    /// The pods of a namespace, and what they accept.
    fn begin(&mut self, name: &Arc<str>) {
        if self.begun.contains_key(name) {
            return;
        }
        let Some((own, space)) = self.world.by_name.get_key_value(name) else {
            if self.before().pieces.contains_key(name) {
                self.gone.insert(Arc::clone(name));
            }
            return;
        };
        let view = View::new(own, space, self.sky);
        let mut report = Report::new(&view);
        report.only_own(true);
        let guardrails = Guardrails::new(&view, &mut report);
        let authn = Authn::new(&view, &guardrails, &mut report);
        report.only_own(false);
        let pods = pods::all(&view, &self.common.mesh, &mut report);
        let modes = pods.iter().map(|pod| authn.effective(pod, &mut report)).collect();
        let population = Arc::new(Population::new(pods, modes));
        self.people.new.insert(Arc::clone(name), population);
        let job = Job {
            view,
            report,
            services: None,
        };
        self.begun.insert(Arc::clone(name), job);
    }

    /// Namespaces that list an address of pods that are being looked at, and the root one where a selector of it begins or
    /// ceases to find some.
    fn who_saw_pods(&self) -> Vec<Arc<str>> {
        let before = self.before();
        let touched = |address: &IpAddr| {
            let now = self
                .people
                .new
                .values()
                .any(|population| population.at(*address).is_some());
            let names = self.begun.keys().chain(&self.gone);
            let mut held = names.filter_map(|name| before.pieces.get(name));
            now || held.any(|piece| piece.population.at(*address).is_some())
        };
        let listers = before
            .listers
            .iter()
            .filter(|name| !self.begun.contains_key(*name));
        let concerned = listers.filter(|name| {
            let piece = before.pieces.get(*name);
            piece.is_some_and(|piece| piece.listed.iter().any(touched))
        });
        let mut all: Vec<_> = concerned.cloned().collect();
        let root = root_namespace(self.sky.mesh_config);
        let asked = before
            .pieces
            .get(root)
            .map(|piece| piece.asked.as_slice())
            .unwrap_or_default();
        let other = asked.iter().any(|(labels, found)| {
            self.changed.iter().any(|name| {
                let has = |spaces: &Spaces| spaces.by_name.get(name).is_some_and(|space| space.has(labels));
                let (was, is) = (has(&before.world), has(self.world));
                if *found { was && !is } else { is }
            })
        });
        all.extend(other.then(|| Arc::from(root)));
        all
    }

    /// The Services of all namespaces that have none yet, and of those at whose pods other Services end by that.
    fn serve(&mut self) {
        loop {
            let mut late: BTreeSet<Arc<str>> = BTreeSet::new();
            let before = self.people.before;
            for name in &self.gone {
                late.extend(
                    before
                        .pieces
                        .get(name)
                        .into_iter()
                        .flat_map(|piece| piece.foreign.keys())
                        .cloned(),
                );
            }
            for (name, job) in self.begun.iter_mut().filter(|(_, job)| job.services.is_none()) {
                let Some(own) = self.people.new.get(name) else {
                    continue;
                };
                let ruling = Ruling {
                    secure: job.view.secure(),
                    root_namespace: job.view.root_namespace(),
                    rules: &before.rules,
                };
                let at = |address| self.people.at(address);
                let ground = Ground {
                    view: &job.view,
                    own,
                    ruling,
                    allotment: &before.allotment,
                    at: &at,
                };
                let services = ground.all(&mut job.report);
                ruling.warn(name, &before.hosts, &mut job.report);
                let now = &services.joins.foreign;
                let nothing = BTreeMap::new();
                let held = before.pieces.get(name).map_or(&nothing, |piece| &piece.foreign);
                let names = held.keys().chain(now.keys());
                late.extend(names.filter(|name| held.get(*name) != now.get(*name)).cloned());
                job.services = Some(services);
            }
            late.retain(|name| !self.begun.contains_key(name) && self.world.by_name.contains_key(name));
            if late.is_empty() {
                return;
            }
            late.iter().for_each(|name| self.begin(name));
        }
    }

    /// The providers, by the Services that have their hosts.
    fn providers(&self) -> Reachable {
        let before = self.before();
        let mut found: Vec<Arc<Service>> = Vec::new();
        for host in hosts_of_providers(self.common) {
            for name in before.hosts.of(&host) {
                let list = match self.begun.get(name) {
                    Some(job) => job.services.as_ref().map(|services| services.list.as_slice()),
                    None => before.pieces.get(name).map(|piece| piece.services.as_slice()),
                };
                let list = list.unwrap_or_default().iter();
                found.extend(list.filter(|service| service.host == host).cloned());
            }
        }
        let secure = self.world.options.profile == model::Profile::Secure;
        Reachable::new(self.common, secure, &found)
    }

    /// The Service ports that end at each pod of a namespace, the oldest Service first.
    fn members(&self, own: &Arc<str>, job: &Job<'_>) -> Vec<Vec<Member>> {
        let joins = job.services.as_ref().map(|services| services.joins.own.clone());
        let mut members = joins.unwrap_or_default();
        let Some(population) = self.people.new.get(own) else {
            return members;
        };
        let before = self.before();
        let new = self
            .begun
            .iter()
            .filter_map(|(name, job)| Some((name, &job.services.as_ref()?.joins.foreign)));
        let stays = |name: &&Arc<str>| !self.begun.contains_key(*name) && !self.gone.contains(*name);
        let old = before.listers.iter().filter(stays);
        let old = old.filter_map(|name| Some((name, &before.pieces.get(name)?.foreign)));
        for (_, foreign) in new.chain(old).filter(|(name, _)| *name != own) {
            let Some(here) = foreign.get(own) else {
                continue;
            };
            for (pod, members) in population.pods.iter().zip(&mut members) {
                if let Some(more) = here.get(&pod.uid) {
                    members.extend(more.iter().cloned());
                    members.sort_by(|a, b| age(&a.service, &b.service));
                }
            }
        }
        members
    }
}

fn finish(
    before: &Compilation,
    common: &Common,
    name: &Arc<str>,
    job: Job<'_>,
    population: &Arc<Population>,
    members: &[Vec<Member>],
    providers: &Reachable,
    tried: Option<&Tried>,
) -> Option<Piece> {
    let Job {
        view,
        mut report,
        services,
    } = job;
    let (services, nothing) = (services?, Tried::default());
    let exports = Arc::clone(before.exports.get(name)?);
    // What is to be said of them has been.
    let guardrails = Guardrails::new(&view, &mut Report::of_all());
    report.only_own(true);
    let authz = Authz::new(
        &view,
        &common.mesh,
        &guardrails,
        &providers.authorizers,
        tried.unwrap_or(&nothing),
        &mut report,
    );
    let requests = Requests::new(&view, &mut report);
    let telemetries = Telemetries::new(&view, &providers.tracers, &mut report);
    let scopes = scopes(&view, &mut report);
    report.only_own(false);
    let guards = Guards {
        authz: &authz,
        requests: &requests,
        telemetries: &telemetries,
        scopes: &scopes,
        deny_by_default: common.mesh.deny_by_default,
    };
    let inbounds = inbound::all(&view, population, members, guards, &mut report);
    let workloads = inbound::workloads(population, &inbounds, guards);
    let told = inbound::told(population, &inbounds, guards);
    let (mut said, asked) = report.finish();
    said.add(&exports.said);
    let (entries, asked_for): (Vec<_>, Vec<_>) = services
        .list
        .iter()
        .cloned()
        .partition(|service| service.external.is_some());
    let mut shared: BTreeMap<_, _> = asked_for
        .into_iter()
        .map(Resource::Service)
        .map(by_name)
        .collect();
    shared.extend(workloads.shared);
    let nodes = workloads.nodes.into_iter();
    let nodes = nodes.map(|(node, named)| {
        let sorted: BTreeMap<_, _> = named.into_iter().collect();
        (node, sorted.into_iter().collect())
    });
    Some(Piece {
        exports,
        population: Arc::clone(population),
        services: services.list,
        foreign: services.joins.foreign,
        listed: services.joins.listed,
        shared: shared.into_iter().collect(),
        entries: entries.into_iter().map(Resource::Service).map(Arc::new).collect(),
        nodes: nodes.collect(),
        told,
        key_sources: requests.wanted(),
        said,
        asked,
        tried: authz.tried(),
    })
}
