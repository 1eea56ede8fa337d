//! What comes in to a workload of this node: accepted as its mode says, decided by policy, handed to the application.
//!
//! A captured connection is read as far as [`chain`] needs to say what it is, mutual TLS is ended here, and then there
//! are two ways: bytes are decided once, before the application is dialled ([`stream`]), and each HTTP request by the
//! newest snapshot ([`http`]). What a workload of this very node sends comes in by the same two functions.

mod app;
mod chain;
mod decide;
mod denials;
mod exchange;
mod external;
mod fields;
mod hbone;
mod http;
mod metadata;
mod open;
mod record;
mod sniff;
mod tcp;
mod token;
mod turns;
mod xfcc;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use identity::PeerIdentity;
use meshward_http::{Abort, Protocol as Read, Request, Response, Rewind, Version};
use model::{Reason, ServiceName, canonical_ip};
use snapshot::{Index, Workload};
use telemetry::{Peer, Wire};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use crate::Registration;
use crate::outbound::headers::{self, Asks};
use crate::relay::{Relayed, turn};
use crate::shared::{Carried, Shared, Stage};
use chain::{Chain, Inside};
use metadata::Told;
use record::Record;

pub(crate) use app::Apps;
pub(crate) use denials::Denials;
pub(crate) use external::Authorizers;
pub(crate) use open::Open;

/// How long to wait before accepting again where the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Application protocols of the mesh's HTTP, and those of strangers, who are told what is missing by a handshake that
/// fails for want of a certificate and not of a protocol.
const HTTP_ALPN: [&[u8]; 7] = [
    b"istio-h2",
    b"istio-http/1.1",
    b"istio-http/1.0",
    b"istio",
    b"istio-peer-exchange",
    b"h2",
    b"http/1.1",
];
const TCP_ALPN: [&[u8]; 8] = [
    turn::ALPN,
    b"istio",
    b"istio-peer-exchange",
    b"istio-h2",
    b"istio-http/1.1",
    b"istio-http/1.0",
    b"h2",
    b"http/1.1",
];

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
    /// The host of the Service that declares the port, for events.
    pub(crate) service: Option<Arc<str>>,
    /// For events.
    pub(crate) destination: Arc<Peer>,
}

/// The callee at an address of this node; `None` where it is not in the mesh here, or not in the snapshot.
pub(crate) fn callee(shared: &Shared, index: &Index, address: SocketAddr) -> Option<Callee> {
    let local = shared.locals.by_address(address.ip())?;
    callee_of(index, local, address)
}

fn callee_of(index: &Index, local: Arc<Registration>, address: SocketAddr) -> Option<Callee> {
    let id = local.identity.clone()?;
    let workload = Arc::clone(index.workload(&local.uid)?);
    let inbound = workload.inbound.as_ref()?;
    let declared = inbound.ports.iter().find(|p| p.port == address.port());
    let service = declared.and_then(|p| p.service.as_ref());
    let service = service.map(|name| host(index, name));
    let destination = Arc::new(record::peer(&workload, address, Some(&id)));
    Some(Callee {
        local,
        address,
        service,
        destination,
        workload,
    })
}

/// Whether the callee has a valid certificate. What comes in plaintext needs none of it, and is not carried before either:
/// until then nobody knows whether the workload is what it is registered as.
fn is_ready(shared: &Shared, callee: &Callee) -> bool {
    let id = callee.local.identity.as_ref();
    id.is_some_and(|id| shared.identities.ready(id))
}

/// The host of a Service, also where the snapshot has not got it.
fn host(index: &Index, name: &ServiceName) -> Arc<str> {
    match index.service(name) {
        Some(service) => Arc::from(service.host.as_str()),
        None => {
            let domain = &index.mesh().cluster_domain;
            Arc::from(format!("{}.{}.svc.{domain}", name.name(), name.namespace()))
        }
    }
}

/// Hands one request of a workload of this node over to another one: decides it as any that comes in, and carries it to
/// the application. `restored` is the version that the caller's application speaks, where the request came by another one.
/// Leaves the destination's event.
pub(crate) async fn request(
    shared: &Arc<Shared>,
    caller: &Caller,
    callee: &Callee,
    restored: Option<Version>,
    request: Request,
) -> Result<Response, Abort> {
    if headers::asks(&request) == Asks::WebSocket {
        return http::looped(shared, caller, callee, request).await;
    }
    let ends = http::Ends::new(caller.clone(), callee.clone());
    let answered = http::request(shared, &ends, restored, request).await?;
    Ok(answered.response)
}

/// Hands a connection of a workload of this node over to another one, where it is not read as HTTP: decides it as any
/// that comes in, before the application is dialled, and relays. Leaves the destination's event; returns how it ended,
/// for the source's.
pub(crate) async fn stream<IO>(
    shared: &Arc<Shared>,
    caller: &Caller,
    callee: &Callee,
    stream: &mut IO,
) -> Relayed
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
{
    tcp::carry(shared, caller, callee, stream).await
}

