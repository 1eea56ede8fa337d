//! The walk of one connection or request, as a proxy makes it: capture, mutual TLS, path, token, policy.

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};

use model::{MtlsMode, Profile, Reason, SpiffeId};
use policy::{Denial, External, ExternalAnswer, Facts, HttpFacts, Permit, PolicySet};
use snapshot::{Inbound, Mesh};

use crate::answer::{Answer, ByPolicy, Replica, place};
use crate::draft::Draft;
use crate::facts::{Fields, forwarded_for};
use crate::known::{Found, Known};
use crate::question::{Custom, Providers, Question, Speaks};
use crate::token::{self, Arrived, NoProof, Proof};
use crate::world::Offline;

/// An address of which nothing is known (RFC 5737).
const SOMEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

impl Offline {
    /// Answers a question. `walk` asks for the steps in sentences, which costs.
    pub fn ask(&self, question: &Question<'_>, providers: &Providers, walk: bool) -> Answer {
        self.answer(question, providers, walk, self.stand_in(&question.to))
    }
}

impl Known {
    /// Answers a question whose target is no set of labels. `walk` asks for the steps in sentences, which costs.
    pub fn ask(&self, question: &Question<'_>, providers: &Providers, walk: bool) -> Answer {
        self.answer(question, providers, walk, None)
    }

    pub(crate) fn answer(
        &self,
        question: &Question<'_>,
        providers: &Providers,
        walk: bool,
        stand_in: Option<&str>,
    ) -> Answer {
        let found = match self.find(&question.to, stand_in) {
            Ok(found) => found,
            Err(unknown) => return Answer::unknown(question.id.clone(), unknown.to_string()),
        };
        let one = |found: &Found| self.of_replica(question, found, providers, walk);
        match found.as_slice() {
            [] => Answer::unknown(question.id.clone(), "the target is not known"),
            [found] => one(found),
            many => together(question, many.iter().map(|found| (*found, one(found))).collect()),
        }
    }

    fn of_replica(
        &self,
        question: &Question<'_>,
        found: &Found,
        providers: &Providers,
        walk: bool,
    ) -> Answer {
        let mut answer = Draft::new(question, walk);
        let pod = &found.workload.pod;
        let (Some(inbound), Some(set)) = (&found.workload.inbound, &found.policies) else {
            if found.workload.identity.is_some() {
                return answer.unknown(format!(
                    "{pod} is in the mesh on no node that is known, or stands behind a proxy that is none of ours"
                ));
            }
            answer.step("capture", || {
                format!("{pod} is outside the mesh: no proxy stands before it, nothing is refused")
            });
            let http = question.protocol != Some(Speaks::Tcp) && question.looks_like_http();
            if http {
                let path = received(question);
                answer.path(path, path);
            }
            return answer.allow("NOT_IN_MESH", if http { 200 } else { 0 }, None);
        };
        answer.step("capture", || {
            let assumed = self.assumed.contains(pod.namespace());
            let pod = match question.to.workload.is_none() && question.to.service.is_none() {
                true => format!("a workload with these labels in {}", pod.namespace()),
                false => pod.to_string(),
            };
            let taken = if assumed {
                "taken to be in the mesh, as no file declares its namespace"
            } else {
                "in the mesh"
            };
            format!("{pod} is {taken}: everything that comes in goes through its node's proxy")
        });
        self.walk(question, found, (inbound, set), providers, answer)
    }

    fn walk(
        &self,
        question: &Question<'_>,
        found: &Found,
        (inbound, set): (&Inbound, &PolicySet),
        providers: &Providers,
        mut answer: Draft<'_>,
    ) -> Answer {
        let mesh = &*self.mesh;
        let Some(port) = port(question, found, inbound) else {
            return answer.unknown(format!("say which port of {} is meant", found.workload.pod));
        };
        let (mode, protocol) = inbound.port(port);
        let identity = match identity(question, mesh) {
            Ok(identity) => identity,
            Err(why) => return answer.unknown(why),
        };
        // A mesh client does not send mutual TLS where the port says that it takes none (CM-03).
        let peer = identity.filter(|_| !question.plaintext && mode != MtlsMode::Disable);
        let decided_by = inbound.mtls_decided_by.as_deref();
        self.tls_step(&mut answer, peer.as_ref(), (port, mode), decided_by);
        if peer.is_none() && mode == MtlsMode::Strict {
            if question.looks_like_http() {
                let path = received(question);
                answer.path(path, &normalize(path, mesh).unwrap_or_default());
            }
            let policy = decided_by.map(|name| self.mode_decider(name));
            return answer.deny(Reason::PlaintextRefused, 0, policy);
        }
        if protocol.is_http() && question.protocol == Some(Speaks::Tcp) {
            answer.step("path", || {
                format!("port {port} is declared as HTTP, and what is not HTTP is refused")
            });
            return answer.deny(Reason::ProtocolError, 400, None);
        }
        let http = match question.protocol {
            _ if protocol.is_opaque() => false,
            Some(speaks) => speaks == Speaks::Http,
            None => protocol.is_http() || question.looks_like_http(),
        };
        let seen = Seen {
            found,
            set,
            peer,
            port,
            http,
        };
        self.ask_policies(question, &seen, providers, answer)
    }

