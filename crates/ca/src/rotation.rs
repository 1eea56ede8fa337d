//! A rotation of the root: what each stage waits for, and the task that takes the next one.
//!
//! 1. `distributing`: the new root is in the bundle beside the old one, which signs. It lasts until every holder of
//!    certificates says that it trusts the new root.
//! 2. `renewing`: the new root signs and is the first of the bundle; holders renew what chains to the old one. It lasts
//!    until every holder says that it has nothing any more that chains to the old root.
//!
//! Holders are asked over their own sockets for what their handshakes use, so that nobody's word stands for them. One that
//! does not answer is waited for until nothing that was ever issued to it is valid any more: then it must ask for a
//! certificate before it can speak to anybody, and reads the bundle for that.

mod desk;
pub(crate) mod ledger;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use admin::trust::Holding;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::task::JoinSet;

use crate::config::{CaError, Config, Holder};
use crate::files;

use crate::roots::state::{Stage, State};
use crate::roots::{Roots, fingerprint};

use ledger::Ledger;

pub(crate) use desk::Desk;

/// How often holders are asked while a rotation is under way.
const ASK: Duration = Duration::from_millis(500);
/// How often it is looked whether the root is old, or the bundle could not be written.
const LOOK: Duration = Duration::from_secs(5);
/// How long a holder may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How far clocks may disagree: a certificate counts as ended after that, seconds.
const SKEW: i64 = 5;

/// The roots with all that rotating them needs.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub(crate) roots: Arc<Roots>,
    pub(crate) ledger: Arc<Ledger>,
    holders: Vec<Holder>,
    bundle: PathBuf,
    /// What the bundle was written with last.
    written: Mutex<String>,
    /// What could not be done, and is tried again.
    problem: Mutex<Option<String>>,
}

/// What a holder said.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    name: String,
    said: Result<Holding, String>,
}

impl Rotation {
    pub(crate) fn new(config: &Config, roots: Arc<Roots>, ledger: Arc<Ledger>) -> Self {
        Self {
            roots,
            ledger,
            holders: config.holders.clone(),
            bundle: config.root_out.clone(),
            written: Mutex::default(),
            problem: Mutex::default(),
        }
    }

    /// Writes the bundle, where it is not what it is to be.
    ///
    /// # Errors
    /// It cannot be written; the one before is there still.
    pub(crate) fn publish(&self) -> Result<(), CaError> {
        let bundle = self.roots.bundle();
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written != bundle {
            // One that is there already needs no room: a restart on a full disk serves.
            let there = std::fs::read_to_string(&self.bundle).is_ok_and(|text| text == bundle);
            if there {
                *written = bundle;
                return Ok(());
            }
            files::replace(&self.bundle, bundle.as_bytes(), 0o644)
                .map_err(|e| CaError::file("root bundle", &self.bundle, e))?;
            *written = bundle;
        }
        Ok(())
    }

    /// Rotates for ever: begins where a root is old, goes on where nothing is waited for any more.
    pub(crate) async fn run(&self) {
        let mut changes = self.roots.follow();
        loop {
            let stage = changes.borrow_and_update().state.stage;
            let done = self.advance(OffsetDateTime::now_utc()).await;
            if let Err(error) = &done {
                tracing::error!("{error}");
            }
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = done.err().map(|e| e.to_string());
            let pause = if stage == Stage::Steady { LOOK } else { ASK };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = changes.changed() => {}
            }
        }
    }

    async fn advance(&self, now: OffsetDateTime) -> Result<(), CaError> {
        self.publish()?;
        self.ledger.forget(now.unix_timestamp().saturating_sub(SKEW));
        if self.roots.now().state.stage == Stage::Steady {
            if self.roots.signing().is_old(now) && !self.roots.is_plugged() {
                tracing::warn!(
                    "the root ends at {}: it is rotated",
                    self.roots.signing().not_after()
                );
                self.roots.begin(now)?;
                self.publish()?;
            }
            return Ok(());
        }
        let asked = self.ask().await;
        // The time when they were asked: what ended since then may have been renewed.
        let waits = waits(
            &self.roots.now().state,
            &asked,
            &self.ledger,
            now.unix_timestamp(),
        );
        if waits.is_empty() {
            self.roots.step(now)?;
            self.publish()?;
        }
        Ok(())
    }

    /// Asks all holders at once.
    pub(crate) async fn ask(&self) -> Vec<Asked> {
        let mut asking = JoinSet::new();
        for holder in &self.holders {
            let holder = holder.clone();
            asking.spawn(async move {
                let said = tokio::time::timeout(ANSWER, ask(&holder)).await;
                let said = said.unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER.as_secs())));
                Asked {
                    name: holder.name,
                    said,
                }
            });
        }
        let mut asked = Vec::new();
        while let Some(one) = asking.join_next().await {
            asked.extend(one);
        }
        asked.sort_by(|a, b| a.name.cmp(&b.name));
        asked
    }
}

