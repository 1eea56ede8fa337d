//! A proxy without capture: one registered workload, its application on loopback, clients that dial by hand, and the
//! events that come.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use identity::{CertificateAuthority, Signing, StoreOptions, TokenFile};
use model::{MtlsMode, Profile, Protocol, ServiceName, SpiffeId, WorkloadId, WorkloadUid};
use policy::{Action, PolicyId, PolicySpec, RuleSpec};
use snapshot::{
    Egress, Inbound, InboundPort, Mesh, PathNormalization, Resource, Resources, TlsVersion, Workload,
    XfccMode,
};
use telemetry::{Event, Telemetry, TelemetryOptions, Wire};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;

use super::super::{Apps, Callee, Caller, accept, callee};
use crate::Registration;
use crate::shared::Shared;

/// The workload.
pub(super) const WEB: &str = "10.77.0.3";
/// Who calls it.
pub(super) const CLIENT: &str = "10.77.0.2:40000";

pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

pub(super) struct World {
    pub(super) shared: Arc<Shared>,
    resources: Mutex<Resources>,
    events: tokio::sync::Mutex<broadcast::Receiver<Arc<Event>>>,
    web: Mutex<Workload>,
    /// The application's port.
    pub(super) port: u16,
    /// How many connections the application has accepted.
    pub(super) accepted: Arc<AtomicUsize>,
    tokens: tempfile::TempDir,
}

pub(super) fn id(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/full/sa/{account}")
        .parse()
        .unwrap()
}

