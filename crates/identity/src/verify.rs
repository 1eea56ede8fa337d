//! Whose certificates are believed: paths to the mesh's roots, one SPIFFE id, the mesh's trust domains.

mod certificate;
mod constraints;
mod memory;
mod path;
mod revocation;
mod strict;
mod svid;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use model::{SpiffeId, TrustDomain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
};

use crate::error::PeerProblem;
use crate::pki::{self, Facts, Fingerprint};

pub(crate) use memory::{Chain, Memory};
pub use path::{Anchors, Purpose};
pub use revocation::ListStatus;
pub(crate) use svid::read as svid;

/// The algorithms of the mesh: X25519MLKEM768 first, then X25519, P-256 and P-384; for TLS 1.2 only forward-secret
/// AEAD suites (semantics 1.7).
pub fn crypto() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        use rustls::crypto::aws_lc_rs::{cipher_suite as suite, default_provider, kx_group};
        let mut provider = default_provider();
        provider.kx_groups = vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ];
        provider.cipher_suites = vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ];
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

static ONLY_13: [&SupportedProtocolVersion; 1] = [&TLS13];
static ALSO_12: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

pub(crate) fn versions(v12: bool) -> &'static [&'static SupportedProtocolVersion] {
    if v12 { &ALSO_12 } else { &ONLY_13 }
}

/// What a client speaks: TLS 1.3, and where it says so 1.2 with these suites.
#[derive(Clone, Copy, Default)]
pub(crate) struct Versions<'s> {
    pub(crate) v12: bool,
    pub(crate) suites: &'s [String],
}

/// The algorithms of the mesh with these suites of TLS 1.2 instead of its own, if any are named.
fn provider(suites: &[String]) -> Arc<CryptoProvider> {
    use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
    if suites.is_empty() {
        return crypto();
    }
    let mut provider = CryptoProvider::clone(&crypto());
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    // In the order in which they are named.
    for name in suites {
        let named = |suite: &&SupportedCipherSuite| openssl_name(suite.suite()) == Some(name);
        provider
            .cipher_suites
            .extend(ALL_CIPHER_SUITES.iter().find(named));
    }
    Arc::new(provider)
}

/// A suite of TLS 1.2 by OpenSSL's name.
fn openssl_name(suite: CipherSuite) -> Option<&'static str> {
    Some(match suite {
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => return None,
    })
}

/// What the mesh believes.
#[derive(Clone, Default, Debug)]
pub(crate) struct Trust {
    pub(crate) anchors: Arc<Anchors>,
    /// The roots by their fingerprints, in the order of the bundle: the CA signs by the first.
    pub(crate) roots: Arc<[Fingerprint]>,
    /// The mesh's trust domain and its aliases; empty believes nobody.
    pub(crate) domains: BTreeSet<TrustDomain>,
    /// Roots that vouch for peers of one trust domain each, and for nobody else.
    pub(crate) bundles: Arc<BTreeMap<TrustDomain, Anchors>>,
    pub(crate) v12: bool,
    /// The suites of TLS 1.2 by OpenSSL's names; empty means [`crypto`]'s.
    pub(crate) suites: Vec<String>,
    /// Chains that were found good by all of this.
    pub(crate) memory: Arc<Memory>,
    /// Goes up with each change.
    pub(crate) version: u64,
}

impl Trust {
    /// The same in another state, in which nothing has been judged yet.
    pub(crate) fn changed(&self, edit: impl Fn(&mut Self)) -> Self {
        let mut next = self.clone();
        edit(&mut next);
        next.memory = Arc::default();
        next.version = self.version.saturating_add(1);
        next
    }
}

fn problem(error: webpki::Error) -> PeerProblem {
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } => PeerProblem::Expired,
        E::CertNotValidYet { .. } => PeerProblem::NotYetValid,
        // A root of the same name whose key did not sign this is another root.
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => PeerProblem::UnknownIssuer,
        E::CaUsedAsEndEntity | E::EndEntityUsedAsCa | E::RequiredEkuNotFoundContext(_) => {
            PeerProblem::Purpose
        }
        E::BadDer | E::BadDerTime => PeerProblem::Malformed,
        other => PeerProblem::Other(other.to_string()),
    }
}

