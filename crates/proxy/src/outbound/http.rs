//! Requests: each decided by the newest snapshot, each carried by whatever hop is best for it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use meshward_http::grpc::Tally;
use meshward_http::{
    Abort, BodyEnd, Fault, Handler, HeaderMap, HeaderName, HeaderValue, Protocol as Read, Request, Response,
    Rewind, ServeOptions, Tap, Unsent, Upgrade, Version, header, version_of,
};
use model::{Protocol, Reason, Text};
use snapshot::{Destination, Index, PathNormalization};
use telemetry::{HttpEvent, Known, Peer, SpanKind};

use super::answer::Failure;
use super::event::{self, Record};
use super::exchange::{Exchange, Hold};
use super::headers::{self, Asks};
use super::hop::{self, Hops, Prepared};
use super::local::{self, Way};
use super::pool::{Lease, Opened, Speak};
use super::trace::{self, Whose};
use super::{Client, Downstream, Outbound, RETRIES};
use crate::inbound;
use crate::shared::Stage;

/// How long to wait before the same endpoint is tried again (Istio's base interval).
const RETRY_PAUSE: Duration = Duration::from_millis(25);

impl Outbound {
    /// Serves a connection whose client speaks HTTP.
    pub(super) async fn http<S: Downstream>(
        self: Arc<Self>,
        record: Record,
        client: Client,
        stream: Rewind<S>,
        http10: bool,
    ) {
        let drain = self.shared.ending.reached(Stage::Draining);
        let handler = Arc::new(Requests {
            outbound: self,
            nowhere: event::nowhere(client.dialled),
            dialled: dialled(client.dialled),
            client: Arc::new(client),
            known: Arc::default(),
            asked: AtomicBool::new(false),
        });
        let options = ServeOptions { http10 };
        let served = meshward_http::serve(stream, Read::Detect, options, Arc::clone(&handler), drain).await;
        if handler.asked.load(Ordering::Relaxed) {
            return record.discard();
        }
        match served {
            Ok(()) => record.gone("closed before a request"),
            Err(error) => record.gone(&error.to_string()),
        }
    }
}

/// Answers the requests of one connection.
struct Requests {
    outbound: Arc<Outbound>,
    client: Arc<Client>,
    /// Who is called, for events of requests that go nowhere.
    nowhere: Arc<Peer>,
    /// What was dialled, as a Host.
    dialled: Option<HeaderValue>,
    /// What its requests were counted in.
    known: Arc<Known>,
    /// Whether there was a request: each leaves an event of its own, and then the connection leaves none.
    asked: AtomicBool,
}

impl Handler for Requests {
    async fn request(&self, request: Request) -> Result<Response, Abort> {
        self.asked.store(true, Ordering::Relaxed);
        let grpc = headers::is_grpc(request.headers());
        let record = self.record(describe(&request));
        let mut exchange = Exchange::new(record, grpc);
        let mut request = request;
        // What has no body is over: nothing of it is left to be counted.
        if !request.body().is_over() {
            let count = Count {
                received: exchange.record.received(),
                messages: grpc.then(|| Tally::new(exchange.record.messages())),
            };
            request = request.map(|body| body.tapped(count));
        }
        Ok(self.answer(exchange, request).await)
    }

    fn refused(&self, fault: Fault) {
        self.asked.store(true, Ordering::Relaxed);
        let mut record = self.record(HttpEvent {
            code: fault.status().as_u16(),
            ..HttpEvent::default()
        });
        record.message(&fault.to_string());
        record.fault(fault);
    }
}

impl Requests {
    fn record(&self, http: HttpEvent) -> Record {
        let telemetry = &self.outbound.shared.telemetry;
        Record::request(telemetry, &self.client, &self.nowhere, &self.known, http)
    }

    async fn answer(&self, mut exchange: Exchange, request: Request) -> Response {
        match self.exchange(&mut exchange, request).await {
            Ok((response, hold)) => exchange.respond(response, hold),
            Err(failure) => exchange.refuse(&failure),
        }
    }

