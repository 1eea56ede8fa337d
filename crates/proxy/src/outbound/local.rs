//! Workloads of this very node: handed over inside the process, between two identities that are both the proxy's to
//! prove.

use std::net::SocketAddr;
use std::sync::Arc;

use meshward_http::{
    Abort, Fault, Handler, Protocol, Request, Response, ServeOptions, StatusCode, Upgrade, Version,
    take_upgrade,
};
use model::Reason;
use snapshot::Index;
use telemetry::{Peer, Wire};
use tokio::io::DuplexStream;

use super::answer::Failure;
use super::dial::Io;
use super::hop::Hop;
use super::{Client, Outbound};
use crate::inbound::{self, Callee, Caller};
use crate::relay::relay;
use crate::shared::{Shared, Stage};

/// Bytes that a connection within the process holds in each direction.
const BUFFER: usize = 64 * 1024;

/// Protocols that the callee's end of a TLS connection within the process takes.
const ALPN: [&[u8]; 3] = [b"istio-h2", b"istio-http/1.1", b"istio"];

/// How a hop is reached.
#[derive(Debug)]
pub(super) enum Way {
    /// By a call.
    Here(Box<Callee>),
    /// Over TLS, but inside the process: `local_tls`.
    Looped(Box<Callee>),
    /// Over the wire.
    Wire,
}

impl Outbound {
    pub(super) fn way(&self, index: &Index, hop: &Hop) -> Way {
        match inbound::callee(&self.shared, index, hop.address).map(Box::new) {
            None => Way::Wire,
            Some(callee) if self.shared.config.local_tls && hop.tls.is_some() => Way::Looped(callee),
            Some(callee) => Way::Here(callee),
        }
    }

    /// Who calls, as the callee is told. Where mutual TLS would have been spoken both ends are proven as by a
    /// handshake; where it would not, the caller is nobody, as over the wire.
    ///
    /// # Errors
    /// One end cannot be proven.
    pub(super) fn caller(&self, client: &Client, hop: &Hop, callee: &Callee) -> Result<Caller, Failure> {
        let Some(tls) = &hop.tls else {
            return Ok(Caller {
                peer: None,
                address: client.address,
                sni: None,
                wire: Wire::Plaintext,
                source: Arc::clone(&client.source),
            });
        };
        let identity = callee.local.identity.as_ref();
        if !identity.is_some_and(|id| tls.expected.contains(id)) {
            return Err(Failure::of(Reason::PeerIdentity)
                .because("the workload has not the identity that is expected"));
        }
        let peer = self.shared.identities.local_peer(&client.id);
        let peer = peer.map_err(|error| Failure::of(error.reason()).because(&error.to_string()))?;
        Ok(Caller {
            peer: Some(peer),
            address: client.address,
            sni: Some(Arc::clone(&tls.sni)).filter(|sni| !sni.is_empty()),
            wire: Wire::Local,
            source: Arc::clone(&client.source),
        })
    }
}

/// A connection to a workload of this node whose other end is accepted as one from the wire is.
pub(super) fn looped(shared: &Arc<Shared>, client: &Client, callee: Callee, offers: &[&[u8]]) -> Box<dyn Io> {
    let (near, far) = tokio::io::duplex(BUFFER);
    let (shared, address, source) = (Arc::clone(shared), client.address, Arc::clone(&client.source));
    // A caller that would have spoken HTTP/1.1 has an application that does.
    let restored = offers.contains(&&b"istio-http/1.1"[..]).then_some(Version::Http1);
    tokio::spawn(accept(shared, far, address, source, callee, restored));
    Box::new(near)
}

async fn accept(
    shared: Arc<Shared>,
    io: DuplexStream,
    address: SocketAddr,
    source: Arc<Peer>,
    callee: Callee,
    restored: Option<Version>,
) {
    let Some(id) = &callee.local.identity else { return };
    let accepted = match shared.identities.accept(id, io, &ALPN).await {
        Ok(accepted) => accepted,
        Err(error) => return tracing::debug!(%error, "a handshake within the process failed"),
    };
    let caller = Caller {
        peer: Some(accepted.peer),
        address,
        sni: accepted.sni.map(Arc::from),
        wire: Wire::MutualTls,
        source,
    };
    let protocol = match accepted.alpn.as_deref() {
        Some(b"istio-h2") => Protocol::Http2,
        Some(b"istio-http/1.1") => Protocol::Http1,
        _ => {
            let mut stream = accepted.stream;
            inbound::stream(&shared, &caller, &callee, &mut stream).await;
            return;
        }
    };
    let drain = shared.ending.reached(Stage::Draining);
    let handler = Arc::new(Requests {
        shared,
        caller,
        callee,
        restored,
    });
    let served =
        meshward_http::serve(accepted.stream, protocol, ServeOptions::default(), handler, drain).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection within the process broke");
    }
}

