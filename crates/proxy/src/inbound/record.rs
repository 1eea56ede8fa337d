//! The one event of a connection or a request at the callee's side: dropping the record leaves it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use model::{Reason, SpiffeId};
use policy::{Denial, ExternalAnswer, Permit, PolicyId};
use snapshot::{Index, Workload};
use telemetry::{
    Attached, Decision, Event, EventKind, ExtAuthz, HttpEvent, Known, Peer, PolicyRef, Progress, Reporter,
    Span, Telemetry,
};

use super::decide::Refusal;
use super::denials::{Decided, Denials};
use super::{Callee, Caller};
use crate::Registration;
use crate::shared::Shared;

/// An event in the making.
pub(super) struct Record {
    /// Nobody else's until it is whole.
    event: Option<Arc<Event>>,
    telemetry: Telemetry,
    denials: Arc<Denials>,
    /// What a refusal by policy was made of.
    decided: Option<Box<Decided>>,
    began: Instant,
    /// Bytes from the caller so far, where somebody counts them.
    received: Option<Arc<AtomicU64>>,
    /// Messages of gRPC from the caller so far.
    messages: Option<Arc<AtomicU64>>,
    /// What is counted and traced besides.
    attached: Attached,
    client: SocketAddr,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").finish_non_exhaustive()
    }
}

impl Record {
    /// Of a connection of which nothing is known but its two ends.
    pub(super) fn connection(shared: &Shared, client: SocketAddr, to: SocketAddr) -> Self {
        Self::new(
            shared,
            EventKind::Connection,
            Arc::new(at(client)),
            Arc::new(at(to)),
            client,
            to,
        )
    }

    /// Of a connection between two that are known.
    pub(super) fn of(shared: &Shared, caller: &Caller, callee: &Callee) -> Self {
        Self::between(shared, EventKind::Connection, caller, callee)
    }

    /// Of a request between two that are known.
    pub(super) fn request(
        shared: &Shared,
        caller: &Caller,
        callee: &Callee,
        known: &Arc<Known>,
        http: HttpEvent,
    ) -> Self {
        let mut record = Self::between(shared, EventKind::Request, caller, callee);
        record.attached.known = Some(Arc::clone(known));
        record.edit(|event| {
            event.protocol = "http";
            event.http = Some(Box::new(http));
        });
        record
    }

    fn between(shared: &Shared, kind: EventKind, caller: &Caller, callee: &Callee) -> Self {
        let mut record = Self::new(
            shared,
            kind,
            Arc::clone(&caller.source),
            Arc::clone(&callee.destination),
            caller.address,
            callee.address,
        );
        record.callee(callee);
        record.caller(caller);
        record
    }

    fn new(
        shared: &Shared,
        kind: EventKind,
        source: Arc<Peer>,
        destination: Arc<Peer>,
        client: SocketAddr,
        to: SocketAddr,
    ) -> Self {
        let mut event = Event::new(
            kind,
            Reporter::Destination,
            SystemTime::now(),
            source,
            destination,
        );
        event.port = to.port();
        // What stands where nobody says how it ended: whoever drops a record lost its caller.
        event.flags = "DC";
        event.details = Cow::Borrowed("downstream_remote_disconnect");
        event.reason = Some(Reason::DownstreamReset);
        Self {
            event: Some(Arc::new(event)),
            telemetry: shared.telemetry.clone(),
            denials: Arc::clone(&shared.denials),
            decided: None,
            began: Instant::now(),
            received: None,
            messages: None,
            attached: Attached::default(),
            client,
        }
    }

    /// Who opened the connection.
    pub(super) fn client(&self) -> SocketAddr {
        self.client
    }

