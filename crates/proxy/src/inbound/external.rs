//! External authorizers (AuthorizationPolicy `action: CUSTOM`): asked before anything else is decided, each whose rules
//! match, in the order of their names. What they say is kept with the request, so that it is decided again without
//! asking again; what they change is what the later steps and the application see (semantics 2.1, 2.13).

mod guard;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use extauthz::{Answer, Changes, Connection, Denied, Party, SeenBody};
use meshward_http::{
    Body, BodyEnd, BodyError, HeaderMap, HeaderValue, Method, Request, StatusCode, Tap, header, version_of,
};
use model::{Reason, WorkloadUid};
use policy::{External, ExternalAnswer};
use snapshot::{Index, Provider, ProviderKind};
use tokio::time::Instant;

use super::decide::{self, Asked, Refusal, Subject};
use super::exchange::Exchange;
use super::record::Record;
use super::{Callee, Caller};
use crate::outbound::{Call, NoReply, Reply};
use crate::shared::Shared;

pub(crate) use guard::Authorizers;

/// How long the part of a body that authorizers see may take to come.
const BODY_TIMEOUT: Duration = if cfg!(test) {
    Duration::from_millis(300)
} else {
    Duration::from_secs(30)
};

/// Bytes of an answer's body over HTTP.
const MAX_BODY: usize = 1024 * 1024;

/// Authorizers that are asked about one request; more leave it refused.
const MAX_ASKED: usize = 16;

/// Questions about questions within this process.
const MAX_DEPTH: usize = 4;

/// What a caller reads whose body is longer than an authorizer is to see.
const TOO_LARGE: &str = "Payload Too Large";

/// What authorizers have said of a connection or a request.
#[derive(Clone, Default, Debug)]
pub(super) struct Answers(BTreeMap<String, ExternalAnswer>);

impl External for Answers {
    fn answer(&self, provider: &str) -> ExternalAnswer {
        self.0.get(provider).copied().unwrap_or(ExternalAnswer::Unasked)
    }
}

/// What of the answers concerns the response.
#[derive(Default, Debug)]
pub(super) struct Outcome {
    changes: Vec<Changes>,
    refusal: Option<Said>,
}

/// How an authorizer refused.
#[derive(Debug)]
enum Said {
    Denied(Denied),
    /// It gave no answer: `statusOnError`.
    Failed(u16),
}

impl Outcome {
    /// Makes the changes to the response that the caller gets.
    pub(super) fn response(&self, headers: &mut HeaderMap) {
        for changes in &self.changes {
            changes.response(headers);
        }
    }

    /// Status, body and fields of a refusal; `None` where no authorizer spoke.
    pub(super) fn refusal(
        &self,
        external: Option<ExternalAnswer>,
    ) -> Option<(StatusCode, &[u8], Option<&Denied>)> {
        match (&self.refusal, external) {
            (Some(Said::Denied(denied)), Some(ExternalAnswer::Deny)) => {
                Some((denied.status, &denied.body, Some(denied)))
            }
            (Some(Said::Failed(status)), Some(ExternalAnswer::Failed)) => {
                let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::FORBIDDEN);
                Some((status, b"", None))
            }
            _ => None,
        }
    }
}

/// A request that is not decided: it is answered as it is.
pub(super) struct Turned {
    pub(super) status: u16,
    pub(super) text: &'static str,
    pub(super) reason: Reason,
}

/// Everything that is known when authorizers are asked.
struct Asking<'a> {
    shared: &'a Arc<Shared>,
    index: &'a Arc<Index>,
    caller: &'a Caller,
    callee: &'a Callee,
    depth: usize,
}

/// How many questions within this process led to a request that is asked about: authorizers can be workloads that
/// others are asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Depth(pub(super) usize);

