//! The link to the control plane: mutual TLS between the node's identity and exactly one other.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use identity::{ClientStream, TokenFile};
use model::SpiffeId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use xds::client::Connect;

use super::trust::Trust;
use crate::shared::{Shared, Standing};

/// What is spoken over TLS.
const ALPN: [&[u8]; 1] = [b"h2"];

/// How the control plane is reached.
pub(super) struct Control {
    pub(super) address: SocketAddr,
    /// Who must be at the other end.
    pub(super) expected: SpiffeId,
    /// Who we are.
    pub(super) own: SpiffeId,
    pub(super) token: TokenFile,
    pub(super) identities: identity::Store,
    pub(super) standing: Arc<Standing>,
}

/// Keeps the snapshot up to date for ever; whom peers are verified against changes with it.
pub(super) async fn follow(shared: Arc<Shared>, control: Control, trust: Arc<Trust>) -> Result<(), String> {
    let options = xds::client::Options {
        interest: shared.demand.interest(),
        ..xds::client::Options::new(&shared.config.node, random)
    };
    let apply = move |resources, version| {
        shared
            .store
            .swap_with(&resources, version, |index| trust.follow(index))
            .inspect(|()| tracing::info!(version, resources = resources.len(), "a snapshot is in force"))
    };
    match xds::client::run(options, control, apply).await {}
}

/// From 0 to 1; 0 where the system gives no random numbers.
fn random() -> f64 {
    let mut bytes = [0; 2];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return 0.0;
    }
    f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX)
}

impl Connect for Control {
    type Io = Heard<ClientStream<TcpStream>>;

    async fn connect(&mut self) -> Result<(Self::Io, String), String> {
        self.identities
            .ensure(&self.own, self.token.clone())
            .await
            .map_err(|error| format!("no certificate of my own: {error}"))?;
        let token = self.token.read().map_err(|error| error.to_string())?;
        let stream = TcpStream::connect(self.address)
            .await
            .map_err(|error| format!("{}: {error}", self.address))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let expected = std::slice::from_ref(&self.expected);
        let connected = self
            .identities
            .connect(&self.own, stream, "", expected, &ALPN)
            .await
            .map_err(|error| format!("{}: {error}", self.address))?;
        self.standing.control(true);
        let io = Heard {
            inner: connected.stream,
            standing: Arc::clone(&self.standing),
        };
        Ok((io, token.to_string()))
    }
}

/// Notes when something was heard.
pub(super) struct Heard<IO> {
    inner: IO,
    standing: Arc<Standing>,
}

impl<IO> Drop for Heard<IO> {
    fn drop(&mut self) {
        self.standing.control(false);
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Heard<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.standing.control(true);
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Heard<IO> {
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
}
