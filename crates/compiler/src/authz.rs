//! Which AuthorizationPolicies select a workload, and their form on the way to a proxy (semantics 2.2).

mod external;
mod guardrail;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::{AuthorizationPolicy, Problem, Severity};
use model::{Profile, Reason};
use policy::{
    Action, ConditionSpec, Context, Invalid, OperationSpec, PolicyId, PolicySet, PolicySpec, RuleSpec,
    SourceSpec,
};
use snapshot::{Inbound, Mesh, Resource, Service};

use crate::pods::PodFacts;
use crate::report::{Report, code, nothing_selected};
use crate::view::{Of, View, covers};

use external::Providers;
pub(crate) use guardrail::Guardrails;
use guardrail::tell_clamped;

/// The policies that sidecars obey, by namespace.
#[derive(Debug)]
pub(crate) struct Authz<'a> {
    root_namespace: &'a str,
    guardrails: &'a Guardrails<'a>,
    providers: Providers,
    context: Context,
    namespaces: HashMap<&'a str, Vec<Compiled<'a>>>,
    resources: BTreeMap<PolicyId, Arc<Resource>>,
    /// Policies that deny all that they select, because something in them cannot be evaluated.
    defective: BTreeSet<PolicyId>,
}

#[derive(Debug)]
struct Compiled<'a> {
    of: Of<'a, AuthorizationPolicy>,
    spec: Arc<PolicySpec>,
}

impl<'a> Authz<'a> {
    pub(crate) fn new(
        view: &View<'a>,
        mesh: &Mesh,
        guardrails: &'a Guardrails<'a>,
        services: &[Arc<Service>],
        report: &mut Report,
    ) -> Self {
        let mut authz = Self {
            providers: Providers::new(view, services),
            root_namespace: view.root_namespace(),
            guardrails,
            context: mesh.policy_context(),
            namespaces: HashMap::new(),
            resources: BTreeMap::new(),
            defective: BTreeSet::new(),
        };
        for of in &view.authorization_policies {
            authz.add(view, *of, report);
        }
        for (rail, spec) in guardrails.policies() {
            authz.find_defects(rail.of, spec, report);
            authz.carry(spec);
        }
        authz
    }

    fn add(&mut self, view: &View<'a>, of: Of<'a, AuthorizationPolicy>, report: &mut Report) {
        let refused = of.object.refused(view.options.profile);
        if !of.body.target_refs.is_empty() && refused.is_none() {
            let why = "a policy with `targetRefs` speaks of gateways and waypoints, which this version does not have";
            report.unheeded(of.object, "spec", why, "use `selector` to speak of pods");
            return;
        }
        match refused {
            Some(why) => {
                report.qualify(
                    of.object,
                    format!("invalid, therefore it denies all that it selects: {why}"),
                );
            }
            None if of.body.action == api::Action::Custom => self.providers.tell(of, report),
            None => {}
        }
        let labels = of.body.labels();
        let scope = (of.namespace() != self.root_namespace).then(|| of.namespace());
        if !labels.is_empty() && !view.selects_something(scope, labels) {
            report.tell(of.object, "spec.selector", nothing_selected(labels));
        }
        let spec = Arc::new(spec(of, view.options.profile));
        self.find_defects(of, &spec, report);
        if spec.action == Action::Allow && !spec.dry_run && spec.invalid.is_none() {
            for rail in self.guardrails.bounding(of.namespace(), self.root_namespace) {
                tell_clamped(&of, &spec, rail, &self.context, report);
            }
        }
        self.carry(&spec);
        self.namespaces
            .entry(of.namespace())
            .or_default()
            .push(Compiled { of, spec });
    }

    fn carry(&mut self, spec: &Arc<PolicySpec>) {
        let resource = Resource::Policy(Arc::clone(spec));
        self.resources.insert(spec.id.clone(), Arc::new(resource));
    }

