//! An answer while it is made.

use std::borrow::Cow;

use model::Reason;
use policy::{Action, Explanation, PolicySet};

use crate::answer::{Answer, ByPolicy, Decision, NearMiss, Path, Step};
use crate::known::Known;
use crate::question::{Custom, Providers, Question};

/// An answer while it is made.
pub(crate) struct Draft<'q> {
    question: &'q Question<'q>,
    pub(crate) walk: bool,
    steps: Vec<Step>,
    path: Option<Path>,
    near: Option<NearMiss>,
}

impl<'q> Draft<'q> {
    pub(crate) fn new(question: &'q Question<'q>, walk: bool) -> Self {
        Self {
            question,
            walk,
            steps: Vec::new(),
            path: None,
            near: None,
        }
    }

    pub(crate) fn step(&mut self, stage: &'static str, said: impl FnOnce() -> String) {
        self.step_at(stage, None, said);
    }

    pub(crate) fn step_at(&mut self, stage: &'static str, at: Option<String>, said: impl FnOnce() -> String) {
        if self.walk {
            self.steps.push(Step {
                stage: Cow::Borrowed(stage),
                said: said(),
                at,
            });
        }
    }

    pub(crate) fn path(&mut self, received: &str, normalized: &str) {
        self.path = Some(Path {
            received: received.to_owned(),
            normalized: normalized.to_owned(),
        });
    }

    /// The walk through the policies.
    pub(crate) fn explain(
        &mut self,
        known: &Known,
        explanation: &Explanation,
        set: &PolicySet,
        providers: &Providers,
    ) {
        if let [first, others @ ..] = explanation.readings.as_slice()
            && !others.is_empty()
        {
            let others: Vec<_> = others.iter().map(|path| format!("`{path}`")).collect();
            self.step("path", || {
                format!(
                    "a backend may read `{first}` as {} too: each reading must be admitted",
                    others.join(", ")
                )
            });
        }
        for step in &explanation.steps {
            let stage = stage(&step.action);
            let rule = step.rule.map(|rule| format!(" rule {rule}")).unwrap_or_default();
            let matched = if step.matched { "matches" } else { "does not match" };
            let dry = if step.dry_run { " (dry run)" } else { "" };
            let at = known.rule_at(&step.policy, step.rule);
            let taken = match &step.action {
                Action::Custom { provider } if step.matched => taken(provider, providers),
                _ => String::new(),
            };
            self.step_at(stage, at, || {
                format!("{}{rule}{dry} {matched}: {}{taken}", step.policy, step.why)
            });
        }
        let allows = set
            .specs()
            .any(|spec| spec.action == Action::Allow && !spec.dry_run);
        match explanation.denied {
            Some(Reason::DenyNoAllow) => {
                self.step("allow", || {
                    "no rule of an ALLOW policy matches, and there are ALLOW policies".to_owned()
                });
            }
            Some(Reason::DenyDefault) => self.step("allow", || {
                "no ALLOW policy selects the workload, and the mesh denies until one allows".to_owned()
            }),
            None if !allows => {
                self.step("allow", || {
                    "no ALLOW policy selects the workload, and the mesh then allows".to_owned()
                });
            }
            _ => {}
        }
        self.near(known, explanation.near_miss.as_ref());
    }

    pub(crate) fn near(&mut self, known: &Known, near: Option<&policy::NearMiss>) {
        self.near = near.map(|near| {
            let spec = known.spec(&near.policy);
            let line = spec
                .and_then(|spec| spec.rules.get(near.rule))
                .map(|rule| rule.line);
            NearMiss {
                namespace: near.policy.namespace.clone(),
                name: near.policy.name.clone(),
                rule: near.rule,
                failed: near.failed.clone(),
                file: spec.map(|spec| spec.origin.file.clone()).unwrap_or_default(),
                line: line.unwrap_or_default(),
            }
        });
    }

    pub(crate) fn allow(self, reason: &'static str, code: u16, policy: Option<ByPolicy>) -> Answer {
        self.finish(Decision::Allow, Cow::Borrowed(reason), code, policy)
    }

    pub(crate) fn deny(self, reason: Reason, code: u16, policy: Option<ByPolicy>) -> Answer {
        self.finish(Decision::Deny, Cow::Borrowed(reason.as_str()), code, policy)
    }

    pub(crate) fn unknown(self, why: String) -> Answer {
        self.finish(Decision::Unknown, Cow::Owned(why), 0, None)
    }

    fn finish(
        self,
        decision: Decision,
        reason: Cow<'static, str>,
        code: u16,
        policy: Option<ByPolicy>,
    ) -> Answer {
        Answer {
            id: self.question.id.clone(),
            decision,
            code,
            reason,
            policy,
            path: self.path,
            near_miss: self.near.filter(|_| decision == Decision::Deny),
            steps: self.steps,
            replicas: Vec::new(),
            error: None,
        }
    }
}

/// What an external authorizer is taken to say.
fn taken(provider: &str, providers: &Providers) -> String {
    match providers.get(provider) {
        Some(Custom::Allow) => format!("; `{provider}` is taken to admit it"),
        Some(Custom::Deny) => format!("; `{provider}` is taken to refuse it"),
        Some(Custom::Unknown) | None => format!("; what `{provider}` says is not known"),
    }
}

/// The stage that an action belongs to.
pub(crate) fn stage(action: &Action) -> &'static str {
    match action {
        Action::Custom { .. } => "custom",
        Action::Audit => "audit",
        Action::Deny => "deny",
        Action::Allow => "allow",
        Action::Ceiling => "ceiling",
    }
}