pub(super) fn mesh() -> Mesh {
    Mesh {
        profile: Profile::Secure,
        trust_domain: "cluster.local".parse().unwrap(),
        trust_domain_aliases: vec![],
        root_namespace: "istio-system".to_owned(),
        cluster_domain: "mesh.example".to_owned(),
        dns_vips: vec![],
        deny_by_default: true,
        egress: Egress::RegistryOnly,
        path_normalization: PathNormalization::MergeSlashes,
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

/// A policy that selects the workload; `rule` edits the one rule that it has.
pub(super) fn policy(name: &str, action: Action, rule: impl FnOnce(&mut RuleSpec)) -> PolicySpec {
    let mut rules = vec![RuleSpec::default()];
    rule(&mut rules[0]);
    PolicySpec {
        id: PolicyId {
            namespace: "full".to_owned(),
            name: name.to_owned(),
        },
        action,
        dry_run: false,
        rules,
        invalid: None,
        origin: policy::Origin::default(),
    }
}

/// Admits everybody.
pub(super) fn anybody() -> PolicySpec {
    policy("anybody", Action::Allow, |_| {})
}

fn workload(port: u16, mode: MtlsMode, protocol: Protocol) -> Workload {
    Workload {
        uid: WorkloadUid::new("web"),
        pod: WorkloadId::new("full", "web-1"),
        workload: WorkloadId::new("full", "web"),
        canonical_name: "web".to_owned(),
        canonical_revision: "latest".to_owned(),
        app: "web".to_owned(),
        version: "v1".to_owned(),
        addresses: vec![WEB.parse().unwrap()],
        node: "node-0".to_owned(),
        service_account: "web".to_owned(),
        identity: Some(id("web")),
        ready: true,
        plaintext_ports: vec![],
        mtls_ports: vec![],
        hbone: false,
        inbound: Some(Inbound {
            ports: vec![InboundPort {
                port,
                protocol,
                mtls: mode,
                service: Some(ServiceName::new("full", "web")),
            }],
            default_mtls: mode,
            authentications: vec![],
            policies: vec![],
            mtls_decided_by: None,
            path_dialects: Default::default(),
            scope: None,
            telemetry: snapshot::Telemetry::default(),
        }),
    }
}

impl World {
    /// One whose application is `listener`'s.
    pub(super) async fn new(
        mode: MtlsMode,
        protocol: Protocol,
        policies: Vec<PolicySpec>,
    ) -> (Self, TcpListener) {
        Self::certified(&["client", "web"], mode, protocol, policies).await
    }

    /// One in which these accounts, and no others, have a certificate.
    pub(super) async fn certified(
        accounts: &[&str],
        mode: MtlsMode,
        protocol: Protocol,
        policies: Vec<PolicySpec>,
    ) -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tokens = tempfile::tempdir().unwrap();
        let token = tokens.path().join("token");
        std::fs::write(&token, "t").unwrap();
        let (authority, root) = Authority::new();
        let identities = identity::Store::new(Arc::new(authority), StoreOptions::default());
        identities.set_roots(std::slice::from_ref(&root)).unwrap();
        identities.set_trust_domains("cluster.local".parse().unwrap(), vec![]);
        for account in accounts {
            let token = TokenFile(token.clone());
            identities.ensure(&id(account), token).await.unwrap();
        }
        let telemetry = Telemetry::start(&TelemetryOptions::default()).unwrap();
        let events = telemetry.subscribe().live;
        let registration = Registration {
            mark: 0x100,
            uid: WorkloadUid::new("web"),
            namespace: "full".to_owned(),
            pod: "web-1".to_owned(),
            identity: Some(id("web")),
            addresses: vec![WEB.parse().unwrap()],
            token: "/nowhere".into(),
        };
        let shared = Arc::new(Shared {
            config: config(),
            store: crate::store::Store::new(),
            demand: crate::store::demand::Demand::default(),
            locals: crate::locals::Locals::of([registration]),
            identities,
            registry: crate::registry::Registry::default(),
            apps: Apps::on_loopback(),
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
        let world = Self {
            shared,
            resources: Mutex::default(),
            events: tokio::sync::Mutex::new(events),
            web: Mutex::new(workload(port, mode, protocol)),
            port,
            accepted: Arc::default(),
            tokens,
        };
        world.resources.lock().unwrap().insert(Arc::new(mesh().into()));
        world
            .resources
            .lock()
            .unwrap()
            .insert(Arc::new(Resource::Roots(vec![root])));
        world.policies(policies).await;
        (world, listener)
    }

    /// One whose application answers every connection by `serve`.
    pub(super) async fn serving<F>(
        mode: MtlsMode,
        protocol: Protocol,
        policies: Vec<PolicySpec>,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (world, listener) = Self::new(mode, protocol, policies).await;
        let accepted = Arc::clone(&world.accepted);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream));
            }
        });
        world
    }

    /// Puts something else into force, and asks what is open whether it may go on.
    pub(super) async fn change(&self, resources: impl IntoIterator<Item = Resource>) {
        {
            let mut known = self.resources.lock().unwrap();
            for resource in resources {
                known.insert(Arc::new(resource));
            }
            self.shared.store.swap(&known, 1).unwrap();
        }
        let index = self.shared.store.current().unwrap();
        self.shared.registry.recheck(&index).await;
    }

    /// These policies, and no others, select the workload.
    pub(super) async fn policies(&self, policies: Vec<PolicySpec>) {
        let names = policies.iter().map(|p| p.id.clone()).collect();
        let web = self.web(|inbound| inbound.policies = names);
        let policies = policies.into_iter().map(Resource::from);
        self.change(policies.chain([web.into()])).await;
    }

    /// These RequestAuthentications select the workload.
    pub(super) async fn authentications(
        &self,
        names: Vec<PolicyId>,
        resources: impl IntoIterator<Item = Resource>,
    ) {
        let web = self.web(|inbound| inbound.authentications = names);
        self.change(resources.into_iter().chain([web.into()])).await;
    }

    pub(super) async fn mode(&self, mode: MtlsMode) {
        let web = self.web(|inbound| inbound.ports[0].mtls = mode);
        self.change([web.into()]).await;
    }

    /// How the workload reads paths.
    pub(super) async fn dialects(&self, text: &str) {
        let web = self.web(|inbound| inbound.path_dialects = text.parse().unwrap());
        self.change([web.into()]).await;
    }

    fn web(&self, edit: impl FnOnce(&mut Inbound)) -> Workload {
        let mut web = self.web.lock().unwrap();
        edit(web.inbound.as_mut().unwrap());
        web.clone()
    }

    /// The workload is none of the mesh's any more.
    pub(super) async fn gone(&self) {
        let mut web = self.web.lock().unwrap().clone();
        web.inbound = None;
        self.change([web.into()]).await;
    }

    pub(super) fn drain(&self) {
        self.shared.ending.advance(crate::shared::Stage::Draining);
    }

    /// A connection as it is captured on its way to a port of the workload.
    pub(super) async fn captured(&self, port: u16) -> TcpStream {
        self.captured_at(SocketAddr::new(WEB.parse().unwrap(), port))
            .await
    }

    /// A connection to whatever address, that arrives by the workload's interface.
    pub(super) async fn captured_at(&self, to: SocketAddr) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let local = self.shared.locals.by_mark(0x100).await;
        tokio::spawn(accept(
            Arc::clone(&self.shared),
            Arc::default(),
            stream,
            local,
            CLIENT.parse().unwrap(),
            to,
        ));
        client
    }

    /// To the application, in plaintext.
    pub(super) async fn plain(&self) -> TcpStream {
        self.captured(self.port).await
    }

    /// To the application, as the service account `client`.
    pub(super) async fn mutual(&self, alpn: &[&[u8]]) -> impl Io + use<> {
        let stream = self.plain().await;
        let identities = &self.shared.identities;
        let connected = identities
            .connect(&id("client"), stream, "outbound_.80_._.web", &[id("web")], alpn)
            .await
            .unwrap();
        connected.stream
    }

    /// To the application, with a certificate that nobody here believes; returns when it was refused.
    pub(super) async fn stranger(&self, alpn: &[&[u8]]) {
        let (authority, own) = Authority::new();
        let store = identity::Store::new(Arc::new(authority), StoreOptions::default());
        let roots = self.shared.store.current().unwrap().roots().to_vec();
        store.set_roots(&[roots, vec![own]].concat()).unwrap();
        store.set_trust_domains("cluster.local".parse().unwrap(), vec![]);
        let token = TokenFile(self.tokens.path().join("token"));
        store.ensure(&id("client"), token).await.unwrap();
        let stream = self.plain().await;
        let connected = store
            .connect(&id("client"), stream, "outbound_.80_._.web", &[id("web")], alpn)
            .await;
        if let Ok(mut connected) = connected {
            connected.stream.read_u8().await.unwrap_err();
        }
    }

    /// Who calls from this very node.
    pub(super) fn caller(&self) -> Caller {
        Caller {
            peer: Some(self.shared.identities.local_peer(&id("client")).unwrap()),
            address: CLIENT.parse().unwrap(),
            sni: Some(Arc::from("outbound_.80_._.web")),
            wire: Wire::Local,
            source: Arc::default(),
        }
    }

    pub(super) fn callee(&self) -> Callee {
        let index = self.shared.store.current().unwrap();
        let address = SocketAddr::new(WEB.parse().unwrap(), self.port);
        callee(&self.shared, &index, address).unwrap()
    }

    pub(super) async fn event(&self) -> Arc<Event> {
        let mut events = self.events.lock().await;
        let event = tokio::time::timeout(Duration::from_secs(5), events.recv()).await;
        event.expect("an event should have come").unwrap()
    }

    /// The event, of which there is no other.
    pub(super) async fn only_event(&self) -> Arc<Event> {
        let event = self.event().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let more = self.events.lock().await.try_recv();
        assert!(more.is_err(), "a second event: {more:?}");
        event
    }

    /// Whether there is none now.
    pub(super) async fn no_event(&self) -> bool {
        self.events.lock().await.try_recv().is_err()
    }

    /// How many connections the application has seen, after those under way have had their time.
    pub(super) async fn dialled(&self) -> usize {
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.accepted.load(Ordering::SeqCst)
    }
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
