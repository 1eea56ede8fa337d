//! What became of an object, in words.

use std::fmt::Write as _;

use admin::verbs::{Outcome, OutcomeKind};
use api::{Class, known_kinds};

use crate::table::Mood;
use crate::text::clean;

/// The name as messages have it: `Kind namespace/name`.
pub(crate) fn name(kind: &str, namespace: &str, name: &str) -> String {
    let place = match namespace {
        "" => name.to_owned(),
        namespace => format!("{namespace}/{name}"),
    };
    match kind {
        "" => place,
        kind => format!("{kind} {place}"),
    }
}

/// The word for a result.
pub(crate) fn word(result: OutcomeKind) -> (&'static str, Mood) {
    match result {
        OutcomeKind::Accepted => ("accepted", Mood::Good),
        OutcomeKind::Rejected => ("rejected", Mood::Bad),
        OutcomeKind::NotInForce => ("accepted, not in force", Mood::Warning),
    }
}

/// One line, and one more for each further reason.
pub(crate) fn render(outcome: &Outcome, colour: bool) -> String {
    let (word, mood) = word(outcome.result);
    let subject = name(&outcome.kind, &outcome.namespace, &outcome.name);
    let mut out = format!("{}: ", clean(&subject));
    // Of a deletion there is nothing left that could be accepted.
    let deleted = outcome.change == "deleted" && outcome.result == OutcomeKind::Accepted;
    let said = if deleted { "deleted" } else { word };
    out.push_str(&mood.paint(said, colour));
    let mut more = Vec::new();
    if !deleted && !outcome.change.is_empty() {
        more.push(clean(&outcome.change).into_owned());
    }
    if outcome.nodes > 0 {
        let one = if outcome.nodes == 1 { "node" } else { "nodes" };
        more.push(format!("{}/{} {one}", outcome.acknowledged, outcome.nodes));
    }
    if !more.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(out, " ({})", more.join(", "));
    }
    let mut why = outcome.why.iter().map(|why| clean(why));
    if let Some(first) = why.next() {
        let _ = write!(out, ": {first}");
    }
    out.push('\n');
    for why in why {
        let _ = writeln!(out, "  {why}");
    }
    out
}

/// The exit code of `apply`: 65 where something was rejected, 1 where something is not in force that is meant to be.
pub(crate) fn applied(outcomes: &[Outcome]) -> u8 {
    let any = |result| outcomes.iter().filter(move |outcome| outcome.result == result);
    if any(OutcomeKind::Rejected).next().is_some() {
        65
    } else {
        u8::from(any(OutcomeKind::NotInForce).any(|outcome| !means_nothing(&outcome.kind)))
    }
}

/// The exit code of `delete`: 1 where something is not there, 2 where a proxy has not heard of it.
pub(crate) fn deleted(outcomes: &[Outcome]) -> u8 {
    let any = |result| outcomes.iter().any(|outcome| outcome.result == result);
    if any(OutcomeKind::Rejected) {
        1
    } else if any(OutcomeKind::NotInForce) {
        2
    } else {
        0
    }
}

/// Whether the kind has no meaning here: that it is not acted on is said, and is no failure.
fn means_nothing(kind: &str) -> bool {
    let mut known = known_kinds().iter().filter(|known| known.kind == kind);
    known.all(|known| known.class == Class::NotActedOn)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(kind: &str, result: OutcomeKind, change: &str, why: &[&str]) -> Outcome {
        Outcome {
            kind: kind.to_owned(),
            namespace: "full".to_owned(),
            name: "edit".to_owned(),
            result,
            change: change.to_owned(),
            why: why.iter().map(|why| (*why).to_owned()).collect(),
            nodes: 2,
            acknowledged: 1,
        }
    }

    #[test]
    fn each_object_has_a_line_that_says_why() {
        use OutcomeKind::{Accepted, NotInForce, Rejected};
        let policy = "AuthorizationPolicy";
        let cases = [
            (
                outcome(policy, Accepted, "created", &[]),
                "AuthorizationPolicy full/edit: accepted (created, 1/2 nodes)\n",
            ),
            (
                outcome(policy, Accepted, "deleted", &[]),
                "AuthorizationPolicy full/edit: deleted (1/2 nodes)\n",
            ),
            (
                outcome(
                    policy,
                    Rejected,
                    "created",
                    &["a.yaml:7:3: error[X]: no", "a.yaml:8:1: \u{1b}"],
                ),
                "AuthorizationPolicy full/edit: rejected (created, 1/2 nodes): a.yaml:7:3: error[X]: no\n  a.yaml:8:1: \\u{1b}\n",
            ),
            (
                outcome(
                    policy,
                    NotInForce,
                    "configured",
                    &["node node-1 is not connected"],
                ),
                "AuthorizationPolicy full/edit: accepted, not in force (configured, 1/2 nodes): node node-1 is not connected\n",
            ),
        ];
        for (outcome, line) in cases {
            assert_eq!(render(&outcome, false), line);
        }
    }

    #[test]
    fn the_exit_code_says_the_worst() {
        use OutcomeKind::{Accepted, NotInForce, Rejected};
        let accepted = outcome("AuthorizationPolicy", Accepted, "created", &[]);
        let waiting = outcome("AuthorizationPolicy", NotInForce, "created", &[]);
        let idle = outcome("HorizontalPodAutoscaler", NotInForce, "created", &[]);
        let rejected = outcome("AuthorizationPolicy", Rejected, "", &[]);
        let code = |all: &[&Outcome]| applied(&all.iter().copied().cloned().collect::<Vec<_>>());
        assert_eq!(code(&[]), 0);
        assert_eq!(code(&[&accepted, &idle]), 0);
        assert_eq!(code(&[&accepted, &waiting]), 1);
        assert_eq!(code(&[&waiting, &rejected]), 65);
        assert_eq!(deleted(std::slice::from_ref(&accepted)), 0);
        assert_eq!(deleted(&[accepted, waiting.clone()]), 2);
        assert_eq!(deleted(&[waiting, rejected]), 1);
    }
}
