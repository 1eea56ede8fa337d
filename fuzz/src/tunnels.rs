//! A whole connection of HBONE: HTTP/2, and in it wishes for tunnels.

use std::future::pending;
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meshward_http::{Connect, StatusCode, Tunnels, serve_tunnels};
use tokio::io::AsyncWriteExt;

/// Echoes every second tunnel, and refuses the others.
#[derive(Default)]
struct Echo {
    asked: AtomicUsize,
    nowhere: AtomicUsize,
}

impl Tunnels for Echo {
    async fn connect(&self, asked: Connect) {
        let mut tunnel = asked.tunnel;
        if asked.authority.as_str().is_empty() {
            self.nowhere.fetch_add(1, Ordering::Relaxed);
        }
        if self.asked.fetch_add(1, Ordering::Relaxed) % 2 == 1 {
            return tunnel.refuse(StatusCode::FORBIDDEN);
        }
        let (mut read, mut write) = tokio::io::split(tunnel);
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    }

    fn refused(&self, why: &'static str) {
        assert!(!why.is_empty());
    }
}

/// # Panics
/// The connection outlives its bytes, or a tunnel leads nowhere.
pub(crate) fn run(input: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let Ok(runtime) = runtime else { return };
    let echo = Arc::new(Echo::default());
    let io = tokio::io::join(Cursor::new(input.to_vec()), tokio::io::sink());
    let serving = serve_tunnels(io, Arc::clone(&echo), pending());
    let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), serving).await });
    assert!(ended.is_ok(), "the connection outlives its bytes");
    assert_eq!(
        echo.nowhere.load(Ordering::Relaxed),
        0,
        "a tunnel that leads nowhere"
    );
}
