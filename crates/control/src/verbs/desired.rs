//! `desired`: what there is to run, told anew whenever it changes.

use std::collections::HashSet;

use admin::verbs::{Desired, ProblemLine};
use admin::{Failure, Items};
use api::Kind;
use serde_json::Value;

use super::{Desk, MAX_WATCHERS, encode, hung_up};
use crate::view::{NOT_ACTED_ON, View, key};

/// How many problems are remembered as told; then they are told again.
const MAX_TOLD: usize = 100_000;

pub(super) async fn desired(desk: &Desk, items: &mut Items) -> Result<Value, Failure> {
    let _place = desk.watchers.try_acquire().map_err(|_| {
        Failure::no(format!(
            "{MAX_WATCHERS} callers follow what is desired already; end one of them"
        ))
    })?;
    let mut views = desk.view.clone();
    let mut told = Told::default();
    let mut last: Option<Desired> = None;
    loop {
        let view = std::sync::Arc::clone(&views.borrow_and_update());
        let next = Desired {
            problems: told.new_ones(&view),
            ..compute(&view)?
        };
        let changed = last.as_ref().is_none_or(|last| {
            !next.problems.is_empty()
                || (&last.objects, &last.plain_services) != (&next.objects, &next.plain_services)
        });
        if changed {
            items.send(&next).await.map_err(|_| hung_up())?;
            last = Some(next);
        }
        tokio::select! {
            changed = views.changed() => changed.map_err(|_| Failure::undecided("the control plane is ending"))?,
            () = items.closed() => return Err(hung_up()),
        }
    }
}

fn compute(view: &View) -> Result<Desired, Failure> {
    let runs = |kind: &Kind| {
        matches!(
            kind,
            Kind::Namespace(_)
                | Kind::Pod(_)
                | Kind::Deployment(_)
                | Kind::StatefulSet(_)
                | Kind::DaemonSet(_)
                | Kind::Job(_)
                | Kind::ServiceAccount(_)
                | Kind::ConfigMap(..)
                | Kind::Secret(_)
        )
    };
    let objects = view.frozen.held.iter().filter(|held| runs(&held.object.kind));
    let plain = view.compiled.plain_services.iter().map(encode);
    Ok(Desired {
        version: view.frozen.revision,
        objects: objects.map(|held| held.object.json.clone()).collect(),
        plain_services: plain.collect::<Result<_, _>>()?,
        trust_domain: view.frozen.trust_domain.to_string(),
        problems: Vec::new(),
    })
}

/// What one caller was told.
#[derive(Default)]
struct Told {
    problems: HashSet<(String, u32, u32, String, String)>,
}

impl Told {
    /// What is wrong now and was not at the last view. A problem that went away and comes back is a new one; a kind that
    /// is not acted on is told once, whichever file has it.
    fn new_ones(&mut self, view: &View) -> Vec<ProblemLine> {
        let mut now = HashSet::new();
        let mut lines = Vec::new();
        for problem in view.problems.iter().take(MAX_TOLD) {
            let mut key = key(problem);
            if problem.code == NOT_ACTED_ON {
                (key.0, key.1, key.2) = (String::new(), 0, 0);
            }
            if now.insert(key.clone()) && !self.problems.contains(&key) {
                lines.push(view.line(problem));
            }
        }
        self.problems = now;
        lines
    }
}
