//! nf_tables messages: tables, chains, sets, counters and rules, in one atomic batch.

use std::collections::BTreeMap;

use crate::netlink::{Attrs, NLM_F_APPEND, NLM_F_CREATE, Netlink, NetlinkError, Part, attributes};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = SUBSYSTEM;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const DELCHAIN: u16 = SUBSYSTEM | 5;
const NEWRULE: u16 = SUBSYSTEM | 6;
const DELRULE: u16 = SUBSYSTEM | 8;
const NEWSET: u16 = SUBSYSTEM | 9;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
const DELSETELEM: u16 = SUBSYSTEM | 14;
const NEWOBJ: u16 = SUBSYSTEM | 18;
const GETOBJ: u16 = SUBSYSTEM | 19;

/// Protocol families of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Inet = 1,
    Netdev = 5,
}

/// Registers: the first two of 16 bytes.
pub(crate) const REG1: u32 = 1;
pub(crate) const REG2: u32 = 2;

/// What a rule does at its end.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Drop,
    Accept,
    Goto(&'static str),
    Return,
}

impl Verdict {
    fn attrs(&self) -> Attrs {
        let (code, chain) = match self {
            Self::Drop => (0_i32, None),
            Self::Accept => (1, None),
            Self::Goto(chain) => (-4, Some(*chain)),
            Self::Return => (-5, None),
        };
        let mut inner = Attrs::default().be32(1, code.cast_unsigned());
        if let Some(chain) = chain {
            inner = inner.text(2, chain);
        }
        Attrs::default().nested(2, &inner)
    }
}

/// Keys of `meta`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Meta {
    Protocol = 1,
    Mark = 3,
    IifName = 6,
    OifName = 7,
    NfProto = 15,
    L4Proto = 16,
}

/// Which header a payload is read from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Base {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// A rule, being written expression by expression.
#[derive(Default, Debug, Clone)]
pub(crate) struct Rule(Vec<Attrs>);

impl Rule {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn expression(mut self, name: &str, data: &Attrs) -> Self {
        self.0.push(Attrs::default().text(1, name).nested(2, data));
        self
    }

    pub(crate) fn meta(self, key: Meta) -> Self {
        self.meta_to(key, REG1)
    }

    fn meta_to(self, key: Meta, register: u32) -> Self {
        self.expression("meta", &Attrs::default().be32(1, register).be32(2, key as u32))
    }

    pub(crate) fn payload(self, base: Base, offset: u32, len: u32) -> Self {
        self.payload_to(base, offset, len, REG1)
    }

    fn payload_to(self, base: Base, offset: u32, len: u32, register: u32) -> Self {
        let data = Attrs::default().be32(1, register).be32(2, base as u32).be32(3, offset).be32(4, len);
        self.expression("payload", &data)
    }

    pub(crate) fn mask(self, mask: &[u8]) -> Self {
        let len = u32::try_from(mask.len()).unwrap_or_default();
        let zero = vec![0; mask.len()];
        let data = Attrs::default()
            .be32(1, REG1)
            .be32(2, REG1)
            .be32(3, len)
            .nested(4, &value(mask))
            .nested(5, &value(&zero));
        self.expression("bitwise", &data)
    }

    fn compare(self, op: u32, bytes: &[u8]) -> Self {
        self.expression("cmp", &Attrs::default().be32(1, REG1).be32(2, op).nested(3, &value(bytes)))
    }

    pub(crate) fn eq(self, bytes: &[u8]) -> Self {
        self.compare(0, bytes)
    }

    pub(crate) fn ne(self, bytes: &[u8]) -> Self {
        self.compare(1, bytes)
    }

    /// The interface's name is exactly this.
    pub(crate) fn iif(self, name: &str) -> Self {
        self.meta(Meta::IifName).eq(&ifname(name))
    }

    /// The interface's name begins so.
    pub(crate) fn iif_prefix(self, prefix: &str) -> Self {
        self.meta(Meta::IifName).eq(prefix.as_bytes())
    }

    pub(crate) fn oif(self, name: &str) -> Self {
        self.meta(Meta::OifName).eq(&ifname(name))
    }

