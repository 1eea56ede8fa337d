//! Issuance: what is taken from a request, and what is not.

use model::SpiffeId;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
    SerialNumber,
};
use time::{Duration, OffsetDateTime};

use crate::csr::{self, Kind, ProvenKey};
use crate::root::Root;

/// The longest lifetime that may be asked for (semantics 5.2).
pub const MAX_LIFETIME: Duration = Duration::days(90);

/// The longest signing request that is looked at, bytes of PEM.
pub const MAX_REQUEST: usize = 16 * 1024;

/// How far the past is included, for clocks that run behind.
const BACKDATE: Duration = Duration::minutes(2);

/// Bytes of a serial number, all random.
const SERIAL: usize = 16;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// It is not a signing request, or its signature is not by its own key (ID-03).
    #[error("the signing request was refused: {0}")]
    Request(&'static str),
    /// The lifetime is out of range (ID-06).
    #[error("the lifetime of {asked} s is out of range: at most {} s", MAX_LIFETIME.whole_seconds())]
    Lifetime {
        /// What was asked for, seconds.
        asked: i64,
    },
    /// The root is past its own end, so that nothing signed by it would be valid.
    #[error("the root certificate has expired")]
    RootExpired,
    /// Signing failed; not the caller's doing.
    #[error("signing failed: {0}")]
    Internal(String),
}

/// A certificate that was issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The leaf, PEM.
    pub leaf: String,
    /// What stands between the leaf and the root, PEM, the signer first.
    pub chain: Vec<String>,
    /// The root, PEM.
    pub root: String,
    /// The serial number, hex.
    pub serial: String,
    /// When it ends.
    pub not_after: OffsetDateTime,
    /// The kind of its key.
    pub key: &'static str,
}

/// Issues a certificate for `id`. Of the request only the public key is taken; `asked` seconds is the lifetime, zero or
/// less leaves it at `lifetime`, which it never exceeds; and it never outlives the root.
///
/// # Errors
/// See [`SignError`].
pub fn sign(
    root: &Root,
    id: &SpiffeId,
    csr_pem: &str,
    asked: i64,
    lifetime: Duration,
    now: OffsetDateTime,
) -> Result<Issued, SignError> {
    if asked > MAX_LIFETIME.whole_seconds() {
        return Err(SignError::Lifetime { asked });
    }
    let lifetime = if asked > 0 {
        Duration::seconds(asked).min(lifetime)
    } else {
        lifetime
    };
    certify(root, id, &[], &csr::read(csr_pem)?, lifetime, now)
}

/// Issues with DNS names besides the identity. Callers never get these: they are the CA's own.
pub(crate) fn certify(
    root: &Root,
    id: &SpiffeId,
    dns: &[&str],
    proven: &ProvenKey,
    lifetime: Duration,
    now: OffsetDateTime,
) -> Result<Issued, SignError> {
    let failed = |why: &dyn std::fmt::Display| SignError::Internal(why.to_string());
    if now >= root.not_after() {
        return Err(SignError::RootExpired);
    }
    let name = |text: &str| Ia5String::try_from(text).map_err(|e| failed(&e));
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(name(&id.to_string())?)];
    for dns in dns {
        params.subject_alt_names.push(SanType::DnsName(name(dns)?));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if proven.kind == Kind::Rsa {
        params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    }
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = root.has_key_id();
    let mut serial = [0; SERIAL];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| failed(&"no random numbers"))?;
    // Positive, and of one length.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = now - BACKDATE;
    params.not_after = (now + lifetime).min(root.not_after());
    let not_after = params.not_after;
    let leaf = params
        .signed_by(&proven.key, root.issuer())
        .map_err(|e| failed(&e))?;
    Ok(Issued {
        leaf: leaf.pem(),
        chain: root.chain().to_vec(),
        root: root.pem().to_owned(),
        serial: serial.iter().map(|b| format!("{b:02x}")).collect(),
        not_after,
        key: proven.kind.as_str(),
    })
}

#[cfg(test)]
mod tests;
