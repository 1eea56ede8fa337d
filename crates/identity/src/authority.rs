//! Having a key certified: Istio's certificate service over TLS, with a bearer token.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use model::SpiffeId;
use proto::istio::v1::auth::IstioCertificateRequest;
use proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Endpoint, Uri};

use crate::error::IssueError;
use crate::{pki, verify};

/// How long one exchange with the CA may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A file that holds a service account token. Read anew for each use, since tokens are refreshed in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile(pub PathBuf);

impl TokenFile {
    /// Reads the token.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> Result<String, IssueError> {
        let text = std::fs::read_to_string(&self.0).map_err(|e| IssueError::Token {
            file: self.0.display().to_string(),
            why: e.to_string(),
        })?;
        Ok(text.trim().to_owned())
    }
}

/// Something that signs.
pub trait CertificateAuthority: Send + Sync + 'static {
    /// Has a request signed: PEM in, PEM out, the leaf first and the root last. `lifetime` zero leaves it to the CA.
    fn sign<'a>(&'a self, csr_pem: &'a str, token: &'a str, lifetime: Duration) -> Signing<'a>;
}

/// What [`CertificateAuthority::sign`] returns.
pub type Signing<'a> = Pin<Box<dyn Future<Output = Result<Vec<String>, IssueError>> + Send + 'a>>;

/// A client of `istio.v1.auth.IstioCertificateService`.
#[derive(Clone, Debug)]
pub struct CaClient {
    address: SocketAddr,
    root_file: PathBuf,
    server: SpiffeId,
}

impl CaClient {
    /// A CA at `address`, whose server certificate must chain to the bundle in `root_file` and be `server`'s.
    pub fn new(address: SocketAddr, root_file: PathBuf, server: SpiffeId) -> Self {
        Self {
            address,
            root_file,
            server,
        }
    }

    async fn exchange(
        &self,
        csr_pem: &str,
        token: &str,
        lifetime: Duration,
    ) -> Result<Vec<String>, IssueError> {
        let refused = |why: String| IssueError::Authority(why);
        let bundle = std::fs::read_to_string(&self.root_file)
            .map_err(|e| refused(format!("root bundle `{}`: {e}", self.root_file.display())))?;
        let roots = pki::certificates(&bundle).map_err(|e| refused(format!("root bundle: {e}")))?;
        let mut config =
            verify::client_config(&roots, verify::Whom::one(&self.server), None).map_err(refused)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let address = self.address;
        let connect = tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                // The name is not what is verified: the SPIFFE id is.
                let name = ServerName::IpAddress(address.ip().into());
                connector.connect(name, stream).await.map(TokioIo::new)
            }
        });
        let channel = Endpoint::from_static("http://ca.mesh")
            .connect_with_connector(connect)
            .await
            .map_err(|e| refused(chain(&e)))?;
        let mut request = tonic::Request::new(IstioCertificateRequest {
            csr: csr_pem.to_owned(),
            validity_duration: i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX),
            metadata: None,
        });
        let bearer = format!("Bearer {token}")
            .parse()
            .map_err(|_| refused("the token is not text".to_owned()))?;
        request.metadata_mut().insert("authorization", bearer);
        let answer = IstioCertificateServiceClient::new(channel)
            .create_certificate(request)
            .await
            .map_err(|s| refused(format!("{:?}: {}", s.code(), s.message())))?;
        Ok(answer.into_inner().cert_chain)
    }
}

impl CertificateAuthority for CaClient {
    fn sign<'a>(&'a self, csr_pem: &'a str, token: &'a str, lifetime: Duration) -> Signing<'a> {
        Box::pin(async move {
            tokio::time::timeout(TIMEOUT, self.exchange(csr_pem, token, lifetime))
                .await
                .unwrap_or_else(|_| {
                    Err(IssueError::Authority(format!(
                        "no answer within {} s",
                        TIMEOUT.as_secs()
                    )))
                })
        })
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}
