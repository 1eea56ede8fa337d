//! Netlink: messages, attributes and a synchronous socket.
//!
//! Encoding and decoding are pure; only `Socket` talks to the kernel.

pub(crate) mod route;

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendmsg, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::{Error, sys};

/// The kernel fills at most 32 KiB per answer of a dump; an nflog batch may reach 64 KiB.
pub(crate) const RECEIVE_BUFFER: usize = 128 * 1024;
/// An answer is made while the request is sent; waiting longer means that it was lost.
const ANSWER_TIMEOUT_SECONDS: i64 = 5;
/// More messages than any dump here has; ends a loop that a confused kernel could keep alive.
const MAX_ANSWERS: usize = 1 << 20;

// libc has these as signed numbers of the wrong width.
pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const EXCL: u16 = 0x200;
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const APPEND: u16 = 0x800;

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const SOL_NETLINK: libc::c_int = 270;
const NETLINK_EXT_ACK: libc::c_int = 11;

/// A message under construction: header, then whatever is appended.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    /// An attribute outgrew its 16-bit length; the message must not be sent.
    too_long: bool,
}

impl Message {
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Self {
            bytes,
            too_long: false,
        }
    }

    /// Attributes without a header, to be put into a message later.
    pub(crate) fn fragment() -> Self {
        Self {
            bytes: Vec::new(),
            too_long: false,
        }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    pub(crate) fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let start = self.begin(kind);
        self.bytes.extend_from_slice(value);
        self.end(start);
        self
    }

    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let start = self.begin(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.end(start);
        self
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    pub(crate) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.begin(kind | NLA_F_NESTED);
        fill(self);
        self.end(start);
        self
    }

    /// Appends another's attributes.
    pub(crate) fn append(&mut self, other: &Self) -> &mut Self {
        self.bytes.extend_from_slice(&other.bytes);
        self.too_long |= other.too_long;
        self
    }

    pub(crate) fn want_ack(&mut self) {
        if let Some(flags) = u16_at(&self.bytes, 6) {
            put(&mut self.bytes, 6, &(flags | ACK).to_ne_bytes());
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The finished message.
    pub(crate) fn finish(mut self, sequence: u32) -> Result<Vec<u8>, Error> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(0);
        if self.too_long || length == 0 {
            return Err(Error::Invalid("a netlink message grew too long".to_owned()));
        }
        put(&mut self.bytes, 0, &length.to_ne_bytes());
        put(&mut self.bytes, 8, &sequence.to_ne_bytes());
        Ok(self.bytes)
    }

    fn begin(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn end(&mut self, start: usize) {
        match u16::try_from(self.bytes.len() - start) {
            Ok(length) => put(&mut self.bytes, start, &length.to_ne_bytes()),
            Err(_) => self.too_long = true,
        }
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// A received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) body: &'a [u8],
}

/// The messages in what one `recv` returned.  Ends at the first that does not fit.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let message = Received {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            body: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    })
}

/// The attributes in `bytes`, nested or not.  Ends at the first that does not fit.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & NLA_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The value of the first attribute of that kind.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(k, value)| (k == kind).then_some(value))
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A text attribute, without its closing zero.
pub(crate) fn text_of(value: &[u8]) -> Option<&str> {
    let end = value.iter().position(|&b| b == 0).unwrap_or(value.len());
    std::str::from_utf8(value.get(..end)?).ok()
}

/// What an error message says: nothing wrong, or the error and the kernel's explanation.
pub(crate) fn verdict(message: &Received<'_>) -> Option<Result<(), (Errno, String)>> {
    if message.kind != NLMSG_ERROR {
        return None;
    }
    let code = i32::from_ne_bytes(*message.body.first_chunk()?);
    if code == 0 {
        return Some(Ok(()));
    }
    let errno = Errno::from_raw(code.checked_neg().unwrap_or(libc::EIO));
    Some(Err((errno, explanation(message).unwrap_or_default())))
}

fn explanation(message: &Received<'_>) -> Option<String> {
    if message.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    // After the code comes the request: only its header when capped, else the whole of it.
    let request = if message.flags & NLM_F_CAPPED != 0 {
        HEADER
    } else {
        usize::try_from(u32_at(message.body, 4)?).ok()?
    };
    let rest = message.body.get(4 + request.checked_next_multiple_of(4)?..)?;
    Some(text_of(attribute(rest, NLMSGERR_ATTR_MSG)?)?.to_owned())
}

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    pub(crate) fn open(protocol: SockProtocol) -> Result<Self, Error> {
        let open = || -> io::Result<OwnedFd> {
            let fd = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                protocol,
            )?;
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
            // Without it errors lack their explanation, nothing more.
            let _ = sys::set_int(&fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
            let patience = TimeVal::seconds(ANSWER_TIMEOUT_SECONDS);
            setsockopt(&fd, sockopt::ReceiveTimeout, &patience)?;
            Ok(fd)
        };
        Ok(Self {
            fd: open().map_err(|e| Error::io("cannot open a netlink socket", e))?,
            sequence: 1,
            buffer: vec![0; RECEIVE_BUFFER],
        })
    }

    /// Makes room for a message of that size; the default is too small for large batches.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<(), Error> {
        let wanted = bytes.saturating_mul(2).max(1 << 18);
        // Without privileges over the whole machine the kernel clamps; sending then says so.
        setsockopt(&self.fd, sockopt::SndBufForce, &wanted)
            .or_else(|_| setsockopt(&self.fd, sockopt::SndBuf, &wanted))
            .map_err(|e| Error::io("cannot enlarge a netlink buffer", e))
    }

    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    pub(crate) fn send(&self, bytes: &[u8], operation: &str) -> Result<(), Error> {
        let to = NetlinkAddr::new(0, 0);
        let iov = [IoSlice::new(bytes)];
        sendmsg(self.fd.as_raw_fd(), &iov, &[], MsgFlags::empty(), Some(&to))
            .map(drop)
            .map_err(|e| Error::io(operation, e))
    }

    /// One `recv`, as raw bytes.
    pub(crate) fn receive(&mut self) -> io::Result<&[u8]> {
        let length = loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        Ok(self.buffer.get(..length).unwrap_or_default())
    }

    /// Sends a request and waits for its acknowledgement, or the end of its dump.  `each` sees the
    /// kind and body of every answer before that.
    pub(crate) fn request(
        &mut self,
        message: Message,
        operation: &str,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), Error> {
        let sequence = self.next_sequence();
        self.send(&message.finish(sequence)?, operation)?;
        for _ in 0..MAX_ANSWERS {
            let bytes = self.receive().map_err(|e| Error::io(operation, e))?;
            for answer in messages(bytes).filter(|m| m.sequence == sequence) {
                match verdict(&answer) {
                    Some(Ok(())) => return Ok(()),
                    Some(Err((errno, message))) => {
                        return Err(Error::Netlink {
                            operation: operation.to_owned(),
                            errno,
                            message,
                        });
                    }
                    None if answer.kind == NLMSG_DONE => return Ok(()),
                    None => each(answer.kind, answer.body),
                }
            }
        }
        Err(Error::Answer {
            operation: operation.to_owned(),
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
