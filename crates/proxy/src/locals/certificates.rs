//! A certificate for each identity of this node, for as long as a workload has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use identity::{IssueError, TokenFile};
use model::SpiffeId;

use crate::Registration;

/// Which identities there is a certificate for: one a service account, whatever the number of its workloads.
#[derive(Debug)]
pub(super) struct Certificates {
    identities: identity::Store,
    /// With the token that each is had by.
    held: BTreeMap<SpiffeId, PathBuf>,
}

impl Certificates {
    pub(super) fn new(identities: identity::Store) -> Self {
        Self {
            identities,
            held: BTreeMap::new(),
        }
    }

    /// Has certificates issued for the identities of these workloads, and forgets all others.
    pub(super) fn keep(&mut self, workloads: &[Arc<Registration>]) {
        let wanted = wanted(workloads);
        self.held.retain(|id, _| {
            let keep = wanted.contains_key(id);
            if !keep {
                self.identities.forget(id);
            }
            keep
        });
        for (id, tokens) in wanted {
            // The workload whose token is used may go before others of its service account do.
            let at_hand = self.held.get(&id).is_some_and(|token| tokens.contains(token));
            if let Some(token) = tokens.into_iter().next()
                && !at_hand
            {
                self.held.insert(id.clone(), token.clone());
                tokio::spawn(ensure(self.identities.clone(), id, TokenFile(token)));
            }
        }
    }
}

fn wanted(workloads: &[Arc<Registration>]) -> BTreeMap<SpiffeId, BTreeSet<PathBuf>> {
    let mut wanted: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for workload in workloads {
        if let Some(id) = &workload.identity {
            wanted
                .entry(id.clone())
                .or_default()
                .insert(workload.token.clone());
        }
    }
    wanted
}

/// The store goes on trying after a failure; what is said here is the first one alone.
async fn ensure(identities: identity::Store, id: SpiffeId, token: TokenFile) {
    match identities.ensure(&id, token).await {
        Ok(()) => tracing::info!(%id, "a certificate is there"),
        Err(IssueError::GivenUp) => {}
        Err(error) => tracing::error!(%id, "no certificate: {error}"),
    }
}
