use super::*;

fn held(name: &str, text: &str, at: u64) -> Arc<Held> {
    let yaml = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: demo}}\ndata: {{text: {text}}}\n"
    );
    let mut parsed = api::parse("f.yaml", yaml.as_bytes());
    Arc::new(Held::new(parsed.objects.remove(0), &[], |_| at))
}

fn below(objects: &[(&str, &str)]) -> Below {
    let mut below = Below::new();
    for (name, text) in objects {
        let held = held(name, text, 1);
        below.entry(held.key.clone()).or_default().push(held);
    }
    below
}

fn key(name: &str) -> Key {
    held(name, "x", 1).key.clone()
}

/// What is done above (`None` deletes), on top of which text, whether the name was hidden, and the text in the files now.
#[test]
fn the_newest_change_wins() {
    struct Case(
        &'static str,
        Option<&'static str>,
        Option<&'static str>,
        bool,
        Option<&'static str>,
    );
    let cases = [
        (
            Case("applied, nothing below", Some("new"), None, false, None),
            Some("new"),
            false,
        ),
        (
            Case("applied over a file", Some("new"), Some("old"), true, Some("old")),
            Some("new"),
            false,
        ),
        (
            Case(
                "the file changed since",
                Some("new"),
                Some("old"),
                true,
                Some("newer"),
            ),
            Some("newer"),
            true,
        ),
        (
            Case("the file appeared since", Some("new"), None, false, Some("newer")),
            Some("newer"),
            true,
        ),
        (
            Case("the file vanished", Some("new"), Some("old"), true, None),
            Some("new"),
            false,
        ),
        (Case("deleted", None, Some("old"), true, Some("old")), None, false),
        (
            Case(
                "deleted, the file changed",
                None,
                Some("old"),
                true,
                Some("newer"),
            ),
            Some("newer"),
            true,
        ),
        (
            Case("deleted, the file vanished", None, Some("old"), true, None),
            None,
            true,
        ),
        (
            Case(
                "deleted, the file is not read yet",
                None,
                Some("old"),
                false,
                None,
            ),
            None,
            false,
        ),
    ];
    for (Case(name, above, over, hidden, file), in_force, ended) in cases {
        let over = over.map(|text| held("a", text, 1).digest.clone());
        let entry = Above {
            over,
            object: above.map(|text| held("a", text, 2)),
        };
        let files: Vec<_> = file
            .map(|text| ("a", text))
            .into_iter()
            .chain([("b", "x")])
            .collect();
        let laid = lay(&key("a"), &below(&files), Some(&entry), hidden);
        let texts: Vec<_> = laid
            .in_force
            .iter()
            .map(|h| h.object.json["data"]["text"].as_str().unwrap())
            .collect();
        assert_eq!(texts, Vec::from_iter(in_force), "{name}");
        assert_eq!(laid.ended, ended, "{name}");
    }
}

#[test]
fn two_files_with_one_name_both_reach_the_compiler() {
    let files = below(&[("a", "one"), ("a", "two")]);
    assert_eq!(lay(&key("a"), &files, None, false).in_force.len(), 2);
}

#[test]
fn the_age_is_no_part_of_the_digest_and_is_shown() {
    let (one, two) = (held("a", "x", 1_000), held("a", "x", 2_000));
    assert_eq!(one.digest, two.digest);
    assert_eq!(
        one.object.json["metadata"]["creationTimestamp"],
        "1970-01-01T00:00:01Z"
    );
    assert_eq!(two.object.meta.creation, Some(2_000));
}
