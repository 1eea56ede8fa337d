//! The slow path: the whole walk of a decision, for people.

mod why;

use model::Reason;

use crate::compile::Rule;
use crate::decide::{Denial, External, Nobody, decide, other_readings, with_path};
use crate::facts::Facts;
use crate::matchers::Bias;
use crate::set::{Inner, Lane, Policy, PolicySet};
use crate::spec::{Action, PolicyId, PolicySpec, RuleSpec};
use why::Walk;

/// Walks all policies and says what each rule found. Always agrees with [`crate::authorize`].
///
/// Where the path has more than one reading, the walk is of the reading that was refused, else of the first.
pub fn explain(facts: &Facts<'_>, set: &PolicySet) -> Explanation {
    explain_with(facts, set, &Nobody)
}

/// [`explain`], where external authorizers have answered: agrees with [`crate::authorize_with`].
pub fn explain_with(facts: &Facts<'_>, set: &PolicySet, external: &dyn External) -> Explanation {
    let inner = set.inner();
    let own = facts.http.map(|http| http.path.to_owned());
    let first = decide(facts, inner, external);
    let others = match other_readings(facts, set) {
        Ok(others) => others,
        Err(denial) if first.is_ok() => return unreadable(&denial, own),
        Err(_) => Vec::new(),
    };
    let mut other = None;
    if first.is_ok() {
        for reading in &others {
            if let Err(denial) = decide(&with_path(facts, &reading.path), reading.set, external) {
                other = Some((reading, denial));
                break;
            }
        }
    }
    let (seen, set) = match &other {
        Some((reading, _)) => (with_path(facts, &reading.path), reading.set),
        None => (*facts, inner),
    };
    let mut readings: Vec<String> = own.into_iter().collect();
    for reading in &others {
        if !readings.contains(&reading.path) {
            readings.push(reading.path.clone());
        }
    }
    let (denied, policy, rule) = match (other, first) {
        (Some((_, denial)), _) | (None, Err(denial)) => {
            (Some(denial.reason), denial.policy().cloned(), denial.rule)
        }
        (None, Ok(permit)) => (None, permit.policy().cloned(), permit.rule()),
    };
    let near_miss = match denied {
        Some(Reason::DenyNoAllow) => closest(&seen, set, None),
        Some(Reason::DenyCeiling) => closest(&seen, set, policy.as_ref()),
        _ => None,
    };
    Explanation {
        denied,
        policy,
        rule,
        steps: steps(&seen, set),
        near_miss,
        readings,
    }
}

/// Of a path that has more readings than are judged.
fn unreadable(denial: &Denial, own: Option<String>) -> Explanation {
    Explanation {
        denied: Some(denial.reason),
        policy: None,
        rule: None,
        steps: Vec::new(),
        near_miss: None,
        readings: own.into_iter().collect(),
    }
}

/// What stands in the way first, comes first; dry runs come last.
fn steps(facts: &Facts<'_>, set: &Inner) -> Vec<Step> {
    let mut steps: Vec<Step> = set.policies.iter().filter_map(unusable).collect();
    let lanes = [
        Lane::Custom,
        Lane::Audit,
        Lane::Deny,
        Lane::Allow,
        Lane::Ceiling,
        Lane::ShadowDeny,
        Lane::ShadowAllow,
    ];
    for lane in lanes {
        for policy in &set.policies {
            if let Some(spec) = &policy.spec
                && Lane::of(spec) == lane
                && spec.invalid.is_none()
            {
                of_policy(facts, set, policy, spec, &mut steps);
            }
        }
    }
    steps
}

/// The step of a policy that refuses everything.
fn unusable(policy: &Policy) -> Option<Step> {
    let shadow = |spec: &PolicySpec| matches!(Lane::of(spec), Lane::ShadowDeny | Lane::ShadowAllow);
    let (action, dry_run, why) = match (&policy.spec, &policy.defect) {
        (None, _) => (
            Action::Deny,
            false,
            "the policy is known by name but has not arrived; until then it denies everything".to_owned(),
        ),
        (Some(spec), Some(why)) if shadow(spec) && spec.invalid.is_none() => (
            spec.action.clone(),
            true,
            format!("cannot be evaluated, its shadow denies everything: {why}"),
        ),
        (Some(spec), Some(why)) => (
            spec.action.clone(),
            false,
            format!("cannot be evaluated, therefore it denies everything: {why}"),
        ),
        (Some(_), None) => return None,
    };
    Some(Step {
        policy: PolicyId::clone(&policy.id),
        action,
        dry_run,
        rule: None,
        matched: true,
        why,
    })
}

fn of_policy(facts: &Facts<'_>, set: &Inner, policy: &Policy, spec: &PolicySpec, steps: &mut Vec<Step>) {
    let step = |rule: Option<usize>, matched: bool, why: String| Step {
        policy: PolicyId::clone(&policy.id),
        action: spec.action.clone(),
        dry_run: spec.dry_run,
        rule,
        matched,
        why,
    };
    if spec.rules.is_empty() {
        steps.push(step(
            None,
            false,
            "the policy has no rules, so that nothing matches it".to_owned(),
        ));
    }
    let kept = set.rules.get(policy.first_rule..).unwrap_or_default();
    let kept = kept.get(..policy.rules).unwrap_or_default();
    for (index, written) in spec.rules.iter().enumerate() {
        let (matched, why) = match kept.iter().find(|rule| rule.index == index) {
            Some(rule) => judge(facts, spec, written, rule),
            None => (
                false,
                "the rule holds what cannot be evaluated and is left out, as Istio does".to_owned(),
            ),
        };
        steps.push(step(Some(index), matched, why));
    }
}