    /// Counts bytes from the caller.
    pub(super) fn received(&mut self) -> Arc<AtomicU64> {
        Arc::clone(self.received.get_or_insert_default())
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

    pub(super) fn registered(&mut self, local: &Registration, to: SocketAddr) {
        let peer = Peer {
            namespace: Arc::from(local.namespace.as_str()),
            pod: Arc::from(local.pod.as_str()),
            principal: local.identity.clone(),
            ..at(to)
        };
        self.edit(|event| event.destination = Arc::new(peer));
    }

    pub(super) fn callee(&mut self, callee: &Callee) {
        self.edit(|event| {
            event.destination = Arc::clone(&callee.destination);
            event.service.clone_from(&callee.service);
            let telemetry = callee.workload.inbound.as_ref().map(|inbound| &inbound.telemetry);
            event.unlogged = telemetry.is_some_and(|told| told.server_log_off);
            event.port = callee.address.port();
        });
    }

    pub(super) fn source(&mut self, source: &Arc<Peer>) {
        self.edit(|event| event.source = Arc::clone(source));
    }

    pub(super) fn caller(&mut self, caller: &Caller) {
        self.edit(|event| {
            event.source = Arc::clone(&caller.source);
            event.wire = caller.wire;
            if let Some(sni) = &caller.sni {
                event.sni = Some(Arc::clone(sni));
            }
        });
    }

    pub(super) fn protocol(&mut self, protocol: &'static str) {
        self.edit(|event| event.protocol = protocol);
    }

    pub(super) fn sni(&mut self, sni: Option<&str>) {
        self.edit(|event| {
            if let Some(sni) = sni {
                event.sni = Some(sni.into());
            }
        });
    }

    pub(super) fn upstream(&mut self, address: SocketAddr) {
        self.edit(|event| event.upstream = Some(address));
    }

    /// What an external authorizer was found to say.
    pub(super) fn external(&mut self, provider: &str, result: &'static str) {
        self.edit(|event| {
            event.ext_authz.push(ExtAuthz {
                provider: provider.into(),
                result,
            });
        });
    }

    pub(super) fn message(&mut self, message: &str) {
        self.edit(|event| event.message = Some(message.into()));
    }

    pub(super) fn http(&mut self, edit: impl FnOnce(&mut HttpEvent)) {
        self.edit(|event| {
            if let Some(http) = event.http.as_deref_mut() {
                edit(http);
            }
        });
    }

    /// What stands in the log in place of a path that may hold a secret.
    pub(super) fn path(&mut self, path: &str) {
        self.http(|http| {
            http.path = path.into();
            http.path_normalized = None;
        });
    }

    /// A policy, or the want of any, admitted it.
    pub(super) fn admitted(&mut self, permit: &Permit) {
        self.edit(|event| {
            event.decision = Decision::Allow;
            event.policy = permit.policy().map(|id| policy_ref(id, permit.rule()));
        });
    }

    /// It was decided against.
    pub(super) fn denied(mut self, refusal: &Refusal) {
        self.refusal(refusal);
    }

    fn refusal(&mut self, refusal: &Refusal) {
        match refusal {
            Refusal::Floor(reason) => self.refused(*reason),
            Refusal::Policy(denial) => self.denial(denial),
            Refusal::Token(rejection) => self.edit(|event| {
                event.decision = Decision::Deny;
                event.reason = Some(refusal.reason());
                event.policy = rejection.policy.as_ref().map(|(id, _)| policy_ref(id, None));
                event.flags = "-";
                event.details = Cow::Owned(rejection.details());
                event.message = Some(Box::from(match (&rejection.policy, &rejection.issuer) {
                    (Some((id, _)), _) => {
                        format!("the RequestAuthentication `{id}` is invalid or has not arrived")
                    }
                    (None, Some(issuer)) => format!("{}, by the rule of issuer `{issuer}`", rejection.text),
                    (None, None) => rejection.text.to_owned(),
                }));
            }),
        }
    }

    fn denial(&mut self, denial: &Denial) {
        let details = denial.detail();
        self.edit(|event| {
            event.decision = Decision::Deny;
            event.reason = Some(denial.reason);
            event.policy = denial.policy().map(|id| policy_ref(id, denial.rule));
            event.flags = match denial.external() {
                Some(ExternalAnswer::Deny | ExternalAnswer::Failed) => "UAEX",
                _ => "-",
            };
            event.details = Cow::Owned(details);
        });
    }

    /// What it was decided by, for whoever asks why it was refused.
    pub(super) fn decided(&mut self, decided: Option<Decided>) {
        self.decided = decided.map(Box::new);
    }

    /// The id of the decision; it is made with the first call.
    pub(super) fn decision_id(&mut self) -> &str {
        let event = self.event.as_mut().and_then(Arc::get_mut);
        event.map_or("", |event| {
            event.decision_id.get_or_insert_with(|| decision_id().into())
        })
    }

    /// Bytes of the proxy's own answer.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.edit(|event| event.bytes_sent = bytes);
    }

    /// It was not carried.
    pub(super) fn refuse(mut self, reason: Reason) {
        self.refused(reason);
    }

