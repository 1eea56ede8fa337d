//! Both ends of the mesh's mutual TLS.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use model::SpiffeId;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{ClientConfig, CommonState, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::ahead::ReadAhead;
use crate::clock::Clock;
use crate::error::{PeerProblem, TlsError};
use crate::pki;
use crate::store::Standing;
use crate::verify::{Chain, Memory, Purpose};

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Who is at the other end, proven by a verified certificate. Made by the two handshakes and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    id: SpiffeId,
    leaf_sha256: [u8; 32],
    subject: String,
    /// The last second in which what was proven holds, Unix seconds.
    until: i64,
}

/// Where a handshake finds what its peer's chain came to.
pub(crate) struct Judged<'s> {
    pub(crate) memory: &'s Memory,
    pub(crate) clock: &'s dyn Clock,
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

    /// The last second in which what was proven holds, Unix seconds: nothing of the chain ends before, and no revocation
    /// list that it was held against.
    pub(crate) fn until(&self) -> i64 {
        self.until
    }

    /// Two workloads of one proxy: both identities are the proxy's own to prove, so no handshake is needed.
    /// `leaf` is the DER of the certificate that the caller would have shown, and `until` its end.
    pub(crate) fn local(id: SpiffeId, leaf: &[u8], until: i64) -> Self {
        Self {
            id,
            leaf_sha256: sha256(leaf),
            subject: String::new(),
            until,
        }
    }

    fn of(connection: &CommonState, purpose: Purpose, judged: &Judged<'_>) -> Result<Self, TlsError> {
        let missing = TlsError::Peer(PeerProblem::Missing);
        let chain = connection.peer_certificates().and_then(<[_]>::split_first);
        let (leaf, sent) = chain.ok_or(missing)?;
        let leaf_sha256 = sha256(leaf);
        let now = UnixTime::since_unix_epoch(judged.clock.now());
        if let Some(known) = judged.memory.recall(&Chain::of(purpose, leaf, sent), now) {
            return Ok(Self {
                id: known.facts.id.clone(),
                leaf_sha256,
                subject: known.facts.subject.clone(),
                until: known.until,
            });
        }
        // It was pushed out within the handshake: what it was found good for is not known any more.
        let facts = pki::facts(leaf).map_err(|e| TlsError::Peer(PeerProblem::Identity(e)))?;
        Ok(Self {
            id: facts.id,
            leaf_sha256,
            subject: facts.subject,
            until: i64::MIN,
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

/// The bytes inside a connection that came in.
pub type ServerStream<IO> = tokio_rustls::server::TlsStream<ReadAhead<IO>>;

/// A connection that came in, its peer proven.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// The bytes inside.
    pub stream: ServerStream<IO>,
    /// Who called.
    pub peer: PeerIdentity,
    /// The name that the caller asked for.
    pub sni: Option<String>,
    /// The application protocol that was agreed.
    pub alpn: Option<Vec<u8>>,
    /// What both proofs rest on.
    pub standing: Standing,
}

/// The bytes inside a connection that went out.
pub type ClientStream<IO> = tokio_rustls::client::TlsStream<ReadAhead<IO>>;

/// A connection that went out, its peer proven.
#[derive(Debug)]
pub struct Connected<IO> {
    /// The bytes inside.
    pub stream: ClientStream<IO>,
    /// Who answered.
    pub peer: PeerIdentity,
    /// The application protocol that was agreed.
    pub alpn: Option<Vec<u8>>,
    /// What both proofs rest on.
    pub standing: Standing,
}

pub(crate) async fn accept<IO>(
    config: ServerConfig,
    io: IO,
    judged: &Judged<'_>,
) -> Result<(ServerStream<IO>, PeerIdentity), TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = TlsAcceptor::from(Arc::new(config)).accept(ReadAhead::new(io));
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Err(_) => return Err(TlsError::Timeout),
        Ok(Err(error)) => return Err(TlsError::from_io(&error)),
        Ok(Ok(stream)) => stream,
    };
    let peer = PeerIdentity::of(stream.get_ref().1, Purpose::Client, judged)?;
    Ok((stream, peer))
}

pub(crate) async fn connect<IO>(
    mut config: ClientConfig,
    io: IO,
    sni: &str,
    judged: &Judged<'_>,
) -> Result<(ClientStream<IO>, PeerIdentity), TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let name = if sni.is_empty() {
        config.enable_sni = false;
        ServerName::IpAddress(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED).into())
    } else {
        ServerName::try_from(sni.to_owned()).map_err(|e| TlsError::Handshake(format!("sni `{sni}`: {e}")))?
    };
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, ReadAhead::new(io));
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Err(_) => return Err(TlsError::Timeout),
        Ok(Err(error)) => return Err(TlsError::from_io(&error)),
        Ok(Ok(stream)) => stream,
    };
    let peer = PeerIdentity::of(stream.get_ref().1, Purpose::Server, judged)?;
    Ok((stream, peer))
}