    pub(crate) fn oif_prefix(self, prefix: &str) -> Self {
        self.meta(Meta::OifName).eq(prefix.as_bytes())
    }

    pub(crate) fn oif_not_prefix(self, prefix: &str) -> Self {
        self.meta(Meta::OifName).ne(prefix.as_bytes())
    }

    pub(crate) fn l4(self, protocol: u8) -> Self {
        self.meta(Meta::L4Proto).eq(&[protocol])
    }

    pub(crate) fn ipv4(self) -> Self {
        self.meta(Meta::NfProto).eq(&[2])
    }

    pub(crate) fn ipv6(self) -> Self {
        self.meta(Meta::NfProto).eq(&[10])
    }

    pub(crate) fn dport(self, port: u16) -> Self {
        self.payload(Base::Transport, 2, 2).eq(&port.to_be_bytes())
    }

    pub(crate) fn daddr4(self) -> Self {
        self.ipv4().payload(Base::Network, 16, 4)
    }

    pub(crate) fn daddr6(self) -> Self {
        self.ipv6().payload(Base::Network, 24, 16)
    }

    /// What is in the register is, or is not, in the set.
    pub(crate) fn lookup(self, set: &str, inverted: bool) -> Self {
        let data = Attrs::default().text(1, set).be32(2, REG1).be32(5, u32::from(inverted));
        self.expression("lookup", &data)
    }

    /// What the map holds for the register's content, back into the register.
    pub(crate) fn map(self, map: &str) -> Self {
        self.expression("lookup", &Attrs::default().text(1, map).be32(2, REG1).be32(3, REG1))
    }

    pub(crate) fn set_mark(self) -> Self {
        self.expression("meta", &Attrs::default().be32(2, Meta::Mark as u32).be32(3, REG1))
    }

    pub(crate) fn mark(self, mark: u32) -> Self {
        self.immediate(REG1, &mark.to_ne_bytes()).set_mark()
    }

    pub(crate) fn immediate(self, register: u32, bytes: &[u8]) -> Self {
        self.expression("immediate", &Attrs::default().be32(1, register).nested(2, &value(bytes)))
    }

    /// The packet belongs to a socket with IP_TRANSPARENT.
    pub(crate) fn transparent(self) -> Self {
        self.expression("socket", &Attrs::default().be32(1, 0).be32(2, REG1)).eq(&[1])
    }

    /// The connection is known: established or related.
    pub(crate) fn established(self) -> Self {
        let loaded = self.expression("ct", &Attrs::default().be32(1, REG1).be32(2, 0));
        loaded.mask(&6_u32.to_ne_bytes()).ne(&0_u32.to_ne_bytes())
    }

    /// To a transparent listener on the port, both families.
    pub(crate) fn tproxy(self, port: u16) -> Self {
        let loaded = self.immediate(REG1, &port.to_be_bytes());
        loaded.expression("tproxy", &Attrs::default().be32(1, 0).be32(3, REG1))
    }

    pub(crate) fn notrack(self) -> Self {
        self.expression("notrack", &Attrs::default())
    }

    /// Counts under a name.
    pub(crate) fn count(self, counter: &str) -> Self {
        self.expression("objref", &Attrs::default().be32(1, 1).text(2, counter))
    }

    /// Logs to a group of NFLOG, at most `rate` a second.
    pub(crate) fn log(self, prefix: &str, group: u16, rate: u64) -> Self {
        let limit = Attrs::default().be64(1, rate).be64(2, 1).be32(3, 100).be32(4, 0).be32(5, 0);
        let log = Attrs::default().be16(1, group).text(2, prefix).be32(3, 128);
        self.expression("limit", &limit).expression("log", &log)
    }

    /// A number below `modulus`, at random, into the register.
    pub(crate) fn random(self, modulus: u32) -> Self {
        let data = Attrs::default().be32(1, REG1).be32(2, modulus).be32(3, 1).be32(4, 0);
        self.expression("numgen", &data)
    }

    /// Rewrites the destination to the address in register 1 and the port in register 2.
    pub(crate) fn dnat(self, ipv6: bool) -> Self {
        let family = if ipv6 { 10 } else { 2 };
        let data = Attrs::default().be32(1, 1).be32(2, family).be32(3, REG1).be32(5, REG2);
        self.expression("nat", &data)
    }

