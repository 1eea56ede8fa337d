//! Whom peers are verified against: the bundle of the configuration, until a snapshot says it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use identity::Store;
use model::TrustDomain;
use snapshot::{Index, MeshTls, TlsVersion};

/// How often the bundle is looked for while there is none.
const ROOTS_POLL: Duration = Duration::from_millis(50);
/// How often it is read again while no snapshot has roots.
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
    by_snapshot: bool,
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
        if !index.roots().is_empty() {
            self.roots(&mut current, index.roots())?;
            current.by_snapshot = true;
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

    /// Takes the bundle, unless a snapshot had roots. Whether it did, so that the bundle counts no more.
    fn bundle(&self, pem: &str) -> Result<bool, String> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if !current.by_snapshot {
            self.roots(&mut current, &[pem.to_owned()])?;
        }
        Ok(current.by_snapshot)
    }

    fn roots(&self, current: &mut Believed, roots: &[String]) -> Result<(), String> {
        if current.roots != roots {
            self.identities.set_roots(roots).map_err(|e| e.to_string())?;
            current.roots = roots.to_vec();
        }
        Ok(())
    }
}

/// Keeps to the bundle until a snapshot has roots. It may come after the proxy does.
pub(super) async fn follow(path: PathBuf, trust: Arc<Trust>) -> Result<(), String> {
    let mut complained = String::new();
    loop {
        let taken = match read(&path).await {
            Ok(pem) => trust.bundle(&pem),
            Err(error) => Err(error.to_string()),
        };
        match taken {
            Ok(true) => return std::future::pending().await,
            Ok(false) => tokio::time::sleep(ROOTS_REREAD).await,
            Err(why) => {
                if complained != why {
                    tracing::warn!("trust bundle `{}`: {why}", path.display());
                    complained = why;
                }
                tokio::time::sleep(ROOTS_POLL).await;
            }
        }
    }
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
    async fn the_snapshots_roots_take_over_and_the_bundle_counts_no_more() {
        let trust = Trust::new(Store::new(Arc::new(Nobody), StoreOptions::default()));
        let (bundle, first) = (root("bundle"), root("first"));
        assert_eq!(trust.bundle(&bundle), Ok(false));
        trust.follow(&index(vec![])).unwrap();
        assert_eq!(trust.current.lock().unwrap().roots, vec![bundle.clone()]);
        trust.follow(&index(vec![first.clone()])).unwrap();
        assert_eq!(trust.bundle(&bundle), Ok(true));
        assert_eq!(trust.current.lock().unwrap().roots, vec![first.clone()]);
        assert!(trust.follow(&index(vec!["no PEM".to_owned()])).is_err());
        assert_eq!(trust.current.lock().unwrap().roots, vec![first]);
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
