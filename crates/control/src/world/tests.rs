use super::*;

fn entry(before: FileEntry, text: &str) -> FileEntry {
    let parsed = parse("f.yaml", text.as_bytes());
    before.next(
        ("f.yaml".to_owned(), Arc::from(text)),
        parsed,
        |object, problems| Arc::new(Held::new(object, problems, |_| 1)),
    )
}

fn names(entry: &FileEntry) -> Vec<&str> {
    entry.objects.iter().map(|held| held.key.name.as_str()).collect()
}

const SERVICE: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: demo}\nspec: {ports: [{port: 80}]}\n---\n";
const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: demo}\nspec: {}\n---\n";
const OTHER: &str = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, namespace: demo}\n---\n";

#[test]
fn a_file_that_breaks_keeps_what_it_held() {
    let broken = [
        ("a Service that is none", SERVICE.replace("80", "eighty")),
        ("no YAML", format!("{OTHER}a: [\n")),
        (
            "a kind that is none",
            OTHER.replace("ServiceAccount", "ServiceAcount"),
        ),
        (
            "a tab",
            format!("{OTHER}apiVersion: v1\nkind: Service\nmetadata:\n\tname: x\n"),
        ),
    ];
    for (name, text) in broken {
        let good = entry(FileEntry::default(), &format!("{SERVICE}{POLICY}"));
        assert!(good.problems.is_empty(), "{:?}", good.problems);
        let now = entry(good, &format!("{text}{POLICY}"));
        assert_eq!(names(&now), ["s", "p"], "{name}");
        assert!(
            now.problems
                .iter()
                .any(|p| p.severity == Severity::Error && p.line > 0),
            "{name}"
        );
        assert!(now.problems.iter().any(|p| p.code == KEPT), "{name}");
        assert!(
            now.is_old && now.good.as_ref().unwrap().1.starts_with(SERVICE),
            "{name}"
        );
        let mended = entry(now, OTHER);
        assert!(!mended.is_old, "{name}");
        assert_eq!(names(&mended), ["a"], "{name}");
        assert!(mended.problems.is_empty(), "{name}");
    }
}

#[test]
fn a_policy_that_breaks_denies_from_now_on() {
    let good = entry(FileEntry::default(), &format!("{SERVICE}{POLICY}"));
    let now = entry(
        good,
        &format!("{OTHER}{}", POLICY.replace("spec: {}", "spec: {}\nspec: {}")),
    );
    assert_eq!(names(&now), ["a", "p"]);
    assert!(now.objects[1].object.invalid.is_some());
    assert!(!now.problems.is_empty());
}

#[test]
fn nothing_is_taken_of_a_file_that_was_never_read_to_its_end() {
    let never = entry(FileEntry::default(), &format!("{POLICY}{OTHER}a: [\n"));
    assert_eq!(names(&never), Vec::<&str>::new());
    let partly = entry(
        FileEntry::default(),
        &format!("{}{OTHER}", SERVICE.replace("80", "eighty")),
    );
    assert_eq!(names(&partly), ["a"]);
}
