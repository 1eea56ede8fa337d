//! Calls of the proxy's own, in a workload's name: by the same hops, transports and pools as what the workload opens.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use meshward_http::{HeaderMap, Request, StatusCode, Version};
use model::Reason;
use snapshot::{Destination, Index, ServiceTarget};
use telemetry::Peer;
use tokio::time::{Instant, timeout_at};

use super::event::Record;
use super::hop::Hops;
use super::http::{Attempts, speak};
use super::pool::Speak;
use super::{Client, Outbound};
use crate::Registration;

/// Who calls whom.
pub(crate) struct Call {
    /// The workload in whose name it is.
    pub(crate) local: Arc<Registration>,
    /// The same, for the callee's events.
    pub(crate) source: Arc<Peer>,
    /// The snapshot that says how the callee is reached.
    pub(crate) index: Arc<Index>,
    /// The callee.
    pub(crate) target: ServiceTarget,
    /// Whether it is spoken to in HTTP/2 whatever its port says: gRPC.
    pub(crate) http2: bool,
    /// Bytes of the answer's body that are read; a longer answer is none.
    pub(crate) limit: usize,
    /// When it is too late for an answer.
    pub(crate) until: Instant,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

/// Why there is no answer; the words are for people, in the log.
#[derive(Debug)]
pub(crate) enum NoReply {
    /// The other side was not reached.
    Unreached(String),
    /// It was, and what it said is no answer.
    Failed(String),
    /// It did not say enough in time.
    Late,
}

/// What [`Outbound::call`] returns. Said as a type, since what it leads to may call again.
pub(crate) type Calling = Pin<Box<dyn Future<Output = Result<Reply, NoReply>> + Send>>;

impl Outbound {
    /// Sends a request to a Service and reads the answer. Nothing but the callee's own event is left. Dropping it ends the
    /// call.
    pub(crate) fn call(self: &Arc<Self>, call: Call, request: Request) -> Calling {
        let outbound = Arc::clone(self);
        Box::pin(async move { outbound.called(call, request).await })
    }

    async fn called(self: Arc<Self>, call: Call, request: Request) -> Result<Reply, NoReply> {
        let unreached = |why: &str| NoReply::Unreached(why.to_owned());
        let Some(id) = call.local.identity.clone() else {
            return Err(unreached("the workload has no identity"));
        };
        let Some(address) = call.local.addresses.first().copied() else {
            return Err(unreached("the workload has no address"));
        };
        let client = Arc::new(Client {
            local: Arc::clone(&call.local),
            id,
            address: SocketAddr::new(address, 0),
            // Only its family counts: the destination is known.
            dialled: SocketAddr::new(address, call.target.port),
            source: call.source,
        });
        let speak = if call.http2 {
            Speak::Http2
        } else {
            speak(call.target.protocol, Version::Http1, false)
        };
        let destination = Destination::Service(call.target);
        let mut record = Record::silent(&self.shared.telemetry, client.dialled);
        let hops = Hops::towards(&destination, client.dialled.is_ipv6());
        let attempts = Attempts {
            client: &client,
            index: &call.index,
            destination: &destination,
            hops: &hops,
            speak,
            upgrade: None,
        };
        let (response, mut hold) = timeout_at(call.until, self.attempts(attempts, &mut record, request))
            .await
            .map_err(|_| NoReply::Late)?
            .map_err(|failure| {
                NoReply::Unreached(failure.message.map_or_else(|| words(failure.reason), Into::into))
            })?;
        let (head, mut body) = response.into_parts();
        let mut bytes = BytesMut::new();
        let mut trailers = HeaderMap::new();
        // Over gRPC the answer is in the body. Otherwise a status that refuses says it, whatever becomes of the body: a refusal
        // that is too long, breaks off or stands still is one.
        let refuses = !call.http2 && head.status != StatusCode::OK && !head.status.is_server_error();
        let whole = loop {
            let frame = match timeout_at(call.until, body.frame()).await {
                Ok(Some(frame)) => frame,
                Ok(None) => break true,
                Err(_) if refuses => break false,
                Err(_) => return Err(NoReply::Late),
            };
            match frame.map(|frame| frame.into_data()) {
                Err(error) if !refuses => return Err(NoReply::Failed(error.to_string())),
                Ok(Ok(data)) if bytes.len() + data.len() > call.limit && !refuses => {
                    return Err(NoReply::Failed("the answer is too long".to_owned()));
                }
                Ok(Ok(data)) if bytes.len() + data.len() <= call.limit => bytes.extend_from_slice(&data),
                Ok(Err(frame)) => trailers.extend(frame.into_trailers().ok().into_iter().flatten()),
                Err(_) | Ok(Ok(_)) => break false,
            }
        };
        if !whole {
            bytes.clear();
            hold.lease = None;
        }
        if let Some(lease) = hold.lease.take() {
            lease.release();
        }
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            body: bytes.freeze(),
            trailers,
        })
    }
}

fn words(reason: Reason) -> String {
    match reason {
        Reason::NoEndpoint => "no endpoint is ready".to_owned(),
        Reason::PeerIdentity => "nobody who may answer is known".to_owned(),
        other => other.to_string(),
    }
}