/// Judges the peers of one side of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    pub(crate) anchors: Arc<Anchors>,
    /// `None` where `expected` alone says who may be there.
    pub(crate) domains: Option<BTreeSet<TrustDomain>>,
    /// Roots of one trust domain each.
    pub(crate) bundles: Arc<BTreeMap<TrustDomain, Anchors>>,
    /// `None` where anyone of the trust domains may be there: who it is, is for policy to judge.
    pub(crate) expected: Option<Arc<[SpiffeId]>>,
    /// Chains that were found good by all of the above but `expected`.
    pub(crate) memory: Arc<Memory>,
}

impl Peers {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        purpose: Purpose,
    ) -> Result<(), PeerProblem> {
        let chain = Chain::of(purpose, leaf, intermediates);
        let known = match self.memory.recall(&chain, now) {
            Some(known) => known,
            None => {
                let (facts, until) = self.verify(leaf, intermediates, now, purpose)?;
                self.memory.keep(chain, facts, now, until)
            }
        };
        let id = &known.facts.id;
        if self.expected.as_ref().is_some_and(|e| !e.contains(id)) {
            return Err(PeerProblem::Unexpected(id.clone()));
        }
        Ok(())
    }

    /// Who it is, by the roots that may say so, and until when that holds.
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        purpose: Purpose,
    ) -> Result<(Facts, i64), PeerProblem> {
        // Which roots may vouch for it, is said by the name that it claims; that they do is verified then.
        let claimed = pki::facts(leaf).ok().map(|facts| facts.id.trust_domain().clone());
        let own = self
            .domains
            .as_ref()
            .is_none_or(|d| claimed.as_ref().is_some_and(|td| d.contains(td)));
        let bundle = claimed.as_ref().and_then(|td| self.bundles.get(td));
        let by = |anchors: &Anchors| {
            let facts = anchors.verify_identity(leaf, intermediates, now, purpose)?;
            let until = memory::good_until(anchors, leaf, intermediates, now);
            Ok((facts, until))
        };
        match (own, bundle) {
            (true, None) => by(&self.anchors),
            (true, Some(bundle)) => by(&self.anchors).or_else(|problem| by(bundle).map_err(|_| problem)),
            (false, Some(bundle)) => by(bundle),
            (false, None) => {
                // Whole components are compared: `td` never stands for `td.evil` (ID-07).
                let id = by(&self.anchors)?.0.id;
                Err(PeerProblem::TrustDomain(id.trust_domain().clone()))
            }
        }
    }
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    crypto().signature_verification_algorithms
}

/// As a server: a client certificate is demanded.
impl ClientCertVerifier for Peers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No names of roots: they say nothing that a peer needs and change with every rotation.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(leaf, intermediates, now, Purpose::Client)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signed, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// As a client: the SPIFFE id is what is verified, not the name that was asked for.
impl ServerCertVerifier for Peers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(leaf, intermediates, now, Purpose::Server)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signed, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// Judges a server outside the mesh's identities: by its DNS name or address.
#[derive(Clone, Debug)]
pub(crate) struct Named(pub(crate) Arc<Anchors>);

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.verify_name(leaf, intermediates, now, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signed, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// A server that demands a client certificate.
pub(crate) fn server_config(
    trust: &Trust,
    certified: Arc<CertifiedKey>,
    time: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, Error> {
    let peers = Peers {
        anchors: Arc::clone(&trust.anchors),
        domains: Some(trust.domains.clone()),
        bundles: Arc::clone(&trust.bundles),
        expected: None,
        memory: Arc::clone(&trust.memory),
    };
    let mut config = ServerConfig::builder_with_details(provider(&trust.suites), time)
        .with_protocol_versions(versions(trust.v12))?
        .with_client_cert_verifier(Arc::new(peers))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    // No resumption: a ticket would outlive the check of the certificate that it was given for.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A client that shows its certificate, where it has one.
pub(crate) fn client_config(
    verifier: Arc<dyn ServerCertVerifier>,
    certified: Option<Arc<CertifiedKey>>,
    versions: Versions<'_>,
    time: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_details(provider(versions.suites), time)
        .with_protocol_versions(self::versions(versions.v12))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match certified {
        None => builder.with_no_client_auth(),
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
    };
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}
