//! The keys of token issuers, and the roots of other trust domains: fetched here, once, for all proxies (semantics 4.5).
//!
//! What has to be fetched follows from the newest view; what is known of it goes to the plane as any other change does.
//! Keys that were good stay in use while their source is out of reach or answers something else (R8), for
//! [`schedule::MAX_AGE`]; nothing that is no key set ever replaces them. [`model::may_dial`] says which addresses are not dialled.

mod bundle;
mod fetch;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use compiler::BUNDLE_SOURCE;
use identity::{Clock as _, SystemClock};
use jwt::Jwks;
use model::Profile;
use serde::{Deserialize, Serialize};
use snapshot::Index;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::Fetching;
use crate::plane::Command;
use crate::view::View;
use fetch::Fetcher;
use schedule::{REFRESH, State};

/// How many sources keys are fetched from.
const MAX_SOURCES: usize = 256;
/// How many are asked at once.
const MAX_AT_ONCE: usize = 8;
/// The longest time without a look at what is due.
const MAX_NAP: Duration = Duration::from_secs(60);

/// Keys as a restart finds them again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stored {
    pub(crate) source: String,
    pub(crate) keys: String,
    /// When they were last seen at their source, seconds since 1970.
    pub(crate) seen_s: u64,
}

/// What is known of all sources.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Known {
    pub(crate) jwks: BTreeMap<String, Arc<Jwks>>,
    pub(crate) stored: Vec<Stored>,
}

/// The sources.
#[derive(Debug)]
pub(crate) struct Keys {
    config: Fetching,
    sources: BTreeMap<String, Source>,
    /// Those beyond what is fetched.
    beyond: BTreeSet<String>,
    /// From before a restart, until it is known what is wanted.
    stored: BTreeMap<String, Stored>,
}

/// A source, and what came of it: a text, and when to look again where it says so.
type Fetched = (String, Result<(String, Option<Duration>), String>);

#[derive(Debug)]
struct Source {
    state: State,
    timeout: Duration,
    under_way: bool,
}

impl Keys {
    /// With what a restart found.
    pub(crate) fn new(config: Fetching, stored: Vec<Stored>) -> Self {
        let stored = stored.into_iter().take(MAX_SOURCES);
        Self {
            config,
            sources: BTreeMap::new(),
            beyond: BTreeSet::new(),
            stored: stored.map(|one| (one.source.clone(), one)).collect(),
        }
    }

    /// What is known before anything was fetched.
    pub(crate) fn first(stored: &[Stored]) -> BTreeMap<String, Arc<Jwks>> {
        let now = SystemClock.now();
        let told = |one: &Stored| Some((one.source.clone(), state(one).told(&one.source, now)?));
        stored.iter().filter_map(told).collect()
    }

