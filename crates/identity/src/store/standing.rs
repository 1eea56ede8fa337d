//! Whether what two ends have proven to each other would be proven again now.

use model::SpiffeId;

use super::{Configs, Store};
use crate::tls::PeerIdentity;

/// What the two proofs of a connection rest on: the own certificate, what was believed, and how long the peer's chain is good.
/// A connection that is kept for somebody else's bytes than those it was opened for is asked for it anew.
#[derive(Clone, Debug)]
pub struct Standing {
    own: SpiffeId,
    /// SHA-256 of the own leaf.
    leaf: [u8; 32],
    /// The version of what was believed.
    trust: u64,
    /// The last second of the peer's chain, Unix seconds.
    until: i64,
}

impl Standing {
    pub(super) fn of(own: &SpiffeId, configs: &Configs, peer: &PeerIdentity) -> Self {
        Self {
            own: own.clone(),
            leaf: configs.leaf,
            trust: configs.trust.version,
            until: peer.until(),
        }
    }
}

impl Store {
    /// Whether a handshake now would show the same certificate, believe by the same roots, revocation lists and trust domains,
    /// and find neither end's certificate expired.
    pub fn stands(&self, standing: &Standing) -> bool {
        self.shared.trust.load().version == standing.trust
            && self.shared.now() <= standing.until
            && self
                .current(&standing.own)
                .is_ok_and(|current| current.peer.leaf_sha256() == &standing.leaf)
    }
}
