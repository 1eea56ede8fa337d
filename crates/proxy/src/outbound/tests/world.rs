//! A proxy without a kernel: one registered workload, servers behind a dial of our own, and the events that come.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt;
use identity::{CertificateAuthority, Signing, StoreOptions, TokenFile};
use meshward_http::{
    Abort, Body, Fault, Handler, HeaderMap, HeaderValue, Request, Response, ServeOptions, StatusCode,
    Version, version_of,
};
use model::{Profile, Protocol, ServiceName, SpiffeId, WorkloadId, WorkloadUid};
use snapshot::{
    Egress, Endpoint, Mesh, PathNormalization, Resource, Resources, Service, ServicePort, TlsVersion,
    Workload, XfccMode,
};
use telemetry::{Event, Telemetry, TelemetryOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, broadcast};

use super::super::dial::{Dial, Dialling, From, Io};
use super::super::{Client, Downstream, Outbound};
use crate::Registration;
use crate::relay::turn::{self, Turn};
use crate::shared::Shared;

/// The address of the one workload of this node.
pub(in crate::outbound) const CLIENT: &str = "10.77.0.2";

/// What stands behind an address.
#[derive(Clone, Copy, Debug)]
pub(in crate::outbound) enum Kind {
    /// HTTP over mutual TLS, by this service account.
    MeshHttp(&'static str),
    /// HTTP over mutual TLS, by one who believes nobody's certificate.
    Distrustful,
    /// Bytes, sent back, over mutual TLS.
    MeshEcho(&'static str),
    /// `ready`, at once, over mutual TLS.
    MeshGreeting(&'static str),
    /// Bytes, sent back, over mutual TLS on which connections take turns ([`turn`]).
    MeshTurns(&'static str, Next),
    /// HTTP in plaintext.
    Http,
    /// Bytes, sent back.
    Echo,
    /// Accepts, and closes at once.
    Closed,
}

/// What becomes of a connection when its first turn is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::outbound) enum Next {
    /// It takes further ones.
    Taken,
    /// It is closed.
    Closed,
    /// It is closed when the next one is asked for.
    Refused,
    /// Nothing.
    Silence,
    /// It breaks before that, within the answer.
    Broken,
}

pub(in crate::outbound) struct World {
    outbound: Arc<Outbound>,
    servers: Arc<Servers>,
    events: tokio::sync::Mutex<broadcast::Receiver<Arc<Event>>>,
    resources: Mutex<Resources>,
    _tokens: tempfile::TempDir,
}

/// What a client got.
#[derive(Debug)]
pub(in crate::outbound) struct Answer {
    pub(in crate::outbound) status: StatusCode,
    pub(in crate::outbound) headers: HeaderMap,
    pub(in crate::outbound) body: String,
}

impl Answer {
    /// What the server has seen under that name; empty where nothing.
    pub(in crate::outbound) fn seen(&self, name: &str) -> &str {
        let value = self.headers.get(format!("seen-{name}"));
        value.map(|v| v.to_str().unwrap()).unwrap_or_default()
    }
}

pub(in crate::outbound) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn id(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/full/sa/{account}")
        .parse()
        .unwrap()
}

pub(in crate::outbound) fn mesh(egress: Egress) -> Mesh {
    Mesh {
        profile: Profile::Secure,
        trust_domain: "cluster.local".parse().unwrap(),
        trust_domain_aliases: vec![],
        root_namespace: "istio-system".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        dns_vips: vec![],
        deny_by_default: true,
        egress,
        path_normalization: PathNormalization::Base,
        strict_paths: true,
        strict_hosts: true,
        jwt_strict: true,
        xfcc: XfccMode::SanitizeSet,
        auto_mtls: true,
        protocol_detection_timeout_ms: None,
        min_tls: TlsVersion::V1_3,
        tls: snapshot::MeshTls::default(),
        http10: false,
        connect_timeout_ms: 1_000,
        scopes: std::collections::BTreeMap::new(),
    }
}

pub(in crate::outbound) fn pod(name: &str, address: &str, account: Option<&str>) -> Workload {
    Workload {
        uid: WorkloadUid::new(name),
        pod: WorkloadId::new("full", name),
        workload: WorkloadId::new("full", name),
        canonical_name: String::new(),
        canonical_revision: String::new(),
        app: String::new(),
        version: String::new(),
        addresses: vec![address.parse().unwrap()],
        node: "node-1".to_owned(),
        service_account: account.unwrap_or_default().to_owned(),
        identity: account.map(id),
        ready: true,
        plaintext_ports: vec![],
        mtls_ports: vec![],
        hbone: false,
        inbound: None,
    }
}

pub(in crate::outbound) fn plain(name: &str, address: &str) -> Workload {
    pod(name, address, None)
}

pub(in crate::outbound) fn endpoint(pod: &Workload, port: u16, target: u16) -> Endpoint {
    Endpoint {
        uid: pod.uid.clone(),
        workload: None,
        addresses: pod.addresses.clone(),
        ports: [(port, target)].into(),
        ready: true,
        node: None,
        identity: pod.identity.clone(),
        plaintext_ports: vec![],
        mtls_ports: vec![],
        hbone: false,
        hostname: None,
    }
}

pub(in crate::outbound) fn service(
    name: &str,
    vip: &str,
    protocol: Protocol,
    endpoints: Vec<Endpoint>,
) -> Service {
    let (namespace, short) = name.split_once('/').unwrap();
    let vip = address(vip);
    Service {
        name: ServiceName::new(namespace, short),
        host: format!("{short}.{namespace}.svc.cluster.local").parse().unwrap(),
        vips: vec![vip.ip()],
        headless: false,
        external_name: None,
        external: None,
        ports: vec![ServicePort {
            name: "p".to_owned(),
            port: vip.port(),
            protocol,
            tls: None,
            tls_by_namespace: [].into(),
        }],
        identities: endpoints.iter().filter_map(|e| e.identity.clone()).collect(),
        endpoints,
    }
}

/// A workload of this node.
pub(in crate::outbound) fn registration(account: &str, address: &str) -> Registration {
    Registration {
        mark: 0x100,
        uid: WorkloadUid::new(account),
        namespace: "full".to_owned(),
        pod: account.to_owned(),
        identity: Some(id(account)),
        addresses: vec![address.parse().unwrap()],
        token: "/nowhere".into(),
    }
}

impl World {
    /// Without a snapshot.
    pub(in crate::outbound) async fn empty() -> Self {
        let tokens = tempfile::tempdir().unwrap();
        let token = tokens.path().join("token");
        std::fs::write(&token, "t").unwrap();
        let (authority, root) = Authority::new();
        let authority = Arc::new(authority);
        let [identities, distrustful] = ["cluster.local", "elsewhere"].map(|domain| {
            let store = identity::Store::new(Arc::clone(&authority) as _, StoreOptions::default());
            store.set_roots(std::slice::from_ref(&root)).unwrap();
            store.set_trust_domains(domain.parse().unwrap(), vec![]);
            store
        });
        for store in [&identities, &distrustful] {
            for account in ["client", "web", "other"] {
                store
                    .ensure(&id(account), TokenFile(token.clone()))
                    .await
                    .unwrap();
            }
        }
        let telemetry = Telemetry::start(&TelemetryOptions::default()).unwrap();
        let events = telemetry.subscribe().live;
        let shared = Arc::new(Shared {
            config: config(),
            store: crate::store::Store::new(),
            demand: crate::store::demand::Demand::default(),
            locals: crate::locals::Locals::default(),
            identities: identities.clone(),
            registry: crate::registry::Registry::default(),
            apps: crate::inbound::Apps::default(),
            requests: Arc::default(),
            denials: Arc::default(),
            tokens: Arc::default(),
            authorizers: crate::inbound::Authorizers::default(),
            names: Arc::default(),
            telemetry,
            ending: Default::default(),
            sockets: Default::default(),
            standing: Arc::new(crate::shared::Standing::new()),
        });
        let servers = Arc::new(Servers {
            identities,
            distrustful,
            kinds: Mutex::default(),
            dialled: Mutex::default(),
            reached: Notify::new(),
        });
        Self {
            outbound: Arc::new(Outbound::new(shared, Arc::new(Arc::clone(&servers)))),
            servers,
            events: tokio::sync::Mutex::new(events),
            resources: Mutex::default(),
            _tokens: tokens,
        }
    }

    pub(in crate::outbound) async fn new(resources: Vec<Resource>, servers: &[(&str, Kind)]) -> Self {
        let world = Self::empty().await;
        for (at, kind) in servers {
            world.serve(at, *kind);
        }
        *world.resources.lock().unwrap() = resources.into_iter().collect();
        world.swap();
        world
    }

    pub(in crate::outbound) fn with(&self, resource: impl Into<Resource>) {
        self.resources.lock().unwrap().insert(Arc::new(resource.into()));
        self.swap();
    }

    pub(in crate::outbound) fn with_roots(&self, roots: Vec<String>) {
        self.with(Resource::Roots(roots));
    }

    fn swap(&self) {
        let resources = self.resources.lock().unwrap();
        self.outbound.shared.store.swap(&resources, 1).unwrap();
        self.outbound.follow();
    }

    /// Puts another set of resources into force, and asks what is open whether it may go on.
    pub(in crate::outbound) async fn change(&self, resource: impl Into<Resource>) {
        self.with(resource);
        let shared = &self.outbound.shared;
        let index = shared.store.current().unwrap();
        shared.registry.recheck(&index).await;
    }

    pub(in crate::outbound) fn serve(&self, at: &str, kind: Kind) {
        self.servers.kinds.lock().unwrap().insert(address(at), kind);
    }

    /// Whence each connection to a server came: a pod's address, or the node's.
    pub(in crate::outbound) fn sources(&self) -> Vec<Option<IpAddr>> {
        self.servers.dialled.lock().unwrap().clone()
    }

    /// Waits until a request has come to a server.
    pub(in crate::outbound) async fn reached(&self, _at: &str) {
        self.servers.reached.notified().await;
    }

    pub(in crate::outbound) async fn event(&self) -> Arc<Event> {
        let mut events = self.events.lock().await;
        tokio::time::timeout(Duration::from_secs(5), events.recv())
            .await
            .unwrap()
            .unwrap()
    }

    pub(in crate::outbound) fn outbound(&self) -> Arc<Outbound> {
        Arc::clone(&self.outbound)
    }

    /// The workload, as if it had dialled something.
    pub(in crate::outbound) fn client(&self) -> Client {
        Client {
            local: Arc::new(registration("client", CLIENT)),
            id: id("client"),
            address: SocketAddr::new(CLIENT.parse().unwrap(), 40_000),
            dialled: address("10.96.0.20:80"),
            source: Arc::default(),
        }
    }

    /// A connection of the workload.
    pub(in crate::outbound) fn open(&self, dialled: &str) -> DuplexStream {
        self.open_as("client", CLIENT, dialled)
    }

    /// A connection of whoever has that account and address.
    pub(in crate::outbound) fn open_as(&self, account: &str, own: &str, dialled: &str) -> DuplexStream {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let local = Arc::new(registration(account, own));
        let from = SocketAddr::new(own.parse().unwrap(), 40_000);
        let outbound = Arc::clone(&self.outbound);
        tokio::spawn(outbound.carry(far, Some(local), from, address(dialled)));
        near
    }

    /// From now on nothing is kept for the next TCP connection.
    pub(in crate::outbound) fn keep_none(&mut self) {
        let shared = Arc::clone(&self.outbound.shared);
        let mut outbound = Outbound::new(shared, Arc::new(Arc::clone(&self.servers)));
        outbound.keeps = false;
        self.outbound = Arc::new(outbound);
    }

    /// Another certificate for the workload.
    pub(in crate::outbound) async fn renewed(&self) {
        let (identities, own) = (&self.outbound.shared.identities, id("client"));
        identities.forget(&own);
        while identities.ready(&own) {
            tokio::task::yield_now().await;
        }
        let token = TokenFile(self._tokens.path().join("token"));
        identities.ensure(&own, token).await.unwrap();
    }

    /// Sends bytes, and reads until the other side has no more to say.
    pub(in crate::outbound) async fn say(&self, dialled: &str, bytes: &[u8]) -> Vec<u8> {
        Self::talk(self.open(dialled), bytes).await
    }

    /// As [`Self::say`], on a connection that is open.
    pub(in crate::outbound) async fn talk(mut near: DuplexStream, bytes: &[u8]) -> Vec<u8> {
        let mut heard = Vec::new();
        let talk = async {
            let _ = near.write_all(bytes).await;
            let _ = near.shutdown().await;
            let _ = near.read_to_end(&mut heard).await;
        };
        tokio::time::timeout(Duration::from_secs(5), talk).await.unwrap();
        heard
    }

    /// Makes one request on a connection of its own.
    pub(in crate::outbound) async fn ask(&self, dialled: &str, version: Version, request: Request) -> Answer {
        let asking = async {
            let near = self.open(dialled);
            let mut sender = meshward_http::handshake(near, version).await.unwrap();
            let response = sender.send(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Answer {
                status: parts.status,
                headers: parts.headers,
                body: String::from_utf8(body.to_vec()).unwrap(),
            }
        };
        tokio::time::timeout(Duration::from_secs(5), asking)
            .await
            .unwrap()
    }
}

impl Downstream for DuplexStream {
    fn reset(&self) {}
}

fn config() -> crate::Config {
    let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    crate::Config {
        node: "node-0".to_owned(),
        trust_domain: "cluster.local".parse().unwrap(),
        control: nowhere,
        ca: nowhere,
        roots: "/nowhere".into(),
        token: "/nowhere".into(),
        workloads: "/nowhere".into(),
        socket: "/nowhere".into(),
        access_log: None,
        log_format: telemetry::Format::default(),
        local_tls: false,
        metrics: vec![],
        metrics_allow: vec![],
        dns_upstreams: vec![],
        leaf_lifetime_s: 0,
        take_over: false,
        keeper: None,
    }
}

struct Servers {
    identities: identity::Store,
    distrustful: identity::Store,
    kinds: Mutex<HashMap<SocketAddr, Kind>>,
    dialled: Mutex<Vec<Option<IpAddr>>>,
    reached: Notify,
}

/// The dial: counts connections, and starts what stands behind the address.
impl Dial for Arc<Servers> {
    fn dial(&self, from: From, to: SocketAddr) -> Dialling {
        let servers = Self::clone(self);
        Box::pin(async move {
            let kind = servers.kinds.lock().unwrap().get(&to).copied();
            let kind = kind.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            servers.dialled.lock().unwrap().push(match from {
                From::Pod { address, .. } => Some(address),
                From::Node => None,
            });
            let (near, far) = tokio::io::duplex(64 * 1024);
            tokio::spawn(serve(servers, far, kind));
            Ok(Box::new(near) as Box<dyn Io>)
        })
    }
}

async fn serve(servers: Arc<Servers>, io: DuplexStream, kind: Kind) {
    let (account, alpn): (_, &[&[u8]]) = match kind {
        Kind::MeshHttp(account) => (account, &[b"istio-h2", b"istio-http/1.1"]),
        Kind::MeshEcho(account) | Kind::MeshGreeting(account) => (account, &[b"istio"]),
        Kind::MeshTurns(account, _) => (account, &[turn::ALPN, b"istio"]),
        Kind::Http => return http(&servers, io, [String::new(), String::new()]).await,
        Kind::Echo => return echo(io).await,
        Kind::Closed => return,
        Kind::Distrustful => ("web", &[b"istio-h2"]),
    };
    let identities = match kind {
        Kind::Distrustful => &servers.distrustful,
        _ => &servers.identities,
    };
    let Ok(accepted) = identities.accept(&id(account), io, alpn).await else {
        return;
    };
    match kind {
        Kind::MeshTurns(_, next) if accepted.alpn.as_deref() == Some(turn::ALPN) => {
            turns(accepted.stream, next).await;
        }
        Kind::MeshEcho(_) | Kind::MeshTurns(..) => echo(accepted.stream).await,
        Kind::MeshGreeting(_) => {
            let mut stream = accepted.stream;
            let _ = stream.write_all(b"ready").await;
            let _ = stream.shutdown().await;
        }
        _ => {
            let seen = [accepted.peer.id().to_string(), accepted.sni.unwrap_or_default()];
            http(&servers, accepted.stream, seen).await;
        }
    }
}

async fn turns(mut io: impl Io, next: Next) {
    loop {
        let mut turn = Turn::new(io);
        let mut all = Vec::new();
        turn.read_to_end(&mut all).await.unwrap();
        turn.write_all(&all).await.unwrap();
        if next == Next::Broken {
            return;
        }
        turn.shutdown().await.unwrap();
        io = turn.over().unwrap();
        if next == Next::Closed || !turn::asked(&mut io).await.is_ok_and(|asked| asked) {
            return;
        }
        match next {
            Next::Taken => turn::take(&mut io).await.unwrap(),
            Next::Silence => std::future::pending().await,
            _ => return,
        }
    }
}

async fn echo(stream: impl Io) {
    let (mut read, mut write) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

async fn http(servers: &Arc<Servers>, stream: impl Io + 'static, [peer, sni]: [String; 2]) {
    let handler = Arc::new(Seen {
        peer,
        sni,
        servers: Arc::clone(servers),
    });
    let options = ServeOptions::default();
    let _ = meshward_http::serve(
        stream,
        meshward_http::Protocol::Detect,
        options,
        handler,
        std::future::pending(),
    )
    .await;
}

struct Seen {
    peer: String,
    sni: String,
    servers: Arc<Servers>,
}

impl Handler for Seen {
    async fn request(&self, mut request: Request) -> Result<Response, Abort> {
        match request.uri().path() {
            "/never" => {
                self.servers.reached.notify_one();
                std::future::pending::<()>().await;
            }
            "/break" => return Err(Abort),
            "/101" => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                return Ok(response);
            }
            "/ws" => return Ok(upgraded(&mut request)),
            // Sends back what comes, trailers and all, as it comes.
            "/echo" => {
                let mut response = Response::new(request.into_body());
                response
                    .headers_mut()
                    .insert("trailer", HeaderValue::from_static("grpc-status"));
                return Ok(response);
            }
            _ => {}
        }
        let mut response = Response::new(Body::from("hello"));
        let mut tell = |name: &str, value: &str| {
            let name: meshward_http::HeaderName = format!("seen-{name}").parse().unwrap();
            let value = HeaderValue::try_from(value).unwrap();
            response.headers_mut().insert(name, value);
        };
        for (name, value) in request.headers() {
            tell(name.as_str(), value.to_str().unwrap());
        }
        tell("peer", &self.peer);
        tell("sni", &self.sni);
        tell("target", &request.uri().to_string());
        tell("version", version_of(&request).as_str());
        Ok(response)
    }

    fn refused(&self, _: Fault) {}
}

/// Takes an upgrade, and sends back what comes by it.
fn upgraded(request: &mut Request) -> Response {
    let mut response = Response::new(Body::empty());
    let upgrade = meshward_http::take_upgrade(request.extensions_mut()).unwrap();
    assert_eq!(request.headers()["connection"], "Upgrade");
    tokio::spawn(async move { echo(upgrade.wait().await.unwrap()).await });
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket")] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Signs what it is asked to sign.
struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Authority {
    fn new() -> (Self, String) {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        let root = issuer.pem();
        (Self(issuer), root)
    }
}

impl CertificateAuthority for Authority {
    fn sign<'a>(&'a self, csr_pem: &'a str, _: &'a str, _: Duration) -> Signing<'a> {
        Box::pin(async move {
            let mut request = rcgen::CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
            request.params.extended_key_usages = vec![
                rcgen::ExtendedKeyUsagePurpose::ServerAuth,
                rcgen::ExtendedKeyUsagePurpose::ClientAuth,
            ];
            request.params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
            request.params.use_authority_key_identifier_extension = true;
            let leaf = request.signed_by(&self.0).unwrap();
            Ok(vec![leaf.pem(), self.0.pem()])
        })
    }
}
