//! HBONE, Istio's ambient transport: tunnels within mutual TLS on port 15008 of a workload (semantics 1.4, 1.8).
//!
//! Who calls is who the outer handshake proves; where a tunnel leads is its `:authority`, an address of the workload that the
//! connection was made to. What is inside is read as its port is declared, and decided as what comes by mutual TLS on the port
//! itself. Fields of the request (`forwarded`, `baggage`, `traceparent`) are what the peer says of itself: nothing is decided
//! by them.

use std::net::SocketAddr;
use std::sync::Arc;

use meshward_http::{Connect, Protocol as Read, StatusCode, Tunnel, Tunnels, serve_tunnels};
use model::{MtlsMode, Protocol, Reason, canonical_ip};
use telemetry::Wire;
use tokio::net::TcpStream;

use super::chain::{self, Chain};
use super::open::{Open, Share};
use super::record::{self, Record};
use super::{Callee, Caller, callee_of, http, is_reserved, reset, sniff, tcp};
use crate::shared::{Shared, Stage};

/// The one application protocol.
const ALPN: [&[u8]; 1] = [b"h2"];

/// Ends mutual TLS of a connection to port 15008, and serves its tunnels.
pub(super) async fn accept(
    shared: Arc<Shared>,
    mut record: Record,
    stream: TcpStream,
    callee: Callee,
    open: Arc<Open>,
) {
    let client = record.client();
    let Some(id) = callee.local.identity.clone() else {
        return record.refuse(Reason::NotReady);
    };
    let sniffed = tokio::select! {
        // Mutual TLS is demanded, whatever the modes of the ports are (MT-26, MT-27).
        sniffed = sniff::first(stream, MtlsMode::Strict, Protocol::Tcp, None) => sniffed,
        () = shared.ending.reached(Stage::Over) => return record.refuse(Reason::Draining),
    };
    let (stream, first) = match sniffed {
        Ok(sniffed) => sniffed,
        Err(error) => return record.gone(&error.to_string()),
    };
    record.sni(first.sni());
    if let Chain::Refused(reason, why) = chain::select(MtlsMode::Strict, Protocol::Tcp, &first, false) {
        if first == sniff::First::Ended {
            return record.gone("closed before a byte");
        }
        reset(stream.get_ref());
        record.message(why);
        return record.refuse(reason);
    }
    let accepted = match shared.identities.accept(&id, stream, &ALPN).await {
        Ok(accepted) => accepted,
        Err(error) => {
            record.message(&format!("TLS error: {error}"));
            return record.refuse(error.reason());
        }
    };
    let proven = accepted.peer.id().clone();
    let mark = callee.local.mark;
    shared.demand.learn_caller(&shared.store, mark, client.ip()).await;
    let index = shared.store.current();
    let caller = Caller {
        source: index
            .map(|index| record::source(&index, client, Some(&proven)))
            .unwrap_or_default(),
        peer: Some(accepted.peer),
        address: client,
        // A tunnel's peer asks for no name; what one asks for is no matter of what is inside.
        sni: None,
        wire: Wire::Hbone,
    };
    record.caller(&caller);
    if accepted.alpn.as_deref() != Some(b"h2") {
        record.message("HBONE without the application protocol `h2`");
        return record.refuse(Reason::ProtocolError);
    }
    let handler = Arc::new(Handler {
        shared: Arc::clone(&shared),
        caller,
        callee,
        open,
    });
    let drain = shared.ending.reached(Stage::Draining);
    let served = serve_tunnels(accepted.stream, handler, drain).await;
    match served {
        // Each tunnel has left an event of its own.
        Ok(()) => record.discard(),
        Err(error) => record.gone(&error.to_string()),
    }
}

struct Handler {
    shared: Arc<Shared>,
    caller: Caller,
    /// The workload, at port 15008.
    callee: Callee,
    open: Arc<Open>,
}

