//! Whose certificates are believed: chains to the mesh's roots, one SPIFFE id, the mesh's trust domains.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{SpiffeId, TrustDomain};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme,
};

use crate::pki;

/// A certificate chain with its key, ready for TLS.
pub(crate) type Certified = Arc<rustls::sign::CertifiedKey>;

/// X25519MLKEM768 first, then X25519 and P-256; for TLS 1.2 only forward-secret AEAD suites (semantics 1.7).
pub(crate) fn provider() -> Arc<CryptoProvider> {
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
}

static BOTH: [&rustls::SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

pub(crate) fn versions(v12: bool) -> &'static [&'static rustls::SupportedProtocolVersion] {
    if v12 {
        &BOTH
    } else {
        BOTH.get(..1).unwrap_or_default()
    }
}

/// Which identities are believed at the other end.
#[derive(Clone, Debug)]
pub(crate) enum Whom {
    /// Any workload of these trust domains; who it is, is for policy to judge.
    Domains(Arc<BTreeSet<TrustDomain>>),
    /// One of these.
    Ids(Arc<[SpiffeId]>),
}

impl Whom {
    pub(crate) fn one(id: &SpiffeId) -> Self {
        Self::Ids(Arc::from([id.clone()]))
    }

    fn admits(&self, der: &[u8]) -> Result<(), Error> {
        let facts = pki::facts(der).map_err(Error::General)?;
        let known = match self {
            Self::Domains(domains) => domains.contains(facts.id.trust_domain()),
            Self::Ids(ids) => ids.contains(&facts.id),
        };
        if known {
            Ok(())
        } else {
            Err(Error::General(format!("`{}` is not expected here", facts.id)))
        }
    }
}

/// A server that demands a client certificate.
pub(crate) fn server_config(
    roots: &[CertificateDer<'static>],
    domains: &Arc<BTreeSet<TrustDomain>>,
    certified: Certified,
    v12: bool,
) -> Result<ServerConfig, String> {
    let provider = provider();
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(store(roots)?), Arc::clone(&provider))
        .build()
        .map_err(|e| e.to_string())?;
    let verifier = Arc::new(Clients {
        inner,
        whom: Whom::Domains(Arc::clone(domains)),
    });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(v12))
        .map_err(|e| e.to_string())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    // No resumption: a ticket would outlive the check of the certificate that it was given for.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A client that shows its certificate, where it has one, and believes `whom`.
pub(crate) fn client_config(
    roots: &[CertificateDer<'static>],
    whom: Whom,
    certified: Option<(Certified, bool)>,
) -> Result<ClientConfig, String> {
    let provider = provider();
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store(roots)?), Arc::clone(&provider))
        .build()
        .map_err(|e| e.to_string())?;
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Arc::new(Servers {
        inner,
        roots: roots.to_vec(),
        algorithms,
        whom,
    });
    let v12 = certified.as_ref().is_some_and(|(_, v12)| *v12);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(v12))
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match certified {
        None => builder.with_no_client_auth(),
        Some((key, _)) => {
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
        }
    };
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|e| e.to_string())?;
    }
    if store.is_empty() {
        Err("there are no trust roots".to_owned())
    } else {
        Ok(store)
    }
}

#[derive(Debug)]
struct Clients {
    inner: Arc<dyn ClientCertVerifier>,
    whom: Whom,
}

impl ClientCertVerifier for Clients {
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
        self.inner.verify_client_cert(leaf, intermediates, now)?;
        self.whom.admits(leaf)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(m, c, d)
    }

    fn verify_tls13_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(m, c, d)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct Servers {
    inner: Arc<WebPkiServerVerifier>,
    roots: Vec<CertificateDer<'static>>,
    algorithms: rustls::crypto::WebPkiSupportedAlgorithms,
    whom: Whom,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The chain by webpki; the name by SPIFFE id instead of DNS.
        let refused = |e: webpki::Error| match e {
            webpki::Error::CertExpired { .. } => Error::InvalidCertificate(CertificateError::Expired),
            webpki::Error::CertNotValidYet { .. } => Error::InvalidCertificate(CertificateError::NotValidYet),
            webpki::Error::UnknownIssuer => Error::InvalidCertificate(CertificateError::UnknownIssuer),
            other => Error::General(other.to_string()),
        };
        let anchors: Vec<_> = self
            .roots
            .iter()
            .map(|r| webpki::anchor_from_trusted_cert(r))
            .collect::<Result<_, _>>()
            .map_err(refused)?;
        let end = webpki::EndEntityCert::try_from(leaf).map_err(refused)?;
        end.verify_for_usage(
            self.algorithms.all,
            &anchors,
            intermediates,
            now,
            webpki::KeyUsage::server_auth(),
            None,
            None,
        )
        .map_err(refused)?;
        self.whom.admits(leaf)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(m, c, d)
    }

    fn verify_tls13_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(m, c, d)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