    pub(crate) fn verdict(self, verdict: &Verdict) -> Self {
        self.expression("immediate", &Attrs::default().be32(1, 0).nested(2, &verdict.attrs()))
    }

    pub(crate) fn drop(self) -> Self {
        self.verdict(&Verdict::Drop)
    }

    pub(crate) fn accept(self) -> Self {
        self.verdict(&Verdict::Accept)
    }

    pub(crate) fn goto(self, chain: &'static str) -> Self {
        self.verdict(&Verdict::Goto(chain))
    }

    pub(crate) fn ret(self) -> Self {
        self.verdict(&Verdict::Return)
    }
}

fn value(bytes: &[u8]) -> Attrs {
    Attrs::default().bytes(1, bytes)
}

/// An interface name as the kernel keeps it: 16 bytes, zero filled.
pub(crate) fn ifname(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    out
}

/// Where a base chain hooks in.
#[derive(Debug)]
pub(crate) struct Hook<'a> {
    pub(crate) kind: &'static str,
    pub(crate) number: u32,
    pub(crate) priority: i32,
    pub(crate) device: Option<&'a str>,
    pub(crate) drop: bool,
}

pub(crate) const PREROUTING: u32 = 0;
pub(crate) const INPUT: u32 = 1;
pub(crate) const FORWARD: u32 = 2;
pub(crate) const OUTPUT: u32 = 3;
pub(crate) const INGRESS: u32 = 0;

/// Key types, as `nft list` prints them.
pub(crate) const TYPE_IPV4: (u32, u32) = (7, 4);
pub(crate) const TYPE_IPV6: (u32, u32) = (8, 16);
pub(crate) const TYPE_IFNAME: (u32, u32) = (41, 16);
pub(crate) const TYPE_MARK: (u32, u32) = (19, 4);

/// A batch, being written for one table.
#[derive(Debug)]
pub(crate) struct Batch {
    family: Family,
    table: &'static str,
    parts: Vec<Part>,
    next_set: u32,
}

impl Batch {
    pub(crate) fn new(family: Family, table: &'static str) -> Self {
        Self { family, table, parts: Vec::new(), next_set: 1 }
    }

    fn part(mut self, kind: u16, flags: u16, attrs: &Attrs, what: String) -> Self {
        // nfgenmsg: family, version 0, resource id 0.
        let mut body = vec![self.family as u8, 0, 0, 0];
        body.extend_from_slice(&attrs.0);
        self.parts.push(Part { kind, flags, body, what });
        self
    }

    /// Makes the table if it is not there, so that deleting it cannot fail, deletes it with all it holds, makes it anew.
    pub(crate) fn fresh_table(self) -> Self {
        let name = Attrs::default().text(1, self.table);
        let what = format!("table `{}`", self.table);
        self.part(NEWTABLE, NLM_F_CREATE, &name, format!("make the {what}"))
            .part(DELTABLE, 0, &name, format!("delete the {what}"))
            .part(NEWTABLE, NLM_F_CREATE, &name, format!("make the {what}"))
    }

    /// Makes the table if it is not there.
    pub(crate) fn table(self) -> Self {
        let name = Attrs::default().text(1, self.table);
        let what = format!("make the table `{}`", self.table);
        self.part(NEWTABLE, NLM_F_CREATE, &name, what)
    }

    pub(crate) fn delete_table(self) -> Self {
        let name = Attrs::default().text(1, self.table);
        let what = format!("delete the table `{}`", self.table);
        self.part(NEWTABLE, NLM_F_CREATE, &name, what.clone()).part(DELTABLE, 0, &name, what)
    }

    pub(crate) fn chain(self, name: &str, hook: Option<&Hook<'_>>) -> Self {
        let mut attrs = Attrs::default().text(1, self.table).text(3, name);
        if let Some(hook) = hook {
            let mut at = Attrs::default().be32(1, hook.number).be32(2, hook.priority.cast_unsigned());
            if let Some(device) = hook.device {
                at = at.text(3, device);
            }
            attrs = attrs.nested(4, &at).be32(5, u32::from(!hook.drop)).text(7, hook.kind);
        }
        self.part(NEWCHAIN, NLM_F_CREATE, &attrs, format!("make the chain `{name}`"))
    }

