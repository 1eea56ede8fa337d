//! The reports of dropped packets (nflog), as the rules of `node` send them.
//!
//! Reports are rate-limited at the source: they explain, the counters of `node::drops` count.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::SockProtocol;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::netlink::{ACK, Message, REQUEST, Socket, attribute, messages, text_of};
use crate::node::DropReason;
use crate::{Error, NFLOG_GROUP};

/// The most reports kept from one read; the kernel never sends nearly as many at once.
const MAX_WAITING: usize = 4096;
/// Bytes of a packet that are asked for: the longest IPv4 header, or an IPv6 one, and the ports.
const HEAD_BYTES: u32 = 96;
/// A report leaves the kernel as soon as it is made; by default it may wait for a second.
const THRESHOLD: u32 = 1;
/// In hundredths of a second; for a kernel that batches all the same.
const TIMEOUT: u32 = 1;

const SUBSYSTEM: u16 = 4 << 8;
const PACKET: u16 = 0;
const CONFIG: u16 = 1;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// One dropped packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Why it was dropped.
    pub reason: DropReason,
    /// The index of the link that it came by, or was to leave by; 0 when the kernel names none.
    pub interface: u32,
    /// The mark of the pod that it is about: its sender, or the one that it was meant for.
    /// Below `FIRST_POD_MARK`: no pod's.
    pub mark: u32,
    /// What the head of the packet says; none for anything but IPv4 and IPv6, or when cut short.
    pub packet: Option<Packet>,
}

/// What the head of an IP packet says.  Its sender wrote it: believe the mark, not this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// IANA's protocol number, or that of the first IPv6 extension header.
    pub protocol: u8,
    /// Source and destination port of TCP and UDP; none in later fragments.
    pub ports: Option<(u16, u16)>,
    /// The length of the whole packet in bytes, with its IP header, as the header states it.
    pub length: u32,
}

/// The reports of one network namespace.  There is one reader at a time.
#[derive(Debug)]
pub struct Reports {
    socket: AsyncFd<Socket>,
    waiting: VecDeque<Report>,
    lost: u64,
}

impl Reports {
    /// Starts reading the reports of the calling thread's network namespace (a node's).
    /// Needs CAP_NET_ADMIN in it, and a tokio runtime.
    ///
    /// # Errors
    /// When somebody else reads them (EBUSY), or the capability is missing.
    pub fn open() -> Result<Self, Error> {
        let mut socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
        socket.request(configuration(), "cannot read the reports of drops", |_, _| {})?;
        let nonblocking = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
        let unready = |e| Error::io("cannot wait for reports of drops", e);
        fcntl(&socket, nonblocking).map_err(|e| unready(io::Error::from(e)))?;
        #[expect(unsafe_code, reason = "tokio cannot know that the descriptor stays the same")]
        // SAFETY: `Socket` owns its open descriptor, which nothing replaces or closes before it is
        // dropped, and always names that one.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self {
            socket: registered.map_err(|e| unready(e.into()))?,
            waiting: VecDeque::new(),
            lost: 0,
        })
    }

    /// Waits for the next report.  May be cancelled without losing any.
    ///
    /// # Errors
    /// When the socket fails for good.
    pub async fn next(&mut self) -> Result<Report, Error> {
        let failed = |e| Error::io("cannot read a report of a drop", e);
        loop {
            if let Some(report) = self.waiting.pop_front() {
                return Ok(report);
            }
            let mut ready = self.socket.readable_mut().await.map_err(failed)?;
            let read = ready.try_io(|socket| Ok(parse(socket.get_mut().receive()?)));
            match read {
                Ok(Ok(reports)) => self.waiting.extend(reports),
                // Reports came faster than they were read, and the kernel threw some away.
                Ok(Err(e)) if e.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    self.lost = self.lost.saturating_add(1);
                }
                Ok(Err(e)) => return Err(failed(e)),
                Err(_would_block) => {}
            }
        }
    }

    /// How many times reports were lost because they were not read in time.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

/// The reports in one netlink datagram, in order; what is no report of ours is passed over.
pub fn parse(datagram: &[u8]) -> Vec<Report> {
    messages(datagram)
        .filter(|m| m.kind == SUBSYSTEM | PACKET)
        .filter_map(|m| report(m.body))
        .take(MAX_WAITING)
        .collect()
}

fn configuration() -> Message {
    const BIND: u8 = 1;
    const COPY_PACKET: u8 = 2;
    let mut message = Message::new(SUBSYSTEM | CONFIG, REQUEST | ACK);
    let [high, low] = NFLOG_GROUP.to_be_bytes();
    let mut mode = HEAD_BYTES.to_be_bytes().to_vec();
    mode.extend_from_slice(&[COPY_PACKET, 0]);
    message
        .raw(&[0, 0, high, low])
        .attr(1, &[BIND])
        .attr(2, &mode)
        .be32(4, TIMEOUT)
        .be32(5, THRESHOLD);
    message
}

fn report(body: &[u8]) -> Option<Report> {
    const HEADER: usize = 4;
    let attributes = body.get(HEADER..)?;
    let number = |kind| Some(u32::from_be_bytes(*attribute(attributes, kind)?.first_chunk()?));
    let ethertype = attribute(attributes, 1).and_then(|header| header.first_chunk());
    let payload = attribute(attributes, 9).unwrap_or_default();
    Some(Report {
        reason: DropReason::parse(text_of(attribute(attributes, 10)?)?)?,
        interface: number(4).or_else(|| number(5)).unwrap_or(0),
        mark: number(2).unwrap_or(0),
        packet: match ethertype {
            Some([0x08, 0x00]) => packet_v4(payload),
            Some([0x86, 0xdd]) => packet_v6(payload),
            _ => None,
        },
    })
}

