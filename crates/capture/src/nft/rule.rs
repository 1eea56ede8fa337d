//! One rule as a chain of expressions, written left to right.
//!
//! Keys are loaded into the first registers, values found in maps into later ones: see `KEY`.

use std::net::IpAddr;

use crate::netlink::Message;
use crate::netlink::route::octets;

/// The first 4-byte register; keys start here, the longest needs six.
const KEY: u32 = 8;
/// Where values from maps go.
const VALUE: u32 = 16;

const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;

const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

/// The IP family that a rule in an inet table speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    fn number(self) -> u32 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// The interface that a packet came by, or leaves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    In,
    Out,
}

impl Direction {
    fn meta(self) -> u32 {
        match self {
            Self::In => META_IIFNAME,
            Self::Out => META_OIFNAME,
        }
    }
}

/// How a rule ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    Goto(String),
}

impl Verdict {
    pub(crate) fn write(&self, m: &mut Message) {
        const GOTO: u32 = 0xffff_fffc;
        m.nest(2, |m| match self {
            Self::Accept => {
                m.be32(1, 1);
            }
            Self::Drop => {
                m.be32(1, 0);
            }
            Self::Goto(chain) => {
                m.be32(1, GOTO).text(2, chain);
            }
        });
    }
}

/// A rule under construction: every method appends what must hold, or what is done.
#[derive(Debug)]
pub(crate) struct Rule {
    list: Message,
}

impl Rule {
    pub(crate) fn new() -> Self {
        Self {
            list: Message::fragment(),
        }
    }

    pub(crate) fn expressions(&self) -> &Message {
        &self.list
    }

    /// The interface is called `name`.
    pub(crate) fn interface(self, direction: Direction, name: &str) -> Self {
        self.meta(direction.meta(), KEY)
            .compare(EQUAL, &super::interface_key(name))
    }

    /// The interface's name starts with `prefix`.
    pub(crate) fn interface_prefix(self, direction: Direction, prefix: &str) -> Self {
        self.meta(direction.meta(), KEY).compare(EQUAL, prefix.as_bytes())
    }

    /// The interface is a key of the map `map`; its value waits for `set_mark_found`.
    pub(crate) fn interface_in(self, direction: Direction, map: &str) -> Self {
        self.meta(direction.meta(), KEY).lookup(map, Some(VALUE))
    }

    /// The pair of outgoing interface and mark is in the set.
    pub(crate) fn out_interface_and_mark_in(self, set: &str) -> Self {
        self.meta(META_OIFNAME, KEY)
            .meta(META_MARK, KEY + 4)
            .lookup(set, None)
    }

    pub(crate) fn family(self, family: Family) -> Self {
        let number = u8::try_from(family.number()).unwrap_or(0);
        self.meta(META_NFPROTO, KEY).compare(EQUAL, &[number])
    }

    /// The transport protocol, behind extension headers.
    pub(crate) fn transport(self, protocol: u8) -> Self {
        self.meta(META_L4PROTO, KEY).compare(EQUAL, &[protocol])
    }

    pub(crate) fn source(self, address: IpAddr) -> Self {
        let family = Family::of(address);
        self.family(family)
            .address(family, false)
            .compare(EQUAL, &octets(address))
    }

    pub(crate) fn destination(self, address: IpAddr) -> Self {
        let family = Family::of(address);
        self.family(family)
            .address(family, true)
            .compare(EQUAL, &octets(address))
    }

    /// The destination is a key of the map; its value waits for `set_mark_found`.
    pub(crate) fn destination_in(self, family: Family, map: &str) -> Self {
        self.family(family).address(family, true).lookup(map, Some(VALUE))
    }

    /// The source is a key of the map.
    pub(crate) fn source_in(self, family: Family, map: &str) -> Self {
        self.family(family)
            .address(family, false)
            .lookup(map, Some(VALUE))
    }

