//! What workloads of this node open: where it goes, and by what means.
//!
//! A captured connection is read as its destination's port says ([`plan`]), TCP is decided once ([`tcp`]) and each HTTP
//! request by the newest snapshot ([`http`]). A workload of this node is reached inside the process, any other over a
//! connection in the caller's name and from the caller's address ([`dial`], [`pool`]). Whether the callee admits it is
//! the callee's to say; what is refused here is what leaves the registry, or has nowhere to go.

mod answer;
mod call;
mod dial;
mod entries;
mod event;
mod exchange;
mod hbone;
pub(crate) mod headers;
mod hop;
mod http;
mod local;
mod plan;
mod pool;
mod random;
mod route;
mod tcp;
pub(crate) mod trace;
mod turns;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshward_http::Rewind;
use model::{Reason, SpiffeId, Text};
use snapshot::{Claim, Destination, Index, Lacks};
use telemetry::Peer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use crate::Registration;
use crate::registry::Entry;
use crate::shared::{Carried, Shared, Stage};
pub(crate) use call::{Call, NoReply, Reply};
use dial::{Dial, Kernel, Plain};
use event::Record;
pub(crate) use event::peer_of;
use hop::{Load, Loaded};
use plan::{Kept, Spoken};
use pool::Pool;
use route::{Route, Routes};
use turns::Turns;

/// How long to wait before accepting again where the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many other attempts follow one of which nobody has seen a byte (Istio's default).
const RETRIES: usize = 2;

/// How much one workload may have open, connections and requests: what the proxy as a whole may have open must not be
/// one workload's to use up.
const MAX_OPEN_OF_ONE: usize = 20_000;

/// How often something may turn out to be lacked before it is known where something goes: an alias may lead to another.
const MAX_ROUNDS: usize = 12;

/// How often connections that nobody uses are looked for.
const SWEEP: Duration = Duration::from_secs(10);

/// Takes what was captured on its way from workloads of this node, until told to drain.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let outbound = Arc::new(Outbound::new(shared, Arc::new(Kernel)));
    take(outbound, listener, |stream| {
        capture::socket::mark(stream)
            .and_then(|mark| capture::socket::original_dst(stream).map(|dialled| (mark, dialled)))
    })
    .await;
}

/// Takes what comes to an ordinary listener: all of it is of the workload of that mark, and counts as having dialled
/// that address. Connections go out in the machine's own name. Without `keeps`, TCP has a handshake for each connection.
pub(crate) async fn serve_for(
    shared: Arc<Shared>,
    listener: TcpListener,
    mark: u32,
    dialled: SocketAddr,
    keeps: bool,
) {
    let mut outbound = Outbound::new(shared, Arc::new(Plain));
    outbound.keeps = keeps;
    take(Arc::new(outbound), listener, move |_| Ok((mark, dialled))).await;
}

/// Takes connections; `whose` says which workload opened one, by its mark, and what it dialled.
async fn take(
    outbound: Arc<Outbound>,
    listener: TcpListener,
    whose: impl Fn(&TcpStream) -> std::io::Result<(u32, SocketAddr)>,
) {
    outbound.shared.authorizers.reached_by(&outbound);
    let mut draining = pin!(outbound.shared.ending.reached(Stage::Draining));
    let mut version = outbound.shared.store.version();
    let mut sweep = tokio::time::interval(SWEEP);
    outbound.follow();
    outbound.shared.ending.reached(Stage::Running).await;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    let known = whose(&stream);
                    let carried = outbound.shared.ending.carry();
                    tokio::spawn(Arc::clone(&outbound).taken(carried, stream, client, known));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting captured connections failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            changed = version.changed() => match changed {
                Ok(()) => outbound.follow(),
                Err(_) => return,
            },
            _ = sweep.tick() => outbound.sweep(),
            () = &mut draining => break,
        }
    }
    // What is open goes on, and has its connections kept as before.
    drop(listener);
    loop {
        tokio::select! {
            changed = version.changed() => match changed {
                Ok(()) => outbound.follow(),
                Err(_) => return,
            },
            _ = sweep.tick() => outbound.sweep(),
        }
    }
}

/// What all outbound connections of a listener share.
pub(crate) struct Outbound {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    routes: Routes,
    turns: Turns,
    /// Whether connections of mutual TLS are kept for the next TCP connection.
    keeps: bool,
    /// What is under way to each address.
    load: Load<SocketAddr>,
    /// What each workload has open, connections and requests.
    open: Load<u32>,
    dial: Arc<dyn Dial>,
}

/// A workload of this node, and the connection that it opened.
#[derive(Clone, Debug)]
struct Client {
    local: Arc<Registration>,
    id: SpiffeId,
    /// Its own end.
    address: SocketAddr,
    /// What it dialled.
    dialled: SocketAddr,
    source: Arc<Peer>,
}

