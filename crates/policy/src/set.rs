//! The policies that select one workload, compiled.

use std::sync::Arc;

use model::Reason;

use crate::compile::{Case, Compiler, Rule};
use crate::context::{Compat, Context};
use crate::facts::Facts;
use crate::index::{Index, place};
use crate::path::{Dialect, Dialects};
use crate::spec::{Action, PolicyId, PolicySpec};

/// The policies that select one workload, compiled. Cheap to share, immutable.
///
/// The default holds no policy and admits nothing.
#[derive(Clone, Debug)]
pub struct PolicySet {
    inner: Arc<Inner>,
    backend: Option<Arc<Backend>>,
}

/// How the workload reads paths, where that is not as the mesh writes them.
#[derive(Debug)]
struct Backend {
    dialects: Dialects,
    /// The policies with their paths in lower case, where a port does not tell cases apart.
    folded: Option<Inner>,
}

/// What a set decides with.
#[derive(Debug)]
pub(crate) struct Inner {
    /// In the order of their names.
    pub(crate) policies: Box<[Policy]>,
    /// In the order of policies, then of rules.
    pub(crate) rules: Box<[Rule]>,
    pub(crate) requests: Lanes,
    pub(crate) connections: Lanes,
    /// Why everything is refused.
    pub(crate) refusal: Option<Refusal>,
    /// Whether some ALLOW policy is in force.
    pub(crate) allows: bool,
    /// The dry runs of each action: whether there are any, and whether one is unusable.
    pub(crate) shadow_deny: Option<Usable>,
    pub(crate) shadow_allow: Option<Usable>,
    pub(crate) deny_by_default: bool,
    pub(crate) compat: Compat,
    /// Whether some rule depends on the path.
    pub(crate) reads_path: bool,
    needs_http: bool,
}

/// One policy, or the name of one that has not arrived.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) id: Arc<PolicyId>,
    pub(crate) spec: Option<Arc<PolicySpec>>,
    pub(crate) defect: Option<String>,
    /// The first of its rules in the set, and how many were kept.
    pub(crate) first_rule: usize,
    pub(crate) rules: usize,
}

/// A policy that refuses everything.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    /// Its place in the set.
    pub(crate) policy: usize,
}

/// Whether all policies of a lane can be evaluated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Usable {
    All,
    /// Some cannot: the lane denies.
    NotAll,
}

/// The rules by what they do.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    pub(crate) custom: Index,
    pub(crate) audit: Index,
    pub(crate) deny: Index,
    pub(crate) allow: Index,
    pub(crate) shadow_deny: Index,
    pub(crate) shadow_allow: Index,
    /// One for each ceiling, by its place in the set.
    pub(crate) ceilings: Vec<(usize, Index)>,
}

/// What the rules of a policy are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lane {
    Custom,
    Audit,
    Deny,
    Allow,
    Ceiling,
    ShadowDeny,
    ShadowAllow,
    /// Nothing: a dry run that is not for its action.
    Idle,
}

impl Lane {
    pub(crate) fn of(spec: &PolicySpec) -> Self {
        match (&spec.action, spec.dry_run) {
            (Action::Custom { .. }, false) => Self::Custom,
            // Upstream builds an enforcing DENY of it (R33).
            (Action::Custom { .. }, true) | (Action::Deny, false) => Self::Deny,
            (Action::Audit, false) => Self::Audit,
            (Action::Audit, true) => Self::Idle,
            (Action::Allow, false) => Self::Allow,
            (Action::Ceiling, _) => Self::Ceiling,
            (Action::Deny, true) => Self::ShadowDeny,
            (Action::Allow, true) => Self::ShadowAllow,
        }
    }
}