/// Takes what was captured on its way to workloads of this node, until told to drain.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    take(shared, listener, |stream| {
        capture::socket::mark(stream)
            .and_then(|mark| capture::socket::original_dst(stream).map(|to| (mark, to)))
    })
    .await;
}

/// Takes what comes to an ordinary listener: all of it is for the workload of that mark, at that address of its own.
pub(crate) async fn serve_for(shared: Arc<Shared>, listener: TcpListener, mark: u32, to: SocketAddr) {
    take(shared, listener, move |_| Ok((mark, to))).await;
}

/// Takes connections; `whose` says to which workload one came, by its mark, and where it wanted to go.
async fn take(
    shared: Arc<Shared>,
    listener: TcpListener,
    whose: impl Fn(&TcpStream) -> std::io::Result<(u32, SocketAddr)>,
) {
    let mut draining = pin!(shared.ending.reached(Stage::Draining));
    let open = Arc::new(Open::default());
    shared.ending.reached(Stage::Running).await;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    let known = whose(&stream);
                    let carried = shared.ending.carry();
                    let (shared, open) = (Arc::clone(&shared), Arc::clone(&open));
                    tokio::spawn(taken(shared, open, carried, stream, client, known));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting captured connections failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = &mut draining => return,
        }
    }
}

