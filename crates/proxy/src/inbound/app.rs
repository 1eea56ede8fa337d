//! Connections to applications of this node: dialled on their pod's own link, HTTP ones kept for the next request.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::HashMap;
use meshward_http::{Sender, Version};
use model::Reason;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::shared::Shared;

/// HTTP/1 connections of one application that are kept while nobody uses them.
const MAX_IDLE: usize = 64;
/// Applications of which connections are kept.
const MAX_APPLICATIONS: usize = 4096;
/// How long one is kept: less than the shortest keep-alive time that servers commonly have.
const IDLE: Duration = Duration::from_secs(4);

type Dialling = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// How applications are reached.
pub(crate) struct Apps {
    dial: fn(SocketAddr) -> Dialling,
    kept: Mutex<HashMap<(SocketAddr, Version), Kept>>,
}

impl fmt::Debug for Apps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Apps").finish_non_exhaustive()
    }
}

/// Connections to one application.
#[derive(Default)]
struct Kept {
    idle: Vec<(Sender, Instant)>,
    /// HTTP/2's one.
    shared: Option<Sender>,
    /// Whether somebody sees to it that idle ones are closed in time.
    swept: bool,
}

impl Kept {
    fn forget_old(&mut self, now: Instant) {
        self.idle
            .retain(|(sender, since)| !sender.is_closed() && now.duration_since(*since) < IDLE);
        self.shared.take_if(|shared| shared.is_closed());
    }

    fn is_empty(&self) -> bool {
        self.idle.is_empty() && self.shared.is_none()
    }
}

/// Why an application was not reached.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    pub(super) why: String,
}

/// A connection to an application that a request may go by.
pub(super) struct Lease {
    pub(super) sender: Sender,
    key: (SocketAddr, Version),
    /// Whether it has carried a request before: then it may be closing just now.
    pub(super) used: bool,
}

impl Default for Apps {
    fn default() -> Self {
        Self {
            dial: |to| Box::pin(capture::socket::connect_app(to)),
            kept: Mutex::default(),
        }
    }
}

/// How long connecting may take (`meshConfig.connectTimeout`).
pub(super) fn patience(shared: &Shared) -> Duration {
    let mesh = shared.store.current();
    Duration::from_millis(mesh.map_or(10_000, |index| index.mesh().connect_timeout_ms))
}

impl Apps {
    /// Applications that are reached as any other address is: those of a proxy without links of their own.
    pub(crate) fn plain() -> Self {
        Self {
            dial: |to| {
                Box::pin(async move {
                    let stream = TcpStream::connect(to).await?;
                    capture::socket::notice_silence(&stream)?;
                    Ok(stream)
                })
            },
            kept: Mutex::default(),
        }
    }

