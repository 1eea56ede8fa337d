//! The world at one moment: what lies in which file, and all of it frozen for the compiler.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Class, Kind, Parsed, Pod, Problem, Severity};
use model::{Profile, TrustDomain};

use crate::layers::{Held, Key};

/// A file is broken, and what it held before is used.
const KEPT: &str = "MW0601";
/// Where MeshConfig lies.
pub(crate) const CONFIGURATION: &str = "istio-system";
/// MeshConfig names another trust domain than the CA has.
const TRUST_DOMAIN: &str = "MW0603";
/// Roots that proxies cannot use.
const UNUSABLE_ROOTS: &str = "MW0608";

/// What a file holds.
#[derive(Debug, Default)]
pub(crate) struct FileEntry {
    pub(crate) objects: Vec<Arc<Held>>,
    pub(crate) problems: Vec<Problem>,
    /// What messages call the file, and the text that the objects are from.
    pub(crate) good: Option<(String, Arc<str>)>,
    /// Whether the objects are from a text that is not there any more, because the one that is cannot be used.
    pub(crate) is_old: bool,
}

/// A key stands twice in a map: the one such mistake in YAML that leaves an object to speak of.
const KEY_TWICE: &str = "MW0007";

/// Reads a text. A key that stands twice in an object that is kept is told of that object.
pub(crate) fn parse(file: &str, bytes: &[u8]) -> Parsed {
    let mut parsed = api::parse(file, bytes);
    let Parsed {
        objects, problems, ..
    } = &mut parsed;
    for problem in problems
        .iter_mut()
        .filter(|p| p.code == KEY_TWICE && p.object.is_none())
    {
        let around = objects.iter().rfind(|object| object.origin.line <= problem.line);
        problem.object = around
            .filter(|object| object.invalid.is_some())
            .map(api::Object::reference);
    }
    parsed
}

/// Whether after this problem it is not known what the text was to hold.
pub(crate) fn is_unreadable(problem: &Problem) -> bool {
    let of_yaml = problem.code.starts_with("MW00") && problem.code != KEY_TWICE;
    problem.severity == Severity::Error && problem.object.is_none() && of_yaml
}

/// How far a text can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Soundness {
    /// Wholly. Security objects that are invalid deny.
    Sound,
    /// Some objects are broken.
    Broken,
    /// It is not known what it was to hold.
    Unreadable,
}

pub(crate) fn soundness(parsed: &Parsed) -> Soundness {
    let excused = |problem: &Problem| {
        let held = |reference| {
            parsed
                .objects
                .iter()
                .find(|object| object.reference() == reference)
        };
        problem.only_secure() || problem.object.clone().and_then(held).is_some_and(is_security)
    };
    let mut found = Soundness::Sound;
    for problem in parsed.problems.iter().filter(|p| p.severity == Severity::Error) {
        if is_unreadable(problem) {
            return Soundness::Unreadable;
        }
        if !excused(problem) {
            found = Soundness::Broken;
        }
    }
    found
}

fn is_security(object: &api::Object) -> bool {
    let group = object.api_version.split_once('/').map_or("", |(group, _)| group);
    let known = api::known_kinds()
        .iter()
        .find(|known| known.group == group && known.kind == object.kind_name);
    known.is_some_and(api::KnownKind::is_security) || object.class == Class::SecurityNotActedOn
}

impl FileEntry {
    /// What a file holds now that its text is another one. A text that breaks leaves what there was in force; where
    /// there was nothing, the objects that are sound are used, and none of a text that cannot be read to its end.
    pub(crate) fn next(
        self,
        (shown, text): (String, Arc<str>),
        parsed: Parsed,
        mut hold: impl FnMut(api::Object, &[Problem]) -> Arc<Held>,
    ) -> Self {
        let soundness = soundness(&parsed);
        if soundness != Soundness::Sound && !self.objects.is_empty() {
            let mut problems = parsed.problems;
            problems.push(kept(&shown));
            return self.stays(problems);
        }
        let objects = match soundness {
            Soundness::Unreadable => Vec::new(),
            _ => parsed
                .objects
                .into_iter()
                .map(|object| hold(object, &parsed.problems))
                .collect(),
        };
        Self {
            objects,
            problems: parsed.problems,
            good: Some((shown, text)),
            is_old: false,
        }
    }

    /// The same objects, although the file cannot be used as it is.
    pub(crate) fn stays(self, problems: Vec<Problem>) -> Self {
        Self {
            problems,
            is_old: !self.objects.is_empty(),
            ..self
        }
    }
}

fn kept(file: &str) -> Problem {
    let message = "the file is broken; what it held before stays in force";
    let mut problem = Problem::new(Severity::Warning, KEPT, message).remedy("mend the file");
    problem.file = file.to_owned();
    problem
}

