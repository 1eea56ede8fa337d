//! The control plane's end: holds what each node is to know, and brings every stream there.

mod observe;
mod stream;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use snapshot::{Resource, ResourceName, Resources};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower_service::Service;

pub use observe::Observe;

use crate::wire::{Encoded, MAX_MESSAGE, MAX_RESOURCES};

/// How many connections are served at once; the next one waits in the listen queue.
pub const MAX_CONNECTIONS: usize = 4096;
/// How long a peer may take for its handshake.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before accepting again when the system refuses.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a connection is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long the answer to that may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams of one connection.
const MAX_STREAMS: u32 = 4;
/// The largest head of a request, in bytes: a token is the most of it.
const MAX_HEAD: u32 = 32 * 1024;

/// Who may ask for what. A stream gets what belongs to the node that both the connection and the token prove.
pub trait Authenticate: Send + Sync + 'static {
    /// The connection once it is encrypted.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// What the handshake proved.
    type Peer: Send + Sync + 'static;

    /// Makes a connection out of bytes. The text of an error is for our log.
    fn accept(&self, tcp: TcpStream) -> impl Future<Output = Result<(Self::Io, Self::Peer), String>> + Send;

    /// The name of the node that the peer with this bearer token is. The text of an error is for our log.
    fn node(&self, peer: &Self::Peer, token: &str) -> impl Future<Output = Result<String, String>> + Send;
}

/// How far a node is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeStatus {
    /// Whether a stream is open.
    pub connected: bool,
    /// The version that it is to have; 0 where there is none yet.
    pub published: u64,
    /// The version that was sent last.
    pub sent: u64,
    /// The version that it has taken last.
    pub acked: u64,
    /// The version that it has refused since, and why.
    pub nacked: Option<(u64, String)>,
}

impl NodeStatus {
    /// Whether it has a version, or a later one.
    pub fn has(&self, version: u64) -> bool {
        self.acked >= version
    }
}

/// The server; clones are the same one.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// What one node is to know.
#[derive(Debug, Default)]
struct Published {
    version: u64,
    resources: Resources,
    encoded: BTreeMap<ResourceName, Arc<Encoded>>,
}

#[derive(Debug)]
struct NodeEntry {
    published: watch::Sender<Arc<Published>>,
    /// The number of the newest stream; an older one ends.
    streams: watch::Sender<u64>,
}

struct Shared {
    entries: Mutex<BTreeMap<String, Arc<NodeEntry>>>,
    status: watch::Sender<BTreeMap<String, NodeStatus>>,
    last_version: Mutex<u64>,
    observer: OnceLock<Arc<dyn Observe>>,
}

/// Why a set cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There are too many resources.
    #[error("{0} resources are more than {MAX_RESOURCES}")]
    TooMany(usize),
    /// A resource cannot be written down.
    #[error("the resource `{0}` cannot be encoded")]
    Encode(ResourceName, #[source] serde_json::Error),
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// A server that knows no node.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                entries: Mutex::default(),
                status: watch::Sender::new(BTreeMap::new()),
                last_version: Mutex::new(0),
                observer: OnceLock::new(),
            }),
        }
    }

    /// Says what a node is to know from now on, and returns the version of it: the one before, where nothing differs.
    /// Versions grow over all nodes.
    ///
    /// # Errors
    /// The set cannot be sent; the one before stays.
    pub fn publish(&self, node: &str, resources: Resources) -> Result<u64, PublishError> {
        if resources.len() > MAX_RESOURCES {
            return Err(PublishError::TooMany(resources.len()));
        }
        let entry = self.shared.entry(node);
        let old = entry.published.borrow().clone();
        if old.version > 0 && old.resources == resources {
            return Ok(old.version);
        }
        let mut encoded = BTreeMap::new();
        for (name, resource) in resources.iter() {
            let text = encode(&old, name, resource).map_err(|e| PublishError::Encode(name.clone(), e))?;
            encoded.insert(name.clone(), text);
        }
        let version = self.shared.next_version();
        self.shared.update(node, |status| status.published = version);
        entry.published.send_replace(Arc::new(Published {
            version,
            resources,
            encoded,
        }));
        Ok(version)
    }

    /// Tells somebody of each response; the first who wants to be told is.
    pub fn observe(&self, observer: Arc<dyn Observe>) {
        let _ = self.shared.observer.set(observer);
    }

    /// How far every node is that something was published for.
    pub fn nodes(&self) -> watch::Receiver<BTreeMap<String, NodeStatus>> {
        self.shared.status.subscribe()
    }

    /// Serves for ever; what it has spawned ends with it.
    pub async fn serve<A: Authenticate>(self, listener: TcpListener, authenticate: Arc<A>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let tcp = match listener.accept().await {
                Ok((tcp, _)) => tcp,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (shared, authenticate) = (Arc::clone(&self.shared), Arc::clone(&authenticate));
            connections.spawn(async move {
                if let Err(why) = connection(tcp, shared, authenticate).await {
                    tracing::info!("a connection ended: {why}");
                }
                drop(place);
            });
        }
    }
}

/// The bytes of a resource; those from before where it has not changed.
fn encode(
    old: &Published,
    name: &ResourceName,
    resource: &Arc<Resource>,
) -> Result<Arc<Encoded>, serde_json::Error> {
    if old.resources.get(name).is_some_and(|before| before == resource)
        && let Some(encoded) = old.encoded.get(name)
    {
        return Ok(Arc::clone(encoded));
    }
    Encoded::new(resource).map(Arc::new)
}

async fn connection<A: Authenticate>(
    tcp: TcpStream,
    shared: Arc<Shared>,
    authenticate: Arc<A>,
) -> Result<(), String> {
    // A small answer must not wait for a larger one.
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    let (io, peer) = tokio::time::timeout(ACCEPT_TIMEOUT, authenticate.accept(tcp))
        .await
        .map_err(|_| "the handshake took too long".to_owned())??;
    let peer = Arc::new(peer);
    let discovery = stream::Discovery::new(shared, authenticate, peer);
    let service = AggregatedDiscoveryServiceServer::new(discovery)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .serve_connection(
            TokioIo::new(io),
            service_fn(move |request| service.clone().call(request)),
        )
        .await
        .map_err(|error| error.to_string())
}

impl Shared {
    fn entry(&self, node: &str) -> Arc<NodeEntry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(node.to_owned()).or_insert_with(|| {
            Arc::new(NodeEntry {
                published: watch::Sender::new(Arc::default()),
                streams: watch::Sender::new(0),
            })
        });
        Arc::clone(entry)
    }

    /// A node that something was published for.
    fn known(&self, node: &str) -> Option<Arc<NodeEntry>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(node).cloned()
    }

    fn next_version(&self) -> u64 {
        let mut last = self.last_version.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        *last
    }

    fn update(&self, node: &str, change: impl FnOnce(&mut NodeStatus)) {
        self.status
            .send_modify(|all| change(all.entry(node.to_owned()).or_default()));
    }
}