    fn refused(&mut self, reason: Reason) {
        let (flags, details) = match reason {
            Reason::PlaintextRefused | Reason::NoFilterChain => ("NR", "filter_chain_not_found"),
            Reason::TlsHandshake | Reason::PeerIdentity => ("-", "tls_handshake_failed"),
            Reason::ConnectFailed => (
                "UF",
                "upstream_reset_before_response_started{remote_connection_failure}",
            ),
            Reason::UpstreamReset => (
                "UC",
                "upstream_reset_before_response_started{connection_termination}",
            ),
            Reason::ProtocolError => ("DPE", "codec_error"),
            Reason::PathRefused => ("-", "path_normalization_failed"),
            Reason::MethodRefused => ("-", "upgrade_failed"),
            Reason::LimitReached => ("UO", "overflow"),
            Reason::PolicyChanged => ("-", "policy_changed"),
            Reason::Timeout => ("SI", "stream_idle_timeout"),
            Reason::DownstreamReset => ("DC", "downstream_remote_disconnect"),
            _ => ("-", ""),
        };
        self.edit(|event| {
            event.flags = flags;
            event.details = Cow::Borrowed(details);
            event.reason = Some(reason);
            event.decision = match reason {
                // Not what anybody decided: what was decided before stands.
                Reason::ConnectFailed
                | Reason::UpstreamReset
                | Reason::DownstreamReset
                | Reason::LimitReached
                | Reason::Draining
                | Reason::Timeout => event.decision,
                _ => Decision::Deny,
            };
        });
    }

    /// It was carried, and ended: cleanly where there is no reason.
    pub(super) fn ended(mut self, reason: Option<Reason>, sent: u64) {
        match reason {
            None => self.edit(|event| {
                event.flags = "-";
                event.details = Cow::Borrowed(if event.kind == EventKind::Request {
                    "via_upstream"
                } else {
                    ""
                });
                event.reason = None;
            }),
            Some(Reason::UpstreamReset) => self.edit(|event| {
                event.flags = "UC";
                event.details =
                    Cow::Borrowed("upstream_reset_after_response_started{connection_termination}");
                event.reason = Some(Reason::UpstreamReset);
            }),
            Some(reason) => self.refused(reason),
        }
        self.edit(|event| event.bytes_sent = sent);
    }

    /// The caller went away.
    pub(super) fn gone(mut self, why: &str) {
        self.message(why);
    }

    /// It leaves no event: others do in its place.
    pub(super) fn discard(mut self) {
        self.event = None;
    }

    /// It was no request that is taken, and has been answered so.
    pub(super) fn fault(mut self, fault: meshward_http::Fault) {
        self.edit(|event| {
            event.flags = "DPE";
            event.details = Cow::Borrowed(fault.details());
            event.reason = Some(fault.reason());
            event.decision = Decision::Deny;
            event.message = Some(fault.to_string().into());
        });
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
            if event.denied() {
                event.decision_id.get_or_insert_with(|| decision_id().into());
                event.redact();
                let decided = self.decided.take().map(|decided| *decided);
                self.denials.keep(event.clone(), decided);
            }
        }
        self.telemetry
            .emit_with(shared, std::mem::take(&mut self.attached));
    }
}

/// Sixty random bits in the alphabet that people can read out.
fn decision_id() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; 12];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    let letter = |byte: &u8| LETTERS.get(usize::from(byte % 32)).copied().map(char::from);
    bytes.iter().filter_map(letter).collect()
}

fn policy_ref(id: &PolicyId, rule: Option<usize>) -> PolicyRef {
    PolicyRef {
        namespace: id.namespace.as_str().into(),
        name: id.name.as_str().into(),
        rule,
    }
}

/// The caller, from the snapshot where its address is a pod's.
pub(super) fn source(index: &Index, address: SocketAddr, id: Option<&SpiffeId>) -> Arc<Peer> {
    let known = index.pod(address.ip());
    // An identity that was proven counts; an address is only a hint.
    let fits = known.filter(|w| id.is_none_or(|id| w.identity.as_ref() == Some(id)));
    Arc::new(match (fits, id) {
        (Some(workload), _) => peer(workload, address, id),
        (None, Some(id)) => Peer {
            namespace: Arc::from(id.namespace()),
            principal: Some(id.clone()),
            ..at(address)
        },
        (None, None) => at(address),
    })
}

pub(super) fn peer(workload: &Workload, address: SocketAddr, principal: Option<&SpiffeId>) -> Peer {
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
