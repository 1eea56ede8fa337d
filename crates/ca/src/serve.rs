//! `istio.v1.auth.IstioCertificateService` over TLS 1.3.
//!
//! A caller is authenticated by its token before any byte of its request's body is read.

mod meters;
mod own;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::AUTHORIZATION;
use http::{Request as HttpRequest, Response as HttpResponse};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use identity::token::Claims;
use meshward_http::pages;
use model::SpiffeId;
use proto::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Request, Response, Status};
use tower_service::Service as _;

use crate::config::{CaError, Config};
use crate::keys::Keys;
use crate::plugged::follow;
use crate::roots::Roots;
use crate::rotation::ledger::{self, Ledger};
use crate::rotation::{Desk, Rotation};
use crate::sign::{MAX_LIFETIME, SignError, sign};
use meters::{Meters, Refused};
use own::Own;

/// Connections at one time, handshakes included; the next one waits in the listen queue.
pub(crate) const MAX_CONNECTIONS: usize = 512;
/// Requests of one connection at one time.
const MAX_STREAMS: u32 = 4;
/// The largest message, bytes.
pub(crate) const MAX_MESSAGE: usize = 32 * 1024;
/// The largest head of a request, bytes: a token is the most of it.
const MAX_HEAD: u32 = 32 * 1024;
/// The key of a request's metadata that names somebody else.
const IMPERSONATED: &str = "ImpersonatedIdentity";
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a connection is kept before its client is asked to make a new one, so that idle ones hold no place.
const AGE: Duration = Duration::from_secs(15);
/// How long what is under way may take after that.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait before accepting again when the system refuses.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` ends; what it has begun ends with it.
///
/// The root bundle is written once the ports are open, so its being there says that the service is.
///
/// # Errors
/// The configuration, the key material or a port cannot be used; nothing is served then.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), CaError> {
    let lifetime = lifetime(&config)?;
    let now = OffsetDateTime::now_utc();
    let roots = Arc::new(Roots::open(&config, now)?);
    let plugged = Arc::clone(&roots);
    // What an earlier process issued has ended by then.
    let unknown = match roots.found() {
        true => now
            .unix_timestamp()
            .saturating_add(roots.now().state.longest_leaf_s),
        false => 0,
    };
    let ledger = Arc::new(Ledger::new(unknown));
    let rotation = Arc::new(Rotation::new(&config, Arc::clone(&roots), Arc::clone(&ledger)));
    let keys = Arc::new(Keys::new(&config)?);
    let own = Own::new(Arc::clone(&roots), &config.trust_domain).map_err(CaError::Crypto)?;
    let meters = Arc::new(Meters::new(Arc::clone(&roots)));
    let server = Arc::new(Server {
        acceptor: acceptor(own)?,
        places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        signer: Signer {
            roots,
            ledger,
            keys,
            trust_domain: config.trust_domain.clone(),
            lifetime,
            meters: Arc::clone(&meters),
        },
    });
    let following = follow(
        config.cacerts.clone(),
        config.trust_domain.clone(),
        Arc::clone(&plugged),
    );
    let mut listeners = JoinSet::new();
    for address in &config.listen {
        let fail = |e: std::io::Error| CaError::Listen {
            address: *address,
            why: e.to_string(),
        };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        tracing::info!(%address, "certificate service");
        listeners.spawn(accept(listener, Arc::clone(&server)));
    }
    let guard = Arc::new(pages::Guard::new(config.metrics_allow));
    for listener in pages::listen(&config.metrics).await.map_err(CaError::Serve)? {
        listeners.spawn(pages::answer(listener, Arc::clone(&meters), Arc::clone(&guard)));
    }
    rotation.publish()?;
    let desk = desk(config.socket, Arc::clone(&rotation));
    tokio::select! {
        () = shutdown => Ok(()),
        () = rotation.run() => Ok(()),
        () = following => Ok(()),
        error = desk => Err(error),
    }
}

/// Answers the command line, where there is a socket for it.
async fn desk(socket: Option<PathBuf>, rotation: Arc<Rotation>) -> CaError {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    match admin::serve(&socket, Arc::new(Desk(rotation))).await {
        Ok(()) => CaError::Serve("the socket is not served any more".to_owned()),
        Err(error) => CaError::file("socket", socket, error),
    }
}

fn lifetime(config: &Config) -> Result<time::Duration, CaError> {
    let seconds = i64::try_from(config.leaf_lifetime_s).unwrap_or(i64::MAX);
    if config.listen.is_empty() {
        return Err(CaError::Config("no address to listen on".to_owned()));
    }
    if seconds == 0 || seconds > MAX_LIFETIME.whole_seconds() {
        let most = MAX_LIFETIME.whole_seconds();
        return Err(CaError::Config(format!(
            "leafLifetimeS is `{seconds}`, out of 1 to {most}"
        )));
    }
    Ok(time::Duration::seconds(seconds))
}