impl Lanes {
    /// `http` says whether requests are decided, or connections, on which ALLOW rules with HTTP fields are not (2.11).
    fn new(rules: &[Rule], lanes: &[Lane], http: bool) -> Self {
        let of = |wanted: Lane, only: Option<usize>| {
            let opens = matches!(wanted, Lane::Allow | Lane::ShadowAllow | Lane::Ceiling);
            let member = |rule: &Rule| {
                let policy = usize::try_from(rule.policy).unwrap_or(usize::MAX);
                lanes.get(policy) == Some(&wanted)
                    && only.is_none_or(|only| only == policy)
                    && (http || !opens || !rule.http_only())
            };
            let members: Vec<u32> = (0..)
                .zip(rules)
                .filter(|(_, r)| member(r))
                .map(|(i, _)| i)
                .collect();
            Index::new(rules, &members, http)
        };
        let index = |wanted| of(wanted, None);
        let ceilings = lanes
            .iter()
            .enumerate()
            .filter(|(_, lane)| **lane == Lane::Ceiling);
        Self {
            custom: index(Lane::Custom),
            audit: index(Lane::Audit),
            deny: index(Lane::Deny),
            allow: index(Lane::Allow),
            shadow_deny: index(Lane::ShadowDeny),
            shadow_allow: index(Lane::ShadowAllow),
            ceilings: ceilings
                .map(|(at, _)| (at, of(Lane::Ceiling, Some(at))))
                .collect(),
        }
    }
}

impl PolicySet {
    /// Compiles the policies that select a workload. The order of `specs` has no influence on any decision.
    ///
    /// `missing` are policies known by name that have not arrived: they deny (R34). A policy that is marked
    /// invalid, or (secure) holds a value that cannot be evaluated, denies all that it selects (R15); a dry run never
    /// enforces, it denies in its shadow.
    pub fn compile(specs: &[Arc<PolicySpec>], missing: &[PolicyId], context: &Context) -> Self {
        Self::compile_for(specs, missing, context, &Dialects::default())
    }

    /// [`Self::compile`], for a workload that reads paths in dialects.
    pub fn compile_for(
        specs: &[Arc<PolicySpec>],
        missing: &[PolicyId],
        context: &Context,
        dialects: &Dialects,
    ) -> Self {
        let arrived = specs
            .iter()
            .map(|spec| (Arc::new(spec.id.clone()), Some(Arc::clone(spec))));
        let awaited = missing.iter().map(|id| (Arc::new(id.clone()), None));
        let mut all: Vec<_> = arrived.chain(awaited).collect();
        // Names are unique; were they not, their contents would decide.
        all.sort_by(|a, b| {
            a.0.cmp(&b.0)
                .then_with(|| format!("{a:?}").cmp(&format!("{b:?}")))
        });
        let folds = dialects.each().any(|dialect| dialect.case_insensitive);
        let backend = (!dialects.is_plain()).then(|| {
            Arc::new(Backend {
                dialects: dialects.clone(),
                folded: folds.then(|| Inner::new(all.clone(), context, Case::Folded)),
            })
        });
        Self {
            inner: Arc::new(Inner::new(all, context, Case::Kept)),
            backend,
        }
    }

    /// Whether no policy at all selects the workload.
    pub fn is_empty(&self) -> bool {
        self.inner.policies.is_empty()
    }

    /// The names of the policies, in order; also of those that have not arrived.
    pub fn names(&self) -> impl Iterator<Item = &PolicyId> {
        self.inner.policies.iter().map(|policy| &*policy.id)
    }

    /// The policies as they were written, by name. One that has not arrived is not among them.
    pub fn specs(&self) -> impl Iterator<Item = &PolicySpec> {
        self.inner
            .policies
            .iter()
            .filter_map(|policy| policy.spec.as_deref())
    }

    /// Whether some policy names a field that only an HTTP request has (semantics 2.11).
    pub fn needs_http(&self) -> bool {
        self.inner.needs_http
    }

