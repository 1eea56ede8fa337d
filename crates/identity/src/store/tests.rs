//! The owner under virtual time.

mod bulk;
mod standing;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::authority::Signing;

/// Follows tokio's paused clock.
struct Paused(Instant);

impl Clock for Paused {
    fn now(&self) -> Duration {
        Duration::from_secs(1_800_000_000) + self.0.elapsed()
    }
}

struct Signer {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn signer(name: &str) -> Arc<Signer> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let pem = params.self_signed(&key).unwrap().pem();
    Arc::new(Signer {
        pem,
        issuer: Issuer::new(params, key),
    })
}

/// An authority whose root, lifetime and health can be changed while it runs.
struct Bench {
    begin: Instant,
    signer: Mutex<Arc<Signer>>,
    lifetime: Duration,
    asked: AtomicU32,
    down: Mutex<bool>,
    /// How long an answer takes.
    slow: Mutex<Duration>,
}

impl Bench {
    fn new(signer: &Arc<Signer>, lifetime: Duration) -> Arc<Self> {
        Arc::new(Self {
            begin: Instant::now(),
            signer: Mutex::new(Arc::clone(signer)),
            lifetime,
            asked: AtomicU32::new(0),
            down: Mutex::new(false),
            slow: Mutex::default(),
        })
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }

    fn set_down(&self, down: bool) {
        *self.down.lock().unwrap() = down;
    }
}

impl CertificateAuthority for Bench {
    fn sign<'a>(&'a self, csr_pem: &'a str, _token: &'a str, _lifetime: Duration) -> Signing<'a> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let signer = Arc::clone(&self.signer.lock().unwrap());
            let slow = *self.slow.lock().unwrap();
            sleep(slow).await;
            if *self.down.lock().unwrap() {
                return Err(IssueError::Unreachable("down".to_owned()));
            }
            let request = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.subject_alt_names = vec![SanType::URI(id().to_string().try_into().unwrap())];
            let now =
                time::OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap() + self.begin.elapsed();
            params.not_before = now - Duration::from_secs(120);
            params.not_after = now + self.lifetime;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.use_authority_key_identifier_extension = true;
            params.extended_key_usages = vec![
                rcgen::ExtendedKeyUsagePurpose::ServerAuth,
                rcgen::ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let leaf = params.signed_by(&request.public_key, &signer.issuer).unwrap();
            Ok(vec![leaf.pem(), signer.pem.clone()])
        })
    }
}

fn id() -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), "full", "a").unwrap()
}

fn store(bench: &Arc<Bench>) -> Store {
    let options = StoreOptions {
        clock: Arc::new(Paused(bench.begin)),
        // Always half of what may be.
        jitter: Arc::new(|| 0.5),
        ..StoreOptions::default()
    };
    let store = Store::new(Arc::clone(bench) as Arc<dyn CertificateAuthority>, options);
    store.set_trust_domains(TrustDomain::default(), vec![]);
    store
}

fn token() -> (tempfile::TempDir, TokenFile) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "t").unwrap();
    (dir, TokenFile(path))
}

fn fingerprint(pem: &str) -> String {
    Fingerprint::of(&pki::certificates(pem).unwrap()[0]).to_string()
}

fn root_of(store: &Store) -> Option<String> {
    store.status()[0].root.clone()
}

/// Lets time pass in small steps, so that every task gets to run.
async fn pass(seconds: u64) {
    for _ in 0..seconds * 20 {
        advance(Duration::from_millis(50)).await;
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_at_half_life_and_not_before() {
    let root = signer("a");
    let bench = Bench::new(&root, Duration::from_secs(100));
    let (store, (_dir, token)) = (store(&bench), token());
    store.set_roots(std::slice::from_ref(&root.pem)).unwrap();
    store.ensure(&id(), token).await.unwrap();
    let first = store.status()[0].serial.clone();
    pass(45).await;
    assert_eq!(
        (bench.asked(), store.status()[0].serial.clone()),
        (1, first.clone())
    );
    pass(10).await;
    assert_eq!(bench.asked(), 2);
    assert_ne!(store.status()[0].serial, first);
    assert!(store.ready(&id()));
}

/// A connection of the identity with itself: both ends, and the leaf that the caller showed.
async fn shake(
    store: &Store,
) -> (
    crate::ClientStream<tokio::io::DuplexStream>,
    crate::ServerStream<tokio::io::DuplexStream>,
    [u8; 32],
) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (own, expected) = (id(), [id()]);
    let (connected, accepted) = tokio::join!(
        store.connect(&own, near, "x", &expected, &[]),
        store.accept(&own, far, &[])
    );
    let accepted = accepted.unwrap();
    (
        connected.unwrap().stream,
        accepted.stream,
        *accepted.peer.leaf_sha256(),
    )
}

#[tokio::test(start_paused = true)]
async fn new_connections_show_the_new_certificate_and_old_ones_go_on_past_the_end_of_theirs() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let root = signer("a");
    let bench = Bench::new(&root, Duration::from_secs(10));
    let (store, (_dir, token)) = (store(&bench), token());
    store.set_roots(std::slice::from_ref(&root.pem)).unwrap();
    store.ensure(&id(), token).await.unwrap();
    let (mut near, mut far, first) = shake(&store).await;
    assert_eq!(shake(&store).await.2, first);
    let mut leaves = std::collections::BTreeSet::from([first]);
    for round in 1..=6 {
        pass(6).await;
        let (.., leaf) = shake(&store).await;
        assert!(leaves.insert(leaf), "round {round} showed an old certificate");
        near.write_all(b"still here").await.unwrap();
        let mut text = [0; 10];
        far.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"still here");
    }
}

