//! The slow path: the whole walk of a decision, for people.

use model::Reason;

use crate::{Action, Facts, PolicyId, PolicySet};

/// Walks all policies and says what each rule found. Always agrees with [`crate::authorize`].
pub fn explain(_facts: &Facts<'_>, _set: &PolicySet) -> Explanation {
    Explanation {
        denied: Some(Reason::NotReady),
        policy: None,
        rule: None,
        steps: Vec::new(),
        near_miss: None,
        readings: Vec::new(),
    }
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
