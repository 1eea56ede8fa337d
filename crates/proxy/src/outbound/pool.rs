//! HTTP connections to endpoints, kept for the next request of the same caller.
//!
//! What one caller has opened nobody else ever uses: its identity and its address are part of the [`Key`]. Nothing
//! older than the caller's certificate, or than what the mesh believes, is used again. Callers that miss at the same
//! time wait for one dial where its connection can be shared.

use std::collections::HashSet;
use std::future::Future;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::HashMap;
use meshward_http::limits::MAX_STREAMS;
use meshward_http::{Sender, Version};
use model::{Reason, SpiffeId};
use snapshot::Index;
use tokio::sync::watch;
use tokio::time::Instant;

use super::answer::Failure;
use super::dial::{From, Late};
use super::hop::Tls;

/// Connections that are kept or in use; more are refused with `LIMIT_REACHED`.
const MAX_CONNECTIONS: usize = 20_000;

/// Connections of one key, kept or in use.
const MAX_PER_KEY: usize = 1024;

/// How long a connection is kept without a request.
const IDLE: Duration = Duration::from_secs(60);

/// What a connection must agree in to be used again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    pub(super) caller: SpiffeId,
    /// The SHA-256 of its certificate.
    pub(super) leaf: [u8; 32],
    pub(super) from: From,
    pub(super) to: SocketAddr,
    pub(super) tls: Option<Tls>,
    pub(super) speak: Speak,
}

/// A [`Key`] that is made once and asked for often. Cheap to clone, to hash and, where it is the very same, to compare.
#[derive(Clone, Debug)]
pub(super) struct SharedKey(Arc<(Key, u64)>);

impl std::convert::From<Key> for SharedKey {
    fn from(key: Key) -> Self {
        let hash = foldhash::fast::FixedState::default().hash_one(&key);
        Self(Arc::new((key, hash)))
    }
}

impl std::ops::Deref for SharedKey {
    type Target = Key;

    fn deref(&self) -> &Key {
        &self.0.0
    }
}

impl PartialEq for SharedKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for SharedKey {}

impl Hash for SharedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.1);
    }
}

/// Which HTTP is to be spoken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Speak {
    Http1,
    Http2,
    /// HTTP/2 where the other end takes it.
    Either,
    /// HTTP/1.1, and then something else.
    Upgrade,
}

impl Speak {
    /// What mutual TLS offers: what Istio's sidecars do, so that whoever takes theirs takes ours (CM-15). HTTP/2 where the
    /// other end may choose is offered to proxies of the mesh alone, who restore what the application speaks.
    pub(super) fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::Http1 | Self::Upgrade => &[b"istio-http/1.1", b"istio", b"http/1.1"],
            Self::Http2 => &[b"istio-h2", b"istio", b"h2"],
            Self::Either => &[b"istio-h2", b"istio-http/1.1", b"istio", b"http/1.1"],
        }
    }

    /// What is spoken where that was agreed to, or nothing was.
    pub(super) fn version(self, agreed: Option<&[u8]>) -> Version {
        match (self, agreed) {
            (Self::Http2, _) | (Self::Either, Some(b"istio-h2")) => Version::Http2,
            (Self::Http1 | Self::Either | Self::Upgrade, _) => Version::Http1,
        }
    }
}

/// A connection that was just opened.
pub(super) struct Opened {
    pub(super) sender: Sender,
    pub(super) peer: Option<SpiffeId>,
    pub(super) late: Late,
}