async fn taken(
    shared: Arc<Shared>,
    open: Arc<Open>,
    _carried: Carried,
    stream: TcpStream,
    client: SocketAddr,
    known: std::io::Result<(u32, SocketAddr)>,
) {
    let _ = stream.set_nodelay(true);
    match known {
        Ok((mark, to)) => {
            let (client, to) = (canonical(client), canonical(to));
            let Some(_share) = open.share(mark) else {
                reset(&stream);
                let record = Record::connection(&shared, client, to);
                return record.refuse(Reason::LimitReached);
            };
            let local = shared.locals.by_mark(mark).await;
            accept(shared, open, stream, local, client, to).await;
        }
        Err(error) => tracing::debug!(%error, "a captured connection was gone before it was looked at"),
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(canonical_ip(address.ip()), address.port())
}

/// Whether the port is one that only captured connections may arrive at (MT-24, MT-25), or that of tunnels, to which none
/// leads.
fn is_reserved(port: u16) -> bool {
    [
        capture::OUTBOUND_PORT,
        capture::INBOUND_PORT,
        capture::DNS_PORT,
        capture::HBONE_PORT,
    ]
    .contains(&port)
}

/// Carries one captured connection, whatever it turns out to be.
async fn accept(
    shared: Arc<Shared>,
    open: Arc<Open>,
    stream: TcpStream,
    local: Option<Arc<Registration>>,
    client: SocketAddr,
    to: SocketAddr,
) {
    let mut record = Record::connection(&shared, client, to);
    if let Some(local) = &local {
        // Who calls is named in what is told of it, whatever comes of it.
        let Shared { demand, store, .. } = shared.as_ref();
        demand.learn_caller(store, local.mark, client.ip()).await;
    }
    let found = find(&shared, local, to, &mut record);
    let (index, callee) = match found {
        Ok(found) => found,
        Err(reason) => {
            reset(&stream);
            return record.refuse(reason);
        }
    };
    record.callee(&callee);
    record.source(&record::source(&index, client, None));
    if to.port() == capture::HBONE_PORT {
        drop(index);
        return hbone::accept(shared, record, stream, callee, open).await;
    }
    let (mode, protocol) = callee
        .workload
        .inbound
        .as_ref()
        .map_or((model::MtlsMode::Strict, model::Protocol::Auto), |i| {
            i.port(to.port())
        });
    let limit = index.mesh().protocol_detection_timeout();
    let http10 = index.mesh().http10;
    drop(index);
    let sniffed = tokio::select! {
        sniffed = sniff::first(stream, mode, protocol, limit) => sniffed,
        () = shared.ending.reached(Stage::Over) => return record.refuse(Reason::Draining),
    };
    let (stream, first) = match sniffed {
        Ok(sniffed) => sniffed,
        Err(error) => return record.gone(&error.to_string()),
    };
    let chain = chain::select(mode, protocol, &first, http10);
    if first == sniff::First::Ended && matches!(chain, Chain::Refused(..)) {
        // A probe, say: nobody was refused anything.
        return record.gone("closed before a byte");
    }
    let plain = Caller {
        peer: None,
        address: client,
        sni: first.sni().map(Arc::from),
        wire: match first {
            sniff::First::Tls { .. } => Wire::Foreign,
            _ => Wire::Plaintext,
        },
        source: shared
            .store
            .current()
            .map(|index| record::source(&index, client, None))
            .unwrap_or_default(),
    };
    record.source(&plain.source);
    match chain {
        Chain::Refused(reason, why) => {
            reset(stream.get_ref());
            record.sni(first.sni());
            record.message(why);
            record.refuse(reason);
        }
        Chain::Http => {
            let connection = http::Connection {
                shared,
                caller: plain,
                callee,
                restored: None,
                http10,
            };
            connection.serve(record, stream, Read::Detect).await;
        }
        Chain::Tcp => {
            record.discard();
            tcp::carry_socket(&shared, &plain, &callee, stream).await;
        }
        Chain::Mesh(inside) => mesh(shared, record, stream, &first, callee, inside, http10).await,
    }
}

fn find(
    shared: &Shared,
    local: Option<Arc<Registration>>,
    to: SocketAddr,
    record: &mut Record,
) -> Result<(Arc<Index>, Callee), Reason> {
    let local = local.ok_or(Reason::UnknownWorkload)?;
    record.registered(&local, to);
    // What is decided for one workload must not be dialled at another.
    if !local.addresses.iter().any(|own| canonical_ip(*own) == to.ip()) {
        return Err(Reason::UnknownWorkload);
    }
    if is_reserved(to.port()) && to.port() != capture::HBONE_PORT {
        record.message("a port of capture is no destination");
        return Err(Reason::CapturePort);
    }
    let index = shared.store.current().ok_or(Reason::NotReady)?;
    let callee = callee_of(&index, local, to).ok_or(Reason::NotReady)?;
    Ok((index, callee))
}

/// Ends mutual TLS, and goes on with what is inside.
async fn mesh(
    shared: Arc<Shared>,
    mut record: Record,
    stream: Rewind<TcpStream>,
    first: &sniff::First,
    callee: Callee,
    inside: Inside,
    http10: bool,
) {
    let client = record.client();
    record.sni(first.sni());
    let Some(id) = callee.local.identity.clone() else {
        return record.refuse(Reason::NotReady);
    };
    let alpn = match inside {
        Inside::Http => HTTP_ALPN.as_slice(),
        Inside::Tcp => &TCP_ALPN,
    };
    let accepted = match shared.identities.accept(&id, stream, alpn).await {
        Ok(accepted) => accepted,
        Err(error) => {
            record.message(&format!("TLS error: {error}"));
            return record.refuse(error.reason());
        }
    };
    let index = shared.store.current();
    let proven = accepted.peer.id().clone();
    let caller = Caller {
        source: index
            .map(|index| record::source(&index, client, Some(&proven)))
            .unwrap_or_default(),
        peer: Some(accepted.peer),
        address: client,
        sni: accepted.sni.map(Arc::from),
        wire: Wire::MutualTls,
    };
    record.caller(&caller);
    let tells = accepted.alpn.as_deref() == Some(metadata::ALPN);
    match inside {
        Inside::Http => {
            let read = match accepted.alpn.as_deref() {
                Some(b"istio-h2" | b"h2") => Read::Http2,
                Some(b"istio-http/1.1" | b"istio-http/1.0" | b"http/1.1") => Read::Http1,
                _ => Read::Detect,
            };
            let connection = http::Connection {
                shared,
                caller,
                callee,
                // A client that would have spoken HTTP/1.1 has an application that does.
                restored: first.offers(b"istio-http/1.1").then_some(Version::Http1),
                http10,
            };
            if tells {
                connection.serve(record, Told::new(accepted.stream), read).await;
            } else {
                connection.serve(record, accepted.stream, read).await;
            }
        }
        Inside::Tcp if accepted.alpn.as_deref() == Some(turn::ALPN) => {
            record.discard();
            let connection = turns::Connection {
                shared,
                caller,
                callee,
                first: first.clone(),
                standing: accepted.standing,
            };
            connection.serve(accepted.stream).await;
        }
        Inside::Tcp if tells => {
            record.discard();
            let mut stream = Told::new(accepted.stream);
            let relayed = tcp::carry(&shared, &caller, &callee, &mut stream).await;
            if relayed.reason.is_some() {
                reset(stream.get_ref().get_ref().0.get_ref().get_ref());
            }
        }
        Inside::Tcp => {
            record.discard();
            let mut stream = accepted.stream;
            let relayed = tcp::carry(&shared, &caller, &callee, &mut stream).await;
            if relayed.reason.is_some() {
                // Not everybody minds an end without `close_notify`.
                reset(stream.get_ref().0.get_ref().get_ref());
            }
        }
    }
}

/// Makes the coming close a reset, so that nobody can take it for an end.
fn reset(stream: &TcpStream) {
    if let Err(error) = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)) {
        tracing::debug!(%error, "a refused connection is closed without a reset");
    }
}

#[cfg(test)]
mod tests;
