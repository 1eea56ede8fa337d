//! What X509-SVID (section 4) asks of the certificates that prove an identity, beyond RFC 5280.

use model::SpiffeUri;
use rustls::pki_types::CertificateDer;

use super::certificate::Cert;
use crate::error::PeerProblem;
use crate::pki::{self, FactsError};

/// Reads a chain, leaf first, as an X509-SVID: its SPIFFE id, of whatever path.
///
/// # Errors
/// A certificate is not as it must be. No signature is looked at.
pub(crate) fn read(chain: &[CertificateDer<'_>]) -> Result<SpiffeUri, PeerProblem> {
    let (first, rest) = chain.split_first().ok_or(PeerProblem::Missing)?;
    let cert = Cert::leaf(first)?;
    leaf(&cert)?;
    for der in rest {
        signing(&Cert::intermediate(der)?)?;
    }
    let uri = pki::uri(&cert.x509).map_err(PeerProblem::Identity)?;
    uri.parse()
        .map_err(|_| PeerProblem::Identity(FactsError::NotAnIdentity))
}

/// A leaf signs handshakes, and neither certificates nor revocation lists (sections 4.1 and 4.3). That it has one URI, a
/// SPIFFE id, is read with its facts.
pub(super) fn leaf(cert: &Cert<'_>) -> Result<(), PeerProblem> {
    let fit = cert
        .key_usage()
        .is_some_and(|u| u.digital_signature() && !u.key_cert_sign() && !u.crl_sign());
    if fit { Ok(()) } else { Err(PeerProblem::Purpose) }
}

/// A CA says that it signs certificates (section 4.3).
pub(super) fn signing(cert: &Cert<'_>) -> Result<(), PeerProblem> {
    let fit = cert.key_usage().is_some_and(|u| u.key_cert_sign());
    if fit { Ok(()) } else { Err(PeerProblem::Purpose) }
}