struct Requests {
    shared: Arc<Shared>,
    caller: Caller,
    callee: Callee,
    restored: Option<Version>,
}

impl Handler for Requests {
    async fn request(&self, request: Request) -> Result<Response, Abort> {
        let ours = request.extensions().get::<Upgrade>().cloned();
        let mut response =
            inbound::request(&self.shared, &self.caller, &self.callee, self.restored, request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(theirs) = take_upgrade(response.extensions_mut())
            && let Some(ours) = ours
        {
            // Both ends are watched where they lead to; what lies between ends with them.
            tokio::spawn(async move {
                if let (Ok(ours), Ok(theirs)) = tokio::join!(ours.wait(), theirs.wait()) {
                    relay(ours, theirs, std::future::pending()).await;
                }
            });
        }
        Ok(response)
    }

    fn refused(&self, fault: Fault) {
        tracing::debug!(%fault, "our own proxy sent a request that it does not take");
    }
}

#[cfg(test)]
mod tests {
    use super::super::hop::Tls;
    use super::super::tests::world::{World, address, pod, registration};
    use super::*;

    fn callee(account: &str) -> Callee {
        Callee {
            local: Arc::new(registration(account, "10.77.0.3")),
            workload: Arc::new(pod(account, "10.77.0.3", Some(account))),
            address: address("10.77.0.3:8080"),
            service: None,
            destination: Arc::default(),
        }
    }

    fn hop(expected: &[&str]) -> Hop {
        let id = |account: &&str| {
            format!("spiffe://cluster.local/ns/full/sa/{account}")
                .parse()
                .unwrap()
        };
        Hop {
            address: address("10.77.0.3:8080"),
            tls: Some(Tls {
                sni: Arc::from("outbound_.80_._.web.full.svc.cluster.local"),
                expected: expected.iter().map(id).collect(),
                hbone: false,
            }),
            inside: true,
        }
    }

    #[tokio::test]
    async fn both_ends_of_a_hand_over_are_proven() {
        let world = World::empty().await;
        let (outbound, client) = (world.outbound(), world.client());
        let caller = outbound.caller(&client, &hop(&["web"]), &callee("web")).unwrap();
        let peer = caller.peer.unwrap();
        assert_eq!(peer.id(), &client.id);
        assert_eq!((caller.wire, caller.address), (Wire::Local, client.address));
        assert_eq!(
            caller.sni.as_deref(),
            Some("outbound_.80_._.web.full.svc.cluster.local")
        );
        let refused = outbound.caller(&client, &hop(&["web"]), &callee("other"));
        assert_eq!(refused.unwrap_err().reason, Reason::PeerIdentity);
        let refused = outbound.caller(&client, &hop(&[]), &callee("web"));
        assert_eq!(refused.unwrap_err().reason, Reason::PeerIdentity);
    }

    #[tokio::test]
    async fn cm_07_plaintext_proves_nothing_inside_the_process_either() {
        let world = World::empty().await;
        let plaintext = Hop {
            tls: None,
            ..hop(&["web"])
        };
        let caller = world
            .outbound()
            .caller(&world.client(), &plaintext, &callee("web"))
            .unwrap();
        assert_eq!(
            (caller.peer, caller.sni, caller.wire),
            (None, None, Wire::Plaintext)
        );
    }

    #[tokio::test]
    async fn local_tls_proves_both_ends_by_a_handshake() {
        let world = World::empty().await;
        let (outbound, client) = (world.outbound(), world.client());
        for (expected, proven) in [("web", true), ("other", false)] {
            let io = looped(&outbound.shared, &client, callee("web"), &[b"istio-h2"]);
            let hop = hop(&[expected]);
            let link = outbound
                .secure(&client, hop.tls.as_ref(), io, &[b"istio-h2"])
                .await;
            assert_eq!(link.is_ok(), proven, "{expected}");
        }
    }
}