    async fn exchange(
        &self,
        exchange: &mut Exchange,
        mut request: Request,
    ) -> Result<(Response, Hold), Failure> {
        let (outbound, client) = (&self.outbound, &self.client);
        let asks = headers::asks(&request);
        if asks == Asks::Other {
            return Err(Failure::of(Reason::MethodRefused).because("only upgrades to websocket are carried"));
        }
        exchange.share = Some(outbound.share(client).map_err(Failure::of)?);
        let now = exchange.record.began();
        let authority = authority(&request);
        let is_named = !authority.is_empty();
        let (index, route, entry) = outbound
            .route(client, authority, now)
            .await
            .map_err(Failure::of)?;
        exchange.record.addressed(&route.destination, route.host.as_ref());
        let mesh = index.mesh();
        if let Some(path) = path(&request, mesh.strict_paths, mesh.path_normalization)? {
            let uri = path
                .parse()
                .map_err(|_| Failure::of(Reason::PathRefused).because("the normalised path is no path"));
            exchange
                .record
                .http(|http| http.path_normalized = Some(path.into()));
            *request.uri_mut() = uri?;
        }
        let upgrades = asks == Asks::WebSocket;
        if !is_named && let Some(dialled) = &self.dialled {
            // HTTP/1.0 need not name a host; whoever comes after us does.
            request.headers_mut().insert(header::HOST, dialled.clone());
        }
        let id = headers::outgoing(request.headers_mut(), upgrades, mesh.strict_hosts);
        exchange.record.http(|http| http.request_id = id);
        trace(&index, client, request.headers_mut(), &mut exchange.record);
        let upgrade = request.extensions().get::<Upgrade>();
        let attempts = Attempts {
            client,
            index: &index,
            destination: &route.destination,
            hops: &route.hops,
            speak: speak(route.protocol, version_of(&request), upgrades),
            upgrade: upgrade.filter(|_| upgrades).cloned(),
        };
        exchange.entry = Some(entry);
        let closed = exchange.closed();
        tokio::select! {
            biased;
            reason = closed => Err(Failure::of(reason)),
            done = outbound.attempts(attempts, &mut exchange.record, request) => done,
        }
    }
}

/// One attempt that did not lead to a response, and the request where nobody has seen it.
struct Failed(Failure, Option<Box<Request>>);

/// What all attempts of a request have in common.
pub(super) struct Attempts<'a> {
    pub(super) client: &'a Arc<Client>,
    pub(super) index: &'a Index,
    pub(super) destination: &'a Destination,
    pub(super) hops: &'a Hops,
    pub(super) speak: Speak,
    pub(super) upgrade: Option<Upgrade>,
}

