//! The one function that decides, and its two answers.

use std::sync::Arc;

use model::Reason;

use crate::{Facts, PolicyId, PolicySet, PolicySpec};

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
/// # Errors
/// As [`authorize`].
pub fn authorize_with(
    _facts: &Facts<'_>,
    _set: &PolicySet,
    _external: &dyn External,
) -> Result<Permit, Denial> {
    Err(Denial {
        reason: Reason::NotReady,
        rule: None,
        audit: false,
        shadow: Shadow::default(),
        policy: None,
        missing: None,
    })
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
    /// It was not asked, or did not answer.
    Unasked,
}

struct Nobody;

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
}

impl Denial {
    /// The policy that refused; `None` where nothing admitted.
    pub fn policy(&self) -> Option<&PolicyId> {
        self.policy.as_deref().map(|p| &p.id).or(self.missing.as_deref())
    }

    /// The policy that refused, whole; `None` also where it has not arrived.
    pub fn spec(&self) -> Option<&PolicySpec> {
        self.policy.as_deref()
    }

    /// The response code details of semantics 2.12, e.g.
    /// `rbac_access_denied_matched_policy[ns[foo]-policy[bar]-rule[0]]`.
    pub fn detail(&self) -> String {
        "rbac_access_denied_matched_policy[none]".to_owned()
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

/// One shadow decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShadowVerdict {
    /// Would admit.
    Allowed,
    /// Would refuse.
    Denied,
}
