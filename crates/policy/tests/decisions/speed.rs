//! How fast it is: `cargo test --release -p policy -- --ignored speed --nocapture`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use policy::{Compat, PolicySet, PolicySpec, authorize};
use serde_json::json;

use super::{compile, named, peer};
use testkit::decisions::Request;

fn specs(count: usize, action: &str) -> Vec<Arc<PolicySpec>> {
    (0..count)
        .map(|i| {
            named(
                &format!("p{i:05}"),
                action,
                json!([{
                    "from": [{"source": {"principals": [format!("cluster.local/ns/n{}/sa/s{}", i % 100, i / 100)]}}],
                    "to": [{"operation": {"methods": ["GET"], "paths": [format!("/api/v1/team{}/*", i % 1000)]}}],
                }]),
            )
        })
        .collect()
}

/// Pages of memory that are held, of 4 KiB.
fn pages() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or_default()
}

/// All of one caller and one method, told apart by their paths alone; or by nothing that is indexed.
fn crowded(count: usize, paths: bool) -> Vec<Arc<PolicySpec>> {
    let operation = |i: usize| match paths {
        true => json!({"methods": ["GET"], "paths": [format!("/api/v1/team{i}/*")]}),
        false => json!({"methods": ["GET"]}),
    };
    (0..count)
        .map(|i| {
            let rule = json!({
                "from": [{"source": {"principals": ["cluster.local/ns/n0/sa/s0"]}}],
                "to": [{"operation": operation(i)}],
                "when": [{"key": "request.headers[x-team]", "values": [format!("{i}")]}],
            });
            named(&format!("p{i:05}"), "DENY", json!([rule]))
        })
        .collect()
}

fn nanos(set: &PolicySet, requests: &[Request]) -> u128 {
    let mut best = u128::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..200 {
            for request in requests {
                let _ = black_box(authorize(black_box(&request.facts()), set));
            }
        }
        best = best.min(start.elapsed().as_nanos() / 200 / requests.len() as u128);
    }
    best
}

#[test]
#[ignore = "a measurement, for release builds"]
fn speed() {
    let many = specs(10_000, "ALLOW");
    // The first leaves room behind that compiling took for a while.
    let first = compile(Compat::Secure, &many);
    let before = pages();
    let sets = [
        first,
        compile(Compat::Secure, &many),
        compile(Compat::Secure, &many),
    ];
    println!("memory: {} bytes a policy", (pages() - before) * 4096 / 20_000);
    drop((sets, many));
    let request = |i: usize, path: String| Request {
        path,
        ..peer(&format!("cluster.local/ns/n{}/sa/s{}", i % 100, i / 100))
    };
    for count in [1, 100, 10_000] {
        for action in ["ALLOW", "DENY"] {
            let specs = specs(count, action);
            let start = Instant::now();
            let set = compile(Compat::Secure, &specs);
            let compiled = start.elapsed();
            let hits: Vec<Request> = (0..500)
                .map(|k| k * 7919 % count)
                .map(|i| request(i, format!("/api/v1/team{}/x", i % 1000)))
                .collect();
            let misses: Vec<Request> = (0..500)
                .map(|k| k * 7919 % count)
                .map(|i| request(i, "/other/path".to_owned()))
                .collect();
            println!(
                "{count} {action}: compile {compiled:?}, match {} ns, no match {} ns",
                nanos(&set, &hits),
                nanos(&set, &misses)
            );
        }
    }
    let mut all = specs(10_000, "ALLOW");
    let mut set = compile(Compat::Secure, &all);
    let other = specs(10_001, "DENY");
    let (mut least, mut most) = (u128::MAX, 0);
    for i in (0..10_000).step_by(500) {
        all[i] = Arc::clone(&other[i]);
        let start = Instant::now();
        set = set.update(
            &all,
            &[],
            &policy::Context::default(),
            &policy::path::Dialects::default(),
        );
        let took = start.elapsed().as_micros();
        (least, most) = (least.min(took), most.max(took));
    }
    println!("update of one of 10000: {least} to {most} µs");
    let here = [request(0, "/api/v1/team77/x".to_owned())];
    for (what, paths) in [("by path", true), ("by a header only", false)] {
        let set = compile(Compat::Secure, &crowded(10_000, paths));
        println!(
            "10000 DENY of one caller, told apart {what}: {} ns",
            nanos(&set, &here)
        );
    }
}
