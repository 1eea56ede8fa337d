//! Links, addresses, routes, rules and neighbours, over route netlink, in the namespace that the thread is in.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use crate::netlink::{Attrs, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Netlink, NetlinkError, attributes};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;
const RTM_NEWRULE: u16 = 32;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IFF_UP: u32 = 1;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const AF_BRIDGE_OR_ANY: u8 = 0;

/// A hardware address.
pub type Mac = [u8; 6];

/// One end of a veth pair.
#[derive(Debug)]
pub(crate) struct End<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
}

/// A route-netlink conversation.
#[derive(Debug)]
pub(crate) struct Route(Netlink);

impl Route {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Netlink::route().map(Self)
    }

    /// Makes a veth pair: `here` in this namespace, `there` in the other, both down and without IPv6 addresses of
    /// their own making.
    pub(crate) fn veth(&mut self, here: &End<'_>, there: &End<'_>, other: &impl AsFd) -> Result<(), NetlinkError> {
        // A file descriptor is never negative.
        let ns = u32::try_from(other.as_fd().as_raw_fd()).unwrap_or_default();
        let mut peer = ifinfo(0, 0, 0);
        peer.extend(named(there).u32(IFLA_NET_NS_FD, ns).0);
        let info = Attrs::default()
            .text(IFLA_INFO_KIND, "veth")
            .nested(IFLA_INFO_DATA, &Attrs::default().bytes(VETH_INFO_PEER | 0x8000, &peer));
        let mut body = ifinfo(0, 0, 0);
        body.extend(named(here).nested(IFLA_LINKINFO, &info).0);
        let what = format!("make the veth pair `{}`, `{}`", here.name, there.name);
        self.0.request(&what, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &body)
    }

    pub(crate) fn bridge(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut body = ifinfo(0, 0, 0);
        let kind = Attrs::default().text(IFLA_INFO_KIND, "bridge");
        body.extend(Attrs::default().text(IFLA_IFNAME, name).nested(IFLA_LINKINFO, &kind).0);
        self.0.request(&format!("make the bridge `{name}`"), RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &body)
    }

    pub(crate) fn up(&mut self, name: &str) -> Result<(), NetlinkError> {
        let index = self.index(name)?;
        self.0.request(&format!("bring `{name}` up"), RTM_NEWLINK, 0, &ifinfo(index, IFF_UP, IFF_UP))
    }

    /// Puts a link under a bridge.
    pub(crate) fn master(&mut self, name: &str, bridge: &str) -> Result<(), NetlinkError> {
        let (index, master) = (self.index(name)?, self.index(bridge)?);
        let mut body = ifinfo(index, 0, 0);
        body.extend(Attrs::default().u32(IFLA_MASTER, master).0);
        self.0.request(&format!("put `{name}` under `{bridge}`"), RTM_NEWLINK, 0, &body)
    }

    /// Deletes a link; one that is not there is fine.
    pub(crate) fn delete(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut body = ifinfo(0, 0, 0);
        body.extend(Attrs::default().text(IFLA_IFNAME, name).0);
        match self.0.request(&format!("delete the link `{name}`"), RTM_DELLINK, 0, &body) {
            Err(e) if e.errno() == nix::libc::ENODEV => Ok(()),
            other => other,
        }
    }

    /// The links of the namespace: name and index.
    pub(crate) fn links(&mut self) -> Result<Vec<(String, u32)>, NetlinkError> {
        let mut links = Vec::new();
        self.0.dump("list links", RTM_GETLINK, &ifinfo(0, 0, 0), |message| {
            let index = message.body.get(4..8).and_then(|b| b.first_chunk()).map(|b| u32::from_ne_bytes(*b));
            let name = attributes(message.body.get(16..).unwrap_or_default()).find(|(kind, _)| *kind == IFLA_IFNAME);
            if let (Some(index), Some((_, name))) = (index, name) {
                let text = name.split(|b| *b == 0).next().unwrap_or_default();
                links.push((String::from_utf8_lossy(text).into_owned(), index));
            }
        })?;
        Ok(links)
    }

    pub(crate) fn index(&mut self, name: &str) -> Result<u32, NetlinkError> {
        nix::net::if_::if_nametoindex(name).map_err(|e| NetlinkError::new(format!("find the link `{name}`"), e))
    }

    /// Gives a link an address; no duplicate address detection, the addresses are ours to give.
    pub(crate) fn address(&mut self, link: &str, ip: IpAddr, len: u8) -> Result<(), NetlinkError> {
        let index = self.index(link)?;
        let mut body = vec![family(ip), len, 0x02, 0];
        body.extend(index.to_ne_bytes());
        let octets = octets(ip);
        body.extend(Attrs::default().bytes(1, &octets).bytes(2, &octets).0);
        self.0.request(&format!("give `{link}` the address {ip}/{len}"), RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body)
    }

    pub(crate) fn route(&mut self, route: &RouteSpec<'_>) -> Result<(), NetlinkError> {
        let (dst, len) = route.to;
        let scope = if route.local { 254 } else if route.via.is_some() { 0 } else { 253 };
        let kind = if route.local { 2 } else { 1 };
        let onlink: u32 = if route.via.is_some() { 4 } else { 0 };
        let table = u8::try_from(route.table).unwrap_or(0);
        let mut body = vec![family(dst), len, 0, 0, table, 4, scope, kind];
        body.extend(onlink.to_ne_bytes());
        let mut attrs = Attrs::default().u32(15, route.table);
        if len > 0 {
            attrs = attrs.bytes(1, &octets(dst));
        }
        if let Some(via) = route.via {
            attrs = attrs.bytes(5, &octets(via));
        }
        attrs = attrs.u32(4, self.index(route.dev)?);
        body.extend(attrs.0);
        let what = format!("route {dst}/{len} over `{}`", route.dev);
        self.0.request(&what, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body)
    }

    /// A permanent neighbour.
    pub(crate) fn neighbour(&mut self, dev: &str, ip: IpAddr, mac: Mac) -> Result<(), NetlinkError> {
        let index = self.index(dev)?;
        let mut body = vec![family(ip), 0, 0, 0];
        body.extend(index.to_ne_bytes());
        body.extend(0x80_u16.to_ne_bytes());
        body.extend([0, 1]);
        body.extend(Attrs::default().bytes(1, &octets(ip)).bytes(2, &mac).0);
        let what = format!("add the neighbour {ip} on `{dev}`");
        self.0.request(&what, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &body)
    }

    /// A routing rule; one that is there already is fine.
    pub(crate) fn rule(&mut self, rule: &RuleSpec<'_>) -> Result<(), NetlinkError> {
        for family in [AF_INET, AF_INET6] {
            let table = u8::try_from(rule.table).unwrap_or(0);
            let mut body = vec![family, 0, 0, 0, table, 0, 0, 1, 0, 0, 0, 0];
            let mut attrs = Attrs::default().u32(6, rule.priority).u32(15, rule.table);
            if let Some(iif) = rule.iif {
                attrs = attrs.text(3, iif);
            }
            if let Some((mark, mask)) = rule.mark {
                attrs = attrs.u32(10, mark).u32(16, mask);
            }
            body.extend(attrs.0);
            let what = format!("add the routing rule {}", rule.priority);
            match self.0.request(&what, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, &body) {
                Err(e) if e.errno() == nix::libc::EEXIST => {}
                other => other?,
            }
        }
        Ok(())
    }
}

