//! The one event of a connection or a request: whatever happens, dropping the record leaves it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use model::{Reason, SpiffeId};
use snapshot::{Destination, Index, ServiceTarget, Workload};
use telemetry::{
    Attached, Decision, Event, EventKind, HttpEvent, Known, Peer, Progress, Reporter, Span, Telemetry, Wire,
};

use super::Client;
use super::answer::Failure;
use super::hop::Hop;
use crate::Registration;

/// An event in the making.
pub(super) struct Record {
    /// Nobody else's until it is whole.
    event: Option<Arc<Event>>,
    telemetry: Telemetry,
    began: Instant,
    /// Bytes from the caller so far, where somebody counts them.
    received: Option<Arc<AtomicU64>>,
    /// Messages of gRPC from the caller so far.
    messages: Option<Arc<AtomicU64>>,
    /// What is counted and traced besides.
    attached: Attached,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").finish_non_exhaustive()
    }
}

impl Record {
    /// Of a connection that `address` opened to `dialled`.
    pub(super) fn connection(telemetry: &Telemetry, address: SocketAddr, dialled: SocketAddr) -> Self {
        let (source, destination) = (Arc::new(at(address)), Arc::new(at(dialled)));
        Self::new(telemetry, EventKind::Connection, source, destination, dialled)
    }

    /// Of a request of a client, which has gone `nowhere` yet; others of its connection were counted in `known`.
    pub(super) fn request(
        telemetry: &Telemetry,
        client: &Client,
        nowhere: &Arc<Peer>,
        known: &Arc<Known>,
        http: HttpEvent,
    ) -> Self {
        let (source, destination) = (Arc::clone(&client.source), Arc::clone(nowhere));
        let mut record = Self::new(telemetry, EventKind::Request, source, destination, client.dialled);
        record.attached.known = Some(Arc::clone(known));
        record.edit(|event| {
            event.protocol = "http";
            event.http = Some(Box::new(http));
        });
        record
    }

    /// Of something that leaves no event.
    pub(super) fn silent(telemetry: &Telemetry, dialled: SocketAddr) -> Self {
        let nobody = Arc::default();
        let mut record = Self::new(
            telemetry,
            EventKind::Request,
            Arc::clone(&nobody),
            nobody,
            dialled,
        );
        record.event = None;
        record
    }

    fn new(
        telemetry: &Telemetry,
        kind: EventKind,
        source: Arc<Peer>,
        destination: Arc<Peer>,
        dialled: SocketAddr,
    ) -> Self {
        let mut event = Event::new(kind, Reporter::Source, SystemTime::now(), source, destination);
        event.port = dialled.port();
        // What stands where nobody says how it ended: whoever drops a record lost its caller.
        event.flags = "DC";
        event.details = Cow::Borrowed("downstream_remote_disconnect");
        event.reason = Some(Reason::DownstreamReset);
        Self {
            event: Some(Arc::new(event)),
            telemetry: telemetry.clone(),
            began: Instant::now(),
            received: None,
            messages: None,
            attached: Attached::default(),
        }
    }

    /// When it began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Counts bytes from the caller.
    pub(super) fn received(&mut self) -> Arc<AtomicU64> {
        Arc::clone(self.received.get_or_insert_default())
    }

    /// What is told of the caller's traffic (Telemetry).
    pub(super) fn told(&mut self, telemetry: &snapshot::Telemetry) {
        self.edit(|event| event.unlogged = telemetry.client_log_off);
    }

    /// It completes the span, where there is one.
    pub(super) fn traced(&mut self, span: Option<Box<Span>>) {
        self.attached.span = span;
    }

    /// Counts messages of gRPC from the caller.
    pub(super) fn messages(&mut self) -> Arc<AtomicU64> {
        Arc::clone(self.messages.get_or_insert_default())
    }

    /// The connection is carried from now on; its bytes are counted as they go by.
    pub(super) fn opened(&mut self, progress: &Arc<Progress>) {
        self.attached.flow = self
            .event
            .as_deref()
            .and_then(|event| self.telemetry.opened(event, progress));
    }

