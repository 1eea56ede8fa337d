//! `desired`: what there is to run, told anew whenever it changes.

use std::collections::HashSet;
use std::sync::Arc;

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
    let mut last: Option<Arc<View>> = None;
    loop {
        let view = Arc::clone(&views.borrow_and_update());
        let before = last.as_deref();
        let problems = match before.is_some_and(|before| view.has_problems_of(before)) {
            true => Vec::new(),
            false => told.new_ones(&view),
        };
        if !problems.is_empty() || !before.is_some_and(|before| runs_the_same(before, &view)) {
            let next = Desired {
                problems,
                ..compute(&view)?
            };
            items.send(&next).await.map_err(|_| hung_up())?;
        }
        last = Some(view);
        tokio::select! {
            changed = views.changed() => changed.map_err(|_| Failure::undecided("the control plane is ending"))?,
            () = items.closed() => return Err(hung_up()),
        }
    }
}

/// Whether there is the same to run, and the same Services to reach; looks at what was compiled since.
fn runs_the_same(before: &View, now: &View) -> bool {
    let names = now.whole.differs_from(&before.whole);
    let objects = |view: &View| {
        let spaces = names.iter().filter_map(|name| view.frozen.in_force.get(name));
        let held = spaces.flat_map(|space| space.values()).flatten();
        let held = held.filter(|held| runs(&held.object.kind));
        held.map(|held| Arc::clone(&held.object)).collect::<Vec<_>>()
    };
    let (was, is) = (objects(before), objects(now));
    let pairs = was.iter().zip(&is);
    was.len() == is.len()
        && pairs
            .into_iter()
            .all(|(a, b)| Arc::ptr_eq(a, b) || a.json == b.json)
        && now.whole.serves_the_same(&before.whole)
}

fn runs(kind: &Kind) -> bool {
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
}

fn compute(view: &View) -> Result<Desired, Failure> {
    let held = view.frozen.sorted().into_iter();
    let objects = held.filter(|held| runs(&held.object.kind));
    let plain = view.whole.plain_services().map(|service| encode(&service));
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
        for problem in view.problems().iter().take(MAX_TOLD) {
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
