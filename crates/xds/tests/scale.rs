//! What a proxy is sent and holds does not depend on how large the mesh is, only on what its pods talk to.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "a test may panic"
)]

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use model::{Profile, Protocol, ServiceName, SpiffeId, WorkloadId, WorkloadUid};
use snapshot::{
    Delta, Egress, Endpoint, Index, Mesh, PathNormalization, Resource, ResourceName, Resources, Service,
    ServicePort, TlsVersion, Workload, XfccMode,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use xds::client::{self, Connect, Options};
use xds::server::{Authenticate, Server, Update};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Endpoints of each Service.
const ENDPOINTS: usize = 5;
/// How many Services the pods of the proxy talk to.
const USED: usize = 5;

struct Plain;

impl Authenticate for Plain {
    type Io = TcpStream;
    type Peer = ();

    async fn accept(&self, tcp: TcpStream) -> Result<(TcpStream, ()), String> {
        Ok((tcp, ()))
    }

    async fn node(&self, (): &(), token: &str) -> Result<String, String> {
        Ok(token.to_owned())
    }
}

/// Counts what is received.
struct Counted(TcpStream, Arc<AtomicUsize>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.0).poll_read(context, buffer);
        self.1
            .fetch_add(buffer.filled().len() - before, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

struct Dial(SocketAddr, Arc<AtomicUsize>);

impl Connect for Dial {
    type Io = Counted;

    async fn connect(&mut self) -> Result<(Counted, String), String> {
        let tcp = TcpStream::connect(self.0).await.map_err(|e| e.to_string())?;
        Ok((Counted(tcp, Arc::clone(&self.1)), "a".to_owned()))
    }
}

fn mesh() -> Mesh {
    Mesh {
        scopes: Default::default(),
        tls: Default::default(),
        profile: Profile::Secure,
        trust_domain: "cluster.local".parse().unwrap(),
        trust_domain_aliases: vec![],
        root_namespace: "istio-system".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        dns_vips: vec![],
        deny_by_default: true,
        egress: Egress::RegistryOnly,
        path_normalization: PathNormalization::Base,
        strict_paths: true,
        strict_hosts: true,
        jwt_strict: true,
        xfcc: XfccMode::SanitizeSet,
        auto_mtls: true,
        protocol_detection_timeout_ms: None,
        min_tls: TlsVersion::V1_3,
        http10: false,
        connect_timeout_ms: 10_000,
    }
}

fn address(block: u8, number: usize) -> IpAddr {
    let [_, a, b, c] = u32::try_from(number).unwrap().to_be_bytes();
    IpAddr::from([block, a, b, c])
}

fn identity(number: usize) -> SpiffeId {
    let text = format!("spiffe://cluster.local/ns/full/sa/account-{number}");
    text.parse().unwrap()
}

fn service(number: usize) -> Service {
    let endpoint = |n: usize| {
        let pod = number * ENDPOINTS + n;
        Endpoint {
            uid: WorkloadUid::new(&format!("9b1deb4d-3b7d-4bad-9bdd-{pod:012}")),
            workload: Some(WorkloadId::new("full", &format!("deployment-{number}"))),
            addresses: vec![address(10, pod)],
            ports: [(80, 8080)].into(),
            ready: true,
            node: Some(format!("node-{}", pod % 200)),
            identity: Some(identity(number)),
            plaintext_ports: vec![],
            mtls_ports: vec![],
            hostname: None,
            hbone: false,
        }
    };
    Service {
        external: None,
        name: ServiceName::new("full", &format!("service-{number}")),
        host: format!("service-{number}.full.svc.cluster.local")
            .parse()
            .unwrap(),
        vips: vec![address(11, number)],
        headless: false,
        external_name: None,
        ports: vec![ServicePort {
            name: "http".to_owned(),
            port: 80,
            protocol: Protocol::Http,
            tls: None,
            tls_by_namespace: [].into(),
        }],
        endpoints: (0..ENDPOINTS).map(endpoint).collect(),
        identities: vec![identity(number)],
    }
}

fn workload(pod: usize) -> Workload {
    let number = pod / ENDPOINTS;
    let name = format!("deployment-{number}");
    Workload {
        uid: WorkloadUid::new(&format!("9b1deb4d-3b7d-4bad-9bdd-{pod:012}")),
        pod: WorkloadId::new("full", &format!("{name}-6d5f8-{pod}")),
        workload: WorkloadId::new("full", &name),
        canonical_name: name.clone(),
        canonical_revision: "v1".to_owned(),
        app: name,
        version: "v1".to_owned(),
        addresses: vec![address(10, pod)],
        node: format!("node-{}", pod % 200),
        service_account: format!("account-{number}"),
        identity: Some(identity(number)),
        ready: true,
        plaintext_ports: vec![],
        mtls_ports: vec![],
        hbone: false,
        inbound: None,
    }
}

fn server(services: usize) -> Server {
    let all = (0..services).map(|n| Resource::from(service(n)));
    let all = all.chain((0..services * ENDPOINTS).map(|n| Resource::from(workload(n))));
    let server = Server::new();
    server.update(&Update {
        shared: Delta {
            updated: all.map(Arc::new).collect(),
            removed: vec![],
        },
        nodes: [("a".to_owned(), [Resource::from(mesh())].into_iter().collect())].into(),
    });
    server
}

/// What a proxy holds that has asked for a few Services, the bytes that it was sent for that, and how many bytes of
/// memory the set and its index take.
async fn held(services: usize) -> (Resources, usize, usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let serving = tokio::spawn(server(services).serve(listener, Arc::new(Plain)));
    let bytes = Arc::new(AtomicUsize::new(0));
    let (send, mut sets) = mpsc::unbounded_channel();
    let options = Options::new("a", || 0.5);
    let interest = options.interest.clone();
    let dial = Dial(at, Arc::clone(&bytes));
    let proxy = tokio::spawn(async move {
        client::run(options, dial, move |set, _| {
            send.send(set).map_err(|e| e.to_string())
        })
        .await
    });
    sets.recv().await.unwrap();
    let question = |n| ResourceName::service(&ServiceName::new("full", &format!("service-{n}")));
    let names: Vec<_> = (0..USED).map(question).collect();
    interest.add(&names).unwrap();
    let next = tokio::time::timeout(Duration::from_secs(30), sets.recv());
    let set = next.await.unwrap().unwrap();
    let sent = bytes.load(Ordering::Relaxed);
    for task in [serving.abort_handle(), proxy.abort_handle()] {
        task.abort();
    }
    let _ended = (serving.await.is_err(), proxy.await.is_err());
    let texts: Vec<_> = set
        .iter()
        .map(|(_, resource)| serde_json::to_vec(resource).unwrap())
        .collect();
    let region = Region::new(ALLOCATOR);
    let read = |text: &Vec<u8>| serde_json::from_slice::<Resource>(text).unwrap();
    let again: Resources = texts.iter().map(read).collect();
    let index = Index::build_on_demand(&again, None).unwrap();
    let change = region.change();
    let memory = change.bytes_allocated - change.bytes_deallocated;
    assert_eq!(again, set);
    drop(index);
    (set, sent, memory)
}

#[tokio::test]
async fn a_proxy_holds_what_its_pods_talk_to_however_large_the_mesh() {
    let (small_set, small_sent, small) = held(10).await;
    let (large_set, large_sent, large) = held(10_000).await;
    println!("10 Services: {small_sent} bytes sent, {small} held; 10 000: {large_sent}, {large}");
    // The mesh, the ports that are HTTP, and each Service with the workloads behind it.
    assert_eq!(large_set.len(), 2 + USED * (1 + ENDPOINTS));
    assert_eq!(large_set, small_set);
    assert!(large < small + 1024 * 1024, "{small} {large}");
    assert!(large < 256 * 1024, "{large}");
    assert!(large_sent < 64 * 1024, "{large_sent}");
    assert!(large_sent < small_sent + 4096, "{small_sent} {large_sent}");
}
