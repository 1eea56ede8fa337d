//! The cluster's DNS, and the only DNS that a workload in the mesh can ask.
//!
//! Who asks is known by the mark. [`answer`] is a pure function of the question, the asker's namespace and the snapshot;
//! what is not the cluster's goes to the configured servers, or is refused where there are none.

mod answer;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use capture::socket::{Datagram, UdpTproxy, capture_addresses, tproxy_listener};
use model::Reason;
use telemetry::{Decision, Event, EventKind, Peer, Reporter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::Registration;
use crate::shared::Shared;
use answer::{Asker, Verdict};

use answer::answer as reply_to;

/// Questions that are answered at once, over UDP and TCP together; more are dropped, and asked again by their clients.
const MAX_IN_FLIGHT: usize = 1024;
/// Connections that ask over TCP.
const MAX_CONNECTIONS: usize = 256;
/// The longest question over UDP, in bytes.
const MAX_DATAGRAM: usize = 4096;
/// How long a connection may stay without a question, and a server without an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Listens, and answers from then on; until told to drain.
///
/// # Errors
/// An address cannot be listened on.
pub(crate) fn start(shared: &Arc<Shared>, tasks: &mut JoinSet<Result<(), String>>) -> Result<(), String> {
    let dns = Arc::new(Dns::new(Arc::clone(shared)));
    for address in capture_addresses(capture::DNS_PORT) {
        let failed = |error: io::Error| format!("cannot listen on {address}: {error}");
        let listener = tproxy_listener(address).map_err(failed)?;
        let socket = UdpTproxy::bind(address).map_err(failed)?;
        let (stream, datagrams) = (Arc::clone(&dns), Arc::clone(&dns));
        tasks.spawn(async move {
            stream.serve(listener).await;
            std::future::pending().await
        });
        tasks.spawn(async move {
            datagrams.serve_datagrams(socket).await;
            std::future::pending().await
        });
    }
    Ok(())
}

/// Returns when the proxy is told to stop.
async fn told(mut draining: watch::Receiver<bool>) {
    let _ = draining.wait_for(|told| *told).await.map(|_| ());
}

/// The DNS of one node.
#[derive(Debug)]
struct Dns {
    shared: Arc<Shared>,
    in_flight: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl Dns {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }

    /// Answers what is asked over UDP, until told to drain.
    async fn serve_datagrams(self: Arc<Self>, socket: UdpTproxy) {
        let socket = Arc::new(socket);
        let mut draining = std::pin::pin!(told(self.shared.draining.clone()));
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let datagram = tokio::select! {
                received = socket.recv(&mut buffer) => match received {
                    Ok(datagram) => datagram,
                    Err(error) => {
                        tracing::debug!(%error, "a question could not be read");
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        continue;
                    }
                },
                () = &mut draining => return,
            };
            let Ok(place) = Arc::clone(&self.in_flight).try_acquire_owned() else {
                continue;
            };
            let question = buffer.get(..datagram.length).unwrap_or_default().to_vec();
            let (dns, socket) = (Arc::clone(&self), Arc::clone(&socket));
            tokio::spawn(async move {
                if let Some(reply) = dns.datagram(&datagram, &question).await
                    && let Err(error) = socket.reply(&datagram, &reply)
                {
                    tracing::debug!(%error, "an answer could not be sent");
                }
                drop(place);
            });
        }
    }

    async fn datagram(&self, datagram: &Datagram, question: &[u8]) -> Option<Vec<u8>> {
        let local = self.shared.locals.by_mark(datagram.mark).await;
        self.reply(local, datagram.source, question, false).await
    }

    /// Answers what is asked over TCP, until told to drain.
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut draining = std::pin::pin!(told(self.shared.draining.clone()));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut draining => return,
            };
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "accepting a question failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&self.connections).try_acquire_owned() else {
                continue;
            };
            let dns = Arc::clone(&self);
            tokio::spawn(async move {
                if let Err(error) = dns.connection(stream, client).await {
                    tracing::debug!(%error, "a connection with questions ended");
                }
                drop(place);
            });
        }
    }

    /// RFC 7766: questions one after the other, each with its length before it.
    async fn connection(&self, mut stream: TcpStream, client: SocketAddr) -> io::Result<()> {
        let mark = capture::socket::mark(&stream)?;
        let local = self.shared.locals.by_mark(mark).await;
        loop {
            let length = match tokio::time::timeout(PATIENCE, stream.read_u16()).await {
                Ok(Ok(length)) => length,
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(()),
            };
            let mut question = vec![0; usize::from(length)];
            tokio::time::timeout(PATIENCE, stream.read_exact(&mut question)).await??;
            let Some(reply) = self.reply(local.clone(), client, &question, true).await else {
                return Ok(());
            };
            let length = u16::try_from(reply.len()).map_err(|_| io::ErrorKind::InvalidData)?;
            stream.write_u16(length).await?;
            stream.write_all(&reply).await?;
            stream.flush().await?;
        }
    }

    async fn reply(
        &self,
        local: Option<Arc<Registration>>,
        client: SocketAddr,
        question: &[u8],
        stream: bool,
    ) -> Option<Vec<u8>> {
        let index = self.shared.store.current();
        let asker = local.as_ref().map(|r| Asker {
            namespace: &r.namespace,
            stream,
            forwards: !self.shared.config.dns_upstreams.is_empty(),
        })?;
        match reply_to(question, asker, index.as_deref()) {
            Verdict::Reply(reply) => Some(reply),
            Verdict::Refused(reply, name) => {
                if let Some(local) = &local {
                    self.refused(local, client, &name);
                }
                Some(reply)
            }
            Verdict::Forward => self.forward(question, stream).await,
            Verdict::Silence => None,
        }
    }

    /// Asks the configured servers, one after the other. A reply counts only if it is one to this very question.
    async fn forward(&self, question: &[u8], stream: bool) -> Option<Vec<u8>> {
        for server in &self.shared.config.dns_upstreams {
            let asked = tokio::time::timeout(PATIENCE, ask(*server, question, stream)).await;
            match asked {
                Ok(Ok(reply)) if answer::replies(question, &reply) => return Some(reply),
                Ok(Ok(_)) => tracing::debug!(%server, "a reply that was not asked for"),
                Ok(Err(error)) => tracing::debug!(%server, %error, "a name server failed"),
                Err(_) => tracing::debug!(%server, "a name server did not answer"),
            }
        }
        answer::failed(question)
    }

    fn refused(&self, local: &Registration, client: SocketAddr, name: &str) {
        let source = Arc::new(Peer {
            address: Some(client),
            namespace: local.namespace.as_str().into(),
            pod: local.pod.as_str().into(),
            principal: local.identity.clone(),
            ..Peer::default()
        });
        let mut event = Event::new(
            EventKind::Dns,
            Reporter::Source,
            SystemTime::now(),
            source,
            Arc::new(Peer::default()),
        );
        event.protocol = "dns";
        event.decision = Decision::Deny;
        event.reason = Some(Reason::EgressUnknown);
        event.message = Some(format!("`{name}` is not a name of the cluster").into());
        self.shared.telemetry.emit(event);
    }
}

/// From a port of its own each time, with the client's own id: both must be guessed to forge a reply.
async fn ask(server: SocketAddr, question: &[u8], stream: bool) -> io::Result<Vec<u8>> {
    if stream {
        let mut tcp = TcpStream::connect(server).await?;
        let length = u16::try_from(question.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        tcp.write_u16(length).await?;
        tcp.write_all(question).await?;
        let mut reply = vec![0; usize::from(tcp.read_u16().await?)];
        tcp.read_exact(&mut reply).await?;
        return Ok(reply);
    }
    let any: SocketAddr = if server.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut reply = vec![0; MAX_DATAGRAM];
    let length = socket.recv(&mut reply).await?;
    reply.truncate(length);
    Ok(reply)
}
