//! What is in force, as one value that never changes: answers are read from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use admin::verbs::ProblemLine;
use api::{ObjectRef, Problem, Severity};
use compiler::{Compiled, Effect};
use snapshot::{Mesh, Resource};
use xds::server::Server;

use crate::layers::{Held, Key};
use crate::world::Frozen;

/// A snapshot cannot be published.
const UNPUBLISHED: &str = "MW0606";
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
}

impl View {
    /// Compiles a world, and publishes it where there is a server.
    pub(crate) fn compile(frozen: Arc<Frozen>, server: Option<&Server>) -> Self {
        let compiled = compiler::compile(&frozen.world());
        let mut versions = BTreeMap::new();
        let mut problems = frozen.problems.clone();
        problems.extend(frozen.trust_domain_problem());
        problems.extend(compiled.problems.iter().cloned());
        if let Some(server) = server {
            for (node, resources) in &compiled.nodes {
                match server.publish(node, resources.clone()) {
                    Ok(version) => drop(versions.insert(node.clone(), version)),
                    Err(error) => {
                        let message = format!("the snapshot of node {node} is not published: {error}");
                        problems.push(
                            Problem::new(Severity::Error, UNPUBLISHED, message)
                                .remedy("the one before stays in force"),
                        );
                    }
                }
            }
        }
        let mut told = BTreeSet::new();
        problems.retain(|problem| told.insert(key(problem)));
        let mesh = compiled.nodes.values().next().and_then(|resources| {
            resources
                .iter()
                .find_map(|(_, resource)| match resource.as_ref() {
                    Resource::Mesh(mesh) => Some(Arc::clone(mesh)),
                    _ => None,
                })
        });
        Self {
            frozen,
            compiled,
            versions,
            problems,
            mesh,
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
        let reference = held.key.reference();
        let about = |problem: &&Problem| {
            problem.object.as_ref() == Some(&reference) && !held.problems.contains(problem)
        };
        self.problems.iter().filter(about).collect()
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