/// The caller's end of a captured connection.
trait Downstream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes the coming close a reset, so that the caller cannot take it for an end.
    fn reset(&self);
}

impl Downstream for TcpStream {
    fn reset(&self) {
        if let Err(error) = rustix::net::sockopt::set_socket_linger(self, Some(Duration::ZERO)) {
            tracing::debug!(%error, "a refused connection is closed without a reset");
        }
    }
}

impl<S: Downstream> Downstream for Rewind<S> {
    fn reset(&self) {
        self.get_ref().reset();
    }
}

#[cfg(test)]
impl Outbound {
    /// One that reaches everything on loopback, by its port.
    pub(crate) fn on_loopback(shared: Arc<Shared>) -> Arc<Self> {
        struct Loopback;
        impl Dial for Loopback {
            fn dial(&self, _: dial::From, to: SocketAddr) -> dial::Dialling {
                Box::pin(async move {
                    let stream = TcpStream::connect(("127.0.0.1", to.port())).await?;
                    Ok(Box::new(stream) as Box<dyn dial::Io>)
                })
            }
        }
        Arc::new(Self::new(shared, Arc::new(Loopback)))
    }
}

impl Outbound {
    fn new(shared: Arc<Shared>, dial: Arc<dyn Dial>) -> Self {
        Self {
            shared,
            pool: Arc::new(Pool::default()),
            routes: Routes::default(),
            turns: Turns::default(),
            keeps: true,
            load: Load::default(),
            open: Load::default(),
            dial,
        }
    }

    /// A new snapshot: what is believed may have changed, and endpoints may be gone.
    fn follow(&self) {
        self.routes.clear();
        if let Some(index) = self.shared.store.current() {
            self.pool.follow(&index);
            if !self.turns.is_empty() {
                let known = pool::known(&index);
                self.turns.follow(|address| known.contains(&address));
            }
        }
    }

    /// Drops what nobody has used for long.
    fn sweep(&self) {
        self.routes.clear();
        self.pool.sweep();
        self.sweep_turns();
    }

    async fn taken(
        self: Arc<Self>,
        _carried: Carried,
        stream: TcpStream,
        client: SocketAddr,
        known: std::io::Result<(u32, SocketAddr)>,
    ) {
        let _ = stream.set_nodelay(true);
        match known {
            Ok((mark, dialled)) => {
                let local = self.shared.locals.by_mark(mark).await;
                self.carry(stream, local, client, dialled).await;
            }
            Err(error) => tracing::debug!(%error, "a captured connection was gone before it was looked at"),
        }
    }

    /// Carries one connection, whatever it turns out to be.
    async fn carry(
        self: Arc<Self>,
        stream: impl Downstream,
        local: Option<Arc<Registration>>,
        address: SocketAddr,
        dialled: SocketAddr,
    ) {
        let address = canonical(address);
        let dialled = canonical(dialled);
        let mut record = Record::connection(&self.shared.telemetry, address, dialled);
        let client = match self.admit(&mut record, local, address, dialled) {
            Ok(client) => client,
            Err(reason) => {
                stream.reset();
                return record.refuse(reason);
            }
        };
        let Ok(_share) = self.share(&client) else {
            stream.reset();
            return record.refuse(Reason::LimitReached);
        };
        // Registered before it is decided. As long as it is not known to be TCP there is nothing to close: each request
        // has an entry of its own.
        let kept = Arc::new(Kept::new(&client.local.namespace, client.dialled, None).of(&client.local));
        let Ok(entry) = self.register(&kept) else {
            stream.reset();
            return record.refuse(Reason::LimitReached);
        };
        let (index, destination) = match self.look_up(&client, Claim::Nothing).await {
            Ok(found) => found,
            Err(reason) => {
                stream.reset();
                return record.refuse(reason);
            }
        };
        let asker = index.asker(&client.local.namespace, Some(&client.local.uid));
        let read = plan::reading(&destination, &index, asker, dialled.port());
        let http10 = index.mesh().http10;
        drop(index);
        let sniffed = tokio::select! {
            sniffed = plan::sniff(stream, read, http10) => sniffed,
            reason = entry.closed() => return record.refuse(reason),
        };
        match sniffed {
            Ok((stream, Spoken::Http)) => self.http(record, client, stream, http10).await,
            Ok((stream, Spoken::Bytes)) => self.stream(record, client, &kept, &entry, stream).await,
            Ok((stream, Spoken::Named(sni))) => {
                kept.names(sni);
                self.stream(record, client, &kept, &entry, stream).await;
            }
            Ok((stream, Spoken::Refused(reason, why))) => {
                stream.reset();
                record.message(why);
                record.refuse(reason);
            }
            Err(error) => record.gone(&error.to_string()),
        }
    }