    pub(super) fn source(&mut self, source: &Arc<Peer>) {
        self.edit(|event| event.source = Arc::clone(source));
    }

    pub(super) fn protocol(&mut self, protocol: &'static str) {
        self.edit(|event| event.protocol = protocol);
    }

    pub(super) fn sni(&mut self, sni: Option<&str>) {
        self.edit(|event| {
            if let Some(sni) = sni {
                event.sni = Some(sni.into());
                event.protocol = "tls";
            }
        });
    }

    pub(super) fn message(&mut self, message: &str) {
        self.edit(|event| event.message = Some(message.into()));
    }

    /// Where it goes.
    pub(super) fn destination(&mut self, destination: &Destination) {
        self.addressed(destination, host(destination).as_ref());
    }

    /// Where it goes, and the host of the Service that was addressed ([`host`]).
    pub(super) fn addressed(&mut self, destination: &Destination, host: Option<&Arc<str>>) {
        self.edit(|event| {
            event.service = host.cloned();
            if let Destination::Service(target) = destination {
                event.port = target.port;
            }
        });
    }

    /// By which hop, and how; `peer` is who is there.
    pub(super) fn hop(&mut self, hop: &Hop, peer: &Arc<Peer>, wire: Wire) {
        self.edit(|event| {
            event.destination = Arc::clone(peer);
            event.upstream = Some(hop.address);
            event.wire = wire;
        });
    }

    /// The identity that the other end has proven, or that it has for the proxy to prove.
    pub(super) fn proven(&mut self, id: &SpiffeId) {
        self.edit(|event| event.destination = with_principal(&event.destination, id));
    }

    /// Who is at the other end, proven.
    pub(super) fn met(&mut self, peer: Arc<Peer>) {
        self.edit(|event| event.destination = peer);
    }

    pub(super) fn http(&mut self, edit: impl FnOnce(&mut HttpEvent)) {
        self.edit(|event| {
            if let Some(http) = event.http.as_deref_mut() {
                edit(http);
            }
        });
    }

    /// It was answered, or went well; `sent` bytes went to the caller.
    pub(super) fn carried(mut self, sent: u64) {
        self.edit(|event| {
            event.flags = "-";
            event.details = Cow::Borrowed(if event.kind == EventKind::Request {
                "via_upstream"
            } else {
                ""
            });
            event.reason = None;
        });
        self.sent(sent);
    }

    /// It began to be carried, and ended for a reason.
    pub(super) fn broken(mut self, reason: Reason, sent: u64) {
        let (flags, details) = match reason {
            Reason::DownstreamReset => ("DC", "downstream_remote_disconnect"),
            Reason::UpstreamReset => (
                "UC",
                "upstream_reset_after_response_started{connection_termination}",
            ),
            Reason::TlsHandshake | Reason::PeerIdentity => ("UF", "upstream_tls_refused"),
            Reason::PolicyChanged
            | Reason::Draining
            | Reason::EgressUnknown
            | Reason::HostMismatch
            | Reason::NoRoute => ("-", "closed"),
            // The callee's side of this node refused it: to the caller that is a connection that breaks.
            _ => (
                "UC",
                "upstream_reset_before_response_started{connection_termination}",
            ),
        };
        self.edit(|event| {
            event.flags = flags;
            event.details = Cow::Borrowed(details);
            event.reason = Some(reason);
            event.decision = Failure::of(reason).decision();
        });
        self.sent(sent);
    }

    /// It was not carried.
    pub(super) fn failed(mut self, failure: &Failure) {
        self.edit(|event| {
            event.flags = failure.flags;
            event.details = failure.details.clone();
            event.reason = Some(failure.reason);
            event.decision = failure.decision();
            if failure.message.is_some() {
                event.message.clone_from(&failure.message);
            }
            if event.kind == EventKind::Request {
                event.bytes_sent = u64::try_from(failure.text.len()).unwrap_or_default();
            }
        });
    }

    /// It was not carried, for a reason that says all.
    pub(super) fn refuse(self, reason: Reason) {
        self.failed(&Failure::of(reason));
    }

