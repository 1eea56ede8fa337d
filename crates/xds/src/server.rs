//! The control plane's end: holds what each node is to know, and brings every stream there.

mod board;
mod catalogue;
mod observe;
mod stream;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use snapshot::Resources;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower_service::Service;

use crate::wire::{MAX_MESSAGE, MAX_RESOURCES};
use board::Board;

pub use board::Update;
pub use observe::Observe;

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

#[cfg(test)]
pub(crate) mod testing {
    pub(crate) use super::board::{Board, Streams};
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

#[derive(Debug)]
struct Shared {
    board: Mutex<Board>,
    status: watch::Sender<BTreeMap<String, NodeStatus>>,
    observer: OnceLock<Arc<dyn Observe>>,
}

/// Why a node's set cannot be published.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PublishError {
    /// There are too many resources.
    #[error("{0} resources are more than {MAX_RESOURCES}")]
    TooMany(usize),
}

/// What came of publishing.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The version that each node is to have, whether it is another one than before or not.
    pub versions: BTreeMap<String, u64>,
    /// Nodes that keep what they had.
    pub refused: BTreeMap<String, PublishError>,
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
                board: Mutex::default(),
                status: watch::Sender::new(BTreeMap::new()),
                observer: OnceLock::new(),
            }),
        }
    }

    /// Publishes a change. A node's version is another one where something of what it holds is, and versions grow over all
    /// nodes. Takes time with what is touched, and with what belongs to the nodes that are given.
    pub fn update(&self, update: &Update) -> Published {
        let mut board = self.shared.board();
        let (concerned, too_many) = board.apply(update);
        let versions = board.versions();
        self.shared.status.send_if_modified(|all| {
            for (node, version) in &concerned {
                all.entry(node.clone()).or_default().published = *version;
            }
            !concerned.is_empty()
        });
        let refused = too_many.into_iter();
        Published {
            versions,
            refused: refused
                .map(|(node, count)| (node, PublishError::TooMany(count)))
                .collect(),
        }
    }

    /// Says what belongs to one node from now on, and returns the version of it: the one before, where nothing differs.
    ///
    /// # Errors
    /// The set cannot be sent; the one before stays.
    pub fn publish(&self, node: &str, resources: Resources) -> Result<u64, PublishError> {
        let mut published = self.update(&Update {
            nodes: [(node.to_owned(), resources)].into(),
            ..Update::default()
        });
        match published.refused.remove(node) {
            Some(error) => Err(error),
            None => Ok(published.versions.remove(node).unwrap_or_default()),
        }
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
    /// The board is whole at all times, whatever its last user ran into.
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, node: &str, change: impl FnOnce(&mut NodeStatus)) {
        self.status
            .send_modify(|all| change(all.entry(node.to_owned()).or_default()));
    }
}
