//! What can go wrong, by who is at fault.

use std::io;
use std::sync::Arc;

use model::{Reason, SpiffeId};
use rustls::{AlertDescription, CertificateError, Error, OtherError};

use crate::pki::FactsError;

/// Roots that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("trust roots: {0}")]
pub struct RootsError(pub(crate) String);

/// A certificate could not be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IssueError {
    /// The token could not be read.
    #[error("token file `{file}`: {why}")]
    Token {
        /// Its path.
        file: String,
        /// The system's words.
        why: String,
    },
    /// The CA could not be reached, or cannot answer now.
    #[error("the certificate authority is out of reach: {0}")]
    Unreachable(String),
    /// What answers is not the CA that is meant.
    #[error("what answers is not the certificate authority: {0}")]
    Untrusted(String),
    /// The CA refused.
    #[error("the certificate authority refused: {0}")]
    Refused(String),
    /// The CA's answer is not a certificate for this key and identity.
    #[error("the certificate authority answered with something unusable: {0}")]
    Answer(String),
    /// A limit of the store was reached.
    #[error("limit reached: {0}")]
    Limit(&'static str),
    /// The identity was forgotten meanwhile, or the store has ended.
    #[error("given up")]
    GivenUp,
}

impl IssueError {
    /// Whether waiting may help: nobody has said no.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Token { .. } | Self::Unreachable(_))
    }
}

/// Why a peer's certificate proves nothing here. The words of each are stable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerProblem {
    /// There was none.
    #[error("no certificate")]
    Missing,
    /// It is past its end.
    #[error("expired")]
    Expired,
    /// It is before its beginning.
    #[error("not yet valid")]
    NotYetValid,
    /// It does not chain to a root of the mesh.
    #[error("unknown issuer")]
    UnknownIssuer,
    /// It is for other purposes: a CA's, or without the extended key usage that is needed.
    #[error("not for this purpose")]
    Purpose,
    /// Its issuer has revoked it, or a CA between it and the root was revoked.
    #[error("revoked")]
    Revoked,
    /// There is a revocation list of an issuer that cannot be relied on, so that nothing of this issuer can be.
    #[error("the revocation list of its issuer {0}")]
    RevocationList(String),
    /// A signature is wrong.
    #[error("bad signature")]
    Signature,
    /// It cannot be read.
    #[error("malformed certificate")]
    Malformed,
    /// Its one URI SAN is not there, is not alone, or is not an identity.
    #[error(transparent)]
    Identity(FactsError),
    /// Its trust domain is not the mesh's and not an alias (ID-07).
    #[error("unknown trust domain `{0}`")]
    TrustDomain(model::TrustDomain),
    /// It proves another identity than one that is expected.
    #[error("unexpected identity `{0}`")]
    Unexpected(SpiffeId),
    /// It has not the name that is expected.
    #[error("unexpected name")]
    Name,
    /// Something else that the verifier says.
    #[error("refused: {0}")]
    Other(String),
}

impl From<PeerProblem> for Error {
    /// Chosen so that the peer gets the alert that says most.
    fn from(problem: PeerProblem) -> Self {
        Self::InvalidCertificate(match problem {
            PeerProblem::Expired => CertificateError::Expired,
            PeerProblem::NotYetValid => CertificateError::NotValidYet,
            PeerProblem::UnknownIssuer => CertificateError::UnknownIssuer,
            PeerProblem::Purpose => CertificateError::InvalidPurpose,
            PeerProblem::Revoked => CertificateError::Revoked,
            PeerProblem::Signature => CertificateError::BadSignature,
            PeerProblem::Malformed => CertificateError::BadEncoding,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        })
    }
}

impl From<&CertificateError> for PeerProblem {
    fn from(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::Purpose
            }
            CertificateError::Revoked => Self::Revoked,
            CertificateError::BadSignature => Self::Signature,
            CertificateError::BadEncoding => Self::Malformed,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::Name,
            CertificateError::Other(OtherError(inner)) => inner
                .downcast_ref::<Self>()
                .cloned()
                .unwrap_or_else(|| Self::Other(inner.to_string())),
            other => Self::Other(other.to_string()),
        }
    }
}

/// A handshake that failed, told apart by whose doing it was. The texts begin with stable words.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// We have no certificate for this workload yet, or it has expired.
    #[error("not ready: no valid certificate for `{0}`")]
    NotReady(SpiffeId),
    /// We have no trust roots yet.
    #[error("not ready: no trust roots")]
    NoRoots,
    /// We have not been told whom to expect (R28).
    #[error("refused by us: no identity is expected at the other end")]
    NobodyExpected,
    /// We refused the peer.
    #[error("refused by us: the peer's certificate: {0}")]
    Peer(PeerProblem),
    /// The peer refused us with this alert.
    #[error("refused by the peer: alert {0:?}")]
    Alert(AlertDescription),
    /// The peer closed the connection within the handshake.
    #[error("closed by the peer within the handshake")]
    Closed,
    /// The bytes are not the TLS that is spoken here, or the connection broke.
    #[error("handshake failed: {0}")]
    Handshake(String),
    /// It took too long.
    #[error("handshake timed out")]
    Timeout,
}

impl TlsError {
    /// The stable reason for logs and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotReady(_) | Self::NoRoots => Reason::NotReady,
            Self::NobodyExpected | Self::Peer(_) => Reason::PeerIdentity,
            Self::Alert(_) | Self::Closed | Self::Handshake(_) => Reason::TlsHandshake,
            Self::Timeout => Reason::Timeout,
        }
    }

    /// Whether the peer ended the handshake, and not we.
    pub fn by_peer(&self) -> bool {
        matches!(self, Self::Alert(_) | Self::Closed)
    }

    /// The refusal that an error of the first read is, if it is one: under TLS 1.3 a client learns only then that its
    /// certificate was refused (O-16).
    pub fn late(error: &io::Error) -> Option<Self> {
        match rustls_error(error) {
            Some(Error::AlertReceived(alert)) => Some(Self::Alert(*alert)),
            _ => None,
        }
    }

    pub(crate) fn from_io(error: &io::Error) -> Self {
        match rustls_error(error) {
            Some(Error::NoCertificatesPresented) => Self::Peer(PeerProblem::Missing),
            Some(Error::InvalidCertificate(why)) => Self::Peer(PeerProblem::from(why)),
            Some(Error::AlertReceived(alert)) => Self::Alert(*alert),
            Some(other) => Self::Handshake(other.to_string()),
            None if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ) =>
            {
                Self::Closed
            }
            None => Self::Handshake(error.to_string()),
        }
    }
}

fn rustls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|e| e.downcast_ref::<Error>())
}
