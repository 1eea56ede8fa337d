//! Keys, signing requests and PEM, for clients of a CA and for the CA itself.

use model::{SpiffeId, SpiffeUri};
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroize;

/// The most certificates that are taken from one text.
const MAX_CERTIFICATES: usize = 64;

/// A private key and the request to have it certified. The key's bytes are wiped when it is dropped.
pub struct Request {
    key: KeyPair,
    /// The signing request, PEM. It carries the public key and nothing that the CA would believe.
    pub csr_pem: String,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Request { key: (secret) }")
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Request {
    /// Makes an ECDSA P-256 key and a request for it.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(id: &SpiffeId) -> Result<Self, String> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| e.to_string())?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let uri = Ia5String::try_from(id.to_string()).map_err(|e| e.to_string())?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        let csr_pem = params
            .serialize_request(&key)
            .and_then(|r| r.pem())
            .map_err(|e| e.to_string())?;
        Ok(Self { key, csr_pem })
    }

    /// Joins the key with the chain that was issued for it, leaf first.
    ///
    /// # Errors
    /// The leaf is not for this key.
    pub fn certify(&self, chain: Vec<CertificateDer<'static>>) -> Result<CertifiedKey, String> {
        let mut der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let certified = certify(chain, &der);
        der.zeroize();
        certified
    }
}

/// Joins a chain, leaf first, with its key, PEM.
///
/// # Errors
/// The key is not PEM, of an unknown kind, or not the leaf's.
pub(crate) fn certified(chain: Vec<CertificateDer<'static>>, key: &str) -> Result<CertifiedKey, String> {
    let mut der =
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| format!("the key is not PEM: {e}"))?;
    let certified = certify(chain, &der);
    der.zeroize();
    certified
}

/// All certificates of a PEM text.
///
/// # Errors
/// The text is not PEM, holds no certificate, or too many.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(MAX_CERTIFICATES + 1)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("not PEM: {e}"))?;
    match all.len() {
        0 => Err("no certificate in it".to_owned()),
        1..=MAX_CERTIFICATES => Ok(all),
        _ => Err(format!("more than {MAX_CERTIFICATES} certificates in it")),
    }
}

/// Reads an X509-SVID and its key out of PEM: the leaf first, then the CAs that lead on from it. Whether they lead to a
/// root that is believed is not looked at.
///
/// # Errors
/// A text is not PEM, a certificate is not as X509-SVID section 4 has it, or the key is not the leaf's.
pub fn read_svid(chain: &str, key: &str) -> Result<(SpiffeUri, CertifiedKey), String> {
    let chain = certificates(chain)?;
    let id = crate::verify::svid(&chain).map_err(|e| e.to_string())?;
    let certified = certified(chain, key)?;
    Ok((id, certified))
}

/// Joins a chain with its key.
fn certify(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'_>) -> Result<CertifiedKey, String> {
    let key = any_supported_type(key).map_err(|e| e.to_string())?;
    let certified = CertifiedKey::new(chain, key);
    certified
        .keys_match()
        .map_err(|_| "the key is not the certificate's".to_owned())?;
    Ok(certified)
}

/// SHA-256 of a certificate's DER; shown as lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate.
    pub fn of(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
        bytes
            .iter_mut()
            .zip(digest.as_ref())
            .for_each(|(to, from)| *to = *from);
        Self(bytes)
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// What a certificate says of itself.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The one SPIFFE id of its URI SAN.
    pub id: SpiffeId,
    /// Unix seconds.
    pub not_before: i64,
    /// Unix seconds.
    pub not_after: i64,
    /// The subject, as text.
    pub subject: String,
    /// The serial number, hex.
    pub serial: String,
}

/// Why a certificate proves no workload identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// It cannot be read.
    #[error("malformed certificate")]
    Malformed,
    /// There is no URI in its subject alternative name.
    #[error("no URI SAN")]
    NoUri,
    /// There are several (X509-SVID section 2).
    #[error("several URI SANs")]
    SeveralUris,
    /// The one URI is not an identity of the mesh (ID-01).
    #[error("its URI SAN is not a workload identity")]
    NotAnIdentity,
}

/// Reads the facts of a leaf: exactly one URI SAN, and that a workload identity (semantics 2.6 OURS). Verifies nothing.
///
/// # Errors
/// The certificate is malformed, or names no workload identity.
pub fn facts(der: &[u8]) -> Result<Facts, FactsError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| FactsError::Malformed)?;
    let id = uri(&certificate)?
        .parse()
        .map_err(|_| FactsError::NotAnIdentity)?;
    let validity = certificate.validity();
    Ok(Facts {
        id,
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
        subject: certificate.subject().to_string(),
        serial: certificate
            .raw_serial()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect(),
    })
}

/// The last second in which a certificate is valid, Unix seconds; `None` where it cannot be read.
pub(crate) fn end(der: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// The one URI of a certificate's subject alternative names.
pub(crate) fn uri<'a>(certificate: &X509Certificate<'a>) -> Result<&'a str, FactsError> {
    let sans = certificate
        .subject_alternative_name()
        .map_err(|_| FactsError::Malformed)?;
    let mut uris = Vec::new();
    for name in sans.iter().flat_map(|s| &s.value.general_names) {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            // What cannot be read may be a URI as well.
            GeneralName::Invalid(..) => return Err(FactsError::Malformed),
            _ => {}
        }
    }
    match uris.as_slice() {
        [] => Err(FactsError::NoUri),
        [uri] => Ok(uri),
        _ => Err(FactsError::SeveralUris),
    }
}
