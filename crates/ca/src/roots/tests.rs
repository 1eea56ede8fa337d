//! Rotations in a directory, cut short wherever they may be.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::*;

fn config(dir: &Path) -> Config {
    Config {
        cacerts: None,
        listen: Vec::new(),
        trust_domain: TrustDomain::default(),
        dir: Some(dir.to_owned()),
        leaf_lifetime_s: 60,
        token_keys: PathBuf::new(),
        token_issuer: String::new(),
        token_audience: String::new(),
        root_out: PathBuf::new(),
        metrics: Vec::new(),
        metrics_allow: Vec::new(),
        socket: None,
        holders: Vec::new(),
    }
}

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap()
}

fn open(dir: &Path, seconds: i64) -> Result<Roots, String> {
    Roots::open(&config(dir), at(seconds)).map_err(|error| error.to_string())
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn stands(roots: &Roots) -> (Stage, Vec<String>, String) {
    let held = roots.now();
    let all = held
        .state
        .roots
        .iter()
        .map(|pem| fingerprint(pem).unwrap().to_string());
    (
        held.state.stage,
        all.collect(),
        held.signing.fingerprint().to_string(),
    )
}

#[test]
fn a_restart_in_every_stage_finds_what_was_there() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("ca");
    let mut roots = open(&dir, 0).unwrap();
    let first = roots.signing().fingerprint().to_string();
    let restart = |before: &Roots, seconds| {
        let after = open(&dir, seconds).unwrap();
        assert_eq!(stands(before), stands(&after));
        assert!(after.found());
        after
    };
    assert!(!roots.found());
    roots = restart(&roots, 1);
    assert!(roots.begin(at(2)).unwrap());
    assert!(!roots.begin(at(3)).unwrap(), "one at a time");
    let (stage, all, signing) = stands(&roots);
    assert_eq!((stage, &signing, all.len()), (Stage::Distributing, &first, 2));
    let second = all[1].clone();
    roots = restart(&roots, 4);
    roots.step(at(5)).unwrap();
    assert_eq!(
        stands(&roots),
        (
            Stage::Renewing,
            vec![second.clone(), first.clone()],
            second.clone()
        )
    );
    assert_eq!(roots.now().state.old_leaves_end, Some(at(65).unix_timestamp()));
    assert!(
        !dir.join("ca-key.pem").exists(),
        "the old key signs nothing any more"
    );
    roots = restart(&roots, 6);
    roots.step(at(7)).unwrap();
    assert_eq!(
        stands(&roots),
        (Stage::Steady, vec![second.clone()], second.clone())
    );
    roots = restart(&roots, 8);
    assert_eq!(
        names(&dir),
        [format!("root-key-{second:.32}.pem"), "rotation.json".to_owned()]
    );
    for name in names(&dir) {
        assert_eq!(fs::metadata(dir.join(name)).unwrap().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    // And once more, from a root that is not the first.
    roots.begin(at(9)).unwrap();
    roots.step(at(10)).unwrap();
    roots.step(at(11)).unwrap();
    let (_, all, third) = stands(&restart(&roots, 12));
    assert_eq!(all, [third.as_str()]);
    assert_eq!(roots.now().state.withdrawn, [first, second]);
    assert_eq!(names(&dir).len(), 2);
}

/// A copy of a directory as a crash at some point leaves it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, Permissions::from_mode(0o700)).unwrap();
    for name in names(from) {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

#[test]
fn a_crash_between_any_two_writes_leaves_one_stage_or_the_other() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("ca");
    let roots = open(&dir, 0).unwrap();
    let steady = stands(&roots);
    let before = temp.path().join("before");
    copy(&dir, &before);
    roots.begin(at(1)).unwrap();
    // The new key was written, the state was not; and half of the next state.
    let cut = temp.path().join("cut");
    copy(&dir, &cut);
    fs::copy(before.join("rotation.json"), cut.join("rotation.json")).unwrap();
    fs::write(cut.join(".rotation.json.new"), "{\"stage\": \"distri").unwrap();
    assert_eq!(stands(&open(&cut, 2).unwrap()), steady);
    assert_eq!(names(&cut), ["ca-key.pem", "root-cert.pem", "rotation.json"]);
    // The next state was written, the old key was not removed.
    let distributing = temp.path().join("distributing");
    copy(&dir, &distributing);
    roots.step(at(3)).unwrap();
    let cut = temp.path().join("cut2");
    copy(&distributing, &cut);
    fs::copy(dir.join("rotation.json"), cut.join("rotation.json")).unwrap();
    assert_eq!(stands(&open(&cut, 4).unwrap()), stands(&roots));
    assert!(!cut.join("ca-key.pem").exists());
    let renewing = temp.path().join("renewing");
    copy(&dir, &renewing);
    roots.step(at(5)).unwrap();
    let cut = temp.path().join("cut3");
    copy(&renewing, &cut);
    fs::copy(dir.join("rotation.json"), cut.join("rotation.json")).unwrap();
    assert_eq!(stands(&open(&cut, 6).unwrap()), stands(&roots));
    assert_eq!(names(&cut), names(&dir));
}

#[test]
fn what_does_not_belong_together_stops_it_and_nothing_is_made_anew() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, other) = (temp.path().join("ca"), temp.path().join("other"));
    let roots = open(&dir, 0).unwrap();
    open(&other, 0).unwrap();
    roots.begin(at(1)).unwrap();
    roots.step(at(2)).unwrap();
    let refused = |name: &str, change: &dyn Fn(&Path)| {
        let cut = temp.path().join(name);
        copy(&dir, &cut);
        change(&cut);
        let before = names(&cut);
        let why = open(&cut, 3).unwrap_err();
        assert_eq!(names(&cut), before, "{why}");
        why
    };
    let key = names(&dir)
        .into_iter()
        .find(|name| name.starts_with("root-key-"))
        .unwrap();
    let why = refused("a", &|cut| fs::remove_file(cut.join("rotation.json")).unwrap());
    assert!(
        why.contains("rotation.json") && why.contains("restore it"),
        "{why}"
    );
    let why = refused("b", &|cut| fs::remove_file(cut.join(&key)).unwrap());
    assert!(why.contains("it is the key of root"), "{why}");
    let why = refused("c", &|cut| {
        fs::copy(other.join("root-cert.pem"), cut.join("root-cert.pem"))
            .map(drop)
            .unwrap();
    });
    assert!(why.contains("knows nothing of it"), "{why}");
    let why = refused("d", &|cut| fs::write(cut.join("rotation.json"), "{}").unwrap());
    assert!(why.contains("rotation.json"), "{why}");
    let why = refused("e", &|cut| {
        fs::copy(other.join("ca-key.pem"), cut.join(&key))
            .map(|_| ())
            .unwrap();
    });
    assert!(why.contains("not for the root key"), "{why}");
}