fn acceptor(own: Own) -> Result<TlsAcceptor, CaError> {
    let mut config = rustls::ServerConfig::builder_with_provider(identity::crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| CaError::Crypto(e.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(own));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

struct Server {
    acceptor: TlsAcceptor,
    places: Arc<Semaphore>,
    signer: Signer,
}

/// Handshakes run side by side, so that one slow client holds up nobody; a failed one is that client's.
async fn accept(listener: TcpListener, server: Arc<Server>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&server.places).acquire_owned().await else {
            return;
        };
        let (tcp, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let server = Arc::clone(&server);
        connections.spawn(async move {
            if let Err(why) = connection(tcp, peer, &server).await {
                tracing::debug!(%peer, "a connection ended: {why}");
            }
            drop(place);
        });
    }
}

async fn connection(tcp: TcpStream, peer: SocketAddr, server: &Server) -> Result<(), String> {
    let tls = tokio::time::timeout(HANDSHAKE, server.acceptor.accept(tcp))
        .await
        .map_err(|_| "the handshake took too long".to_owned())?
        .map_err(|e| format!("handshake: {e}"))?;
    let signer = server.signer.clone();
    let serving = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .serve_connection(
            TokioIo::new(tls),
            service_fn(move |request| respond(signer.clone(), peer, request)),
        );
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        ended = serving.as_mut() => return ended.map_err(|e| e.to_string()),
        () = tokio::time::sleep(AGE) => serving.as_mut().graceful_shutdown(),
    }
    tokio::time::timeout(GRACE, serving)
        .await
        .map_err(|_| "it did not end in time".to_owned())?
        .map_err(|e| e.to_string())
}

/// Judges the token, then lets the request's body be read.
async fn respond(
    signer: Signer,
    peer: SocketAddr,
    mut request: HttpRequest<Incoming>,
) -> Result<HttpResponse<tonic::body::Body>, Infallible> {
    signer.meters.asked();
    match signer.authenticate(&request) {
        Ok(claims) => {
            request.extensions_mut().insert(Caller { claims, peer });
            IstioCertificateServiceServer::new(signer)
                .max_decoding_message_size(MAX_MESSAGE)
                .call(request)
                .await
        }
        Err(status) => {
            signer.meters.refused(Refused::Unauthenticated);
            tracing::warn!(%peer, why = status.message(), "certificate refused");
            Ok(status.into_http())
        }
    }
}

/// Who asks, proven.
#[derive(Clone)]
struct Caller {
    claims: Claims,
    peer: SocketAddr,
}

#[derive(Clone)]
struct Signer {
    roots: Arc<Roots>,
    ledger: Arc<Ledger>,
    keys: Arc<Keys>,
    trust_domain: model::TrustDomain,
    lifetime: time::Duration,
    meters: Arc<Meters>,
}

impl Signer {
    fn authenticate(&self, request: &HttpRequest<Incoming>) -> Result<Claims, Status> {
        let mut headers = request.headers().get_all(AUTHORIZATION).iter();
        let (Some(header), None) = (headers.next(), headers.next()) else {
            return Err(Status::unauthenticated("there is not one authorization header"));
        };
        let token = header
            .to_str()
            .ok()
            .and_then(|text| text.strip_prefix("Bearer "))
            .ok_or_else(|| Status::unauthenticated("no bearer token"))?;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(|_| Status::internal("the clock is before 1970"))?;
        self.keys
            .verify(token, now.as_secs())
            .map_err(|e| Status::unauthenticated(e.to_string()))
    }

    fn issue(&self, caller: &Caller, request: &IstioCertificateRequest) -> Result<Vec<String>, Status> {
        let claims = &caller.claims;
        // What Istio's node proxies ask for on behalf of their pods (ID-05). Nobody may here, and who asks is told.
        let asked_for = request.metadata.as_ref();
        if asked_for.is_some_and(|metadata| metadata.fields.contains_key(IMPERSONATED)) {
            self.meters.refused(Refused::Identity);
            tracing::warn!(
                peer = %caller.peer, namespace = claims.namespace, service_account = claims.service_account,
                why = "it asks for another's", "certificate refused"
            );
            return Err(Status::permission_denied(
                "a certificate is issued to the account of the token alone, not for another's",
            ));
        }
        let id = SpiffeId::new(
            self.trust_domain.clone(),
            &claims.namespace,
            &claims.service_account,
        )
        .map_err(|e| {
            self.meters.refused(Refused::Identity);
            Status::invalid_argument(e.to_string())
        })?;
        let now = OffsetDateTime::now_utc();
        let asked = request.validity_duration;
        let root = self.roots.signing();
        let issued = sign(&root, &id, &request.csr, asked, self.lifetime, now).map_err(|e| match e {
            SignError::Request(_) | SignError::Lifetime { .. } => Status::invalid_argument(e.to_string()),
            SignError::RootExpired => Status::failed_precondition(e.to_string()),
            SignError::Internal(_) => Status::internal(e.to_string()),
        });
        match issued {
            Ok(issued) => {
                let end = issued.not_after.unix_timestamp();
                self.ledger
                    .record(ledger::holder(claims), root.fingerprint(), end);
                self.meters.issued();
                tracing::info!(
                    %id, peer = %caller.peer, pod = claims.pod_name, pod_uid = claims.pod_uid, node = claims.node,
                    serial = issued.serial, key = issued.key, not_after = %issued.not_after, "certificate issued"
                );
                // The leaf first, the root last (semantics 5.2).
                let leaf = std::iter::once(issued.leaf);
                Ok(leaf.chain(issued.chain).chain([issued.root]).collect())
            }
            Err(status) => {
                self.meters.refused(match status.code() {
                    Code::InvalidArgument => Refused::Request,
                    _ => Refused::Signing,
                });
                tracing::warn!(%id, peer = %caller.peer, why = status.message(), "certificate refused");
                Err(status)
            }
        }
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Signer {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let caller = request
            .extensions()
            .get::<Caller>()
            .ok_or_else(|| Status::unauthenticated("nobody"))?;
        let cert_chain = self.issue(caller, request.get_ref())?;
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}
