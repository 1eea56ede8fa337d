//! Sockets that stand for somebody else: TPROXY listeners, their original destinations, and
//! connections from a chosen address.
//!
//! Needs CAP_NET_RAW in the node's user namespace.  Sockets belong to the network namespace of the
//! thread that makes them.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, getsockname, getsockopt, recvmsg, sockopt,
};
use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use crate::sys;

/// Connections that wait to be accepted; more are refused by the kernel until some are taken.
const BACKLOG: i32 = 4096;
/// Not in libc for every target: deliver the packet's mark with each datagram.
const SO_RCVMARK: libc::c_int = 75;

/// Room for the original destination and the mark, several times over.
const CONTROL_BYTES: usize = 256;

/// How long a connection is silent before its other end is asked whether it is there, and again after [`ASKED_AGAIN`].
const ASKED_AFTER: Duration = Duration::from_mins(1);
/// See [`ASKED_AFTER`].
const ASKED_AGAIN: Duration = Duration::from_secs(10);
/// How long an other end may say nothing: not to a question whether it is there, not that it has got something, and not that
/// it takes anything of what waits for it. Then the connection is broken. Not much longer than it takes to notice, and not
/// shorter than a reader may stop to think.
pub const PEER_TIMEOUT: Duration = Duration::from_mins(2);

/// Has the kernel break the connection where the other end is gone without a word, or takes nothing, for [`PEER_TIMEOUT`].
/// What a listener is told holds for what it accepts.
///
/// # Errors
/// It is no socket of TCP.
pub fn notice_silence(socket: &impl AsFd) -> io::Result<()> {
    let seconds = |time: Duration| libc::c_int::try_from(time.as_secs()).unwrap_or(libc::c_int::MAX);
    let timeout = libc::c_int::try_from(PEER_TIMEOUT.as_millis()).unwrap_or(libc::c_int::MAX);
    sys::set_int(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    sys::set_int(socket, libc::SOL_TCP, libc::TCP_KEEPIDLE, seconds(ASKED_AFTER))?;
    sys::set_int(socket, libc::SOL_TCP, libc::TCP_KEEPINTVL, seconds(ASKED_AGAIN))?;
    sys::set_int(socket, libc::SOL_TCP, libc::TCP_USER_TIMEOUT, timeout)
}

/// The two loopback addresses at which captured flows of `port` arrive: listen on both.
pub fn capture_addresses(port: u16) -> [SocketAddr; 2] {
    [
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
    ]
}

/// A listener that takes captured TCP connections.  Accepted connections have the original
/// destination as their local address and the workload's mark.
///
/// # Errors
/// When the address is taken or the capability is missing.
pub fn tproxy_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = transparent(address.ip(), Type::STREAM)?;
    socket.set_reuse_address(true)?;
    notice_silence(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Where the client of a captured connection wanted to go.
///
/// # Errors
/// When the socket has no address.
pub fn original_dst(stream: &impl AsFd) -> io::Result<SocketAddr> {
    let name: SockaddrStorage = getsockname(stream.as_fd().as_raw_fd())?;
    socket_addr(&name).ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

/// The mark of a captured connection: that of the workload that is served, which is the client for
/// `OUTBOUND_PORT` and `DNS_PORT`, and the server for `INBOUND_PORT`.  Zero: not captured.
///
/// # Errors
/// When the descriptor is not a socket.
pub fn mark(stream: &impl AsFd) -> io::Result<u32> {
    Ok(getsockopt(&stream.as_fd(), sockopt::Mark)?)
}

/// A TCP connection to `destination` from the address `source` (any port), with a mark.
///
/// # Errors
/// As `connect(2)`.
pub async fn connect_from(source: IpAddr, mark: u32, destination: SocketAddr) -> io::Result<TcpStream> {
    let socket = transparent(destination.ip(), Type::STREAM)?;
    socket.set_mark(mark)?;
    notice_silence(&socket)?;
    // The port is chosen at `connect`, for the whole 4-tuple, and not at `bind` for the address alone.
    sys::set_int(&socket, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    TcpSocket::from_std_stream(socket.into())
        .connect(destination)
        .await
}

/// A connection from the proxy to an application in a mesh pod of this node: the only kind that the
/// node lets through.
///
/// # Errors
/// As `connect(2)`.
pub async fn connect_app(destination: SocketAddr) -> io::Result<TcpStream> {
    let source = crate::plan::app_source(destination.ip());
    connect_from(source, crate::PROXY_MARK, destination).await
}

/// A datagram that was on its way to somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The number of bytes in the buffer.
    pub length: usize,
    /// Who sent it.
    pub source: SocketAddr,
    /// Where it was to go; replies come from there.
    pub destination: SocketAddr,
    /// The workload's mark.  Zero: not captured.
    pub mark: u32,
}

/// A socket that takes captured datagrams.
#[derive(Debug)]
pub struct UdpTproxy {
    socket: UdpSocket,
}

impl UdpTproxy {
    /// Binds to `address`, usually one of `capture_addresses(DNS_PORT)`.
    ///
    /// # Errors
    /// When the address is taken or the capability is missing.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = transparent(address.ip(), Type::DGRAM)?;
        sys::set_int(&socket, libc::SOL_SOCKET, SO_RCVMARK, 1)?;
        if address.is_ipv4() {
            sys::set_int(&socket, libc::SOL_IP, libc::IP_RECVORIGDSTADDR, 1)?;
        } else {
            sys::set_int(&socket, libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR, 1)?;
        }
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Self { socket })
    }

    /// One that another process has bound so, and handed over.
    ///
    /// # Errors
    /// When it is no socket of UDP.
    pub fn of(socket: OwnedFd) -> io::Result<Self> {
        let socket = std::net::UdpSocket::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
        })
    }

    /// Waits for the next datagram.  One that is longer than `buffer` is cut.
    ///
    /// # Errors
    /// When the kernel reports one; the socket stays usable.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<Datagram> {
        loop {
            self.socket.readable().await?;
            let received = self
                .socket
                .try_io(Interest::READABLE, || receive(&self.socket, buffer));
            match received {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    /// Answers `request` from the address that it was sent to.
    ///
    /// # Errors
    /// As `sendto(2)`.
    pub fn reply(&self, request: &Datagram, bytes: &[u8]) -> io::Result<()> {
        let socket = transparent(request.destination.ip(), Type::DGRAM)?;
        socket.set_mark(request.mark)?;
        socket.set_reuse_address(true)?;
        socket.bind(&request.destination.into())?;
        let iov = [IoSlice::new(bytes)];
        socket.send_to_vectored(&iov, &request.source.into())?;
        Ok(())
    }
}

impl AsFd for UdpTproxy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn transparent(family: IpAddr, kind: Type) -> io::Result<Socket> {
    let domain = match family {
        IpAddr::V4(_) => Domain::IPV4,
        IpAddr::V6(_) => Domain::IPV6,
    };
    let socket = Socket::new(domain, kind.nonblocking().cloexec(), None)?;
    match family {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
        IpAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_ip_transparent_v6(true)?;
        }
    }
    Ok(socket)
}

