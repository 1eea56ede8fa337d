//! TCP connections that follow one another on one connection of mutual TLS ([`turn`]): each is decided, dialled and told of as
//! one that came by itself.
//!
//! Before a further one is taken it is asked whether a handshake now would prove the same, and whether the port would still be
//! read so. Where not, the connection is closed, and the caller's proxy opens another one, which is then judged from the start.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use identity::{ServerStream, Standing};
use meshward_http::Rewind;
use model::MtlsMode;
use tokio::net::TcpStream;

use super::chain::{self, Chain, Inside};
use super::{Callee, Caller, callee_of, record, reset, sniff, tcp};
use crate::relay::turn::{self, Turn};
use crate::shared::{Shared, Stage};

/// How long a connection waits for its next turn: longer than callers keep theirs.
const IDLE: Duration = Duration::from_secs(90);

/// A connection on which turns are taken.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) caller: Caller,
    pub(super) callee: Callee,
    /// What it began with, by which it is read.
    pub(super) first: sniff::First,
    pub(super) standing: Standing,
}

impl Connection {
    /// Carries one after the other, until one does not end cleanly, the other end closes, or the proxy takes nothing new.
    pub(super) async fn serve(mut self, mut io: ServerStream<Rewind<TcpStream>>) {
        loop {
            let mut turn = Turn::new(io);
            let relayed = tcp::carry(&self.shared, &self.caller, &self.callee, &mut turn).await;
            if relayed.reason.is_some() {
                // Not everybody minds an end without `close_notify`.
                return reset(turn.get_ref().get_ref().0.get_ref().get_ref());
            }
            let Some(next) = turn.over() else { return };
            io = next;
            let asked = tokio::select! {
                asked = tokio::time::timeout(IDLE, turn::asked(&mut io)) => matches!(asked, Ok(Ok(true))),
                () = self.shared.ending.reached(Stage::Draining) => false,
            };
            if !asked || !self.stands().await || turn::take(&mut io).await.is_err() {
                return;
            }
        }
    }

    /// Whether the next turn may be taken here. What is known of both ends is brought up to date.
    async fn stands(&mut self) -> bool {
        let shared = &self.shared;
        if shared.ending.stage() >= Stage::Draining || !shared.identities.stands(&self.standing) {
            return false;
        }
        let was = &self.callee.local;
        let Some(local) = shared.locals.by_mark(was.mark).await else {
            return false;
        };
        if (&local.uid, &local.identity) != (&was.uid, &was.identity) {
            return false;
        }
        let client: SocketAddr = self.caller.address;
        shared
            .demand
            .learn_caller(&shared.store, local.mark, client.ip())
            .await;
        let Some(index) = shared.store.current() else {
            return false;
        };
        let address = self.callee.address;
        let own = |ip: &std::net::IpAddr| model::canonical_ip(*ip) == address.ip();
        if !local.addresses.iter().any(own) {
            return false;
        }
        let Some(callee) = callee_of(&index, local, address) else {
            return false;
        };
        let (mode, protocol) = callee
            .workload
            .inbound
            .as_ref()
            .map_or((MtlsMode::Strict, model::Protocol::Auto), |i| {
                i.port(address.port())
            });
        let chain = chain::select(mode, protocol, &self.first, index.mesh().http10);
        if chain != Chain::Mesh(Inside::Tcp) {
            return false;
        }
        let proven = self.caller.peer.as_ref().map(identity::PeerIdentity::id);
        self.caller.source = record::source(&index, client, proven);
        self.callee = callee;
        true
    }
}