/// All kept connections.
#[derive(Default)]
pub(super) struct Pool {
    slots: Mutex<Slots>,
    total: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Slots {
    by_key: HashMap<SharedKey, Slot>,
    /// Goes up when what is believed changes: what was opened before is not used again.
    generation: u64,
    trust: Option<Trust>,
}

/// What of a snapshot says who is believed.
#[derive(PartialEq, Eq)]
struct Trust {
    roots: Vec<String>,
    domains: Vec<model::TrustDomain>,
    min_tls: snapshot::TlsVersion,
    tls: snapshot::MeshTls,
}

#[derive(Default)]
struct Slot {
    shared: Vec<Arc<Connection>>,
    idle: Vec<(Sender, Arc<Connection>)>,
    /// The dial that all who miss wait for.
    dialling: Option<Told>,
    /// What the other end has agreed to before.
    version: Option<Version>,
    /// Connections, kept or in use.
    count: Arc<AtomicUsize>,
}

/// What is known of a connection besides its sender.
struct Connection {
    /// For HTTP/2: what shares are made from.
    sender: Option<Sender>,
    streams: AtomicUsize,
    used: Mutex<Instant>,
    generation: u64,
    peer: Option<SpiffeId>,
    late: Late,
    _counted: [Counted; 2],
}

struct Counted(Arc<AtomicUsize>);

/// The use of a connection for one request.
pub(super) struct Lease {
    pub(super) sender: Sender,
    connection: InUse,
    pool: Arc<Pool>,
    key: SharedKey,
}

/// One request under way on a connection.
struct InUse(Arc<Connection>);

/// How a dial that several wait for has ended, once it has.
type Outcome = Option<Result<Arc<Connection>, Failure>>;
type Told = watch::Receiver<Outcome>;

enum Found {
    Lease(Lease),
    Wait(Told),
    /// To be dialled, and others wait for it too.
    Share(watch::Sender<Outcome>, Told, u64),
    /// To be dialled for this request alone.
    Dial(u64),
}

impl Pool {
    /// A connection for one request: a kept one, or one that `open` opens.
    ///
    /// # Errors
    /// None could be had.
    pub(super) async fn lease<F>(
        self: &Arc<Self>,
        key: SharedKey,
        open: impl Fn() -> F,
    ) -> Result<Lease, Failure>
    where
        F: Future<Output = Result<Opened, Failure>> + Send + 'static,
    {
        loop {
            let mut told = match self.find(&key)? {
                Found::Lease(lease) => return Ok(lease),
                Found::Wait(told) => told,
                Found::Dial(generation) => {
                    let opened = open().await?;
                    return Ok(self.take(&key, opened, generation));
                }
                Found::Share(tell, told, generation) => {
                    // On a task of its own, so that the others need not begin anew when this caller leaves.
                    tokio::spawn(Arc::clone(self).share(key.clone(), open(), tell, generation));
                    told
                }
            };
            // Without an outcome the task has died: look again. So where it cannot be shared, is full already, or
            // what is believed has changed meanwhile.
            if let Ok(Some(outcome)) = told.wait_for(Option::is_some).await.as_deref() {
                let connection = outcome.as_ref().map_err(Clone::clone)?;
                let newest = self.with(|slots| slots.generation);
                match connection.share().filter(|_| connection.generation == newest) {
                    Some(sender) => return Ok(self.used(&key, sender, Arc::clone(connection))),
                    None if connection.is_lost() => return Err(connection.lost()),
                    None => {}
                }
            }
        }
    }

    /// Opens a connection for all who wait for it.
    async fn share(
        self: Arc<Self>,
        key: SharedKey,
        opening: impl Future<Output = Result<Opened, Failure>>,
        tell: watch::Sender<Outcome>,
        generation: u64,
    ) {
        let opened = opening.await;
        let outcome = self.with(|slots| {
            let outcome = opened.map(|opened| self.keep(slots, &key, opened, generation));
            if let Some(slot) = slots.by_key.get_mut(&key) {
                slot.dialling = None;
            }
            outcome
        });
        tell.send_replace(Some(outcome));
    }

    /// A connection that is not shared with anybody, before or after.
    ///
    /// # Errors
    /// It could not be had.
    pub(super) async fn apart(
        self: &Arc<Self>,
        key: SharedKey,
        opening: impl Future<Output = Result<Opened, Failure>>,
    ) -> Result<Lease, Failure> {
        if self.total.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
            return Err(Failure::of(Reason::LimitReached));
        }
        let opened = opening.await?;
        // Of no generation, so that it is never kept.
        Ok(self.take(&key, opened, u64::MAX))
    }

