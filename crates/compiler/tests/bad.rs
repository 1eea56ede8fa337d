//! Objects that are sound by themselves and wrong together, each with the very words that its author reads.
//! `UPDATE_GOLDEN=1` rewrites them.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]
#![expect(clippy::disallowed_methods, reason = "the tests of a pure crate read files")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{Kind, Object, Pod};
use compiler::{Options, World, compile};
use testkit::golden;

/// The world that every document of the corpus comes into.
const BASE: &str = "world";
/// The document that comes twice, from two files.
const TWICE: &str = "one-name-in-two-files";

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad")
}

fn objects(name: &str, shown: &str) -> Vec<Arc<Object>> {
    let text = std::fs::read(corpus().join(format!("{name}.yaml"))).unwrap();
    let parsed = api::parse(shown, &text);
    assert_eq!(parsed.problems, [], "{name} is to be sound by itself");
    parsed.objects.into_iter().map(Arc::new).collect()
}

fn pods(objects: &[Arc<Object>]) -> Vec<Arc<Pod>> {
    let pods = objects.iter().filter_map(|object| match &object.kind {
        Kind::Pod(pod) => Some(pod.as_ref().clone()),
        _ => None,
    });
    pods.map(|mut pod| {
        pod.status.set_ready(true);
        Arc::new(pod)
    })
    .collect()
}

#[test]
fn every_document_has_its_message() {
    let entries = std::fs::read_dir(corpus()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned))
        .filter(|name| name != BASE)
        .collect();
    names.sort();
    assert!(names.len() >= 4, "the corpus is gone: {names:?}");
    let mut wrong = Vec::new();
    for name in names {
        let mut all = objects(BASE, "world.yaml");
        all.extend(objects(&name, &format!("{name}.yaml")));
        if name == TWICE {
            all.extend(objects(&name, "another.yaml"));
        }
        let world = World {
            pods: pods(&all),
            objects: all,
            nodes: vec!["node-0".to_owned()],
            roots: Vec::new(),
            jwks: std::collections::BTreeMap::new(),
            options: Options::default(),
        };
        let mut told = String::new();
        for problem in compile(&world).problems {
            assert!(problem.line > 0 && problem.column > 0, "{name}: {problem}");
            assert!(problem.remedy.is_some(), "{name} has no remedy: {problem}");
            told.push_str(&problem.one_line());
            told.push('\n');
        }
        assert!(!told.is_empty(), "{name}: nothing is told");
        wrong.extend(golden::differs(&corpus().join(format!("{name}.txt")), &told));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
