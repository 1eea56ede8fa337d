//! Requests: each decided by the newest snapshot, and cut off when a later one no longer admits it.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use meshward_http::{
    Abort, Fault, Handler, HeaderName, HeaderValue, Protocol as Read, Request, Response, ServeError,
    ServeOptions, Upgrade, Version, header, take_upgrade, version_of,
};
use model::{Protocol, Reason, Text};
use snapshot::Index;
use telemetry::{HttpEvent, Known, SpanKind};
use tokio::io::{AsyncRead, AsyncWrite};

use super::app::{self, Lease, Returning};
use super::decide::{self, Asked, Refusal, Subject};
use super::exchange::{self, Answered, Coming, DENIED, Exchange, UNANSWERED};
use super::record::Record;
use super::{Callee, Caller, external, fields, is_ready, token, xfcc};
use crate::outbound::headers::{self, Asks};
use crate::outbound::trace::{self, Whose};
use crate::shared::{Shared, Stage};

/// What a caller reads where the application is not to be reached.
const UNREACHED: &str =
    "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";

/// What a caller reads where one more request is too many.
const CROWDED: &str = "too many requests are under way";
/// How often a request is authenticated that comes while what it is authenticated by changes.
const MAX_ROUNDS: usize = 8;

/// Bytes that a connection within the process holds in each direction.
const BUFFER: usize = 64 * 1024;

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
        let drain = self.shared.ending.reached(Stage::Draining);
        let options = ServeOptions { http10: self.http10 };
        let handler = Arc::new(Requests {
            ends: Ends::new(self.caller, self.callee),
            shared: self.shared,
            restored: self.restored,
            asked: AtomicBool::new(false),
        });
        let served = meshward_http::serve(stream, read, options, Arc::clone(&handler), drain).await;
        if handler.asked.load(Ordering::Relaxed) {
            return record.discard();
        }
        match served {
            Ok(()) if handler.shared.ending.stage() != Stage::Running => {
                record.refuse(Reason::Draining);
            }
            Ok(()) => record.gone("closed before a request"),
            Err(ServeError::Timeout) => record.refuse(Reason::Timeout),
            Err(error) => record.gone(&error.to_string()),
        }
    }
}

struct Requests {
    shared: Arc<Shared>,
    ends: Ends,
    restored: Option<Version>,
    asked: AtomicBool,
}

/// Both ends of a connection, and what follows from them for all of its requests.
pub(super) struct Ends {
    caller: Caller,
    callee: Callee,
    subject: Subject,
    /// What the application is told of the caller.
    xfcc: Option<HeaderValue>,
    /// What its requests were counted in.
    known: Arc<Known>,
}

impl Ends {
    pub(super) fn new(caller: Caller, callee: Callee) -> Self {
        Self {
            subject: Subject::new(&caller, &callee),
            xfcc: xfcc::of(caller.peer.as_ref(), callee.local.identity.as_ref()),
            known: Arc::default(),
            caller,
            callee,
        }
    }

    fn record(&self, shared: &Shared, http: HttpEvent) -> Record {
        Record::request(shared, &self.caller, &self.callee, &self.known, http)
    }
}

impl Handler for Requests {
    async fn request(&self, request: Request) -> Result<Response, Abort> {
        self.asked.store(true, Ordering::Relaxed);
        let upgrade = request.extensions().get::<Upgrade>().cloned();
        let answered = self::request(&self.shared, &self.ends, self.restored, request).await?;
        Ok(switched(answered, upgrade))
    }

    fn refused(&self, fault: Fault) {
        self.asked.store(true, Ordering::Relaxed);
        let http = HttpEvent {
            code: fault.status().as_u16(),
            ..HttpEvent::default()
        };
        self.ends.record(&self.shared, http).fault(fault);
    }
}

/// Ties the two ends of an upgrade together.
fn switched(answered: Answered, ours: Option<Upgrade>) -> Response {
    let mut response = answered.response;
    if let Some(exchange) = answered.switched
        && let Some(ours) = ours
        && let Some(theirs) = take_upgrade(response.extensions_mut())
    {
        tokio::spawn(exchange.relay(ours, theirs));
    }
    response
}

/// Hands over a request that asks for an upgrade, over a connection within the process: whoever called gets the promise
/// of a stream that goes by here, where it is counted and cut off as one from the wire is.
pub(super) async fn looped(
    shared: &Arc<Shared>,
    caller: &Caller,
    callee: &Callee,
    request: Request,
) -> Result<Response, Abort> {
    let (near, far) = tokio::io::duplex(BUFFER);
    let connection = Connection {
        shared: Arc::clone(shared),
        caller: caller.clone(),
        callee: callee.clone(),
        restored: None,
        http10: false,
    };
    let record = Record::of(shared, caller, callee);
    tokio::spawn(connection.serve(record, far, Read::Http1));
    let mut sender = meshward_http::handshake(near, Version::Http1)
        .await
        .map_err(|_| Abort)?;
    let request = headers::versioned(request, Version::Http1);
    sender.send(request).await.map_err(|_| Abort)
}

