//! Guardrails: what the root namespace holds tenants to (P18, P19, R44).

mod witness;

use std::sync::Arc;

use api::{Guardrail, Problem, Severity};
use model::MtlsMode;
use policy::{Action, Context, Invalid, PolicyId, PolicySpec};

use super::rule;
use crate::report::{Report, code};
use crate::view::{Of, View};

use witness::beyond;

/// The guardrails that are in force, oldest first.
#[derive(Debug)]
pub(crate) struct Guardrails<'a>(Vec<Rail<'a>>);

/// One guardrail, and the policies that it becomes.
#[derive(Debug)]
pub(crate) struct Rail<'a> {
    pub(crate) of: Of<'a, Guardrail>,
    pub(crate) deny: Option<Arc<PolicySpec>>,
    pub(crate) ceiling: Option<Arc<PolicySpec>>,
}

impl<'a> Guardrails<'a> {
    pub(crate) fn new(view: &View<'a>, report: &mut Report) -> Self {
        let mut rails = Vec::new();
        for of in &view.guardrails {
            if of.namespace() != view.root_namespace() {
                let why = format!(
                    "a Guardrail has its effect in the root namespace `{}` alone",
                    view.root_namespace()
                );
                report.unheeded(
                    of.object,
                    "metadata.namespace",
                    &why,
                    "move it there, or delete it",
                );
                continue;
            }
            if let Some(why) = of.object.refused(view.options.profile) {
                report.qualify(
                    of.object,
                    format!("invalid, therefore everything is denied where it holds: {why}"),
                );
            }
            rails.push(Rail::new(*of, view.options.profile));
        }
        Self(rails)
    }

    /// Those that hold for workloads of a namespace.
    pub(crate) fn of(&self, namespace: &str) -> impl Iterator<Item = &Rail<'a>> {
        let holds =
            move |rail: &&Rail<'a>| rail.of.object.invalid.is_some() || rail.of.body.covers(namespace);
        self.0.iter().filter(holds)
    }

    /// Those that hold for some workload that a policy of the namespace can select.
    pub(crate) fn bounding(&self, namespace: &str, root: &str) -> impl Iterator<Item = &Rail<'a>> {
        let everywhere = namespace == root;
        self.0
            .iter()
            .filter(move |rail| everywhere || rail.of.body.covers(namespace))
    }

    /// The least mode of a namespace, and who demands it.
    pub(crate) fn floor(&self, namespace: &str) -> Option<(MtlsMode, Of<'a, Guardrail>)> {
        let modes = self
            .of(namespace)
            .filter_map(|rail| Some((rail.floor()?, rail.of)));
        // The oldest of those that demand most.
        modes.reduce(|most, next| if next.0 > most.0 { next } else { most })
    }

    /// All policies that they become.
    pub(crate) fn policies(&self) -> impl Iterator<Item = (&Rail<'a>, &Arc<PolicySpec>)> {
        self.0
            .iter()
            .flat_map(|rail| rail.policies().map(move |spec| (rail, spec)))
    }
}

impl<'a> Rail<'a> {
    fn new(of: Of<'a, Guardrail>, profile: model::Profile) -> Self {
        let invalid = of.object.refused(profile).map(|why| Invalid {
            reason: model::Reason::DenyPolicyInvalid,
            why: why.to_owned(),
        });
        let part = |name: &str, action: Action, rules: &[api::Rule]| {
            (!rules.is_empty() || (invalid.is_some() && action == Action::Deny)).then(|| {
                Arc::new(PolicySpec {
                    // No object has a name with colons.
                    id: PolicyId {
                        namespace: of.namespace().to_owned(),
                        name: format!("guardrail:{}:{name}", of.name()),
                    },
                    action,
                    dry_run: false,
                    rules: rules.iter().map(rule).collect(),
                    invalid: invalid.clone(),
                    origin: policy::Origin {
                        file: of.object.origin.file.clone(),
                        line: of.object.origin.line,
                    },
                })
            })
        };
        Self {
            of,
            deny: part("deny", Action::Deny, &of.body.deny),
            ceiling: part("ceiling", Action::Ceiling, &of.body.ceiling),
        }
    }

    pub(crate) fn policies(&self) -> impl Iterator<Item = &Arc<PolicySpec>> {
        self.deny.iter().chain(&self.ceiling)
    }

    /// In words, a request that the policy grants and the ceiling does not.
    pub(super) fn beyond(&self, spec: &Arc<PolicySpec>, context: &Context) -> Option<String> {
        let request = beyond(spec, self.ceiling.as_ref()?, context)?;
        Some(request.to_string())
    }

    fn floor(&self) -> Option<MtlsMode> {
        if self.of.object.invalid.is_some() {
            return Some(MtlsMode::Strict);
        }
        match self.of.body.mtls?.mode {
            api::MtlsMode::Strict => Some(MtlsMode::Strict),
            api::MtlsMode::Permissive => Some(MtlsMode::Permissive),
            api::MtlsMode::Unset | api::MtlsMode::Disable => None,
        }
    }
}

/// Tells a policy that grants more than a ceiling lets it, with a request that it loses.
pub(crate) fn tell_clamped<T>(of: &Of<'_, T>, request: &str, rail: &Rail<'_>, report: &mut Report) {
    let name = format!("{}/{}", rail.of.namespace(), rail.of.name());
    let why = format!("clamped by the ceiling of Guardrail `{name}`: for example {request} is refused");
    if !report.qualify(of.object, why) {
        return;
    }
    let message = format!(
        "the policy grants more than the ceiling of Guardrail `{name}`: {request} would be admitted by it and is refused"
    );
    report.tell(
        of.object,
        "spec.rules",
        Problem::new(Severity::Warning, code::CEILING, message)
            .remedy("narrow the policy, or ask for a wider ceiling"),
    );
}