    fn find(self: &Arc<Self>, key: &SharedKey) -> Result<Found, Failure> {
        self.with(|slots| {
            let generation = slots.generation;
            if let Some(slot) = slots.by_key.get_mut(key)
                && let Some((sender, connection)) = slot.pick(generation)
            {
                return Ok(Found::Lease(self.used(key, sender, connection)));
            }
            let slot = slots.by_key.entry(key.clone()).or_default();
            // A sender that is gone without a word died with its task.
            if let Some(told) = &slot.dialling
                && told.has_changed().is_ok()
            {
                return Ok(Found::Wait(told.clone()));
            }
            let full = slot.count.load(Ordering::Relaxed) >= MAX_PER_KEY
                || self.total.load(Ordering::Relaxed) >= MAX_CONNECTIONS;
            if full {
                return Err(Failure::of(Reason::LimitReached));
            }
            let may_share =
                matches!(key.speak, Speak::Http2 | Speak::Either) && slot.version != Some(Version::Http1);
            if !may_share {
                return Ok(Found::Dial(generation));
            }
            let (tell, told) = watch::channel(None);
            slot.dialling = Some(told.clone());
            Ok(Found::Share(tell, told, generation))
        })
    }

    /// A lease of what was just opened for one caller alone.
    fn take(self: &Arc<Self>, key: &SharedKey, opened: Opened, generation: u64) -> Lease {
        let (sender, connection) = self.with(|slots| self.admit(slots, key, opened, generation));
        self.used(key, sender, connection)
    }

    /// Puts what was just opened where all who wait for it find it.
    fn keep(&self, slots: &mut Slots, key: &SharedKey, opened: Opened, generation: u64) -> Arc<Connection> {
        let (sender, connection) = self.admit(slots, key, opened, generation);
        if connection.sender.is_none() {
            let slot = slots.by_key.entry(key.clone()).or_default();
            slot.idle.push((sender, Arc::clone(&connection)));
        }
        connection
    }

    fn admit(
        &self,
        slots: &mut Slots,
        key: &SharedKey,
        opened: Opened,
        generation: u64,
    ) -> (Sender, Arc<Connection>) {
        let slot = slots.by_key.entry(key.clone()).or_default();
        slot.version = Some(opened.sender.version());
        let connection = Arc::new(Connection {
            sender: opened.sender.share(),
            streams: AtomicUsize::new(0),
            used: Mutex::new(Instant::now()),
            generation,
            peer: opened.peer,
            late: opened.late,
            _counted: [count(&slot.count), count(&self.total)],
        });
        if connection.sender.is_some() {
            slot.shared.push(Arc::clone(&connection));
        }
        (opened.sender, connection)
    }

    fn used(self: &Arc<Self>, key: &SharedKey, sender: Sender, connection: Arc<Connection>) -> Lease {
        connection.streams.fetch_add(1, Ordering::Relaxed);
        Lease {
            sender,
            connection: InUse(connection),
            pool: Arc::clone(self),
            key: key.clone(),
        }
    }

    /// Keeps what fits a new snapshot: nothing where what is believed has changed, and no connections to addresses that
    /// are gone. Requests under way are not touched; the registry sees to them.
    pub(super) fn follow(&self, index: &Index) {
        let trust = Trust::of(index);
        let known = known(index);
        self.with(|slots| {
            if slots.trust.as_ref() != Some(&trust) {
                slots.trust = Some(trust);
                slots.generation += 1;
                slots.by_key.clear();
            }
            let outside = |key: &Key| key.from == From::Node && key.tls.is_none();
            let stays = |key: &Key| outside(key) || known.contains(&key.to.ip());
            slots.by_key.retain(|key, _| stays(key));
        });
    }

