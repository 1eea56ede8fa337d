//! `apply` and `delete`: what is asked for, and what becomes of each object, told as soon as it is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use admin::verbs::{Apply, Delete, Document, Name, Outcome, OutcomeKind};
use admin::{Failure, Items};
use api::{ObjectRef, Parsed, Problem, Severity, known_kinds};
use serde_json::Value;
use tokio::time::Instant;

use super::kinds::{self, GroupKind};
use super::{Desk, hung_up};
use crate::layers::{Held, Key};
use crate::plane::{Command, Done, Given};
use crate::standing::{Standing, line, standing, verdict};
use crate::view::View;
use crate::world::{Soundness, is_unreadable, parse, soundness};

/// How many texts, and how many names, may come at once.
const MAX_DOCUMENTS: usize = 10_000;
/// The longest wait.
const MAX_WAIT: Duration = Duration::from_hours(1);

/// What a text comes to.
#[derive(Debug, Default)]
struct Read {
    given: Vec<Given>,
    refused: Vec<Outcome>,
}

pub(super) async fn apply(desk: &Desk, body: Apply, items: &mut Items) -> Result<Value, Failure> {
    limit(body.documents.len())?;
    let documents = body.documents;
    let read = tokio::task::spawn_blocking(move || read(&documents))
        .await
        .map_err(|error| Failure::undecided(error.to_string()))?;
    if !body.dry_run {
        // What is taken is counted once it is in force.
        desk.meters.validated(0, read.refused.len());
    }
    for outcome in &read.refused {
        items.send(outcome).await.map_err(|_| hung_up())?;
    }
    if read.given.is_empty() {
        return Ok(Value::Null);
    }
    let (given, dry_run) = (read.given, body.dry_run);
    let done = desk
        .done(|answer| Command::Apply {
            given,
            dry_run,
            answer,
        })
        .await?;
    let wait_ms = if dry_run { 0 } else { body.wait_ms };
    settle(desk, pending(&done), &done.after, wait_ms, items).await
}

pub(super) async fn delete(desk: &Desk, body: Delete, items: &mut Items) -> Result<Value, Failure> {
    limit(body.documents.len() + body.objects.len())?;
    let view = desk.view();
    let mut targets = Vec::new();
    for name in &body.objects {
        targets.push(candidates(name, &view)?);
    }
    for document in &body.documents {
        let parsed = parse(&document.file, document.text.as_bytes());
        if let Some(problem) = parsed.problems.iter().find(|problem| is_unreadable(problem)) {
            return Err(Failure::input(line(problem)));
        }
        let named = parsed.objects.iter().map(Key::of).map(|key| vec![key]);
        targets.extend(named);
        // Broken ones have a name all the same.
        for reference in parsed.rejected {
            let name = Name {
                kind: reference.kind,
                namespace: reference.namespace,
                name: reference.name,
            };
            targets.push(candidates(&name, &view)?);
        }
    }
    let done = desk.done(|answer| Command::Delete { targets, answer }).await?;
    settle(desk, pending(&done), &done.after, body.wait_ms, items).await
}

fn limit(many: usize) -> Result<(), Failure> {
    if many > MAX_DOCUMENTS {
        return Err(Failure::usage(format!(
            "at most {MAX_DOCUMENTS} texts or names are taken at once"
        )));
    }
    Ok(())
}

/// The keys that a name may have.
fn candidates(name: &Name, view: &View) -> Result<Vec<Key>, Failure> {
    let kinds = kinds::resolve(&name.kind, present(view)).map_err(Failure::usage)?;
    let key = |(group, kind): GroupKind| {
        let known = known_kinds()
            .iter()
            .find(|known| known.group == group && known.kind == kind);
        let namespace = match known.is_none_or(|known| known.namespaced) {
            true if name.namespace.is_empty() => "default",
            true => &name.namespace,
            false => "",
        };
        Key {
            namespace: namespace.to_owned(),
            name: name.name.clone(),
            group,
            kind,
        }
    };
    Ok(kinds.into_iter().map(key).collect())
}

/// Groups and kinds of the objects that there are.
pub(super) fn present(view: &View) -> impl Iterator<Item = GroupKind> + '_ {
    view.frozen
        .held()
        .map(|held| (held.key.group.clone(), held.key.kind.clone()))
}

/// Reads the texts: objects that may be taken, and what is to be said of the others. Nothing is taken of a text that
/// cannot be read to its end: what it was to hold is not known.
fn read(documents: &[Document]) -> Read {
    let mut read = Read::default();
    for document in documents {
        let parsed = parse(&document.file, document.text.as_bytes());
        let text: Arc<str> = Arc::from(document.text.as_str());
        refuse(&document.file, &parsed, &mut read.refused);
        if soundness(&parsed) == Soundness::Unreadable {
            continue;
        }
        let problems: Arc<[Problem]> = parsed.problems.into();
        read.given.extend(parsed.objects.into_iter().map(|object| Given {
            object,
            problems: Arc::clone(&problems),
            text: Arc::clone(&text),
        }));
    }
    read
}