impl Outbound {
    pub(super) async fn attempts(
        self: &Arc<Self>,
        attempts: Attempts<'_>,
        record: &mut Record,
        mut request: Request,
    ) -> Result<(Response, Hold), Failure> {
        let mut tried: Vec<SocketAddr> = Vec::new();
        let (index, destination) = (attempts.index, attempts.destination);
        loop {
            let next = attempts
                .hops
                .next(index, destination, &tried, hop::random(), &self.load)
                .map_err(Failure::of)?;
            let address = next.hop.address;
            match self.attempt(&attempts, record, next, request).await {
                Ok(done) => return Ok(done),
                Err(Failed(_, Some(again))) if tried.len() < RETRIES => {
                    if tried.contains(&address) {
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                    tried.push(address);
                    request = *again;
                }
                Err(Failed(failure, _)) if tried.is_empty() => return Err(failure),
                Err(Failed(failure, _)) => return Err(failure.retried()),
            }
        }
    }

    async fn attempt(
        self: &Arc<Self>,
        attempts: &Attempts<'_>,
        record: &mut Record,
        next: Arc<Prepared>,
        request: Request,
    ) -> Result<(Response, Hold), Failed> {
        let hop = &next.hop;
        let way = self.way(attempts.index, hop);
        record.hop(hop, &next.peer, way.wire(hop));
        let mut hold = Hold {
            _loaded: Some(self.load.add(hop.address)),
            upgrade: attempts.upgrade.clone(),
            ..Hold::default()
        };
        let request = match way {
            Way::Here(callee) => {
                let caller = self
                    .caller(attempts.client, hop, &callee)
                    .map_err(|failure| Failed(failure, None))?;
                if let (Some(_), Some(id)) = (&caller.peer, &callee.local.identity) {
                    record.proven(id);
                }
                let deciding = inbound::request(&self.shared, &caller, &callee, None, request);
                let answered = Box::pin(deciding).await;
                // The callee's side broke off, as it does on the wire where it refuses plaintext.
                let response = answered.map_err(|Abort| Failed(Failure::of(Reason::UpstreamReset), None))?;
                return Ok((response, hold));
            }
            Way::Looped(_) | Way::Wire => request,
        };
        let limit = Duration::from_millis(attempts.index.mesh().connect_timeout_ms);
        let mut lease = match self
            .lease(attempts.client, &next, way, attempts.speak, limit)
            .await
        {
            Ok(lease) => lease,
            Err(failure) => return Err(Failed(failure, Some(Box::new(request)))),
        };
        if let Some(peer) = lease.peer() {
            record.met(next.met(peer));
        }
        let request = headers::versioned(request, lease.sender.version());
        match lease.sender.send(request).await {
            Ok(response) => {
                hold.lease = Some(lease);
                Ok((response, hold))
            }
            Err(Unsent { error, request }) => {
                let failure = match lease.refusal() {
                    Some(refusal) => {
                        Failure::unreachable(Reason::TlsHandshake, &format!("TLS error: {refusal}"))
                    }
                    None => Failure::of(Reason::UpstreamReset).because(&error.to_string()),
                };
                if request.is_some() {
                    // It had ended while it was kept, and the others may have too: the next attempt dials.
                    lease.distrust();
                }
                Err(Failed(failure, request))
            }
        }
    }

    /// A connection for one request. One that will be upgraded is nobody else's before or after.
    async fn lease(
        self: &Arc<Self>,
        client: &Arc<Client>,
        next: &Arc<Prepared>,
        way: Way,
        speak: Speak,
        limit: Duration,
    ) -> Result<Lease, Failure> {
        let leaf = match &next.hop.tls {
            None => [0; 32],
            Some(_) => {
                let own = self.shared.identities.leaf_of(&client.id);
                own.map_err(|error| Failure::of(error.reason()).because(&error.to_string()))?
            }
        };
        let key = next.key(&client.id, leaf, Self::source(client, &next.hop), speak);
        let callee = match way {
            Way::Looped(callee) => Some(callee),
            Way::Here(_) | Way::Wire => None,
        };
        let open = || {
            let (outbound, client, next) = (Arc::clone(self), Arc::clone(client), Arc::clone(next));
            let callee = callee.clone();
            // Apart: most requests find a connection.
            Box::pin(async move {
                let (hop, alpn) = (&next.hop, speak.alpn());
                let link = match callee {
                    None => outbound.connect(&client, hop, alpn, limit).await?,
                    Some(callee) => {
                        let io = local::looped(&outbound.shared, &client, *callee, alpn);
                        outbound.secure(&client, hop.tls.as_ref(), io, alpn).await?
                    }
                };
                let version = speak.version(link.alpn.as_deref());
                let broken = |error: &meshward_http::ClientError| {
                    Failure::unreachable(Reason::ConnectFailed, &error.to_string())
                };
                let mut sender = meshward_http::handshake(link.io, version)
                    .await
                    .map_err(|e| broken(&e))?;
                sender.ready().await.map_err(|e| broken(&e))?;
                Ok(Opened {
                    sender,
                    peer: link.peer.map(|peer| peer.id().clone()),
                    late: link.late,
                })
            })
        };
        if speak == Speak::Upgrade {
            return self.pool.apart(key, open()).await;
        }
        self.pool.lease(key, open).await
    }
}

/// What is told of the caller's traffic, and the request's place in its trace.
fn trace(index: &Index, client: &Client, headers: &mut HeaderMap, record: &mut Record) {
    let workload = index.workload(&client.local.uid);
    let Some(inbound) = workload.and_then(|workload| workload.inbound.as_ref()) else {
        return;
    };
    record.told(&inbound.telemetry);
    if let Some(tracing) = &inbound.telemetry.tracing {
        let whose = Whose {
            mark: client.local.mark,
            peer: &client.source,
            kind: SpanKind::Client,
        };
        record.traced(trace::begin(headers, tracing, &whose, trace::random()));
    }
}

fn describe(request: &Request) -> HttpEvent {
    let text = |name: &HeaderName| {
        let value = request
            .headers()
            .get(name)
            .map(|v| String::from_utf8_lossy(v.as_bytes()));
        Text::from(value.unwrap_or_default())
    };
    HttpEvent {
        method: request.method().as_str().into(),
        authority: text(&header::HOST),
        path: target(request).into(),
        version: version_of(request).as_str(),
        user_agent: text(&header::USER_AGENT),
        ..HttpEvent::default()
    }
}

/// An address as a Host.
fn dialled(address: SocketAddr) -> Option<HeaderValue> {
    HeaderValue::try_from(address.to_string()).ok()
}

fn target(request: &Request) -> &str {
    request
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str())
}

