//! How often a stream below TLS is read and written when much is carried.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};

use super::*;

/// Counts calls that carried something: what would be system calls.
struct Counted {
    inner: DuplexStream,
    reads: Arc<AtomicU32>,
    writes: Arc<AtomicU32>,
}

fn counted(inner: DuplexStream) -> (Counted, Arc<AtomicU32>, Arc<AtomicU32>) {
    let (reads, writes) = (Arc::default(), Arc::default());
    let stream = Counted {
        inner,
        reads: Arc::clone(&reads),
        writes: Arc::clone(&writes),
    };
    (stream, reads, writes)
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(context, space);
        if read.is_ready() {
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
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
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        if written.is_ready() {
            self.writes.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_mebibyte_costs_few_reads_and_writes_below_tls() {
    const MIB: usize = 8;
    // Sixteen each of 64 KiB, and then what falls on a border.
    const MOST: u32 = 24;
    let root = signer("a");
    let bench = Bench::new(&root, Duration::from_secs(3600));
    let (store, (_dir, token)) = (store(&bench), token());
    store.set_roots(std::slice::from_ref(&root.pem)).unwrap();
    store.ensure(&id(), token.clone()).await.unwrap();
    let (near, far) = tokio::io::duplex(1024 * 1024);
    let (near, _, writes) = counted(near);
    let (far, reads, _) = counted(far);
    let (own, expected) = (id(), [id()]);
    let (connected, accepted) = tokio::join!(
        store.connect(&own, near, "x", &expected, &[]),
        store.accept(&own, far, &[])
    );
    let (mut near, mut far) = (connected.unwrap().stream, accepted.unwrap().stream);
    let shaken = [&reads, &writes].map(|count| count.swap(0, Ordering::Relaxed));
    assert!(shaken.iter().all(|count| (1..=8).contains(count)), "{shaken:?}");
    let sending = async {
        let chunk = vec![b'x'; 4 * 16 * 1024];
        for _ in 0..MIB * 16 {
            near.write_all(&chunk).await.unwrap();
        }
        near.shutdown().await.unwrap();
    };
    let receiving = async {
        let (mut chunk, mut got) = (vec![0; 4 * 16 * 1024], 0);
        while let read @ 1.. = far.read(&mut chunk).await.unwrap() {
            got += read;
        }
        got
    };
    let ((), got) = tokio::join!(sending, receiving);
    assert_eq!(got, MIB * 1024 * 1024);
    let most = MOST * u32::try_from(MIB).unwrap();
    let counts = [&reads, &writes].map(|count| count.load(Ordering::Relaxed));
    assert!(counts.iter().all(|count| *count <= most), "{counts:?} of {most}");
}
