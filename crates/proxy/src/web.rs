//! Metrics and health of a node's proxy.

use std::sync::Arc;

use meshward_http::pages::{self, Pages};
use tokio::task::JoinSet;

use crate::shared::{Shared, staleness};

/// Listens at every address of the configuration.
///
/// # Errors
/// An address cannot be had.
pub(crate) async fn start(
    shared: &Arc<Shared>,
    tasks: &mut JoinSet<Result<(), String>>,
) -> Result<(), String> {
    for listener in pages::listen(&shared.config.metrics).await? {
        let shared = Arc::clone(shared);
        tasks.spawn(async move {
            pages::answer(listener, shared).await;
            Ok(())
        });
    }
    Ok(())
}

impl Pages for Shared {
    fn metrics(&self) -> String {
        staleness::metrics(self)
    }

    fn missing(&self) -> Vec<String> {
        missing(self)
    }
}

/// What a proxy waits for before it can carry what it is to carry.
fn missing(shared: &Shared) -> Vec<String> {
    let mut missing = Vec::new();
    if shared.store.current().is_none() {
        missing.push("no snapshot yet".to_owned());
    }
    if *shared.draining.borrow() {
        missing.push("draining".to_owned());
    }
    let mut ids: Vec<_> = shared
        .locals
        .all()
        .iter()
        .filter_map(|w| w.identity.clone())
        .collect();
    ids.sort();
    ids.dedup();
    let unready = ids.iter().filter(|id| !shared.identities.ready(id));
    missing.extend(unready.map(|id| format!("no certificate yet: {id}")));
    missing
}

#[cfg(test)]
mod tests;
