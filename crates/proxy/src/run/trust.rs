//! Whom peers are verified against: the bundle of the configuration, until a snapshot says it; and again the bundle, where
//! it changes later.
//!
//! Both come from the certificate authority, and the one that has changed last is the newer. While the control plane is
//! away the bundle alone changes: a proxy that missed a whole rotation of the root finds by it the root that the control
//! plane's own certificate then chains to.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use identity::Store;
use model::TrustDomain;
use snapshot::{Index, MeshTls, TlsVersion};

/// How often the bundle is looked for while there is none.
const ROOTS_POLL: Duration = Duration::from_millis(50);
/// How often it is looked whether it has changed.
const ROOTS_REREAD: Duration = Duration::from_secs(1);
/// The largest bundle, bytes.
const MAX_ROOTS: u64 = 1024 * 1024;

/// What is believed of peers.
#[derive(Debug)]
pub(super) struct Trust {
    identities: Store,
    current: Mutex<Believed>,
}

/// What was told to the store last; telling it the same again would have every handshake configured anew.
#[derive(Debug, Default, PartialEq, Eq)]
struct Believed {
    roots: Vec<String>,
    /// What the last snapshot with roots said.
    snapshot: Option<Vec<String>>,
    /// What the bundle was when it was read last.
    bundle: Option<String>,
    domains: Option<(TrustDomain, Vec<TrustDomain>)>,
    min_tls: Option<TlsVersion>,
    tls: MeshTls,
}

impl Trust {
    pub(super) fn new(identities: Store) -> Self {
        Self {
            identities,
            current: Mutex::default(),
        }
    }

    /// Takes what a snapshot says. One without roots leaves them as they are.
    ///
    /// # Errors
    /// Its roots cannot be used; then nothing changes.
    pub(super) fn follow(&self, index: &Index) -> Result<(), String> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // Other snapshots say the same again: that is no change.
        if !index.roots().is_empty() && current.snapshot.as_deref() != Some(index.roots()) {
            self.roots(&mut current, index.roots())?;
            current.snapshot = Some(index.roots().to_vec());
        }
        let mesh = index.mesh();
        let domains = Some((mesh.trust_domain.clone(), mesh.trust_domain_aliases.clone()));
        if current.domains != domains {
            self.identities
                .set_trust_domains(mesh.trust_domain.clone(), mesh.trust_domain_aliases.clone());
            current.domains = domains;
        }
        if current.min_tls != Some(mesh.min_tls) {
            self.identities.set_min_tls(mesh.min_tls == TlsVersion::V1_3);
            current.min_tls = Some(mesh.min_tls);
        }
        if current.tls != mesh.tls {
            self.bounds(&mesh.tls);
            current.tls.clone_from(&mesh.tls);
        }
        Ok(())
    }

    /// Takes suites, and the roots of other trust domains.
    fn bounds(&self, tls: &MeshTls) {
        self.identities.set_suites(&tls.cipher_suites);
        let bundles: Vec<_> = tls
            .bundles
            .iter()
            .map(|bundle| (bundle.trust_domain.clone(), bundle.pem.clone()))
            .collect();
        for error in self.identities.set_bundles(&bundles) {
            tracing::error!("`caCertificates`: left out: {error}");
        }
    }

    /// Takes the bundle where it has changed. What it is at first counts only until a snapshot has roots.
    fn bundle(&self, pem: &str) -> Result<(), String> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.bundle.as_deref() == Some(pem) {
            return Ok(());
        }
        if current.snapshot.is_none() || current.bundle.is_some() {
            self.roots(&mut current, &[pem.to_owned()])?;
        }
        current.bundle = Some(pem.to_owned());
        Ok(())
    }

    fn roots(&self, current: &mut Believed, roots: &[String]) -> Result<(), String> {
        if current.roots != roots {
            self.identities.set_roots(roots).map_err(|e| e.to_string())?;
            current.roots = roots.to_vec();
        }
        Ok(())
    }
}

