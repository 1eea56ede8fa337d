//! Requests: each decided by the newest snapshot, and cut off when a later one no longer admits it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use meshward_http::{
    Abort, Body, BodyEnd, Fault, Handler, HeaderMap, HeaderValue, Protocol as Read, Request, Response,
    ServeOptions, StatusCode, Tap, Upgrade, Version, header, take_upgrade, version_of,
};
use model::{Protocol, Reason};
use snapshot::Index;
use telemetry::HttpEvent;
use tokio::io::{AsyncRead, AsyncWrite};

use super::app::{self, Lease, Returning};
use super::decide::{self, Asked, Refusal, Subject};
use super::record::Record;
use super::{Callee, Caller, xfcc};
use crate::outbound::headers::{self, Asks};
use crate::registry::Entry;
use crate::relay::relay;
use crate::shared::Shared;

/// What a refused caller reads (semantics 2.12): 19 bytes, no line break.
const DENIED: &str = "RBAC: access denied";
/// The header by which a refused caller can name the decision to an operator.
const DECISION: &str = "x-meshward-decision";
/// Fields that speak for a proxy; where the mesh is strict, only a proxy may write them (O-15).
const PROXY_FIELDS: [&str; 7] = [
    "x-envoy-external-address",
    "x-envoy-internal",
    "x-envoy-original-path",
    "x-envoy-decorator-operation",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-peer-metadata",
    "x-envoy-peer-metadata-id",
];

/// A connection whose requests are served.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) caller: Caller,
    pub(super) callee: Callee,
    /// The version that the caller's application speaks, where its proxy told so.
    pub(super) restored: Option<Version>,
    pub(super) http10: bool,
}

impl Connection {
    /// Serves it to its end. `record` is left only where there was no request: each leaves one of its own.
    pub(super) async fn serve<IO>(self, record: Record, stream: IO, read: Read)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut draining = self.shared.draining.clone();
        let drain = async move {
            let _ = draining.wait_for(|told| *told).await;
        };
        let options = ServeOptions { http10: self.http10 };
        let handler = Arc::new(Requests {
            connection: self,
            asked: AtomicBool::new(false),
        });
        let served = meshward_http::serve(stream, read, options, Arc::clone(&handler), drain).await;
        if handler.asked.load(Ordering::Relaxed) {
            return record.discard();
        }
        match served {
            Ok(()) => record.gone("closed before a request"),
            Err(error) => record.gone(&error.to_string()),
        }
    }
}

struct Requests {
    connection: Connection,
    asked: AtomicBool,
}

impl Handler for Requests {
    async fn request(&self, request: Request) -> Result<Response, Abort> {
        self.asked.store(true, Ordering::Relaxed);
        let at = &self.connection;
        let upgrade = request.extensions().get::<Upgrade>().cloned();
        let response = self::request(&at.shared, &at.caller, &at.callee, at.restored, request).await?;
        Ok(upgraded(response, upgrade))
    }

    fn refused(&self, fault: Fault) {
        self.asked.store(true, Ordering::Relaxed);
        let at = &self.connection;
        let http = HttpEvent {
            code: fault.status().as_u16(),
            ..HttpEvent::default()
        };
        Record::request(&at.shared, &at.caller, &at.callee, http).fault(fault);
    }
}

/// Ties the two ends of an upgrade together; only connections of our own have both here.
fn upgraded(mut response: Response, ours: Option<Upgrade>) -> Response {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    let exchange = response.extensions_mut().remove::<Pending>();
    if let (Some(ours), Some(theirs), Some(Pending(exchange))) =
        (ours, take_upgrade(response.extensions_mut()), exchange)
        && let Some(exchange) = exchange.lock().ok().and_then(|mut e| e.take())
    {
        tokio::spawn(exchange.relay(ours, theirs));
    }
    response
}

/// The rest of an exchange that became something else than HTTP. In a mutex only because extensions must be shareable.
#[derive(Clone)]
struct Pending(Arc<std::sync::Mutex<Option<Exchange>>>);