    /// It was no request that is taken, and has been answered so.
    pub(super) fn fault(mut self, fault: meshward_http::Fault) {
        self.edit(|event| {
            event.flags = "DPE";
            event.details = Cow::Borrowed(fault.details());
            event.reason = Some(fault.reason());
            event.decision = Decision::Deny;
        });
    }

    /// The caller went away.
    pub(super) fn gone(mut self, why: &str) {
        self.message(why);
    }

    /// It leaves no event: others do in its place.
    pub(super) fn discard(mut self) {
        self.event = None;
    }

    fn sent(&mut self, bytes: u64) {
        self.edit(|event| event.bytes_sent = bytes);
    }

    fn edit(&mut self, edit: impl FnOnce(&mut Event)) {
        if let Some(event) = self.event.as_mut().and_then(Arc::get_mut) {
            edit(event);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some(mut shared) = self.event.take() else {
            return;
        };
        if let Some(event) = Arc::get_mut(&mut shared) {
            event.duration = self.began.elapsed();
            event.bytes_received = self
                .received
                .as_ref()
                .map_or(0, |bytes| bytes.load(Ordering::Relaxed));
            if let (Some(messages), Some(http)) = (&self.messages, event.http.as_deref_mut()) {
                http.request_messages = messages.load(Ordering::Relaxed);
            }
        }
        self.telemetry
            .emit_with(shared, std::mem::take(&mut self.attached));
    }
}

/// The host of the Service that a destination is of.
pub(super) fn host(destination: &Destination) -> Option<Arc<str>> {
    let service = |target: &ServiceTarget| Arc::from(target.service.host.as_str());
    match destination {
        Destination::Service(target) => Some(service(target)),
        Destination::Direct { service: target, .. } => target.as_ref().map(service),
        Destination::External(_) => None,
    }
}

/// Who is called by an address of which nothing is known.
pub(super) fn nowhere(dialled: SocketAddr) -> Arc<Peer> {
    Arc::new(at(dialled))
}

/// Who is at a hop, as far as the snapshot knows.
pub(super) fn peer_at(index: &Index, address: SocketAddr) -> Arc<Peer> {
    let workload = index.pod(address.ip());
    Arc::new(workload.map_or_else(|| at(address), |w| peer(w, address, None)))
}

/// The same with the identity that it has proven.
pub(super) fn with_principal(peer: &Peer, id: &SpiffeId) -> Arc<Peer> {
    Arc::new(Peer {
        principal: Some(id.clone()),
        ..peer.clone()
    })
}

/// A workload of this node as events know it.
pub(crate) fn peer_of(index: &Index, local: &Registration) -> Arc<Peer> {
    let address = SocketAddr::new(local.addresses.first().copied().unwrap_or(NOWHERE), 0);
    match &local.identity {
        Some(id) => caller(index, local, id, address),
        None => Arc::new(at(address)),
    }
}

/// Of a workload without an address.
const NOWHERE: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// The caller, from the snapshot where it is there and from its registration where it is not.
pub(super) fn caller(index: &Index, local: &Registration, id: &SpiffeId, address: SocketAddr) -> Arc<Peer> {
    let known = index.workload(&local.uid);
    let peer = known.map_or_else(
        || Peer {
            namespace: Arc::from(local.namespace.as_str()),
            pod: Arc::from(local.pod.as_str()),
            principal: Some(id.clone()),
            ..at(address)
        },
        |workload| peer(workload, address, Some(id)),
    );
    Arc::new(peer)
}

fn peer(workload: &Workload, address: SocketAddr, principal: Option<&SpiffeId>) -> Peer {
    Peer {
        address: Some(address),
        namespace: Arc::from(workload.pod.namespace()),
        pod: Arc::from(workload.pod.name()),
        workload: Arc::from(workload.workload.name()),
        principal: principal.cloned(),
        app: Arc::from(workload.app.as_str()),
        version: Arc::from(workload.version.as_str()),
        canonical_name: Arc::from(workload.canonical_name.as_str()),
        canonical_revision: Arc::from(workload.canonical_revision.as_str()),
    }
}

fn at(address: SocketAddr) -> Peer {
    Peer {
        address: Some(address),
        ..Peer::default()
    }
}