/// Control messages have headers that are read in place.
#[repr(align(16))]
struct Control([u8; CONTROL_BYTES]);

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut iov = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut iov,
        Some(&mut control.0),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let mut destination = None;
    let mut mark = 0;
    for part in message.cmsgs()? {
        match part {
            ControlMessageOwned::Ipv4OrigDstAddr(a) => {
                let ip = Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr));
                destination = Some(SocketAddr::from((ip, u16::from_be(a.sin_port))));
            }
            ControlMessageOwned::Ipv6OrigDstAddr(a) => {
                let ip = Ipv6Addr::from(a.sin6_addr.s6_addr);
                destination = Some(SocketAddr::from((ip, u16::from_be(a.sin6_port))));
            }
            ControlMessageOwned::Unknown(other) if other.cmsg_header.cmsg_level == libc::SOL_SOCKET => {
                if let Some(bytes) = other.data_bytes.first_chunk() {
                    mark = u32::from_ne_bytes(*bytes);
                }
            }
            _ => {}
        }
    }
    let source = message.address.as_ref().and_then(socket_addr);
    match (source, destination) {
        (Some(source), Some(destination)) => Ok(Datagram {
            length: message.bytes,
            source,
            destination,
            mark,
        }),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

fn socket_addr(name: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = name.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    let v6 = name.as_sockaddr_in6()?;
    Some(SocketAddr::from((v6.ip().to_canonical(), v6.port())))
}