#[test]
fn the_longest_lifetime_that_was_ever_set_bounds_the_old_root() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("ca");
    open(&dir, 0).unwrap();
    let mut longer = config(&dir);
    longer.leaf_lifetime_s = 3600;
    drop(Roots::open(&longer, at(1)).unwrap());
    let roots = open(&dir, 2).unwrap();
    roots.begin(at(3)).unwrap();
    roots.step(at(10)).unwrap();
    assert_eq!(roots.now().state.old_leaves_end, Some(at(3610).unix_timestamp()));
}

/// A small file system of its own that goes with the test; none without root.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs"])
            .arg(dir.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        println!("skipped: no file system can be mounted");
        None
    }

    /// Takes all room but so many pages; gives it back when the file goes.
    fn fill(&self, leave: usize) -> PathBuf {
        let path = self.0.path().join("filler");
        let mut size = 64 * 1024;
        while fs::write(&path, vec![0; size]).is_err() {
            size -= 4096;
        }
        fs::write(&path, vec![0; size - leave * 4096]).unwrap();
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_leaves_nothing_half_written_and_says_so() {
    let Some(small) = Small::new() else { return };
    let dir = small.0.path().join("ca");
    // At the first start, wherever the room ends.
    for leave in 0..3 {
        let filler = small.fill(leave);
        let why = open(&dir, 0).unwrap_err();
        assert!(why.contains("No space left"), "{why}");
        fs::remove_file(filler).unwrap();
        if dir.exists() {
            let left = names(&dir);
            // A whole root may be there, whose state could not be written; never half a root.
            assert!(
                left.is_empty() || left == ["ca-key.pem", "root-cert.pem"],
                "{leave}: {left:?}"
            );
            fs::remove_dir_all(&dir).unwrap();
        }
    }
    let roots = open(&dir, 0).unwrap();
    let (steady, files) = (stands(&roots), names(&dir));
    // At the beginning of a rotation.
    let filler = small.fill(0);
    let why = roots.begin(at(1)).unwrap_err().to_string();
    assert!(
        why.contains("No space left") && why.contains("root-key-"),
        "{why}"
    );
    assert_eq!((stands(&roots), names(&dir)), (steady.clone(), files.clone()));
    fs::remove_file(filler).unwrap();
    let filler = small.fill(1);
    let why = roots.begin(at(2)).unwrap_err().to_string();
    assert!(
        why.contains("No space left") && why.contains("rotation.json"),
        "{why}"
    );
    assert_eq!((stands(&roots), names(&dir)), (steady.clone(), files));
    assert_eq!(
        stands(&open(&dir, 3).unwrap()),
        steady,
        "a restart on a full disk serves"
    );
    fs::remove_file(filler).unwrap();
    // In the middle of it.
    roots.begin(at(4)).unwrap();
    let (distributing, files) = (stands(&roots), names(&dir));
    let filler = small.fill(0);
    let why = roots.step(at(5)).unwrap_err().to_string();
    assert!(why.contains("No space left"), "{why}");
    assert_eq!((stands(&roots), names(&dir)), (distributing.clone(), files));
    assert_eq!(stands(&open(&dir, 6).unwrap()), distributing);
    fs::remove_file(filler).unwrap();
    roots.step(at(7)).unwrap();
    assert_eq!(roots.now().state.stage, Stage::Renewing);
}
