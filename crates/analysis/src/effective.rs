//! What is in force for a workload: its policies, merged and in the order in which they are asked.

use std::borrow::Cow;

use model::Protocol;
use policy::{Action, ConditionSpec, OperationSpec, PolicyId, PolicySpec, RuleSpec, SourceSpec};
use serde::{Deserialize, Serialize};

use crate::answer::place;
use crate::decide::decider;
use crate::known::{Found, Known, Unknown};
use crate::question::Target;
use crate::world::Offline;

/// What stands between replicas that decide alike and whoever calls them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Effective {
    /// Of which pods, `namespace/name`; the first few where there are many.
    pub pods: Vec<String>,
    /// How many there are.
    pub count: usize,
    /// Whether a proxy stands before them.
    pub in_mesh: bool,
    /// The mode of ports that `ports` does not name.
    pub mtls: Option<String>,
    /// The object that says so: a PeerAuthentication as `namespace/name`, a Guardrail's floor as
    /// `Guardrail/namespace/name`.
    pub mtls_decided_by: Option<String>,
    /// Where that was written.
    pub mtls_at: Option<String>,
    /// Ports that are declared.
    pub ports: Vec<PortInForce>,
    /// CUSTOM, AUDIT, DENY, ALLOW; dry runs last.
    pub policies: Vec<PolicyInForce>,
    /// What becomes of what no rule speaks of: `deny` or `allow`, and why.
    pub otherwise: Otherwise,
}

/// One declared port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortInForce {
    /// The workload port.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its mode.
    pub mtls: String,
    /// The Service that declares it.
    pub service: Option<String>,
}

/// One policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyInForce {
    /// `CUSTOM`, `AUDIT`, `DENY`, `ALLOW`.
    pub action: Cow<'static, str>,
    /// Of CUSTOM, who is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether it only counts.
    pub dry_run: bool,
    /// Why it denies everything instead of what it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid: Option<String>,
    /// `file:line`.
    pub at: Option<String>,
    /// Its rules, in order.
    pub rules: Vec<RuleInForce>,
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleInForce {
    /// Its index, from 0.
    pub rule: usize,
    /// `file:line`.
    pub at: Option<String>,
    /// What it matches, in words.
    pub matches: String,
}

/// What becomes of what no rule speaks of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Otherwise {
    /// `deny` or `allow`.
    pub decision: Cow<'static, str>,
    /// Why.
    pub why: Cow<'static, str>,
}

impl Offline {
    /// What is in force for a target, one entry for each kind of replica.
    ///
    /// # Errors
    /// There is no such target.
    pub fn effective(&self, target: &Target<'_>) -> Result<Vec<Effective>, Unknown> {
        self.in_force(target, self.stand_in(target))
    }
}

impl Known {
    /// What is in force for a target that is no set of labels, one entry for each kind of replica.
    ///
    /// # Errors
    /// There is no such target.
    pub fn effective(&self, target: &Target<'_>) -> Result<Vec<Effective>, Unknown> {
        self.in_force(target, None)
    }

    fn in_force(&self, target: &Target<'_>, stand_in: Option<&str>) -> Result<Vec<Effective>, Unknown> {
        let found = match target.port {
            0 => self.whatever_port(target, stand_in)?,
            _ => self.find(target, stand_in)?,
        };
        Ok(found.into_iter().map(|found| self.of_found(found)).collect())
    }

    fn of_found(&self, found: &Found) -> Effective {
        let inbound = found.workload.inbound.as_ref();
        let decided_by = inbound.and_then(|i| i.mtls_decided_by.clone());
        let at = decided_by.as_deref().and_then(|name| {
            let (kind, namespace, name) = decider(name);
            let (file, line) = self.origin(kind, namespace, name);
            place(&file, line)
        });
        let ports = inbound.map(|i| {
            i.ports.iter().map(|port| PortInForce {
                port: port.port,
                protocol: port.protocol,
                mtls: port.mtls.to_string(),
                service: port.service.as_ref().map(ToString::to_string),
            })
        });
        Effective {
            pods: found.pods.clone(),
            count: found.count,
            in_mesh: inbound.is_some(),
            mtls: inbound.map(|i| i.default_mtls.to_string()),
            mtls_decided_by: decided_by,
            mtls_at: at,
            ports: ports.into_iter().flatten().collect(),
            policies: self.policies_in_force(found),
            otherwise: self.otherwise(found),
        }
    }

    fn policies_in_force(&self, found: &Found) -> Vec<PolicyInForce> {
        let Some(set) = &found.policies else {
            return Vec::new();
        };
        let defects: Vec<(&PolicyId, &str)> = set.defects().collect();
        let missing = set.names().filter(|id| !set.specs().any(|spec| spec.id == **id));
        let mut policies: Vec<(u8, PolicyInForce)> = missing.map(|id| (0, missing_policy(id))).collect();
        for spec in set.specs() {
            let defect = defects
                .iter()
                .find(|(id, _)| **id == spec.id)
                .map(|(_, why)| (*why).to_owned());
            policies.push((order(spec), policy_in_force(spec, defect)));
        }
        policies.sort_by(|(a, left), (b, right)| {
            (a, &left.namespace, &left.name).cmp(&(b, &right.namespace, &right.name))
        });
        policies.into_iter().map(|(_, policy)| policy).collect()
    }

