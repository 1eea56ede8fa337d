//! Data that others wrote: where it is, which sets are asked for, and how a set's result is told.

use std::path::{Path, PathBuf};

/// The directory of the sets: `MESHWARD_CONFORMANCE`, else `shared/conformance` beside the checkout; `None`, after saying
/// so, where there is none.
pub fn directory() -> Option<PathBuf> {
    let set = std::env::var_os("MESHWARD_CONFORMANCE").filter(|v| !v.is_empty());
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance");
    let directory = set.map_or(beside, PathBuf::from);
    if directory.is_dir() {
        return Some(directory);
    }
    println!(
        "skipped: no data at {} (set MESHWARD_CONFORMANCE)",
        directory.display()
    );
    None
}

/// The directory of one set; `None` where it is not there, or not asked for (`MESHWARD_CONFORMANCE_SETS`, separated by
/// spaces; empty asks for all).
pub fn set(name: &str) -> Option<PathBuf> {
    let wanted = std::env::var("MESHWARD_CONFORMANCE_SETS").unwrap_or_default();
    if !wanted.trim().is_empty() && !wanted.split_whitespace().any(|w| w == name) {
        println!("skipped: {name} is not asked for");
        return None;
    }
    let path = directory()?.join(name);
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: no set {name} at {}", path.display());
    None
}

/// Reads a file of a set as JSON.
///
/// # Panics
/// It is not there, or not JSON: the data is broken, and a test must not pass over that.
pub fn json(path: &Path) -> serde_json::Value {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The result of a set while it grows.
#[derive(Debug, Default)]
pub struct Tally {
    passed: usize,
    failed: Vec<(String, String)>,
    not_applicable: std::collections::BTreeMap<String, usize>,
}

impl Tally {
    /// A case came out as it is to be.
    pub fn pass(&mut self) {
        self.passed += 1;
    }

    /// A case did not.
    pub fn fail(&mut self, case: impl Into<String>, why: impl Into<String>) {
        self.failed.push((case.into(), why.into()));
    }

    /// A case does not concern what is tested, and why.
    pub fn not_applicable(&mut self, why: impl Into<String>) {
        *self.not_applicable.entry(why.into()).or_default() += 1;
    }

    /// Prints the failures by name, and the line `SET: N passed, M failed, K not applicable: why`.
    ///
    /// # Panics
    /// Where a case failed, or none was looked at.
    pub fn finish(self, set: &str) {
        for (case, why) in &self.failed {
            println!("FAILED {set}: {case}: {why}");
        }
        let reasons: Vec<_> = self
            .not_applicable
            .iter()
            .map(|(why, count)| format!("{count} {why}"))
            .collect();
        let skipped: usize = self.not_applicable.values().sum();
        let why = if reasons.is_empty() {
            String::new()
        } else {
            format!(": {}", reasons.join("; "))
        };
        println!(
            "{set}: {} passed, {} failed, {skipped} not applicable{why}",
            self.passed,
            self.failed.len()
        );
        assert!(
            self.failed.is_empty(),
            "{set}: {} cases failed",
            self.failed.len()
        );
        assert!(self.passed > 0, "{set}: no case was looked at");
    }
}