    /// Empties a chain and deletes it.
    pub(crate) fn delete_chain(self, name: &str) -> Self {
        let rules = Attrs::default().text(1, self.table).text(2, name);
        let chain = Attrs::default().text(1, self.table).text(3, name);
        self.part(DELRULE, 0, &rules, format!("empty the chain `{name}`")).part(
            DELCHAIN,
            0,
            &chain,
            format!("delete the chain `{name}`"),
        )
    }

    pub(crate) fn rule(self, chain: &str, rule: &Rule) -> Self {
        let mut list = Attrs::default();
        for expression in &rule.0 {
            list = list.nested(1, expression);
        }
        let attrs = Attrs::default().text(1, self.table).text(2, chain).nested(4, &list);
        self.part(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, &attrs, format!("add a rule to the chain `{chain}`"))
    }

    pub(crate) fn counter(self, name: &str) -> Self {
        let zero = Attrs::default().be64(1, 0).be64(2, 0);
        let attrs = Attrs::default().text(1, self.table).text(2, name).be32(3, 1).nested(4, &zero);
        self.part(NEWOBJ, NLM_F_CREATE, &attrs, format!("make the counter `{name}`"))
    }

    /// A named set, or a map where `data` is given.
    pub(crate) fn set(mut self, name: &str, key: (u32, u32), data: Option<(u32, u32)>) -> Self {
        let id = self.next_set;
        self.next_set += 1;
        let flags = if data.is_some() { 8 } else { 0 };
        let mut attrs = Attrs::default().text(1, self.table).text(2, name).be32(3, flags).be32(4, key.0).be32(5, key.1);
        if let Some((kind, len)) = data {
            attrs = attrs.be32(6, kind).be32(7, len);
        }
        self.part(NEWSET, NLM_F_CREATE, &attrs.be32(10, id), format!("make the set `{name}`"))
    }

    pub(crate) fn element(self, set: &str, key: &[u8], data: Option<&[u8]>) -> Self {
        let attrs = self.elements(set, key, data);
        self.part(NEWSETELEM, NLM_F_CREATE, &attrs, format!("add to the set `{set}`"))
    }

    pub(crate) fn delete_element(self, set: &str, key: &[u8]) -> Self {
        let attrs = self.elements(set, key, None);
        self.part(DELSETELEM, 0, &attrs, format!("delete from the set `{set}`"))
    }

    fn elements(&self, set: &str, key: &[u8], data: Option<&[u8]>) -> Attrs {
        let mut element = Attrs::default().nested(1, &value(key));
        if let Some(data) = data {
            element = element.nested(2, &value(data));
        }
        let list = Attrs::default().nested(1, &element);
        Attrs::default().text(1, self.table).text(2, set).nested(3, &list)
    }

    /// Hands the batch to the kernel: all of it takes effect or nothing.
    pub(crate) fn commit(self) -> Result<(), NetlinkError> {
        // nfgenmsg of a batch: no family, version 0, the subsystem as resource id.
        let begin = [0, 0, 0, 10];
        Netlink::netfilter()?.batch(&begin, (BATCH_BEGIN, BATCH_END), &self.parts)
    }
}

/// Packets and bytes of each counter of a table.
pub(crate) fn counters(family: Family, table: &str) -> Result<BTreeMap<String, (u64, u64)>, NetlinkError> {
    let mut body = vec![family as u8, 0, 0, 0];
    body.extend(Attrs::default().text(1, table).be32(3, 1).0);
    let mut found = BTreeMap::new();
    Netlink::netfilter()?.dump("read the counters", GETOBJ, &body, |message| {
        let (mut name, mut packets, mut bytes) = (String::new(), 0, 0);
        for (kind, value) in attributes(message.body.get(4..).unwrap_or_default()) {
            match kind {
                2 => name = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned(),
                4 => {
                    for (kind, value) in attributes(value) {
                        let number = value.first_chunk().map_or(0, |b| u64::from_be_bytes(*b));
                        match kind {
                            1 => bytes = number,
                            2 => packets = number,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        found.insert(name, (packets, bytes));
    })?;
    Ok(found)
}
