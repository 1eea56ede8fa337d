//! Having a key certified: Istio's certificate service over TLS, with a bearer token.

use std::future::Future;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::SpiffeId;
use proto::istio::v1::auth::IstioCertificateRequest;
use proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use crate::clock::{SystemClock, Time};
use crate::error::{IssueError, TlsError};
use crate::verify::{self, Anchors, Named, Peers, Versions};

/// How long one exchange with the CA may take, from connecting to the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer, bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// The largest token file, bytes.
const MAX_TOKEN: u64 = 16 * 1024;
/// The largest root bundle, bytes.
const MAX_BUNDLE: u64 = 1024 * 1024;

/// A file that holds a service account token. Read anew for each use, since tokens are refreshed in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile(pub PathBuf);

impl TokenFile {
    /// Reads the token.
    ///
    /// # Errors
    /// The file cannot be read, is empty or too large.
    pub fn read(&self) -> Result<Zeroizing<String>, IssueError> {
        let fail = |why: String| IssueError::Token {
            file: self.0.display().to_string(),
            why,
        };
        let text = Zeroizing::new(read(&self.0, MAX_TOKEN).map_err(fail)?);
        match text.trim() {
            "" => Err(fail("empty".to_owned())),
            token => Ok(Zeroizing::new(token.to_owned())),
        }
    }
}

/// A small local file: reading it blocks for no longer than handing it to another thread would take.
fn read(path: &Path, limit: u64) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut text = String::new();
    let read = file
        .take(limit + 1)
        .read_to_string(&mut text)
        .map_err(|e| e.to_string())?;
    if u64::try_from(read).unwrap_or(u64::MAX) > limit {
        return Err(format!("larger than {limit} bytes"));
    }
    Ok(text)
}

/// Something that signs.
pub trait CertificateAuthority: Send + Sync + 'static {
    /// Has a request signed: PEM in, PEM out, the leaf first and the root last. `lifetime` zero leaves it to the CA.
    fn sign<'a>(&'a self, csr_pem: &'a str, token: &'a str, lifetime: Duration) -> Signing<'a>;
}

/// What [`CertificateAuthority::sign`] returns.
pub type Signing<'a> = Pin<Box<dyn Future<Output = Result<Vec<String>, IssueError>> + Send + 'a>>;

/// What a CA's server certificate must prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaName {
    /// This identity, as its one URI SAN.
    Spiffe(SpiffeId),
    /// This DNS name, as Istio's own CA has it.
    Dns(String),
}

impl From<SpiffeId> for CaName {
    fn from(id: SpiffeId) -> Self {
        Self::Spiffe(id)
    }
}

/// A client of `istio.v1.auth.IstioCertificateService`. Connects for each exchange: there is one an hour or so.
#[derive(Clone, Debug)]
pub struct CaClient {
    address: SocketAddr,
    root_file: PathBuf,
    server: CaName,
}

impl CaClient {
    /// A CA at `address`, whose server certificate must chain to the bundle in `root_file`, which is read anew each
    /// time, and prove `server`.
    pub fn new(address: SocketAddr, root_file: PathBuf, server: impl Into<CaName>) -> Self {
        Self {
            address,
            root_file,
            server: server.into(),
        }
    }

    async fn exchange(
        &self,
        csr_pem: &str,
        token: &str,
        lifetime: Duration,
    ) -> Result<Vec<String>, IssueError> {
        let stream = self.connect().await?;
        let unreachable = |e: hyper::Error| IssueError::Unreachable(e.to_string());
        let (send, connection) = http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await
            .map_err(unreachable)?;
        let _driver = Driver(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the certificate authority ended");
            }
        }));
        let mut request = tonic::Request::new(IstioCertificateRequest {
            csr: csr_pem.to_owned(),
            validity_duration: i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX),
            metadata: None,
        });
        let mut bearer = tonic::metadata::MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| IssueError::Refused("the token is not one line of text".to_owned()))?;
        bearer.set_sensitive(true);
        request.metadata_mut().insert("authorization", bearer);
        // The name in `:authority` means nothing here: who is at the other end was verified when connecting.
        let origin = Uri::from_static("https://ca");
        let answer = IstioCertificateServiceClient::with_origin(Sender(send), origin)
            .max_decoding_message_size(MAX_ANSWER)
            .create_certificate(request)
            .await
            .map_err(|status| refusal(&status))?;
        Ok(answer.into_inner().cert_chain)
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, IssueError> {
        let mut config = self.config()?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = match &self.server {
            // It is not what is verified: the SPIFFE id is.
            CaName::Spiffe(_) => ServerName::IpAddress(self.address.ip().into()),
            CaName::Dns(name) => ServerName::try_from(name.clone())
                .map_err(|e| IssueError::Untrusted(format!("`{name}`: {e}")))?,
        };
        let tcp = TcpStream::connect(self.address)
            .await
            .map_err(|e| IssueError::Unreachable(format!("{}: {e}", self.address)))?;
        TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .map_err(|e| match TlsError::from_io(&e) {
                TlsError::Peer(problem) => IssueError::Untrusted(problem.to_string()),
                other => IssueError::Unreachable(other.to_string()),
            })
    }

    fn config(&self) -> Result<ClientConfig, IssueError> {
        let file = self.root_file.display();
        let bundle = read(&self.root_file, MAX_BUNDLE)
            .map_err(|e| IssueError::Unreachable(format!("root bundle `{file}`: {e}")))?;
        let untrusted = |e: String| IssueError::Untrusted(format!("root bundle `{file}`: {e}"));
        let anchors = Arc::new(Anchors::from_pem(&[bundle]).map_err(|e| untrusted(e.to_string()))?);
        let verifier: Arc<dyn ServerCertVerifier> = match &self.server {
            CaName::Spiffe(id) => Arc::new(Peers {
                anchors,
                domains: None,
                bundles: Arc::default(),
                memory: Arc::default(),
                expected: Some(Arc::from([id.clone()])),
            }),
            CaName::Dns(_) => Arc::new(Named(anchors)),
        };
        let time = Arc::new(Time(Arc::new(SystemClock)));
        // Istio's CA may speak 1.2 only to old clients; 1.3 is what it speaks to us.
        verify::client_config(verifier, None, Versions::default(), time).map_err(|e| untrusted(e.to_string()))
    }
}

impl CertificateAuthority for CaClient {
    fn sign<'a>(&'a self, csr_pem: &'a str, token: &'a str, lifetime: Duration) -> Signing<'a> {
        Box::pin(async move {
            tokio::time::timeout(TIMEOUT, self.exchange(csr_pem, token, lifetime))
                .await
                .unwrap_or_else(|_| {
                    let why = format!("no answer within {} s", TIMEOUT.as_secs());
                    Err(IssueError::Unreachable(why))
                })
        })
    }
}

/// Whether the CA said no, or could not say anything.
fn refusal(status: &Status) -> IssueError {
    let text = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::OutOfRange => IssueError::Refused(text),
        _ => IssueError::Unreachable(text),
    }
}

/// Ends the connection when dropped.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// hyper's connection as the service that tonic calls.
struct Sender(http2::SendRequest<tonic::body::Body>);

impl tower_service::Service<Request<tonic::body::Body>> for Sender {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
