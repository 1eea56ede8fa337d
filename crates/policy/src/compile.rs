//! Policies as written, made into rules that can be tested.

mod aliases;
mod field;
mod literal;

use std::sync::Arc;

use crate::context::{Compat, Context};
use crate::facts::Facts;
use crate::matchers::{Bias, Field};
use crate::path::Mode;
use crate::spec::{Action, ConditionSpec, OperationSpec, PolicySpec, RuleSpec, SourceSpec};
use field::{Attribute, Env, test};

/// One rule: any source, any operation, all conditions (semantics 2.3). Its parts are shared with its clones.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// The policy, by its place in the set.
    pub(crate) policy: u32,
    /// The rule's place in the policy.
    pub(crate) index: usize,
    /// Empty where `from` is absent.
    pub(crate) sources: Arc<[Box<[Field]>]>,
    /// Empty where `to` is absent.
    pub(crate) operations: Arc<[Box<[Field]>]>,
    pub(crate) conditions: Arc<[Field]>,
    pub(crate) bias: Bias,
}

/// One alternative of a rule's `from` or `to`, or all of the rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    Whole,
    Source(u32),
    Operation(u32),
}

impl Rule {
    /// Whether the rule matches through the given part.
    pub(crate) fn matches(&self, part: Part, facts: &Facts<'_>) -> bool {
        let source = match part {
            Part::Source(at) => self.alternative(&self.sources, Some(at), facts),
            _ => self.alternative(&self.sources, None, facts),
        };
        source
            && match part {
                Part::Operation(at) => self.alternative(&self.operations, Some(at), facts),
                _ => self.alternative(&self.operations, None, facts),
            }
            && self.all(&self.conditions, facts)
    }

    fn alternative(&self, all: &[Box<[Field]>], only: Option<u32>, facts: &Facts<'_>) -> bool {
        match only.map(|at| usize::try_from(at).unwrap_or(usize::MAX)) {
            Some(at) => all.get(at).is_some_and(|fields| self.all(fields, facts)),
            None => all.is_empty() || all.iter().any(|fields| self.all(fields, facts)),
        }
    }

    fn all(&self, fields: &[Field], facts: &Facts<'_>) -> bool {
        fields.iter().all(|field| field.holds(facts, self.bias))
    }

    fn fields(&self) -> impl Iterator<Item = &Field> {
        let alternatives = self.sources.iter().chain(self.operations.iter());
        alternatives
            .flat_map(|fields| fields.iter())
            .chain(self.conditions.iter())
    }

    /// Whether some field asks for what only a request has.
    pub(crate) fn http_only(&self) -> bool {
        self.fields().any(|field| field.test.http_only())
    }

    pub(crate) fn reads_path(&self) -> bool {
        self.fields().any(|field| field.test.reads_path())
    }
}

/// What became of one policy.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) rules: Vec<Rule>,
    /// Why the policy cannot be used; then it denies all that it selects (R15).
    pub(crate) defect: Option<String>,
}

/// What becomes of the case of paths in policies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Case {
    Kept,
    /// In lower case, for requests whose path is, too.
    Folded,
}

/// Compiles the rules of the policies of one mesh.
#[derive(Debug)]
pub(crate) struct Compiler {
    compat: Compat,
    domains: Arc<[model::TrustDomain]>,
    paths: Mode,
    case: Case,
}

impl Compiler {
    pub(crate) fn new(context: &Context, case: Case) -> Self {
        Self {
            compat: context.compat,
            domains: aliases::domains(context),
            paths: context.paths,
            case,
        }
    }

    /// `place` is the policy's in the set.
    pub(crate) fn policy(&self, spec: &PolicySpec, place: u32) -> Compiled {
        let env = Env {
            compat: self.compat,
            domains: Arc::clone(&self.domains),
            namespace: &spec.id.namespace,
            paths: self.paths,
            case: self.case,
        };
        let mut compiled = Compiled {
            rules: Vec::with_capacity(spec.rules.len()),
            defect: None,
        };
        let secure = self.compat == Compat::Secure;
        if secure && spec.dry_run && matches!(spec.action, Action::Custom { .. }) {
            compiled.defect = Some("a dry run is for ALLOW and DENY only (R33)".to_owned());
        }
        for (index, rule) in spec.rules.iter().enumerate() {
            let draft = Draft::of(rule, &spec.action, &env);
            let broken = draft.problems.into_iter().next();
            if secure && compiled.defect.is_none() {
                compiled.defect = broken.map(|why| format!("rules[{index}]: {why}"));
            }
            // Upstream drops the rule, and a DENY with it (R15).
            if !draft.dropped {
                compiled.rules.push(Rule {
                    policy: place,
                    index,
                    sources: draft.sources.into(),
                    operations: draft.operations.into(),
                    conditions: draft.conditions.into(),
                    bias: bias(&spec.action),
                });
            }
        }
        compiled
    }
}

/// A match of ALLOW, or within a ceiling, opens; of all others it closes, or only marks.
fn bias(action: &Action) -> Bias {
    match action {
        Action::Allow | Action::Ceiling => Bias::Narrow,
        Action::Deny | Action::Audit | Action::Custom { .. } => Bias::Wide,
    }
}