#[tokio::test(start_paused = true)]
async fn certificates_of_another_root_than_the_one_that_signs_are_renewed_within_seconds() {
    let (a, b) = (signer("a"), signer("b"));
    let bench = Bench::new(&a, Duration::from_secs(3600));
    let (store, (_dir, token)) = (store(&bench), token());
    store.set_roots(std::slice::from_ref(&a.pem)).unwrap();
    store.ensure(&id(), token).await.unwrap();
    assert_eq!(root_of(&store), Some(fingerprint(&a.pem)));
    // The new root is trusted; the old one signs.
    store.set_roots(&[a.pem.clone(), b.pem.clone()]).unwrap();
    assert_eq!(store.roots(), [fingerprint(&a.pem), fingerprint(&b.pem)]);
    pass(30).await;
    assert_eq!(bench.asked(), 1, "there was no reason to renew");
    // The new root signs.
    *bench.signer.lock().unwrap() = Arc::clone(&b);
    store.set_roots(&[b.pem.clone(), a.pem.clone()]).unwrap();
    pass(6).await;
    assert_eq!((bench.asked(), root_of(&store)), (2, Some(fingerprint(&b.pem))));
    store.set_roots(std::slice::from_ref(&b.pem)).unwrap();
    pass(60).await;
    assert_eq!(bench.asked(), 2, "once is enough");
}

#[tokio::test(start_paused = true)]
async fn a_bundle_whose_first_root_signs_nothing_causes_one_renewal_and_no_loop() {
    let (a, b) = (signer("a"), signer("b"));
    let bench = Bench::new(&a, Duration::from_secs(3600));
    let (store, (_dir, token)) = (store(&bench), token());
    store.set_roots(std::slice::from_ref(&a.pem)).unwrap();
    store.ensure(&id(), token).await.unwrap();
    store.set_roots(&[b.pem.clone(), a.pem.clone()]).unwrap();
    pass(120).await;
    assert_eq!(bench.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_under_way_when_another_root_began_to_sign_is_renewed() {
    let (a, b) = (signer("a"), signer("b"));
    let bench = Bench::new(&a, Duration::from_secs(3600));
    let (store, (_dir, token)) = (store(&bench), token());
    store.set_roots(&[a.pem.clone(), b.pem.clone()]).unwrap();
    *bench.slow.lock().unwrap() = Duration::from_secs(2);
    let asking = tokio::spawn({
        let store = store.clone();
        async move { store.ensure(&id(), token).await }
    });
    pass(1).await;
    *bench.signer.lock().unwrap() = Arc::clone(&b);
    store.set_roots(&[b.pem.clone(), a.pem.clone()]).unwrap();
    pass(2).await;
    asking.await.unwrap().unwrap();
    assert_eq!(root_of(&store), Some(fingerprint(&a.pem)), "it was signed before");
    pass(8).await;
    assert_eq!((bench.asked(), root_of(&store)), (2, Some(fingerprint(&b.pem))));
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_a_root_that_is_not_trusted_is_not_used() {
    let (a, b) = (signer("a"), signer("b"));
    let bench = Bench::new(&a, Duration::from_secs(100));
    let (store, (_dir, token)) = (store(&bench), token());
    store.set_roots(std::slice::from_ref(&a.pem)).unwrap();
    store.ensure(&id(), token).await.unwrap();
    let first = store.status()[0].serial.clone();
    *bench.signer.lock().unwrap() = Arc::clone(&b);
    pass(60).await;
    let status = &store.status()[0];
    assert_eq!(status.serial, first);
    assert!(status.ready && status.failures > 0, "{status:?}");
    assert!(
        status.error.as_deref().unwrap().contains("unknown issuer"),
        "{status:?}"
    );
    store.set_roots(&[a.pem.clone(), b.pem.clone()]).unwrap();
    pass(6).await;
    assert_eq!(root_of(&store), Some(fingerprint(&b.pem)));
}

#[tokio::test(start_paused = true)]
async fn a_failing_authority_is_asked_again_with_growing_pauses_and_what_has_ended_is_not_used() {
    let root = signer("a");
    let bench = Bench::new(&root, Duration::from_secs(200));
    let (store, (_dir, token)) = (store(&bench), token());
    store.set_roots(std::slice::from_ref(&root.pem)).unwrap();
    store.ensure(&id(), token).await.unwrap();
    bench.set_down(true);
    pass(150).await;
    let status = &store.status()[0];
    assert!(store.ready(&id()) && status.ready, "it is good for another 50 s");
    // From half life on: 0.2, 0.4, 0.8 ... never above an eighth of what is left.
    assert!((8..=14).contains(&status.failures), "{status:?}");
    assert!(status.error.as_deref().unwrap().contains("out of reach"));
    pass(60).await;
    assert!(!store.ready(&id()), "it has ended");
    let refused = store.accept(&id(), tokio::io::duplex(8).0, &[]).await;
    assert!(matches!(refused, Err(TlsError::NotReady(_))), "{refused:?}");
    assert!(!store.status()[0].ready);
    // Without a certificate nobody waits for long once the authority is back.
    pass(600).await;
    bench.set_down(false);
    pass(7).await;
    assert!(store.ready(&id()));
    assert_eq!(
        (store.status()[0].failures, store.status()[0].error.clone()),
        (0, None)
    );
}
