//! What is in force, as one value that never changes: answers are read from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use admin::verbs::ProblemLine;
use api::{ObjectRef, Problem, Severity};
use compiler::{Compiled, Effect};
use snapshot::{Mesh, Resource, ResourceName, Resources};
use xds::server::{Server, Update};

use crate::layers::{Held, Key};
use crate::world::Frozen;

/// How many problems are told at once.
const MAX_PROBLEMS: usize = 10_000;
/// There is more than is told.
const TOO_MANY: &str = "MW0605";
/// A snapshot cannot be published.
pub(crate) const UNPUBLISHED: &str = "MW0606";
/// A kind that is not acted on; told by the reader once a file.
pub(crate) const NOT_ACTED_ON: &str = "MW0105";

/// A world, what it compiles to, and what was published of it.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) frozen: Arc<Frozen>,
    pub(crate) compiled: Compiled,
    /// The version of each node's snapshot; a node whose snapshot cannot be published has none.
    pub(crate) versions: BTreeMap<String, u64>,
    /// Of the texts, of the compiler, and our own; each once.
    pub(crate) problems: Vec<Problem>,
    pub(crate) mesh: Option<Arc<Mesh>>,
    /// Places in `problems`.
    by_object: HashMap<ObjectRef, Vec<usize>>,
}

impl View {
    /// Compiles a world, and publishes what of it is another than in the view before where there is a server.
    pub(crate) fn compile(frozen: Arc<Frozen>, server: Option<(&Server, &Self)>) -> Self {
        let mut compiled = compiler::compile(&frozen.world());
        if let Some((_, before)) = server {
            adopt(&mut compiled, &before.compiled);
        }
        let mut versions = BTreeMap::new();
        let mut problems = frozen.problems.clone();
        problems.extend(frozen.trust_domain_problem());
        problems.extend(frozen.roots_problems());
        problems.extend(compiled.problems.iter().cloned());
        if let Some((server, before)) = server {
            let mut published = server.update(&difference(before, &compiled));
            for (node, error) in published.refused {
                published.versions.remove(&node);
                let message = format!("the snapshot of node {node} is not published: {error}");
                problems.push(
                    Problem::new(Severity::Error, UNPUBLISHED, message)
                        .remedy("the one before stays in force"),
                );
            }
            versions = published.versions;
        }
        let problems = bound(problems);
        let mut by_object: HashMap<ObjectRef, Vec<usize>> = HashMap::new();
        for (at, problem) in problems.iter().enumerate() {
            if let Some(object) = &problem.object {
                by_object.entry(object.clone()).or_default().push(at);
            }
        }
        let mesh = compiled.nodes.values().next().and_then(|resources| {
            match resources.get(&ResourceName::mesh())?.as_ref() {
                Resource::Mesh(mesh) => Some(Arc::clone(mesh)),
                _ => None,
            }
        });
        Self {
            frozen,
            compiled,
            versions,
            problems,
            mesh,
            by_object,
        }
    }

    pub(crate) fn effect(&self, reference: &ObjectRef) -> Option<&Effect> {
        let effects = &self.compiled.effects;
        let at = effects
            .binary_search_by(|effect| effect.object.cmp(reference))
            .ok()?;
        effects.get(at)
    }

    /// The object of that name; of several the first.
    pub(crate) fn held(&self, key: &Key) -> Option<&Arc<Held>> {
        let first = self.frozen.held.partition_point(|held| held.key < *key);
        self.frozen.held.get(first).filter(|held| held.key == *key)
    }

    /// What was found about an object beyond its own text.
    pub(crate) fn findings(&self, held: &Held) -> Vec<&Problem> {
        let places = self.by_object.get(&held.key.reference());
        let about = places
            .into_iter()
            .flatten()
            .filter_map(|at| self.problems.get(*at));
        about.filter(|problem| !held.problems.contains(problem)).collect()
    }

    /// Nodes that a change of the object concerns, seen from the view before.
    pub(crate) fn concerned(&self, before: &Self, key: &Key) -> BTreeSet<String> {
        let reference = key.reference();
        let effects = [before.effect(&reference), self.effect(&reference)];
        if effects.iter().any(Option::is_some) {
            let nodes = effects.into_iter().flatten().flat_map(|effect| &effect.nodes);
            return nodes.cloned().collect();
        }
        let changed = self
            .versions
            .iter()
            .filter(|(node, version)| before.versions.get(*node) != Some(version));
        changed.map(|(node, _)| node.clone()).collect()
    }

    /// A problem as it is told under the profile in force.
    pub(crate) fn line(&self, problem: &Problem) -> ProblemLine {
        let lenient = self.frozen.profile == model::Profile::Istio && problem.only_secure();
        let severity = if lenient {
            Severity::Warning
        } else {
            problem.severity
        };
        ProblemLine {
            severity: severity.to_string(),
            code: problem.code.to_string(),
            file: problem.file.clone(),
            line: problem.line,
            column: problem.column,
            message: problem.message.clone(),
            remedy: problem.remedy.clone().unwrap_or_default(),
        }
    }
}

/// What is as it was before is held once, by us and by the server.
fn adopt(now: &mut Compiled, before: &Compiled) {
    now.shared = now.shared.adopt_shared(&before.shared);
    for (node, resources) in &mut now.nodes {
        *resources = resources.adopt(before.nodes.get(node), &now.shared);
    }
}

/// What is to be published, where `before` is.
fn difference(before: &View, now: &Compiled) -> Update {
    let own = |resources: &Resources| -> Resources {
        resources
            .own()
            .map(|(_, resource)| Arc::clone(resource))
            .collect()
    };
    // A node that kept what it had is told again, and what comes of it is.
    let same = |node: &String, resources: &Resources| {
        let held = before.compiled.nodes.get(node);
        before.versions.contains_key(node) && held.is_some_and(|held| held.own().eq(resources.own()))
    };
    let changed = now.nodes.iter().filter(|(node, now)| !same(node, now));
    Update {
        shared: before.compiled.shared.diff(&now.shared),
        nodes: changed.map(|(node, now)| (node.clone(), own(now))).collect(),
    }
}

/// Each problem once, and no more than can be told; errors are the last to be left out.
fn bound(mut problems: Vec<Problem>) -> Vec<Problem> {
    let mut told = BTreeSet::new();
    problems.retain(|problem| told.insert(key(problem)));
    if problems.len() > MAX_PROBLEMS {
        let more = problems.len() - MAX_PROBLEMS;
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
        problems.truncate(MAX_PROBLEMS);
        let message = format!("{more} more problems are not shown");
        problems.push(Problem::new(Severity::Warning, TOO_MANY, message).remedy("mend those that are"));
    }
    problems
}

/// What makes a problem another one.
pub(crate) fn key(problem: &Problem) -> (String, u32, u32, String, String) {
    let (file, message) = (problem.file.clone(), problem.message.clone());
    (
        file,
        problem.line,
        problem.column,
        problem.code.to_string(),
        message,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_told_once_and_errors_are_left_out_last() {
        let warning = |n: usize| Problem::new(Severity::Warning, "MW0001", n.to_string());
        let error = || Problem::new(Severity::Error, "MW0002", "broken");
        let few = bound(vec![warning(1), error(), warning(1)]);
        assert_eq!(few, [warning(1), error()]);
        let mut many: Vec<_> = (0..MAX_PROBLEMS).map(warning).collect();
        many.push(error());
        let told = bound(many);
        assert_eq!(told.len(), MAX_PROBLEMS + 1);
        assert_eq!(told[0], error());
        assert_eq!(told[MAX_PROBLEMS].message, "1 more problems are not shown");
    }
}
