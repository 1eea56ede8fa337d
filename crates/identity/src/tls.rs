//! Both ends of the mesh's mutual TLS.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use model::SpiffeId;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, CommonState, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::{PeerProblem, TlsError};
use crate::pki;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Who is at the other end, proven by a verified certificate. Made by the two handshakes and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    id: SpiffeId,
    leaf_sha256: [u8; 32],
    subject: String,
}

impl PeerIdentity {
    /// The identity.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// SHA-256 of the leaf certificate's DER: `Hash` of X-Forwarded-Client-Cert.
    pub fn leaf_sha256(&self) -> &[u8; 32] {
        &self.leaf_sha256
    }

    /// The certificate's subject, empty for certificates of the mesh.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Two workloads of one proxy: both identities are the proxy's own to prove, so no handshake is needed.
    /// `leaf` is the DER of the certificate that the caller would have shown.
    pub(crate) fn local(id: SpiffeId, leaf: &[u8]) -> Self {
        Self {
            id,
            leaf_sha256: sha256(leaf),
            subject: String::new(),
        }
    }

    fn of(connection: &CommonState) -> Result<Self, TlsError> {
        let leaf = connection
            .peer_certificates()
            .and_then(|c| c.first())
            .ok_or(TlsError::Peer(PeerProblem::Missing))?;
        let facts = pki::facts(leaf).map_err(|e| TlsError::Peer(PeerProblem::Identity(e)))?;
        Ok(Self {
            id: facts.id,
            leaf_sha256: sha256(leaf),
            subject: facts.subject,
        })
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out
        .iter_mut()
        .zip(digest::digest(&digest::SHA256, bytes).as_ref())
    {
        *to = *from;
    }
    out
}

/// A connection that came in, its peer proven.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// The bytes inside.
    pub stream: tokio_rustls::server::TlsStream<IO>,
    /// Who called.
    pub peer: PeerIdentity,
    /// The name that the caller asked for.
    pub sni: Option<String>,
    /// The application protocol that was agreed.
    pub alpn: Option<Vec<u8>>,
}

/// The bytes inside a connection that went out.
pub type ClientStream<IO> = tokio_rustls::client::TlsStream<IO>;

/// A connection that went out, its peer proven.
#[derive(Debug)]
pub struct Connected<IO> {
    /// The bytes inside.
    pub stream: ClientStream<IO>,
    /// Who answered.
    pub peer: PeerIdentity,
    /// The application protocol that was agreed.
    pub alpn: Option<Vec<u8>>,
}

pub(crate) async fn accept<IO>(config: ServerConfig, io: IO) -> Result<Accepted<IO>, TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = TlsAcceptor::from(Arc::new(config)).accept(io);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Err(_) => return Err(TlsError::Timeout),
        Ok(Err(error)) => return Err(TlsError::from_io(&error)),
        Ok(Ok(stream)) => stream,
    };
    let (_, connection) = stream.get_ref();
    let peer = PeerIdentity::of(connection)?;
    let sni = connection.server_name().map(str::to_owned);
    let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
    Ok(Accepted {
        stream,
        peer,
        sni,
        alpn,
    })
}

pub(crate) async fn connect<IO>(
    mut config: ClientConfig,
    io: IO,
    sni: &str,
) -> Result<Connected<IO>, TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let name = if sni.is_empty() {
        config.enable_sni = false;
        ServerName::IpAddress(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED).into())
    } else {
        ServerName::try_from(sni.to_owned()).map_err(|e| TlsError::Handshake(format!("sni `{sni}`: {e}")))?
    };
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, io);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Err(_) => return Err(TlsError::Timeout),
        Ok(Err(error)) => return Err(TlsError::from_io(&error)),
        Ok(Ok(stream)) => stream,
    };
    let (_, connection) = stream.get_ref();
    let peer = PeerIdentity::of(connection)?;
    let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
    Ok(Connected { stream, peer, alpn })
}