/// A route: unicast over a device, through a gateway that need not be on it, or local delivery.
#[derive(Debug)]
pub(crate) struct RouteSpec<'a> {
    pub(crate) to: (IpAddr, u8),
    pub(crate) via: Option<IpAddr>,
    pub(crate) dev: &'a str,
    pub(crate) table: u32,
    pub(crate) local: bool,
}

/// A routing rule for both families.
#[derive(Debug)]
pub(crate) struct RuleSpec<'a> {
    pub(crate) priority: u32,
    pub(crate) iif: Option<&'a str>,
    pub(crate) mark: Option<(u32, u32)>,
    pub(crate) table: u32,
}

/// The main routing table.
pub(crate) const MAIN: u32 = 254;

fn ifinfo(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![AF_BRIDGE_OR_ANY, 0, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(change.to_ne_bytes());
    body
}

/// Name, hardware address, and no addresses of the kernel's own making (mode 1: none).
fn named(end: &End<'_>) -> Attrs {
    let quiet = Attrs::default().u8(IFLA_INET6_ADDR_GEN_MODE, 1);
    let spec = Attrs::default().nested(u16::from(AF_INET6), &quiet);
    Attrs::default().text(IFLA_IFNAME, end.name).bytes(IFLA_ADDRESS, &end.mac).nested(IFLA_AF_SPEC, &spec)
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { AF_INET } else { AF_INET6 }
}

pub(crate) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
