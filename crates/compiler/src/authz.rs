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
use snapshot::{Mesh, Resource};

use crate::pods::PodFacts;
use crate::report::{Report, code, tell_nothing_selected};
use crate::view::{Of, View, covers};

pub(crate) use external::Providers;
pub(crate) use guardrail::Guardrails;
use guardrail::tell_clamped;

/// The policies that sidecars obey, by namespace.
#[derive(Debug)]
pub(crate) struct Authz<'a> {
    root_namespace: &'a str,
    guardrails: &'a Guardrails<'a>,
    providers: &'a Providers,
    known: &'a Tried,
    tried: Tried,
    context: Context,
    namespaces: HashMap<&'a str, Vec<Compiled<'a>>>,
    resources: BTreeMap<PolicyId, Arc<PolicySpec>>,
    /// Policies that deny all that they select, because something in them cannot be evaluated.
    defective: BTreeSet<PolicyId>,
}

/// Policies that the decision cannot use, and why.
type Defects = Vec<(PolicyId, String)>;

/// What trying policies out has told. It follows from the object and the settings of the mesh alone, and takes longer than
/// all else.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tried {
    /// By the place of the object in memory, and the policy that it has become.
    defects: HashMap<(usize, PolicyId), Arc<Defects>>,
    /// By the places of the policy and of the guardrail.
    beyond: HashMap<(usize, usize), Option<String>>,
}

/// Where an object lies: as long as it is held, no other one does.
fn address(object: &Arc<api::Object>) -> usize {
    Arc::as_ptr(object).addr()
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
        providers: &'a Providers,
        known: &'a Tried,
        report: &mut Report,
    ) -> Self {
        let mut authz = Self {
            providers,
            known,
            tried: Tried::default(),
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
        let is_root = of.namespace() == self.root_namespace;
        tell_nothing_selected(view, of.object, is_root, of.body.labels(), report);
        let spec = Arc::new(spec(of, view.options.profile));
        self.find_defects(of, &spec, report);
        if spec.action == Action::Allow && !spec.dry_run && spec.invalid.is_none() && report.hears(of.object)
        {
            for rail in self.guardrails.bounding(of.namespace(), self.root_namespace) {
                let pair = (address(of.object), address(rail.of.object));
                let beyond = match self.known.beyond.get(&pair) {
                    Some(beyond) => beyond.clone(),
                    None => rail.beyond(&spec, &self.context),
                };
                if let Some(request) = &beyond {
                    tell_clamped(&of, request, rail, report);
                }
                self.tried.beyond.insert(pair, beyond);
            }
        }
        self.carry(&spec);
        self.namespaces
            .entry(of.namespace())
            .or_default()
            .push(Compiled { of, spec });
    }

    fn carry(&mut self, spec: &Arc<PolicySpec>) {
        self.resources.insert(spec.id.clone(), Arc::clone(spec));
    }

    /// Asks the very code that will decide whether it can use the policy (R15).
    fn find_defects<T>(&mut self, of: Of<'a, T>, spec: &Arc<PolicySpec>, report: &mut Report) {
        let which = (address(of.object), spec.id.clone());
        let defects = match self.known.defects.get(&which) {
            Some(defects) => Arc::clone(defects),
            None => {
                let set = PolicySet::compile(&[Arc::clone(spec)], &[], &self.context);
                let all = set.defects().map(|(id, why)| (id.clone(), why.to_owned()));
                Arc::new(all.collect::<Defects>())
            }
        };
        self.tried.defects.insert(which, Arc::clone(&defects));
        for (id, why) in defects.iter() {
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
    pub(crate) fn select(&self, pod: &PodFacts, report: &mut Report) -> Vec<PolicyId> {
        let scopes: BTreeSet<&str> = [self.root_namespace, pod.namespace()].into();
        let candidates = scopes
            .into_iter()
            .filter_map(|ns| self.namespaces.get(ns))
            .flatten();
        let mut ids = Vec::new();
        for policy in candidates.filter(|policy| covers(policy.of.body.labels(), pod.labels())) {
            report.applies(policy.of.object, pod.place());
            ids.push(policy.spec.id.clone());
        }
        for rail in self.guardrails.of(pod.namespace()) {
            for spec in rail.policies() {
                report.applies(rail.of.object, pod.place());
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
            let Some(spec) = self.resources.get(id) else {
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

    /// The policies of these names, and the external authorizers that those ask, each once.
    pub(crate) fn resources(&self, ids: &BTreeSet<&PolicyId>) -> Vec<Arc<Resource>> {
        let specs: Vec<_> = ids.iter().filter_map(|id| self.resources.get(*id)).collect();
        let policies = specs
            .iter()
            .map(|spec| Arc::new(Resource::Policy(Arc::clone(spec))));
        let providers = self.providers.of(specs.iter().map(|spec| spec.as_ref()));
        policies.chain(providers).collect()
    }

    /// What was tried of the policies, to be known the next time.
    pub(crate) fn tried(self) -> Tried {
        self.tried
    }

    /// For people: what stands between a pod and its callers.
    pub(crate) fn describe(&self, ids: &[PolicyId], deny_by_default: bool) -> String {
        let specs = || ids.iter().filter_map(|id| self.resources.get(id));
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
