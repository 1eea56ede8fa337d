use super::*;
use std::os::unix::fs::PermissionsExt;

fn applied(yaml: &str, ages: &mut Ages) -> Applied {
    let object = api::parse("mine.yaml", yaml.as_bytes()).objects.remove(0);
    Applied {
        held: Arc::new(Held::new(object, &[], |key| ages.of(key, 7_000))),
        text: Arc::from(yaml),
    }
}

const POLICY: &str = "# why\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: demo}\nspec: {}\n";

fn write(state: &Directory, changes: &BTreeMap<Key, (Option<String>, Option<Applied>)>) -> io::Result<()> {
    state.finish(&mut state.begin(changes)?)
}

fn write_ages(state: &Directory, ages: &mut Ages) {
    let mut journal = Journal::new(&state.root, AGES);
    journal.add(&ages.news()).unwrap();
}

#[test]
fn pods_are_read_as_they_were_ever_written() {
    let pod = |name: &str| format!("{{\"metadata\":{{\"name\":\"{name}\",\"namespace\":\"n\"}}}}");
    let (a, b) = (pod("a"), pod("b"));
    let expect: BTreeMap<_, _> = [("n/a".to_owned(), a.clone()), ("n/b".to_owned(), b.clone())].into();
    let whole = whole_pods([a.as_str(), b.as_str()].into_iter()).unwrap();
    assert_eq!(read_pods(&whole, &[]).unwrap(), expect);
    // All on one line, and with spaces.
    for before in [format!("[{a},{b}]"), format!("[ {a} , {b} ]")] {
        assert_eq!(read_pods(before.as_bytes(), &[]).unwrap(), expect, "{before}");
    }
    assert_eq!(read_pods(b"", std::slice::from_ref(&a)).unwrap().len(), 1);
    assert_eq!(
        read_pods(&whole, &["\"n/a\"".to_owned(), "\"n/b\"".to_owned()])
            .unwrap()
            .len(),
        0
    );
    assert!(read_pods(b"[{", &[]).is_err());
}

#[test]
fn what_was_applied_and_deleted_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let state = Directory::open(&dir.path().join("state")).unwrap();
    let mut ages = Ages::default();
    let policy = applied(POLICY, &mut ages);
    let gone = Key {
        name: "gone".to_owned(),
        ..policy.held.key.clone()
    };
    let changes = BTreeMap::from([
        (
            policy.held.key.clone(),
            (Some("d".to_owned()), Some(policy.clone())),
        ),
        (gone.clone(), (Some("e".to_owned()), None)),
    ]);
    write(&state, &changes).unwrap();
    write_ages(&state, &mut ages);
    let mut pods = Journal::new(&state.root, PODS);
    pods.add("{\"metadata\": {\"name\": \"x\", \"namespace\": \"n\"}}\n")
        .unwrap();
    pods.add("{\"metadata\": {\"name\": \"y\", \"namespace\": \"n\"}}\n\"n/x\"\n")
        .unwrap();

    let restored = Directory::open(&dir.path().join("state")).unwrap().restore(1);
    assert_eq!(restored.problems, vec![]);
    let entry = &restored.above[&policy.held.key];
    assert_eq!(entry.over.as_deref(), Some("d"));
    assert_eq!(
        entry.object.as_ref().unwrap().object,
        policy.held.object,
        "places and age too"
    );
    assert_eq!(
        restored.above[&gone],
        Above {
            over: Some("e".to_owned()),
            object: None
        }
    );
    assert_eq!(restored.pods.len(), 1);
    let file = dir.path().join("state").join(record_name(&gone));
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);

    state.remove([&gone].into_iter()).unwrap();
    state.remove([&gone].into_iter()).unwrap();
    assert!(!state.restore(1).above.contains_key(&gone));
}

#[test]
fn nothing_is_written_where_one_file_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let state = Directory::open(dir.path()).unwrap();
    let policy = applied(POLICY, &mut Ages::default());
    let other = Key {
        name: "q".to_owned(),
        ..policy.held.key.clone()
    };
    // A directory stands where the second record would be written.
    fs::create_dir(dir.path().join(record_name(&other)).with_extension("new")).unwrap();
    let change = (None, Some(policy.clone()));
    let changes = BTreeMap::from([(policy.held.key.clone(), change.clone()), (other, change)]);
    assert!(write(&state, &changes).is_err());
    assert!(state.restore(1).above.is_empty());
}

#[test]
fn a_record_that_is_broken_is_told_and_the_others_are_used() {
    let dir = tempfile::tempdir().unwrap();
    let state = Directory::open(dir.path()).unwrap();
    let policy = applied(POLICY, &mut Ages::default());
    let changes = BTreeMap::from([(policy.held.key.clone(), (None, Some(policy.clone())))]);
    write(&state, &changes).unwrap();
    fs::write(dir.path().join(RECORDS).join("0.json"), "{").unwrap();
    fs::write(dir.path().join("ages.json"), "[").unwrap();
    let restored = state.restore(1);
    assert_eq!(restored.above.len(), 1);
    assert_eq!(restored.problems.len(), 2);
}

