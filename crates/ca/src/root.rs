//! The root: its key and certificate, kept in a directory or in memory.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use identity::pki::Fingerprint;
use model::TrustDomain;
use rcgen::PKCS_ECDSA_P256_SHA256;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::config::CaError;
use crate::files;

/// How long a root lives (semantics 5.4).
const LIFETIME: Duration = Duration::days(3650);

/// The key of the first root of a directory.
pub(crate) const KEY: &str = "ca-key.pem";
/// Its certificate.
pub(crate) const CERTIFICATE: &str = "root-cert.pem";

/// The certificate and key that sign: a root of our own, or a CA that was plugged in ([`Root::plugged`]).
pub struct Root {
    pem: String,
    /// What leads from a leaf to the root, PEM, the signer first; empty where the root itself signs.
    chain: Vec<String>,
    /// Revocation lists, PEM.
    lists: String,
    /// Whether leaves can name the signer's key.
    has_key_id: bool,
    fingerprint: Fingerprint,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Root {
    /// A new root, in memory.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generate(trust_domain: &TrustDomain, now: OffsetDateTime) -> Result<Self, CaError> {
        let key =
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| CaError::Crypto(e.to_string()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, trust_domain.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - Duration::minutes(2);
        params.not_after = now + LIFETIME;
        let certificate = params
            .self_signed(&key)
            .map_err(|e| CaError::Crypto(e.to_string()))?;
        Self::from_pem(&certificate.pem(), key).map_err(CaError::Crypto)
    }

    /// The root of a directory; made there if the directory is empty or missing.
    ///
    /// # Errors
    /// The directory or the key can be read by others, or there is half of what a root is, or the halves do not belong
    /// together, or it has expired: then nothing is made anew, since that would change everybody's trust without a word.
    pub fn load_or_generate(
        dir: &Path,
        trust_domain: &TrustDomain,
        now: OffsetDateTime,
    ) -> Result<Self, CaError> {
        private_dir(dir)?;
        let (key, certificate) = (dir.join(KEY), dir.join(CERTIFICATE));
        match (key.exists(), certificate.exists()) {
            (true, true) => Self::load(&key, &certificate, now),
            (false, false) => {
                let root = Self::generate(trust_domain, now)?;
                let text = root.key_pem();
                let fail = |path: &Path, e: std::io::Error| CaError::file("root", path, e);
                files::replace(&key, text.as_bytes(), 0o600).map_err(|e| fail(&key, e))?;
                // The certificate comes last: a crash between the two leaves half a root, which is refused and says so. A
                // full disk leaves nothing: nobody has seen this root yet.
                if let Err(error) = files::replace(&certificate, root.pem.as_bytes(), 0o600) {
                    let _ = files::remove(&key);
                    return Err(fail(&certificate, error));
                }
                Ok(root)
            }
            (has_key, _) => {
                let missing = if has_key { &certificate } else { &key };
                Err(CaError::file(
                    "root",
                    missing,
                    "missing, while its other half is there; restore it or empty the directory",
                ))
            }
        }
    }

    fn load(key: &Path, certificate: &Path, now: OffsetDateTime) -> Result<Self, CaError> {
        let pem = fs::read_to_string(certificate).map_err(|e| CaError::file("root", certificate, e))?;
        Self::with_key(key, &pem, certificate, now)
    }

    /// The root of a certificate whose key is in a file; `from` is where the certificate is from, for messages.
    ///
    /// # Errors
    /// Others can read the key, it is not the certificate's, or the certificate has expired or is no root's.
    pub(crate) fn with_key(key: &Path, pem: &str, from: &Path, now: OffsetDateTime) -> Result<Self, CaError> {
        private(key, "root key", "0600")?;
        let text = fs::read_to_string(key).map_err(|e| CaError::file("root", key, e))?;
        let pair = KeyPair::from_pem(&Zeroizing::new(text)).map_err(|e| CaError::file("root key", key, e))?;
        let root = Self::from_pem(pem, pair).map_err(|e| CaError::file("root certificate", from, e))?;
        if now >= root.not_after {
            let why = format!("expired at {}", root.not_after);
            return Err(CaError::file("root certificate", from, why));
        }
        Ok(root)
    }

    fn from_pem(pem: &str, key: KeyPair) -> Result<Self, String> {
        let der = identity::pki::certificates(pem)?;
        let [only] = der.as_slice() else {
            return Err("there is more than one certificate".to_owned());
        };
        let (_, parsed) = X509Certificate::from_der(only).map_err(|e| e.to_string())?;
        if !parsed.is_ca() {
            return Err("it is not a CA's certificate".to_owned());
        }
        if rcgen::PublicKeyData::der_bytes(&key) != parsed.public_key().subject_public_key.data.as_ref() {
            return Err("it is not for the root key beside it".to_owned());
        }
        let (fingerprint, validity) = (Fingerprint::of(only), parsed.validity());
        let (not_before, not_after) = (
            validity.not_before.to_datetime(),
            validity.not_after.to_datetime(),
        );
        let issuer = Issuer::from_ca_cert_pem(pem, key).map_err(|e| e.to_string())?;
        Ok(Self {
            pem: pem.to_owned(),
            chain: Vec::new(),
            lists: String::new(),
            has_key_id: true,
            fingerprint,
            not_before,
            not_after,
            issuer,
        })
    }

    /// A signer that was not made here.
    pub(crate) fn foreign(
        (roots, fingerprint): (String, Fingerprint),
        chain: Vec<String>,
        lists: String,
        has_key_id: bool,
        (not_before, not_after): (OffsetDateTime, OffsetDateTime),
        issuer: Issuer<'static, KeyPair>,
    ) -> Self {
        Self {
            pem: roots,
            chain,
            lists,
            has_key_id,
            fingerprint,
            not_before,
            not_after,
            issuer,
        }
    }

    /// What stands between a leaf and the root, PEM, the signer first.
    pub fn chain(&self) -> &[String] {
        &self.chain
    }

    /// What everybody is to believe while there is no other root: the roots, and the revocation lists beside them.
    pub(crate) fn bundle(&self) -> String {
        format!("{}{}", self.pem, self.lists)
    }

    /// Revocation lists, PEM, that everybody is to know beside the roots.
    pub(crate) fn lists(&self) -> &str {
        &self.lists
    }

    /// Whether leaves can name the signer's key, as the signer's certificate does.
    pub(crate) fn has_key_id(&self) -> bool {
        self.has_key_id
    }

    /// The root's certificate, PEM; of a CA that was plugged in all its roots.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// When it ends; no leaf ends later.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// SHA-256 of the root's DER; of several the first's.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Whether less than a fifth of its life is left, and the next one is due (semantics 5.4).
    pub(crate) fn is_old(&self, now: OffsetDateTime) -> bool {
        self.not_after - now < (self.not_after - self.not_before) / 5
    }

    /// Its key, PEM, for its file.
    pub(crate) fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

/// Makes the directory, or sees that it is nobody else's.
pub(crate) fn private_dir(dir: &Path) -> Result<(), CaError> {
    if !dir.exists() {
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(dir)
            .map_err(|e| CaError::file("key directory", dir, e))?;
    }
    private(dir, "key directory", "0700")
}

fn private(path: &Path, what: &'static str, mode: &str) -> Result<(), CaError> {
    let meta = fs::metadata(path).map_err(|e| CaError::file(what, path, e))?;
    if meta.mode() & 0o077 == 0 {
        return Ok(());
    }
    let why = format!(
        "others may reach it (mode {:o}); make it {mode}",
        meta.mode() & 0o777
    );
    Err(CaError::file(what, path, why))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_restart_keeps_the_root_and_half_a_root_stops_it() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let td = TrustDomain::default();
        let first = Root::load_or_generate(&keys, &td, now).unwrap();
        let again = Root::load_or_generate(&keys, &td, now).unwrap();
        assert_eq!(first.pem(), again.pem());
        assert_eq!(fs::metadata(keys.join(KEY)).unwrap().mode() & 0o777, 0o600);
        fs::remove_file(keys.join(KEY)).unwrap();
        assert!(
            Root::load_or_generate(&keys, &td, now)
                .unwrap_err()
                .to_string()
                .contains("ca-key.pem")
        );
    }

    #[test]
    fn a_directory_that_others_read_stops_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let refused = Root::load_or_generate(dir.path(), &TrustDomain::default(), OffsetDateTime::UNIX_EPOCH)
            .unwrap_err();
        assert!(refused.to_string().contains("0700"), "{refused}");
    }

    #[test]
    fn a_key_of_another_root_stops_it() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let (a, b) = (
            Root::generate(&TrustDomain::default(), now).unwrap(),
            Root::generate(&TrustDomain::default(), now).unwrap(),
        );
        let key = KeyPair::from_pem(&b.issuer.key().serialize_pem()).unwrap();
        assert!(Root::from_pem(a.pem(), key).is_err());
    }
}
