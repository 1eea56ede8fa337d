//! What is wrong across objects, or most likely not meant, in AuthorizationPolicy and RequestAuthentication.
//!
//! What a value's own text shows is told by `api`; what selects nothing or is shadowed by `compiler`. Here is what takes
//! the mesh's settings, several fields, or several objects to see (semantics 2.16, 10.10).

mod authentication;
mod fields;
mod paths;
mod ports;

use api::{Action, AuthorizationPolicy, Kind, Object, Problem, Severity};

use crate::world::Offline;

/// Stable codes of findings.
mod code {
    /// A path that no path in normal form matches (R50).
    pub(super) const PATH_NOT_NORMAL: &str = "MW0701";
    /// A pattern that fails open where it does not match (P4).
    pub(super) const FRAGILE: &str = "MW0702";
    /// Hosts where the caller chooses the Host freely (P12).
    pub(super) const HOST_ON_SIDECAR: &str = "MW0703";
    /// An exact host without the form with a port (P11).
    pub(super) const HOST_WITHOUT_PORT: &str = "MW0704";
    /// A token is verified and never demanded (P56).
    pub(super) const TOKEN_NOT_DEMANDED: &str = "MW0705";
    /// A port that no selected workload has.
    pub(super) const NO_SUCH_PORT: &str = "MW0706";
}

impl Offline {
    /// The findings about policies, in the order of objects; what `Offline::compiled` says is not repeated.
    pub fn lint(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        for object in self.objects() {
            match &object.kind {
                Kind::AuthorizationPolicy(policy) if object.invalid.is_none() => {
                    let findings = Findings {
                        object,
                        policy,
                        found: &mut found,
                    };
                    self.policy(findings);
                }
                Kind::RequestAuthentication(body) if object.invalid.is_none() => {
                    found.extend(authentication::not_demanded(self, object, body));
                }
                _ => {}
            }
        }
        found
    }

    fn policy(&self, mut findings: Findings<'_>) {
        paths::not_normal(self.mesh(), &mut findings);
        fields::fragile(&mut findings);
        if findings.policy.target_refs.is_empty() && !of_gateway(findings.policy) {
            fields::hosts_on_sidecars(&mut findings);
        }
        fields::hosts_without_port(self.mesh(), &mut findings);
        ports::nowhere(self, &mut findings);
    }
}

/// Whether the policy speaks of Istio's gateways, by the labels that they have.
fn of_gateway(policy: &AuthorizationPolicy) -> bool {
    let says = |value: &String| value.contains("gateway");
    ["istio", "app", "gateway.networking.k8s.io/gateway-name"]
        .iter()
        .filter_map(|key| policy.labels().get(*key))
        .any(says)
}

/// A policy under scrutiny, and where findings go.
struct Findings<'f> {
    object: &'f Object,
    policy: &'f AuthorizationPolicy,
    found: &'f mut Vec<Problem>,
}

impl Findings<'_> {
    fn tell(&mut self, path: &str, severity: Severity, code: &'static str, message: String, remedy: &str) {
        let problem = Problem::new(severity, code, message).remedy(remedy);
        self.found.push(self.object.problem(problem, path));
    }

    /// Whether a match refuses.
    fn denies(&self) -> bool {
        self.policy.action == Action::Deny
    }
}
