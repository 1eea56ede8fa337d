//! By the clock: `cargo bench` in this directory. Compare runs on one machine only.

use std::hint::black_box;

use bench_decisions::{MANY, compile, index, requests, resources, spec, specs, update};
use criterion::{Criterion, criterion_group, criterion_main};
use policy::{Facts, authorize};

/// One decision, of policies that match and that do not.
fn decisions(c: &mut Criterion) {
    for count in [1, 100, MANY] {
        for action in ["ALLOW", "DENY"] {
            let set = compile(&specs(count, action));
            for hit in [true, false] {
                let requests = requests(count, hit);
                let facts: Vec<Facts<'_>> = requests.iter().map(|request| request.facts()).collect();
                let mut next = facts.iter().cycle();
                let name = format!("decide {count} {action} {}", if hit { "hit" } else { "miss" });
                c.bench_function(&name, |b| {
                    b.iter(|| authorize(black_box(next.next().unwrap_or(&facts[0])), &set))
                });
            }
        }
    }
}

fn sets(c: &mut Criterion) {
    let before = specs(MANY, "ALLOW");
    let mut after = before.clone();
    after[MANY / 2] = spec(MANY / 2, "DENY");
    let set = compile(&before);
    c.bench_function("compile 10000", |b| b.iter(|| compile(&before)));
    c.bench_function("update one of 10000", |b| b.iter(|| update(&set, &after)));
    let (old, new) = (resources(&before), resources(&after));
    let held = index(&old, None);
    c.bench_function("index of 10000", |b| b.iter(|| index(&new, None)));
    c.bench_function("index of 10000 after another", |b| {
        b.iter(|| index(&new, Some(&held)))
    });
}

criterion_group! {
    name = all;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(2));
    targets = decisions, sets
}
criterion_main!(all);
