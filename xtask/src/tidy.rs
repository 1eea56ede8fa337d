//! The structure of the house, held by a test: floors, sizes, cycles, where `unsafe` may stand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Crate, floor, and what it may use. ARCHITECTURE.md draws the same picture.
const HOUSE: &[(&str, u8, &[&str])] = &[
    ("model", 0, &[]),
    ("http2", 0, &[]),
    ("proto", 0, &[]),
    ("admin", 1, &["model"]),
    ("api", 1, &["model"]),
    ("policy", 1, &["model"]),
    ("jwt", 1, &["model", "policy"]),
    ("routing", 1, &["model"]),
    ("meshward-http", 1, &["model", "http2"]),
    ("identity", 1, &["model", "proto"]),
    ("telemetry", 1, &["model"]),
    ("capture", 1, &["model"]),
    ("workloads", 1, &[]),
    ("snapshot", 2, &["model", "policy", "jwt", "routing"]),
    (
        "ca",
        2,
        &[
            "model",
            "admin",
            "proto",
            "identity",
            "telemetry",
            "meshward-http",
        ],
    ),
    (
        "compiler",
        3,
        &["model", "api", "policy", "jwt", "routing", "snapshot"],
    ),
    (
        "analysis",
        3,
        &["model", "api", "policy", "jwt", "routing", "snapshot", "compiler"],
    ),
    (
        "xds",
        3,
        &["model", "proto", "policy", "routing", "snapshot", "identity"],
    ),
    ("extauthz", 3, &["model", "proto", "snapshot"]),
    (
        "control",
        4,
        &[
            "model",
            "admin",
            "api",
            "snapshot",
            "policy",
            "jwt",
            "compiler",
            "analysis",
            "xds",
            "identity",
            "meshward-http",
            "telemetry",
        ],
    ),
    (
        "proxy",
        4,
        &[
            "model",
            "admin",
            "policy",
            "jwt",
            "routing",
            "snapshot",
            "extauthz",
            "xds",
            "meshward-http",
            "identity",
            "capture",
            "telemetry",
        ],
    ),
    (
        "cli",
        4,
        &[
            "model", "admin", "api", "policy", "snapshot", "compiler", "analysis",
        ],
    ),
    (
        "lab",
        5,
        &[
            "model",
            "admin",
            "api",
            "control",
            "proxy",
            "ca",
            "cli",
            "capture",
            "identity",
            "compiler",
            "workloads",
            "snapshot",
        ],
    ),
    ("soak", 5, &["admin"]),
    ("survey", 5, &["model"]),
    (
        "meshward",
        6,
        &[
            "cli",
            "lab",
            "soak",
            "survey",
            "control",
            "proxy",
            "ca",
            "workloads",
            "model",
        ],
    ),
    ("xtask", 9, &[]),
];

/// Steps along a floor instead of down, each with one direction.
const SIDEWAYS: &[(&str, &str)] = &[("analysis", "compiler"), ("jwt", "policy")];

/// Development only: may be used by tests of any crate.
const DEVELOPMENT: &[&str] = &["testkit"];

/// These reach no I/O, no clock and no randomness: clippy's disallowed lists and their dependencies hold it.
const PURE: &[&str] = &[
    "model", "http2", "api", "policy", "routing", "snapshot", "compiler", "analysis",
];

/// What a pure crate may use of other people's.
const PURE_DEPENDENCIES: &[&str] = &[
    "bytes",
    "http",
    "serde",
    "serde_json",
    "thiserror",
    "regex",
    "ipnet",
    "granit-parser",
    "annotate-snippets",
    "base64",
    "time",
    "x509-parser",
];

/// Product lines a file may have; about 500 is the aim.
const FILE_LINES: usize = 620;

/// Modules directly below a crate's root.
const MODULES: usize = 12;

/// Checks everything and returns all that is amiss.
pub(crate) fn run(root: &Path) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    let crates = crates(root, &mut problems);
    for (name, dir) in &crates {
        let dependencies = manifest(dir);
        floors(name, &dependencies, &crates, &mut problems);
        let files = sources(&dir.join("src"));
        sizes(root, name, dir, &files, &mut problems);
        unsafety(root, name, &files, &mut problems);
        if PURE.contains(&name.as_str()) {
            purity(root, name, dir, &dependencies, &files, &mut problems);
        }
    }
    map(root, &crates, &mut problems);
    first_command(&crates, &mut problems);
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

