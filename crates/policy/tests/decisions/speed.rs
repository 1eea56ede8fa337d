//! How fast it is: `cargo test --release -p policy -- --ignored speed --nocapture`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use policy::{Compat, PolicySet, PolicySpec, authorize};
use serde_json::json;

use super::world::Request;
use super::{compile, named, peer};

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
}
