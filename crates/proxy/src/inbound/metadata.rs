//! Istio's TCP metadata exchange (`istio-peer-exchange`): what a sidecar tells of itself before a connection's own bytes.
//!
//! It is agreed to only with a peer that offers nothing else of the mesh's. What the peer tells is dropped: who it is, its
//! certificate proves. It is answered with an empty telling, since a sidecar holds a short answer back until it has one; a
//! peer that tells nothing is told nothing, and not a byte of it is lost.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The application protocol that stands for it.
pub(super) const ALPN: &[u8] = b"istio-peer-exchange";

/// Bytes that a peer may tell of itself; more break the connection.
const MAX_METADATA: u32 = 64 * 1024;

/// How it begins; then comes its length, four bytes, the highest first.
const MAGIC: [u8; 4] = [0x3d, 0x23, 0x04, 0x67];
const HEADER: usize = 8;

/// What is told to a peer: a `google.protobuf.Any` of an empty `google.protobuf.Struct`.
const NOTHING: [u8; 52] =
    *b"\x3d\x23\x04\x67\x00\x00\x00\x2c\x0a\x2atype.googleapis.com/google.protobuf.Struct";

/// A stream without what its peer tells of itself.
#[derive(Debug)]
pub(super) struct Told<IO> {
    inner: IO,
    state: State,
    /// How much of [`NOTHING`] has been written; all of it where nothing is to be.
    answered: usize,
    /// Whether bytes of the connection's own have been written.
    begun: bool,
}

#[derive(Debug)]
enum State {
    /// So many bytes of the header have been seen.
    Looking([u8; HEADER], usize),
    /// So many bytes are still to be dropped.
    Dropping(usize),
    /// These bytes were no header and are to be read again, from the first number to the second.
    Through([u8; HEADER], usize, usize),
}

impl<IO> Told<IO> {
    /// A stream that may begin with it.
    pub(super) fn new(inner: IO) -> Self {
        Self {
            inner,
            state: State::Looking([0; HEADER], 0),
            answered: NOTHING.len(),
            begun: false,
        }
    }

    /// The stream below.
    pub(super) fn get_ref(&self) -> &IO {
        &self.inner
    }
}

