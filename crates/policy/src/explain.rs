//! The slow path: the whole walk of a decision, for people.

mod why;

use model::Reason;

use crate::compile::Rule;
use crate::decide::{External, Nobody, decide, other_readings, with_path};
use crate::facts::Facts;
use crate::matchers::Bias;
use crate::set::{Inner, Lane, Policy, PolicySet};
use crate::spec::{Action, PolicyId, PolicySpec, RuleSpec};

/// Walks all policies and says what each rule found. Always agrees with [`crate::authorize`].
///
/// Where the path has more than one reading, the walk is of the reading that was refused, else of the first.
pub fn explain(facts: &Facts<'_>, set: &PolicySet) -> Explanation {
    explain_with(facts, set, &Nobody)
}

/// [`explain`], where external authorizers have answered: agrees with [`crate::authorize_with`].
pub fn explain_with(facts: &Facts<'_>, set: &PolicySet, external: &dyn External) -> Explanation {
    let set = set.inner();
    let own = facts.http.map(|http| http.path.to_owned());
    let readings: Vec<String> = own.into_iter().chain(other_readings(facts, set)).collect();
    let first = decide(facts, set, external);
    let mut other = None;
    if first.is_ok() {
        for path in readings.iter().skip(1) {
            if let Err(denial) = decide(&with_path(facts, path), set, external) {
                other = Some((path, denial));
                break;
            }
        }
    }
    let seen = other.as_ref().map_or(*facts, |(path, _)| with_path(facts, path));
    let (denied, policy, rule) = match (other, first) {
        (Some((_, denial)), _) | (None, Err(denial)) => {
            (Some(denial.reason), denial.policy().cloned(), denial.rule)
        }
        (None, Ok(permit)) => (None, permit.policy().cloned(), permit.rule()),
    };
    let near_miss = (denied == Some(Reason::DenyNoAllow))
        .then(|| closest(&seen, set))
        .flatten();
    Explanation {
        denied,
        policy,
        rule,
        steps: steps(&seen, set),
        near_miss,
        readings,
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
    let failed = why::failed(facts, spec, written, rule);
    match failed.into_iter().next() {
        Some(first) => (false, first),
        None if facts.http.is_none() && rule.http_only() => (
            true,
            "the connection is not HTTP, so that the fields of requests count as absent; the others hold"
                .to_owned(),
        ),
        None if written.from.is_empty() && written.to.is_empty() && written.when.is_empty() => {
            (true, "the rule has no fields and matches everything".to_owned())
        }
        None => (true, "every field holds".to_owned()),
    }
}

/// Of a request that no ALLOW rule matched, the rule that came closest: [`Explanation::near_miss`] without the walk.
///
/// Where the path has more than one reading, it is looked for on the first that is refused.
pub fn near_miss(facts: &Facts<'_>, set: &PolicySet) -> Option<NearMiss> {
    let set = set.inner();
    let refused = |facts: &Facts<'_>| decide(facts, set, &Nobody).is_err();
    if !refused(facts) {
        for path in other_readings(facts, set) {
            let seen = with_path(facts, &path);
            if refused(&seen) {
                return closest(&seen, set);
            }
        }
    }
    closest(facts, set)
}

/// The rule in force with the fewest fields that did not hold.
fn closest(facts: &Facts<'_>, set: &Inner) -> Option<NearMiss> {
    let mut best: Option<(usize, &Policy, &Rule)> = None;
    for rule in &set.rules {
        let policy = usize::try_from(rule.policy)
            .ok()
            .and_then(|at| set.policies.get(at))?;
        let spec = policy.spec.as_deref()?;
        if Lane::of(spec) != Lane::Allow || spec.rules.get(rule.index).is_none() {
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
        why::failed(facts, spec, written, rule)
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
    /// One sentence: the field that decided.
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