    /// Ends with the verdict that the map holds for (destination, protocol, port), if any.
    pub(crate) fn service_verdict(self, family: Family, map: &str) -> Self {
        let after = match family {
            Family::V4 => KEY + 1,
            Family::V6 => KEY + 4,
        };
        self.family(family)
            .address(family, true)
            .meta(META_L4PROTO, after)
            .payload(TRANSPORT_HEADER, 2, 2, after + 1)
            .lookup(map, Some(0))
    }

    pub(crate) fn source_port(self, port: u16) -> Self {
        self.transport_bytes(0, &port.to_be_bytes())
    }

    pub(crate) fn destination_port(self, port: u16) -> Self {
        self.transport_bytes(2, &port.to_be_bytes())
    }

    /// Bytes at an offset of the frame's link header are, or are not, these.
    pub(crate) fn link_bytes(self, offset: u32, bytes: &[u8], equal: bool) -> Self {
        self.bytes(LINK_HEADER, offset, bytes, equal)
    }

    /// Bytes at an offset of the network header are, or are not, these.
    pub(crate) fn network_bytes(self, offset: u32, bytes: &[u8], equal: bool) -> Self {
        self.bytes(NETWORK_HEADER, offset, bytes, equal)
    }

    /// Bytes at an offset of the transport header are these.
    pub(crate) fn transport_bytes(self, offset: u32, bytes: &[u8]) -> Self {
        self.bytes(TRANSPORT_HEADER, offset, bytes, true)
    }

    /// Under the mask, bytes of the network header are not `unlike`.
    pub(crate) fn network_masked_not(self, offset: u32, mask: &[u8], unlike: &[u8]) -> Self {
        let length = size(mask);
        self.payload(NETWORK_HEADER, offset, length, KEY)
            .mask(mask)
            .compare(NOT_EQUAL, unlike)
    }

    /// Not the first packet of a TCP connection: of SYN and ACK, not SYN alone.
    pub(crate) fn not_opening(self) -> Self {
        const FLAGS: u32 = 13;
        self.payload(TRANSPORT_HEADER, FLAGS, 1, KEY)
            .mask(&[0x12])
            .compare(NOT_EQUAL, &[0x02])
    }

    pub(crate) fn mark(self, mark: u32) -> Self {
        self.meta(META_MARK, KEY).compare(EQUAL, &mark.to_ne_bytes())
    }

    /// The mark is one of a pod's (at least `FIRST_POD_MARK`).
    pub(crate) fn pod_mark(self) -> Self {
        let mask = !(crate::FIRST_POD_MARK - 1);
        self.meta(META_MARK, KEY)
            .mask(&mask.to_ne_bytes())
            .compare(NOT_EQUAL, &[0; 4])
    }

    /// The packet belongs to a socket that may stand for foreign addresses.
    pub(crate) fn transparent_socket(self) -> Self {
        self.expression("socket", |m| {
            m.be32(1, 0).be32(2, KEY);
        })
        .compare(EQUAL, &[1])
    }

    pub(crate) fn set_mark(self, mark: u32) -> Self {
        self.immediate(VALUE, &mark.to_ne_bytes()).set_mark_found()
    }

    /// Sets the mark to the value that the last map lookup found.
    pub(crate) fn set_mark_found(self) -> Self {
        self.expression("meta", |m| {
            m.be32(2, META_MARK).be32(3, VALUE);
        })
    }

    /// Gives the packet to the listener on loopback, or ends the rule when nobody listens.
    pub(crate) fn tproxy(self, family: Family, port: u16) -> Self {
        let loopback = match family {
            Family::V4 => octets(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
            Family::V6 => octets(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)),
        };
        self.immediate(KEY, &loopback)
            .immediate(VALUE, &port.to_be_bytes())
            .expression("tproxy", |m| {
                m.be32(1, family.number()).be32(2, KEY).be32(3, VALUE);
            })
    }

    pub(crate) fn untracked(self) -> Self {
        self.expression("notrack", |_| {})
    }

    pub(crate) fn count(self, counter: &str) -> Self {
        self.expression("objref", |m| {
            m.be32(1, 1).text(2, counter);
        })
    }

