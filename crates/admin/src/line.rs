//! Lines over a Unix socket, with file descriptors beside the first.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The longest line that is read or written, in bytes.
pub const MAX_LINE: usize = 32 * 1024 * 1024;

/// How many file descriptors may come with a request, or with an item of an answer.
pub const MAX_FDS: usize = 32;

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// Cuts what comes in into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    held: Vec<u8>,
    /// Up to here there is no line break.
    searched: usize,
    fds: Vec<OwnedFd>,
}

impl Lines {
    /// The next line without its break; `None` at the end. A last line without a break is an error: it was cut off.
    pub(crate) async fn next(&mut self, stream: &UnixStream) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(line) = self.take() {
                return Ok(Some(line));
            }
            if self.held.len() > MAX_LINE {
                let text = format!("a line is longer than {MAX_LINE} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            let read = stream
                .async_io(Interest::READABLE, || {
                    receive(stream.as_fd(), &mut self.held, &mut self.fds)
                })
                .await?;
            if read == 0 {
                return if self.held.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// The descriptors that came so far.
    pub(crate) fn take_fds(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.fds)
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let fresh = self.held.get(self.searched..)?;
        let Some(at) = fresh.iter().position(|b| *b == b'\n') else {
            self.searched = self.held.len();
            return None;
        };
        let rest = self.held.split_off(self.searched + at + 1);
        let mut line = std::mem::replace(&mut self.held, rest);
        line.pop();
        self.searched = 0;
        Some(line)
    }
}

fn receive(socket: BorrowedFd<'_>, held: &mut Vec<u8>, fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let before = held.len();
    held.resize(before + CHUNK, 0);
    let result = receive_into(socket, held.get_mut(before..).unwrap_or_default(), fds);
    held.truncate(before + result.as_ref().copied().unwrap_or(0));
    result
}

fn receive_into(socket: BorrowedFd<'_>, into: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(
        socket,
        &mut [IoSliceMut::new(into)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = part {
            fds.extend(came);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) || fds.len() > MAX_FDS {
        let text = format!("more than {MAX_FDS} file descriptors came at once");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(message.bytes)
}

/// Writes a line; the descriptors go with its first byte.
pub(crate) async fn send(stream: &UnixStream, mut line: Vec<u8>, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if line.len() >= MAX_LINE || fds.len() > MAX_FDS {
        let text = format!("a line may have {MAX_LINE} bytes and {MAX_FDS} file descriptors");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    line.push(b'\n');
    let mut done = 0;
    while let Some(rest) = line.get(done..).filter(|rest| !rest.is_empty()) {
        let with = if done == 0 { fds } else { &[] };
        done += stream
            .async_io(Interest::WRITABLE, || send_part(stream.as_fd(), rest, with))
            .await?;
    }
    Ok(())
}

fn send_part(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?)
}
