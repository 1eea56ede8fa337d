//! Echo over TCP and UDP.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::Me;

/// What a server-first port says on accept, as Istio's does.
pub(crate) const BANNER: &[u8] = b"server-first-protocol\n";

/// Speaks first where asked; then, once the client has spoken, says who it is and sends all back.
pub(super) async fn tcp(mut stream: TcpStream, me: Arc<Me>, peer: SocketAddr, port: u16, first: bool) {
    if first && stream.write_all(BANNER).await.is_err() {
        return;
    }
    let mut buffer = vec![0; 16 * 1024];
    let mut introduced = false;
    loop {
        let n = match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => n,
            _ => break,
        };
        if !introduced && stream.write_all(me.lines(peer, port).as_bytes()).await.is_err() {
            return;
        }
        introduced = true;
        let Some(seen) = buffer.get(..n) else { break };
        if stream.write_all(seen).await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}

/// Sends each datagram back.
pub(super) async fn udp(me: Arc<Me>, port: u16) -> io::Result<()> {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (n, peer) = socket.recv_from(&mut buffer).await?;
        let mut answer = me
            .lines(SocketAddr::new(peer.ip().to_canonical(), peer.port()), port)
            .into_bytes();
        answer.extend_from_slice(buffer.get(..n).unwrap_or_default());
        // The asker may be gone already.
        let _ = socket.send_to(&answer, peer).await;
    }
}
