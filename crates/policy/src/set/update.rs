//! A set made of another one: what stayed the same is neither compiled nor sorted into the index again.

use std::sync::Arc;

use super::{Backend, Draft, Inner, Lane, Lanes, Named, Policy, PolicySet, ceilings, member, sorted};
use crate::compile::{Compiler, Rule};
use crate::context::Context;
use crate::index::{GONE, Index, place};
use crate::path::Dialects;
use crate::spec::{PolicyId, PolicySpec};

/// Policies that may be replaced before everything is compiled again: one of so many, and some of a small set. The index
/// chooses for a rule what few share when it is entered, so that many changes make it worse.
const ONE_OF: usize = 8;
const FEW: usize = 16;

impl PolicySet {
    /// [`Self::compile_for`], where this set's policies are mostly the same: it decides alike and takes the less time the
    /// less has changed. Policies that are the same object are not looked into.
    #[must_use]
    pub fn update(
        &self,
        specs: &[Arc<PolicySpec>],
        missing: &[PolicyId],
        context: &Context,
        dialects: &Dialects,
    ) -> Self {
        let all = sorted(specs, missing);
        self.patched(&all, context, dialects)
            .unwrap_or_else(|| Self::compile_for(specs, missing, context, dialects))
    }

    /// `None` where it is better compiled as a whole.
    fn patched(&self, all: &[Named<'_>], context: &Context, dialects: &Dialects) -> Option<Self> {
        let speaks = match &self.backend {
            Some(backend) => backend.dialects == *dialects,
            None => dialects.is_plain(),
        };
        let unique = all.windows(2).all(|pair| matches!(pair, [a, b] if a.0 != b.0));
        if self.inner.context != *context || !speaks || !unique {
            return None;
        }
        if self.inner.holds(all) {
            return Some(self.clone());
        }
        let backend = match &self.backend {
            None => None,
            Some(backend) => Some(Arc::new(Backend {
                dialects: backend.dialects.clone(),
                folded: match &backend.folded {
                    None => None,
                    Some(folded) => Some(folded.patched(all)?),
                },
            })),
        };
        Some(Self {
            inner: Arc::new(self.inner.patched(all)?),
            backend,
        })
    }
}

impl Policy {
    fn is(&self, (id, spec): Named<'_>) -> bool {
        let same = match (&self.spec, spec) {
            (Some(own), Some(spec)) => Arc::ptr_eq(own, spec) || own == spec,
            (None, None) => true,
            _ => false,
        };
        same && *self.id == *id
    }
}

impl Inner {
    fn holds(&self, all: &[Named<'_>]) -> bool {
        let mut pairs = self.policies.iter().zip(all);
        self.policies.len() == all.len() && pairs.all(|(policy, named)| policy.is(*named))
    }

    fn patched(&self, all: &[Named<'_>]) -> Option<Self> {
        let room = (self.policies.len() / ONE_OF + FEW).checked_sub(self.replaced)?;
        let compiler = Compiler::new(&self.context, self.case);
        let mut draft = Draft::with_capacity(all.len());
        let mut change = Change {
            moved: vec![GONE; self.rules.len()],
            fresh: Vec::new(),
        };
        let mut replaced = 0;
        let mut own = self.policies.iter().peekable();
        for named in all {
            while own.next_if(|policy| *policy.id < *named.0).is_some() {
                replaced += 1;
            }
            match own.next_if(|policy| *policy.id == *named.0) {
                Some(policy) if policy.is(*named) => draft.keep(policy, &self.rules, &mut change),
                _ => {
                    replaced += 1;
                    let first = draft.rules.len();
                    draft.add(&compiler, *named);
                    let places = first..draft.rules.len();
                    change
                        .fresh
                        .extend(places.filter_map(|at| u32::try_from(at).ok()));
                }
            }
        }
        replaced += own.count();
        if replaced > room {
            return None;
        }
        let lanes = [(&self.requests, true), (&self.connections, false)];
        let lanes = lanes.map(|(lanes, http)| lanes.patched(&draft, &change, http));
        Some(Self {
            replaced: self.replaced + replaced,
            ..draft.finish(lanes, &self.context, self.case)
        })
    }
}

/// Where rules went.
#[derive(Debug)]
struct Change {
    /// By the place that a rule had, the one that it has, or [`GONE`].
    moved: Vec<u32>,
    /// Rules that were not there.
    fresh: Vec<u32>,
}

impl Draft {
    /// Takes a policy over from another set, with its rules.
    fn keep(&mut self, policy: &Policy, rules: &[Rule], change: &mut Change) {
        let at = u32::try_from(self.policies.len()).unwrap_or(u32::MAX);
        let own = policy.first_rule..policy.first_rule + policy.rules;
        let first_rule = self.rules.len();
        if let Some(moved) = change.moved.get_mut(own.clone()) {
            for (at, moved) in (first_rule..).zip(moved) {
                *moved = u32::try_from(at).unwrap_or(GONE);
            }
        }
        let rules = rules.get(own).unwrap_or_default().iter().cloned();
        self.rules.extend(rules.map(|rule| Rule { policy: at, ..rule }));
        self.policies.push(Policy {
            id: Arc::clone(&policy.id),
            spec: policy.spec.clone(),
            defect: policy.defect.clone(),
            first_rule,
            ..*policy
        });
    }
}

impl Lanes {
    fn patched(&self, draft: &Draft, change: &Change, http: bool) -> Self {
        let index = |index: &Index, wanted: Lane| {
            let is_member = |at: &&u32| {
                let rule = place(&draft.rules, **at);
                rule.is_some_and(|rule| member(rule, &draft.policies, wanted, http))
            };
            let fresh: Vec<u32> = change.fresh.iter().filter(is_member).copied().collect();
            index.patched(&draft.rules, &change.moved, &fresh, http)
        };
        Self {
            custom: index(&self.custom, Lane::Custom),
            audit: index(&self.audit, Lane::Audit),
            deny: index(&self.deny, Lane::Deny),
            allow: index(&self.allow, Lane::Allow),
            shadow_deny: index(&self.shadow_deny, Lane::ShadowDeny),
            shadow_allow: index(&self.shadow_allow, Lane::ShadowAllow),
            // Few and small: made anew.
            ceilings: ceilings(&draft.rules, &draft.policies, http),
        }
    }
}

#[cfg(test)]
mod tests;