    /// What comes after the handshake: path, token, policies.
    fn ask_policies(
        &self,
        question: &Question<'_>,
        seen: &Seen<'_>,
        providers: &Providers,
        mut answer: Draft<'_>,
    ) -> Answer {
        let mesh = &*self.mesh;
        let Seen {
            found, peer, http, ..
        } = seen;
        let http = *http;
        let method = question.method.as_deref().unwrap_or("GET");
        let path = match http.then(|| self.path(question, method, &mut answer)) {
            None => Cow::Borrowed(""),
            Some(Ok(path)) => path,
            Some(Err((reason, code))) => return answer.deny(reason, code, None),
        };
        let sni = sni(question, found, peer.is_some());
        let own = found.workload.identity.as_ref();
        let mut headers = Fields::new(&question.headers, mesh, peer.as_ref(), own);
        let host = match &question.host {
            Some(host) => Cow::Borrowed(&**host),
            None => Cow::Owned(default_host(question, found)),
        };
        let arrived = Arrived {
            question,
            method,
            path: &path,
            host: &host,
            fields: &headers,
        };
        let (proof, edits) = match http.then(|| token::prove(found, &arrived)) {
            None => {
                answer.step("jwt", || {
                    "the connection is not read: it carries no token".to_owned()
                });
                (Proof::Nothing, jwt::Edits::default())
            }
            Some(Ok((proof, edits))) => {
                answer.step("jwt", || proof.said(question.token.is_some()));
                (proof, edits)
            }
            Some(Err(NoProof::Refused(rejection))) => {
                answer.step("jwt", || format!("the token is refused: {}", rejection.text));
                return answer.deny(rejection.reason(), rejection.status, None);
            }
            Some(Err(NoProof::Unknown(why))) => {
                answer.step("jwt", || why.clone());
                return answer.unknown(why);
            }
        };
        let path = edits.path.clone().map_or_else(|| path.clone(), Cow::Owned);
        headers.edit(edits);
        let source_ip = question.source_ip.map_or(SOMEWHERE, model::canonical_ip);
        let believed = || {
            (mesh.profile == Profile::Istio && http)
                .then(|| forwarded_for(&question.headers))
                .flatten()
        };
        let remote_ip = question.remote_ip.map(model::canonical_ip).or_else(believed);
        let first = || found.workload.addresses.first().copied();
        let facts = Facts {
            peer: peer.as_ref(),
            source_ip,
            remote_ip: remote_ip.unwrap_or(source_ip),
            destination_ip: question
                .to
                .ip
                .map(model::canonical_ip)
                .or_else(first)
                .unwrap_or(SOMEWHERE),
            destination_port: seen.port,
            sni: sni.as_deref(),
            http: http.then(|| HttpFacts {
                method,
                authority: &host,
                path: &path,
                headers: &headers,
                claims: proof.lookup(),
            }),
        };
        self.decide(&facts, seen.set, providers, answer)
    }

    fn tls_step(
        &self,
        answer: &mut Draft<'_>,
        peer: Option<&SpiffeId>,
        (port, mode): (u16, MtlsMode),
        decided_by: Option<&str>,
    ) {
        let by = || {
            decided_by
                .map(|name| {
                    let (kind, namespace, name) = decider(name);
                    format!(" by {kind} {namespace}/{name}")
                })
                .unwrap_or_default()
        };
        let at = decided_by.map(|name| self.mode_decider(name));
        let at = at.and_then(|policy| place(&policy.file, policy.line));
        answer.step_at("tls", at, || match (peer, mode) {
            (Some(id), _) => format!("mutual TLS proves {id}; port {port} is {mode}{}", by()),
            (None, MtlsMode::Strict) => format!("plaintext to port {port}, which is STRICT{}", by()),
            (None, _) => format!("plaintext to port {port}, which is {mode}{}: no identity", by()),
        });
    }

