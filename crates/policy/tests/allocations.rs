//! A decision takes no memory: neither ALLOW nor DENY, of one policy or of ten thousand. Only a path that is ambiguous, or a
//! backend that reads paths otherwise, does: its readings are texts of their own.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "a test may panic"
)]

use std::alloc::System;
use std::hint::black_box;
use std::sync::Arc;

use policy::path::Dialects;
use policy::{Compat, Context, Facts, PolicySet, PolicySpec, authorize};
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use testkit::decisions::{Claims, Headers, Request, policy};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Of a compiled policy of one rule and its place in the index, without the values as written.
const MAX_BYTES: usize = 2048;

const PATHS: [&str; 4] = [
    "/api/v1/team7/x?q=%2f..",
    "/other",
    "/api/v1/team7/a%20b",
    "/.well-known/x",
];

fn specs(count: usize, action: &str) -> Vec<Arc<PolicySpec>> {
    let spec = |i: usize| {
        policy(&json!({
            "metadata": {"name": format!("p{i:05}"), "namespace": "ns"},
            "spec": {"action": action, "rules": [
                {
                    "from": [{"source": {"principals": [format!("cluster.local/ns/n{}/sa/s{}", i % 100, i / 100)]}}],
                    "to": [{"operation": {"methods": ["GET"], "paths": [format!("/api/v1/team{i}/*"), "*.txt", "/t/{*}/x"]}}],
                },
                {"from": [{"source": {"requestPrincipals": [format!("https://i/u{i}")], "namespaces": [format!("n{i}")]}}]},
                {"to": [{"operation": {"hosts": [format!("h{i}.com"), format!("*.h{i}.com")]}}]},
                {"when": [
                    {"key": "request.headers[x-a]", "values": [format!("v{i}")]},
                    {"key": "source.ip", "values": [format!("10.{}.0.0/16", i % 256)]},
                ]},
            ]},
        }))
    };
    (0..count).map(spec).collect()
}

fn requests() -> Vec<Request> {
    let base = Request {
        peer: Some("spiffe://cluster.local/ns/n7/sa/s0".parse().unwrap()),
        headers: Headers(vec![
            ("x-a".to_owned(), "v7".to_owned()),
            ("x-a".to_owned(), "z".to_owned()),
        ]),
        claims: Some(Claims(json!({"iss": "https://i", "sub": "u8"}))),
        sni: Some("a.b".to_owned()),
        authority: "X.H9.com".to_owned(),
        ..Request::default()
    };
    let with = |path: &&str| Request {
        path: (*path).to_owned(),
        ..base.clone()
    };
    let mut all: Vec<Request> = PATHS.iter().map(with).collect();
    all.push(Request { http: false, ..base });
    all.push(Request::default());
    all
}

/// Allocations of deciding everything a hundred times; the least of three, because the test harness has threads too.
fn allocations(set: &PolicySet, facts: &[Facts<'_>]) -> usize {
    let once = || {
        let region = Region::new(ALLOCATOR);
        for _ in 0..100 {
            for facts in facts {
                drop(black_box(authorize(black_box(facts), set)));
            }
        }
        let change = region.change();
        change.allocations + change.reallocations
    };
    (0..3).map(|_| once()).min().unwrap()
}

/// One test, so that no other one's memory is counted.
#[test]
fn a_decision_takes_no_memory() {
    let requests = requests();
    let facts: Vec<Facts<'_>> = requests.iter().map(Request::facts).collect();
    for compat in [Compat::Secure, Compat::Istio] {
        let context = Context {
            compat,
            ..Context::default()
        };
        for count in [1, 10_000] {
            let actions: &[&str] = match (count, compat) {
                (1, _) => &["ALLOW", "DENY", "AUDIT", "CUSTOM"],
                (_, Compat::Secure) => &["ALLOW", "DENY"],
                (_, Compat::Istio) => &[],
            };
            for action in actions {
                let set = PolicySet::compile(&specs(count, action), &[], &context);
                let answers: Vec<bool> = facts.iter().map(|facts| authorize(facts, &set).is_ok()).collect();
                if count > 1 {
                    assert!(answers.contains(&true) && answers.contains(&false), "{answers:?}");
                }
                assert_eq!(allocations(&set, &facts), 0, "{count} {action} {compat:?}");
            }
        }
    }
    let mut simple = specs(10_000, "ALLOW");
    for spec in &mut simple {
        Arc::make_mut(spec).rules.truncate(1);
    }
    let region = Region::new(ALLOCATOR);
    let set = PolicySet::compile(&simple, &[], &Context::default());
    let held = region.change();
    let each = (held.bytes_allocated - held.bytes_deallocated) / 10_000;
    println!("memory: {each} bytes a policy");
    assert!((200..MAX_BYTES).contains(&each), "{each} bytes a policy");
    drop(set);
    // The counting counts.
    let deny = PolicySet::compile(&specs(1, "DENY"), &[], &Context::default());
    let ambiguous = Request {
        path: "/a;b".to_owned(),
        ..Request::default()
    };
    assert!(allocations(&deny, &[ambiguous.facts()]) > 0);
    let dialects: Dialects = "case-insensitive".parse().unwrap();
    let folding = PolicySet::compile_for(&specs(1, "DENY"), &[], &Context::default(), &dialects);
    assert!(allocations(&folding, &facts) > 0);
    // A port that reads paths as they are pays for no other.
    let dialects: Dialects = "8080=case-insensitive".parse().unwrap();
    let other = PolicySet::compile_for(&specs(1, "DENY"), &[], &Context::default(), &dialects);
    assert_eq!(allocations(&other, &facts), 0);
}