/// Decides one request, and carries it to the application.
pub(super) async fn request(
    shared: &Arc<Shared>,
    caller: &Caller,
    callee: &Callee,
    restored: Option<Version>,
    request: Request,
) -> Result<Response, Abort> {
    let grpc = headers::is_grpc(request.headers());
    let mut record = Record::request(shared, caller, callee, describe(&request));
    if grpc {
        record.protocol("grpc");
    }
    let received = record.received();
    let request = request.map(|body| body.tapped(Count(received)));
    let mut exchange = Exchange {
        record,
        entry: None,
        grpc,
        sent: 0,
        stopped: None,
    };
    let Some(index) = shared.store.current() else {
        return Ok(exchange.answer(503, "the proxy has no configuration yet", Reason::NotReady));
    };
    let (asked, subject, request) = match prepare(&index, caller, callee, request, &mut exchange) {
        Ok(prepared) => prepared,
        Err(reason) => {
            let (status, text) = match reason {
                Reason::MethodRefused => (403, ""),
                _ => (400, "Bad Request"),
            };
            return Ok(exchange.answer(status, text, reason));
        }
    };
    let asked = Arc::new(asked);
    // Registered before it is decided: no change falls in between.
    match shared.registry.register(subject.check(Some(Arc::clone(&asked)))) {
        Ok(entry) => exchange.entry = Some(Arc::new(entry)),
        Err(reason) => return Ok(exchange.answer(503, "too many requests are under way", reason)),
    }
    let Some(index) = shared.store.current() else {
        return Ok(exchange.answer(503, "the proxy has no configuration yet", Reason::NotReady));
    };
    match subject.decide(&index, Some(&asked)) {
        Ok(permit) => exchange.record.admitted(&permit),
        // To a mesh client that is a connection that breaks, as over the wire.
        Err(Refusal::Floor(reason)) => {
            exchange.record.refuse(reason);
            return Err(Abort);
        }
        Err(refusal) => return Ok(exchange.deny(&refusal, &index)),
    }
    let version = version(callee, restored, &request);
    let closed = exchange.closed();
    let sent = tokio::select! {
        biased;
        reason = closed => return Ok(exchange.answer(403, DENIED, reason)),
        sent = send(shared, callee, version, request) => sent,
    };
    match sent {
        Ok((response, lease)) => Ok(exchange.respond(
            response,
            Returning {
                shared: Arc::clone(shared),
                lease,
            },
        )),
        Err(failure) => {
            exchange.record.message(&failure.why);
            let text = match failure.reason {
                Reason::ConnectFailed => {
                    "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote connection failure"
                }
                _ => {
                    "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
                }
            };
            Ok(exchange.answer(503, text, failure.reason))
        }
    }
}

/// Makes the request the one that is decided and that the application gets: path, fields, identity.
fn prepare(
    index: &Index,
    caller: &Caller,
    callee: &Callee,
    mut request: Request,
    exchange: &mut Exchange,
) -> Result<(Asked, Subject, Request), Reason> {
    let mesh = index.mesh();
    let asks = headers::asks(&request);
    if asks == Asks::Other {
        exchange.record.message("only upgrades to websocket are carried");
        return Err(Reason::MethodRefused);
    }
    let received = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let path = if received == "*" {
        received.to_owned()
    } else {
        match decide::normalize(index, received) {
            Ok(path) => path,
            Err(why) => {
                exchange.record.message(&why);
                return Err(Reason::PathRefused);
            }
        }
    };
    if path != received {
        exchange
            .record
            .http(|http| http.path_normalized = Some(path.as_str().into()));
        *request.uri_mut() = path.parse().map_err(|_| Reason::PathRefused)?;
    }
    let asked = Asked {
        method: request.method().as_str().into(),
        authority: decide::authority(&request).into(),
        path: path.into(),
        headers: request.headers().clone(),
    };
    let upgrade = asks == Asks::WebSocket;
    let map = request.headers_mut();
    xfcc::apply(
        map,
        mesh.xfcc,
        caller.peer.as_ref(),
        callee.local.identity.as_ref(),
    );
    if mesh.strict_hosts {
        for name in PROXY_FIELDS {
            map.remove(name);
        }
        // The caller's word, which nobody has checked.
        map.remove("x-forwarded-for");
    }
    let id = headers::incoming(map, upgrade, mesh.strict_hosts);
    exchange.record.http(|http| http.request_id = id.into());
    Ok((asked, Subject::new(caller, callee), request))
}

/// Which HTTP the application speaks: what its port declares, else what its caller's application does.
fn version(callee: &Callee, restored: Option<Version>, request: &Request) -> Version {
    let declared = callee
        .workload
        .inbound
        .as_ref()
        .map_or(Protocol::Auto, |i| i.port(callee.address.port()).1);
    match declared {
        _ if request.headers().contains_key(header::UPGRADE) => Version::Http1,
        Protocol::Http2 | Protocol::Grpc => Version::Http2,
        _ => restored.unwrap_or_else(|| version_of(request)),
    }
}

/// Sends a request to the application. A kept connection that closed before a byte left is no answer: once more.
async fn send(
    shared: &Arc<Shared>,
    callee: &Callee,
    version: Version,
    request: Request,
) -> Result<(Response, Lease), app::Failure> {
    let limit = app::patience(shared);
    let alone = request.headers().contains_key(header::UPGRADE);
    let mut request = headers::versioned(request, version);
    let mut fresh = alone;
    loop {
        let mut lease = shared.apps.lease(callee.address, version, limit, fresh).await?;
        let used = lease.used;
        match lease.sender.send(request).await {
            Ok(response) => return Ok((response, lease)),
            Err(unsent) => match unsent.request {
                Some(again) if used && !fresh => {
                    request = *again;
                    fresh = true;
                }
                _ => {
                    return Err(app::Failure {
                        reason: Reason::UpstreamReset,
                        why: unsent.error.to_string(),
                    });
                }
            },
        }
    }
}