/// A pod that exists.
#[derive(Debug)]
pub(crate) struct Reported {
    /// As it was reported, JSON.
    pub(crate) text: Box<str>,
    pub(crate) pod: Arc<Pod>,
}

/// The objects by the namespace that they are compiled with, by key; there may be several of one name.
pub(crate) type InForce = BTreeMap<Arc<str>, Arc<BTreeMap<Key, Vec<Arc<Held>>>>>;

/// The pods by namespace and name.
pub(crate) type Pods = BTreeMap<Arc<str>, Arc<BTreeMap<String, Arc<Reported>>>>;

impl Reported {
    /// `namespace/name`.
    pub(crate) fn name(&self) -> String {
        let meta = &self.pod.metadata;
        format!("{}/{}", meta.namespace, meta.name)
    }
}

/// Everything that is compiled, and what is known to be wrong with it before. What lies in a namespace of which nothing has
/// changed is the same as in the one before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frozen {
    /// Grows with each change.
    pub(crate) revision: u64,
    pub(crate) in_force: Arc<InForce>,
    pub(crate) pods: Arc<Pods>,
    pub(crate) nodes: Arc<Vec<String>>,
    /// PEM.
    pub(crate) roots: Arc<Vec<String>>,
    pub(crate) profile: Profile,
    pub(crate) trust_domain: TrustDomain,
    /// Of the texts.
    pub(crate) problems: Arc<Vec<Problem>>,
    /// Of the control plane's own.
    pub(crate) own_problems: Vec<Problem>,
    /// [`Self::configuration_problems`], which take long to find.
    pub(crate) of_configuration: Arc<Vec<Problem>>,
}

impl Frozen {
    /// All objects, by namespace and key.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Arc<Held>> {
        self.in_force.values().flat_map(|space| space.values()).flatten()
    }

    /// All objects, by key.
    pub(crate) fn sorted(&self) -> Vec<&Arc<Held>> {
        let mut all: Vec<_> = self.held().collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }

    /// The object of that name; of several the first.
    pub(crate) fn find(&self, key: &Key) -> Option<&Arc<Held>> {
        self.in_force.get(key.space())?.get(key)?.first()
    }

    /// All pods, by namespace and name.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &Arc<Reported>> {
        self.pods.values().flat_map(|space| space.values())
    }

    /// What of MeshConfig is not in force, although it can be read.
    pub(crate) fn configuration_problems(&self) -> Vec<Problem> {
        self.trust_domain_problem()
            .into_iter()
            .chain(self.roots_problems())
            .collect()
    }

    /// Roots of MeshConfig that proxies could not use, as the code says that will verify by them: they are in force nowhere.
    fn roots_problems(&self) -> Vec<Problem> {
        let held = self
            .in_force
            .get(CONFIGURATION)
            .into_iter()
            .flat_map(|space| space.values())
            .flatten();
        let configs = held.filter_map(|held| match &held.object.kind {
            Kind::ConfigMap(_, Some(config)) => Some((held, config)),
            _ => None,
        });
        let mut problems = Vec::new();
        for (held, config) in configs {
            let entries = config.ca_certificates.iter().enumerate();
            for (at, entry) in entries.filter(|(_, entry)| !entry.pem.is_empty()) {
                let Err(why) = identity::Anchors::check(&entry.pem) else {
                    continue;
                };
                let message = format!(
                    "`caCertificates[{at}].pem` is accepted, and what cannot be used of it is not in force: {why}"
                );
                let problem = Problem::new(Severity::Error, UNUSABLE_ROOTS, message)
                    .remedy("give roots that can be verified by, or take them out");
                problems.push(held.object.problem(problem, "data.mesh"));
            }
        }
        problems
    }

    /// What MeshConfig wants and cannot have while the mesh runs.
    fn trust_domain_problem(&self) -> Option<Problem> {
        let held = self.in_force.get(CONFIGURATION)?.values().flatten();
        held.into_iter().find_map(|held| {
            let Kind::ConfigMap(_, Some(config)) = &held.object.kind else {
                return None;
            };
            let wanted = config.trust_domain.as_deref().filter(|text| !text.is_empty())?;
            if wanted.replace('@', ".") == self.trust_domain.as_str() {
                return None;
            }
            let message = format!(
                "`trustDomain: {wanted}` is not in force: the identities of the running mesh are of `{}`",
                self.trust_domain
            );
            let problem = Problem::new(Severity::Error, TRUST_DOMAIN, message)
                .remedy("start the mesh again with it, or take it back");
            Some(held.object.problem(problem, "data.mesh"))
        })
    }
}

#[cfg(test)]
mod tests;
