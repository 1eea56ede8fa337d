//! DNS: what workloads ask is answered here, whatever server they ask.
//!
//! Names of the cluster are answered from the snapshot ([`answer`]); others are asked of the servers of the
//! configuration ([`forward`]), or refused where there are none. Who asks is known by the mark of the interface, and
//! may ask so much and no more ([`askers`]). Before the first snapshot there is no answer but SERVFAIL.

mod answer;
mod askers;
mod forward;
mod names;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use capture::socket::{Datagram, UdpTproxy};
use model::Reason;
use telemetry::{Decision, Event, EventKind, Peer, Reporter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Registration;
use crate::shared::{Purpose, Shared, Stage};
use answer::{Asking, Outcome, Transport, answer};
use askers::{Askers, Turn};
pub(crate) use names::Names;

/// Questions to other servers that may be under way, of all workloads together.
const MAX_FORWARDED: usize = 512;

/// Connections that are served at once.
const MAX_CONNECTIONS: usize = 512;

/// How long a connection may stay without a whole question.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest question over UDP, bytes.
const MAX_DATAGRAM: usize = 4096;

/// How often something may turn out to be lacked before a question can be answered: an alias may lead to another.
const MAX_ROUNDS: usize = 12;

/// How long to wait before receiving again when the system refuses.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// What a workload of the namespace `default` is told over UDP, whatever its bytes; a name of the world outside is
/// answered by the same bytes, as if they came from there. Empty for what deserves no answer. For the fuzzers.
pub fn reply(query: &[u8], index: &snapshot::Index) -> Vec<u8> {
    let asking = Asking {
        namespace: "default",
        meshed: true,
    };
    match answer(query, asking, Some(index), Transport::Udp, true) {
        Outcome::Reply(bytes) | Outcome::Refused(bytes, _) => bytes,
        Outcome::Forward(forward) => match hickory_proto::op::Message::from_vec(query) {
            Ok(other) => forward.with(other),
            Err(_) => forward.failed(),
        },
        Outcome::Unknown(_, failed) => failed,
        Outcome::Ignored => Vec::new(),
    }
}

/// Listens at both capture addresses, over UDP and TCP.
///
/// # Errors
/// An address cannot be had.
pub(crate) fn start(shared: &Arc<Shared>, tasks: &mut JoinSet<Result<(), String>>) -> Result<(), String> {
    let server = Arc::new(Server {
        shared: Arc::clone(shared),
        askers: Askers::default(),
        forwarded: Semaphore::new(MAX_FORWARDED),
        connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
    });
    for address in capture::socket::capture_addresses(capture::DNS_PORT) {
        let taken = |error| format!("cannot take captured DNS at {address}: {error}");
        let socket = match shared.sockets.offered(Purpose::DnsUdp, address) {
            Some(socket) => UdpTproxy::of(socket),
            None => UdpTproxy::bind(address),
        }
        .map_err(taken)?;
        let kept = shared.sockets.keep(Purpose::DnsUdp, address, &socket);
        kept.map_err(taken)?;
        let listener = shared
            .sockets
            .listener(Purpose::Dns, address, capture::socket::tproxy_listener)
            .map_err(taken)?;
        until_handed_over(shared, tasks, Arc::clone(&server).udp(Arc::new(socket)));
        until_handed_over(shared, tasks, Arc::clone(&server).tcp(listener));
    }
    Ok(())
}

/// Takes questions from when the proxy is ready until another one takes them. The task stays, as all do.
fn until_handed_over(
    shared: &Shared,
    tasks: &mut JoinSet<Result<(), String>>,
    taking: impl Future<Output = Result<(), String>> + Send + 'static,
) {
    let handed_over = shared.ending.reached(Stage::HandedOver);
    let begin = shared.ending.reached(Stage::Running);
    tasks.spawn(async move {
        begin.await;
        tokio::select! {
            ended = taking => ended,
            () = handed_over => std::future::pending().await,
        }
    });
}

struct Server {
    shared: Arc<Shared>,
    askers: Askers,
    forwarded: Semaphore,
    connections: Arc<Semaphore>,
}

impl Server {
    async fn udp(self: Arc<Self>, socket: Arc<UdpTproxy>) -> Result<(), String> {
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let datagram = match socket.recv(&mut buffer).await {
                Ok(datagram) => datagram,
                Err(error) => {
                    tracing::debug!(%error, "receiving DNS failed");
                    tokio::time::sleep(ERROR_PAUSE).await;
                    continue;
                }
            };
            let Some(turn) = self.turn(datagram.mark, datagram.source) else {
                continue;
            };
            let query = buffer.get(..datagram.length).unwrap_or_default().to_vec();
            tokio::spawn(Arc::clone(&self).datagram(Arc::clone(&socket), datagram, query, turn));
        }
    }

    async fn datagram(
        self: Arc<Self>,
        socket: Arc<UdpTproxy>,
        datagram: Datagram,
        query: Vec<u8>,
        turn: Turn,
    ) {
        let Some(local) = self.asker(datagram.mark, datagram.source).await else {
            return;
        };
        if let Some(answer) = self.answer(&query, &local, datagram.source, Transport::Udp).await
            && let Err(error) = socket.reply(&datagram, &answer)
        {
            tracing::debug!(%error, "a DNS answer could not be sent");
        }
        drop(turn);
    }

    async fn tcp(self: Arc<Self>, listener: TcpListener) -> Result<(), String> {
        loop {
            let place = Arc::clone(&self.connections)
                .acquire_owned()
                .await
                .map_err(|error| error.to_string())?;
            match listener.accept().await {
                Ok((stream, source)) => {
                    let server = Arc::clone(&self);
                    tokio::spawn(async move {
                        if let Err(error) = server.connection(stream, source).await {
                            tracing::debug!(%error, "a DNS connection broke");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting DNS connections failed");
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            }
        }
    }

    async fn connection(&self, mut stream: TcpStream, source: SocketAddr) -> std::io::Result<()> {
        let mark = capture::socket::mark(&stream)?;
        // One of each workload's turns is the connection's: none can take all places.
        let Some(_turn) = self.turn(mark, source) else {
            return Ok(());
        };
        let Some(local) = self.asker(mark, source).await else {
            return Ok(());
        };
        loop {
            let Ok(query) = tokio::time::timeout(IDLE_TIMEOUT, read(&mut stream)).await else {
                return Ok(());
            };
            let Some(query) = query? else {
                return Ok(());
            };
            let Some(_turn) = self.turn(mark, source) else {
                return Ok(());
            };
            let Some(answer) = self.answer(&query, &local, source, Transport::Tcp).await else {
                return Ok(());
            };
            let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
            let bytes = [&length.to_be_bytes(), answer.as_slice()].concat();
            tokio::time::timeout(IDLE_TIMEOUT, stream.write_all(&bytes)).await??;
        }
    }

    fn turn(&self, mark: u32, source: SocketAddr) -> Option<Turn> {
        match self.askers.turn(mark) {
            Ok(turn) => Some(turn),
            Err(too_many) => {
                if too_many.first {
                    self.refused(
                        None,
                        source,
                        Reason::LimitReached,
                        "too many DNS questions at once",
                    );
                }
                None
            }
        }
    }

    /// Who asks; nobody is answered who is not known.
    async fn asker(&self, mark: u32, source: SocketAddr) -> Option<Arc<Registration>> {
        let local = self.shared.locals.by_mark(mark).await;
        if local.is_none() {
            let why = "a DNS question of nobody that is known";
            self.refused(None, source, Reason::UnknownWorkload, why);
        }
        local
    }

    async fn answer(
        &self,
        query: &[u8],
        local: &Registration,
        source: SocketAddr,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let upstreams = &self.shared.config.dns_upstreams;
        let Shared { store, demand, .. } = self.shared.as_ref();
        let mut rounds = 0;
        let outcome = loop {
            let outcome = {
                let index = store.current();
                let asking = Asking {
                    namespace: &local.namespace,
                    meshed: local.identity.is_some(),
                };
                answer(query, asking, index.as_deref(), transport, !upstreams.is_empty())
            };
            let Outcome::Unknown(names, failed) = outcome else {
                break outcome;
            };
            rounds += 1;
            let learned = match rounds {
                1..=MAX_ROUNDS => demand.learn(store, local.mark, &names).await,
                _ => Err(Reason::LimitReached),
            };
            if let Err(reason) = learned {
                let name = names.first().map(ToString::to_string).unwrap_or_default();
                let why = format!("`{name}` is not known, and the control plane cannot be asked");
                self.refused(Some(local), source, reason, &why);
                return Some(failed);
            }
        };
        match outcome {
            // What could not be put into bytes at all is no answer.
            Outcome::Reply(bytes) => (!bytes.is_empty()).then_some(bytes),
            Outcome::Ignored | Outcome::Unknown(..) => None,
            Outcome::Refused(bytes, name) => {
                let why =
                    format!("`{name}` is no name of the cluster, and no other DNS server is configured");
                self.refused(Some(local), source, Reason::EgressUnknown, &why);
                Some(bytes)
            }
            Outcome::Forward(forward) => {
                let Ok(_place) = self.forwarded.try_acquire() else {
                    return Some(forward.failed());
                };
                match forward::ask(upstreams, &forward.question).await {
                    Some(other) => {
                        if store
                            .current()
                            .is_some_and(|index| index.leads_by_name(&forward.question.name().to_ascii()))
                        {
                            self.shared.names.learn(&forward.question, &other);
                        }
                        Some(forward.with(other))
                    }
                    None => Some(forward.failed()),
                }
            }
        }
    }

    fn refused(&self, local: Option<&Registration>, source: SocketAddr, reason: Reason, why: &str) {
        let caller = Peer {
            address: Some(source),
            namespace: local.map(|l| l.namespace.as_str()).unwrap_or_default().into(),
            pod: local.map(|l| l.pod.as_str()).unwrap_or_default().into(),
            principal: local.and_then(|l| l.identity.clone()),
            ..Peer::default()
        };
        let mut event = Event::new(
            EventKind::Dns,
            Reporter::Source,
            SystemTime::now(),
            Arc::new(caller),
            Arc::default(),
        );
        event.protocol = "dns";
        event.port = 53;
        event.decision = Decision::Deny;
        event.reason = Some(reason);
        event.message = Some(why.into());
        self.shared.telemetry.emit(event);
    }
}

/// The next question; `None` at the end.
async fn read(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut query = vec![0; usize::from(length)];
    stream.read_exact(&mut query).await?;
    Ok(Some(query))
}
