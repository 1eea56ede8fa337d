//! What comes in to a workload of this node: accepted as its mode says, decided by policy, handed to the application.

use std::net::SocketAddr;
use std::sync::Arc;

use identity::PeerIdentity;
use meshward_http::{Abort, Request, Response};
use model::ServiceName;
use snapshot::{Index, Workload};
use telemetry::{Peer, Wire};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use crate::Registration;
use crate::relay::Relayed;
use crate::shared::Shared;

/// Who calls: the same whether it came over mutual TLS, in plaintext, or from a workload of this very node.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The identity that was proven; `None` for plaintext.
    pub(crate) peer: Option<PeerIdentity>,
    /// Where it comes from: the pod's address where it is one.
    pub(crate) address: SocketAddr,
    /// The name that the TLS handshake asked for; for a local hand-over the one that it would have asked for.
    pub(crate) sni: Option<Arc<str>>,
    /// How it came.
    pub(crate) wire: Wire,
    /// For events: built from the snapshot by address and identity.
    pub(crate) source: Arc<Peer>,
}

/// Who is called: a workload port of this node.
#[derive(Clone, Debug)]
pub(crate) struct Callee {
    /// The registration of the workload.
    pub(crate) local: Arc<Registration>,
    /// What the snapshot says of it. Decisions take the newest snapshot, not this.
    pub(crate) workload: Arc<Workload>,
    /// The workload's address and port.
    pub(crate) address: SocketAddr,
    /// The Service that declares the port, for events.
    pub(crate) service: Option<ServiceName>,
    /// For events.
    pub(crate) destination: Arc<Peer>,
}

/// The callee at an address of this node; `None` where it is not in the mesh here, or not in the snapshot.
pub(crate) fn callee(_shared: &Shared, _index: &Index, _address: SocketAddr) -> Option<Callee> {
    None
}

/// Hands one request of a workload of this node over to another one: decides it as any that comes in, and carries it to
/// the application. Leaves the destination's event.
pub(crate) async fn request(
    _shared: &Arc<Shared>,
    _caller: &Caller,
    _callee: &Callee,
    _request: Request,
) -> Result<Response, Abort> {
    Err(Abort)
}

/// Hands a connection of a workload of this node over to another one, where it is not read as HTTP: decides it as any
/// that comes in, before the application is dialled, and relays. Leaves the destination's event; returns how it ended,
/// for the source's.
pub(crate) async fn stream<IO>(
    _shared: &Arc<Shared>,
    _caller: &Caller,
    _callee: &Callee,
    _stream: IO,
) -> Relayed
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Relayed {
        sent: 0,
        received: 0,
        reason: None,
    }
}

/// Takes what was captured on its way to workloads of this node, until told to drain.
pub(crate) async fn serve(_shared: Arc<Shared>, _listener: TcpListener) {}