/// Why a tunnel is refused before anything is decided.
type Refused = (Reason, StatusCode, &'static str);

impl Tunnels for Handler {
    async fn connect(&self, asked: Connect) {
        let mut tunnel = asked.tunnel;
        match self.place(asked.authority.as_str()) {
            Ok((callee, share)) => self.carry(callee, tunnel, share).await,
            Err((reason, status, why)) => {
                tunnel.refuse(status);
                self.refuse(reason, why);
            }
        }
    }

    fn refused(&self, why: &'static str) {
        self.refuse(Reason::ProtocolError, why);
    }
}

impl Handler {
    fn refuse(&self, reason: Reason, why: &str) {
        let mut record = Record::of(&self.shared, &self.caller, &self.callee);
        record.message(why);
        record.refuse(reason);
    }

    /// Where a tunnel leads. What is decided for one workload must not be dialled at another.
    fn place(&self, authority: &str) -> Result<(Callee, Share), Refused> {
        let nowhere = (
            Reason::UnknownWorkload,
            StatusCode::BAD_REQUEST,
            "a tunnel leads to an address of the workload that it is asked of, and to no other",
        );
        let to: SocketAddr = authority.parse().map_err(|_| nowhere)?;
        let to = SocketAddr::new(canonical_ip(to.ip()), to.port());
        let local = &self.callee.local;
        if !local.addresses.iter().any(|own| canonical_ip(*own) == to.ip()) {
            return Err(nowhere);
        }
        if is_reserved(to.port()) {
            let why = "a port of capture is no destination";
            return Err((Reason::CapturePort, StatusCode::BAD_REQUEST, why));
        }
        let unready = (Reason::NotReady, StatusCode::SERVICE_UNAVAILABLE, "");
        let index = self.shared.store.current().ok_or(unready)?;
        let callee = callee_of(&index, Arc::clone(local), to).ok_or(unready)?;
        let share = self.open.share(local.mark).ok_or((
            Reason::LimitReached,
            StatusCode::SERVICE_UNAVAILABLE,
            "too many connections are open",
        ))?;
        Ok((callee, share))
    }

    async fn carry(&self, callee: Callee, tunnel: Tunnel, _share: Share) {
        let (protocol, http10, limit) = {
            let index = self.shared.store.current();
            let mesh = index.as_ref().map(|index| index.mesh());
            let inbound = callee.workload.inbound.as_ref();
            (
                inbound.map_or(Protocol::Auto, |i| i.port(callee.address.port()).1),
                mesh.is_some_and(|mesh| mesh.http10),
                mesh.and_then(|mesh| mesh.protocol_detection_timeout()),
            )
        };
        // What is inside is not in TLS of the mesh's again: as on a port without.
        let sniffed = tokio::select! {
            sniffed = sniff::first(tunnel, MtlsMode::Disable, protocol, limit) => sniffed,
            () = self.shared.ending.reached(Stage::Over) => return self.refuse(Reason::Draining, ""),
        };
        let (stream, first) = match sniffed {
            Ok(sniffed) => sniffed,
            Err(error) => return Record::of(&self.shared, &self.caller, &callee).gone(&error.to_string()),
        };
        match chain::select(MtlsMode::Disable, protocol, &first, http10) {
            Chain::Http => {
                let record = Record::of(&self.shared, &self.caller, &callee);
                let connection = http::Connection {
                    shared: Arc::clone(&self.shared),
                    caller: self.caller.clone(),
                    callee,
                    restored: None,
                    http10,
                };
                connection.serve(record, stream, Read::Detect).await;
            }
            Chain::Tcp => {
                let mut stream = stream;
                let relayed = tcp::carry(&self.shared, &self.caller, &callee, &mut stream).await;
                if let Some(reason) = relayed.reason {
                    // Where it has been granted it is broken off.
                    stream.into_parts().1.refuse(status(reason));
                }
            }
            Chain::Mesh(_) | Chain::Refused(..) => {
                stream.into_parts().1.refuse(StatusCode::BAD_REQUEST);
                let mut record = Record::of(&self.shared, &self.caller, &callee);
                record.message("the port is declared as UDP");
                record.refuse(Reason::NoRoute);
            }
        }
    }
}

/// What a tunnel that was not granted is answered, as by ztunnel.
fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::NotReady
        | Reason::ConnectFailed
        | Reason::UpstreamReset
        | Reason::LimitReached
        | Reason::Timeout
        | Reason::Draining => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNAUTHORIZED,
    }
}