    /// The policies that were found unusable here, with a sentence why; they deny everything.
    ///
    /// One that is a dry run denies only in its shadow.
    pub fn defects(&self) -> impl Iterator<Item = (&PolicyId, &str)> {
        let defect = |policy: &'_ Policy| policy.defect.is_some();
        self.inner
            .policies
            .iter()
            .filter(move |policy| defect(policy))
            .map(|policy| (&*policy.id, policy.defect.as_deref().unwrap_or_default()))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// How the workload reads the paths of a port, and the policies for it where it does not tell cases apart; `None` where
    /// it reads them as they are.
    pub(crate) fn dialect(&self, port: u16) -> Option<(Dialect, Option<&Inner>)> {
        let backend = self.backend.as_deref()?;
        let dialect = backend.dialects.of(port);
        let folded = backend.folded.as_ref().filter(|_| dialect.case_insensitive);
        (!dialect.is_plain()).then_some((dialect, folded))
    }
}

impl Default for PolicySet {
    fn default() -> Self {
        let closed = Context {
            deny_by_default: true,
            ..Context::default()
        };
        Self::compile(&[], &[], &closed)
    }
}

impl Inner {
    fn new(all: Vec<(Arc<PolicyId>, Option<Arc<PolicySpec>>)>, context: &Context, case: Case) -> Self {
        let compiler = Compiler::new(context, case);
        let mut policies = Vec::with_capacity(all.len());
        let mut rules = Vec::with_capacity(all.len());
        let mut lanes = Vec::with_capacity(all.len());
        let mut refusal = None;
        let mut refuse = |reason, policy| {
            refusal.get_or_insert(Refusal { reason, policy });
        };
        for (at, (id, spec)) in all.into_iter().enumerate() {
            let mut policy = Policy {
                id,
                spec,
                defect: None,
                first_rule: rules.len(),
                rules: 0,
            };
            let mut lane = Lane::Idle;
            match &policy.spec {
                None => refuse(Reason::DenyPolicyMissing, at),
                Some(spec) => {
                    let compiled = compiler.policy(spec, u32::try_from(at).unwrap_or(u32::MAX));
                    lane = Lane::of(spec);
                    policy.defect = match &spec.invalid {
                        Some(invalid) => Some(invalid.why.clone()),
                        None => compiled.defect,
                    };
                    match (&spec.invalid, &policy.defect) {
                        (Some(invalid), _) => refuse(invalid.reason, at),
                        (None, Some(_)) if !matches!(lane, Lane::ShadowDeny | Lane::ShadowAllow) => {
                            refuse(Reason::DenyPolicyInvalid, at);
                        }
                        _ => {}
                    }
                    if spec.invalid.is_none() {
                        policy.rules = compiled.rules.len();
                        rules.extend(compiled.rules);
                    }
                }
            }
            policies.push(policy);
            lanes.push(lane);
        }
        let usable = |lane: Lane| {
            let mut members = policies
                .iter()
                .zip(&lanes)
                .filter(|(_, l)| **l == lane)
                .peekable();
            members.peek()?;
            let broken = members.any(|(policy, _): (&Policy, _)| policy.defect.is_some());
            Some(if broken { Usable::NotAll } else { Usable::All })
        };
        Self {
            requests: Lanes::new(&rules, &lanes, true),
            connections: Lanes::new(&rules, &lanes, false),
            refusal,
            allows: lanes.contains(&Lane::Allow),
            shadow_deny: usable(Lane::ShadowDeny),
            shadow_allow: usable(Lane::ShadowAllow),
            deny_by_default: context.deny_by_default,
            compat: context.compat,
            reads_path: rules.iter().any(Rule::reads_path),
            needs_http: rules.iter().any(Rule::http_only),
            policies: policies.into(),
            rules: rules.into(),
        }
    }

    pub(crate) fn lanes(&self, facts: &Facts<'_>) -> &Lanes {
        if facts.http.is_some() {
            &self.requests
        } else {
            &self.connections
        }
    }

    pub(crate) fn rule(&self, at: u32) -> Option<(&Rule, &Policy)> {
        let rule = place(&self.rules, at)?;
        Some((rule, self.policies.get(usize::try_from(rule.policy).ok()?)?))
    }

    /// Who is asked about what a rule matches.
    pub(crate) fn provider(&self, rule: &Rule) -> Option<&str> {
        let policy = self.policies.get(usize::try_from(rule.policy).ok()?)?;
        match &policy.spec.as_deref()?.action {
            Action::Custom { provider } => Some(provider),
            _ => None,
        }
    }
}
