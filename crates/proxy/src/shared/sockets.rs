//! What a proxy listens on: taken over from another one where there is one, and kept to be handed on.
//!
//! A socket outlives the process that made it as long as anybody holds it: connections that come while nobody takes them
//! wait in it. So a proxy that takes another one's place asks it for its sockets, and both take from them until the other
//! is told to leave; and whoever starts proxies may hold them for the next one.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use admin::verbs::Listening;
use rustix::net::{SocketType, sockopt};
use tokio::net::TcpListener;

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    Outbound,
    Inbound,
    Dns,
    DnsUdp,
    Metrics,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Dns => "dns",
            Self::DnsUdp => "dns-udp",
            Self::Metrics => "metrics",
        }
    }
}

/// Sockets that another process has offered.
#[derive(Debug, Default)]
pub(crate) struct Offer(Vec<(Listening, OwnedFd)>);

impl Offer {
    /// What came by an answer. Descriptors without a label, and labels without one, are nothing.
    pub(crate) fn new(labels: Vec<Listening>, sockets: Vec<OwnedFd>) -> Self {
        Self(labels.into_iter().zip(sockets).collect())
    }

    /// Whether nothing was offered.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The sockets of a proxy.
#[derive(Default)]
pub(crate) struct Sockets {
    offered: Mutex<Offer>,
    kept: Mutex<Vec<(Listening, OwnedFd)>>,
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sockets")
            .field("kept", &locked(&self.kept).len())
            .finish_non_exhaustive()
    }
}

impl Sockets {
    /// Prefers what is offered to making anew.
    pub(crate) fn of(offer: Offer) -> Self {
        Self {
            offered: Mutex::new(offer),
            kept: Mutex::default(),
        }
    }

    /// A listener at an address: the one that is offered, or what `bind` makes.
    ///
    /// # Errors
    /// `bind`'s, or the descriptor cannot be copied.
    pub(crate) fn listener(
        &self,
        purpose: Purpose,
        address: SocketAddr,
        bind: impl FnOnce(SocketAddr) -> io::Result<TcpListener>,
    ) -> io::Result<TcpListener> {
        let listener = match self.offered(purpose, address) {
            Some(socket) => TcpListener::from_std(std::net::TcpListener::from(socket))?,
            None => bind(address)?,
        };
        self.keep(purpose, address, &listener)?;
        Ok(listener)
    }

    /// What is offered for that, where it is what it says to be: of the right type, at that address, and listening.
    pub(crate) fn offered(&self, purpose: Purpose, address: SocketAddr) -> Option<OwnedFd> {
        let mut offered = locked(&self.offered);
        let wanted =
            |(label, _): &(Listening, OwnedFd)| label.purpose == purpose.as_str() && label.address == address;
        let at = offered.0.iter().position(wanted)?;
        let (_, socket) = offered.0.swap_remove(at);
        match fits(&socket, purpose, address) {
            Ok(true) => Some(socket),
            Ok(false) => {
                tracing::warn!(%address, purpose = purpose.as_str(), "what was offered is no such socket");
                None
            }
            Err(error) => {
                tracing::warn!(%address, %error, "what was offered cannot be looked at");
                None
            }
        }
    }

    /// Keeps a copy to be handed on.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub(crate) fn keep(&self, purpose: Purpose, address: SocketAddr, socket: &impl AsFd) -> io::Result<()> {
        let copy = socket.as_fd().try_clone_to_owned()?;
        let label = Listening {
            purpose: purpose.as_str().to_owned(),
            address,
        };
        locked(&self.kept).push((label, copy));
        Ok(())
    }

    /// What is listened on, with copies of the descriptors.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub(crate) fn copies(&self) -> io::Result<(Vec<Listening>, Vec<OwnedFd>)> {
        let kept = locked(&self.kept);
        let labels = kept.iter().map(|(label, _)| label.clone()).collect();
        let sockets = kept.iter().map(|(_, socket)| socket.try_clone());
        Ok((labels, sockets.collect::<io::Result<_>>()?))
    }

    /// Lets go of what is kept and of what was offered and not used.
    pub(crate) fn release(&self) {
        locked(&self.kept).clear();
        locked(&self.offered).0.clear();
    }
}

fn fits(socket: &OwnedFd, purpose: Purpose, address: SocketAddr) -> io::Result<bool> {
    let kind = match purpose {
        Purpose::DnsUdp => SocketType::DGRAM,
        _ => SocketType::STREAM,
    };
    if sockopt::socket_type(socket)? != kind {
        return Ok(false);
    }
    let at = SocketAddr::try_from(rustix::net::getsockname(socket)?).ok();
    let listens = kind == SocketType::DGRAM || sockopt::socket_acceptconn(socket)?;
    rustix::io::ioctl_fionbio(socket, true)?;
    Ok(at == Some(address) && listens)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(address: SocketAddr) -> io::Result<TcpListener> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }

    /// The sockets of one that listens somewhere for `purpose`, and where.
    fn one(purpose: Purpose) -> (Sockets, SocketAddr) {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let sockets = Sockets::default();
        sockets.keep(purpose, address, &listener).unwrap();
        (sockets, address)
    }

    fn offer(of: &Sockets) -> Offer {
        let (labels, sockets) = of.copies().unwrap();
        Offer::new(labels, sockets)
    }

    fn never(_: SocketAddr) -> io::Result<TcpListener> {
        panic!("it is offered")
    }

    #[tokio::test]
    async fn what_is_offered_is_listened_on_by_both() {
        let (first, address) = one(Purpose::Inbound);
        let second = Sockets::of(offer(&first));
        let listener = second.listener(Purpose::Inbound, address, never).unwrap();
        // The one who made it has gone, and a connection that comes finds it all the same.
        first.release();
        let (client, accepted) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        assert_eq!(client.unwrap().local_addr().unwrap(), accepted.unwrap().1);
        // And the second hands it on.
        assert_eq!(second.copies().unwrap().0.len(), 1);
    }

    #[tokio::test]
    async fn connections_wait_while_nobody_takes_them() {
        let (first, address) = one(Purpose::Outbound);
        let held = offer(&first);
        drop(first);
        let waits = tokio::net::TcpStream::connect(address).await.unwrap();
        let next = Sockets::of(held);
        let listener = next.listener(Purpose::Outbound, address, never).unwrap();
        assert_eq!(listener.accept().await.unwrap().1, waits.local_addr().unwrap());
    }

    #[tokio::test]
    async fn what_is_not_what_it_says_is_not_used() {
        let (other, address) = one(Purpose::Dns);
        let elsewhere = "127.0.0.1:1".parse().unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let label = |purpose: Purpose, address| Listening {
            purpose: purpose.as_str().to_owned(),
            address,
        };
        let at_udp = udp.local_addr().unwrap();
        let (_, mut sockets) = other.copies().unwrap();
        sockets.push(udp.into());
        let labels = vec![
            label(Purpose::Inbound, elsewhere),
            label(Purpose::Outbound, at_udp),
        ];
        let offered = Sockets::of(Offer::new(labels, sockets));
        for (purpose, address) in [
            (Purpose::Dns, address),
            (Purpose::Inbound, elsewhere),
            (Purpose::Outbound, at_udp),
        ] {
            assert!(offered.offered(purpose, address).is_none(), "{purpose:?}");
        }
    }
}