/// Decides one request, and carries it to the application.
pub(super) async fn request(
    shared: &Arc<Shared>,
    ends: &Ends,
    restored: Option<Version>,
    request: Request,
) -> Result<Answered, Abort> {
    let (caller, callee) = (&ends.caller, &ends.callee);
    let grpc = headers::is_grpc(request.headers());
    let record = ends.record(shared, describe(&request));
    let Some(share) = shared.requests.share(callee.local.mark) else {
        return Ok(exchange::refuse(record, grpc, 503, CROWDED, Reason::LimitReached).into());
    };
    let mut exchange = Exchange::new(record, share, grpc);
    let Some(index) = shared.store.current() else {
        let text = "the proxy has no configuration yet";
        return Ok(exchange.answer(503, text, Reason::NotReady).into());
    };
    if !is_ready(shared, callee) {
        let text = "the proxy has no certificate yet";
        return Ok(exchange.answer(503, text, Reason::NotReady).into());
    }
    let prepared = match prepare(&index, ends, request, &mut exchange) {
        Ok(prepared) => prepared,
        Err(reason) => {
            let (status, text) = match reason {
                Reason::MethodRefused => (403, ""),
                _ => (400, "Bad Request"),
            };
            return Ok(exchange.answer(status, text, reason).into());
        }
    };
    // An authorizer may change what the tokens are in: it is asked first (semantics 2.1).
    let (subject, mut request) = if prepared.0.asks(&index) {
        let (subject, request) = prepared;
        let prepared = (Asked::of(&request), subject, request);
        let asking = external::request(shared, &index, (caller, callee), prepared, &mut exchange);
        match asking.await {
            Ok((_, subject, request)) => (subject, request),
            Err(turned) => return Ok(exchange.answer(turned.status, turned.text, turned.reason).into()),
        }
    } else {
        prepared
    };
    let asked = match admit(shared, &subject, index, &request, &mut exchange) {
        Ok(asked) => asked,
        Err(Stop::Full(reason)) => {
            return Ok(exchange.answer(503, CROWDED, reason).into());
        }
        Err(Stop::Changed) => {
            let text = "the mesh has just changed how requests are read";
            return Ok(exchange.answer(503, text, Reason::PolicyChanged).into());
        }
        // To a mesh client that is a connection that breaks, as over the wire.
        Err(Stop::Refused(Refusal::Floor(reason), ..)) => {
            exchange.record.refuse(reason);
            return Err(Abort);
        }
        Err(Stop::Refused(refusal, index, asked)) => {
            // Where a token was refused, no policy was asked.
            if asked.is_some() {
                exchange.record.decided(subject.decided(&index, asked.as_ref()));
            }
            let challenge = token::challenge(&refusal, &request);
            if matches!(refusal, Refusal::Token(_)) {
                // Nobody knows what of the query was meant as a token.
                exchange.record.path(request.uri().path());
            }
            return Ok(exchange.deny(&refusal, &index, challenge).into());
        }
    };
    if asked.is_changed() {
        request.headers_mut().clone_from(&asked.headers);
        let Ok(uri) = asked.path.parse() else {
            return Ok(exchange.answer(400, "Bad Request", Reason::PathRefused).into());
        };
        *request.uri_mut() = uri;
    }
    // What has no body is over: nothing of it is left to be counted, or cut off.
    let request = match request.body().is_over() {
        true => request,
        false => {
            let coming = Coming::of(&mut exchange);
            request.map(|body| body.tapped(coming))
        }
    };
    let upgrade = request.headers().contains_key(header::UPGRADE);
    let version = version(callee, restored, &request, upgrade);
    let closed = exchange.closed();
    let sent = tokio::select! {
        biased;
        reason = closed => {
            // A workload that has left denies nothing: the caller may ask another endpoint.
            let (code, text) = match reason {
                Reason::NotReady => (503, UNANSWERED),
                _ => (403, DENIED),
            };
            return Ok(exchange.answer(code, text, reason).into());
        }
        sent = send(shared, callee, version, upgrade, request) => sent,
    };
    match sent {
        Ok((response, lease)) => Ok(exchange.respond(
            response,
            Returning {
                shared: Arc::clone(shared),
                lease,
            },
            upgrade,
        )),
        Err(failure) => {
            exchange.record.message(&failure.why);
            let text = match failure.reason {
                Reason::ConnectFailed => UNREACHED,
                _ => UNANSWERED,
            };
            Ok(exchange.answer(503, text, failure.reason).into())
        }
    }
}