/// Whether a rule matches, and the field that decided.
fn judge(facts: &Facts<'_>, spec: &PolicySpec, written: &RuleSpec, rule: &Rule) -> (bool, String) {
    if facts.http.is_none() && rule.http_only() && rule.bias == Bias::Narrow {
        return (
            false,
            "the rule asks for what only a request has, and the connection is not HTTP".to_owned(),
        );
    }
    let walk = Walk {
        facts,
        spec,
        written,
        rule,
    };
    if let Some(first) = walk.failed().into_iter().next() {
        return (false, first);
    }
    let held = walk.held().join("; ");
    let silent = facts.http.is_none() && rule.http_only();
    let why = match (held.is_empty(), silent) {
        (false, false) => held,
        (true, false) => "the rule has no fields and matches everything".to_owned(),
        (empty, true) => {
            let rest = if empty { "nothing else is asked for" } else { &held };
            format!("the connection is not HTTP, so that the fields of requests count as absent; {rest}")
        }
    };
    (true, why)
}

/// Of a request that no ALLOW rule matched, or that is above a ceiling, the rule that came closest: [`Explanation::near_miss`] without the walk.
///
/// Where the path has more than one reading, it is looked for on the first that is refused.
pub fn near_miss(facts: &Facts<'_>, set: &PolicySet) -> Option<NearMiss> {
    let inner = set.inner();
    let of = |facts: &Facts<'_>, set: &Inner| {
        let denial = decide(facts, set, &Nobody).err()?;
        let ceiling = denial.policy().filter(|_| denial.reason == Reason::DenyCeiling);
        Some(closest(facts, set, ceiling))
    };
    if let Some(found) = of(facts, inner) {
        return found;
    }
    let others = other_readings(facts, set).unwrap_or_default();
    let other = others
        .iter()
        .find_map(|reading| of(&with_path(facts, &reading.path), reading.set));
    other.unwrap_or_else(|| closest(facts, inner, None))
}

/// The ALLOW rule in force with the fewest fields that did not hold; that of a ceiling, where one is named.
fn closest(facts: &Facts<'_>, set: &Inner, ceiling: Option<&PolicyId>) -> Option<NearMiss> {
    let mut best: Option<(usize, &Policy, &Rule)> = None;
    for rule in &set.rules {
        let policy = usize::try_from(rule.policy)
            .ok()
            .and_then(|at| set.policies.get(at))?;
        let spec = policy.spec.as_deref()?;
        let wanted = match ceiling {
            None => Lane::of(spec) == Lane::Allow,
            Some(id) => spec.id == *id,
        };
        if !wanted || spec.rules.get(rule.index).is_none() {
            continue;
        }
        let failed = if facts.http.is_none() && rule.http_only() {
            1
        } else {
            why::count(facts, rule)
        };
        if best.as_ref().is_none_or(|(least, ..)| failed < *least) {
            best = Some((failed, policy, rule));
        }
    }
    let (_, policy, rule) = best?;
    let spec = policy.spec.as_deref()?;
    let written = spec.rules.get(rule.index)?;
    let failed = if facts.http.is_none() && rule.http_only() {
        vec![judge(facts, spec, written, rule).1]
    } else {
        let walk = Walk {
            facts,
            spec,
            written,
            rule,
        };
        walk.failed()
    };
    Some(NearMiss {
        policy: PolicyId::clone(&policy.id),
        rule: rule.index,
        failed,
    })
}

/// A decision with its reasons.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// `None` where the request is admitted.
    pub denied: Option<Reason>,
    /// The policy that decided.
    pub policy: Option<PolicyId>,
    /// The rule of it that decided.
    pub rule: Option<usize>,
    /// One step for each rule, in the order of evaluation.
    pub steps: Vec<Step>,
    /// For a denial because nothing allowed: the ALLOW rule that came closest.
    pub near_miss: Option<NearMiss>,
    /// The readings of the path that were judged, the first as routing sees it; more than one where it is ambiguous.
    pub readings: Vec<String>,
}

/// What one rule found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The policy.
    pub policy: PolicyId,
    /// Its action.
    pub action: Action,
    /// Whether it only counts as a dry run.
    pub dry_run: bool,
    /// The rule.
    pub rule: Option<usize>,
    /// Whether it matched.
    pub matched: bool,
    /// The first field that does not hold; of a rule that matched, every field that holds, with `; ` between them.
    pub why: String,
}

/// The ALLOW rule that came closest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NearMiss {
    /// The policy.
    pub policy: PolicyId,
    /// The rule.
    pub rule: usize,
    /// The fields that did not hold, as a person would write them.
    pub failed: Vec<String>,
}