    /// Applications on loopback, for tests.
    #[cfg(test)]
    pub(crate) fn on_loopback() -> Self {
        Self {
            dial: |to| Box::pin(TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], to.port())))),
            kept: Mutex::default(),
        }
    }

    /// How many connections are kept, for tests.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.with(|kept| kept.values().map(|own| own.idle.len()).sum())
    }

    /// Opens a connection.
    pub(super) async fn connect(&self, to: SocketAddr, limit: Duration) -> Result<TcpStream, Failure> {
        let failed = |reason, why: String| Failure { reason, why };
        match tokio::time::timeout(limit, (self.dial)(to)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
            Ok(Err(error)) => Err(failed(Reason::ConnectFailed, error.to_string())),
            Err(_) => Err(failed(
                Reason::ConnectFailed,
                "the application did not answer in time".to_owned(),
            )),
        }
    }

    /// A connection for one request: one that is kept, or a new one.
    pub(super) async fn lease(
        &self,
        to: SocketAddr,
        version: Version,
        limit: Duration,
        fresh: bool,
    ) -> Result<Lease, Failure> {
        let key = (to, version);
        if !fresh && let Some(sender) = self.take(key) {
            return Ok(Lease {
                sender,
                key,
                used: true,
            });
        }
        // Apart: most requests find a connection.
        let sender = Box::pin(self.open(to, version, limit)).await?;
        if let Some(shared) = sender.share() {
            self.with(|kept| {
                if has_room(kept, &key) {
                    kept.entry(key).or_default().shared = Some(shared);
                }
            });
        }
        Ok(Lease {
            sender,
            key,
            used: false,
        })
    }

    async fn open(&self, to: SocketAddr, version: Version, limit: Duration) -> Result<Sender, Failure> {
        let stream = self.connect(to, limit).await?;
        let broken = |e: meshward_http::ClientError| Failure {
            reason: Reason::UpstreamReset,
            why: e.to_string(),
        };
        meshward_http::handshake(stream, version).await.map_err(broken)
    }

    fn take(&self, key: (SocketAddr, Version)) -> Option<Sender> {
        let now = Instant::now();
        self.with(|kept| {
            let own = kept.get_mut(&key)?;
            if let Some(shared) = &own.shared {
                if !shared.is_closed() {
                    return shared.share();
                }
                own.shared = None;
            }
            while let Some((sender, since)) = own.idle.pop() {
                if !sender.is_closed() && sender.is_ready() && now.duration_since(since) < IDLE {
                    return Some(sender);
                }
            }
            None
        })
    }

    /// Keeps a connection for the next request; true where from now on somebody must [`Apps::sweep`] its application.
    fn keep(&self, lease: Lease) -> bool {
        if lease.sender.is_closed() {
            return false;
        }
        let now = Instant::now();
        self.with(|kept| {
            if !has_room(kept, &lease.key) {
                return false;
            }
            let own = kept.entry(lease.key).or_default();
            own.forget_old(now);
            if own.idle.len() < MAX_IDLE {
                own.idle.push((lease.sender, now));
            }
            !std::mem::replace(&mut own.swept, true)
        })
    }

    /// Closes what has been idle for too long; false where nothing is left to be looked after.
    fn sweep(&self, key: (SocketAddr, Version)) -> bool {
        let now = Instant::now();
        self.with(|kept| {
            let Some(own) = kept.get_mut(&key) else {
                return false;
            };
            own.forget_old(now);
            own.swept = !own.idle.is_empty();
            if own.is_empty() {
                kept.remove(&key);
                return false;
            }
            own.swept
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<(SocketAddr, Version), Kept>) -> T) -> T {
        act(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether connections of an application may be kept; where it is crowded, those that nobody needs make room.
fn has_room(kept: &mut HashMap<(SocketAddr, Version), Kept>, key: &(SocketAddr, Version)) -> bool {
    if kept.len() >= MAX_APPLICATIONS && !kept.contains_key(key) {
        let now = Instant::now();
        kept.retain(|_, own| {
            own.forget_old(now);
            !own.is_empty()
        });
    }
    kept.len() < MAX_APPLICATIONS || kept.contains_key(key)
}

impl Lease {
    /// The application's address.
    pub(super) fn address(&self) -> SocketAddr {
        self.key.0
    }
}

/// What gives a connection back when the response is over.
pub(super) struct Returning {
    pub(super) shared: Arc<Shared>,
    pub(super) lease: Lease,
}

impl Returning {
    /// The response has been read to its end.
    pub(super) fn back(self) {
        if self.lease.sender.version() == Version::Http2 {
            return;
        }
        if self.lease.sender.is_ready() {
            self.kept();
        } else {
            // The codec has not seen to the end yet, or the request is longer than its response.
            tokio::spawn(async move {
                let Self { shared, mut lease } = self;
                if lease.sender.ready().await.is_ok() {
                    Self { shared, lease }.kept();
                }
            });
        }
    }

    fn kept(self) {
        let Self { shared, lease } = self;
        let key = lease.key;
        if shared.apps.keep(lease) {
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(IDLE).await;
                    if !shared.apps.sweep(key) {
                        return;
                    }
                }
            });
        }
    }
}