/// What one authorizer was found to say.
enum Heard {
    Answer(Answer),
    /// It gave none, for the reason that people read.
    Nothing(String),
    /// It cannot be asked about this at all.
    Unasked(&'static str),
}

/// A request that is made ready to be decided.
type Prepared = (Asked, Subject, Request);

/// Asks about a request whoever must be asked, and makes their changes to it.
///
/// # Errors
/// Its body is not one that authorizers can see.
pub(super) async fn request(
    shared: &Arc<Shared>,
    index: &Arc<Index>,
    (caller, callee): (&Caller, &Callee),
    prepared: Prepared,
    exchange: &mut Exchange,
) -> Result<Prepared, Turned> {
    let (asked, subject, request) = &prepared;
    if next(subject, index, Some(asked), &Answers::default()).is_none() {
        return Ok(prepared);
    }
    let asking = Asking {
        shared,
        index,
        caller,
        callee,
        depth: request.extensions().get::<Depth>().map_or(0, |depth| depth.0),
    };
    // Apart, so that a request that nobody is asked about is not the larger for it.
    Box::pin(asked_about(&asking, prepared, exchange)).await
}

async fn asked_about(
    asking: &Asking<'_>,
    (mut asked, mut subject, mut request): Prepared,
    exchange: &mut Exchange,
) -> Result<Prepared, Turned> {
    let (shared, index) = (asking.shared, asking.index);
    let mut answers = Answers::default();
    let mut seen = None;
    // What one changes may be what the rules of the next speak of.
    while let Some(name) = next(&subject, index, Some(&asked), &answers) {
        let provider = index.provider(&name);
        if let Some(body) = provider.and_then(|provider| provider.body)
            && seen.is_none()
        {
            let wanted = wanted(index, &subject, &asked, body.max_bytes);
            let (again, ahead) = read_ahead(shared, &asking.callee.local.uid, request, wanted).await?;
            request = again;
            seen = Some(ahead);
        }
        let heard = match provider {
            None => Heard::Unasked("it is not defined, or cannot be reached by its definition"),
            Some(provider) => {
                let body = see(provider, seen.as_ref())?;
                let question = extauthz::Asked {
                    method: request.method(),
                    authority: &asked.authority,
                    path: &asked.path,
                    protocol: version_of(&request).as_str(),
                    headers: request.headers(),
                    id: id(request.headers()),
                    time: SystemTime::now(),
                    body,
                };
                asking.ask(provider, Some(&question)).await
            }
        };
        let strict = index.mesh().strict_hosts;
        let (answer, said) = match heard {
            Heard::Answer(Answer::Allow(changes)) => {
                let before = asked.path.clone();
                match change(index, &changes, &mut request, &mut asked, strict) {
                    Ok(ignored) => {
                        if !ignored.is_empty() {
                            exchange.record.message(&format!(
                                "provider `{name}` set fields that are the proxy's: {ignored}"
                            ));
                        }
                        if changes.target(&before).is_some() {
                            exchange
                                .record
                                .http(|http| http.path_normalized = Some(asked.path.clone()));
                        }
                        exchange.outcome.changes.push(changes);
                        (ExternalAnswer::Allow, "allowed")
                    }
                    Err(why) => failed(provider, &name, &why, exchange),
                }
            }
            Heard::Answer(Answer::Deny(denied)) => {
                exchange.outcome.refusal = Some(Said::Denied(denied));
                (ExternalAnswer::Deny, "denied")
            }
            Heard::Nothing(why) => failed(provider, &name, &why, exchange),
            Heard::Unasked(why) => {
                exchange
                    .record
                    .message(&format!("provider `{name}` was not asked: {why}"));
                (ExternalAnswer::Unasked, "unasked")
            }
        };
        exchange.record.external(&name, said);
        answers.0.insert(name, answer);
        if answer != ExternalAnswer::Allow {
            break;
        }
    }
    subject.answered(answers);
    Ok((asked, subject, request))
}

/// Asks about a connection whoever must be asked.
pub(super) async fn connection(
    shared: &Arc<Shared>,
    caller: &Caller,
    callee: &Callee,
    subject: &mut Subject,
    record: &mut Record,
) {
    let Some(index) = shared.store.current() else {
        return;
    };
    let asking = Asking {
        shared,
        index: &index,
        caller,
        callee,
        depth: 0,
    };
    let mut answers = Answers::default();
    while let Some(name) = next(subject, &index, None, &answers) {
        let provider = index.provider(&name);
        let heard = match provider {
            None => Heard::Unasked("it is not defined, or cannot be reached by its definition"),
            Some(provider) => Box::pin(asking.ask(provider, None)).await,
        };
        let (answer, said) = match heard {
            Heard::Answer(Answer::Allow(_)) => (ExternalAnswer::Allow, "allowed"),
            Heard::Answer(Answer::Deny(_)) => (ExternalAnswer::Deny, "denied"),
            Heard::Nothing(why) => {
                record.message(&format!("provider `{name}` gave no answer: {why}"));
                match provider {
                    Some(provider) if provider.fail_open => (ExternalAnswer::Allow, FAILURE_ALLOWED),
                    _ => (ExternalAnswer::Failed, "error"),
                }
            }
            Heard::Unasked(why) => {
                record.message(&format!("provider `{name}` was not asked: {why}"));
                (ExternalAnswer::Unasked, "unasked")
            }
        };
        record.external(&name, said);
        answers.0.insert(name, answer);
        if answer != ExternalAnswer::Allow {
            break;
        }
    }
    subject.answered(answers);
}

/// The result of a question without an answer that `failOpen` admits.
const FAILURE_ALLOWED: &str = "failure_mode_allowed";

fn failed(
    provider: Option<&Arc<Provider>>,
    name: &str,
    why: &str,
    exchange: &mut Exchange,
) -> (ExternalAnswer, &'static str) {
    exchange
        .record
        .message(&format!("provider `{name}` gave no answer: {why}"));
    match provider {
        Some(provider) if provider.fail_open => (ExternalAnswer::Allow, FAILURE_ALLOWED),
        _ => {
            let status = provider.map_or(403, |provider| provider.status_on_error);
            exchange.outcome.refusal = Some(Said::Failed(status));
            (ExternalAnswer::Failed, "error")
        }
    }
}

/// Who is to be asked next. Where too many would be, nobody is, and the request is refused for want of their answers.
fn next(subject: &Subject, index: &Index, asked: Option<&Asked>, answers: &Answers) -> Option<String> {
    if answers.0.len() >= MAX_ASKED {
        return None;
    }
    // What is refused in any case nobody is asked about.
    let names: BTreeSet<String> = subject.providers(index, asked).ok()?;
    names.into_iter().find(|name| !answers.0.contains_key(name))
}

/// How much of the body those want to see who will be asked.
fn wanted(index: &Index, subject: &Subject, asked: &Asked, least: u32) -> u32 {
    let names: Result<BTreeSet<String>, Refusal> = subject.providers(index, Some(asked));
    let bodies = names.unwrap_or_default().into_iter();
    bodies
        .filter_map(|name| Some(index.provider(&name)?.body?.max_bytes))
        .fold(least, u32::max)
}

/// What has been read of a body.
struct Ahead {
    bytes: bytes::Bytes,
    whole: bool,
}

/// Room for a body that is held, until it has gone by.
struct Held(#[expect(dead_code, reason = "held, and given back when dropped")] guard::Room);

impl Tap for Held {
    fn data(&mut self, _: usize) {}

    fn end(self: Box<Self>, _: BodyEnd) {}
}

async fn read_ahead(
    shared: &Shared,
    workload: &WorkloadUid,
    request: Request,
    limit: u32,
) -> Result<(Request, Ahead), Turned> {
    let (head, body) = request.into_parts();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut held = shared.authorizers.room(workload);
    let mut full = false;
    let room = |bytes: usize| {
        // Once as it is, once in the question.
        full = !held.take(bytes.saturating_mul(2));
        !full
    };
    let read = tokio::time::timeout(BODY_TIMEOUT, body.read_ahead(limit, room)).await;
    let ahead = match read {
        Ok(Ok(ahead)) => ahead,
        Ok(Err(_)) if full => {
            return Err(Turned {
                status: 503,
                text: "too many bodies are held",
                reason: Reason::LimitReached,
            });
        }
        Ok(Err(BodyError::Broken(_) | BodyError::Stopped)) => {
            return Err(Turned {
                status: 400,
                text: "Bad Request",
                reason: Reason::DownstreamReset,
            });
        }
        Err(_) => {
            return Err(Turned {
                status: 408,
                text: "Request Timeout",
                reason: Reason::Timeout,
            });
        }
    };
    let request = Request::from_parts(head, ahead.body.tapped(Held(held)));
    let (bytes, whole) = (ahead.bytes, ahead.whole);
    Ok((request, Ahead { bytes, whole }))
}

/// What this authorizer sees of the body.
fn see(provider: &Provider, ahead: Option<&Ahead>) -> Result<Option<SeenBody>, Turned> {
    let (Some(body), Some(ahead)) = (provider.body, ahead) else {
        return Ok(None);
    };
    let max = usize::try_from(body.max_bytes).unwrap_or(usize::MAX);
    let longer = !ahead.whole || ahead.bytes.len() > max;
    if longer && !body.partial {
        return Err(Turned {
            status: 413,
            text: TOO_LARGE,
            reason: Reason::LimitReached,
        });
    }
    Ok(Some(SeenBody {
        bytes: ahead.bytes.slice(..ahead.bytes.len().min(max)),
        partial: longer,
        as_bytes: body.as_bytes,
    }))
}

/// Makes the changes; returns which of them are the proxy's own to make.
fn change(
    index: &Index,
    changes: &Changes,
    request: &mut Request,
    asked: &mut Asked,
    strict: bool,
) -> Result<String, String> {
    if let Some(changed) = changes.target(&asked.path) {
        let path = decide::normalize(index, &changed)?;
        *request.uri_mut() = path
            .parse()
            .map_err(|_| "the changed path is no path".to_owned())?;
        asked.path = path.into();
    }
    let ignored = changes.request(request.headers_mut(), strict);
    asked.headers = request.headers().clone();
    let names: Vec<_> = ignored.iter().map(|name| name.as_str()).collect();
    Ok(names.join(", "))
}

fn id(headers: &HeaderMap) -> &str {
    headers
        .get("x-request-id")
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default()
}

impl Asking<'_> {
    async fn ask(&self, provider: &Arc<Provider>, question: Option<&extauthz::Asked<'_>>) -> Heard {
        let call = |mut request: Request, http2: bool, limit: usize| async move {
            if self.depth >= MAX_DEPTH {
                return Err("authorizers are asked about one another".to_owned());
            }
            request.extensions_mut().insert(Depth(self.depth + 1));
            let target = self
                .index
                .target(&provider.service, provider.port, &self.callee.local.namespace);
            let Some(target) = target else {
                return Err("its Service, or the port of it, is not there".to_owned());
            };
            let own = self.callee.address;
            let serves = |(endpoint, port): &(&snapshot::Endpoint, u16)| {
                let at = |ip: &std::net::IpAddr| model::canonical_ip(*ip) == own.ip();
                *port == own.port() && endpoint.addresses.iter().any(at)
            };
            if target.candidates().iter().any(serves) {
                return Err("it would be asked about the question to itself".to_owned());
            }
            let Some(outbound) = self.shared.authorizers.outbound() else {
                return Err("the proxy does not call anybody yet".to_owned());
            };
            let pass = self
                .shared
                .authorizers
                .authorizer(self.index, &provider.name)
                .enter()
                .map_err(str::to_owned)?;
            let call = Call {
                local: Arc::clone(&self.callee.local),
                source: Arc::clone(&self.callee.destination),
                index: Arc::clone(self.index),
                target,
                http2,
                limit,
                until: Instant::now() + provider.timeout(),
            };
            match outbound.call(call, request).await {
                Ok(reply) => {
                    pass.reached();
                    Ok(reply)
                }
                Err(NoReply::Failed(why)) => {
                    pass.reached();
                    Err(why)
                }
                Err(NoReply::Unreached(why)) => {
                    pass.missed();
                    Err(why)
                }
                Err(NoReply::Late) => {
                    pass.missed();
                    Err(format!("not within {} ms", provider.timeout_ms))
                }
            }
        };
        let read = match (&provider.kind, question) {
            (ProviderKind::Http(_), None) => {
                return Heard::Unasked("an authorizer over HTTP cannot be asked about connections");
            }
            (ProviderKind::Http(check), Some(question)) => {
                let Some(request) = http_request(extauthz::ask::http(check, question)) else {
                    return Heard::Nothing("the path is none with the prefix".to_owned());
                };
                match call(request, false, MAX_BODY).await {
                    Ok(reply) => extauthz::read::http(check, reply.status, &reply.headers, reply.body),
                    Err(why) => return Heard::Nothing(why),
                }
            }
            (ProviderKind::Grpc, question) => {
                let message = extauthz::ask::grpc(&self.connection(), question);
                let Some(request) = grpc_request(message, provider) else {
                    return Heard::Nothing("its name is no authority".to_owned());
                };
                match call(request, true, extauthz::MAX_MESSAGE).await {
                    Ok(reply) => match grpc_failure(&reply) {
                        None => extauthz::read::grpc(&reply.body),
                        Some(why) => return Heard::Nothing(why),
                    },
                    Err(why) => return Heard::Nothing(why),
                }
            }
        };
        match read {
            Ok(answer) => Heard::Answer(answer),
            Err(error) => Heard::Nothing(error.to_string()),
        }
    }

    fn connection(&self) -> Connection<'_> {
        let mutual = self.caller.peer.is_some();
        Connection {
            source: Party {
                address: self.caller.address,
                identity: self.caller.peer.as_ref().map(identity::PeerIdentity::id),
            },
            destination: Party {
                address: self.callee.address,
                identity: self.callee.local.identity.as_ref().filter(|_| mutual),
            },
        }
    }
}