fn describe(request: &Request) -> HttpEvent {
    let text = |name: &str| {
        let value = request.headers().get(name).and_then(|v| v.to_str().ok());
        Box::from(value.unwrap_or_default())
    };
    HttpEvent {
        method: request.method().as_str().into(),
        authority: text("host"),
        path: request.uri().path_and_query().map_or("/", |p| p.as_str()).into(),
        version: version_of(request).as_str(),
        request_id: text("x-request-id"),
        user_agent: text("user-agent"),
        ..HttpEvent::default()
    }
}

/// Counts the bytes of a request.
struct Count(Arc<AtomicU64>);

impl Tap for Count {
    fn data(&mut self, length: usize) {
        let length = u64::try_from(length).unwrap_or_default();
        self.0.fetch_add(length, Ordering::Relaxed);
    }

    fn end(self: Box<Self>, _how: BodyEnd) {}
}

type Closed = Pin<Box<dyn Future<Output = Reason> + Send>>;

/// One request under way.
struct Exchange {
    record: Record,
    entry: Option<Arc<Entry>>,
    grpc: bool,
    sent: u64,
    stopped: Option<Reason>,
}

impl Exchange {
    fn closed(&self) -> Closed {
        let entry = self.entry.clone();
        Box::pin(async move {
            match entry {
                Some(entry) => entry.closed().await,
                None => std::future::pending().await,
            }
        })
    }

    /// Answers in the application's place.
    fn answer(mut self, status: u16, text: &'static str, reason: Reason) -> Response {
        let response = local(self.grpc, status, text);
        self.told(&response, status, text.len());
        self.record.refuse(reason);
        response
    }

    fn deny(mut self, refusal: &Refusal, index: &Index) -> Response {
        let mut response = local(self.grpc, 403, DENIED);
        self.told(&response, 403, DENIED.len());
        if index.mesh().profile == model::Profile::Secure {
            let id = decision_id();
            if let Ok(value) = HeaderValue::try_from(id.as_str()) {
                response.headers_mut().insert(DECISION, value);
            }
            self.record.decision_id(&id);
        }
        self.record.denied(refusal);
        response
    }

    fn told(&mut self, response: &Response, status: u16, length: usize) {
        let grpc = self.grpc;
        self.record.http(|http| {
            http.code = response.status().as_u16();
            http.grpc_status = grpc.then(|| headers::grpc_status(status));
        });
        self.sent = u64::try_from(length).unwrap_or_default();
    }

    /// Passes the application's response on; the event comes when the last of it has gone by.
    fn respond(mut self, mut response: Response, returning: Returning) -> Response {
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        headers::leave_hop(response.headers_mut(), upgraded);
        self.record.http(|http| {
            http.code = response.status().as_u16();
            http.grpc_status = grpc_status_of(response.headers());
        });
        self.record.upstream(returning.lease.address());
        if upgraded {
            response
                .extensions_mut()
                .insert(Pending(Arc::new(std::sync::Mutex::new(Some(self)))));
            return response;
        }
        let closed = self.closed();
        response.map(|body: Body| {
            body.tapped(Passing {
                exchange: self,
                returning: Some(returning),
                closed,
            })
        })
    }

    /// Carries the bytes of a connection that has stopped being HTTP.
    async fn relay(self, ours: Upgrade, theirs: Upgrade) {
        let closed = self.closed();
        let (ours, theirs) = match (ours.wait().await, theirs.wait().await) {
            (Ok(ours), Ok(theirs)) => (ours, theirs),
            (Err(error), _) | (_, Err(error)) => return self.record.gone(&error.to_string()),
        };
        let relayed = relay(ours, theirs, closed).await;
        self.record.received().fetch_add(relayed.sent, Ordering::Relaxed);
        self.record.ended(relayed.reason, relayed.received);
    }
}

/// A response on its way to the caller.
struct Passing {
    exchange: Exchange,
    returning: Option<Returning>,
    closed: Closed,
}

impl Tap for Passing {
    fn poll_stop(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.exchange.stopped.is_none() {
            let reason = std::task::ready!(self.closed.as_mut().poll(context));
            self.exchange.stopped = Some(reason);
        }
        Poll::Ready(())
    }

    fn data(&mut self, length: usize) {
        self.exchange.sent += u64::try_from(length).unwrap_or_default();
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(status) = grpc_status_of(trailers) {
            self.exchange.record.http(|http| http.grpc_status = Some(status));
        }
    }

    fn end(self: Box<Self>, how: BodyEnd) {
        let Self {
            exchange, returning, ..
        } = *self;
        let reason = match how {
            BodyEnd::Whole => {
                if let Some(returning) = returning {
                    returning.back();
                }
                None
            }
            BodyEnd::Broken => Some(Reason::UpstreamReset),
            BodyEnd::Dropped => Some(Reason::DownstreamReset),
            BodyEnd::Stopped => Some(exchange.stopped.unwrap_or(Reason::PolicyChanged)),
        };
        exchange.record.ended(reason, exchange.sent);
    }
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

fn grpc_status_of(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// Sixty random bits in the alphabet that people can read out.
fn decision_id() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; 12];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    let letter = |byte: &u8| LETTERS.get(usize::from(byte % 32)).copied().map(char::from);
    bytes.iter().filter_map(letter).collect()
}
