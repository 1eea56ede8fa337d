//! A request and its response, from the decision to the last byte of the answer.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};

use meshward_http::grpc::{Messages, Tally};
use meshward_http::{Body, BodyEnd, HeaderMap, HeaderValue, Response, StatusCode, Tap, Upgrade, header};
use model::Reason;
use snapshot::Index;

use super::app::Returning;
use super::decide::Refusal;
use super::external::Outcome;
use super::open::Share;
use super::record::Record;
use crate::outbound::headers;
use crate::registry::Entry;
use crate::relay::relay;

/// What a refused caller reads (semantics 2.12): 19 bytes, no line break.
pub(super) const DENIED: &str = "RBAC: access denied";
/// What a caller reads where the application broke off.
pub(super) const UNANSWERED: &str =
    "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
/// The header by which a refused caller can name the decision to an operator.
const DECISION: &str = "x-meshward-decision";

/// What a request led to.
pub(super) struct Answered {
    pub(super) response: Response,
    /// The rest of an exchange that becomes something else than HTTP.
    pub(super) switched: Option<Exchange>,
}

impl From<Response> for Answered {
    fn from(response: Response) -> Self {
        Self {
            response,
            switched: None,
        }
    }
}

/// One request under way. However it is dropped, its event is left.
pub(super) struct Exchange {
    pub(super) record: Record,
    /// What external authorizers have said that concerns the response.
    pub(super) outcome: Outcome,
    entry: Option<Entry>,
    /// Its part of what its workload may have under way.
    _share: Share,
    grpc: bool,
}

impl Exchange {
    pub(super) fn new(mut record: Record, share: Share, grpc: bool) -> Self {
        if grpc {
            record.protocol("grpc");
        }
        Self {
            record,
            outcome: Outcome::default(),
            entry: None,
            _share: share,
            grpc,
        }
    }

    /// From now on it ends when the entry says so.
    pub(super) fn registered(&mut self, entry: Entry) {
        self.entry = Some(entry);
    }

    /// Returns when it must not go on.
    pub(super) fn closed(&self) -> impl Future<Output = Reason> + Send + use<> {
        let entry = self.entry.clone();
        async move {
            match entry {
                Some(entry) => entry.closed().await,
                None => pending().await,
            }
        }
    }

    /// Answers in the application's place.
    pub(super) fn answer(self, status: u16, text: &'static str, reason: Reason) -> Response {
        refuse(self.record, self.grpc, status, text, reason)
    }

    /// Refuses it. `challenge` is what a refused token gets.
    pub(super) fn deny(
        mut self,
        refusal: &Refusal,
        index: &Index,
        challenge: Option<HeaderValue>,
    ) -> Response {
        let external = match refusal {
            Refusal::Policy(denial) => denial.external(),
            Refusal::Floor(_) | Refusal::Token(_) => None,
        };
        let mut response = match (self.outcome.refusal(external), refusal) {
            (Some((status, body, denied)), _) => {
                let text = String::from_utf8_lossy(body);
                let mut response = said(self.grpc, status, &text, body);
                told(&mut self.record, self.grpc, &response, status.as_u16(), &text);
                if let Some(denied) = denied {
                    denied.put(response.headers_mut(), self.grpc);
                }
                response
            }
            (None, refusal) => {
                let (status, text) = match refusal {
                    Refusal::Token(rejection) => (rejection.status, rejection.text),
                    _ => (403, DENIED),
                };
                let response = local(self.grpc, status, text);
                told(&mut self.record, self.grpc, &response, status, text);
                response
            }
        };
        self.outcome.response(response.headers_mut());
        if let Some(challenge) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        if index.mesh().profile == model::Profile::Secure
            && let Ok(value) = HeaderValue::try_from(self.record.decision_id())
        {
            response.headers_mut().insert(DECISION, value);
        }
        self.record.denied(refusal);
        response
    }

    /// Passes the application's response on; the event comes when the last of it has gone by. `upgrade` says whether the
    /// caller asked for one.
    pub(super) fn respond(mut self, mut response: Response, returning: Returning, upgrade: bool) -> Answered {
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        self.record.upstream(returning.lease.address());
        if switched && !upgrade {
            self.record
                .message("the application switched protocols without having been asked");
            return self.answer(503, UNANSWERED, Reason::UpstreamReset).into();
        }
        headers::leave_hop(response.headers_mut(), switched);
        self.outcome.response(response.headers_mut());
        // What an old server speaks is its own affair: our connection to the caller stays what it is.
        *response.version_mut() = http::Version::HTTP_11;
        self.record.http(|http| {
            http.code = response.status().as_u16();
            http.grpc_status = grpc_status_of(response.headers());
        });
        if switched {
            return Answered {
                response,
                switched: Some(self),
            };
        }
        let messages = self.grpc.then(Messages::default);
        let passing = |exchange| Passing {
            exchange,
            returning,
            stopped: None,
            sent: 0,
            messages,
        };
        response.map(|body: Body| body.tapped(passing(self))).into()
    }

