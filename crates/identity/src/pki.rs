//! Keys, signing requests and PEM, for clients of a CA and for the CA itself.

use std::str::FromStr;

use model::SpiffeId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A private key and the request to have it certified.
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

impl Request {
    /// Makes an ECDSA P-256 key and a request for it.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(id: &SpiffeId) -> Result<Self, String> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| e.to_string())?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let uri = rcgen::string::Ia5String::from_str(&id.to_string()).map_err(|e| e.to_string())?;
        params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
        let csr_pem = params
            .serialize_request(&key)
            .and_then(|r| r.pem())
            .map_err(|e| e.to_string())?;
        Ok(Self { key, csr_pem })
    }

    /// The private key, for TLS.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }
}

/// All certificates of a PEM text.
///
/// # Errors
/// The text is not PEM, or holds no certificate.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| format!("not PEM: {e}"))?;
    if all.is_empty() {
        Err("no certificate in it".to_owned())
    } else {
        Ok(all)
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

/// Reads the facts of a leaf: exactly one URI SAN, and that a workload identity (semantics 2.6 OURS).
///
/// # Errors
/// The certificate is malformed, or proves no workload identity.
pub fn facts(der: &[u8]) -> Result<Facts, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| format!("malformed: {e}"))?;
    let sans = certificate
        .subject_alternative_name()
        .map_err(|e| format!("malformed subject alternative name: {e}"))?;
    let mut uris = sans
        .iter()
        .flat_map(|s| &s.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    let uri = uris.next().ok_or("it has no SPIFFE id")?;
    if uris.next().is_some() {
        return Err("it has several URIs".to_owned());
    }
    let id: SpiffeId = uri.parse().map_err(|e| format!("{e}"))?;
    let validity = certificate.validity();
    Ok(Facts {
        id,
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
        subject: certificate.subject().to_string(),
        serial: certificate.raw_serial_as_string(),
    })
}
