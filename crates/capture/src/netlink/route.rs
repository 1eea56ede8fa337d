//! Route netlink: links, addresses, routes, rules and neighbours.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::SockProtocol;

use super::{ACK, CREATE, DUMP, EXCL, Message, REPLACE, REQUEST, Socket, attribute, text_of, u32_at};
use crate::Error;

/// The table that the kernel fills.
pub(crate) const MAIN: u32 = 254;

const IFINFOMSG: usize = 16;
const NEW_ONE: u16 = REQUEST | ACK | CREATE | EXCL;
const IFA_F_NODAD: u8 = 0x02;
const VETH_INFO_PEER: u16 = 1;
const FR_ACT_TO_TBL: u8 = 1;
const FRA_PRIORITY: u16 = 6;
const RTMSG: usize = 12;
/// More than a node has pods; ends the loop that deletes them.
const MAX_RULES: usize = 4096;

/// What a route does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Forward,
    Local,
    Unreachable,
}

/// A route.  `Route::to` is the plainest; the rest is set by hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) to: (IpAddr, u8),
    pub(crate) table: u32,
    pub(crate) action: Action,
    pub(crate) link: Option<u32>,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) source: Option<IpAddr>,
}

impl Route {
    pub(crate) fn to(to: impl Into<IpAddr>, prefix: u8) -> Self {
        Self {
            to: (to.into(), prefix),
            table: MAIN,
            action: Action::Forward,
            link: None,
            gateway: None,
            source: None,
        }
    }
}

/// A policy routing rule that picks a table, for packets that came in by `iif` (or any).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule<'a> {
    pub(crate) v6: bool,
    pub(crate) preference: u32,
    pub(crate) iif: Option<&'a str>,
    pub(crate) table: u32,
}

/// A route netlink socket with one method an operation.
#[derive(Debug)]
pub(crate) struct Routes {
    socket: Socket,
}

impl Routes {
    pub(crate) fn open() -> Result<Self, Error> {
        Ok(Self {
            socket: Socket::open(SockProtocol::NetlinkRoute)?,
        })
    }

    /// Index and name of every link.
    pub(crate) fn links(&mut self) -> Result<Vec<(u32, String)>, Error> {
        let mut message = Message::new(libc::RTM_GETLINK, REQUEST | DUMP);
        message.raw(&[0; IFINFOMSG]);
        let mut links = Vec::new();
        self.socket.request(message, "cannot list links", |_, body| {
            links.extend(link_of(body));
        })?;
        Ok(links)
    }

    /// The index of the link called `name`.
    pub(crate) fn link(&mut self, name: &str) -> Result<u32, Error> {
        self.find_link(name)?
            .ok_or_else(|| Error::Invalid(format!("there is no link `{name}`")))
    }

    /// As `link`, when its absence is expected.
    pub(crate) fn find_link(&mut self, name: &str) -> Result<Option<u32>, Error> {
        let links = self.links()?;
        Ok(links.into_iter().find(|l| l.1 == name).map(|l| l.0))
    }

    pub(crate) fn add_bridge(&mut self, name: &str) -> Result<(), Error> {
        let mut message = Message::new(libc::RTM_NEWLINK, NEW_ONE);
        message
            .raw(&[0; IFINFOMSG])
            .text(libc::IFLA_IFNAME, name)
            .nest(libc::IFLA_LINKINFO, |m| {
                m.text(libc::IFLA_INFO_KIND, "bridge");
            });
        self.ask(message, &format!("cannot create bridge `{name}`"))
    }

