//! The step before policy: the tokens of a request, verified.

use std::sync::Arc;

use model::Reason;
use policy::PolicyId;

use crate::claims::Claims;
use crate::fault::{Fault, Rejection};
use crate::locations::{Found, Locations, Place, without_params};
use crate::memory::Memory;
use crate::request::{Edits, RequestView, editable, is_preflight};
use crate::rule::{Problem, Rule};
use crate::spec::{AuthenticationSpec, Jwks, RuleSpec};
use crate::token::{Token, payload_part};

/// The rules that select one workload, with their keys, compiled. Cheap to share, immutable.
#[derive(Clone, Debug, Default)]
pub struct Authenticator(Option<Arc<Compiled>>);

#[derive(Debug, Default)]
struct Compiled {
    /// Sorted by issuer.
    rules: Vec<Rule>,
    locations: Locations,
    /// Headers that only a verified token may set.
    sanitised: Vec<String>,
    /// The answer to every request, where an object is invalid or has not arrived.
    refusal: Option<Rejection>,
    problems: Vec<Problem>,
    strict: bool,
}

/// A request that may go on.
#[derive(Clone, Debug, Default)]
pub struct Authenticated {
    /// The claims of its token; `None` where it carries none.
    pub claims: Option<Arc<Claims>>,
    /// What changes before the application sees it.
    pub edits: Edits,
}

/// What was found of one token.
struct Verdict<'f> {
    found: &'f Found,
    /// `iss`, where the token could be read that far.
    issuer: Option<String>,
    outcome: Result<Accepted, (Fault, Option<usize>)>,
}

/// A good token.
struct Accepted {
    /// Index of the rule that took it.
    rule: usize,
    claims: Arc<Claims>,
}

impl Authenticator {
    /// Compiles. `missing` are objects known by name that have not arrived: everything is refused until they do.
    /// `jwks` finds the keys of a source. `strict` is semantics 4.3 OURS; without it tokens are read as Istio does.
    pub fn compile(
        specs: &[Arc<AuthenticationSpec>],
        missing: &[PolicyId],
        jwks: &dyn Fn(&str) -> Option<Arc<Jwks>>,
        strict: bool,
    ) -> Self {
        let mut sources: Vec<(&PolicyId, &RuleSpec)> = specs
            .iter()
            .flat_map(|spec| spec.rules.iter().map(|rule| (&spec.id, rule)))
            .collect();
        sources.sort_by(|(_, a), (_, b)| a.issuer.cmp(&b.issuer));
        let mut compiled = Compiled {
            strict,
            refusal: refusal(specs, missing),
            ..Compiled::default()
        };
        if sources.is_empty() && compiled.refusal.is_none() {
            return Self(None);
        }
        for (policy, spec) in &sources {
            let rule = Rule::compile(policy, spec, jwks, strict, &mut compiled.problems);
            compiled.rules.push(rule);
        }
        for rule in &compiled.rules {
            let names = rule.payload_header.iter();
            for name in names.chain(rule.claim_headers.iter().map(|(name, _)| name)) {
                insert(&mut compiled.sanitised, name);
            }
        }
        compiled.locations = Locations::of(sources.iter().map(|(_, spec)| *spec), strict);
        Self(Some(Arc::new(compiled)))
    }

    /// Whether no rule selects the workload: every request passes, with nothing proven.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// What is wrong with rules and keys, in the order of the rules.
    pub fn problems(&self) -> &[Problem] {
        self.0.as_ref().map_or(&[], |compiled| &compiled.problems)
    }

    /// Verifies the tokens of a request. `now` is in seconds since 1970.
    ///
    /// A request without a token passes with nothing proven (P56), unless a rule demands one, and so does a CORS preflight, whose tokens are not
    /// looked at (R26, JW-04): authorization then decides both without identity. Of several tokens each must be good; the
    /// claims are those of the first rule, by issuer, that took all tokens of its places.
    ///
    /// # Errors
    /// The request must be answered with the rejection.
    pub fn authenticate(
        &self,
        request: &dyn RequestView,
        now: u64,
        memory: &Memory,
    ) -> Result<Authenticated, Rejection> {
        self.0.as_ref().map_or_else(
            || Ok(Authenticated::default()),
            |compiled| compiled.authenticate(request, now, memory),
        )
    }
}

