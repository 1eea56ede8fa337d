//! Who may read the pages of a part: by the address that it comes from, since there is no TLS to prove anything.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use model::Cidr;

/// Refusals are told no more often than this, each time with their number.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Who may read. Whoever comes from the very address that it asks, or by loopback, is of the same machine and always may.
#[derive(Debug, Default)]
pub struct Guard {
    allow: Vec<Cidr>,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    /// Refusals that nothing was told of yet.
    untold: u64,
}

impl Guard {
    /// Those networks may read as well.
    pub fn new(allow: Vec<Cidr>) -> Self {
        Self {
            allow,
            told: Mutex::default(),
        }
    }

    /// Whether a connection from `peer` to `own` is answered.
    pub(super) fn admits(&self, peer: SocketAddr, own: SocketAddr) -> bool {
        let (peer, own) = (peer.ip().to_canonical(), own.ip().to_canonical());
        peer.is_loopback() || peer == own || self.allow.iter().any(|network| network.contains(peer))
    }

    /// Tells of a refusal, now or with those that follow.
    pub(super) fn refused(&self, peer: IpAddr, own: SocketAddr) {
        let Ok(mut told) = self.told.lock() else { return };
        told.untold += 1;
        if told.at.is_some_and(|at| at.elapsed() < TOLD_EVERY) {
            return;
        }
        told.at = Some(Instant::now());
        let number = std::mem::take(&mut told.untold);
        tracing::warn!(%peer, address = %own, number, "metrics are not for this address");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_machine_and_what_is_named_may_read() {
        let admits = |allow: &[&str], peer: &str, own: &str| {
            let guard = Guard::new(allow.iter().map(|network| network.parse().unwrap()).collect());
            guard.admits(
                SocketAddr::new(peer.parse().unwrap(), 40_000),
                own.parse().unwrap(),
            )
        };
        for (allow, peer, own, expect) in [
            (&[][..], "127.0.0.1", "127.0.0.1:15020", true),
            (&[], "192.168.77.10", "192.168.77.10:15020", true),
            (&[], "::ffff:192.168.77.10", "[::ffff:192.168.77.10]:15020", true),
            (&[], "fd77:ff::a", "[fd77:ff::a]:15020", true),
            (&[], "192.168.77.11", "192.168.77.10:15020", false),
            (&[], "10.77.0.2", "192.168.77.10:15020", false),
            (&["10.77.0.0/24"], "10.77.0.2", "192.168.77.10:15020", true),
            (&["10.77.0.0/24"], "::ffff:10.77.0.2", "192.168.77.10:15020", true),
            (&["10.77.0.0/24"], "10.77.1.2", "192.168.77.10:15020", false),
            (&["0.0.0.0/0", "::/0"], "2001:db8::1", "[fd77:ff::a]:15020", true),
        ] {
            assert_eq!(admits(allow, peer, own), expect, "{allow:?} {peer} {own}");
        }
    }
}
