//! What is measured: policies of one workload, each of one caller, one method and one prefix of paths, and requests of them.

use std::hint::black_box;
use std::sync::Arc;

use policy::path::Dialects;
use policy::{Context, Facts, PolicySet, PolicySpec, authorize};
use serde_json::{Value, json};
use snapshot::{Index, Resource, Resources};
use testkit::decisions::{Request, policy};

/// As many policies as the targets speak of.
pub const MANY: usize = 10_000;

/// Policies `p00000` and on.
pub fn specs(count: usize, action: &str) -> Vec<Arc<PolicySpec>> {
    (0..count).map(|at| spec(at, action)).collect()
}

/// One of them.
pub fn spec(at: usize, action: &str) -> Arc<PolicySpec> {
    policy(&json!({
        "metadata": {"name": format!("p{at:05}"), "namespace": "ns"},
        "spec": {"action": action, "rules": [{
            "from": [{"source": {"principals": [format!("cluster.local/ns/n{}/sa/s{}", at % 100, at / 100)]}}],
            "to": [{"operation": {"methods": ["GET"], "paths": [format!("/api/v1/team{}/*", at % 1000)]}}],
        }]},
    }))
}

/// Policies that are told apart by a namespace alone, or by a template alone.
pub fn forms(count: usize) -> Vec<Arc<PolicySpec>> {
    let rule = |at: usize| match at % 2 {
        0 => json!({"from": [{"source": {"namespaces": [format!("m{at}")]}}]}),
        _ => json!({"to": [{"operation": {"paths": [format!("/t{at}/{{*}}/x")]}}]}),
    };
    let spec = |at: usize| {
        policy(&json!({
            "metadata": {"name": format!("p{at:05}"), "namespace": "ns"},
            "spec": {"action": "DENY", "rules": [rule(at)]},
        }))
    };
    (0..count).map(spec).collect()
}

/// Compiled with the secure defaults.
pub fn compile(specs: &[Arc<PolicySpec>]) -> PolicySet {
    PolicySet::compile(specs, &[], &Context::default())
}

/// A set in which one policy is another.
pub fn update(set: &PolicySet, specs: &[Arc<PolicySpec>]) -> PolicySet {
    set.update(specs, &[], &Context::default(), &Dialects::default())
}

/// Requests of the callers of all policies; one that its policy matches, or one that none does.
pub fn requests(count: usize, hit: bool) -> Vec<Request> {
    let request = |at: usize| {
        let peer = format!("spiffe://cluster.local/ns/n{}/sa/s{}", at % 100, at / 100);
        let path = match hit {
            true => format!("/api/v1/team{}/x", at % 1000),
            false => "/other/path".to_owned(),
        };
        Request {
            peer: peer.parse().ok(),
            path,
            ..Request::default()
        }
    };
    (0..500).map(|at| request(at * 7919 % count)).collect()
}

/// What a proxy holds whose one workload has these policies.
///
/// # Panics
/// The resources are not those of the crates as they are.
pub fn resources(specs: &[Arc<PolicySpec>]) -> Resources {
    let names: Vec<_> = specs.iter().map(|spec| json!(spec.id)).collect();
    let text = include_str!("../../../fuzz/corpus/snapshot/resources");
    let mut list: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}"));
    for resource in list.as_array_mut().into_iter().flatten() {
        if let Some(workload) = resource.get_mut("workload") {
            workload["inbound"] =
                json!({"ports": [], "default_mtls": "STRICT", "policies": names, "mtls_decided_by": null});
        }
    }
    let list: Vec<Resource> = serde_json::from_value(list).unwrap_or_else(|e| panic!("{e}"));
    let policies = specs.iter().cloned().map(Resource::Policy);
    list.into_iter().chain(policies).map(Arc::new).collect()
}

/// The index of a proxy.
///
/// # Panics
/// As [`resources`].
pub fn index(resources: &Resources, before: Option<&Index>) -> Index {
    Index::build_after(resources, before).unwrap_or_else(|e| panic!("{e}"))
}

/// What is counted: nothing around it is.
#[inline(never)]
pub fn measured<T>(run: impl FnOnce() -> T) -> T {
    black_box(run())
}

/// Decides all.
pub fn decide(facts: &[Facts<'_>], set: &PolicySet) {
    for facts in facts {
        let _ = black_box(authorize(black_box(facts), set));
    }
}