    /// Drops what has not been used for [`IDLE`], or has ended.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.with(|slots| {
            let generation = slots.generation;
            slots.by_key.retain(|_, slot| {
                slot.shared
                    .retain(|c| c.is_usable(generation) && !c.is_idle_since(now));
                slot.idle.retain(|(sender, c)| {
                    !sender.is_closed() && c.generation == generation && !c.is_idle_since(now)
                });
                !slot.shared.is_empty()
                    || !slot.idle.is_empty()
                    || slot.dialling.is_some()
                    || slot.count.load(Ordering::Relaxed) > 0
            });
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Slots) -> T) -> T {
        act(&mut self.slots.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Slot {
    fn pick(&mut self, generation: u64) -> Option<(Sender, Arc<Connection>)> {
        self.shared.retain(|c| c.is_usable(generation));
        for connection in &self.shared {
            if let Some(sender) = connection.share() {
                return Some((sender, Arc::clone(connection)));
            }
        }
        self.idle
            .retain(|(sender, c)| !sender.is_closed() && c.generation == generation);
        // The one that was used last is the least likely to be closed by the other end just now.
        let ready = self.idle.iter().rposition(|(sender, _)| sender.is_ready())?;
        Some(self.idle.swap_remove(ready))
    }
}

impl Connection {
    /// A sender for one more request, where it is of a version that is shared and has room.
    fn share(&self) -> Option<Sender> {
        let limit = usize::try_from(MAX_STREAMS).unwrap_or(usize::MAX);
        let sender = self.sender.as_ref().filter(|sender| !sender.is_closed())?;
        (self.streams.load(Ordering::Relaxed) < limit).then(|| sender.share())?
    }

    /// Whether it would be shared, and has ended.
    fn is_lost(&self) -> bool {
        self.sender.as_ref().is_some_and(Sender::is_closed)
    }

    /// Why it ended as soon as it was there.
    fn lost(&self) -> Failure {
        match self.late.refusal() {
            Some(refusal) => Failure::unreachable(Reason::TlsHandshake, &format!("TLS error: {refusal}")),
            None => Failure::of(Reason::UpstreamReset).because("closed as soon as it was opened"),
        }
    }

    fn is_usable(&self, generation: u64) -> bool {
        self.generation == generation && self.sender.as_ref().is_some_and(|s| !s.is_closed())
    }

    fn is_idle_since(&self, now: Instant) -> bool {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        self.streams.load(Ordering::Relaxed) == 0 && now.saturating_duration_since(used) >= IDLE
    }
}

impl Lease {
    /// Who answers, proven.
    pub(super) fn peer(&self) -> Option<&SpiffeId> {
        self.connection.0.peer.as_ref()
    }

    /// Why the other end refused us, where it did.
    pub(super) fn refusal(&self) -> Option<&str> {
        self.connection.0.late.refusal()
    }

    /// The other end has closed what was kept: nothing of it is used again.
    pub(super) fn distrust(self) {
        self.pool.with(|slots| {
            if let Some(slot) = slots.by_key.get_mut(&self.key) {
                slot.idle.clear();
                slot.shared.retain(|kept| !Arc::ptr_eq(kept, &self.connection.0));
            }
        });
    }

    /// The exchange is over and has left the connection fit for another one.
    pub(super) fn release(self) {
        let connection = Arc::clone(&self.connection.0);
        if connection.sender.is_some() || self.sender.is_closed() {
            return;
        }
        let Self {
            sender, pool, key, ..
        } = self;
        pool.with(|slots| {
            if connection.generation == slots.generation {
                slots
                    .by_key
                    .entry(key)
                    .or_default()
                    .idle
                    .push((sender, connection));
            }
        });
    }
}

impl Trust {
    fn of(index: &Index) -> Self {
        let mesh = index.mesh();
        let aliases = mesh.trust_domain_aliases.iter().cloned();
        Self {
            roots: index.roots().to_vec(),
            domains: std::iter::once(mesh.trust_domain.clone())
                .chain(aliases)
                .collect(),
            min_tls: mesh.min_tls,
            tls: mesh.tls.clone(),
        }
    }
}

/// Every address that something of the mesh, or one of its Services, has.
pub(super) fn known(index: &Index) -> HashSet<IpAddr> {
    let pods = index.workloads().flat_map(|w| &w.addresses);
    let endpoints = index
        .services()
        .flat_map(|s| &s.endpoints)
        .flat_map(|e| &e.addresses);
    pods.chain(endpoints).map(|ip| model::canonical_ip(*ip)).collect()
}

fn count(of: &Arc<AtomicUsize>) -> Counted {
    of.fetch_add(1, Ordering::Relaxed);
    Counted(Arc::clone(of))
}

impl Drop for InUse {
    fn drop(&mut self) {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
