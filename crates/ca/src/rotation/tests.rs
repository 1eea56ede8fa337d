//! What each stage waits for.

use admin::trust::Leaf;

use super::*;
use crate::root::Root;

const NOW: i64 = 1_800_000_000;

/// A state of two roots, and their fingerprints: the old one, the new one.
fn rotating(stage: Stage) -> (State, String, String) {
    let generate = || {
        let root = Root::generate(&model::TrustDomain::default(), OffsetDateTime::UNIX_EPOCH).unwrap();
        (root.pem().to_owned(), root.fingerprint().to_string())
    };
    let ((old, old_print), (new, new_print)) = (generate(), generate());
    let state = State::steady(old, 3600, NOW - 100).begun(new, NOW - 50);
    let state = match stage {
        Stage::Renewing => state.switched(NOW - 10),
        _ => state,
    };
    (state, old_print, new_print)
}

fn says(name: &str, roots: &[&String], leaves: &[(Option<&String>, i64)]) -> Asked {
    let leaf = |(root, not_after): &(Option<&String>, i64)| Leaf {
        id: "spiffe://cluster.local/ns/full/sa/a".to_owned(),
        root: root.cloned(),
        not_after: *not_after,
    };
    Asked {
        name: name.to_owned(),
        said: Ok(Holding {
            roots: roots.iter().map(|root| (*root).clone()).collect(),
            leaves: leaves.iter().map(leaf).collect(),
        }),
    }
}

fn silent(name: &str) -> Asked {
    Asked {
        name: name.to_owned(),
        said: Err("no answer within 2 s".to_owned()),
    }
}

#[test]
fn nothing_is_signed_by_the_new_root_before_every_holder_trusts_it() {
    let (state, old, new) = rotating(Stage::Distributing);
    let ledger = Ledger::new(0);
    let check = |asked: &[Asked]| waits(&state, asked, &ledger, NOW);
    let both = || says("node-0", &[&old, &new], &[]);
    assert_eq!(
        check(&[both(), says("node-1", &[&new, &old], &[])]),
        Vec::<String>::new()
    );
    let waiting = check(&[both(), says("node-1", &[&old], &[])]);
    assert_eq!(waiting, ["node-1 does not trust the new root yet"]);
    assert_eq!(check(&[both(), says("control", &[], &[])]).len(), 1);
}

#[test]
fn a_holder_that_is_away_is_waited_for_while_anything_that_was_issued_to_it_is_valid() {
    let (state, old, new) = rotating(Stage::Distributing);
    let ledger = Ledger::new(0);
    let root = fingerprint(&state.roots[0]).unwrap();
    ledger.record("node-1", root, NOW + 60);
    let asked = [says("node-0", &[&old, &new], &[]), silent("node-1")];
    let check = |now: i64| waits(&state, &asked, &ledger, now);
    assert!(check(NOW)[0].starts_with("node-1 does not say that it trusts the new root (no answer"));
    assert_eq!(check(NOW + 60).len(), 1, "clocks may disagree");
    assert_eq!(check(NOW + 60 + SKEW), Vec::<String>::new());
    // Of a process that does not know what was issued before it, longer.
    let restarted = Ledger::new(NOW + 3600);
    assert_eq!(waits(&state, &asked, &restarted, NOW + 100).len(), 1);
    assert!(waits(&state, &asked, &restarted, NOW + 3600 + SKEW).is_empty());
}

#[test]
fn where_nobody_can_be_asked_the_first_stage_lasts_as_long_as_a_certificate() {
    let (state, ..) = rotating(Stage::Distributing);
    let ledger = Ledger::new(0);
    assert_eq!(waits(&state, &[], &ledger, NOW).len(), 1);
    assert!(waits(&state, &[], &ledger, state.since + 3600 + SKEW).is_empty());
}

