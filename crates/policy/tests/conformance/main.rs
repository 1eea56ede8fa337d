//! Decisions and paths as Istio and Envoy give them, by data sets that live outside this repository.
//!
//! `MESHWARD_CONFORMANCE` names their directory, `MESHWARD_CONFORMANCE_SETS` those to run.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "tests may panic and report"
)]

mod ambient;
mod goldens;
mod oracle;
mod paths;
mod yaml;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What became of the cases of one set.
#[derive(Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<&'static str>,
}

impl Tally {
    pub(crate) fn check(&mut self, case: &str, found: &impl ToString, expect: &impl ToString) {
        let (found, expect) = (found.to_string(), expect.to_string());
        if found == expect {
            self.passed += 1;
        } else {
            self.failed
                .push(format!("{case}: `{found}` instead of `{expect}`"));
        }
    }

    pub(crate) fn skip(&mut self, why: &'static str) {
        self.skipped.push(why);
    }
}

fn directory() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("MESHWARD_CONFORMANCE")
        .map_or_else(|| workspace.join("../shared/conformance"), PathBuf::from)
}

fn run(set: &str, index: &str, cases: impl Fn(&Path, &Value, &mut Tally)) {
    let wanted = std::env::var("MESHWARD_CONFORMANCE_SETS").unwrap_or_default();
    if !wanted.trim().is_empty() && !wanted.split_whitespace().any(|name| name == set) {
        return;
    }
    let dir = directory().join(set);
    let Ok(text) = fs::read(dir.join(index)) else {
        println!("{set}: skipped: no data at {}", dir.display());
        return;
    };
    let data: Value = serde_json::from_slice(&text).unwrap();
    let mut tally = Tally::default();
    for case in data["cases"].as_array().or_else(|| data.as_array()).unwrap() {
        cases(&dir, case, &mut tally);
    }
    let mut reasons: Vec<(&str, usize)> = Vec::new();
    for why in &tally.skipped {
        match reasons.iter_mut().find(|(known, _)| known == why) {
            Some((_, count)) => *count += 1,
            None => reasons.push((why, 1)),
        }
    }
    let reasons: Vec<String> = reasons.iter().map(|(why, n)| format!("{n} {why}")).collect();
    for failure in &tally.failed {
        println!("{set}: failed: {failure}");
    }
    println!(
        "{set}: {} passed, {} failed, {} not applicable: {}",
        tally.passed,
        tally.failed.len(),
        tally.skipped.len(),
        if reasons.is_empty() {
            "none".to_owned()
        } else {
            reasons.join("; ")
        }
    );
    assert!(
        tally.failed.is_empty(),
        "{set}: {} cases failed",
        tally.failed.len()
    );
}

#[test]
fn path_normalization() {
    run("path-normalization", "path-normalization.json", paths::case);
}

#[test]
fn authz_oracle() {
    run("authz-oracle", "cases.json", oracle::case);
}

#[test]
fn authz_goldens() {
    run("authz-goldens", "cases.json", goldens::case);
}

#[test]
fn authz_ambient() {
    run("authz-ambient", "cases.json", ambient::case);
}
