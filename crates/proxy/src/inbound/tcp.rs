//! Connections that are not read: decided once, before the application is dialled (O-04), and again by each snapshot.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use meshward_http::Rewind;
use model::Reason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::decide::{Refusal, Subject};
use super::record::Record;
use super::{Callee, Caller, reset};
use crate::relay::{Relayed, relay};
use crate::shared::Shared;

/// Carries a connection whose client's socket is ours: a refusal is a reset.
pub(super) async fn carry_socket(
    shared: &Arc<Shared>,
    caller: &Caller,
    callee: &Callee,
    stream: Rewind<TcpStream>,
) {
    // A clean end takes it back, by then nothing is left to be lost.
    reset(stream.get_ref());
    carry(shared, caller, callee, stream).await;
}

/// Carries a connection; leaves its event and says how it ended.
pub(super) async fn carry<IO>(shared: &Arc<Shared>, caller: &Caller, callee: &Callee, stream: IO) -> Relayed
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut record = Record::of(shared, caller, callee);
    let refused = |reason| Relayed {
        sent: 0,
        received: 0,
        reason: Some(reason),
    };
    let subject = Subject::new(caller, callee);
    // Registered before it is decided: no change falls in between.
    let entry = match shared.registry.register(subject.check(None)) {
        Ok(entry) => entry,
        Err(reason) => {
            record.refuse(reason);
            return refused(reason);
        }
    };
    let decided = match shared.store.current() {
        Some(index) => subject.decide(&index, None),
        None => Err(Refusal::Floor(Reason::NotReady)),
    };
    match decided {
        Ok(permit) => record.admitted(&permit),
        Err(refusal) => {
            let reason = refusal.reason();
            record.denied(&refusal);
            return refused(reason);
        }
    }
    let limit = super::app::patience(shared);
    let app = tokio::select! {
        app = shared.apps.connect(callee.address, limit) => app,
        reason = entry.closed() => {
            record.refuse(reason);
            return refused(reason);
        }
    };
    let app = match app {
        Ok(app) => app,
        Err(failure) => {
            record.message(&failure.why);
            record.refuse(failure.reason);
            return refused(failure.reason);
        }
    };
    record.upstream(callee.address);
    let relayed = relay(stream, app, entry.closed()).await;
    record.received().store(relayed.sent, Ordering::Relaxed);
    record.ended(relayed.reason, relayed.received);
    relayed
}
