//! Connections that are not read: decided once, before the application is dialled (O-04), and again by each snapshot.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use meshward_http::Rewind;
use model::Reason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::decide::{Refusal, Subject};
use super::record::Record;
use super::{Callee, Caller, external, is_ready, reset};
use crate::relay::{Relayed, relay_counted};
use crate::shared::Shared;

/// Carries a connection whose client's socket is ours: whatever is no clean end is a reset, as one is to be told from
/// the other.
pub(super) async fn carry_socket(
    shared: &Arc<Shared>,
    caller: &Caller,
    callee: &Callee,
    mut stream: Rewind<TcpStream>,
) {
    let relayed = carry(shared, caller, callee, &mut stream).await;
    if relayed.reason.is_some() {
        reset(stream.get_ref());
    }
}

/// Carries a connection; leaves its event and says how it ended. Where that was not cleanly, the stream is left open: its
/// owner makes a reset of it, or a truncation.
pub(super) async fn carry<IO>(
    shared: &Arc<Shared>,
    caller: &Caller,
    callee: &Callee,
    stream: &mut IO,
) -> Relayed
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut record = Record::of(shared, caller, callee);
    let refused = |reason| Relayed {
        sent: 0,
        received: 0,
        reason: Some(reason),
    };
    let mut subject = Subject::new(caller, callee);
    if is_ready(shared, callee) {
        external::connection(shared, caller, callee, &mut subject, &mut record).await;
    }
    // Registered before it is decided: no change falls in between.
    let entry = match shared.registry.register(subject.check(None)) {
        Ok(entry) => entry,
        Err(reason) => {
            record.refuse(reason);
            return refused(reason);
        }
    };
    let decided = match shared.store.current() {
        Some(index) if is_ready(shared, callee) => {
            let decided = subject.decide(&index, None);
            if matches!(decided, Err(Refusal::Policy(_))) {
                record.decided(subject.decided(&index, None));
            }
            decided
        }
        _ => Err(Refusal::Floor(Reason::NotReady)),
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
    let mut app = match app {
        Ok(app) => app,
        Err(failure) => {
            record.message(&failure.why);
            record.refuse(failure.reason);
            return refused(failure.reason);
        }
    };
    record.upstream(callee.address);
    let progress = Arc::default();
    record.opened(&progress);
    let relayed = relay_counted(stream, &mut app, entry.closed(), &progress).await;
    if relayed.reason.is_some() {
        // The application must not take what it has so far for all there is.
        reset(&app);
    }
    record.received().store(relayed.sent, Ordering::Relaxed);
    record.ended(relayed.reason, relayed.received);
    relayed
}