    /// Fetches what is wanted for as long as there are views.
    pub(crate) async fn run(
        mut self,
        mut views: watch::Receiver<Arc<View>>,
        commands: mpsc::Sender<Command>,
    ) -> Result<(), String> {
        let mut fetches: JoinSet<Fetched> = JoinSet::new();
        let mut told = None;
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            self.want(&view.whole.key_sources());
            self.begin(&view, &mut fetches);
            let known = self.known(SystemClock.now());
            if told.as_ref() != Some(&known) {
                if commands.send(Command::Keys(known.clone())).await.is_err() {
                    return Ok(());
                }
                told = Some(known);
            }
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return Ok(()) },
                Some(ended) = fetches.join_next() => match ended {
                    Ok((source, outcome)) => self.ended(&source, outcome),
                    Err(error) => return Err(format!("fetching keys broke: {error}")),
                },
                () = tokio::time::sleep(self.nap(SystemClock.now())) => {}
            }
        }
    }

    /// Takes in what has to be fetched. The keys of what has not are forgotten.
    fn want(&mut self, wanted: &BTreeMap<String, u64>) {
        self.sources.retain(|source, _| wanted.contains_key(source));
        self.beyond.clear();
        for (source, timeout) in wanted {
            let timeout = Duration::from_millis(*timeout);
            if let Some(held) = self.sources.get_mut(source) {
                held.timeout = timeout;
            } else if self.sources.len() < MAX_SOURCES {
                let new = Source {
                    state: self.stored.get(source).map_or_else(State::default, state),
                    timeout,
                    under_way: false,
                };
                self.sources.insert(source.clone(), new);
            } else {
                self.beyond.insert(source.clone());
            }
        }
        self.stored.clear();
    }

    /// Begins what is due.
    fn begin(&mut self, view: &View, fetches: &mut JoinSet<Fetched>) {
        let now = SystemClock.now();
        let mut fetcher = None;
        for (source, held) in &mut self.sources {
            if fetches.len() >= MAX_AT_ONCE {
                return;
            }
            if held.under_way || !held.state.is_due(now) {
                continue;
            }
            let fetcher: &Fetcher = fetcher.get_or_insert_with(|| Fetcher {
                config: self.config.clone(),
                index: index(view),
                strict: view.frozen.profile == Profile::Secure,
            });
            held.under_way = true;
            let (fetcher, source, timeout) = (fetcher.clone(), source.clone(), held.timeout);
            fetches.spawn(async move {
                let outcome = match source.strip_prefix(BUNDLE_SOURCE) {
                    None => fetcher.fetch(&source, timeout).await.map(|keys| (keys, None)),
                    Some(url) => fetcher
                        .bundle(url, timeout)
                        .await
                        .map(|bundle| (bundle.roots, bundle.refresh)),
                };
                (source, outcome)
            });
        }
    }

    fn ended(&mut self, source: &str, outcome: Result<(String, Option<Duration>), String>) {
        let Some(held) = self.sources.get_mut(source) else {
            return;
        };
        let hint = outcome.as_ref().ok().and_then(|(_, hint)| *hint);
        let outcome = outcome.map(|(keys, _)| keys);
        match &outcome {
            Ok(keys) if held.state.good().is_none_or(|(before, _)| before != keys) => {
                tracing::info!(source, "keys fetched");
            }
            Ok(_) => tracing::debug!(source, "keys are the same"),
            Err(why) => tracing::warn!(source, %why, "keys could not be fetched"),
        }
        held.under_way = false;
        let refresh = self
            .config
            .refresh_s
            .map_or_else(|| hint.unwrap_or(REFRESH), |s| Duration::from_secs(s.max(1)));
        held.state.fetched(outcome, refresh, SystemClock.now(), chance());
    }

    fn known(&self, now: Duration) -> Known {
        let mut known = Known::default();
        for (source, held) in &self.sources {
            if let Some(jwks) = held.state.told(source, now) {
                known.jwks.insert(source.clone(), jwks);
            }
            if let Some((keys, seen)) = held.state.good() {
                known.stored.push(Stored {
                    source: source.clone(),
                    keys: keys.clone(),
                    seen_s: seen.as_secs(),
                });
            }
        }
        for source in &self.beyond {
            let jwks = Jwks {
                source: source.clone(),
                keys: None,
                why: Some(format!("keys are fetched from {MAX_SOURCES} sources at most")),
            };
            known.jwks.insert(source.clone(), Arc::new(jwks));
        }
        known
    }

    /// How long nothing is due. Keys that become too old are told of at once.
    fn nap(&self, now: Duration) -> Duration {
        let idle = self.sources.values().filter(|held| !held.under_way);
        let due = idle.map(|held| held.state.due().saturating_sub(now));
        let expiring = self.sources.values().filter_map(|held| held.state.expires());
        let expiring = expiring.filter(|at| *at > now).map(|at| at - now);
        let soonest = due.chain(expiring).min().unwrap_or(MAX_NAP);
        // Whatever is due and not begun waits for one that is under way.
        soonest.clamp(Duration::from_millis(50), MAX_NAP)
    }
}

fn state(stored: &Stored) -> State {
    State::new(Some((stored.keys.clone(), Duration::from_secs(stored.seen_s))))
}

/// The names of the mesh, as any node knows them.
fn index(view: &View) -> Option<Arc<Index>> {
    let whole = view.whole.flat();
    let resources = whole.nodes.values().next()?;
    Index::build(resources).ok().map(Arc::new)
}

/// From 0 to 1000.
fn chance() -> u32 {
    let mut bytes = [0; 2];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u32::from(u16::from_be_bytes(bytes)) % 1001
}