/// The Host as it was sent; one that is no text names nothing.
fn authority(request: &Request) -> &str {
    let host = request.headers().get(header::HOST);
    host.and_then(|host| host.to_str().ok()).unwrap_or_default()
}

/// The path as everybody after us is to see it, where that is not as it came (semantics 3).
fn path(request: &Request, strict: bool, mode: PathNormalization) -> Result<Option<String>, Failure> {
    let raw = target(request);
    if raw == "*" {
        return Ok(None);
    }
    let refused =
        |error: policy::path::PathError| Failure::of(Reason::PathRefused).because(&error.to_string());
    if strict {
        policy::path::strict_check(raw.as_bytes()).map_err(refused)?;
    }
    let mode = match mode {
        PathNormalization::None => policy::path::Mode::None,
        PathNormalization::Base => policy::path::Mode::Base,
        PathNormalization::MergeSlashes => policy::path::Mode::MergeSlashes,
        PathNormalization::DecodeAndMergeSlashes => policy::path::Mode::DecodeAndMergeSlashes,
    };
    let normal = policy::path::normalize(raw.as_bytes(), mode).map_err(refused)?;
    Ok(match normal {
        Cow::Borrowed(same) if same.len() == raw.len() => None,
        normal => (normal != raw).then(|| normal.into_owned()),
    })
}

/// Which HTTP the next hop is spoken to in. A port that is declared says what the application behind it takes, so that
/// the way there may be multiplexed; on others the application gets what its caller speaks (CM-15).
pub(super) fn speak(protocol: Protocol, version: Version, upgrades: bool) -> Speak {
    match (protocol, version) {
        _ if upgrades => Speak::Upgrade,
        (Protocol::Http2 | Protocol::Grpc, _) | (_, Version::Http2) => Speak::Http2,
        (Protocol::Http | Protocol::GrpcWeb, Version::Http1) => Speak::Either,
        (_, Version::Http1) => Speak::Http1,
    }
}

/// Counts the bytes of a request's body, and of gRPC the messages.
struct Count {
    received: Arc<AtomicU64>,
    messages: Option<Tally>,
}

impl Tap for Count {
    fn data(&mut self, length: usize) {
        self.received
            .fetch_add(u64::try_from(length).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn bytes(&mut self, data: &[u8]) {
        self.data(data.len());
        if let Some(messages) = &mut self.messages {
            messages.take(data);
        }
    }

    fn end(self: Box<Self>, _: BodyEnd) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cm_15_what_the_next_hop_is_spoken_to_in() {
        use Protocol::*;
        for (protocol, version, upgrades, expect) in [
            (Http, Version::Http1, false, Speak::Either),
            (GrpcWeb, Version::Http1, false, Speak::Either),
            (Http, Version::Http2, false, Speak::Http2),
            (Http2, Version::Http1, false, Speak::Http2),
            (Grpc, Version::Http2, false, Speak::Http2),
            (Auto, Version::Http1, false, Speak::Http1),
            (Auto, Version::Http2, false, Speak::Http2),
            (Http, Version::Http1, true, Speak::Upgrade),
        ] {
            assert_eq!(
                speak(protocol, version, upgrades),
                expect,
                "{protocol:?} {version:?}"
            );
        }
    }
}
