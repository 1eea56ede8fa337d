//! Every decision of semantics 2, row by row, and properties that hold of all decisions.
#![allow(
    clippy::cloned_ref_to_slice_refs,
    clippy::type_complexity,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "tests may panic and report, and tables of rows have types of their own"
)]

mod algebra;
mod ceiling;
mod dialects;
mod forms;
mod property;
mod requests;
mod scenarios;
mod secure;
mod sentences;
mod speed;
mod tcp;
mod told;
mod updates;

use std::sync::Arc;

use policy::{Compat, Context, Denial, Permit, PolicyId, PolicySet, PolicySpec, authorize, explain};
use serde_json::{Value, json};
use testkit::decisions::{self as world, Request};

/// A policy of namespace `ns`; `rules` is the JSON of `spec.rules`.
fn named(name: &str, action: &str, rules: Value) -> Arc<PolicySpec> {
    let provider = if action == "CUSTOM" {
        json!({"name": "opa"})
    } else {
        json!({})
    };
    world::policy(&json!({
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"action": action, "provider": provider, "rules": rules},
    }))
}

fn policy(action: &str, rules: Value) -> Arc<PolicySpec> {
    named(&action.to_lowercase(), action, rules)
}

fn dry(spec: &Arc<PolicySpec>) -> Arc<PolicySpec> {
    let mut spec = PolicySpec::clone(spec);
    spec.dry_run = true;
    spec.id.name += "-dry";
    Arc::new(spec)
}

fn compile(compat: Compat, specs: &[Arc<PolicySpec>]) -> PolicySet {
    let context = Context {
        compat,
        ..Context::default()
    };
    PolicySet::compile(specs, &[], &context)
}

fn decide(compat: Compat, specs: &[Arc<PolicySpec>], request: &Request) -> Result<Permit, Denial> {
    let set = compile(compat, specs);
    let answer = authorize(&request.facts(), &set);
    let explained = explain(&request.facts(), &set);
    assert_eq!(explained.denied, answer.as_ref().err().map(|d| d.reason));
    answer
}

fn admitted(compat: Compat, specs: &[Arc<PolicySpec>], request: &Request) -> bool {
    decide(compat, specs, request).is_ok()
}

/// Whether the rules match, in both semantics.
fn matches(rules: &Value, request: &Request) -> bool {
    let found = admitted(Compat::Istio, &[policy("ALLOW", rules.clone())], request);
    let denied = !admitted(Compat::Istio, &[policy("DENY", rules.clone())], request);
    assert_eq!(found, denied, "ALLOW and DENY of {rules} see the same");
    found
}

fn peer(id: &str) -> Request {
    Request {
        peer: Some(format!("spiffe://{id}").parse().unwrap()),
        ..Request::default()
    }
}

fn get(path: &str) -> Request {
    Request {
        path: path.to_owned(),
        ..Request::default()
    }
}

fn source(field: &str, values: &[&str]) -> Value {
    json!([{"from": [{"source": {field: values}}]}])
}

fn operation(field: &str, values: &[&str]) -> Value {
    json!([{"to": [{"operation": {field: values}}]}])
}

fn when(key: &str, values: &[&str]) -> Value {
    json!([{"when": [{"key": key, "values": values}]}])
}

fn when_not(key: &str, values: &[&str]) -> Value {
    json!([{"when": [{"key": key, "notValues": values}]}])
}

fn id(namespace: &str, name: &str) -> PolicyId {
    PolicyId {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}