fn refuse(file: &str, parsed: &Parsed, refused: &mut Vec<Outcome>) {
    let errors = || {
        parsed
            .problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
    };
    if let Some(unreadable) = errors().find(|problem| is_unreadable(problem)) {
        let names = parsed.objects.iter().map(api::Object::reference);
        let names: Vec<_> = names.chain(parsed.rejected.iter().cloned()).collect();
        if names.is_empty() {
            refused.push(rejected(nameless(file), vec![line(unreadable)]));
        }
        refused.extend(
            names
                .into_iter()
                .map(|name| rejected(name, vec![line(unreadable)])),
        );
        return;
    }
    for reference in &parsed.rejected {
        let why = errors().filter(|problem| problem.object.as_ref() == Some(reference));
        refused.push(rejected(reference.clone(), why.map(line).collect()));
    }
    for problem in errors().filter(|problem| problem.object.is_none()) {
        let name = nameless(&format!("{file}:{}", problem.line));
        refused.push(rejected(name, vec![line(problem)]));
    }
}

/// What stands for an object that has no name.
fn nameless(place: &str) -> ObjectRef {
    ObjectRef {
        name: place.to_owned(),
        ..ObjectRef::default()
    }
}

fn rejected(reference: ObjectRef, why: Vec<String>) -> Outcome {
    Outcome {
        kind: reference.kind,
        namespace: reference.namespace,
        name: reference.name,
        result: OutcomeKind::Rejected,
        change: String::new(),
        why,
        nodes: 0,
        acknowledged: 0,
    }
}

/// An object that waits for its proxies.
struct Pending {
    key: Key,
    change: &'static str,
    /// `None` where it is gone.
    held: Option<Arc<Held>>,
    concerned: BTreeSet<String>,
}

fn pending(done: &Done) -> Vec<Pending> {
    done.changes
        .iter()
        .map(|(key, change)| Pending {
            key: key.clone(),
            change,
            held: done.after.held(key).cloned(),
            concerned: done.after.concerned(&done.before, key),
        })
        .collect()
}

/// Tells what becomes of each object once every node that is concerned has said something, or the time is over.
async fn settle(
    desk: &Desk,
    mut pending: Vec<Pending>,
    after: &View,
    wait_ms: u64,
    items: &mut Items,
) -> Result<Value, Failure> {
    let mut nodes = desk.server.nodes();
    let until = Instant::now() + Duration::from_millis(wait_ms).min(MAX_WAIT);
    loop {
        let over = wait_ms == 0 || Instant::now() >= until;
        let mut known: Vec<Outcome> = Vec::new();
        {
            let said = nodes.borrow_and_update();
            let mut standings: BTreeMap<&BTreeSet<String>, Standing> = BTreeMap::new();
            let mut still = Vec::new();
            for (at, one) in pending.iter().enumerate() {
                let standing = standings.entry(&one.concerned).or_insert_with(|| {
                    standing(one.concerned.iter().map(String::as_str), &after.versions, &said)
                });
                if over || standing.is_settled() {
                    known.push(outcome(one, after, standing, wait_ms > 0));
                } else {
                    still.push(at);
                }
            }
            let mut number = 0..;
            pending.retain(|_| number.next().is_some_and(|at| still.binary_search(&at).is_ok()));
        }
        for outcome in &known {
            items.send(outcome).await.map_err(|_| hung_up())?;
        }
        if pending.is_empty() {
            return Ok(Value::Null);
        }
        tokio::select! {
            changed = nodes.changed() => changed.map_err(|_| Failure::undecided("the control plane is ending"))?,
            () = tokio::time::sleep_until(until) => {}
            () = items.closed() => return Err(hung_up()),
        }
    }
}

fn outcome(one: &Pending, after: &View, standing: &Standing, waited: bool) -> Outcome {
    // Who does not wait does not want to hear who has not answered yet.
    let counted = if waited {
        standing.clone()
    } else {
        Standing::default()
    };
    let (result, why) = match (&one.held, one.change) {
        (_, "") => (OutcomeKind::Rejected, vec![format!("there is no `{}`", one.key)]),
        (Some(held), _) => {
            let effect = after.effect(&one.key.reference());
            verdict(
                held,
                after.frozen.profile,
                effect.as_ref(),
                &after.findings(held),
                &counted,
            )
        }
        (None, _) if counted.acknowledged == counted.nodes => (OutcomeKind::Accepted, Vec::new()),
        (None, _) => (OutcomeKind::NotInForce, counted.why()),
    };
    Outcome {
        kind: one.key.kind.clone(),
        namespace: one.key.namespace.clone(),
        name: one.key.name.clone(),
        result,
        change: one.change.to_owned(),
        why,
        nodes: standing.nodes,
        acknowledged: standing.acknowledged,
    }
}