impl Compiled {
    fn authenticate(
        &self,
        request: &dyn RequestView,
        now: u64,
        memory: &Memory,
    ) -> Result<Authenticated, Rejection> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let mut answer = Authenticated::default();
        answer.edits.remove.clone_from(&self.sanitised);
        if is_preflight(request) {
            return Ok(answer);
        }
        let found = self.locations.find(request);
        let found = found.map_err(|fault| Rejection::token(fault, None, self.strict))?;
        let verdicts: Vec<Verdict<'_>> = found.iter().map(|f| self.judge(f, now, memory)).collect();
        if verdicts.iter().any(|verdict| verdict.outcome.is_err()) {
            return Err(self.rejection(&verdicts));
        }
        if let Some(refused) = self.demanded(&verdicts, now, memory) {
            return Err(refused);
        }
        if verdicts.is_empty() {
            return Ok(answer);
        }
        let taken = |(index, rule)| Some((rule, self.taken_by(index, &verdicts, now, memory)?));
        let Some((rule, (found, claims))) = self.rules.iter().enumerate().find_map(taken) else {
            return Err(Rejection::token(Fault::Issuer, None, self.strict));
        };
        answer.edits.set = output(rule, found, &claims);
        self.strip(&verdicts, request.path(), &mut answer.edits);
        answer.claims = Some(claims);
        Ok(answer)
    }

    /// Judges one token, by memory where that can only say what verifying would.
    fn judge<'f>(&self, found: &'f Found, now: u64, memory: &Memory) -> Verdict<'f> {
        let verdict = |issuer, outcome| Verdict {
            found,
            issuer,
            outcome,
        };
        let text = match &found.text {
            Ok(text) => text,
            Err(fault) => return verdict(None, Err((*fault, None))),
        };
        let rules = self.locations.get(found.location).map_or(&[][..], |l| &l.rules);
        let rule_at = |index: &usize| self.rules.get(*index).map(|rule| (*index, rule));
        let mut earlier: Vec<&Rule> = Vec::new();
        for (index, rule) in rules.iter().filter_map(rule_at) {
            // Where an earlier rule might take the token, it is asked first.
            let first = !earlier.iter().any(|other| other.overlaps(rule));
            if first && let Some(claims) = memory.find(&Memory::key(&rule.fingerprint, text), now) {
                return verdict(
                    Some(claims.issuer().to_owned()),
                    Ok(Accepted { rule: index, claims }),
                );
            }
            earlier.push(rule);
        }
        let token = match Token::parse(text, self.strict) {
            Ok(token) => token,
            Err(fault) => return verdict(None, Err((fault, None))),
        };
        let issuer = token.issuer().to_owned();
        let mut refused = (Fault::Issuer, None);
        for (index, rule) in rules.iter().filter_map(rule_at) {
            match verify(rule, &token, text, now, memory) {
                Some(Ok(claims)) => return verdict(Some(issuer), Ok(Accepted { rule: index, claims })),
                Some(Err(fault)) if refused.1.is_none() => refused = (fault, Some(index)),
                Some(Err(_)) | None => {}
            }
        }
        verdict(Some(issuer), Err(refused))
    }

    /// The rule's first token and its claims, where the rule takes all tokens of its places and there is one: what Envoy
    /// demands of at least one rule. So tokens of several issuers cannot stand where several rules read.
    fn taken_by<'v>(
        &self,
        index: usize,
        verdicts: &'v [Verdict<'_>],
        now: u64,
        memory: &Memory,
    ) -> Option<(&'v Found, Arc<Claims>)> {
        let rule = self.rules.get(index)?;
        let mut first = None;
        for verdict in verdicts.iter().filter(|verdict| self.reads(index, verdict)) {
            let accepted = verdict.outcome.as_ref().ok()?;
            let claims = if accepted.rule == index {
                Arc::clone(&accepted.claims)
            } else {
                // Another rule was asked first; this one may take it as well.
                let text = verdict.found.text.as_ref().ok()?;
                let token = Token::parse(text, self.strict).ok()?;
                verify(rule, &token, text, now, memory)?.ok()?
            };
            first = first.or(Some((verdict.found, claims)));
        }
        first
    }

    /// Why a request is refused whose tokens are all good: a rule demands one of its own (`presence: REQUIRED`), and at its
    /// places there is none, or one of another issuer. What is at another rule's places does not stand in for it.
    fn demanded(&self, verdicts: &[Verdict<'_>], now: u64, memory: &Memory) -> Option<Rejection> {
        let demands = |(index, rule): (usize, &Rule)| {
            (rule.required && self.taken_by(index, verdicts, now, memory).is_none()).then_some(index)
        };
        let index = self.rules.iter().enumerate().find_map(demands)?;
        let shown = verdicts.iter().any(|verdict| self.reads(index, verdict));
        let fault = if shown { Fault::Issuer } else { Fault::Missing };
        let issuer = self.rules.get(index).map(|rule| rule.issuer.clone());
        Some(Rejection::token(
            fault,
            issuer.filter(|issuer| !issuer.is_empty()),
            self.strict,
        ))
    }

    fn reads(&self, rule: usize, verdict: &Verdict<'_>) -> bool {
        let location = self.locations.get(verdict.found.location);
        location.is_some_and(|location| location.rules.contains(&rule))
    }

    /// What is answered where a token is bad. Envoy goes through the tokens from the last to the first; of several rules
    /// the first that does not take all tokens of its places tells its reason. In strict mode it is the true reason.
    fn rejection(&self, verdicts: &[Verdict<'_>]) -> Rejection {
        let failed = |verdict: &Verdict<'_>| match &verdict.outcome {
            Err((fault, rule)) => Some((*fault, *rule)),
            Ok(_) => None,
        };
        let mut told = verdicts.iter().rev().find_map(failed);
        if !self.strict {
            let of_rule = |(index, rule): (usize, &Rule)| {
                let mut here = verdicts.iter().rev().filter(|v| self.reads(index, v)).peekable();
                if rule.required && here.peek().is_none() {
                    return Some((Fault::Missing, Some(index)));
                }
                here.find_map(|verdict| match &verdict.issuer {
                    Some(issuer) if !rule.is_for(issuer) => Some((Fault::Issuer, None)),
                    _ => failed(verdict),
                })
            };
            told = self.rules.iter().enumerate().find_map(of_rule).or(told);
        }
        let (fault, rule) = told.unwrap_or((Fault::Verification, None));
        let issuer = rule
            .and_then(|rule| self.rules.get(rule))
            .map(|rule| rule.issuer.clone());
        Rejection::token(fault, issuer.filter(|issuer| !issuer.is_empty()), self.strict)
    }

    /// Takes the tokens out, unless their rule forwards them. Cookies stay (semantics 4.1).
    fn strip(&self, verdicts: &[Verdict<'_>], path: &str, edits: &mut Edits) {
        let mut params = Vec::new();
        for verdict in verdicts {
            let rule = verdict.outcome.as_ref().ok().and_then(|a| self.rules.get(a.rule));
            if rule.is_none_or(|rule| rule.forward) {
                continue;
            }
            match self.locations.get(verdict.found.location).map(|l| &l.place) {
                Some(Place::Header { name, .. }) => {
                    if let Some(name) = editable(name) {
                        insert(&mut edits.remove, &name);
                    }
                }
                Some(Place::Param(name)) => params.push(name.as_str()),
                Some(Place::Cookie(_)) | None => {}
            }
        }
        if !params.is_empty() {
            edits.path = Some(without_params(path, &params));
        }
    }
}

/// Verifies a token by a rule and remembers it; `None` where the rule is for other issuers.
fn verify(
    rule: &Rule,
    token: &Token<'_>,
    text: &str,
    now: u64,
    memory: &Memory,
) -> Option<Result<Arc<Claims>, Fault>> {
    if !rule.is_for(token.issuer()) {
        return None;
    }
    if let Err(fault) = rule.verify(token, now, memory) {
        return Some(Err(fault));
    }
    let claims = Arc::new(Claims::new(token.payload.clone(), &rule.delimited));
    let key = Memory::key(&rule.fingerprint, text);
    memory.remember(&key, text.len(), now, (token.not_before, token.expires), &claims);
    Some(Ok(claims))
}

/// The headers that the rule's token sets, each once.
fn output(rule: &Rule, found: &Found, claims: &Claims) -> Vec<(String, String)> {
    let mut set: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: String| {
        if !set.iter().any(|(known, _)| known == name) {
            set.push((name.to_owned(), value));
        }
    };
    if let (Some(name), Ok(text)) = (&rule.payload_header, &found.text) {
        add(name, payload_part(text).to_owned());
    }
    for (name, path) in &rule.claim_headers {
        if let Some(value) = claims.header_value(path) {
            add(name, value);
        }
    }
    set
}

/// The answer to everything, where an object cannot be followed.
fn refusal(specs: &[Arc<AuthenticationSpec>], missing: &[PolicyId]) -> Option<Rejection> {
    let invalid = specs
        .iter()
        .find_map(|spec| Some((spec.id.clone(), spec.invalid.as_ref()?.reason)));
    let absent = || Some((missing.first()?.clone(), Reason::DenyPolicyMissing));
    invalid
        .or_else(absent)
        .map(|(id, reason)| Rejection::policy(id, reason))
}

fn insert(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}
