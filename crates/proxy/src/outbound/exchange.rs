//! A request and its response, from the moment it came to the last byte of the answer.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use meshward_http::grpc::Messages;
use meshward_http::{
    Body, BodyEnd, HeaderMap, Response, StatusCode, Tap, Upgrade, UpgradeError, Upgraded, take_upgrade,
};
use model::Reason;

use super::answer::Failure;
use super::event::Record;
use super::headers;
use super::hop::Loaded;
use super::pool::Lease;
use crate::registry::Entry;
use crate::relay::relay;

/// What a request is carried by, to be given back when its response is over.
#[derive(Default)]
pub(super) struct Hold {
    pub(super) lease: Option<Lease>,
    /// Its share of what is under way to the endpoint.
    pub(super) _loaded: Option<Loaded<SocketAddr>>,
    /// The caller's end of an upgrade that it asks for.
    pub(super) upgrade: Option<Upgrade>,
}

/// One request under way.
pub(super) struct Exchange {
    pub(super) record: Record,
    pub(super) entry: Option<Entry>,
    /// Its share of what the workload may have open.
    pub(super) share: Option<Loaded<u32>>,
    grpc: bool,
}

impl Exchange {
    pub(super) fn new(mut record: Record, grpc: bool) -> Self {
        if grpc {
            record.protocol("grpc");
        }
        Self {
            record,
            entry: None,
            share: None,
            grpc,
        }
    }

    /// Returns when the request must not go on.
    pub(super) fn closed(&self) -> impl Future<Output = Reason> + Send + use<> {
        let entry = self.entry.clone();
        async move {
            match entry {
                Some(entry) => entry.closed().await,
                None => pending().await,
            }
        }
    }

    /// Answers in the other side's place.
    pub(super) fn refuse(mut self, failure: &Failure) -> Response {
        let response = failure.response(self.grpc);
        self.record.http(|http| {
            http.code = response.status().as_u16();
            http.grpc_status = self.grpc.then(|| headers::grpc_status(failure.status));
        });
        self.record.failed(failure);
        response
    }

    /// Passes the response on; the event comes when the last of it has gone by.
    pub(super) fn respond(mut self, mut response: Response, hold: Hold) -> Response {
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if upgraded && hold.upgrade.is_none() {
            let failure = Failure::of(Reason::UpstreamReset);
            return self.refuse(&failure.because("the other side switched protocols unasked"));
        }
        headers::leave_hop(response.headers_mut(), upgraded);
        self.record.http(|http| {
            http.code = response.status().as_u16();
            http.grpc_status = grpc_status_of(response.headers());
        });
        if upgraded
            && let Some(theirs) = take_upgrade(response.extensions_mut())
            && let Some(ours) = &hold.upgrade
        {
            tokio::spawn(upgraded_streams(ours.clone(), theirs, self, hold));
            return response;
        }
        let messages = self.grpc.then(Messages::default);
        response.map(|body: Body| {
            body.tapped(Passing {
                exchange: self,
                hold,
                stopped: None,
                sent: 0,
                messages,
            })
        })
    }
}

/// Carries the bytes of a connection that has stopped being HTTP.
async fn upgraded_streams(ours: Upgrade, theirs: Upgrade, mut exchange: Exchange, hold: Hold) {
    let closed = exchange.closed();
    let both: Result<(Upgraded, Upgraded), UpgradeError> =
        async { Ok((ours.wait().await?, theirs.wait().await?)) }.await;
    match both {
        Ok((ours, theirs)) => {
            let relayed = relay(ours, theirs, closed).await;
            exchange
                .record
                .received()
                .fetch_add(relayed.sent, std::sync::atomic::Ordering::Relaxed);
            match relayed.reason {
                None => exchange.record.carried(relayed.received),
                Some(reason) => exchange.record.broken(reason, relayed.received),
            }
        }
        Err(error) => exchange.record.gone(&error.to_string()),
    }
    drop(hold);
}

fn grpc_status_of(headers: &HeaderMap) -> Option<u32> {
    headers.get(&headers::GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// A response on its way to the caller.
struct Passing {
    exchange: Exchange,
    hold: Hold,
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

    fn end(self: Box<Self>, how: BodyEnd) {
        let Self {
            exchange,
            hold,
            stopped,
            sent,
            messages,
            ..
        } = *self;
        let mut record = exchange.record;
        if let Some(messages) = messages {
            record.http(|http| http.response_messages = messages.count());
        }
        match how {
            BodyEnd::Whole => {
                if let Some(lease) = hold.lease {
                    lease.release();
                }
                record.carried(sent);
            }
            BodyEnd::Broken => record.broken(Reason::UpstreamReset, sent),
            BodyEnd::Dropped => record.broken(Reason::DownstreamReset, sent),
            BodyEnd::Stopped => record.broken(stopped.unwrap_or(Reason::PolicyChanged), sent),
        }
    }
}