#[test]
fn an_object_that_comes_back_is_another_one() {
    let mut ages = Ages::default();
    let key = applied(POLICY, &mut ages).held.key.clone();
    assert_eq!(ages.of(&key, 9_000), 7_000);
    ages.forget(&key);
    assert_eq!(ages.of(&key, 9_000), 9_000);
}

#[test]
fn the_last_good_text_of_a_file_is_kept_until_it_is_not_needed() {
    let dir = tempfile::tempdir().unwrap();
    let state = Directory::open(dir.path()).unwrap();
    let kept = Kept {
        path: PathBuf::from("/src/a.yaml"),
        shown: "src/a.yaml".to_owned(),
        text: POLICY.to_owned(),
    };
    state.keep(&kept).unwrap();
    assert_eq!(state.restore(1).kept, std::slice::from_ref(&kept));
    state.unkeep(&kept.path).unwrap();
    state.unkeep(&kept.path).unwrap();
    assert_eq!(state.restore(1).kept, []);
}

#[test]
fn a_document_is_cut_out_of_its_file_and_keeps_its_places() {
    let text = format!(
        "# top\n---\n{}---\n{POLICY}...\n---\na: 1\n",
        POLICY.replace("name: p", "name: o")
    );
    let line = 1 + u32::try_from(text.lines().position(|l| l.contains("name: p,")).unwrap()).unwrap();
    let (first, document) = document(&text, line);
    assert_eq!((first, document.as_str()), (8, format!("---\n{POLICY}").as_str()));

    let dir = tempfile::tempdir().unwrap();
    let state = Directory::open(dir.path()).unwrap();
    let long = format!("{POLICY}#{}\n---\n{text}", "x".repeat(MAX_TEXT));
    for text in [&text, &long] {
        let mut ages = Ages::default();
        let parsed = crate::world::parse("mine.yaml", text.as_bytes());
        let mut changes = BTreeMap::new();
        for object in parsed.objects {
            let held = Arc::new(Held::new(object, &[], |key| ages.of(key, 7_000)));
            let applied = Applied {
                held: Arc::clone(&held),
                text: Arc::from(text.as_str()),
            };
            changes.insert(held.key.clone(), (None, Some(applied)));
        }
        write(&state, &changes).unwrap();
        write_ages(&state, &mut ages);
        let restored = state.restore(1);
        assert_eq!(restored.problems, vec![]);
        for (key, (_, applied)) in changes {
            let (wanted, found) = (
                applied.unwrap().held,
                restored.above[&key].object.clone().unwrap(),
            );
            assert_eq!(
                (&found.object.json, &found.object.origin),
                (&wanted.object.json, &wanted.object.origin)
            );
            assert_eq!(found.object, wanted.object, "every place");
        }
    }
}

#[test]
fn what_is_broken_is_broken_after_a_restart_however_long_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let state = Directory::open(dir.path()).unwrap();
    let twice = POLICY.replace("spec: {}", "spec: {}\nspec: {}");
    let long = format!("{twice}# {}\n", "x".repeat(MAX_TEXT));
    for text in [twice, long] {
        let broken = applied(&text, &mut Ages::default());
        assert!(broken.held.object.invalid.is_some());
        let changes = BTreeMap::from([(broken.held.key.clone(), (None, Some(broken.clone())))]);
        write(&state, &changes).unwrap();
        let restored = state.restore(1);
        let found = restored.above[&broken.held.key].object.clone().unwrap();
        assert_eq!(found.object.invalid, broken.held.object.invalid);
        assert_eq!(found.digest, broken.held.digest);
    }
}

#[test]
fn what_could_not_be_brought_to_its_place_stays_begun_and_is_brought_later() {
    let dir = tempfile::tempdir().unwrap();
    let state = Directory::open(dir.path()).unwrap();
    let policy = applied(POLICY, &mut Ages::default());
    let other = Key {
        name: "q".to_owned(),
        ..policy.held.key.clone()
    };
    let change = (None, Some(policy.clone()));
    let changes = BTreeMap::from([(policy.held.key.clone(), change.clone()), (other.clone(), change)]);
    let mut begun = state.begin(&changes).unwrap();
    // A directory stands where one of them belongs: the other one has its place all the same.
    let place = dir.path().join(record_name(&other));
    fs::create_dir(&place).unwrap();
    assert!(state.finish(&mut begun).is_err());
    assert!(!begun.is_empty());
    assert!(dir.path().join(record_name(&policy.held.key)).is_file());
    fs::remove_dir(&place).unwrap();
    state.finish(&mut begun).unwrap();
    assert!(begun.is_empty() && place.is_file());
}