    /// A veth pair: `name` here, `peer` in the namespace `peer_ns`; both down.
    pub(crate) fn add_veth(
        &mut self,
        (name, mac): (&str, Option<[u8; 6]>),
        (peer, peer_mac): (&str, Option<[u8; 6]>),
        peer_ns: &impl AsFd,
    ) -> Result<(), Error> {
        let ns = u32::try_from(peer_ns.as_fd().as_raw_fd()).unwrap_or(u32::MAX);
        let mut message = Message::new(libc::RTM_NEWLINK, NEW_ONE);
        message.raw(&[0; IFINFOMSG]).text(libc::IFLA_IFNAME, name);
        if let Some(mac) = mac {
            message.attr(libc::IFLA_ADDRESS, &mac);
        }
        message.nest(libc::IFLA_LINKINFO, |m| {
            m.text(libc::IFLA_INFO_KIND, "veth");
            m.nest(libc::IFLA_INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    m.raw(&[0; IFINFOMSG]).text(libc::IFLA_IFNAME, peer);
                    if let Some(mac) = peer_mac {
                        m.attr(libc::IFLA_ADDRESS, &mac);
                    }
                    m.u32(libc::IFLA_NET_NS_FD, ns);
                });
            });
        });
        self.ask(message, &format!("cannot create the link `{name}` to `{peer}`"))
    }

    pub(crate) fn set_up(&mut self, link: u32, up: bool) -> Result<(), Error> {
        const IFF_UP: u32 = 1;
        let flags = if up { IFF_UP } else { 0 };
        let mut message = Message::new(libc::RTM_NEWLINK, REQUEST | ACK);
        message.raw(&ifinfo(link, flags, IFF_UP));
        let state = if up { "up" } else { "down" };
        self.ask(message, &format!("cannot bring link {link} {state}"))
    }

    pub(crate) fn set_master(&mut self, link: u32, master: u32) -> Result<(), Error> {
        let mut message = Message::new(libc::RTM_NEWLINK, REQUEST | ACK);
        message.raw(&ifinfo(link, 0, 0)).u32(libc::IFLA_MASTER, master);
        self.ask(message, &format!("cannot put link {link} on bridge {master}"))
    }

    pub(crate) fn delete_link(&mut self, link: u32) -> Result<(), Error> {
        let mut message = Message::new(libc::RTM_DELLINK, REQUEST | ACK);
        message.raw(&ifinfo(link, 0, 0));
        tolerate(
            self.ask(message, &format!("cannot delete link {link}")),
            &[Errno::ENODEV],
        )
    }

    /// Adds an address (an existing one is kept), without duplicate detection.
    pub(crate) fn add_address(&mut self, link: u32, address: IpAddr, prefix: u8) -> Result<(), Error> {
        let mut message = Message::new(libc::RTM_NEWADDR, REQUEST | ACK | CREATE | REPLACE);
        message.raw(&ifaddr(link, address, prefix));
        let bytes = octets(address);
        message.attr(libc::IFA_LOCAL, &bytes);
        message.attr(libc::IFA_ADDRESS, &bytes);
        self.ask(message, &format!("cannot add address {address}/{prefix}"))
    }

    pub(crate) fn delete_address(&mut self, link: u32, address: IpAddr, prefix: u8) -> Result<(), Error> {
        let mut message = Message::new(libc::RTM_DELADDR, REQUEST | ACK);
        message.raw(&ifaddr(link, address, prefix));
        message.attr(libc::IFA_LOCAL, &octets(address));
        tolerate(
            self.ask(message, &format!("cannot delete address {address}/{prefix}")),
            &[Errno::EADDRNOTAVAIL],
        )
    }

    /// Adds a route; one that leads elsewhere is replaced.
    pub(crate) fn add_route(&mut self, route: &Route) -> Result<(), Error> {
        let flags = REQUEST | ACK | CREATE | REPLACE;
        self.ask(
            route_message(libc::RTM_NEWROUTE, flags, route),
            &format!("cannot add a route to {}/{}", route.to.0, route.to.1),
        )
    }

    pub(crate) fn delete_route(&mut self, route: &Route) -> Result<(), Error> {
        let message = route_message(libc::RTM_DELROUTE, REQUEST | ACK, route);
        tolerate(
            self.ask(
                message,
                &format!("cannot delete the route to {}/{}", route.to.0, route.to.1),
            ),
            &[Errno::ESRCH, Errno::ENOENT],
        )
    }

    /// Adds a rule; an equal one is kept.
    pub(crate) fn add_rule(&mut self, rule: &Rule<'_>) -> Result<(), Error> {
        tolerate(
            self.ask(
                rule_message(libc::RTM_NEWRULE, NEW_ONE, rule),
                &format!("cannot add routing rule {}", rule.preference),
            ),
            &[Errno::EEXIST],
        )
    }

    pub(crate) fn delete_rule(&mut self, rule: &Rule<'_>) -> Result<(), Error> {
        tolerate(
            self.ask(
                rule_message(libc::RTM_DELRULE, REQUEST | ACK, rule),
                &format!("cannot delete routing rule {}", rule.preference),
            ),
            &[Errno::ENOENT],
        )
    }

    /// Deletes every rule of that preference, whatever else it says.
    pub(crate) fn delete_rules(&mut self, v6: bool, preference: u32) -> Result<(), Error> {
        let what = format!("cannot delete the routing rules {preference}");
        for _ in 0..MAX_RULES {
            let mut message = Message::new(libc::RTM_DELRULE, REQUEST | ACK);
            message.raw(&rule_header(v6, 0)).u32(FRA_PRIORITY, preference);
            match self.ask(message, &what) {
                Ok(()) => {}
                gone => return tolerate(gone, &[Errno::ENOENT]),
            }
        }
        Ok(())
    }

    /// Deletes every route of a table, in both families.
    pub(crate) fn flush_table(&mut self, table: u32) -> Result<(), Error> {
        for v6 in [false, true] {
            let mut message = Message::new(libc::RTM_GETROUTE, REQUEST | DUMP);
            message.raw(&[family_of(v6), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            let mut found = Vec::new();
            self.socket.request(message, "cannot list routes", |kind, body| {
                if kind == libc::RTM_NEWROUTE && table_of(body) == Some(table) {
                    found.push(body.to_vec());
                }
            })?;
            for body in found {
                let mut message = Message::new(libc::RTM_DELROUTE, REQUEST | ACK);
                message.raw(&body);
                let deleted = self.ask(message, &format!("cannot empty routing table {table}"));
                tolerate(deleted, &[Errno::ESRCH, Errno::ENOENT])?;
            }
        }
        Ok(())
    }

    /// A neighbour that is never asked for.
    pub(crate) fn add_neighbour(&mut self, link: u32, address: IpAddr, mac: [u8; 6]) -> Result<(), Error> {
        const NUD_PERMANENT: u16 = 0x80;
        const NDA_DST: u16 = 1;
        const NDA_LLADDR: u16 = 2;
        let mut header = vec![family(address), 0, 0, 0];
        header.extend_from_slice(&link.to_ne_bytes());
        header.extend_from_slice(&NUD_PERMANENT.to_ne_bytes());
        header.extend_from_slice(&[0, 0]);
        let mut message = Message::new(libc::RTM_NEWNEIGH, REQUEST | ACK | CREATE | REPLACE);
        message
            .raw(&header)
            .attr(NDA_DST, &octets(address))
            .attr(NDA_LLADDR, &mac);
        self.ask(message, &format!("cannot add neighbour {address}"))
    }

    fn ask(&mut self, message: Message, operation: &str) -> Result<(), Error> {
        self.socket.request(message, operation, |_, _| {})
    }
}

/// Index and name in the body of a link message.
fn link_of(body: &[u8]) -> Option<(u32, String)> {
    let index = u32_at(body, 4)?;
    let name = text_of(attribute(body.get(IFINFOMSG..)?, libc::IFLA_IFNAME)?)?;
    Some((index, name.to_owned()))
}

/// The table in the body of a route message.
fn table_of(body: &[u8]) -> Option<u32> {
    u32_at(attribute(body.get(RTMSG..)?, libc::RTA_TABLE)?, 0)
}

pub(crate) fn tolerate(result: Result<(), Error>, fine: &[Errno]) -> Result<(), Error> {
    match result {
        Err(Error::Netlink { errno, .. }) if fine.contains(&errno) => Ok(()),
        other => other,
    }
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    family_of(address.is_ipv6())
}

fn family_of(v6: bool) -> u8 {
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    if v6 { AF_INET6 } else { AF_INET }
}

fn ifinfo(link: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut header = vec![0; 4];
    header.extend_from_slice(&link.to_ne_bytes());
    header.extend_from_slice(&flags.to_ne_bytes());
    header.extend_from_slice(&change.to_ne_bytes());
    header
}

fn ifaddr(link: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    let flags = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
    let mut header = vec![family(address), prefix, flags, libc::RT_SCOPE_UNIVERSE];
    header.extend_from_slice(&link.to_ne_bytes());
    header
}

fn route_message(kind: u16, flags: u16, route: &Route) -> Message {
    const RTPROT_STATIC: u8 = 4;
    const RTNH_F_ONLINK: u32 = 4;
    let (address, prefix) = route.to;
    let action = match route.action {
        Action::Forward => libc::RTN_UNICAST,
        Action::Local => libc::RTN_LOCAL,
        Action::Unreachable => libc::RTN_UNREACHABLE,
    };
    let scope = match (route.action, route.gateway) {
        (Action::Local, _) => libc::RT_SCOPE_HOST,
        (Action::Forward, None) if address.is_ipv4() => libc::RT_SCOPE_LINK,
        _ => libc::RT_SCOPE_UNIVERSE,
    };
    // Gateways are always taken to be on the link: a pod's has no route of its own.
    let onlink = route.gateway.map_or(0, |_| RTNH_F_ONLINK);
    let mut header = vec![family(address), prefix, 0, 0, 0, RTPROT_STATIC, scope, action];
    header.extend_from_slice(&onlink.to_ne_bytes());
    let mut message = Message::new(kind, flags);
    message
        .raw(&header)
        .attr(libc::RTA_DST, &octets(address))
        .u32(libc::RTA_TABLE, route.table);
    if let Some(link) = route.link {
        message.u32(libc::RTA_OIF, link);
    }
    if let Some(gateway) = route.gateway {
        message.attr(libc::RTA_GATEWAY, &octets(gateway));
    }
    if let Some(source) = route.source {
        message.attr(libc::RTA_PREFSRC, &octets(source));
    }
    message
}

fn rule_message(kind: u16, flags: u16, rule: &Rule<'_>) -> Message {
    const FRA_IIFNAME: u16 = 3;
    const FRA_TABLE: u16 = 15;
    let mut message = Message::new(kind, flags);
    message
        .raw(&rule_header(rule.v6, FR_ACT_TO_TBL))
        .u32(FRA_PRIORITY, rule.preference)
        .u32(FRA_TABLE, rule.table);
    if let Some(name) = rule.iif {
        message.text(FRA_IIFNAME, name);
    }
    message
}

fn rule_header(v6: bool, action: u8) -> [u8; 12] {
    [family_of(v6), 0, 0, 0, 0, 0, 0, action, 0, 0, 0, 0]
}