    /// The path as routing and decisions see it, or why the request comes no further.
    fn path<'q>(
        &self,
        question: &'q Question<'_>,
        method: &str,
        answer: &mut Draft<'_>,
    ) -> Result<Cow<'q, str>, (Reason, u16)> {
        let received = received(question);
        if method == "CONNECT" {
            answer.path(received, "");
            answer.step("path", || "CONNECT is refused before any policy".to_owned());
            return Err((Reason::MethodRefused, 404));
        }
        match normalize(received, &self.mesh) {
            Ok(path) => {
                answer.path(received, &path);
                answer.step("path", || match path == received {
                    true => format!("`{path}` stays as it is"),
                    false => format!("`{received}` becomes `{path}`"),
                });
                Ok(path)
            }
            Err(why) => {
                answer.path(received, "");
                answer.step("path", || format!("`{received}` is refused: {why}"));
                Err((Reason::PathRefused, 400))
            }
        }
    }

    fn decide(
        &self,
        facts: &Facts<'_>,
        set: &PolicySet,
        providers: &Providers,
        mut answer: Draft<'_>,
    ) -> Answer {
        let http = facts.http.is_some();
        let taken = |unknown| Taken {
            providers,
            unknown,
            asked: RefCell::default(),
        };
        let admitting = taken(ExternalAnswer::Allow);
        let decided = policy::authorize_with(facts, set, &admitting);
        if answer.walk {
            answer.explain(
                self,
                &policy::explain_with(facts, set, &admitting),
                set,
                providers,
            );
        }
        if let Some(provider) = admitting.asked.take() {
            // Where the answer hangs on somebody whose answer is not known, so does the decision.
            let refusing = policy::authorize_with(facts, set, &taken(ExternalAnswer::Deny));
            if decided.is_ok() != refusing.is_ok() {
                return answer.unknown(format!(
                    "it depends on what the external authorizer `{provider}` says: give `--custom {provider}=allow|deny`"
                ));
            }
        }
        match decided {
            Ok(permit) => {
                let policy = admitted(&permit);
                answer.allow("ALLOW", if http { 200 } else { 0 }, policy)
            }
            Err(denial) => {
                if denial.reason == Reason::DenyNoAllow && !answer.walk {
                    answer.near(self, policy::near_miss(facts, set).as_ref());
                }
                let policy = refused(&denial);
                answer.deny(denial.reason, if http { 403 } else { 0 }, policy)
            }
        }
    }

    fn mode_decider(&self, name: &str) -> ByPolicy {
        let (kind, namespace, name) = decider(name);
        let (file, line) = self.origin(kind, namespace, name);
        ByPolicy {
            kind: Cow::Borrowed(kind),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            rule: None,
            file,
            line,
        }
    }
}

/// Kind, namespace and name of the object that decides a mode: see [`Inbound::mtls_decided_by`].
pub(crate) fn decider(name: &str) -> (&'static str, &str, &str) {
    let (kind, rest) = match name.strip_prefix("Guardrail/") {
        Some(rest) => ("Guardrail", rest),
        None => ("PeerAuthentication", name),
    };
    let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
    (kind, namespace, name)
}

/// What is known of a call once its handshake is made.
struct Seen<'f> {
    found: &'f Found,
    set: &'f PolicySet,
    peer: Option<SpiffeId>,
    port: u16,
    http: bool,
}

/// One answer where all replicas agree; where they do not, none, and what each kind of them says.
fn together(question: &Question<'_>, answers: Vec<(&Found, Answer)>) -> Answer {
    let same = answers.windows(2).all(|pair| match pair {
        [(_, a), (_, b)] => a.decision == b.decision,
        _ => true,
    });
    let differ = |same: bool| {
        let kinds = answers.iter().map(|(found, answer)| Replica {
            pods: found.pods.clone(),
            count: found.count,
            decision: answer.decision,
            reason: answer.reason.clone(),
            policies: found
                .policies
                .iter()
                .flat_map(|set| set.names().map(ToString::to_string))
                .collect(),
        });
        if same { Vec::new() } else { kinds.collect() }
    };
    let replicas = differ(same);
    match answers.into_iter().next() {
        Some((_, first)) if same => first,
        Some((_, first)) => Answer {
            steps: first.steps,
            replicas,
            path: first.path,
            ..Answer::unknown(question.id.clone(), "its replicas decide differently")
        },
        None => Answer::unknown(question.id.clone(), "the target is not known"),
    }
}

