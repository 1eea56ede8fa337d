//! Refusals of late, each with the policies that decided it: an explanation is made when somebody asks for it, not before.
//!
//! What is carried costs nothing here. A refusal costs a copy of its event, and shares the rest with what decided it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use admin::verbs::{Refused, RefusedBy, RefusedRequest, Why, WhyStep};
use model::Reason;
use policy::{Action, Explanation, PolicyId, PolicySet};
use serde_json::Value;
use telemetry::{Event, EventKind, Peer};

use super::decide::{Asked, Subject};

/// Refusals that are kept.
const MAX_KEPT: usize = 1_024;
/// And how much they may hold, in bytes, as far as they do not share it with what is in force.
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// Sets of policies that are kept for their sake, in force or not.
const MAX_SETS: usize = 16;
/// What a refusal takes beside its texts, in bytes.
const FIXED: usize = 1_024;
/// How many refusals of one request are told: retries share its `x-request-id`.
const MAX_TOLD: usize = 16;
/// Header fields whose values never leave the proxy.
const SECRET: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "set-cookie"];
/// What stands for them.
const REDACTED: &str = "(not shown)";

/// What a decision was made of.
#[derive(Clone, Debug)]
pub(super) struct Decided {
    pub(super) subject: Subject,
    pub(super) remote: IpAddr,
    pub(super) asked: Option<Arc<Asked>>,
    pub(super) policies: Arc<PolicySet>,
}

#[derive(Debug)]
struct Kept {
    event: Event,
    /// `None` where no policy was asked.
    decided: Option<Decided>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Arc<Kept>>,
    bytes: usize,
    /// The policies that are kept, and by how many.
    sets: Vec<(usize, usize)>,
}

/// Refusals of late.
#[derive(Debug, Default)]
pub(crate) struct Denials(Mutex<Ring>);

impl Denials {
    /// Keeps a refusal; the oldest are forgotten for it.
    pub(super) fn keep(&self, event: Event, decided: Option<Decided>) {
        let bytes = size(&event, decided.as_ref());
        let kept = Arc::new(Kept {
            event,
            decided,
            bytes,
        });
        let mut ring = self.ring();
        ring.bytes += bytes;
        ring.hold(&kept);
        ring.kept.push_back(kept);
        while ring.kept.len() > MAX_KEPT || ring.bytes > MAX_BYTES || ring.sets.len() > MAX_SETS {
            let Some(oldest) = ring.kept.pop_front() else {
                break;
            };
            ring.bytes = ring.bytes.saturating_sub(oldest.bytes);
            ring.release(&oldest);
        }
    }

    /// Those that are asked for, explained, the newest first.
    pub(crate) fn explain(&self, wanted: &Why, node: &str) -> Vec<Refused> {
        let found: Vec<_> = {
            let ring = self.ring();
            let matching = ring.kept.iter().rev().filter(|kept| matches(wanted, &kept.event));
            let limit = if wanted.id.is_some() { MAX_TOLD } else { 1 };
            matching.take(limit).cloned().collect()
        };
        found
            .iter()
            .map(|kept| explained(&kept.event, kept.decided.as_ref(), node))
            .collect()
    }

    /// As [`Self::explain`], of what the caller's own proxy refused: no policy was asked, and the event has all there is.
    pub(crate) fn of_log<'e>(
        events: impl Iterator<Item = &'e Arc<Event>>,
        wanted: &Why,
        node: &str,
    ) -> Vec<Refused> {
        let refused = events.filter(|event| event.denied() && event.kind != EventKind::Dns);
        let found = refused.filter(|event| wanted.id.is_some() && matches(wanted, event));
        found
            .take(MAX_TOLD)
            .map(|event| explained(event, None, node))
            .collect()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn hold(&mut self, kept: &Kept) {
        let Some(set) = set_of(kept) else { return };
        match self.sets.iter_mut().find(|(known, _)| *known == set) {
            Some((_, count)) => *count += 1,
            None => self.sets.push((set, 1)),
        }
    }

    fn release(&mut self, kept: &Kept) {
        let Some(set) = set_of(kept) else { return };
        if let Some((_, count)) = self.sets.iter_mut().find(|(known, _)| *known == set) {
            *count = count.saturating_sub(1);
        }
        self.sets.retain(|(_, count)| *count > 0);
    }
}

/// What tells a set of policies from others, while somebody holds it.
fn set_of(kept: &Kept) -> Option<usize> {
    kept.decided
        .as_ref()
        .map(|decided| Arc::as_ptr(&decided.policies).addr())
}

fn size(event: &Event, decided: Option<&Decided>) -> usize {
    let http = event.http.as_deref();
    let texts = http.map_or(0, |http| {
        http.path.len() + http.path_normalized.as_ref().map_or(0, |p| p.len()) + http.user_agent.len()
    });
    let asked = decided.and_then(|decided| decided.asked.as_deref());
    let asked = asked.map_or(0, |asked| {
        let fields = asked
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 64);
        asked.path.len() + asked.authority.len() + fields.sum::<usize>()
    });
    FIXED + texts + asked
}

fn matches(wanted: &Why, event: &Event) -> bool {
    if let Some(id) = &wanted.id {
        let request = event
            .http
            .as_deref()
            .is_some_and(|http| !id.is_empty() && *http.request_id == **id);
        return request || event.decision_id.as_deref() == Some(id);
    }
    let is = |peer: &Peer| {
        let namespace = wanted.namespace.as_deref();
        let workload = wanted.workload.as_deref();
        namespace.is_none_or(|n| *n == *peer.namespace)
            && workload.is_none_or(|w| *w == *peer.pod || *w == *peer.workload)
    };
    is(&event.source) || is(&event.destination)
}

