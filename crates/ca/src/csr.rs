//! Reading a signing request: its public key, and the proof that the caller holds the private one (ID-03).

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::x509;

use crate::sign::{MAX_REQUEST, SignError};

const EC: &str = "1.2.840.10045.2.1";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const RSA: &str = "1.2.840.113549.1.1.1";
const ED25519: &str = "1.3.101.112";
const ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";
const ECDSA_SHA384: &str = "1.2.840.10045.4.3.3";
const ECDSA_SHA512: &str = "1.2.840.10045.4.3.4";
const RSA_SHA256: &str = "1.2.840.113549.1.1.11";
const RSA_SHA384: &str = "1.2.840.113549.1.1.12";
const RSA_SHA512: &str = "1.2.840.113549.1.1.13";

/// The kinds of public key that are certified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    P256,
    P384,
    /// 2048 to 8192 bits.
    Rsa,
    Ed25519,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::Rsa => "RSA",
            Self::Ed25519 => "Ed25519",
        }
    }
}

/// A key whose holder has proven to hold it.
#[derive(Debug)]
pub(crate) struct ProvenKey {
    pub(crate) key: SubjectPublicKeyInfo,
    pub(crate) kind: Kind,
}

/// Takes the public key out of a request in PEM. Names, extensions and attributes in it are not looked at.
pub(crate) fn read(pem: &str) -> Result<ProvenKey, SignError> {
    if pem.len() > MAX_REQUEST {
        return Err(SignError::Request("too long"));
    }
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| SignError::Request("not a signing request in PEM"))?;
    let (rest, request) = X509CertificationRequest::from_der(&der)
        .map_err(|_| SignError::Request("not a signing request in DER"))?;
    if !rest.is_empty() {
        return Err(SignError::Request("bytes after the signing request"));
    }
    let info = &request.certification_request_info;
    let kind = kind(&info.subject_pki.algorithm)
        .ok_or(SignError::Request("its kind of key is not one that is certified"))?;
    let algorithm = algorithm(kind, &request.signature_algorithm.algorithm.to_id_string()).ok_or(
        SignError::Request("its signature algorithm is not one that is taken"),
    )?;
    // INVARIANT: the bytes that are verified are those that the key is taken from.
    UnparsedPublicKey::new(algorithm, &info.subject_pki.subject_public_key.data)
        .verify(info.raw, &request.signature_value.data)
        .map_err(|_| SignError::Request("its signature is not by its own key, or the key is too small"))?;
    let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw)
        .map_err(|_| SignError::Request("its kind of key is not one that is certified"))?;
    Ok(ProvenKey { key, kind })
}

fn kind(algorithm: &x509::AlgorithmIdentifier<'_>) -> Option<Kind> {
    match algorithm.algorithm.to_id_string().as_str() {
        EC => {
            let curve = algorithm.parameters.as_ref()?.as_oid().ok()?;
            match curve.to_id_string().as_str() {
                P256 => Some(Kind::P256),
                P384 => Some(Kind::P384),
                _ => None,
            }
        }
        RSA => Some(Kind::Rsa),
        ED25519 => Some(Kind::Ed25519),
        _ => None,
    }
}

fn algorithm(kind: Kind, signature: &str) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (kind, signature) {
        (Kind::P256, ECDSA_SHA256) => &signature::ECDSA_P256_SHA256_ASN1,
        (Kind::P256, ECDSA_SHA384) => &signature::ECDSA_P256_SHA384_ASN1,
        (Kind::P256, ECDSA_SHA512) => &signature::ECDSA_P256_SHA512_ASN1,
        (Kind::P384, ECDSA_SHA256) => &signature::ECDSA_P384_SHA256_ASN1,
        (Kind::P384, ECDSA_SHA384) => &signature::ECDSA_P384_SHA384_ASN1,
        (Kind::P384, ECDSA_SHA512) => &signature::ECDSA_P384_SHA512_ASN1,
        (Kind::Rsa, RSA_SHA256) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (Kind::Rsa, RSA_SHA384) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (Kind::Rsa, RSA_SHA512) => &signature::RSA_PKCS1_2048_8192_SHA512,
        (Kind::Ed25519, ED25519) => &signature::ED25519,
        _ => return None,
    })
}