fn crates(root: &Path, problems: &mut Vec<String>) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root.join("crates")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path().join("Cargo.toml")).unwrap_or_default();
        let name = text
            .lines()
            .find_map(|l| l.strip_prefix("name = \""))
            .and_then(|n| n.strip_suffix('"'));
        match name {
            Some(name) => drop(found.insert(name.to_owned(), entry.path())),
            None => problems.push(format!("{}: no crate here", entry.path().display())),
        }
    }
    found
}

/// README's first command is `cargo run -- up ...`: of several programs, exactly one may be the one that is meant.
fn first_command(crates: &BTreeMap<String, PathBuf>, problems: &mut Vec<String>) {
    let says = |dir: &&PathBuf| {
        let text = fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
        text.lines().any(|line| line.starts_with("default-run"))
    };
    let meant = crates.values().filter(says).count();
    if meant != 1 {
        problems.push(format!(
            "{meant} crates have a `default-run`: `cargo run` starts one program, crates/meshward's"
        ));
    }
}

/// Names under `[dependencies]`; those under `[dev-dependencies]` are tests' business.
fn manifest(dir: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with('[') {
            inside =
                line == "[dependencies]" || line.starts_with("[target.") && line.ends_with(".dependencies]");
        } else if let (true, Some((name, _))) = (inside, line.split_once(['=', '.', ' '])) {
            names.insert(name.trim().to_owned());
        }
    }
    names.remove("");
    names
}

fn floors(
    name: &str,
    dependencies: &BTreeSet<String>,
    crates: &BTreeMap<String, PathBuf>,
    problems: &mut Vec<String>,
) {
    if DEVELOPMENT.contains(&name) {
        return;
    }
    let Some((_, floor, may)) = HOUSE.iter().find(|(known, ..)| *known == name) else {
        problems.push(format!(
            "{name}: not in the house; give it a floor in xtask/src/tidy.rs and ARCHITECTURE.md"
        ));
        return;
    };
    for used in dependencies.iter().filter(|d| crates.contains_key(*d)) {
        if !may.contains(&used.as_str()) {
            problems.push(format!("{name} uses {used}, which it may not"));
        }
        let below = HOUSE
            .iter()
            .find(|(known, ..)| known == used)
            .is_some_and(|(_, other, _)| other < floor);
        if !below && !SIDEWAYS.contains(&(name, used.as_str())) {
            problems.push(format!(
                "{name} (floor {floor}) uses {used}, which is not below it"
            ));
        }
    }
}

/// The map shows every crate, by the name of its directory.
fn map(root: &Path, crates: &BTreeMap<String, PathBuf>, problems: &mut Vec<String>) {
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    for dir in crates.values().filter_map(|dir| dir.file_name()?.to_str()) {
        let row = format!("| `{dir}` | ");
        if !text.lines().any(|line| line.starts_with(&row)) {
            problems.push(format!("{dir}: no row in the table of ARCHITECTURE.md"));
        }
    }
}

fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_default();
            files.push((path, text));
        }
    }
    files.sort();
    files
}

/// The lines before the tests.
fn product(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default()
}

fn sizes(root: &Path, name: &str, dir: &Path, files: &[(PathBuf, String)], problems: &mut Vec<String>) {
    for (path, text) in files {
        let lines = product(text).lines().count();
        let generated = path.components().any(|c| c.as_os_str() == "gen");
        let tests = path.file_stem().is_some_and(|s| s == "tests")
            || path.components().any(|c| c.as_os_str() == "tests");
        if lines > FILE_LINES && !generated && !tests {
            problems.push(format!(
                "{}: {lines} lines, more than {FILE_LINES}",
                shown(root, path)
            ));
        }
    }
    let lib = fs::read_to_string(dir.join("src/lib.rs")).unwrap_or_default();
    let modules = lib
        .lines()
        .filter(|l| module(l).is_some_and(|m| m != "tests"))
        .count();
    if modules > MODULES {
        problems.push(format!(
            "{name}: {modules} modules, more than {MODULES}: is it two crates?"
        ));
    }
}

fn module(line: &str) -> Option<&str> {
    let line = line
        .strip_prefix("pub(crate) ")
        .or_else(|| line.strip_prefix("pub "))
        .unwrap_or(line);
    line.strip_prefix("mod ")?.strip_suffix(';')
}

fn unsafety(root: &Path, name: &str, files: &[(PathBuf, String)], problems: &mut Vec<String>) {
    for (path, text) in files.iter().filter(|_| name != "capture") {
        let word = |l: &&str| {
            ["unsafe {", "unsafe fn", "unsafe impl"]
                .iter()
                .any(|w| l.contains(w))
        };
        if text
            .lines()
            .filter(|l| !l.trim_start().starts_with("//"))
            .any(|l| word(&l))
        {
            problems.push(format!("{}: unsafe outside capture", shown(root, path)));
        }
    }
}

