//! The walk of one connection or request, as a proxy makes it: capture, mutual TLS, path, policy.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use model::{MtlsMode, Reason, SpiffeId};
use policy::path::Mode;
use policy::{
    Claim, ClaimLookup, Denial, Explanation, External, ExternalAnswer, Facts, HeaderLookup, HttpFacts,
    Permit, PolicySet,
};
use serde_json::Value;
use snapshot::{Inbound, Mesh, PathNormalization};

use crate::answer::{Answer, ByPolicy, Decision, NearMiss, Path, Step};
use crate::question::{Question, Speaks};
use crate::world::{Found, Offline};

/// An address of which nothing is known (RFC 5737).
const SOMEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// What an external authorizer is taken to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Custom {
    /// It admits everything.
    Allow,
    /// It refuses everything.
    Deny,
    /// It is not known: a decision that hangs on it is unknown.
    Unknown,
}

/// What external authorizers are taken to say, by name; one that is not there is unknown.
pub type Providers = BTreeMap<String, Custom>;

impl Offline {
    /// Answers a question. `walk` asks for the steps in sentences, which costs.
    pub fn ask(&self, question: &Question, providers: &Providers, walk: bool) -> Answer {
        let found = match self.find(&question.to) {
            Ok(found) => found,
            Err(unknown) => return unknown_answer(question, unknown.to_string()),
        };
        let mut answer = Draft::new(question, walk);
        let Some(inbound) = &found.workload.inbound else {
            answer.step("capture", || {
                format!(
                    "{} is outside the mesh: no proxy stands before it, nothing is refused",
                    found.workload.pod
                )
            });
            return answer.allow("NOT_IN_MESH", 200, None);
        };
        answer.step("capture", || {
            format!(
                "{} is in the mesh: everything that comes in goes through its node's proxy",
                found.workload.pod
            )
        });
        self.walk(question, &found, inbound, providers, answer)
    }

    fn walk(
        &self,
        question: &Question,
        found: &Found,
        inbound: &Inbound,
        providers: &Providers,
        mut answer: Draft<'_>,
    ) -> Answer {
        let mesh = self.index.mesh();
        let (mode, protocol) = inbound.port(found.port);
        let identity = match identity(question, mesh) {
            Ok(identity) => identity,
            Err(why) => return answer.unknown(why),
        };
        // A mesh client does not send mutual TLS where the port says that it takes none (CM-03).
        let peer = identity.filter(|_| !question.plaintext && mode != MtlsMode::Disable);
        let decided_by = inbound.mtls_decided_by.as_deref();
        answer.step("tls", || match (&peer, mode) {
            (Some(id), _) => format!(
                "mutual TLS proves {id}; port {} is {mode}{}",
                found.port,
                by(decided_by)
            ),
            (None, MtlsMode::Strict) => {
                format!(
                    "plaintext to port {}, which is STRICT{}",
                    found.port,
                    by(decided_by)
                )
            }
            (None, _) => format!("plaintext to port {}, which is {mode}: no identity", found.port),
        });
        if peer.is_none() && mode == MtlsMode::Strict {
            let policy = decided_by.map(|name| self.peer_authentication(name));
            return answer.deny(Reason::PlaintextRefused, 0, policy);
        }
        let http = match question.protocol {
            _ if protocol.is_opaque() => false,
            Some(speaks) => speaks == Speaks::Http,
            None => protocol.is_http() || question.looks_like_http(),
        };
        let received = question.path.as_deref().unwrap_or("/");
        let normalized = if http {
            let result = normalize(received, mesh);
            answer.path(received, result.as_deref().unwrap_or_default());
            match result {
                Ok(path) => path,
                Err(why) => {
                    answer.step("path", || format!("`{received}` is refused: {why}"));
                    return answer.deny(Reason::PathRefused, 400, None);
                }
            }
        } else {
            String::new()
        };
        let Some(set) = self.index.policies(&found.workload.uid) else {
            return answer.deny(Reason::NotReady, if http { 503 } else { 0 }, None);
        };
        let sni = self.sni(question, found, peer.is_some());
        let headers = Headers(&question.headers);
        let claims = question.claims.as_ref().map(Claims);
        let host = question.host.clone().unwrap_or_else(|| default_host(question));
        let source_ip = question.source_ip.unwrap_or(SOMEWHERE);
        let facts = Facts {
            peer: peer.as_ref(),
            source_ip,
            remote_ip: question.remote_ip.unwrap_or(source_ip),
            destination_ip: found.workload.addresses.first().copied().unwrap_or(SOMEWHERE),
            destination_port: found.port,
            sni: sni.as_deref(),
            http: http.then(|| HttpFacts {
                method: question.method.as_deref().unwrap_or("GET"),
                authority: &host,
                path: &normalized,
                headers: &headers,
                claims: claims.as_ref().map(|c| c as &dyn ClaimLookup),
            }),
        };
        if question.token.is_some() && question.claims.is_none() {
            return answer.unknown("the token is not verified here: give its `claims`".to_owned());
        }
        self.decide(&facts, set, providers, answer)
    }

