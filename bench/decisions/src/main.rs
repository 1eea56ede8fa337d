//! Runs one of what is measured once, for a tool that counts instructions: see `check`.

use std::process::ExitCode;
use std::sync::Arc;

use bench_decisions::{
    MANY, compile, decide, forms, index, measured, requests, resources, spec, specs, update,
};
use policy::Facts;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    match run(&name) {
        Some(()) => ExitCode::SUCCESS,
        None => {
            eprintln!("`{name}` is not measured");
            ExitCode::from(64)
        }
    }
}

/// `decide-COUNT-ACTION-hit` or `-miss`, or one of the others.
fn run(name: &str) -> Option<()> {
    let words: Vec<&str> = name.split('-').collect();
    if let ["decide", count, action, hit] = words.as_slice() {
        let count = count.parse().ok()?;
        let set = compile(&specs(count, &action.to_uppercase()));
        let requests = requests(count, *hit == "hit");
        let facts: Vec<Facts<'_>> = requests.iter().map(|request| request.facts()).collect();
        measured(|| decide(&facts, &set));
        return Some(());
    }
    if name == "decide-forms" {
        let set = compile(&forms(MANY));
        let requests = requests(MANY, false);
        let facts: Vec<Facts<'_>> = requests.iter().map(|request| request.facts()).collect();
        measured(|| decide(&facts, &set));
        return Some(());
    }
    let mut all = specs(MANY, "ALLOW");
    match name {
        "compile" => drop(measured(|| compile(&all))),
        "update" => {
            let set = compile(&all);
            all[MANY / 2] = spec(MANY / 2, "DENY");
            drop(measured(|| update(&set, &all)));
        }
        "index-build" => {
            let resources = resources(&all);
            drop(measured(|| index(&resources, None)));
        }
        "index-after" => {
            let before = index(&resources(&all), None);
            all[MANY / 2] = spec(MANY / 2, "DENY");
            let resources = resources(&all);
            drop(measured(|| index(&resources, Some(&before))));
        }
        _ => return None,
    }
    let _ = Arc::strong_count(all.first()?);
    Some(())
}
