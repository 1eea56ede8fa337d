//! The one function that decides, and its two answers.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use model::Reason;

use crate::compile::Rule;
use crate::context::Compat;
use crate::facts::{Facts, HttpFacts};
use crate::index::Index;
use crate::path::{dialect_readings, readings};
use crate::set::{Inner, Lanes, PolicySet, Refusal, Usable};
use crate::spec::{Action, PolicyId, PolicySpec};

/// Decides a connection (`facts.http` is `None`) or a request, in the order of semantics 2.1.
///
/// A CUSTOM policy whose rules match denies: nobody was asked. See [`authorize_with`].
///
/// # Errors
/// The denial, with its reason and the policy and rule that decided.
pub fn authorize(facts: &Facts<'_>, set: &PolicySet) -> Result<Permit, Denial> {
    authorize_with(facts, set, &Nobody)
}

/// [`authorize`], where external authorizers have answered.
///
/// Where the path has more than one reading, all must be admitted (secure, and by dialect; semantics 3.6).
///
/// # Errors
/// As [`authorize`].
pub fn authorize_with(facts: &Facts<'_>, set: &PolicySet, external: &dyn External) -> Result<Permit, Denial> {
    let mut permit = decide(facts, set.inner(), external)?;
    for reading in other_readings(facts, set)? {
        let also = decide(&with_path(facts, &reading.path), reading.set, external)?;
        permit.audit |= also.audit;
        permit.shadow = permit.shadow.and(also.shadow);
    }
    Ok(permit)
}

/// Who must be asked before the request can be decided: the providers of CUSTOM policies of which a rule matches, in any
/// reading of the path (secure), each once and in the order of their names. None where it is refused in any case.
///
/// Names are compared whole, never by a prefix (R16).
pub fn providers(facts: &Facts<'_>, set: &PolicySet) -> BTreeSet<String> {
    let whole = set;
    let set = whole.inner();
    let found = RefCell::new(BTreeSet::new());
    if set.refusal.is_some() || set.lanes(facts).custom.is_empty() {
        return found.into_inner();
    }
    let look = |facts: &Facts<'_>, set: &Inner| {
        // Nothing is taken, so that all that match are gone through.
        let _ = set.lanes(facts).custom.first(&set.rules, facts, |rule| {
            if let Some(provider) = set.provider(rule) {
                found.borrow_mut().insert(provider.to_owned());
            }
            false
        });
    };
    look(facts, set);
    // Where there are more readings than are judged, it is refused in any case.
    for reading in other_readings(facts, whole).unwrap_or_default() {
        look(&with_path(facts, &reading.path), reading.set);
    }
    found.into_inner()
}

/// What a backend may make of a path, and the policies to judge it by.
#[derive(Debug)]
pub(crate) struct Reading<'s> {
    pub(crate) path: String,
    pub(crate) set: &'s Inner,
}

/// What else the path may mean to the backend; nothing is taken from memory where it means one thing.
///
/// # Errors
/// It may mean more than can be judged.
pub(crate) fn other_readings<'s>(facts: &Facts<'_>, set: &'s PolicySet) -> Result<Vec<Reading<'s>>, Denial> {
    let inner = set.inner();
    let Some(http) = facts.http.filter(|_| inner.reads_path) else {
        return Ok(Vec::new());
    };
    let mut paths = match inner.compat {
        Compat::Secure => readings(http.path),
        Compat::Istio => Vec::new(),
    };
    let mut folded = None;
    if let Some((dialect, case)) = set.dialect(facts.destination_port) {
        let unreadable = |_| Denial::of(Reason::PathRefused);
        paths.extend(dialect_readings(http.path, dialect).map_err(unreadable)?);
        folded = case;
    }
    let lower = |set| {
        let all = std::iter::once(http.path).chain(paths.iter().map(String::as_str));
        let lower = all.map(move |path| Reading {
            path: path.to_ascii_lowercase(),
            set,
        });
        lower.collect::<Vec<_>>()
    };
    let folded = folded.map(lower).unwrap_or_default();
    let kept = paths.into_iter().map(|path| Reading { path, set: inner });
    Ok(kept.chain(folded).collect())
}

/// The same request with another path.
pub(crate) fn with_path<'a>(facts: &Facts<'a>, path: &'a str) -> Facts<'a> {
    Facts {
        http: facts.http.map(|http| HttpFacts { path, ..http }),
        ..*facts
    }
}