    /// Asks the very code that will decide whether it can use the policy (R15).
    fn find_defects<T>(&mut self, of: Of<'a, T>, spec: &Arc<PolicySpec>, report: &mut Report) {
        let set = PolicySet::compile(&[Arc::clone(spec)], &[], &self.context);
        for (id, why) in set.defects() {
            self.defective.insert(id.clone());
            if spec.invalid.is_some() {
                continue;
            }
            report.qualify(
                of.object,
                format!("cannot be evaluated, therefore it denies all that it selects: {why}"),
            );
            let message = format!("{why}; the policy denies all that it selects");
            report.tell(
                of.object,
                "spec",
                Problem::new(Severity::Error, code::DEFECTIVE, message),
            );
        }
    }

    /// The policies that select a pod, by name; tells each of them.
    pub(crate) fn select(&self, pod: &PodFacts<'_>, report: &mut Report) -> Vec<PolicyId> {
        let scopes: BTreeSet<&str> = [self.root_namespace, pod.namespace()].into();
        let candidates = scopes
            .into_iter()
            .filter_map(|ns| self.namespaces.get(ns))
            .flatten();
        let mut ids = Vec::new();
        for policy in candidates.filter(|policy| covers(policy.of.body.labels(), pod.labels())) {
            report.applies(&policy.of, pod.id.to_string(), pod.node());
            ids.push(policy.spec.id.clone());
        }
        for rail in self.guardrails.of(pod.namespace()) {
            for spec in rail.policies() {
                report.applies(&rail.of, pod.id.to_string(), pod.node());
                ids.push(spec.id.clone());
            }
        }
        ids.sort();
        ids
    }

    /// Whether a request may pass that carries no token, as far as it shows: none of the policies asks about tokens, and
    /// something may pass at all (P56).
    pub(crate) fn admits_without_token(&self, ids: &[PolicyId], deny_by_default: bool) -> bool {
        let mut allows = !deny_by_default;
        for id in ids {
            let Some(Resource::Policy(spec)) = self.resources.get(id).map(AsRef::as_ref) else {
                return false;
            };
            if spec.invalid.is_some() || self.defective.contains(id) {
                return false;
            }
            if spec.dry_run || !matches!(spec.action, Action::Allow | Action::Deny) {
                continue;
            }
            if spec.rules.iter().any(asks_for_token) {
                return false;
            }
            allows |= spec.action == Action::Allow;
        }
        allows
    }

