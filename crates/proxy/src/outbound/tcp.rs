//! Connections that are not read: decided once, and carried as bytes.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use identity::sniff::{self, Sniff};
use meshward_http::Rewind;
use model::Reason;
use telemetry::{Progress, Wire};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::dial::Link;
use super::event::Record;
use super::hop::{self, Hop, Hops};
use super::local::{self, Way};
use super::plan::Kept;
use super::turns::Ticket;
use super::{Client, Downstream, Outbound, RETRIES};
use crate::inbound::{self, Callee};
use crate::registry::Entry;
use crate::relay::turn::Turn;
use crate::relay::{Relayed, relay};

/// The application protocol of connections that are not HTTP, within the process (CM-15).
const ALPN: [&[u8]; 1] = [b"istio"];

impl Outbound {
    pub(super) async fn stream<S: Downstream>(
        &self,
        mut record: Record,
        client: Client,
        kept: &Kept,
        entry: &Entry,
        stream: Rewind<S>,
    ) {
        let (index, destination) = match self.decide(&client, kept).await {
            Ok(decided) => decided,
            Err(reason) => {
                stream.reset();
                return record.refuse(reason);
            }
        };
        record.destination(&destination);
        let inbound = index
            .workload(&client.local.uid)
            .and_then(|workload| workload.inbound.as_ref());
        if let Some(inbound) = inbound {
            record.told(&inbound.telemetry);
        }
        let limit = std::time::Duration::from_millis(index.mesh().connect_timeout_ms);
        let hops = Hops::towards(&destination, client.dialled.is_ipv6());
        let mut tried = Vec::new();
        let mut last = None;
        loop {
            let next = match hops.next(&index, &destination, &tried, hop::random(), &self.load) {
                Ok(next) => next,
                Err(reason) => {
                    stream.reset();
                    return record.refuse(reason);
                }
            };
            let hop = &next.hop;
            // The same endpoint is not asked again: who opened the connection can do that itself.
            if let Some(failure) = last.take_if(|_| tried.contains(&hop.address)) {
                stream.reset();
                return record.failed(&failure);
            }
            let way = self.way(&index, hop);
            record.hop(hop, &next.peer, way.wire(hop));
            let _loaded = self.load.add(hop.address);
            let linked = match way {
                Way::Here(callee) => return self.here(record, &client, hop, &callee, entry, stream).await,
                Way::Looped(callee) => {
                    let io = local::looped(&self.shared, &client, *callee, &[b"istio"]);
                    let link = self.secure(&client, hop.tls.as_ref(), io, &ALPN).await;
                    link.map(|link| (link, None))
                }
                Way::Wire => tokio::select! {
                    linked = self.link(&client, hop, limit) => linked,
                    reason = entry.closed() => {
                        stream.reset();
                        return record.refuse(reason);
                    }
                },
            };
            match linked {
                Ok((link, ticket)) => return self.carried(record, link, ticket, entry, stream).await,
                Err(failure) if tried.len() < RETRIES => {
                    tried.push(hop.address);
                    last = Some(failure);
                }
                Err(failure) => {
                    stream.reset();
                    return record.failed(&failure);
                }
            }
        }
    }

    async fn here<S: Downstream>(
        &self,
        mut record: Record,
        client: &Client,
        hop: &Hop,
        callee: &Callee,
        entry: &Entry,
        stream: Rewind<S>,
    ) {
        let caller = match self.caller(client, hop, callee) {
            Ok(caller) => caller,
            Err(failure) => {
                stream.reset();
                return record.failed(&failure);
            }
        };
        if caller.peer.is_some()
            && let Some(id) = &callee.local.identity
        {
            record.proven(id);
        }
        let (mut stream, noted) = Noted::new(stream);
        record.opened(&stream.progress);
        let relayed = tokio::select! {
            relayed = inbound::stream(&self.shared, &caller, callee, &mut stream) => relayed,
            reason = entry.closed() => Relayed { sent: 0, received: 0, reason: Some(reason) },
        };
        record.sni(noted.sni());
        end(record, &relayed, &stream.inner);
    }

    async fn carried<S: Downstream>(
        &self,
        mut record: Record,
        link: Link,
        ticket: Option<Ticket>,
        entry: &Entry,
        stream: Rewind<S>,
    ) {
        if let Some(peer) = &link.peer {
            record.proven(peer.id());
        }
        let (mut stream, noted) = Noted::new(stream);
        record.opened(&stream.progress);
        let mut relayed = match ticket {
            None => relay(&mut stream, link.io, entry.closed()).await,
            Some(ticket) => {
                let mut turn = Turn::new(link.io);
                let relayed = relay(&mut stream, &mut turn, entry.closed()).await;
                // An end with a reason is not the connection's to outlive.
                if relayed.reason.is_none()
                    && let Some(io) = turn.over()
                {
                    self.keep(ticket, io);
                }
                relayed
            }
        };
        record.sni(noted.sni());
        if let Some(refusal) = link.late.refusal() {
            record.message(&format!("TLS error: {refusal}"));
            relayed.reason = Some(Reason::TlsHandshake);
        }
        end(record, &relayed, &stream.inner);
    }
}

/// Tells of the end. One that has a reason is a reset to the caller, who could take it for the other side's last word.
fn end(mut record: Record, relayed: &Relayed, stream: &impl Downstream) {
    record.received().store(relayed.sent, Ordering::Relaxed);
    match relayed.reason {
        None => record.carried(relayed.received),
        Some(reason) => {
            stream.reset();
            record.broken(reason, relayed.received);
        }
    }
}

impl Way {
    /// How that way is told of in events.
    pub(super) fn wire(&self, hop: &Hop) -> Wire {
        match (self, &hop.tls) {
            (_, None) => Wire::Plaintext,
            (Self::Here(_), Some(_)) => Wire::Local,
            (Self::Wire, Some(tls)) if tls.hbone => Wire::Hbone,
            (Self::Looped(_) | Self::Wire, Some(_)) => Wire::MutualTls,
        }
    }
}

/// The name that a caller's own TLS asks for, once its first bytes have gone by. Nothing waits for it.
#[derive(Clone, Default, Debug)]
struct Name(Arc<OnceLock<Option<String>>>);

impl Name {
    fn sni(&self) -> Option<&str> {
        self.0.get().and_then(Option::as_deref)
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Looks at the first bytes of a caller's stream as they go by, and counts all.
struct Noted<IO> {
    inner: IO,
    progress: Arc<Progress>,
    name: Name,
    first: Vec<u8>,
}

impl<IO> Noted<IO> {
    fn new(inner: IO) -> (Self, Name) {
        let name = Name::default();
        let noted = Self {
            inner,
            progress: Arc::default(),
            name: name.clone(),
            first: Vec::new(),
        };
        (noted, name)
    }

    fn look(&mut self, bytes: &[u8]) {
        if self.name.0.get().is_some() {
            return;
        }
        self.first.extend_from_slice(bytes);
        let sni = match sniff::client_hello(&self.first) {
            Sniff::NeedMore if self.first.len() < sniff::LIMIT => return,
            Sniff::ClientHello { sni, .. } => sni,
            Sniff::NeedMore | Sniff::NotTls => None,
        };
        self.first = Vec::new();
        let _ = self.name.0.set(sni);
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Noted<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let read = buffer.filled().get(before..).unwrap_or_default();
        self.progress
            .received
            .fetch_add(length(read.len()), Ordering::Relaxed);
        self.look(read);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Noted<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
        self.progress.sent.fetch_add(length(written), Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
