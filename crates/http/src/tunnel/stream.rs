//! The bytes of one tunnel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most bytes that are handed to the codec at once.
const MAX_WRITE: usize = 16 * 1024;

/// A stream of bytes within a connection. Dropped before both sides have ended it, it is a reset to the other side.
#[derive(Debug)]
pub struct Tunnel {
    recv: RecvStream,
    /// What has come and was not read yet.
    first: Bytes,
    send: Sending,
}

#[derive(Debug)]
enum Sending {
    /// It has been asked for, and not been answered.
    Asked(SendResponse<Bytes>),
    Open(SendStream<Bytes>),
    /// We have said that we have ended.
    Ended,
    /// It was refused, or broke.
    Broken,
}

impl Tunnel {
    pub(super) fn asked(recv: RecvStream, respond: SendResponse<Bytes>) -> Self {
        Self {
            recv,
            first: Bytes::new(),
            send: Sending::Asked(respond),
        }
    }

    pub(super) fn granted(recv: RecvStream, send: SendStream<Bytes>) -> Self {
        Self {
            recv,
            first: Bytes::new(),
            send: Sending::Open(send),
        }
    }

    /// Answers with a status instead of a tunnel. Nothing happens where it has been granted already.
    pub fn refuse(&mut self, status: StatusCode) {
        if let Sending::Asked(respond) = &mut self.send {
            let mut response = Response::new(());
            *response.status_mut() = status;
            // Where it fails there is nobody left to be told.
            let _ = respond.send_response(response, true);
            self.send = Sending::Broken;
        }
    }

    /// Grants it, where it has not been answered.
    fn grant(&mut self) -> io::Result<()> {
        if let Sending::Asked(respond) = &mut self.send {
            match respond.send_response(Response::new(()), false) {
                Ok(send) => self.send = Sending::Open(send),
                Err(error) => {
                    self.send = Sending::Broken;
                    return Err(broken(error));
                }
            }
        }
        Ok(())
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.grant()?;
        while self.first.is_empty() {
            match ready!(self.recv.poll_data(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(bytes)) => self.first = bytes,
                // RFC 9113, 8.1: the other side is content with what it has.
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let length = self.first.len().min(buffer.remaining());
        buffer.put_slice(self.first.get(..length).unwrap_or_default());
        self.first.advance(length);
        if self.first.is_empty() {
            self.first = Bytes::new();
        }
        // Only what was read makes room for more.
        let _ = self.recv.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.grant()?;
        let Sending::Open(send) = &mut self.send else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        send.reserve_capacity(bytes.len().min(MAX_WRITE));
        loop {
            return match ready!(send.poll_capacity(context)) {
                Some(Ok(0)) => continue,
                Some(Ok(room)) => {
                    let length = room.min(bytes.len()).min(MAX_WRITE);
                    let part = Bytes::copy_from_slice(bytes.get(..length).unwrap_or_default());
                    Poll::Ready(send.send_data(part, false).map(|()| length).map_err(broken))
                }
                Some(Err(error)) => Poll::Ready(Err(broken(error))),
                None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Whoever drives the connection writes.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.grant()?;
        if let Sending::Open(send) = &mut self.send {
            let ended = send.send_data(Bytes::new(), true).map_err(broken);
            self.send = if ended.is_ok() {
                Sending::Ended
            } else {
                Sending::Broken
            };
            return Poll::Ready(ended);
        }
        Poll::Ready(Ok(()))
    }
}

fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
    }
    let kind = match error.reason() {
        Some(Reason::NO_ERROR | Reason::CANCEL | Reason::STREAM_CLOSED) => io::ErrorKind::ConnectionReset,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
