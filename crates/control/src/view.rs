//! What is in force, as one value that never changes: answers are read from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use admin::verbs::ProblemLine;
use api::{ObjectRef, Problem, Severity};
use compiler::{Compilation, Effect, Touched};
use snapshot::Mesh;
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
    pub(crate) frozen: Frozen,
    pub(crate) whole: Compilation,
    /// The version of each node's snapshot; a node whose snapshot cannot be published has none.
    pub(crate) versions: BTreeMap<String, u64>,
    /// Found when it was published.
    found: Vec<Problem>,
    /// All problems, once somebody asks for them.
    problems: OnceLock<Vec<Problem>>,
}

impl View {
    /// Of a world that is compiled.
    pub(crate) fn new(frozen: Frozen, whole: Compilation) -> Self {
        Self {
            found: frozen.of_configuration.as_ref().clone(),
            frozen,
            whole,
            ..Self::default()
        }
    }

    /// Publishes what another world has led to. Returns the nodes that keep what they had, which are to be told again.
    pub(crate) fn publish(
        &mut self,
        touched: Touched,
        again: &BTreeSet<String>,
        server: &Server,
    ) -> BTreeSet<String> {
        let mut update = Update {
            shared: touched.shared,
            nodes: touched.nodes,
        };
        for node in again
            .iter()
            .filter(|node| !update.nodes.contains_key(*node))
            .collect::<Vec<_>>()
        {
            if let Some(own) = self.whole.nodes().get(node.as_str()) {
                update.nodes.insert(node.clone(), own.as_ref().clone());
            }
        }
        let mut published = server.update(&update);
        let mut refused = BTreeSet::new();
        for (node, error) in published.refused {
            published.versions.remove(&node);
            let message = format!("the snapshot of node {node} is not published: {error}");
            let problem = Problem::new(Severity::Error, UNPUBLISHED, message);
            self.found.push(problem.remedy("the one before stays in force"));
            refused.insert(node);
        }
        self.versions = published.versions;
        refused
    }

    /// Of the texts, of the compiler, and our own; each once.
    pub(crate) fn problems(&self) -> &[Problem] {
        self.problems.get_or_init(|| {
            let mut all = self.frozen.own_problems.clone();
            all.extend(self.frozen.problems.iter().cloned());
            all.extend(self.found.iter().cloned());
            all.extend(self.whole.problems());
            bound(all)
        })
    }

    /// Whether the problems are those of another view; where that takes long to find out, they are not.
    pub(crate) fn has_problems_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.frozen.problems, &other.frozen.problems)
            && self.frozen.own_problems == other.frozen.own_problems
            && self.found == other.found
            && self.whole.says_the_same(&other.whole)
    }

    /// What could not be published.
    pub(crate) fn unpublished(&self) -> usize {
        let told = self.found.iter().filter(|problem| problem.code == UNPUBLISHED);
        told.count()
    }

    pub(crate) fn mesh(&self) -> Option<&Arc<Mesh>> {
        self.whole.mesh()
    }

    pub(crate) fn effect(&self, reference: &ObjectRef) -> Option<Effect> {
        self.whole.effect(reference)
    }

    /// The object of that name; of several the first.
    pub(crate) fn held(&self, key: &Key) -> Option<&Arc<Held>> {
        self.frozen.find(key)
    }

    /// What was found about an object beyond its own text.
    pub(crate) fn findings(&self, held: &Held) -> Vec<Problem> {
        let reference = held.key.reference();
        let found = self.frozen.problems.iter().chain(&self.found);
        let found = found.filter(|problem| problem.object.as_ref() == Some(&reference));
        let mut about: Vec<_> = found.cloned().collect();
        about.extend(self.whole.problems_of(&reference));
        about.retain(|problem| !held.problems.contains(problem));
        about
    }

    /// Nodes that a change of the object concerns, seen from the view before.
    pub(crate) fn concerned(&self, before: &Self, key: &Key) -> BTreeSet<String> {
        let reference = key.reference();
        let effects = [before.effect(&reference), self.effect(&reference)];
        if effects.iter().any(Option::is_some) {
            let nodes = effects.into_iter().flatten().flat_map(|effect| effect.nodes);
            return nodes.collect();
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