    /// Says whether the proxy can carry anything of the workload whose connection it is.
    fn admit(
        &self,
        record: &mut Record,
        local: Option<Arc<Registration>>,
        address: SocketAddr,
        dialled: SocketAddr,
    ) -> Result<Client, Reason> {
        let local = local.ok_or(Reason::UnknownWorkload)?;
        let id = local.identity.clone().ok_or(Reason::UnknownWorkload)?;
        let index = self.shared.store.current().ok_or(Reason::NotReady)?;
        let source = event::caller(&index, &local, &id, address);
        record.source(&source);
        if !self.shared.identities.ready(&id) {
            return Err(Reason::NotReady);
        }
        // There a workload would be the proxy itself, which may read its own pages.
        let own = self
            .shared
            .config
            .metrics
            .iter()
            .any(|page| canonical(*page) == dialled);
        if own || plan::is_capture_port(dialled.port()) {
            return Err(Reason::CapturePort);
        }
        Ok(Client {
            local,
            id,
            address,
            dialled,
            source,
        })
    }

    /// Counts one more thing that a workload has open.
    fn share(&self, client: &Client) -> Result<Loaded<u32>, Reason> {
        let mark = client.local.mark;
        if self.open.of(mark) >= MAX_OPEN_OF_ONE {
            return Err(Reason::LimitReached);
        }
        Ok(self.open.add(mark))
    }

    /// Takes a place in the registry for what goes where `kept` says, or will say.
    fn register(&self, kept: &Arc<Kept>) -> Result<Entry, Reason> {
        let kept = Arc::clone(kept);
        let shared = Arc::downgrade(&self.shared);
        self.shared.registry.register(move |index| {
            let lacks = Lacks::default();
            let checked = kept.check(|| kept.find(index, &lacks));
            if lacks.is_empty() {
                return checked;
            }
            // What is open stays until it is known that it may not; from now on it will be told.
            if let Some(shared) = shared.upgrade() {
                shared.demand.want(&shared.store, &lacks.into_names());
            }
            Ok(())
        })
    }

    /// Finds where a request goes that names `authority`, and takes a place in the registry before that is decided.
    async fn route(
        &self,
        client: &Client,
        authority: &str,
        now: Instant,
    ) -> Result<(Arc<Index>, Arc<Route>, Entry), Reason> {
        let asked = (client.local.mark, client.dialled, Text::from(authority));
        let known = self.routes.get(&asked, now);
        if let Some(route) = known.filter(|route| route.kept.is_of(&client.local)) {
            let entry = self.register(&route.kept)?;
            // What comes into force from now on asks the entry; what came before is to be the one that decided.
            if let Some(index) = self.shared.store.current().filter(|index| route.is_by(index)) {
                return Ok((index, route, entry));
            }
        }
        let kept = Kept::new(&client.local.namespace, client.dialled, Some(asked.2.clone()));
        let kept = Arc::new(kept.of(&client.local));
        let entry = self.register(&kept)?;
        let (index, destination) = self.decide(client, &kept).await?;
        let route = Route::new(&index, kept, destination, client.dialled.is_ipv6());
        let route = Arc::new(route);
        self.routes.keep(asked, &route);
        Ok((index, route, entry))
    }

    /// Looks up where a connection, or a request, goes that claims that; asks the control plane for what is not known.
    ///
    /// # Errors
    /// It cannot be known: `NOT_READY`, `CONTROL_PLANE_AWAY` or `LIMIT_REACHED`.
    async fn look_up(
        &self,
        client: &Client,
        claim: Claim<'_>,
    ) -> Result<(Arc<Index>, Result<Destination, Reason>), Reason> {
        let Shared { store, demand, .. } = self.shared.as_ref();
        for _ in 0..MAX_ROUNDS {
            let index = store.current().ok_or(Reason::NotReady)?;
            let lacks = Lacks::default();
            let asker = index.asker(&client.local.namespace, Some(&client.local.uid));
            let found = index.find_outbound(asker, client.dialled, claim, &lacks);
            if lacks.is_empty() {
                return Ok((index, found));
            }
            demand
                .learn(store, client.local.mark, &lacks.into_names())
                .await?;
        }
        Err(Reason::LimitReached)
    }

    /// Decides where a connection or a request goes, by what `kept` says that it claims; afterwards the registry's check holds it
    /// to that.
    async fn decide(&self, client: &Client, kept: &Kept) -> Result<(Arc<Index>, Destination), Reason> {
        let claim = kept.claim();
        let (index, found) = self.look_up(client, claim).await?;
        let destination = found?;
        kept.decided(&destination);
        let (index, destination) = self.by_names(client, (index, destination), claim).await?;
        // What came into force between the two lines above has been asked about in vain.
        let is_newest = |now: &Arc<Index>| Arc::ptr_eq(now, &index);
        if !self.shared.store.current().as_ref().is_some_and(is_newest) {
            let (_, now) = self.look_up(client, claim).await?;
            kept.check(|| now)?;
        }
        Ok((index, destination))
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(model::canonical_ip(address.ip()), address.port())
}

#[cfg(test)]
mod tests;
