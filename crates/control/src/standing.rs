//! What is compiled joined with what the proxies say of it. Pure.

use std::collections::BTreeMap;

use admin::verbs::OutcomeKind;
use api::{Class, Problem, Severity};
use compiler::Effect;
use model::Profile;
use xds::server::NodeStatus;

use crate::layers::Held;

/// How far the nodes are that something concerns.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) nodes: usize,
    pub(crate) acknowledged: usize,
    /// Nodes that have not answered: `node`, and whether their stream is open.
    pub(crate) missing: Vec<(String, bool)>,
    /// Nodes that refused, and why.
    pub(crate) refused: Vec<(String, String)>,
}

impl Standing {
    /// Whether no answer is outstanding.
    pub(crate) fn is_settled(&self) -> bool {
        self.missing.is_empty()
    }

    /// Why it is not in force everywhere: one sentence a node.
    pub(crate) fn why(&self) -> Vec<String> {
        let refused = self
            .refused
            .iter()
            .map(|(node, why)| format!("node {node} refused: {why}"));
        let missing = self.missing.iter().map(|(node, connected)| match connected {
            true => format!("node {node} has not acknowledged it yet"),
            false => format!("node {node} is not connected"),
        });
        refused.chain(missing).collect()
    }
}

/// Joins the nodes that are concerned with the versions that were published for them and what they said.
pub(crate) fn standing<'n>(
    concerned: impl Iterator<Item = &'n str>,
    versions: &BTreeMap<String, u64>,
    said: &BTreeMap<String, NodeStatus>,
) -> Standing {
    let mut standing = Standing::default();
    for node in concerned {
        standing.nodes += 1;
        let status = said.get(node);
        let connected = status.is_some_and(|status| status.connected);
        let Some(wanted) = versions.get(node) else {
            standing.missing.push((node.to_owned(), connected));
            continue;
        };
        if status.is_some_and(|status| status.has(*wanted)) {
            standing.acknowledged += 1;
            continue;
        }
        match status.and_then(|status| status.nacked.as_ref()) {
            Some((version, why)) if version >= wanted => {
                standing.refused.push((node.to_owned(), why.clone()));
            }
            _ => standing.missing.push((node.to_owned(), connected)),
        }
    }
    standing
}

/// What is to be said of an object: the word, and why where it is not simply in force. `found` are the compiler's
/// findings about it.
pub(crate) fn verdict(
    held: &Held,
    profile: Profile,
    effect: Option<&Effect>,
    found: &[Problem],
    standing: &Standing,
) -> (OutcomeKind, Vec<String>) {
    let object = &held.object;
    let errors = |problems: &mut dyn Iterator<Item = &Problem>| -> Vec<String> {
        problems
            .filter(|problem| problem.severity == Severity::Error)
            .map(line)
            .collect()
    };
    if let Some(why) = object.refused(profile) {
        let mut told = errors(&mut held.problems.iter());
        if told.is_empty() {
            told.push(placed(held, why));
        }
        return (OutcomeKind::Rejected, told);
    }
    match object.class {
        Class::NotActedOn => {
            let why = "accepted, not acted on: the kind has no meaning here yet";
            return (OutcomeKind::NotInForce, vec![placed(held, why)]);
        }
        Class::SecurityNotActedOn => {
            let mut told = errors(&mut held.problems.iter());
            if told.is_empty() {
                told.push(placed(
                    held,
                    "the kind is not enforced here yet: what it forbids is not refused",
                ));
            }
            return (OutcomeKind::NotInForce, told);
        }
        Class::ActedOn => {}
    }
    let found = errors(&mut found.iter());
    let mut why: Vec<String> = Vec::new();
    let mut in_force = found.is_empty();
    if let Some(effect) = effect {
        why.extend(effect.why.iter().map(|why| placed(held, why)));
        let shadowed = effect.targets.is_empty() && !effect.shadowed_by.is_empty();
        if shadowed {
            let older: Vec<_> = effect.shadowed_by.iter().map(ToString::to_string).collect();
            why.push(placed(
                held,
                &format!("older objects decide in its place: {}", older.join(", ")),
            ));
        }
        in_force &= effect.in_force && !shadowed;
    }
    why.extend(found);
    why.extend(held.problems.iter().filter(|p| is_unheeded(p)).map(line));
    why.extend(standing.why());
    in_force &= standing.acknowledged == standing.nodes;
    let word = if in_force {
        OutcomeKind::Accepted
    } else {
        OutcomeKind::NotInForce
    };
    (word, why)
}

/// Whether it tells of something that is written and has no effect here, by the kind of thing: it is said of each such object,
/// although the rest of it is in force.
pub(crate) fn is_unheeded(problem: &Problem) -> bool {
    problem.severity == Severity::Warning && problem.code.starts_with("MW08")
}

fn placed(held: &Held, why: &str) -> String {
    format!("{}: {why}", held.origin())
}

/// `file:line:column: message; remedy`, for a person who knows that it is about why.
pub(crate) fn line(problem: &Problem) -> String {
    let mut text = String::new();
    if !problem.file.is_empty() {
        text.push_str(&problem.file);
        if problem.line > 0 {
            text.push_str(&format!(":{}:{}", problem.line, problem.column));
        }
        text.push_str(": ");
    }
    text.push_str(&problem.message);
    if let Some(remedy) = &problem.remedy {
        text.push_str("; ");
        text.push_str(remedy);
    }
    text
}

#[cfg(test)]
mod tests;