/// The path as it is asked for.
fn received<'q>(question: &'q Question<'_>) -> &'q str {
    question
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/")
}

/// The workload port that is meant.
fn port(question: &Question<'_>, found: &Found, inbound: &Inbound) -> Option<u16> {
    match (found.port, question.to.port, inbound.ports.as_slice()) {
        (0, 0, [only]) => Some(only.port),
        (0, 0, _) => None,
        (0, asked, _) => Some(asked),
        (behind, ..) => Some(behind),
    }
}

fn admitted(permit: &Permit) -> Option<ByPolicy> {
    Some(by_policy(permit.spec()?, permit.rule()))
}

fn refused(denial: &Denial) -> Option<ByPolicy> {
    match denial.spec() {
        Some(spec) => Some(by_policy(spec, denial.rule)),
        None => denial.policy().map(|id| of_policy(id, None, String::new(), 0)),
    }
}

fn of_policy(id: &policy::PolicyId, rule: Option<usize>, file: String, line: u32) -> ByPolicy {
    let (kind, name) = id.object();
    ByPolicy {
        kind: Cow::Borrowed(kind),
        namespace: id.namespace.clone(),
        name: name.to_owned(),
        rule,
        file,
        line,
    }
}

fn by_policy(spec: &policy::PolicySpec, rule: Option<usize>) -> ByPolicy {
    let line = rule
        .and_then(|rule| spec.rules.get(rule))
        .map(|r| r.line)
        .filter(|line| *line > 0);
    let line = line.unwrap_or(spec.origin.line);
    of_policy(&spec.id, rule, spec.origin.file.clone(), line)
}

/// The name that a mesh client's handshake asks for (CM-13).
fn sni<'q>(question: &'q Question<'_>, found: &Found, mutual: bool) -> Option<Cow<'q, str>> {
    match (&question.sni, &found.service) {
        (Some(sni), _) => Some(Cow::Borrowed(sni)),
        (None, Some((host, port))) if mutual => Some(Cow::Owned(format!("outbound_.{port}_._.{host}"))),
        _ => None,
    }
}

fn default_host(question: &Question<'_>, found: &Found) -> String {
    let to = &question.to;
    match (&to.service, &found.service) {
        (Some(service), Some((_, 80))) => format!("{service}.{}", to.namespace),
        (Some(service), Some((_, port))) => format!("{service}.{}:{port}", to.namespace),
        _ => String::new(),
    }
}

fn identity(question: &Question<'_>, mesh: &Mesh) -> Result<Option<SpiffeId>, String> {
    let Some(from) = &question.from else {
        return Ok(None);
    };
    let trust_domain = match &from.trust_domain {
        Some(text) => text.parse().map_err(|e: model::TrustDomainError| e.to_string())?,
        None => mesh.trust_domain.clone(),
    };
    let id = SpiffeId::new(trust_domain, &from.namespace, &from.service_account);
    id.map(Some).map_err(|e| e.to_string())
}

fn normalize<'p>(path: &'p str, mesh: &Mesh) -> Result<Cow<'p, str>, policy::path::PathError> {
    if path == "*" {
        return Ok(Cow::Borrowed(path));
    }
    if mesh.strict_paths {
        policy::path::strict_check(path.as_bytes())?;
    }
    policy::path::normalize(path.as_bytes(), mesh.path_mode())
}

/// What external authorizers are taken to say, and what those say of whom nothing is known.
struct Taken<'p> {
    providers: &'p Providers,
    unknown: ExternalAnswer,
    /// One of whom nothing is known and who was asked.
    asked: RefCell<Option<String>>,
}

impl External for Taken<'_> {
    fn answer(&self, provider: &str) -> ExternalAnswer {
        match self.providers.get(provider) {
            Some(Custom::Allow) => ExternalAnswer::Allow,
            Some(Custom::Deny) => ExternalAnswer::Deny,
            Some(Custom::Unknown) | None => {
                self.asked.borrow_mut().get_or_insert_with(|| provider.to_owned());
                self.unknown
            }
        }
    }
}
