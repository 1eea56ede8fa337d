//! The CA's own server certificate: signed by itself, kept in memory, made anew at half life.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use identity::pki::{self, Fingerprint};
use model::{SpiffeId, TrustDomain};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::csr;
use crate::roots::Roots;
use crate::sign::certify;

/// The name that Istio's agents ask for.
const DNS: &str = "istiod.istio-system.svc";

/// The lifetime of the certificate; the next one is made after half of it.
const LIFETIME: Duration = Duration::from_secs(3600);

/// The certificate that the service shows.
pub(super) struct Own {
    roots: Arc<Roots>,
    id: SpiffeId,
    current: Mutex<Option<Made>>,
}

struct Made {
    at: SystemTime,
    by: Fingerprint,
    key: Arc<CertifiedKey>,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Own {
    pub(super) fn new(roots: Arc<Roots>, trust_domain: &TrustDomain) -> Result<Self, String> {
        let id = SpiffeId::new(trust_domain.clone(), "meshward-system", "ca").map_err(|e| e.to_string())?;
        let own = Self {
            roots,
            id,
            current: Mutex::new(None),
        };
        own.fresh(SystemTime::now())?;
        Ok(own)
    }

    /// The one in use, or the next where that one is past its half life, or another root signs, or the clock was set back
    /// before its start.
    fn fresh(&self, now: SystemTime) -> Result<Arc<CertifiedKey>, String> {
        let root = self.roots.signing();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*current
            && made.by == root.fingerprint()
            && now.duration_since(made.at).is_ok_and(|age| age < LIFETIME / 2)
        {
            return Ok(Arc::clone(&made.key));
        }
        let request = pki::Request::new(&self.id)?;
        let proven = csr::read(&request.csr_pem).map_err(|e| e.to_string())?;
        let lifetime = time::Duration::try_from(LIFETIME).map_err(|e| e.to_string())?;
        let issued =
            certify(&root, &self.id, &[DNS], &proven, lifetime, now.into()).map_err(|e| e.to_string())?;
        tracing::info!(id = %self.id, serial = issued.serial, not_after = %issued.not_after, "own certificate");
        let mut chain = pki::certificates(&issued.leaf)?;
        for pem in &issued.chain {
            chain.extend(pki::certificates(pem)?);
        }
        let key = Arc::new(request.certify(chain)?);
        *current = Some(Made {
            at: now,
            by: root.fingerprint(),
            key: Arc::clone(&key),
        });
        Ok(key)
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.fresh(SystemTime::now())
            .inspect_err(|why| tracing::error!("no certificate of my own: {why}"))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::Root;

    #[test]
    fn made_anew_at_half_life_and_not_before() {
        let generate = || Root::generate(&TrustDomain::default(), SystemTime::now().into()).unwrap();
        let own = Own::new(Arc::new(Roots::of(generate())), &TrustDomain::default()).unwrap();
        let now = SystemTime::now();
        let first = own.fresh(now).unwrap();
        assert!(Arc::ptr_eq(
            &first,
            &own.fresh(now + LIFETIME / 2 - Duration::from_secs(2)).unwrap()
        ));
        let second = own.fresh(now + LIFETIME / 2).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        let back = own.fresh(now).unwrap();
        assert!(!Arc::ptr_eq(&second, &back), "a clock that was set back");
        assert_eq!(
            pki::facts(&first.cert[0]).unwrap().id.to_string(),
            "spiffe://cluster.local/ns/meshward-system/sa/ca"
        );
    }
}