fn purity(
    root: &Path,
    name: &str,
    dir: &Path,
    dependencies: &BTreeSet<String>,
    files: &[(PathBuf, String)],
    problems: &mut Vec<String>,
) {
    for used in dependencies {
        let ours = HOUSE.iter().any(|(known, ..)| known == used);
        if !ours && !PURE_DEPENDENCIES.contains(&used.as_str()) {
            problems.push(format!("{name} is pure and uses {used}"));
        }
    }
    let wanted = fs::read_to_string(root.join("xtask/pure-clippy.toml")).unwrap_or_default();
    if fs::read_to_string(dir.join("clippy.toml")).unwrap_or_default() != wanted {
        problems.push(format!(
            "{name} is pure: its clippy.toml must be a copy of xtask/pure-clippy.toml"
        ));
    }
    if let Some(cycle) = module_cycle(dir, files) {
        problems.push(format!("{name}: modules go in a circle: {}", cycle.join(" -> ")));
    }
}

/// A circle among the modules directly below the root, by `crate::x` paths and `use crate::{...}` lists.
fn module_cycle(dir: &Path, files: &[(PathBuf, String)]) -> Option<Vec<String>> {
    let src = dir.join("src");
    let lib = fs::read_to_string(src.join("lib.rs")).unwrap_or_default();
    let modules: BTreeSet<&str> = lib.lines().filter_map(module).collect();
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (path, text) in files {
        let Some(first) = path
            .strip_prefix(&src)
            .ok()
            .and_then(|p| p.iter().next())
            .and_then(|f| f.to_str())
        else {
            continue;
        };
        let Some(from) = modules.get(first.trim_end_matches(".rs")) else {
            continue;
        };
        for used in product(text).split("crate::").skip(1) {
            let names = used
                .strip_prefix('{')
                .map_or(used, |list| list.split('}').next().unwrap_or_default());
            let list = used.starts_with('{');
            for name in names
                .split([',', '\n', ' '])
                .take(if list { usize::MAX } else { 1 })
            {
                let word = name
                    .trim()
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next()
                    .unwrap_or_default();
                if let Some(to) = modules.get(word).filter(|to| *to != from) {
                    edges.entry(from).or_default().insert(to);
                }
            }
        }
    }
    modules.iter().find_map(|start| {
        walk(
            start,
            start,
            &edges,
            &mut vec![(*start).to_owned()],
            &mut BTreeSet::new(),
        )
    })
}

fn walk<'a>(
    start: &str,
    at: &str,
    edges: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    path: &mut Vec<String>,
    seen: &mut BTreeSet<&'a str>,
) -> Option<Vec<String>> {
    for next in edges.get(at).into_iter().flatten() {
        path.push((*next).to_owned());
        if *next == start {
            return Some(path.clone());
        }
        if seen.insert(next)
            && let Some(found) = walk(start, next, edges, path, seen)
        {
            return Some(found);
        }
        path.pop();
    }
    None
}

fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_stands() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        if let Err(problems) = run(root) {
            panic!("{}", problems.join("\n"));
        }
    }

    #[test]
    fn an_arrow_up_is_found() {
        let crates = BTreeMap::from([
            ("policy".to_owned(), PathBuf::new()),
            ("proxy".to_owned(), PathBuf::new()),
        ]);
        let mut problems = Vec::new();
        floors(
            "policy",
            &BTreeSet::from(["proxy".to_owned()]),
            &crates,
            &mut problems,
        );
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn a_circle_is_found() {
        let dir = std::env::temp_dir().join(format!("tidy-{}", std::process::id()));
        fs::create_dir_all(dir.join("src")).unwrap();
        fs::write(dir.join("src/lib.rs"), "mod a;\npub mod b;\nmod c;\n").unwrap();
        let file = |n: &str, t: &str| (dir.join("src").join(n), t.to_owned());
        let round = [
            file("a.rs", "use crate::{b::X, c};"),
            file("b.rs", "use crate::a::Y;"),
        ];
        assert!(module_cycle(&dir, &round).is_some());
        let straight = [
            file("a.rs", "use crate::{b::X, c};"),
            file("b.rs", "use crate::c::Y;\n"),
        ];
        assert_eq!(module_cycle(&dir, &straight), None);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_crate_that_the_map_lacks_is_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let at = |dir: &str| (dir.to_owned(), root.join("crates").join(dir));
        let mut problems = Vec::new();
        map(
            root,
            &BTreeMap::from([at("policy"), at("nowhere")]),
            &mut problems,
        );
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("nowhere:"));
    }
}