/// Decides one reading.
pub(crate) fn decide(facts: &Facts<'_>, set: &Inner, external: &dyn External) -> Result<Permit, Denial> {
    if let Some(refusal) = &set.refusal {
        return Err(refused(set, refusal));
    }
    let lanes = set.lanes(facts);
    let first = |index: &Index| index.first(&set.rules, facts, |_| true);
    let audit = !lanes.audit.is_empty() && first(&lanes.audit).is_some();
    let shadow = shadow(facts, set, lanes);
    let denial = |reason, at: Option<u32>| {
        let found = at.and_then(|at| set.rule(at));
        Denial {
            reason,
            rule: found.map(|(rule, _)| rule.index),
            audit,
            shadow,
            policy: found.and_then(|(_, policy)| policy.spec.clone()),
            missing: None,
            external: None,
        }
    };
    if !lanes.custom.is_empty() {
        let answer = |rule: &Rule| set.provider(rule).map(|provider| external.answer(provider));
        let refuses = |rule: &Rule| answer(rule) != Some(ExternalAnswer::Allow);
        if let Some(first) = lanes.custom.first(&set.rules, facts, refuses) {
            // Who has spoken comes before those who were not asked any more.
            let spoken =
                |rule: &Rule| matches!(answer(rule), Some(ExternalAnswer::Deny | ExternalAnswer::Failed));
            let at = lanes.custom.first(&set.rules, facts, spoken).unwrap_or(first);
            let said = set.rule(at).and_then(|(rule, _)| answer(rule));
            return Err(Denial {
                external: said,
                ..denial(Reason::DenyCustom, Some(at))
            });
        }
    }
    if !lanes.deny.is_empty()
        && let Some(at) = first(&lanes.deny)
    {
        return Err(denial(Reason::DenyExplicit, Some(at)));
    }
    let allowed = first(&lanes.allow).and_then(|at| set.rule(at));
    match allowed {
        None if set.allows => return Err(denial(Reason::DenyNoAllow, None)),
        None if set.deny_by_default => return Err(denial(Reason::DenyDefault, None)),
        _ => {}
    }
    let above = |(_, ceiling): &&(usize, Index)| first(ceiling).is_none();
    if let Some((at, _)) = lanes.ceilings.iter().find(above) {
        return Err(Denial {
            policy: set.policies.get(*at).and_then(|policy| policy.spec.clone()),
            ..denial(Reason::DenyCeiling, None)
        });
    }
    Ok(Permit {
        audit,
        shadow,
        policy: allowed.and_then(|(_, policy)| policy.spec.clone()),
        rule: allowed.map(|(rule, _)| rule.index),
    })
}

fn refused(set: &Inner, refusal: &Refusal) -> Denial {
    let policy = set.policies.get(refusal.policy);
    Denial {
        reason: refusal.reason,
        rule: None,
        audit: false,
        shadow: Shadow::default(),
        policy: policy.and_then(|policy| policy.spec.clone()),
        missing: policy.map(|policy| Arc::clone(&policy.id)),
        external: None,
    }
}

/// What the dry runs say.
fn shadow(facts: &Facts<'_>, set: &Inner, lanes: &Lanes) -> Shadow {
    let verdict = |usable: Option<Usable>, index: &Index, opens: bool| {
        usable.map(|usable| {
            let matched = || index.first(&set.rules, facts, |_| true).is_some();
            if usable == Usable::All && matched() == opens {
                ShadowVerdict::Allowed
            } else {
                ShadowVerdict::Denied
            }
        })
    };
    Shadow {
        deny: verdict(set.shadow_deny, &lanes.shadow_deny, false),
        allow: verdict(set.shadow_allow, &lanes.shadow_allow, true),
    }
}

/// What external authorizers said of this very request, by provider.
pub trait External {
    /// The answer of a provider; [`ExternalAnswer::Unasked`] denies.
    fn answer(&self, provider: &str) -> ExternalAnswer;
}

/// The answer of an external authorizer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExternalAnswer {
    /// It admits the request, as far as it is concerned.
    Allow,
    /// It refuses.
    Deny,
    /// It was asked and gave no answer that is one: it could not be reached, was too late, or said what cannot be used.
    Failed,
    /// It was not asked: nobody knows who it is, say.
    Unasked,
}

pub(crate) struct Nobody;

