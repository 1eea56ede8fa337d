use super::*;

struct Bed {
    dir: tempfile::TempDir,
    scanner: Scanner,
}

impl Bed {
    fn new(recursive: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = Source {
            path: dir.path().to_owned(),
            shown: "./mesh/".to_owned(),
        };
        Self {
            scanner: Scanner::new(vec![source], recursive),
            dir,
        }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// What one look tells: `name:holds N`, `name:unreadable`, `name:gone`.
    fn scan(&mut self) -> Vec<String> {
        let told = self.scan_while(|_| false);
        std::thread::sleep(SETTLE);
        told.into_iter().chain(self.scan_while(|_| false)).collect()
    }

    fn scan_while(&mut self, is_being_written: impl Fn(&Path) -> bool) -> Vec<String> {
        let root = self.dir.path().to_owned();
        let told = self
            .scanner
            .scan(is_being_written)
            .changes
            .into_iter()
            .map(|change| {
                let name = change
                    .path
                    .strip_prefix(&root)
                    .unwrap_or(&change.path)
                    .display()
                    .to_string();
                match change.now {
                    Now::File { parsed, .. } => format!("{name}:holds {}", parsed.objects.len()),
                    Now::Unreadable(problem) => format!("{name}:unreadable as {}", problem.file),
                    Now::Gone => format!("{name}:gone"),
                }
            });
        told.collect()
    }
}

const ONE: &str = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n";

#[test]
fn only_what_has_changed_is_told() {
    let mut bed = Bed::new(false);
    bed.write("a.yaml", ONE);
    bed.write("b.yml", "");
    bed.write("c.json", "{}");
    bed.write("d.txt", ONE);
    bed.write(".hidden.yaml", ONE);
    fs::create_dir(bed.dir.path().join("deep")).unwrap();
    bed.write("deep/e.yaml", ONE);
    assert_eq!(bed.scan(), ["a.yaml:holds 1", "b.yml:holds 0", "c.json:holds 0"]);
    assert_eq!(bed.scan(), Vec::<String>::new());
    // As long as before, and within one tick of the clock.
    bed.write("a.yaml", &ONE.replace("name: a", "name: b"));
    assert_eq!(bed.scan(), ["a.yaml:holds 1"]);
    bed.write("a.yaml", &ONE.replace("name: a", "name: b"));
    assert_eq!(
        bed.scan(),
        Vec::<String>::new(),
        "the same text again is no change"
    );
    fs::remove_file(bed.dir.path().join("a.yaml")).unwrap();
    assert_eq!(bed.scan(), ["a.yaml:gone"]);
    bed.scanner.recursive = true;
    assert_eq!(bed.scan(), ["deep/e.yaml:holds 1"]);
}

#[test]
fn a_file_that_is_being_written_is_left_alone() {
    let mut bed = Bed::new(false);
    bed.write("a.yaml", ONE);
    bed.scan();
    bed.write("a.yaml", "");
    assert_eq!(
        bed.scan(),
        Vec::<String>::new(),
        "truncated, and about to be written"
    );
    bed.write("a.yaml", "apiVersion: v1\nkin");
    assert_eq!(bed.scan_while(|_| true), Vec::<String>::new());
    bed.write("a.yaml", &ONE.replace("name: a", "name: b"));
    assert_eq!(bed.scan(), ["a.yaml:holds 1"]);
    bed.write("a.yaml", "");
    assert_eq!(bed.scan(), Vec::<String>::new());
    std::thread::sleep(2 * YOUNG);
    assert_eq!(bed.scan(), ["a.yaml:holds 0"], "emptied for good");
}

#[test]
fn a_file_that_is_rewritten_in_its_place_is_read_when_it_stays_as_it_is() {
    let mut bed = Bed::new(false);
    bed.write("a.yaml", ONE);
    bed.scan();
    bed.write("a.yaml", &ONE.replace("name: a", "name: bb"));
    assert_eq!(bed.scan_while(|_| false), Vec::<String>::new());
    std::thread::sleep(SETTLE);
    bed.write("a.yaml", &ONE.replace("name: a", "name: ccc"));
    assert_eq!(bed.scan_while(|_| false), Vec::<String>::new());
    std::thread::sleep(SETTLE);
    assert_eq!(bed.scan_while(|_| false), ["a.yaml:holds 1"]);
    // Moved to its place, a file is whole.
    bed.write("a.new", ONE);
    fs::rename(bed.dir.path().join("a.new"), bed.dir.path().join("a.yaml")).unwrap();
    assert_eq!(bed.scan_while(|_| false), ["a.yaml:holds 1"]);
}

#[test]
fn what_cannot_be_read_is_told_once_and_is_not_gone() {
    let mut bed = Bed::new(true);
    bed.write("a.yaml", ONE);
    fs::create_dir(bed.dir.path().join("deep")).unwrap();
    bed.write("deep/e.yaml", ONE);
    bed.scan();
    let big = File::create(bed.dir.path().join("big.yaml")).unwrap();
    big.set_len(u64::try_from(MAX_BYTES).unwrap() + 1).unwrap();
    std::os::unix::fs::symlink("nowhere", bed.dir.path().join("link.yaml")).unwrap();
    fifo(&bed.dir.path().join("pipe.yaml"));
    let told = bed.scan();
    assert!(
        told.contains(&"big.yaml:unreadable as ./mesh/big.yaml".to_owned()),
        "{told:?}"
    );
    assert!(
        told.contains(&"pipe.yaml:unreadable as ./mesh/pipe.yaml".to_owned()),
        "{told:?}"
    );
    assert_eq!(bed.scan(), Vec::<String>::new());

    let (here, away) = (bed.dir.path().to_owned(), bed.dir.path().with_extension("away"));
    fs::rename(&here, &away).unwrap();
    assert_eq!(bed.scan(), [":unreadable as ./mesh/"]);
    assert_eq!(bed.scan(), Vec::<String>::new());
    fs::rename(&away, &here).unwrap();
    assert_eq!(bed.scan(), [":gone"], "the trouble is");
}

#[test]
fn a_link_that_leads_back_is_followed_once() {
    let mut bed = Bed::new(true);
    bed.write("a.yaml", ONE);
    std::os::unix::fs::symlink(".", bed.dir.path().join("again")).unwrap();
    assert_eq!(bed.scan(), ["a.yaml:holds 1"]);
}

#[test]
fn a_file_that_is_expected_and_not_there_is_gone() {
    let mut bed = Bed::new(true);
    bed.write("a.yaml", ONE);
    let paths = ["a.yaml", "b.yaml"].map(|name| bed.dir.path().join(name));
    bed.scanner.expect(paths.into_iter());
    assert_eq!(bed.scan(), ["a.yaml:holds 1", "b.yaml:gone"]);
}

#[test]
fn a_file_that_was_named_itself_can_go() {
    let mut bed = Bed::new(false);
    bed.write("a.yaml", ONE);
    let source = Source {
        path: bed.dir.path().join("a.yaml"),
        shown: "a.yaml".to_owned(),
    };
    bed.scanner = Scanner::new(vec![source], false);
    assert_eq!(bed.scan(), ["a.yaml:holds 1"]);
    fs::remove_file(bed.dir.path().join("a.yaml")).unwrap();
    // And it is missing from then on.
    assert_eq!(bed.scan(), ["a.yaml:gone", "a.yaml:unreadable as a.yaml"]);
    bed.write("a.yaml", ONE);
    assert_eq!(bed.scan(), ["a.yaml:gone", "a.yaml:holds 1"]);
}

/// A pipe: opening it would wait for ever.
fn fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}
