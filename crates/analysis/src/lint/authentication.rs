//! RequestAuthentication verifies a token that is there, and passes a request that has none (P56).

use std::collections::BTreeMap;

use api::{AuthorizationPolicy, Kind, Object, Problem, RequestAuthentication, Severity};

use super::code;
use crate::world::Offline;

/// Whether no policy for the same workloads asks for a token.
pub(super) fn not_demanded(
    world: &Offline,
    object: &Object,
    body: &RequestAuthentication,
) -> Option<Problem> {
    let demands = |rule: &api::JwtRule| rule.presence == "REQUIRED";
    if body.jwt_rules.is_empty() || !body.target_refs.is_empty() || body.jwt_rules.iter().any(demands) {
        return None;
    }
    let root = &world.mesh().root_namespace;
    let of_root = object.meta.namespace == *root;
    let companion = world.objects().iter().any(|other| match &other.kind {
        Kind::AuthorizationPolicy(policy) => {
            let near =
                of_root || other.meta.namespace == object.meta.namespace || other.meta.namespace == *root;
            near && meets(policy.labels(), body.labels()) && demands_token(policy)
        }
        _ => false,
    });
    if companion {
        return None;
    }
    let message = "a token that is there is verified, and a request without one passes: no AuthorizationPolicy for the same workloads asks for it (P56)";
    let problem = Problem::new(Severity::Warning, code::TOKEN_NOT_DEMANDED, message).remedy(
        "add a DENY policy with `notRequestPrincipals: [\"*\"]`, an ALLOW policy with `requestPrincipals`, or `presence: REQUIRED` to the rule",
    );
    Some(object.problem(problem, "spec.jwtRules"))
}

/// Whether some workload may have the labels of both.
fn meets(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> bool {
    a.iter()
        .all(|(key, value)| b.get(key).is_none_or(|other| other == value))
}

fn demands_token(policy: &AuthorizationPolicy) -> bool {
    policy.rules.iter().any(|rule| {
        let source = rule.from.iter().map(|from| &from.source);
        let principals = source
            .into_iter()
            .any(|source| !source.request_principals.is_empty() || !source.not_request_principals.is_empty());
        principals || rule.when.iter().any(|when| when.key.starts_with("request.auth."))
    })
}
