//! Connections that stop being HTTP (WebSocket).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Extensions;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The promise of a message that asked for an upgrade, or granted one.
#[derive(Clone, Debug)]
pub struct Upgrade(pub(crate) hyper::upgrade::OnUpgrade);

/// Why there was no upgrade.
#[derive(Debug, thiserror::Error)]
#[error("the connection was not upgraded: {0}")]
pub struct UpgradeError(#[source] hyper::Error);

/// The bytes after an upgrade.
#[derive(Debug)]
pub struct Upgraded(TokioIo<hyper::upgrade::Upgraded>);

/// Takes the promise out of a request that asks for an upgrade, or of a response that grants one.
pub fn take_upgrade(extensions: &mut Extensions) -> Option<Upgrade> {
    extensions
        .remove::<Upgrade>()
        .or_else(|| extensions.remove::<hyper::upgrade::OnUpgrade>().map(Upgrade))
}

impl Upgrade {
    /// Waits until the answer that grants the upgrade has gone by.
    ///
    /// # Errors
    /// The connection ended before.
    pub async fn wait(self) -> Result<Upgraded, UpgradeError> {
        let upgraded = self.0.await.map_err(UpgradeError)?;
        Ok(Upgraded(TokioIo::new(upgraded)))
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