    /// The policies that the pods of a node need, and the external authorizers that those ask, each once.
    pub(crate) fn for_node(
        &self,
        node: &str,
        pods: &[PodFacts<'_>],
        inbounds: &[Option<Inbound>],
    ) -> impl Iterator<Item = Arc<Resource>> {
        let here = pods.iter().zip(inbounds).filter(|(pod, _)| pod.node() == node);
        let ids: BTreeSet<_> = here
            .filter_map(|(_, inbound)| inbound.as_ref())
            .flat_map(|i| &i.policies)
            .collect();
        let found: Vec<_> = ids
            .into_iter()
            .filter_map(|id| self.resources.get(id))
            .cloned()
            .collect();
        let specs = found.iter().filter_map(|resource| match resource.as_ref() {
            Resource::Policy(spec) => Some(spec.as_ref()),
            _ => None,
        });
        let providers: Vec<_> = self.providers.of(specs).collect();
        found.into_iter().chain(providers)
    }

    /// For people: what stands between a pod and its callers.
    pub(crate) fn describe(&self, ids: &[PolicyId], deny_by_default: bool) -> String {
        let specs = || {
            ids.iter()
                .filter_map(|id| match self.resources.get(id).map(AsRef::as_ref) {
                    Some(Resource::Policy(spec)) => Some(spec),
                    _ => None,
                })
        };
        let broken = |spec: &&Arc<PolicySpec>| spec.invalid.is_some() || self.defective.contains(&spec.id);
        if let Some(broken) = specs().find(broken) {
            return format!("invalid: {}", broken.id);
        }
        let count = match ids.len() {
            0 => None,
            1 => Some("1 policy".to_owned()),
            n => Some(format!("{n} policies")),
        };
        let allows = specs().any(|spec| spec.action == Action::Allow && !spec.dry_run);
        let default = match (allows, deny_by_default) {
            (true, _) => None,
            (false, true) => Some("deny by default"),
            (false, false) => Some("allow by default"),
        };
        match (count, default) {
            (Some(count), Some("deny by default")) => format!("deny by default, {count}"),
            (Some(count), _) => count,
            (None, default) => default.unwrap_or_default().to_owned(),
        }
    }
}

/// A policy in the form that travels. Values keep their spelling; what cannot be accepted travels too, and denies.
fn spec(of: Of<'_, AuthorizationPolicy>, profile: Profile) -> PolicySpec {
    let body = of.body;
    let refused = of.object.refused(profile);
    PolicySpec {
        id: PolicyId {
            namespace: of.namespace().to_owned(),
            name: of.name().to_owned(),
        },
        action: match body.action {
            api::Action::Allow => Action::Allow,
            api::Action::Deny => Action::Deny,
            api::Action::Audit => Action::Audit,
            api::Action::Custom => Action::Custom {
                provider: body.provider.clone().unwrap_or_default(),
            },
        },
        dry_run: body.dry_run && refused.is_none(),
        rules: body.rules.iter().map(rule).collect(),
        invalid: refused.map(|why| Invalid {
            reason: Reason::DenyPolicyInvalid,
            why: why.to_owned(),
        }),
        origin: policy::Origin {
            file: of.object.origin.file.clone(),
            line: of.object.origin.line,
        },
    }
}

fn asks_for_token(rule: &RuleSpec) -> bool {
    let in_source = |source: &SourceSpec| {
        !(source.request_principals.is_empty() && source.not_request_principals.is_empty())
    };
    let in_condition = |condition: &ConditionSpec| condition.key.starts_with("request.auth.");
    rule.from.iter().any(in_source) || rule.when.iter().any(in_condition)
}

fn rule(rule: &api::Rule) -> RuleSpec {
    RuleSpec {
        from: rule.from.iter().map(|from| source(&from.source)).collect(),
        to: rule.to.iter().map(|to| operation(&to.operation)).collect(),
        when: rule.when.iter().map(condition).collect(),
        line: rule.line,
    }
}

/// Taken apart by name, so that a field that is added and not carried is an error of the Rust compiler's (R7).
fn source(source: &api::Source) -> SourceSpec {
    let api::Source {
        principals,
        not_principals,
        request_principals,
        not_request_principals,
        namespaces,
        not_namespaces,
        service_accounts,
        not_service_accounts,
        trust_domains,
        not_trust_domains,
        ip_blocks,
        not_ip_blocks,
        remote_ip_blocks,
        not_remote_ip_blocks,
    } = source.clone();
    SourceSpec {
        principals,
        not_principals,
        request_principals,
        not_request_principals,
        namespaces,
        not_namespaces,
        service_accounts,
        not_service_accounts,
        trust_domains,
        not_trust_domains,
        ip_blocks,
        not_ip_blocks,
        remote_ip_blocks,
        not_remote_ip_blocks,
    }
}

fn operation(operation: &api::Operation) -> OperationSpec {
    let api::Operation {
        hosts,
        not_hosts,
        ports,
        not_ports,
        methods,
        not_methods,
        paths,
        not_paths,
    } = operation.clone();
    OperationSpec {
        hosts,
        not_hosts,
        ports,
        not_ports,
        methods,
        not_methods,
        paths,
        not_paths,
    }
}

fn condition(condition: &api::Condition) -> ConditionSpec {
    let api::Condition {
        key,
        values,
        not_values,
        line,
    } = condition.clone();
    ConditionSpec {
        key,
        values,
        not_values,
        line,
    }
}