/// Follows the bundle, for ever. It may come after the proxy does.
pub(super) async fn follow(path: PathBuf, trust: Arc<Trust>) -> Result<(), String> {
    let mut complained = String::new();
    let mut seen = None;
    loop {
        let now = stamp(&path);
        if now.is_some() && now == seen {
            tokio::time::sleep(ROOTS_REREAD).await;
            continue;
        }
        let taken = match read(&path).await {
            Ok(pem) => trust.bundle(&pem),
            Err(error) => Err(error.to_string()),
        };
        match taken {
            Ok(()) => {
                seen = now;
                complained.clear();
                tokio::time::sleep(ROOTS_REREAD).await;
            }
            Err(why) => {
                let pause = if seen.is_some() { ROOTS_REREAD } else { ROOTS_POLL };
                if complained != why {
                    tracing::warn!("trust bundle `{}`: {why}", path.display());
                    complained = why;
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// What changes with a file: it is replaced whole, so it is another one then.
fn stamp(path: &Path) -> Option<(u64, i64, i64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

async fn read(path: &Path) -> std::io::Result<String> {
    use tokio::io::AsyncReadExt as _;
    let mut text = String::new();
    // What is cut off is no PEM any more.
    let file = tokio::fs::File::open(path).await?;
    file.take(MAX_ROOTS).read_to_string(&mut text).await?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use identity::{CertificateAuthority, IssueError, Signing, StoreOptions};
    use snapshot::{Resource, Resources};

    use super::*;

    struct Nobody;

    impl CertificateAuthority for Nobody {
        fn sign<'a>(&'a self, _: &'a str, _: &'a str, _: Duration) -> Signing<'a> {
            Box::pin(async { Err(IssueError::Unreachable("down".to_owned())) })
        }
    }

    fn root(name: &str) -> String {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    fn index(roots: Vec<String>) -> Index {
        let resources: Resources = [
            Resource::from(crate::store::tests::mesh()),
            Resource::Roots(roots),
        ]
        .into_iter()
        .collect();
        Index::build(&resources).unwrap()
    }

    #[tokio::test]
    async fn of_the_bundle_and_the_snapshots_roots_the_last_change_counts() {
        let trust = Trust::new(Store::new(Arc::new(Nobody), StoreOptions::default()));
        let (bundle, first, newer) = (root("bundle"), root("first"), root("newer"));
        let believed = || trust.current.lock().unwrap().roots.clone();
        trust.bundle(&bundle).unwrap();
        trust.follow(&index(vec![])).unwrap();
        assert_eq!(believed(), [bundle.as_str()]);
        trust.follow(&index(vec![first.clone()])).unwrap();
        trust.bundle(&bundle).unwrap();
        assert_eq!(
            believed(),
            [first.as_str()],
            "the bundle is what it was before the snapshot"
        );
        assert!(trust.follow(&index(vec!["no PEM".to_owned()])).is_err());
        assert_eq!(believed(), [first.as_str()]);
        assert!(trust.bundle("no PEM").is_err());
        assert_eq!(believed(), [first.as_str()]);
        // The control plane is away, and the root is rotated.
        trust.bundle(&newer).unwrap();
        trust.follow(&index(vec![first.clone()])).unwrap();
        assert_eq!(
            believed(),
            [newer.as_str()],
            "the snapshot says what it said before"
        );
        trust.follow(&index(vec![bundle.clone()])).unwrap();
        assert_eq!(believed(), [bundle.as_str()]);
    }

    #[tokio::test]
    async fn a_bundle_that_is_there_after_the_first_snapshot_does_not_replace_its_roots() {
        let trust = Trust::new(Store::new(Arc::new(Nobody), StoreOptions::default()));
        let (old, first) = (root("old"), root("first"));
        trust.follow(&index(vec![first.clone()])).unwrap();
        trust.bundle(&old).unwrap();
        assert_eq!(trust.current.lock().unwrap().roots, [first]);
    }

    #[tokio::test]
    async fn a_bundle_that_comes_late_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("roots.pem");
        let trust = Arc::new(Trust::new(Store::new(Arc::new(Nobody), StoreOptions::default())));
        let following = tokio::spawn(follow(path.clone(), Arc::clone(&trust)));
        tokio::task::yield_now().await;
        std::fs::write(&path, root("late")).unwrap();
        let begin = std::time::Instant::now();
        while trust.current.lock().unwrap().roots.is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(10), "it was not taken");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        following.abort();
    }
}