fn http_request(question: extauthz::HttpQuestion) -> Option<Request> {
    let body = if question.body.is_empty() {
        Body::empty()
    } else {
        Body::from(question.body)
    };
    let mut request = Request::new(body);
    *request.method_mut() = question.method;
    *request.uri_mut() = question.path.parse().ok()?;
    *request.headers_mut() = question.headers;
    Some(request)
}

fn grpc_request(message: bytes::Bytes, provider: &Provider) -> Option<Request> {
    let authority = format!(
        "outbound_.{}_._.{}.{}",
        provider.port,
        provider.service.name(),
        provider.service.namespace()
    );
    let mut request = Request::new(Body::from(message));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = extauthz::CHECK_METHOD.parse().ok()?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::try_from(authority).ok()?);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let timeout = format!("{}m", provider.timeout_ms.min(99_999_999));
    headers.insert("grpc-timeout", HeaderValue::try_from(timeout).ok()?);
    Some(request)
}

/// Why an answer is none by gRPC's own word.
fn grpc_failure(reply: &Reply) -> Option<String> {
    if reply.status != StatusCode::OK {
        return Some(format!("HTTP status {}", reply.status.as_u16()));
    }
    let status = reply
        .trailers
        .get("grpc-status")
        .or_else(|| reply.headers.get("grpc-status"));
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => None,
        Some(code) => Some(format!("gRPC status {}", String::from_utf8_lossy(code))),
        None => Some("no gRPC status".to_owned()),
    }
}
