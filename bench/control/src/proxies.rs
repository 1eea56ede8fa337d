//! Simulated proxies: the real client over real mutual TLS, with the index that a proxy makes of what it holds; no traffic.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use identity::{ClientStream, Store};
use snapshot::{Index, Resource, ResourceName, Resources};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use xds::client::{self, Connect, Interest, Options};

use crate::bed::{Bed, id};

/// Counts what is received within TLS.
pub struct Counted(ClientStream<TcpStream>, Arc<AtomicUsize>);

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

struct Dial {
    to: std::net::SocketAddr,
    store: Store,
    token: String,
    bytes: Arc<AtomicUsize>,
}

impl Connect for Dial {
    type Io = Counted;

    async fn connect(&mut self) -> Result<(Counted, String), String> {
        let tcp = TcpStream::connect(self.to).await.map_err(|e| e.to_string())?;
        tcp.set_nodelay(true).map_err(|e| e.to_string())?;
        let expected = [id(control::OWN_ACCOUNT)];
        let own = id(control::NODE_ACCOUNT);
        let connected = self.store.connect(&own, tcp, "", &expected, &[b"h2"]).await;
        let stream = connected.map_err(|e| e.to_string())?.stream;
        Ok((Counted(stream, Arc::clone(&self.bytes)), self.token.clone()))
    }
}

/// What a proxy has taken, and when.
#[derive(Default)]
struct Taken {
    resources: Resources,
    index: Option<Index>,
    /// When each was there first, of those that are watched.
    came: BTreeMap<ResourceName, Instant>,
}

pub struct Proxy {
    pub interest: Interest,
    pub bytes: Arc<AtomicUsize>,
    taken: Arc<Mutex<Taken>>,
    watched: Arc<Mutex<Vec<ResourceName>>>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub fn connect(bed: &Bed, node: &str, uses: &[ResourceName]) -> Self {
        let bytes = Arc::new(AtomicUsize::new(0));
        let dial = Dial {
            to: bed.config.listen[0],
            store: bed.store.clone(),
            token: bed.token(control::NODE_ACCOUNT, node),
            bytes: Arc::clone(&bytes),
        };
        let options = Options::new(node, || 0.5);
        let interest = options.interest.clone();
        interest.add(uses).unwrap();
        let taken: Arc<Mutex<Taken>> = Arc::default();
        let watched: Arc<Mutex<Vec<ResourceName>>> = Arc::default();
        let (to, watching) = (Arc::clone(&taken), Arc::clone(&watched));
        let task = tokio::spawn(async move {
            client::run(options, dial, move |set, _| {
                let mut taken = to.lock().unwrap();
                let index = Index::build_on_demand(&set, taken.index.as_ref()).map_err(|e| e.to_string())?;
                let now = Instant::now();
                for name in watching.lock().unwrap().iter() {
                    let there = set.get(name).is_some_and(|r| !matches!(**r, Resource::Absent(_)));
                    if there {
                        taken.came.entry(name.clone()).or_insert(now);
                    }
                }
                taken.index = Some(index);
                taken.resources = set;
                Ok(())
            })
            .await
        });
        Self {
            interest,
            bytes,
            taken,
            watched,
            task,
        }
    }

    /// From now on it is noted when this is there.
    pub fn watch(&self, name: &ResourceName) {
        self.taken.lock().unwrap().came.remove(name);
        *self.watched.lock().unwrap() = vec![name.clone()];
    }

    pub fn came(&self, name: &ResourceName) -> Option<Instant> {
        self.taken.lock().unwrap().came.get(name).copied()
    }

    /// Whether it has the mesh and an answer to everything that it asks for.
    pub fn in_sync(&self) -> bool {
        let taken = self.taken.lock().unwrap();
        let names = self.interest.names();
        taken
            .index
            .as_ref()
            .is_some_and(|index| names.iter().all(|name| index.knows(name)))
    }

    /// How many resources it holds, and how many bytes they are as they travel.
    pub fn holds(&self) -> (usize, usize) {
        let taken = self.taken.lock().unwrap();
        let length = |resource: &Resource| serde_json::to_vec(resource).unwrap().len();
        let bytes = taken.resources.iter().map(|(_, resource)| length(resource));
        (taken.resources.len(), bytes.sum())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