    fn otherwise(&self, found: &Found) -> Otherwise {
        let allows = |spec: &PolicySpec| spec.action == Action::Allow && !spec.dry_run;
        let (decision, why) = match &found.policies {
            None => ("allow", "no proxy stands before it"),
            Some(set) if set.specs().any(allows) => ("deny", "an ALLOW policy selects it"),
            Some(_) if self.mesh.deny_by_default => (
                "deny",
                "no ALLOW policy selects it, and the mesh denies until one allows",
            ),
            Some(_) => ("allow", "no ALLOW policy selects it, and the mesh then allows"),
        };
        Otherwise {
            decision: Cow::Borrowed(decision),
            why: Cow::Borrowed(why),
        }
    }
}

fn order(spec: &PolicySpec) -> u8 {
    let action = match spec.action {
        Action::Custom { .. } => 1,
        Action::Audit => 2,
        Action::Deny => 3,
        Action::Allow => 4,
        Action::Ceiling => 5,
    };
    if spec.dry_run { action + 5 } else { action }
}

fn missing_policy(id: &PolicyId) -> PolicyInForce {
    PolicyInForce {
        action: Cow::Borrowed("DENY"),
        provider: None,
        namespace: id.namespace.clone(),
        name: id.name.clone(),
        dry_run: false,
        invalid: Some("it has not arrived".to_owned()),
        at: None,
        rules: Vec::new(),
    }
}

fn policy_in_force(spec: &PolicySpec, defect: Option<String>) -> PolicyInForce {
    let file = &spec.origin.file;
    let rules = spec.rules.iter().enumerate().map(|(number, rule)| RuleInForce {
        rule: number,
        at: place(file, rule.line),
        matches: describe(rule),
    });
    let (action, provider) = match &spec.action {
        Action::Custom { provider } => ("CUSTOM", Some(provider.clone())),
        Action::Audit => ("AUDIT", None),
        Action::Deny => ("DENY", None),
        Action::Allow => ("ALLOW", None),
        Action::Ceiling => ("CEILING", None),
    };
    PolicyInForce {
        action: Cow::Borrowed(action),
        provider,
        namespace: spec.id.namespace.clone(),
        name: spec.id.name.clone(),
        dry_run: spec.dry_run,
        invalid: defect,
        at: place(file, spec.origin.line),
        rules: rules.collect(),
    }
}

/// A rule in words: alternatives are joined by `or`, what must hold together by `and`.
fn describe(rule: &RuleSpec) -> String {
    let any = |all: Vec<String>| match all.len() {
        0 | 1 => all.concat(),
        _ => format!("({})", all.join(" or ")),
    };
    let parts = [
        any(rule.from.iter().map(source).collect()),
        any(rule.to.iter().map(operation).collect()),
        rule.when.iter().map(condition).collect::<Vec<_>>().join(" and "),
    ];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return "everything".to_owned();
    }
    parts.join(" and ")
}

fn lists(fields: &[(&str, &Vec<String>)]) -> String {
    let said = fields.iter().filter(|(_, values)| !values.is_empty());
    let said: Vec<String> = said
        .map(|(name, values)| format!("{name} {}", values.join(", ")))
        .collect();
    if said.is_empty() {
        return "anything".to_owned();
    }
    said.join(" and ")
}

fn source(source: &SourceSpec) -> String {
    let s = source;
    lists(&[
        ("principals", &s.principals),
        ("notPrincipals", &s.not_principals),
        ("requestPrincipals", &s.request_principals),
        ("notRequestPrincipals", &s.not_request_principals),
        ("namespaces", &s.namespaces),
        ("notNamespaces", &s.not_namespaces),
        ("serviceAccounts", &s.service_accounts),
        ("notServiceAccounts", &s.not_service_accounts),
        ("trustDomains", &s.trust_domains),
        ("notTrustDomains", &s.not_trust_domains),
        ("ipBlocks", &s.ip_blocks),
        ("notIpBlocks", &s.not_ip_blocks),
        ("remoteIpBlocks", &s.remote_ip_blocks),
        ("notRemoteIpBlocks", &s.not_remote_ip_blocks),
    ])
}

fn operation(operation: &OperationSpec) -> String {
    let o = operation;
    lists(&[
        ("hosts", &o.hosts),
        ("notHosts", &o.not_hosts),
        ("ports", &o.ports),
        ("notPorts", &o.not_ports),
        ("methods", &o.methods),
        ("notMethods", &o.not_methods),
        ("paths", &o.paths),
        ("notPaths", &o.not_paths),
    ])
}

fn condition(condition: &ConditionSpec) -> String {
    let c = condition;
    let not = format!("{} not", c.key);
    lists(&[(c.key.as_str(), &c.values), (not.as_str(), &c.not_values)])
}