async fn ask(holder: &Holder) -> Result<Holding, String> {
    let answer = admin::call(&holder.socket, "trust", Value::Null, Vec::new())
        .await
        .map_err(|error| error.to_string())?;
    let value = answer.finish().await.map_err(|failure| failure.message)?;
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// What the stage waits for, a sentence each; nothing where it is over. `now` is in Unix seconds.
pub(crate) fn waits(state: &State, asked: &[Asked], ledger: &Ledger, now: i64) -> Vec<String> {
    let Some(other) = state.other().and_then(|pem| fingerprint(pem)) else {
        return Vec::new();
    };
    let past = |end: i64| now >= end.saturating_add(SKEW);
    let other_text = other.to_string();
    let mut waits = Vec::new();
    match state.stage {
        Stage::Steady => {}
        Stage::Distributing => {
            for Asked { name, said } in asked {
                let end = ledger.end(name);
                match said {
                    Ok(holding) if holding.roots.contains(&other_text) => {}
                    Ok(_) => waits.push(format!("{name} does not trust the new root yet")),
                    Err(_) if past(end) => {}
                    Err(why) => waits.push(format!(
                        "{name} does not say that it trusts the new root ({why}); all its certificates end by {}",
                        shown(end)
                    )),
                }
            }
            let end = state.since.saturating_add(state.longest_leaf_s);
            if asked.is_empty() && !past(end) {
                waits.push(format!(
                    "nobody can be asked: the certificates of before have ended by {}",
                    shown(end)
                ));
            }
        }
        Stage::Renewing => {
            let bound = state.old_leaves_end.unwrap_or(i64::MAX);
            if past(bound) {
                return waits;
            }
            for Asked { name, said } in asked {
                match said {
                    Ok(holding) => {
                        // One whose root is not known may be of the old one.
                        let old = holding
                            .leaves
                            .iter()
                            .filter(|leaf| !past(leaf.not_after))
                            .filter(|leaf| leaf.root.as_ref().is_none_or(|root| *root == other_text));
                        let count = old.count();
                        if count > 0 {
                            waits.push(format!("{name} has {count} certificates of the old root"));
                        }
                    }
                    Err(why) => waits.push(format!(
                        "{name} does not say that it has no certificate of the old root ({why}); all end by {}",
                        shown(bound)
                    )),
                }
            }
            let known: Vec<&str> = asked.iter().map(|asked| asked.name.as_str()).collect();
            let (end, who) = ledger.others(other, &known);
            let end = end.min(bound);
            if !past(end) {
                let who = who.unwrap_or_else(|| "others, from before this process was there,".to_owned());
                waits.push(format!(
                    "{who} may have certificates of the old root, which end by {}",
                    shown(end)
                ));
            }
        }
    }
    waits
}

/// A time for people, RFC 3339.
fn shown(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| format!("{seconds} s after 1970"))
}

#[cfg(test)]
mod tests;