/// A rule on its way.
struct Draft<'a> {
    env: &'a Env<'a>,
    allow: bool,
    sources: Vec<Box<[Field]>>,
    operations: Vec<Box<[Field]>>,
    conditions: Vec<Field>,
    problems: Vec<String>,
    dropped: bool,
}

impl<'a> Draft<'a> {
    fn of(rule: &RuleSpec, action: &Action, env: &'a Env<'a>) -> Self {
        let mut draft = Self {
            env,
            allow: matches!(action, Action::Allow | Action::Ceiling),
            sources: Vec::with_capacity(rule.from.len()),
            operations: Vec::with_capacity(rule.to.len()),
            conditions: Vec::with_capacity(rule.when.len()),
            problems: Vec::new(),
            dropped: false,
        };
        for source in &rule.from {
            let fields = draft.source(source);
            draft.sources.push(fields.into());
        }
        for operation in &rule.to {
            let fields = draft.operation(operation);
            draft.operations.push(fields.into());
        }
        for (place, condition) in (0..).zip(&rule.when) {
            let fields = draft.condition(condition);
            let placed = fields.into_iter().map(|field| Field { place, ..field });
            draft.conditions.extend(placed);
        }
        draft
    }

    /// Taken apart by name, so that a field that is added and not compiled is an error of the Rust compiler's (R7).
    fn source(&mut self, source: &SourceSpec) -> Vec<Field> {
        use crate::matchers::Address;
        let SourceSpec {
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
        } = source;
        let mut out = Vec::new();
        self.pair(
            &mut out,
            ["principals", "notPrincipals"],
            &Attribute::Principal,
            principals,
            not_principals,
        );
        self.pair(
            &mut out,
            ["requestPrincipals", "notRequestPrincipals"],
            &Attribute::RequestPrincipal,
            request_principals,
            not_request_principals,
        );
        self.pair(
            &mut out,
            ["namespaces", "notNamespaces"],
            &Attribute::Namespace,
            namespaces,
            not_namespaces,
        );
        self.pair(
            &mut out,
            ["serviceAccounts", "notServiceAccounts"],
            &Attribute::ServiceAccount,
            service_accounts,
            not_service_accounts,
        );
        self.pair(
            &mut out,
            ["trustDomains", "notTrustDomains"],
            &Attribute::TrustDomain,
            trust_domains,
            not_trust_domains,
        );
        let (peer, client) = (
            Attribute::Address(Address::Source),
            Attribute::Address(Address::Remote),
        );
        self.pair(
            &mut out,
            ["ipBlocks", "notIpBlocks"],
            &peer,
            ip_blocks,
            not_ip_blocks,
        );
        self.pair(
            &mut out,
            ["remoteIpBlocks", "notRemoteIpBlocks"],
            &client,
            remote_ip_blocks,
            not_remote_ip_blocks,
        );
        out
    }

    fn operation(&mut self, operation: &OperationSpec) -> Vec<Field> {
        let OperationSpec {
            hosts,
            not_hosts,
            ports,
            not_ports,
            methods,
            not_methods,
            paths,
            not_paths,
        } = operation;
        let mut out = Vec::new();
        self.pair(
            &mut out,
            ["ports", "notPorts"],
            &Attribute::Port,
            ports,
            not_ports,
        );
        self.pair(
            &mut out,
            ["methods", "notMethods"],
            &Attribute::Method,
            methods,
            not_methods,
        );
        self.pair(
            &mut out,
            ["paths", "notPaths"],
            &Attribute::Path,
            paths,
            not_paths,
        );
        self.pair(
            &mut out,
            ["hosts", "notHosts"],
            &Attribute::Host,
            hosts,
            not_hosts,
        );
        out
    }

    fn condition(&mut self, condition: &ConditionSpec) -> Vec<Field> {
        let mut out = Vec::new();
        match Attribute::of_key(&condition.key) {
            Err(why) => {
                self.problems.push(why);
                self.dropped = true;
            }
            Ok(attribute) => {
                if condition.values.is_empty() && condition.not_values.is_empty() {
                    self.problems.push(format!(
                        "condition `{}` has neither `values` nor `notValues`",
                        condition.key
                    ));
                }
                self.pair(
                    &mut out,
                    ["values", "notValues"],
                    &attribute,
                    &condition.values,
                    &condition.not_values,
                );
            }
        }
        out
    }

    fn pair(
        &mut self,
        out: &mut Vec<Field>,
        names: [&'static str; 2],
        attribute: &Attribute,
        values: &[String],
        not: &[String],
    ) {
        let [name, not_name] = names;
        for (name, values, negated) in [(name, values, false), (not_name, not, true)] {
            let (test, bad) = test(attribute, values, self.env);
            // Upstream: an ALLOW loses the rule, any other action the value (2.11).
            self.dropped |= self.allow && !bad.is_empty();
            self.problems.extend(bad);
            out.extend(test.map(|test| Field {
                test,
                negated,
                name,
                place: 0,
            }));
        }
    }
}
