use std::collections::BTreeSet;

use identity::{CertificateAuthority, IssueError, Signing, StoreOptions};
use model::WorkloadUid;

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

fn registration(mark: u32, account: Option<&str>, address: &str) -> Registration {
    Registration {
        mark,
        uid: WorkloadUid::new(&format!("uid-{mark}")),
        namespace: "full".to_owned(),
        pod: format!("pod-{mark}"),
        identity: account.map(|a| format!("spiffe://cluster.local/ns/full/sa/{a}").parse().unwrap()),
        addresses: vec![address.parse().unwrap()],
        token: PathBuf::from(format!("/tokens/{mark}")),
    }
}

/// As whoever attaches a workload does.
fn put(directory: &Path, registration: &Registration) {
    let unfinished = directory.join("unfinished");
    std::fs::write(&unfinished, serde_json::to_vec(registration).unwrap()).unwrap();
    std::fs::rename(unfinished, file(directory, registration.mark)).unwrap();
}

/// An authority that is never there, so that the store holds identities without certificates.
struct Nobody;

impl CertificateAuthority for Nobody {
    fn sign<'a>(&'a self, _: &'a str, _: &'a str, _: Duration) -> Signing<'a> {
        Box::pin(async { Err(IssueError::Unreachable("down".to_owned())) })
    }
}

fn identities() -> identity::Store {
    identity::Store::new(Arc::new(Nobody), StoreOptions::default())
}

async fn eventually(mut is: impl FnMut() -> bool, what: &str) {
    let begin = std::time::Instant::now();
    while !is() {
        assert!(begin.elapsed() < DEADLINE, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_mark_that_is_not_known_is_read_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let locals = Locals::new(directory.path().to_owned());
    let web = registration(0x100, Some("web"), "10.77.0.2");
    put(directory.path(), &web);
    assert_eq!(locals.by_mark(0x100).await.as_deref(), Some(&web));
    assert_eq!(
        locals.by_address("::ffff:10.77.0.2".parse().unwrap()).as_deref(),
        Some(&web)
    );
    // What is known is not read again.
    std::fs::remove_file(file(directory.path(), 0x100)).unwrap();
    assert!(locals.by_mark(0x100).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn misses_are_remembered_briefly_and_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let locals = Locals::new(directory.path().to_owned());
    assert_eq!(locals.by_mark(0x100).await, None);
    put(directory.path(), &registration(0x100, None, "10.77.0.2"));
    assert_eq!(locals.by_mark(0x100).await, None);
    tokio::time::advance(MISS_LIFE).await;
    assert!(locals.by_mark(0x100).await.is_some());
    for mark in 0..u32::try_from(MAX_MISSES).unwrap() + 10 {
        locals.miss(mark);
    }
    assert_eq!(locked(&locals.0.misses).len(), MAX_MISSES);
}

#[tokio::test]
async fn what_is_broken_is_nobody() {
    let good = registration(0x100, Some("web"), "10.77.0.2");
    let json = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut value = serde_json::to_value(&good).unwrap();
        edit(&mut value);
        value.to_string()
    };
    let broken = [
        String::new(),
        "{".to_owned(),
        json(&|v| v["mark"] = 0x101.into()),
        json(&|v| v["surplus"] = true.into()),
        json(&|v| v["namespace"] = "other".into()),
        json(&|v| v["addresses"] = serde_json::json!([])),
        json(&|v| v["identity"] = "spiffe://cluster.local/web".into()),
        json(&|v| v["pod"] = "x".repeat(70_000).into()),
    ];
    for text in broken {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(file(directory.path(), 0x100), &text).unwrap();
        put(directory.path(), &registration(0x200, None, "10.77.0.9"));
        let locals = Locals::new(directory.path().to_owned());
        locals.reread().await.unwrap();
        let shown: String = text.chars().take(200).collect();
        assert_eq!(locals.by_mark(0x100).await, None, "{shown}");
        assert!(locals.by_mark(0x200).await.is_some(), "{shown}");
    }
    assert_eq!(
        Locals::new("/nowhere".into()).by_mark(capture::PROXY_MARK).await,
        None
    );
}

#[tokio::test]
async fn what_becomes_broken_is_nobody_any_more() {
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), &registration(0x100, Some("web"), "10.77.0.2"));
    let locals = Locals::new(directory.path().to_owned());
    locals.reread().await.unwrap();
    assert!(locals.by_mark(0x100).await.is_some());
    std::fs::write(file(directory.path(), 0x100), "{").unwrap();
    locals.reread().await.unwrap();
    assert_eq!(locals.by_mark(0x100).await, None);
}

#[tokio::test]
async fn an_address_that_two_claim_is_nobodys() {
    let locals = Locals::of([
        registration(0x100, Some("web"), "10.77.0.2"),
        registration(0x101, Some("other"), "10.77.0.2"),
    ]);
    assert_eq!(locals.by_address("10.77.0.2".parse().unwrap()), None);
    assert!(locals.by_mark(0x100).await.is_some());
}

#[tokio::test]
async fn the_directory_is_followed_and_certificates_with_it() {
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), &registration(0x100, Some("web"), "10.77.0.2"));
    let locals = Arc::new(Locals::new(directory.path().to_owned()));
    let identities = identities();
    let following = {
        let (locals, identities) = (Arc::clone(&locals), identities.clone());
        tokio::spawn(async move { locals.follow(&identities).await })
    };
    let held = || -> BTreeSet<String> {
        let status = identities.status();
        status.iter().map(|c| c.id.service_account().to_owned()).collect()
    };
    eventually(|| held().contains("web"), "the first identity").await;
    put(directory.path(), &registration(0x101, Some("other"), "10.77.0.3"));
    put(directory.path(), &registration(0x102, Some("web"), "10.77.0.4"));
    put(directory.path(), &registration(0x103, None, "10.77.0.5"));
    eventually(|| locals.all().len() == 4, "all registrations").await;
    eventually(|| held().len() == 2, "the second identity").await;
    // One of two workloads of a service account goes, and the only one of the other.
    std::fs::remove_file(file(directory.path(), 0x100)).unwrap();
    std::fs::remove_file(file(directory.path(), 0x101)).unwrap();
    eventually(|| held().len() == 1, "the end of the second identity").await;
    assert_eq!(held(), ["web".to_owned()].into());
    assert_eq!(locals.by_address("10.77.0.2".parse().unwrap()), None);
    following.abort();
}

#[test]
fn reading_is_no_change() {
    use notify::event::{AccessKind, AccessMode, Event, EventKind};
    let change = |kind| is_change(&Ok(Event::new(kind)));
    assert!(!change(EventKind::Access(AccessKind::Open(AccessMode::Any))));
    assert!(!change(EventKind::Access(AccessKind::Close(AccessMode::Read))));
    assert!(change(EventKind::Access(AccessKind::Close(AccessMode::Write))));
    assert!(change(EventKind::Any));
    assert!(is_change(&Err(notify::Error::generic("overflow"))));
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_an_error() {
    let locals = Locals::new("/nowhere/at/all".into());
    let error = locals.follow(&identities()).await.unwrap_err();
    assert!(error.contains("`/nowhere/at/all`"), "{error}");
}
