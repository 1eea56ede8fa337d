//! Connections to endpoints: in the caller's name, and from its address.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use identity::{PeerIdentity, Standing, TlsError};
use model::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::answer::Failure;
use super::hop::{Hop, Tls};
use super::{Client, Outbound};

/// A stream of bytes.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// What [`Dial::dial`] returns.
pub(super) type Dialling = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send>>;

/// Whence a connection comes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum From {
    /// A pod's own address, so that the other side sees who calls.
    Pod {
        /// Its address of the family of what is dialled.
        address: IpAddr,
        /// Its mark.
        mark: u32,
    },
    /// The node's, for what is outside and could not answer to a pod.
    Node,
}

/// Opens TCP connections.
pub(super) trait Dial: Send + Sync + 'static {
    /// Opens one.
    fn dial(&self, from: From, to: SocketAddr) -> Dialling;
}

/// The system's.
#[derive(Debug)]
pub(super) struct Kernel;

impl Dial for Kernel {
    fn dial(&self, from: From, to: SocketAddr) -> Dialling {
        Box::pin(async move {
            let stream = match from {
                From::Pod { address, mark } => capture::socket::connect_from(address, mark, to).await?,
                From::Node => TcpStream::connect(to).await?,
            };
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

/// The system's, from whatever address it chooses: for workloads that have no link of their own.
#[derive(Debug)]
pub(super) struct Plain;

impl Dial for Plain {
    fn dial(&self, _: From, to: SocketAddr) -> Dialling {
        Kernel.dial(From::Node, to)
    }
}

/// A connection that stands.
pub(super) struct Link {
    pub(super) io: Box<dyn Io>,
    /// Who answered, proven; `None` for plaintext.
    pub(super) peer: Option<PeerIdentity>,
    /// The application protocol that was agreed.
    pub(super) alpn: Option<Vec<u8>>,
    /// The refusal of our certificate, once it has come (O-16).
    pub(super) late: Late,
    /// What the proofs rest on; `None` for plaintext.
    pub(super) standing: Option<Standing>,
}

/// Where a refusal that comes after the handshake is kept.
#[derive(Clone, Default, Debug)]
pub(super) struct Late(Arc<OnceLock<String>>);

impl Late {
    /// The peer's refusal, if it came.
    pub(super) fn refusal(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

impl Outbound {
    /// Whence a workload's connection to a hop comes.
    pub(super) fn source(client: &Client, hop: &Hop) -> From {
        let of_family = |ip: &&IpAddr| ip.is_ipv6() == hop.address.is_ipv6();
        match client.local.addresses.iter().find(of_family) {
            Some(address) if hop.inside => From::Pod {
                address: *address,
                mark: client.local.mark,
            },
            _ => From::Node,
        }
    }

    /// Opens a connection to a hop.
    ///
    /// # Errors
    /// Nothing stands, and not a byte of what is to be carried has left.
    pub(super) async fn connect(
        &self,
        client: &Client,
        hop: &Hop,
        alpn: &[&[u8]],
        limit: Duration,
    ) -> Result<Link, Failure> {
        if let Some(tls) = hop.tls.as_ref().filter(|tls| tls.hbone) {
            let tunnel = tokio::time::timeout(limit, self.tunnel(client, hop, tls, limit));
            return tunnel
                .await
                .unwrap_or_else(|_| Err(Failure::unreachable(Reason::Timeout, "no answer in time")));
        }
        let io = self.open(client, hop, hop.address, limit).await?;
        self.secure(client, hop.tls.as_ref(), io, alpn).await
    }

    /// Opens a TCP connection in the caller's name.
    pub(super) async fn open(
        &self,
        client: &Client,
        hop: &Hop,
        to: SocketAddr,
        limit: Duration,
    ) -> Result<Box<dyn Io>, Failure> {
        let dialled = self.dial.dial(Self::source(client, hop), to);
        match tokio::time::timeout(limit, dialled).await {
            Ok(Ok(io)) => Ok(io),
            Ok(Err(error)) => Err(Failure::refused(&error)),
            Err(_) => Err(Failure::unreachable(Reason::Timeout, "no answer in time")),
        }
    }

    /// Begins mutual TLS on a stream where it is asked for.
    pub(super) async fn secure(
        &self,
        client: &Client,
        tls: Option<&Tls>,
        io: Box<dyn Io>,
        alpn: &[&[u8]],
    ) -> Result<Link, Failure> {
        let Some(tls) = tls else {
            return Ok(Link {
                io,
                peer: None,
                alpn: None,
                late: Late::default(),
                standing: None,
            });
        };
        let identities = &self.shared.identities;
        let connected = identities
            .connect(&client.id, io, &tls.sni, &tls.expected, alpn)
            .await
            .map_err(|error| Failure::unreachable(error.reason(), &format!("TLS error: {error}")))?;
        let late = Late::default();
        let io = Watched {
            inner: connected.stream,
            late: late.clone(),
        };
        Ok(Link {
            io: Box::new(io),
            peer: Some(connected.peer),
            alpn: connected.alpn,
            late,
            standing: Some(connected.standing),
        })
    }
}

/// Keeps the alert with which a peer refuses our certificate: whoever reads next would only see a broken connection.
struct Watched<IO> {
    inner: IO,
    late: Late,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = std::task::ready!(Pin::new(&mut self.inner).poll_read(context, buffer));
        if let Err(error) = &read
            && let Some(refusal) = TlsError::late(error)
        {
            let _ = self.late.0.set(refusal.to_string());
        }
        Poll::Ready(read)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
