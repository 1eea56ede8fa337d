//! A synchronous netlink socket and the byte layout of its messages.
//!
//! Only what route and nf_tables messages need: nested attributes, one request with its acknowledgement,
//! one dump, and one atomic nf_tables batch. Every error names the operation that the kernel refused.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket};

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct NetlinkError {
    what: String,
    source: io::Error,
}

impl NetlinkError {
    pub(crate) fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { what: what.into(), source: source.into() }
    }

    /// The kernel's error number, 0 where there is none.
    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }
}

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// The most that one datagram from the kernel holds.
const BUFFER: usize = 256 * 1024;

/// Bytes of attributes, being written.
#[derive(Default, Debug, Clone)]
pub(crate) struct Attrs(pub(crate) Vec<u8>);

impl Attrs {
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.push(kind, value);
        self
    }

    fn push(&mut self, kind: u16, value: &[u8]) {
        // Attribute lengths are 16 bits; nothing we write comes near.
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        pad(&mut self.0);
    }

    pub(crate) fn u8(self, kind: u16, value: u8) -> Self {
        self.bytes(kind, &[value])
    }

    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(crate) fn be16(self, kind: u16, value: u16) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn be64(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut zero_ended = value.as_bytes().to_vec();
        zero_ended.push(0);
        self.bytes(kind, &zero_ended)
    }

    pub(crate) fn nested(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NLA_F_NESTED, &inner.0)
    }
}

fn pad(bytes: &mut Vec<u8>) {
    while !bytes.len().is_multiple_of(4) {
        bytes.push(0);
    }
}

/// Reads attributes; stops at the first that is malformed. Total.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (head, _) = bytes.split_first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & NLA_TYPE_MASK;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// One message from the kernel.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    kind: u16,
    seq: u32,
    pub(crate) body: &'a [u8],
}

/// Splits a datagram into messages; stops at the first that is malformed. Total.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let (head, _) = bytes.split_first_chunk::<16>()?;
        let len = usize::try_from(u32::from_ne_bytes([head[0], head[1], head[2], head[3]])).ok()?;
        let message = Message {
            kind: u16::from_ne_bytes([head[4], head[5]]),
            seq: u32::from_ne_bytes([head[8], head[9], head[10], head[11]]),
            body: bytes.get(16..len)?,
        };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// A netlink socket of the network namespace that the thread is in.
#[derive(Debug)]
pub(crate) struct Netlink {
    fd: OwnedFd,
    seq: u32,
}

impl Netlink {
    pub(crate) fn route() -> Result<Self, NetlinkError> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    pub(crate) fn netfilter() -> Result<Self, NetlinkError> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> Result<Self, NetlinkError> {
        let fail = |e: nix::Error| NetlinkError::new("open a netlink socket", e);
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).map_err(fail)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(fail)?;
        Ok(Self { fd, seq: 1 })
    }

    /// Sends one request and waits for its acknowledgement.
    pub(crate) fn request(&mut self, what: &str, kind: u16, flags: u16, body: &[u8]) -> Result<(), NetlinkError> {
        self.seq += 1;
        let seq = self.seq;
        self.send(what, &message(kind, NLM_F_REQUEST | NLM_F_ACK | flags, seq, body))?;
        self.acks(&[(seq, what.to_owned())])
    }

    /// Sends one request for all objects of a kind and hands each to `each`.
    pub(crate) fn dump(
        &mut self,
        what: &str,
        kind: u16,
        body: &[u8],
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<(), NetlinkError> {
        self.seq += 1;
        self.send(what, &message(kind, NLM_F_REQUEST | NLM_F_DUMP, self.seq, body))?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = self.receive(what, &mut buffer)?;
            for message in messages(buffer.get(..n).unwrap_or_default()) {
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return errno(&message).map_or(Ok(()), |e| Err(NetlinkError::new(what, e))),
                    _ => each(&message),
                }
            }
        }
    }

    /// Sends an atomic batch: all of it takes effect or nothing. Each part is (kind, flags, body, what it does).
    pub(crate) fn batch(&mut self, begin: &[u8], kinds: (u16, u16), parts: &[Part]) -> Result<(), NetlinkError> {
        let mut bytes = message(kinds.0, NLM_F_REQUEST, 0, begin);
        let mut waiting = Vec::with_capacity(parts.len());
        for part in parts {
            self.seq += 1;
            bytes.extend(message(part.kind, NLM_F_REQUEST | NLM_F_ACK | part.flags, self.seq, &part.body));
            waiting.push((self.seq, part.what.clone()));
        }
        bytes.extend(message(kinds.1, NLM_F_REQUEST, 0, begin));
        self.send("send a batch of rules", &bytes)?;
        self.acks(&waiting)
    }

    fn acks(&self, waiting: &[(u32, String)]) -> Result<(), NetlinkError> {
        let mut buffer = vec![0; BUFFER];
        let mut left = waiting.len();
        while left > 0 {
            let n = self.receive("wait for the kernel", &mut buffer)?;
            for message in messages(buffer.get(..n).unwrap_or_default()) {
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                let what = waiting.iter().find(|(seq, _)| *seq == message.seq).map(|(_, what)| what.as_str());
                if let Some(error) = errno(&message) {
                    return Err(NetlinkError::new(what.unwrap_or("a batch of rules"), error));
                }
                left -= 1;
            }
        }
        Ok(())
    }

    fn send(&self, what: &str, bytes: &[u8]) -> Result<(), NetlinkError> {
        let to = NetlinkAddr::new(0, 0);
        sendto(self.fd.as_raw_fd(), bytes, &to, MsgFlags::empty()).map(drop).map_err(|e| NetlinkError::new(what, e))
    }

    fn receive(&self, what: &str, buffer: &mut [u8]) -> Result<usize, NetlinkError> {
        recv(self.fd.as_raw_fd(), buffer, MsgFlags::empty()).map_err(|e| NetlinkError::new(what, e))
    }
}

/// One message of a batch.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) what: String,
}

fn message(kind: u16, flags: u16, seq: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 16);
    // A message that does not fit in 32 bits does not fit in memory either.
    out.extend_from_slice(&u32::try_from(body.len() + 16).unwrap_or(u32::MAX).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&seq.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(body);
    pad(&mut out);
    out
}

fn errno(message: &Message<'_>) -> Option<io::Error> {
    let code = i32::from_ne_bytes(*message.body.first_chunk()?);
    (code != 0).then(|| io::Error::from_raw_os_error(code.saturating_neg()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_come_back() {
        let inner = Attrs::default().u8(1, 7);
        let attrs = Attrs::default().text(3, "lo").nested(4, &inner).be32(5, 9);
        let read: Vec<_> = attributes(&attrs.0).collect();
        assert_eq!(read.iter().map(|(k, _)| *k).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(read[0].1, b"lo\0");
        assert_eq!(attributes(read[1].1).next(), Some((1, &[7_u8][..])));
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = attributes(&bytes).count();
            let _ = messages(&bytes).count();
        }
    }
}
