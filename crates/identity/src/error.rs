//! What can go wrong, by who is at fault.

use model::{Reason, SpiffeId};

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
    /// The CA refused or could not be reached.
    #[error("certificate authority: {0}")]
    Authority(String),
    /// The CA's answer is not a certificate for this key and identity.
    #[error("the certificate authority answered with something unusable: {0}")]
    Answer(String),
}

/// A handshake that failed, told apart by whose doing it was.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// We have no certificate for this workload yet.
    #[error("no certificate for `{0}` yet")]
    NotReady(SpiffeId),
    /// The client has not been told whom to expect (R28).
    #[error("no identity is expected at the other end")]
    NobodyExpected,
    /// The peer proved another identity than one that is expected.
    #[error("the peer is `{got}`, not one of those expected")]
    Unexpected {
        /// Who it is.
        got: SpiffeId,
    },
    /// The peer's certificate proves nothing here: expired, another root, another trust domain, not one SPIFFE id.
    #[error("the peer's certificate was refused: {0}")]
    PeerCertificate(String),
    /// The peer sent no certificate.
    #[error("the peer sent no certificate")]
    NoPeerCertificate,
    /// The peer refused us with this alert.
    #[error("the peer refused the handshake: {0}")]
    Alert(String),
    /// The bytes are not the TLS that is spoken here, or the connection broke.
    #[error("the handshake failed: {0}")]
    Handshake(String),
    /// It took too long.
    #[error("the handshake took too long")]
    Timeout,
}

impl TlsError {
    /// The stable reason for logs and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotReady(_) => Reason::NotReady,
            Self::NobodyExpected
            | Self::Unexpected { .. }
            | Self::PeerCertificate(_)
            | Self::NoPeerCertificate => Reason::PeerIdentity,
            Self::Alert(_) | Self::Handshake(_) => Reason::TlsHandshake,
            Self::Timeout => Reason::Timeout,
        }
    }

    pub(crate) fn from_io(error: &std::io::Error) -> Self {
        use rustls::Error;
        match error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
            Some(Error::NoCertificatesPresented) => Self::NoPeerCertificate,
            Some(Error::InvalidCertificate(why)) => Self::PeerCertificate(format!("{why:?}")),
            Some(Error::General(why)) => Self::PeerCertificate(why.clone()),
            Some(Error::AlertReceived(alert)) => Self::Alert(format!("{alert:?}")),
            Some(other) => Self::Handshake(other.to_string()),
            None => Self::Handshake(error.to_string()),
        }
    }
}
