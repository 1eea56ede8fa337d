//! What the command line may ask a certificate authority, over its Unix socket.

use std::sync::{Arc, PoisonError};

use admin::trust::{CaStatus, Holder, RootState};
use admin::{Call, Failure, Handler};
use identity::pki::{self, Fingerprint};
use serde_json::Value;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Asked, Rotation, waits};

/// The stage of roots that are somebody else's.
const PLUGGED: &str = "plugged";

/// Who answers.
#[derive(Debug)]
pub(crate) struct Desk(pub(crate) Arc<Rotation>);

impl Handler for Desk {
    async fn call(&self, call: Call) -> Result<Value, Failure> {
        match call.verb.as_str() {
            "status" => self.status().await,
            "rotate" => {
                self.begin()?;
                self.status().await
            }
            other => Err(Failure::usage(format!(
                "a certificate authority has no verb `{other}`"
            ))),
        }
    }
}

impl Desk {
    fn begin(&self) -> Result<(), Failure> {
        if self.0.roots.is_plugged() {
            return Err(Failure::no(
                "the CA was plugged in: whoever made its root replaces it; then start with the new files"
                    .to_owned(),
            ));
        }
        let undecided = |error: crate::CaError| Failure::undecided(format!("no rotation: {error}"));
        if !self.0.roots.begin(OffsetDateTime::now_utc()).map_err(undecided)? {
            let stage = self.0.roots.now().state.stage.as_str();
            return Err(Failure::no(format!(
                "a rotation is under way: {stage}; `ca status` says what it waits for"
            )));
        }
        self.0.publish().map_err(|error| {
            Failure::undecided(format!(
                "the rotation has begun, and waits until this is mended: {error}"
            ))
        })
    }

    async fn status(&self) -> Result<Value, Failure> {
        let asked = self.0.ask().await;
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let state = self.0.roots.now().state.clone();
        let problem = self
            .0
            .problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        // Which of several roots leads to a signer that was plugged in is not said.
        let plugged = self.0.roots.is_plugged();
        let all = state
            .roots
            .iter()
            .flat_map(|pem| pki::certificates(pem).unwrap_or_default());
        let status = CaStatus {
            stage: if plugged { PLUGGED } else { state.stage.as_str() }.to_owned(),
            since: state.since,
            roots: all
                .enumerate()
                .map(|(at, der)| root(&der, at == 0 && !plugged, &asked, now))
                .collect(),
            holders: asked.iter().map(|one| holder(one, now)).collect(),
            waiting_for: waits(&state, &asked, &self.0.ledger, now),
            old_leaves_end: state.old_leaves_end,
            problem,
        };
        serde_json::to_value(status).map_err(|error| Failure::undecided(error.to_string()))
    }
}

fn root(der: &[u8], signs: bool, asked: &[Asked], now: i64) -> RootState {
    let own = Fingerprint::of(der).to_string();
    let ends = X509Certificate::from_der(der).ok();
    let ends = ends.map(|(_, parsed)| parsed.validity().not_after.timestamp());
    let holdings = || asked.iter().filter_map(|one| one.said.as_ref().ok());
    let leaves = holdings().flat_map(|holding| &holding.leaves);
    RootState {
        not_after: ends.unwrap_or_default(),
        signs,
        trusted_by: holdings().filter(|holding| holding.roots.contains(&own)).count(),
        certificates: leaves
            .filter(|leaf| leaf.not_after > now && leaf.root.as_ref() == Some(&own))
            .count(),
        fingerprint: own,
    }
}

fn holder(asked: &Asked, now: i64) -> Holder {
    let (holding, away) = match &asked.said {
        Ok(holding) => (holding.clone(), None),
        Err(why) => (admin::trust::Holding::default(), Some(why.clone())),
    };
    Holder {
        name: asked.name.clone(),
        away,
        certificates: holding.leaves.len(),
        valid: holding.leaves.iter().filter(|leaf| leaf.not_after > now).count(),
        roots: holding.roots,
    }
}
