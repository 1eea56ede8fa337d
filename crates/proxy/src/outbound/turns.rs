//! Connections to other proxies of ours that are kept for the same caller's next TCP connection ([`turn`]).
//!
//! What one caller has opened nobody else ever uses: its identity and its address are part of the [`Key`], and so are who is
//! expected at the other end and the name that was asked for. One whose proofs a handshake would not repeat now
//! ([`identity::Standing`]) is closed instead of used again.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foldhash::HashMap;
use identity::{PeerIdentity, Standing};
use model::SpiffeId;
use tokio::time::Instant;

use super::answer::Failure;
use super::dial::{From, Io, Late, Link};
use super::hop::{Hop, Tls};
use super::{Client, Outbound};
use crate::relay::turn;

/// Connections of one key that are kept while nobody uses them.
const MAX_KEPT_OF_ONE: usize = 64;

/// Connections of all keys that are.
const MAX_KEPT: usize = 4096;

/// How long one is kept. The other end keeps it for longer.
const IDLE: Duration = Duration::from_secs(60);

/// How old a connection may be that takes a further turn: then keys are agreed anew.
const MAX_AGE: Duration = Duration::from_secs(600);

/// How long the other end may take to take a turn; then another connection is opened.
const TAKEN: Duration = Duration::from_secs(2);

/// The application protocols that are offered to whoever may be another proxy of ours (CM-15).
const ALPN: [&[u8]; 2] = [turn::ALPN, b"istio"];

/// What a connection must agree in to be used again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Key {
    caller: SpiffeId,
    from: From,
    to: SocketAddr,
    tls: Tls,
}

/// What is known of a connection that takes turns, besides its bytes.
#[derive(Debug)]
pub(super) struct Ticket {
    key: Key,
    standing: Standing,
    opened: Instant,
    peer: Option<PeerIdentity>,
    late: Late,
}

/// A connection between turns.
struct Kept {
    io: Box<dyn Io>,
    ticket: Ticket,
    since: Instant,
}

/// All of them.
#[derive(Default)]
pub(super) struct Turns(Mutex<Slots>);

#[derive(Default)]
struct Slots {
    by_key: HashMap<Key, Vec<Kept>>,
    count: usize,
}

impl Outbound {
    /// A connection for a caller's bytes: one that has carried others before, or a new one. With a ticket it may be used
    /// again after a clean end.
    ///
    /// # Errors
    /// None could be had, and not a byte of what is to be carried has left.
    pub(super) async fn link(
        &self,
        client: &Client,
        hop: &Hop,
        limit: Duration,
    ) -> Result<(Link, Option<Ticket>), Failure> {
        let Some(tls) = hop.tls.as_ref().filter(|tls| !tls.hbone && self.keeps) else {
            let alpn = [b"istio".as_slice()];
            return Ok((self.connect(client, hop, &alpn, limit).await?, None));
        };
        let key = Key {
            caller: client.id.clone(),
            from: Self::source(client, hop),
            to: hop.address,
            tls: tls.clone(),
        };
        while let Some(kept) = self.turns.take(&key) {
            let Some((mut io, ticket)) = self.usable(kept) else {
                continue;
            };
            if let Ok(Ok(())) = tokio::time::timeout(TAKEN, turn::ask(&mut io)).await {
                let link = Link {
                    io,
                    peer: ticket.peer.clone(),
                    alpn: None,
                    late: ticket.late.clone(),
                    standing: None,
                };
                return Ok((link, Some(ticket)));
            }
            // The other end has closed it, and most likely the others with it.
            self.turns.forget(&key);
        }
        let opened = Instant::now();
        let link = self.connect(client, hop, &ALPN, limit).await?;
        let takes = link.alpn.as_deref() == Some(turn::ALPN);
        let ticket = link.standing.clone().filter(|_| takes).map(|standing| Ticket {
            key,
            standing,
            opened,
            peer: link.peer.clone(),
            late: link.late.clone(),
        });
        Ok((link, ticket))
    }

    /// What of a kept connection may be used now.
    fn usable(&self, mut kept: Kept) -> Option<(Box<dyn Io>, Ticket)> {
        let fresh = kept.is_fresh(Instant::now()) && self.shared.identities.stands(&kept.ticket.standing);
        (fresh && turn::is_quiet(&mut kept.io)).then_some((kept.io, kept.ticket))
    }

    /// Keeps a connection whose turn is over.
    pub(super) fn keep(&self, ticket: Ticket, io: Box<dyn Io>) {
        if self.shared.identities.stands(&ticket.standing) {
            self.turns.keep(ticket, io);
        }
    }

    /// Drops what nobody would use.
    pub(super) fn sweep_turns(&self) {
        let now = Instant::now();
        self.turns.retain(|_, kept| {
            kept.is_fresh(now)
                && self.shared.identities.stands(&kept.ticket.standing)
                && turn::is_quiet(&mut kept.io)
        });
    }
}

impl Kept {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < IDLE
            && now.saturating_duration_since(self.ticket.opened) < MAX_AGE
    }
}

impl Turns {
    /// The one that was used last: it is the least likely to be closed by the other end just now.
    fn take(&self, key: &Key) -> Option<Kept> {
        self.with(|slots| {
            let kept = slots.by_key.get_mut(key)?.pop()?;
            slots.count = slots.count.saturating_sub(1);
            Some(kept)
        })
    }

    fn keep(&self, ticket: Ticket, io: Box<dyn Io>) {
        self.with(|slots| {
            if slots.count >= MAX_KEPT {
                return;
            }
            let own = slots.by_key.entry(ticket.key.clone()).or_default();
            if own.len() < MAX_KEPT_OF_ONE {
                own.push(Kept {
                    io,
                    ticket,
                    since: Instant::now(),
                });
                slots.count += 1;
            }
        });
    }

    fn forget(&self, key: &Key) {
        self.with(|slots| {
            let gone = slots.by_key.remove(key).map_or(0, |own| own.len());
            slots.count = slots.count.saturating_sub(gone);
        });
    }

    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.with(|slots| slots.count == 0)
    }

    /// Drops connections to addresses that nobody knows any more.
    pub(super) fn follow(&self, known: impl Fn(IpAddr) -> bool) {
        self.retain(|key, _| known(key.to.ip()));
    }

    fn retain(&self, stays: impl Fn(&Key, &mut Kept) -> bool) {
        self.with(|slots| {
            slots.by_key.retain(|key, own| {
                own.retain_mut(|kept| stays(key, kept));
                !own.is_empty()
            });
            slots.count = slots.by_key.values().map(Vec::len).sum();
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Slots) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests;
