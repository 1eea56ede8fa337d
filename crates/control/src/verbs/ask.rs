//! `can-i` and `policy`: questions about the very world that is in force, answered as a proxy would.

use std::sync::Arc;

use admin::Failure;
use admin::verbs::CanI;
use analysis::{Answer, Known, Offline, Providers, Question, Target, Unknown};
use serde::Deserialize as _;
use serde_json::Value;

use super::{Desk, encode};
use crate::view::View;

/// Would something be carried?
pub(super) async fn can_i(desk: &Desk, asked: CanI) -> Result<Value, Failure> {
    let view = desk.view();
    // Compiling policies is no work for the thread that others wait on.
    let work = move || {
        let broken =
            |error: serde_json::Error| Failure::usage(format!("the question is not understood: {error}"));
        let question = Question::deserialize(&asked.question).map_err(broken)?;
        let providers = Providers::deserialize(&asked.custom).map_err(broken)?;
        encode(&answer(&view, &question, &providers)?)
    };
    aside(work).await
}

/// What is in force for a workload?
pub(super) async fn policy(desk: &Desk, target: Value) -> Result<Value, Failure> {
    let view = desk.view();
    let work = move || {
        let target = Target::deserialize(&target)
            .map_err(|error| Failure::usage(format!("the target is not understood: {error}")))?;
        let found = if target.labels.is_some() {
            let mut world = imagined(&view)?;
            world.prepare([&target].into_iter()).map_err(undecided)?;
            world.effective(&target)
        } else {
            known(&view)?.effective(&target)
        };
        encode(&found.map_err(|unknown| Failure::no(unknown.to_string()))?)
    };
    aside(work).await
}

async fn aside(work: impl FnOnce() -> Result<Value, Failure> + Send + 'static) -> Result<Value, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::undecided(error.to_string()))?
}

fn answer(view: &View, question: &Question<'_>, providers: &Providers) -> Result<Answer, Failure> {
    if question.to.labels.is_none() {
        return Ok(known(view)?.ask(question, providers, true));
    }
    let mut world = imagined(view)?;
    world.prepare([&question.to].into_iter()).map_err(undecided)?;
    Ok(world.ask(question, providers, true))
}

/// What the proxies know.
fn known(view: &View) -> Result<Known, Failure> {
    let objects: Vec<_> = view
        .frozen
        .sorted()
        .into_iter()
        .map(|held| held.object.clone())
        .collect();
    Known::new(&view.whole.flat(), &objects).map_err(undecided)
}

/// The same objects and pods, to which one that does not exist is to be added.
fn imagined(view: &View) -> Result<Offline, Failure> {
    let objects = view.frozen.sorted().into_iter().map(|held| held.object.clone());
    let pods = view.frozen.pods().map(|reported| Arc::clone(&reported.pod));
    let options = view.whole.world().options.as_ref().clone();
    Offline::new(objects.collect(), pods.collect(), options).map_err(undecided)
}

fn undecided(unknown: Unknown) -> Failure {
    Failure::undecided(unknown.to_string())
}