    fn decide(
        &self,
        facts: &Facts<'_>,
        set: &PolicySet,
        providers: &Providers,
        mut answer: Draft<'_>,
    ) -> Answer {
        let http = facts.http.is_some();
        let known = |unknown| policy::authorize_with(facts, set, &Taken { providers, unknown });
        let permitted = known(ExternalAnswer::Allow);
        if providers.values().any(|c| *c == Custom::Unknown) || permitted.is_ok() {
            // Where the answer hangs on somebody whose answer is not known, so does the decision.
            let refused = known(ExternalAnswer::Deny);
            if permitted.is_ok() != refused.is_ok() {
                return answer
                    .unknown("it depends on what an external authorizer says: give --custom".to_owned());
            }
        }
        if answer.walk {
            answer.explain(&policy::explain(facts, set));
        }
        match permitted {
            Ok(permit) => {
                let policy = self.admitted(&permit);
                answer.allow("ALLOW", if http { 200 } else { 0 }, policy)
            }
            Err(denial) => {
                if denial.policy().is_none() && !answer.walk {
                    answer.near(&policy::explain(facts, set));
                }
                let policy = self.refused(&denial);
                answer.deny(denial.reason, if http { 403 } else { 0 }, policy)
            }
        }
    }

    fn admitted(&self, permit: &Permit) -> Option<ByPolicy> {
        let spec = permit.spec()?;
        Some(by_policy(spec, permit.rule()))
    }

    fn refused(&self, denial: &Denial) -> Option<ByPolicy> {
        match denial.spec() {
            Some(spec) => Some(by_policy(spec, denial.rule)),
            None => denial.policy().map(|id| ByPolicy {
                kind: "AuthorizationPolicy",
                namespace: id.namespace.clone(),
                name: id.name.clone(),
                rule: None,
                file: String::new(),
                line: 0,
            }),
        }
    }

    fn peer_authentication(&self, name: &str) -> ByPolicy {
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        let (file, line) = self.origin("PeerAuthentication", namespace, name);
        ByPolicy {
            kind: "PeerAuthentication",
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            rule: None,
            file,
            line,
        }
    }

    /// The name that a mesh client's handshake asks for (CM-13).
    fn sni(&self, question: &Question, found: &Found, mutual: bool) -> Option<String> {
        if question.sni.is_some() || !mutual {
            return question.sni.clone();
        }
        let service = self.index.service(found.service.as_ref()?)?;
        Some(format!("outbound_.{}_._.{}", question.to.port, service.host))
    }
}

fn by_policy(spec: &policy::PolicySpec, rule: Option<usize>) -> ByPolicy {
    let line = rule
        .and_then(|rule| spec.rules.get(rule))
        .map(|r| r.line)
        .filter(|line| *line > 0);
    ByPolicy {
        kind: "AuthorizationPolicy",
        namespace: spec.id.namespace.clone(),
        name: spec.id.name.clone(),
        rule,
        file: spec.origin.file.clone(),
        line: line.unwrap_or(spec.origin.line),
    }
}

fn by(object: Option<&str>) -> String {
    object
        .map(|name| format!(" by PeerAuthentication {name}"))
        .unwrap_or_default()
}

fn default_host(question: &Question) -> String {
    let to = &question.to;
    match &to.service {
        Some(service) => format!("{service}.{}:{}", to.namespace, to.port),
        None => String::new(),
    }
}

fn identity(question: &Question, mesh: &Mesh) -> Result<Option<SpiffeId>, String> {
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

fn normalize(path: &str, mesh: &Mesh) -> Result<String, String> {
    if mesh.strict_paths {
        policy::path::strict_check(path.as_bytes()).map_err(|e| e.to_string())?;
    }
    let mode = match mesh.path_normalization {
        PathNormalization::None => Mode::None,
        PathNormalization::Base => Mode::Base,
        PathNormalization::MergeSlashes => Mode::MergeSlashes,
        PathNormalization::DecodeAndMergeSlashes => Mode::DecodeAndMergeSlashes,
    };
    let normal = policy::path::normalize(path.as_bytes(), mode).map_err(|e| e.to_string())?;
    Ok(normal.into_owned())
}

/// What external authorizers are taken to say, and what those say of whom nothing is known.
struct Taken<'p> {
    providers: &'p Providers,
    unknown: ExternalAnswer,
}

