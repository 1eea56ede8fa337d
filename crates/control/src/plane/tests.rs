//! Laying the layers of the names that a change touches comes to the same as laying all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use model::TrustDomain;
use proptest::prelude::*;

use super::*;
use crate::config::{Config, Fetching};
use crate::layers::below_digest;

fn plane(dir: &std::path::Path) -> Plane {
    let address = "127.0.0.1:1".parse().unwrap();
    let config = Config {
        listen: vec![],
        socket: dir.join("s"),
        sources: vec![],
        recursive: true,
        state: dir.join("state"),
        nodes: vec!["a".to_owned()],
        profile: Profile::Secure,
        trust_domain: TrustDomain::default(),
        ca: address,
        roots: dir.join("r"),
        token: dir.join("t"),
        token_keys: dir.join("k"),
        metrics: vec![],
        metrics_allow: vec![],
        fetching: Fetching::default(),
    };
    let directory = Directory::open(&config.state).unwrap();
    let (view, _) = watch::channel(Arc::new(View::default()));
    Plane::new(&config, directory, Server::new(), view)
}

/// An object as text: one of a few names of two namespaces, with one of a few contents.
fn text(name: u8, content: u8) -> String {
    let (namespace, name) = (["n", "m"][usize::from(name) % 2], name / 2 % 3);
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: o{name}, namespace: {namespace}}}\ndata: {{t: \"{}\"}}\n",
        content % 3
    )
}

/// What was laid before, in one go over everything.
#[derive(Default)]
struct Model {
    files: BTreeMap<u8, Vec<(Key, String)>>,
    above: BTreeMap<Key, (Option<String>, Option<String>)>,
    hidden: BTreeSet<Key>,
}

impl Model {
    fn below(&self) -> BTreeMap<Key, Vec<String>> {
        let mut below: BTreeMap<Key, Vec<String>> = BTreeMap::new();
        for (key, digest) in self.files.values().flatten() {
            below.entry(key.clone()).or_default().push(digest.clone());
        }
        below
    }

    fn written(&self, key: &Key) -> Option<String> {
        self.below().get(key).map(|digests| digests.join("+"))
    }

    fn lay(&mut self) -> BTreeMap<Key, Vec<String>> {
        let below = self.below();
        let (mut in_force, mut covered, mut ended) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        for (key, (over, object)) in &self.above {
            let written = self.written(key);
            let changed = written.is_some() && written != *over;
            let vanished = object.is_none() && written.is_none() && self.hidden.contains(key);
            if changed || vanished {
                ended.push(key.clone());
                continue;
            }
            covered.insert(key.clone());
            in_force.extend(object.clone().map(|digest| (key.clone(), vec![digest])));
        }
        for (key, digests) in &below {
            if !covered.contains(key) {
                in_force.insert(key.clone(), digests.clone());
            }
        }
        for key in ended {
            self.above.remove(&key);
        }
        self.hidden = below.keys().cloned().collect();
        in_force
    }
}

fn held(plane: &Plane) -> BTreeMap<Key, Vec<String>> {
    let mut all: BTreeMap<Key, Vec<String>> = BTreeMap::new();
    for (space, objects) in plane.in_force.iter() {
        assert!(!objects.is_empty());
        for (key, held) in objects.iter() {
            assert_eq!(key.space(), space.as_ref());
            all.entry(key.clone())
                .or_default()
                .extend(held.iter().map(|held| held.digest.clone()));
        }
    }
    all
}

fn given(text: &str) -> (Given, Key, String) {
    let object = parse("mine.yaml", text.as_bytes()).objects.remove(0);
    let held = Held::new(object.clone(), &[], |_| 1);
    let given = Given {
        object,
        problems: Arc::from([]),
        text: Arc::from(text),
    };
    (given, held.key.clone(), held.digest.clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_a_change_touches_is_laid_as_everything_would_be(
        steps in proptest::collection::vec((0_u8..4, 0_u8..3, 0_u8..6, any::<u8>(), 0_u8..6), 1..24)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (mut plane, mut model) = (plane(dir.path()), Model::default());
        for (what, file, name, content, other) in steps {
            match what {
                0 | 1 => {
                    // A file with two objects, with one, or none.
                    let text = match content % 4 {
                        0 => None,
                        // One name twice in a text is a mistake.
                        1 => Some(text(name, content)),
                        _ if name % 2 == other % 2 && name / 2 % 3 == other / 2 % 3 => Some(text(name, content)),
                        _ => Some(format!("{}---\n{}", text(name, content), text(other, content / 7))),
                    };
                    let now = match &text {
                        None => Now::Gone,
                        Some(text) => Now::File {
                            shown: "f".to_owned(),
                            text: Arc::from(text.as_str()),
                            parsed: Box::new(parse("f", text.as_bytes())),
                        },
                    };
                    let objects = text.iter().flat_map(|text| parse("f", text.as_bytes()).objects);
                    let held = objects.map(|object| Held::new(object, &[], |_| 1));
                    model.files.insert(file, held.map(|held| (held.key, held.digest)).collect());
                    plane.take_files(vec![Change { path: PathBuf::from(format!("{file}")), now }]);
                }
                2 => {
                    let (given, key, digest) = given(&text(name, content));
                    let there = held(&plane).get(&key).and_then(|held| held.first().cloned());
                    if there.as_ref() != Some(&digest) {
                        model.above.insert(key.clone(), (model.written(&key), Some(digest)));
                    }
                    plane.apply(vec![given]).unwrap();
                }
                _ => {
                    let (_, key, _) = given(&text(name, 0));
                    if held(&plane).contains_key(&key) {
                        match model.written(&key) {
                            Some(over) => drop(model.above.insert(key.clone(), (Some(over), None))),
                            None => drop(model.above.remove(&key)),
                        }
                    }
                    plane.delete(vec![vec![key]]).unwrap();
                }
            }
            prop_assert_eq!(held(&plane), model.lay());
            for (key, above) in &plane.above {
                prop_assert_eq!(&above.over, &model.above[key].0);
            }
            prop_assert_eq!(plane.above.len(), model.above.len());
            for key in plane.below.keys() {
                prop_assert_eq!(below_digest(&plane.below, key), model.written(key));
            }
            let known: BTreeSet<_> = plane.in_force.values().flat_map(|space| space.keys()).map(Key::space).collect();
            let spaces: BTreeSet<_> = plane.in_force.keys().map(AsRef::as_ref).collect();
            prop_assert_eq!(known, spaces);
        }
    }
}