#[test]
fn the_old_root_is_trusted_while_any_valid_certificate_may_chain_to_it() {
    let (state, old, new) = rotating(Stage::Renewing);
    let bound = state.old_leaves_end.unwrap();
    let ledger = Ledger::new(0);
    let check = |asked: &[Asked], now: i64| waits(&state, asked, &ledger, now);
    let renewed = || says("node-0", &[&new, &old], &[(Some(&new), NOW + 900)]);
    assert!(check(&[renewed()], NOW).is_empty());
    let one = says(
        "node-1",
        &[&new, &old],
        &[(Some(&new), NOW + 900), (Some(&old), NOW + 300)],
    );
    assert_eq!(
        check(&[renewed(), one.clone()], NOW),
        ["node-1 has 1 certificates of the old root"]
    );
    assert!(
        check(&[renewed(), one], NOW + 300 + SKEW).is_empty(),
        "it has ended"
    );
    let unknown = says("node-1", &[&new, &old], &[(None, NOW + 300)]);
    assert_eq!(check(&[unknown], NOW).len(), 1, "it may be of the old root");
    let away = [renewed(), silent("node-1")];
    assert_eq!(check(&away, bound).len(), 1);
    assert!(
        check(&away, bound + SKEW).is_empty(),
        "whatever it holds has ended"
    );
}

#[test]
fn others_than_those_who_are_asked_keep_the_old_root_as_long_as_their_certificates_last() {
    let (state, old, new) = rotating(Stage::Renewing);
    let old_root = fingerprint(state.other().unwrap()).unwrap();
    let asked = [says("node-0", &[&new, &old], &[])];
    let ledger = Ledger::new(0);
    ledger.record("stranger", old_root, NOW + 200);
    let waiting = waits(&state, &asked, &ledger, NOW);
    assert!(
        waiting[0].starts_with("stranger may have certificates of the old root"),
        "{waiting:?}"
    );
    assert!(waits(&state, &asked, &ledger, NOW + 200 + SKEW).is_empty());
    // After a restart it is not known who has what; the bound of the stage holds all the same.
    let restarted = Ledger::new(NOW + 100_000);
    assert_eq!(waits(&state, &asked, &restarted, NOW).len(), 1);
    assert!(waits(&state, &asked, &restarted, state.old_leaves_end.unwrap() + SKEW).is_empty());
}

#[test]
fn a_bundle_that_is_there_already_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("roots.pem");
    let root = Root::generate(&model::TrustDomain::default(), OffsetDateTime::UNIX_EPOCH).unwrap();
    let roots = Arc::new(Roots::of(root));
    let rotation = || Rotation {
        roots: Arc::clone(&roots),
        ledger: Arc::new(Ledger::new(0)),
        holders: Vec::new(),
        bundle: bundle.clone(),
        written: Mutex::default(),
        problem: Mutex::default(),
    };
    rotation().publish().unwrap();
    let written = std::fs::metadata(&bundle).unwrap();
    rotation().publish().unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&bundle).unwrap().ino(), written.ino());
    assert_eq!(written.mode() & 0o777, 0o644);
    // One that is another is replaced, and so is one that is broken.
    roots.begin(OffsetDateTime::UNIX_EPOCH).unwrap();
    rotation().publish().unwrap();
    assert_eq!(
        std::fs::read_to_string(&bundle).unwrap(),
        roots.now().state.bundle()
    );
    std::fs::write(&bundle, "half").unwrap();
    rotation().publish().unwrap();
    assert_eq!(
        std::fs::read_to_string(&bundle).unwrap(),
        roots.now().state.bundle()
    );
}

#[test]
fn a_root_is_rotated_when_less_than_a_fifth_of_its_life_is_left() {
    let root = Root::generate(&model::TrustDomain::default(), OffsetDateTime::UNIX_EPOCH).unwrap();
    let life = root.not_after() - OffsetDateTime::UNIX_EPOCH;
    assert!(!root.is_old(OffsetDateTime::UNIX_EPOCH + life * 0.79));
    assert!(root.is_old(OffsetDateTime::UNIX_EPOCH + life * 0.81));
    assert!(root.is_old(root.not_after() + time::Duration::HOUR));
}