    /// Carries the bytes of a connection that has stopped being HTTP.
    pub(super) async fn relay(mut self, ours: Upgrade, theirs: Upgrade) {
        let mut closed = pin!(self.closed());
        let ours = tokio::select! {
            biased;
            reason = &mut closed => return self.record.ended(Some(reason), 0),
            ours = ours.wait() => ours,
        };
        let ours = match ours {
            Ok(ours) => ours,
            Err(error) => return self.record.gone(&error.to_string()),
        };
        let theirs = tokio::select! {
            biased;
            reason = &mut closed => return self.record.ended(Some(reason), 0),
            theirs = theirs.wait() => theirs,
        };
        let theirs = match theirs {
            Ok(theirs) => theirs,
            Err(error) => {
                self.record.message(&error.to_string());
                return self.record.ended(Some(Reason::UpstreamReset), 0);
            }
        };
        let relayed = relay(ours, theirs, closed).await;
        self.record.received().fetch_add(relayed.sent, Ordering::Relaxed);
        self.record.ended(relayed.reason, relayed.received);
    }
}

/// A response on its way to the caller.
struct Passing {
    exchange: Exchange,
    returning: Returning,
    stopped: Option<Reason>,
    sent: u64,
    /// Of gRPC, the messages to the caller.
    messages: Option<Messages>,
}

impl Tap for Passing {
    fn poll_stop(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.stopped.is_none() {
            let Some(entry) = &self.exchange.entry else {
                return Poll::Pending;
            };
            self.stopped = Some(ready!(entry.poll_closed(context)));
        }
        Poll::Ready(())
    }

    fn data(&mut self, length: usize) {
        self.sent += u64::try_from(length).unwrap_or_default();
    }

    fn bytes(&mut self, data: &[u8]) {
        self.data(data.len());
        if let Some(messages) = &mut self.messages {
            messages.take(data);
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(status) = grpc_status_of(trailers) {
            self.exchange.record.http(|http| http.grpc_status = Some(status));
        }
    }

    fn end(mut self: Box<Self>, how: BodyEnd) {
        if matches!(how, BodyEnd::Broken | BodyEnd::Dropped) {
            // What had to end breaks where it is looked at first, its request perhaps: that it had to is the cause.
            let _ = self.poll_stop(&mut Context::from_waker(Waker::noop()));
        }
        let Self {
            mut exchange,
            returning,
            stopped,
            sent,
            messages,
            ..
        } = *self;
        let reason = match how {
            BodyEnd::Whole => None,
            BodyEnd::Broken => Some(stopped.unwrap_or(Reason::UpstreamReset)),
            BodyEnd::Dropped => Some(stopped.unwrap_or(Reason::DownstreamReset)),
            BodyEnd::Stopped => Some(stopped.unwrap_or(Reason::PolicyChanged)),
        };
        if let Some(messages) = messages {
            exchange
                .record
                .http(|http| http.response_messages = messages.count());
        }
        exchange.record.ended(reason, sent);
        if reason.is_none() {
            returning.back();
        }
    }
}

/// The body of a request on its way to the application: counted, and cut off with the exchange also where nobody reads
/// the response.
pub(super) struct Coming {
    received: Arc<AtomicU64>,
    messages: Option<Tally>,
    entry: Option<Entry>,
    stopped: bool,
}

impl Coming {
    pub(super) fn of(exchange: &mut Exchange) -> Self {
        Self {
            received: exchange.record.received(),
            messages: exchange.grpc.then(|| Tally::new(exchange.record.messages())),
            entry: exchange.entry.clone(),
            stopped: false,
        }
    }
}

impl Tap for Coming {
    fn poll_stop(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut entry = self.entry.iter();
        self.stopped = self.stopped || entry.any(|entry| entry.poll_closed(context).is_ready());
        if self.stopped {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn data(&mut self, length: usize) {
        let length = u64::try_from(length).unwrap_or_default();
        self.received.fetch_add(length, Ordering::Relaxed);
    }

    fn bytes(&mut self, data: &[u8]) {
        self.data(data.len());
        if let Some(messages) = &mut self.messages {
            messages.take(data);
        }
    }

    fn end(self: Box<Self>, _: BodyEnd) {}
}

/// Answers in the application's place.
pub(super) fn refuse(
    mut record: Record,
    grpc: bool,
    status: u16,
    text: &'static str,
    reason: Reason,
) -> Response {
    let response = local(grpc, status, text);
    told(&mut record, grpc, &response, status, text);
    record.refuse(reason);
    response
}

fn told(record: &mut Record, grpc: bool, response: &Response, status: u16, text: &str) {
    record.http(|http| {
        http.code = response.status().as_u16();
        http.grpc_status = grpc.then(|| headers::grpc_status(status));
    });
    // What gRPC is told is in the head.
    let length = if grpc { 0 } else { text.len() };
    record.sent(u64::try_from(length).unwrap_or_default());
}

/// An answer of the proxy's own; gRPC's in trailers-only form.
fn local(grpc: bool, status: u16, text: &'static str) -> Response {
    let mut response = Response::new(Body::empty());
    if grpc {
        *response.headers_mut() = headers::grpc_answer(status, text);
        return response;
    }
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    if !text.is_empty() {
        let plain = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        *response.body_mut() = Body::from(text);
    }
    response
}

/// What an external authorizer answers in the application's place; gRPC's in trailers-only form.
fn said(grpc: bool, status: StatusCode, text: &str, body: &[u8]) -> Response {
    let mut response = Response::new(Body::empty());
    if grpc {
        *response.headers_mut() = headers::grpc_answer(status.as_u16(), text);
        return response;
    }
    *response.status_mut() = status;
    if !body.is_empty() {
        let plain = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        *response.body_mut() = Body::from(bytes::Bytes::copy_from_slice(body));
    }
    response
}

fn grpc_status_of(headers: &HeaderMap) -> Option<u32> {
    headers.get(&headers::GRPC_STATUS)?.to_str().ok()?.parse().ok()
}