impl External for Nobody {
    fn answer(&self, _provider: &str) -> ExternalAnswer {
        ExternalAnswer::Unasked
    }
}

/// The proof that [`authorize`] admitted a request. Nothing else makes one.
#[derive(Clone, Debug)]
#[must_use = "a permit is the proof that what follows is allowed"]
pub struct Permit {
    audit: bool,
    shadow: Shadow,
    policy: Option<Arc<PolicySpec>>,
    rule: Option<usize>,
}

impl Permit {
    /// The ALLOW policy that admitted; `None` where no ALLOW policy selects the workload.
    pub fn policy(&self) -> Option<&PolicyId> {
        self.policy.as_deref().map(|p| &p.id)
    }

    /// The ALLOW policy that admitted, whole.
    pub fn spec(&self) -> Option<&PolicySpec> {
        self.policy.as_deref()
    }

    /// The index of the rule that matched.
    pub fn rule(&self) -> Option<usize> {
        self.rule
    }

    /// Whether an AUDIT policy marked the request.
    pub fn audit(&self) -> bool {
        self.audit
    }

    /// What dry-run policies would have done.
    pub fn shadow(&self) -> Shadow {
        self.shadow
    }
}

/// A refusal.
#[derive(Clone, Debug)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// The index of the rule that matched, where one did.
    pub rule: Option<usize>,
    /// Whether an AUDIT policy marked the request.
    pub audit: bool,
    /// What dry-run policies would have done.
    pub shadow: Shadow,
    policy: Option<Arc<PolicySpec>>,
    missing: Option<Arc<PolicyId>>,
    /// What the external authorizer said, where that refused.
    external: Option<ExternalAnswer>,
}

impl Denial {
    /// A refusal that no policy makes.
    pub(crate) fn of(reason: Reason) -> Self {
        Self {
            reason,
            rule: None,
            audit: false,
            shadow: Shadow::default(),
            policy: None,
            missing: None,
            external: None,
        }
    }

    /// The policy that refused; `None` where nothing admitted.
    pub fn policy(&self) -> Option<&PolicyId> {
        self.policy.as_deref().map(|p| &p.id).or(self.missing.as_deref())
    }

    /// The policy that refused, whole; `None` also where it has not arrived.
    pub fn spec(&self) -> Option<&PolicySpec> {
        self.policy.as_deref()
    }

    /// What the external authorizer said, where it is what refused.
    pub fn external(&self) -> Option<ExternalAnswer> {
        self.external
    }

    /// The response code details of semantics 2.12, e.g.
    /// `rbac_access_denied_matched_policy[ns[foo]-policy[bar]-rule[0]]`.
    pub fn detail(&self) -> String {
        let rule = || self.rule.map(|at| format!("-rule[{at}]")).unwrap_or_default();
        let name = match self.policy() {
            Some(id) => format!("ns[{}]-policy[{}]{}", id.namespace, id.name, rule()),
            None => "none".to_owned(),
        };
        match self.spec().map(|spec| &spec.action) {
            Some(Action::Custom { provider }) if self.reason == Reason::DenyCustom => {
                match self.external {
                    Some(ExternalAnswer::Deny) => return "ext_authz_denied".to_owned(),
                    Some(ExternalAnswer::Failed) => return "ext_authz_error".to_owned(),
                    _ => {}
                }
                format!(
                    "rbac_access_denied_matched_policy[istio-ext-authz-{provider}-{name}-deny-due-to-bad-CUSTOM-action]"
                )
            }
            _ => format!("rbac_access_denied_matched_policy[{name}]"),
        }
    }
}

/// What the dry-run policies of each action would have decided (semantics 2.14).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Shadow {
    /// By the dry-run DENY policies; `None` where there are none.
    pub deny: Option<ShadowVerdict>,
    /// By the dry-run ALLOW policies; `None` where there are none.
    pub allow: Option<ShadowVerdict>,
}

impl Shadow {
    /// Of two readings, what denies.
    fn and(self, other: Self) -> Self {
        let both = |a: Option<ShadowVerdict>, b: Option<ShadowVerdict>| match (a, b) {
            (Some(ShadowVerdict::Allowed), b) => b,
            (a, _) => a,
        };
        Self {
            deny: both(self.deny, other.deny),
            allow: both(self.allow, other.allow),
        }
    }
}

/// One shadow decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShadowVerdict {
    /// Would admit.
    Allowed,
    /// Would refuse.
    Denied,
}
