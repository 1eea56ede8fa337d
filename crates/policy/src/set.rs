//! The policies that select one workload, compiled.

mod update;

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
    /// What it was compiled with.
    context: Context,
    case: Case,
    /// Policies that were replaced since everything was compiled.
    replaced: usize,
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
    lane: Lane,
    /// Why it refuses everything.
    refuses: Option<Reason>,
}

/// A policy by name, or only its name where it has not arrived.
type Named<'a> = (&'a PolicyId, Option<&'a Arc<PolicySpec>>);

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
    /// `http` says whether requests are decided, or connections.
    fn new(rules: &[Rule], policies: &[Policy], http: bool) -> Self {
        let index = |wanted: Lane| {
            let members: Vec<u32> = (0..)
                .zip(rules)
                .filter(|(_, rule)| member(rule, policies, wanted, http))
                .map(|(at, _)| at)
                .collect();
            Index::new(rules, &members, http)
        };
        Self {
            custom: index(Lane::Custom),
            audit: index(Lane::Audit),
            deny: index(Lane::Deny),
            allow: index(Lane::Allow),
            shadow_deny: index(Lane::ShadowDeny),
            shadow_allow: index(Lane::ShadowAllow),
            ceilings: ceilings(rules, policies, http),
        }
    }
}

/// An index for each ceiling.
fn ceilings(rules: &[Rule], policies: &[Policy], http: bool) -> Vec<(usize, Index)> {
    let each = policies
        .iter()
        .enumerate()
        .filter(|(_, policy)| policy.lane == Lane::Ceiling);
    let index = |policy: &Policy| {
        let own = policy.first_rule..policy.first_rule + policy.rules;
        let members: Vec<u32> = own
            .filter(|at| {
                rules
                    .get(*at)
                    .is_some_and(|rule| member(rule, policies, Lane::Ceiling, http))
            })
            .filter_map(|at| u32::try_from(at).ok())
            .collect();
        Index::new(rules, &members, http)
    };
    each.map(|(at, policy)| (at, index(policy))).collect()
}

/// Whether a rule is of a lane. On connections, ALLOW rules with HTTP fields are not (2.11).
fn member(rule: &Rule, policies: &[Policy], wanted: Lane, http: bool) -> bool {
    let opens = matches!(wanted, Lane::Allow | Lane::ShadowAllow | Lane::Ceiling);
    let policy = usize::try_from(rule.policy).ok().and_then(|at| policies.get(at));
    policy.is_some_and(|policy| policy.lane == wanted) && (http || !opens || !rule.http_only())
}

/// In the order of their names, which are unique; were they not, their contents would decide.
fn sorted<'a>(specs: &'a [Arc<PolicySpec>], missing: &'a [PolicyId]) -> Vec<Named<'a>> {
    let arrived = specs.iter().map(|spec| (&spec.id, Some(spec)));
    let mut all: Vec<Named<'a>> = arrived.chain(missing.iter().map(|id| (id, None))).collect();
    all.sort_by(|a, b| a.0.cmp(b.0).then_with(|| format!("{a:?}").cmp(&format!("{b:?}"))));
    all
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
        let all = sorted(specs, missing);
        let folds = dialects.each().any(|dialect| dialect.case_insensitive);
        let backend = (!dialects.is_plain()).then(|| {
            Arc::new(Backend {
                dialects: dialects.clone(),
                folded: folds.then(|| Inner::new(&all, context, Case::Folded)),
            })
        });
        Self {
            inner: Arc::new(Inner::new(&all, context, Case::Kept)),
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

    /// Whether some policy may want an external authorizer asked about a request, whatever the request is.
    pub fn asks(&self) -> bool {
        !self.inner.requests.custom.is_empty()
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

/// A set on its way.
#[derive(Debug, Default)]
struct Draft {
    policies: Vec<Policy>,
    rules: Vec<Rule>,
}

impl Draft {
    fn with_capacity(policies: usize) -> Self {
        Self {
            policies: Vec::with_capacity(policies),
            rules: Vec::with_capacity(policies),
        }
    }

    fn add(&mut self, compiler: &Compiler, (id, spec): Named<'_>) {
        let place = u32::try_from(self.policies.len()).unwrap_or(u32::MAX);
        let mut policy = Policy {
            id: Arc::new(id.clone()),
            spec: spec.cloned(),
            defect: None,
            first_rule: self.rules.len(),
            rules: 0,
            lane: Lane::Idle,
            refuses: spec.is_none().then_some(Reason::DenyPolicyMissing),
        };
        if let Some(spec) = spec {
            policy.lane = Lane::of(spec);
            match &spec.invalid {
                Some(invalid) => {
                    policy.defect = Some(invalid.why.clone());
                    policy.refuses = Some(invalid.reason);
                }
                None => {
                    let compiled = compiler.policy(spec, place);
                    let shadow = matches!(policy.lane, Lane::ShadowDeny | Lane::ShadowAllow);
                    policy.refuses =
                        (compiled.defect.is_some() && !shadow).then_some(Reason::DenyPolicyInvalid);
                    policy.defect = compiled.defect;
                    policy.rules = compiled.rules.len();
                    self.rules.extend(compiled.rules);
                }
            }
        }
        self.policies.push(policy);
    }

    fn finish(self, [requests, connections]: [Lanes; 2], context: &Context, case: Case) -> Inner {
        let Self { policies, rules } = self;
        let of = |lane: Lane| policies.iter().filter(move |policy| policy.lane == lane);
        let usable = |lane: Lane| {
            of(lane).next()?;
            let broken = of(lane).any(|policy| policy.defect.is_some());
            Some(if broken { Usable::NotAll } else { Usable::All })
        };
        let mut refusals = (0..).zip(&policies).filter_map(|(at, policy)| {
            Some(Refusal {
                reason: policy.refuses?,
                policy: at,
            })
        });
        Inner {
            requests,
            connections,
            refusal: refusals.next(),
            allows: of(Lane::Allow).next().is_some(),
            shadow_deny: usable(Lane::ShadowDeny),
            shadow_allow: usable(Lane::ShadowAllow),
            deny_by_default: context.deny_by_default,
            compat: context.compat,
            context: context.clone(),
            case,
            replaced: 0,
            reads_path: rules.iter().any(Rule::reads_path),
            needs_http: rules.iter().any(Rule::http_only),
            policies: policies.into(),
            rules: rules.into(),
        }
    }
}

impl Inner {
    fn new(all: &[Named<'_>], context: &Context, case: Case) -> Self {
        let compiler = Compiler::new(context, case);
        let mut draft = Draft::with_capacity(all.len());
        for named in all {
            draft.add(&compiler, *named);
        }
        let lanes = [true, false].map(|http| Lanes::new(&draft.rules, &draft.policies, http));
        draft.finish(lanes, context, case)
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