    /// Holds at most `rate` times a second.
    pub(crate) fn at_most(self, rate: u64, burst: u32) -> Self {
        self.expression("limit", |m| {
            m.attr(1, &rate.to_be_bytes())
                .attr(2, &1_u64.to_be_bytes())
                .be32(3, burst)
                .be32(4, 0)
                .be32(5, 0);
        })
    }

    pub(crate) fn log(self, group: u16, prefix: &str, snaplen: u32) -> Self {
        self.expression("log", |m| {
            m.attr(1, &group.to_be_bytes()).text(2, prefix).be32(3, snaplen);
        })
    }

    /// Holds with the chance 1 in `count`.
    pub(crate) fn one_in(self, count: u32) -> Self {
        self.expression("numgen", |m| {
            m.be32(1, KEY).be32(2, count).be32(3, 1);
        })
        .compare(EQUAL, &[0; 4])
    }

    pub(crate) fn dnat(self, address: IpAddr, port: u16) -> Self {
        self.immediate(KEY, &octets(address))
            .immediate(VALUE, &port.to_be_bytes())
            .expression("nat", |m| {
                m.be32(1, 1)
                    .be32(2, Family::of(address).number())
                    .be32(3, KEY)
                    .be32(5, VALUE);
            })
    }

    pub(crate) fn verdict(self, verdict: &Verdict) -> Self {
        self.expression("immediate", |m| {
            m.be32(1, 0).nest(2, |m| verdict.write(m));
        })
    }

    pub(crate) fn accept(self) -> Self {
        self.verdict(&Verdict::Accept)
    }

    pub(crate) fn drop(self) -> Self {
        self.verdict(&Verdict::Drop)
    }

    pub(crate) fn goto(self, chain: impl Into<String>) -> Self {
        self.verdict(&Verdict::Goto(chain.into()))
    }

    fn address(self, family: Family, destination: bool) -> Self {
        let (offset, length) = match (family, destination) {
            (Family::V4, false) => (12, 4),
            (Family::V4, true) => (16, 4),
            (Family::V6, false) => (8, 16),
            (Family::V6, true) => (24, 16),
        };
        self.payload(NETWORK_HEADER, offset, length, KEY)
    }

    fn bytes(self, base: u32, offset: u32, bytes: &[u8], equal: bool) -> Self {
        let operator = if equal { EQUAL } else { NOT_EQUAL };
        self.payload(base, offset, size(bytes), KEY)
            .compare(operator, bytes)
    }

    fn meta(self, key: u32, register: u32) -> Self {
        self.expression("meta", |m| {
            m.be32(1, register).be32(2, key);
        })
    }

    fn payload(self, base: u32, offset: u32, length: u32, register: u32) -> Self {
        self.expression("payload", |m| {
            m.be32(1, register).be32(2, base).be32(3, offset).be32(4, length);
        })
    }

    fn mask(self, mask: &[u8]) -> Self {
        self.expression("bitwise", |m| {
            m.be32(1, KEY).be32(2, KEY).be32(3, size(mask));
            m.nest(4, |m| {
                m.attr(1, mask);
            });
            m.nest(5, |m| {
                m.attr(1, &vec![0; mask.len()]);
            });
        })
    }

    fn compare(self, operator: u32, value: &[u8]) -> Self {
        self.expression("cmp", |m| {
            m.be32(1, KEY).be32(2, operator).nest(3, |m| {
                m.attr(1, value);
            });
        })
    }

    fn lookup(self, set: &str, into: Option<u32>) -> Self {
        self.expression("lookup", |m| {
            m.text(1, set).be32(2, KEY);
            if let Some(register) = into {
                m.be32(3, register);
            }
        })
    }

    fn immediate(self, register: u32, value: &[u8]) -> Self {
        self.expression("immediate", |m| {
            m.be32(1, register).nest(2, |m| {
                m.attr(1, value);
            });
        })
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Message)) -> Self {
        self.list.nest(1, |m| {
            m.text(1, name).nest(2, fill);
        });
        self
    }
}

fn size(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(0)
}