impl<IO: AsyncRead + Unpin> Told<IO> {
    /// Reads until what was told is over, or known never to come.
    fn poll_told(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.state {
                State::Looking(seen, count) => {
                    let mut space = ReadBuf::new(seen.get_mut(*count..).unwrap_or_default());
                    ready!(Pin::new(&mut self.inner).poll_read(context, &mut space))?;
                    let read = space.filled().len();
                    *count += read;
                    let begun = seen.iter().zip(&MAGIC).take(*count).all(|(a, b)| a == b);
                    if read == 0 || !begun {
                        self.state = State::Through(*seen, 0, *count);
                        return Poll::Ready(Ok(()));
                    }
                    if *count == HEADER {
                        let [_, _, _, _, length @ ..] = *seen;
                        let length = u32::from_be_bytes(length);
                        if length > MAX_METADATA {
                            let why = "more metadata than is taken";
                            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
                        }
                        self.state = State::Dropping(usize::try_from(length).unwrap_or(usize::MAX));
                    }
                }
                State::Dropping(0) => {
                    self.state = State::Through([0; HEADER], 0, 0);
                    // What has begun without it must not have it in the middle.
                    if !self.begun {
                        self.answered = 0;
                    }
                    return Poll::Ready(Ok(()));
                }
                State::Dropping(left) => {
                    let mut scratch = [0; 1024];
                    let most = scratch.len().min(*left);
                    let mut space = ReadBuf::new(scratch.get_mut(..most).unwrap_or_default());
                    ready!(Pin::new(&mut self.inner).poll_read(context, &mut space))?;
                    match space.filled().len() {
                        0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                        read => *left = left.saturating_sub(read),
                    }
                }
                State::Through(..) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<IO: AsyncWrite + Unpin> Told<IO> {
    /// Writes what of the answer is still to be written.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = NOTHING.get(self.answered..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.inner).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.answered = self.answered.saturating_add(written),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Told<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_told(context))?;
        if let State::Through(seen, from, to) = &mut self.state
            && let Some(left) = seen.get(*from..*to).filter(|left| !left.is_empty())
        {
            let length = left.len().min(buffer.remaining());
            buffer.put_slice(left.get(..length).unwrap_or_default());
            *from += length;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Told<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_answer(context))?;
        self.begun = true;
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn telling(length: u32, metadata: &[u8]) -> Vec<u8> {
        [&MAGIC[..], &length.to_be_bytes(), metadata].concat()
    }

    async fn read(parts: &[&[u8]]) -> io::Result<Vec<u8>> {
        let (mut peer, ours) = duplex(256 * 1024);
        let mut told = Told::new(ours);
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            told.read_to_end(&mut all).await.map(|_| all)
        });
        for part in parts {
            // It may have been refused already: the reader says so.
            if peer.write_all(part).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(peer);
        reading.await.unwrap()
    }

    #[tokio::test]
    async fn what_a_sidecar_tells_of_itself_is_dropped_and_nothing_else() {
        let header = telling(5, b"12345");
        for cut in 0..header.len() {
            let (head, tail) = header.split_at(cut);
            assert_eq!(read(&[head, tail, b"hello"]).await.unwrap(), b"hello", "{cut}");
        }
        assert_eq!(read(&[&telling(0, b""), b"x"]).await.unwrap(), b"x");
        for plain in [
            &b""[..],
            b"=",
            b"=#",
            b"PING\n",
            b"=#\x04h and more",
            b"GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(read(&[plain]).await.unwrap(), plain);
        }
        let most = usize::try_from(MAX_METADATA).unwrap();
        let long = telling(MAX_METADATA, &vec![7; most]);
        assert_eq!(read(&[&long, b"x"]).await.unwrap(), b"x");
        assert!(read(&[&telling(MAX_METADATA + 1, b"")]).await.is_err());
        assert!(read(&[&telling(10, b"cut")]).await.is_err());
    }

    proptest! {
        #[test]
        fn whatever_does_not_begin_with_a_header_is_read_as_it_is(
            bytes in proptest::collection::vec(prop_oneof![Just(0x3d), Just(0x23), Just(4), any::<u8>()], 0..40),
            cut in 0_usize..40,
        ) {
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let got = runtime.block_on(read(&[head, tail]));
            if bytes.starts_with(&MAGIC) && bytes.len() >= HEADER {
                let length = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
                let rest = bytes.get(HEADER + usize::try_from(length).unwrap()..);
                prop_assert_eq!(got.ok(), rest.map(<[u8]>::to_vec));
            } else {
                prop_assert_eq!(got.ok(), Some(bytes));
            }
        }
    }

    #[tokio::test]
    async fn who_tells_is_told_and_who_does_not_is_not() {
        for (first, expect) in [
            (telling(1, b"?"), [&NOTHING[..], b"+OK"].concat()),
            (b"?".to_vec(), b"+OK".to_vec()),
        ] {
            let (mut peer, ours) = duplex(1024);
            let mut told = Told::new(ours);
            peer.write_all(&first).await.unwrap();
            peer.write_all(b"!").await.unwrap();
            told.read_u8().await.unwrap();
            told.write_all(b"+OK").await.unwrap();
            drop(told);
            let mut all = Vec::new();
            peer.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, expect);
        }
        // A server that speaks first has begun.
        let (mut peer, ours) = duplex(1024);
        let mut told = Told::new(ours);
        told.write_all(b"220 ").await.unwrap();
        peer.write_all(&[telling(1, b"?"), b"!".to_vec()].concat())
            .await
            .unwrap();
        assert_eq!(told.read_u8().await.unwrap(), b'!');
        told.write_all(b"+OK").await.unwrap();
        drop(told);
        let mut all = String::new();
        peer.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "220 +OK");
    }
}