fn packet_v4(bytes: &[u8]) -> Option<Packet> {
    let header: &[u8; 20] = bytes.first_chunk()?;
    let [first, _, l0, l1, _, _, f0, f1, _, protocol, _, _, rest @ ..] = *header;
    let [s0, s1, s2, s3, d0, d1, d2, d3] = rest;
    if first >> 4 != 4 {
        return None;
    }
    let offset = u16::from_be_bytes([f0, f1]) & 0x1fff;
    let transport = bytes.get(usize::from(first & 0x0f) * 4..);
    Some(Packet {
        source: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
        destination: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
        protocol,
        ports: transport.filter(|_| offset == 0).and_then(|t| ports(protocol, t)),
        length: u32::from(u16::from_be_bytes([l0, l1])),
    })
}

fn packet_v6(bytes: &[u8]) -> Option<Packet> {
    const HEADER: u32 = 40;
    let (header, transport) = bytes.split_first_chunk::<40>()?;
    let ([first, _, _, _, l0, l1, protocol, _], addresses) = header.split_first_chunk()?;
    if first >> 4 != 6 {
        return None;
    }
    let (source, destination) = addresses.split_first_chunk::<16>()?;
    Some(Packet {
        source: IpAddr::V6(Ipv6Addr::from(*source)),
        destination: IpAddr::V6(Ipv6Addr::from(*destination.first_chunk::<16>()?)),
        protocol: *protocol,
        ports: ports(*protocol, transport),
        length: HEADER + u32::from(u16::from_be_bytes([*l0, *l1])),
    })
}

fn ports(protocol: u8, transport: &[u8]) -> Option<(u16, u16)> {
    if protocol != TCP && protocol != UDP {
        return None;
    }
    let [s0, s1, d0, d1] = *transport.first_chunk()?;
    Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn datagram(ethertype: [u8; 2], prefix: &str, payload: &[u8]) -> Vec<u8> {
        let mut message = Message::new(SUBSYSTEM | PACKET, 0);
        message
            .raw(&[5, 0, 0, 77])
            .attr(1, &[ethertype[0], ethertype[1], 0, 0])
            .text(10, prefix)
            .be32(2, 0x101)
            .be32(4, 7)
            .attr(9, payload);
        message.finish(0).unwrap()
    }

    /// UDP from 10.77.0.2:1000 to 1.2.3.4:9999, 60 bytes.
    const V4: [u8; 28] = [
        0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 77, 0, 2, 1, 2, 3, 4, 0x03, 0xe8, 0x27, 0x0f, 0, 40,
        0, 0,
    ];

    #[test]
    fn a_report_says_who_sent_what_to_whom() {
        let reports = parse(&datagram([0x08, 0], "udp", &V4));
        let packet = Packet {
            source: "10.77.0.2".parse().unwrap(),
            destination: "1.2.3.4".parse().unwrap(),
            protocol: UDP,
            ports: Some((1000, 9999)),
            length: 60,
        };
        let expected = Report {
            reason: DropReason::Udp,
            interface: 7,
            mark: 0x101,
            packet: Some(packet),
        };
        assert_eq!(reports, [expected]);
        let mut v6 = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
        v6.extend("fd77:1::2".parse::<Ipv6Addr>().unwrap().octets());
        v6.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        v6.extend([0, 80, 1, 0xbb]);
        let packet = parse(&datagram([0x86, 0xdd], "proxy_absent", &v6))[0]
            .packet
            .unwrap();
        assert_eq!((packet.ports, packet.length), (Some((80, 443)), 60));
        assert_eq!(packet.destination, "2001:db8::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn what_a_head_does_not_say_is_not_made_up() {
        let ports_of = |payload: &[u8]| {
            let report = parse(&datagram([0x08, 0], "fragment_or_options", payload))[0];
            report.packet.and_then(|p| p.ports)
        };
        let mut later_fragment = V4;
        later_fragment[7] = 1;
        assert_eq!(ports_of(&later_fragment), None);
        let mut icmp = V4;
        icmp[9] = 1;
        assert_eq!(ports_of(&icmp), None);
        assert_eq!(ports_of(&V4[..22]), None);
        assert_eq!(parse(&datagram([0x08, 0], "bad_l2", &V4[..19]))[0].packet, None);
        assert_eq!(parse(&datagram([0x08, 6], "bad_l2", &V4))[0].packet, None);
        assert_eq!(parse(&datagram([0x08, 0], "somebody else's", &V4)), []);
    }

    proptest! {
        #[test]
        fn any_packet_is_read_without_panic(
            ethertype in prop_oneof![Just([0x08, 0x00]), Just([0x86, 0xdd])],
            payload in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            prop_assert_eq!(parse(&datagram(ethertype, "udp", &payload)).len(), 1);
        }

        #[test]
        fn any_damage_to_a_report_is_read_without_panic(
            damage in proptest::collection::vec((0..100_usize, any::<u8>()), 0..20),
            length in 0..120_usize,
        ) {
            let mut bytes = datagram([0x08, 0], "udp", &V4);
            for (at, byte) in damage {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            bytes.truncate(length);
            let _ = parse(&bytes);
        }
    }
}