/// Why a request goes no further.
enum Stop {
    /// There is no place for it.
    Full(Reason),
    /// What it was read by is not in force any more.
    Changed,
    /// Decided against, by this snapshot; with what was decided, where its tokens were good.
    Refused(Refusal, Arc<Index>, Option<Arc<Asked>>),
}

/// Authenticates and decides a request. It takes its place in the registry before it is decided, so that no change falls in
/// between; where one to its RequestAuthentications came before that, its tokens are looked at once more.
fn admit(
    shared: &Arc<Shared>,
    subject: &Subject,
    mut index: Arc<Index>,
    request: &Request,
    exchange: &mut Exchange,
) -> Result<Arc<Asked>, Stop> {
    for _ in 0..MAX_ROUNDS {
        let asked = match subject.ask(&index, request, &shared.tokens) {
            Ok(asked) => Arc::new(asked),
            Err(refusal) => return Err(Stop::Refused(refusal, index, None)),
        };
        if request
            .uri()
            .path_and_query()
            .is_some_and(|path| path.as_str() != &*asked.path)
        {
            // A token was taken out of the query.
            exchange.record.path(&asked.path);
        }
        let check = subject.check(Some(Arc::clone(&asked)));
        exchange.registered(shared.registry.register(check).map_err(Stop::Full)?);
        if let Some(newest) = shared.store.current() {
            if !decide::reads_alike(&index, &newest) {
                return Err(Stop::Changed);
            }
            index = newest;
        }
        if !subject.stands(&index, &asked) {
            continue;
        }
        return match subject.decide(&index, Some(&asked)) {
            Ok(permit) => {
                exchange.record.admitted(&permit);
                Ok(asked)
            }
            Err(refusal) => Err(Stop::Refused(refusal, index, Some(asked))),
        };
    }
    Err(Stop::Changed)
}

/// Makes the request the one that is decided and that the application gets: path, fields, identity.
fn prepare(
    index: &Index,
    ends: &Ends,
    mut request: Request,
    exchange: &mut Exchange,
) -> Result<(Subject, Request), Reason> {
    let mesh = index.mesh();
    let asks = headers::asks(&request);
    if asks == Asks::Other {
        exchange.record.message("only upgrades to websocket are carried");
        return Err(Reason::MethodRefused);
    }
    let received = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let path = if received == "*" {
        Cow::Borrowed(received)
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
        let uri = path.parse().map_err(|_| Reason::PathRefused);
        let path = Text::from(path);
        exchange.record.http(|http| http.path_normalized = Some(path));
        *request.uri_mut() = uri?;
    }
    let upgrade = asks == Asks::WebSocket;
    let map = request.headers_mut();
    xfcc::apply(map, mesh.xfcc, ends.xfcc.as_ref());
    fields::silence(map, mesh.strict_hosts);
    let id = headers::incoming(map, upgrade, mesh.strict_hosts);
    exchange.record.http(|http| http.request_id = id);
    let callee = &ends.callee;
    let workload = index.workload(&callee.local.uid);
    let inbound = workload.and_then(|workload| workload.inbound.as_ref());
    if let Some(tracing) = inbound.and_then(|inbound| inbound.telemetry.tracing.as_ref()) {
        let whose = Whose {
            mark: callee.local.mark,
            peer: &callee.destination,
            kind: SpanKind::Server,
        };
        let span = trace::begin(map, tracing, &whose, trace::random());
        exchange.record.traced(span);
    }
    // What is decided is what the application gets, and nothing that only the caller says.
    Ok((ends.subject.clone(), request))
}

/// Which HTTP the application speaks: what its port declares, else what its caller's application does.
fn version(callee: &Callee, restored: Option<Version>, request: &Request, upgrade: bool) -> Version {
    let declared = callee
        .workload
        .inbound
        .as_ref()
        .map_or(Protocol::Auto, |i| i.port(callee.address.port()).1);
    match declared {
        _ if upgrade => Version::Http1,
        Protocol::Http2 | Protocol::Grpc => Version::Http2,
        _ => restored.unwrap_or_else(|| version_of(request)),
    }
}

/// Sends a request to the application, `alone` over a connection of its own. A kept connection that closed before a byte left is
/// no answer: once more.
async fn send(
    shared: &Arc<Shared>,
    callee: &Callee,
    version: Version,
    alone: bool,
    request: Request,
) -> Result<(Response, Lease), app::Failure> {
    let limit = app::patience(shared);
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
    let text = |name: &HeaderName| {
        let value = request.headers().get(name).and_then(|v| v.to_str().ok());
        Text::from(value.unwrap_or_default())
    };
    HttpEvent {
        method: request.method().as_str().into(),
        authority: text(&header::HOST),
        path: request.uri().path_and_query().map_or("/", |p| p.as_str()).into(),
        version: version_of(request).as_str(),
        request_id: text(&headers::REQUEST_ID),
        user_agent: text(&header::USER_AGENT),
        ..HttpEvent::default()
    }
}