impl External for Taken<'_> {
    fn answer(&self, provider: &str) -> ExternalAnswer {
        match self.providers.get(provider) {
            Some(Custom::Allow) => ExternalAnswer::Allow,
            Some(Custom::Deny) => ExternalAnswer::Deny,
            Some(Custom::Unknown) | None => self.unknown,
        }
    }
}

struct Headers<'q>(&'q BTreeMap<String, Vec<String>>);

impl HeaderLookup for Headers<'_> {
    fn any(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let fields = self.0.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        fields
            .flat_map(|(_, values)| values)
            .any(|value| visit(value.as_bytes()))
    }
}

struct Claims<'q>(&'q Value);

impl ClaimLookup for Claims<'_> {
    fn any(&self, path: &[String], visit: &mut dyn FnMut(Claim<'_>) -> bool) -> bool {
        let mut at = self.0;
        for key in path {
            match at.get(key) {
                Some(next) => at = next,
                None => return false,
            }
        }
        let mut one = |value: &Value| match value {
            Value::String(text) => visit(Claim::Text(text)),
            Value::Number(_) | Value::Bool(_) => visit(Claim::Scalar(&value.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        };
        match at {
            Value::Array(items) => items.iter().any(one),
            other => one(other),
        }
    }
}

/// An answer while it is made.
struct Draft<'q> {
    question: &'q Question,
    walk: bool,
    steps: Vec<Step>,
    path: Option<Path>,
    near: Option<NearMiss>,
}

impl<'q> Draft<'q> {
    fn new(question: &'q Question, walk: bool) -> Self {
        Self {
            question,
            walk,
            steps: Vec::new(),
            path: None,
            near: None,
        }
    }

    fn step(&mut self, stage: &'static str, said: impl FnOnce() -> String) {
        if self.walk {
            self.steps.push(Step { stage, said: said() });
        }
    }

    fn path(&mut self, received: &str, normalized: &str) {
        self.path = Some(Path {
            received: received.to_owned(),
            normalized: normalized.to_owned(),
        });
    }

    fn explain(&mut self, explanation: &Explanation) {
        if let [own, others @ ..] = explanation.readings.as_slice()
            && !others.is_empty()
        {
            self.steps.push(Step {
                stage: "path",
                said: format!(
                    "the backend may read `{own}` as `{}`: every reading is judged",
                    others.join("`, `")
                ),
            });
        }
        for step in &explanation.steps {
            let stage = match step.action {
                policy::Action::Allow => "allow",
                policy::Action::Deny => "deny",
                policy::Action::Audit => "audit",
                policy::Action::Ceiling => "ceiling",
                policy::Action::Custom { .. } => "custom",
            };
            let rule = step.rule.map(|rule| format!(" rule {rule}")).unwrap_or_default();
            let matched = if step.matched { "matches" } else { "does not match" };
            let dry = if step.dry_run { " (dry run)" } else { "" };
            self.steps.push(Step {
                stage,
                said: format!("{}{rule}{dry} {matched}: {}", step.policy, step.why),
            });
        }
        self.near(explanation);
    }

    fn near(&mut self, explanation: &Explanation) {
        self.near = explanation.near_miss.as_ref().map(|near| NearMiss {
            namespace: near.policy.namespace.clone(),
            name: near.policy.name.clone(),
            rule: near.rule,
            failed: near.failed.clone(),
        });
    }

    fn allow(self, reason: &str, code: u16, policy: Option<ByPolicy>) -> Answer {
        self.finish(Decision::Allow, reason, code, policy)
    }

    fn deny(self, reason: Reason, code: u16, policy: Option<ByPolicy>) -> Answer {
        self.finish(Decision::Deny, reason.as_str(), code, policy)
    }

    fn unknown(self, why: String) -> Answer {
        Answer {
            reason: why,
            ..self.finish(Decision::Unknown, "", 0, None)
        }
    }

    fn finish(self, decision: Decision, reason: &str, code: u16, policy: Option<ByPolicy>) -> Answer {
        Answer {
            id: self.question.id.clone(),
            decision,
            code,
            reason: reason.to_owned(),
            policy,
            path: self.path,
            near_miss: self.near.filter(|_| decision == Decision::Deny),
            steps: self.steps,
        }
    }
}

fn unknown_answer(question: &Question, why: String) -> Answer {
    Draft::new(question, false).unknown(why)
}