fn explained(event: &Event, decided: Option<&Decided>, node: &str) -> Refused {
    let mut refused = Refused {
        id: event.decision_id.as_deref().unwrap_or_default().to_owned(),
        node: node.to_owned(),
        time: text_of(&value(event), "time"),
        source: value(&event.source),
        destination: value(&event.destination),
        port: event.port,
        wire: value(&event.wire),
        sni: event.sni.as_deref().map(str::to_owned),
        code: event.http.as_deref().map_or(0, |http| http.code),
        reason: event
            .reason
            .map(|reason| reason.as_str().to_owned())
            .unwrap_or_default(),
        ..Refused::default()
    };
    refused.request = event.http.as_deref().map(|http| RefusedRequest {
        method: http.method.to_string(),
        authority: http.authority.to_string(),
        received: http.path.to_string(),
        normalized: http.path_normalized.as_ref().unwrap_or(&http.path).to_string(),
        request_id: http.request_id.to_string(),
        headers: Vec::new(),
    });
    if let Some(message) = &event.message {
        refused.steps.push(step("refused", message.to_string(), None));
    }
    match decided {
        Some(decided) => by_policy(decided, event, &mut refused),
        None if refused.steps.is_empty() => {
            let said = match event.reason {
                Some(Reason::PolicyChanged) => {
                    "it was admitted when it began, and a later change no longer admits it"
                }
                Some(Reason::EgressUnknown) => {
                    "the caller's proxy does not know the destination, and the mesh passes nothing on to what it does not know"
                }
                Some(Reason::HostMismatch) => {
                    "the address that was dialled and the Host belong to different services"
                }
                _ => "it was refused before any policy was asked",
            };
            refused.steps.push(step("refused", said.to_owned(), None));
        }
        None => {}
    }
    refused
}

/// What the policies said that were in force then, asked once more about the same facts.
fn by_policy(decided: &Decided, event: &Event, refused: &mut Refused) {
    let set = &*decided.policies;
    let asked = decided.asked.as_deref();
    let claims = asked.and_then(|asked| asked.proof.as_ref()?.proven());
    let explanation: Explanation = decided
        .subject
        .with_facts(decided.remote, asked, claims, |facts| {
            policy::explain_with(facts, set, decided.subject.answers())
        });
    refused.policy = event.policy.as_ref().map(|policy| {
        let id = PolicyId {
            namespace: policy.namespace.to_string(),
            name: policy.name.to_string(),
        };
        rule(set, &id, policy.rule)
    });
    refused.steps.extend(explanation.steps.iter().map(|found| {
        let stage = match &found.action {
            Action::Custom { .. } => "custom",
            Action::Audit => "audit",
            Action::Deny => "deny",
            Action::Allow => "allow",
            Action::Ceiling => "ceiling",
        };
        let number = found.rule.map(|rule| format!(" rule {rule}")).unwrap_or_default();
        let matched = if found.matched {
            "matches"
        } else {
            "does not match"
        };
        let dry = if found.dry_run { " (dry run)" } else { "" };
        let by = rule(set, &found.policy, found.rule);
        let at = (!by.file.is_empty()).then(|| format!("{}:{}", by.file, by.line));
        step(
            stage,
            format!("{}{number}{dry} {matched}: {}", found.policy, found.why),
            at,
        )
    }));
    if explanation.steps.is_empty() {
        let said = "no policy selects the workload, and the mesh denies until one allows".to_owned();
        refused.steps.push(step("allow", said, None));
    }
    if explanation.readings.len() > 1 {
        refused.readings.clone_from(&explanation.readings);
    }
    refused.near_miss = explanation.near_miss.map(|near| RefusedBy {
        failed: near.failed,
        ..rule(set, &near.policy, Some(near.rule))
    });
    if let (Some(request), Some(asked)) = (&mut refused.request, decided.asked.as_deref()) {
        request.normalized = asked.path.to_string();
        request.headers = headers(set, asked);
    }
}

/// The header fields that some policy asks for, and no others.
fn headers(set: &PolicySet, asked: &Asked) -> Vec<(String, String)> {
    let conditions = set
        .specs()
        .flat_map(|spec| &spec.rules)
        .flat_map(|rule| &rule.when);
    let mut names: Vec<String> = conditions
        .filter_map(|when| when.key.strip_prefix("request.headers[")?.strip_suffix(']'))
        .map(str::to_ascii_lowercase)
        .collect();
    names.sort_unstable();
    names.dedup();
    let mut shown = Vec::new();
    for name in names {
        for value in asked.headers.get_all(&name) {
            let value = match SECRET.contains(&name.as_str()) {
                true => REDACTED.to_owned(),
                false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
            };
            shown.push((name.clone(), value));
        }
    }
    shown
}

/// A rule, with the place where it was written.
fn rule(set: &PolicySet, id: &PolicyId, rule: Option<usize>) -> RefusedBy {
    let spec = set.specs().find(|spec| spec.id == *id);
    let written = spec.zip(rule).and_then(|(spec, rule)| spec.rules.get(rule));
    let line = written.map(|rule| rule.line).filter(|line| *line > 0);
    RefusedBy {
        namespace: id.namespace.clone(),
        name: id.name.clone(),
        rule,
        file: spec.map(|spec| spec.origin.file.clone()).unwrap_or_default(),
        line: line.unwrap_or_else(|| spec.map(|spec| spec.origin.line).unwrap_or_default()),
        failed: Vec::new(),
    }
}

fn step(stage: &str, said: String, at: Option<String>) -> WhyStep {
    WhyStep {
        stage: stage.to_owned(),
        said,
        at,
    }
}

fn value(of: &impl serde::Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

fn text_of(value: &Value, field: &str) -> String {
    value
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
