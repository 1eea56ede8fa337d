//! Metrics and health of a node's proxy.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use meshward_http::pages::{self, Guard, Pages};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use crate::shared::{Purpose, Shared, Stage, staleness};

/// How many wait to be served; the system refuses more.
const BACKLOG: u32 = 128;

/// Listens at every address of the configuration, and answers from a stage on.
///
/// # Errors
/// An address cannot be had.
pub(crate) fn start(
    shared: &Arc<Shared>,
    tasks: &mut JoinSet<Result<(), String>>,
    from: Stage,
) -> Result<(), String> {
    let guard = Arc::new(Guard::new(shared.config.metrics_allow.clone()));
    for address in &shared.config.metrics {
        let guard = Arc::clone(&guard);
        let listener = shared
            .sockets
            .listener(Purpose::Metrics, *address, bind)
            .map_err(|error| format!("cannot listen on {address}: {error}"))?;
        let (shared, handed_over) = (Arc::clone(shared), shared.ending.reached(Stage::HandedOver));
        let begin = shared.ending.reached(from);
        tasks.spawn(async move {
            begin.await;
            tokio::select! {
                () = pages::answer(listener, shared, guard) => Ok(()),
                // Whoever asks from now on is to reach the other one. The task stays, as all do.
                () = handed_over => std::future::pending().await,
            }
        });
    }
    Ok(())
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
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
    match shared.ending.stage() {
        Stage::Starting => missing.push("starting".to_owned()),
        Stage::Running => {}
        Stage::Draining | Stage::HandedOver | Stage::Over => missing.push("draining".to_owned()),
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
