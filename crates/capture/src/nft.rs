//! nf_tables: tables, chains, rules, maps and counters, sent as one atomic batch.

mod rule;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use crate::Error;
use crate::netlink::{APPEND, CREATE, DUMP, Message, REQUEST, Socket, attribute, messages, text_of, verdict};
pub(crate) use rule::{Direction, Family, Rule, Verdict};

/// Bytes of elements in one message: an attribute's length has 16 bits.
const MAX_ELEMENTS_BYTES: usize = 48 * 1024;
/// A batch travels in one send; the kernel refuses more than the socket's buffer anyway.
const MAX_ERRORS_SHOWN: usize = 3;

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;
const NEWOBJ: u16 = 18;
const GETOBJ: u16 = 19;

const SET_MAP: u32 = 8;
const OBJECT_COUNTER: u32 = 1;
/// The kernel takes any number as a type; these let `nft list` show keys as people write them.
const TYPE_VERDICT: u32 = 0xffff_ff00;

/// A table, by family and name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) family: TableFamily,
    pub(crate) name: &'static str,
}

/// The family of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TableFamily {
    Inet,
    Netdev,
}

/// Where a base chain hangs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hook<'a> {
    Prerouting,
    Input,
    Forward,
    Output,
    /// Before everything else, for the packets that arrive on one device.
    Ingress(&'a str),
}

/// A base chain's hook, priority and policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Base<'a> {
    pub(crate) nat: bool,
    pub(crate) hook: Hook<'a>,
    pub(crate) priority: i32,
    pub(crate) accept: bool,
}

/// The key of a set or map.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Key {
    V4,
    V6,
    Interface,
    InterfaceMark,
    ServiceV4,
    ServiceV6,
}

impl Key {
    /// Type number (for listings) and length.
    fn kind(self) -> (u32, u32) {
        const V4: u32 = 7;
        const V6: u32 = 8;
        const PROTO: u32 = 12;
        const PORT: u32 = 13;
        const MARK: u32 = 19;
        const IFNAME: u32 = 41;
        match self {
            Self::V4 => (V4, 4),
            Self::V6 => (V6, 16),
            Self::Interface => (IFNAME, 16),
            Self::InterfaceMark => (IFNAME << 6 | MARK, 20),
            Self::ServiceV4 => ((V4 << 6 | PROTO) << 6 | PORT, 12),
            Self::ServiceV6 => ((V6 << 6 | PROTO) << 6 | PORT, 24),
        }
    }
}

/// What a set's elements carry.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    Nothing,
    Mark,
    Verdict,
}

/// The value of one element.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Nothing,
    Mark(u32),
    Verdict(Verdict),
}

/// An interface name as the kernel compares it.
pub(crate) fn interface_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(16, 0);
    key
}

/// Changes that come into force together or not at all.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    steps: Vec<(Message, String)>,
}

impl Batch {
    pub(crate) fn add_table(&mut self, table: Table) {
        let mut message = begin(table, NEWTABLE, CREATE);
        message.text(1, table.name);
        self.push(message, format!("cannot add table `{}`", table.name));
    }

    pub(crate) fn delete_table(&mut self, table: Table) {
        let mut message = begin(table, DELTABLE, 0);
        message.text(1, table.name);
        self.push(message, format!("cannot delete table `{}`", table.name));
    }

    /// An empty table, whether it was there before or not.
    pub(crate) fn replace_table(&mut self, table: Table) {
        self.add_table(table);
        self.delete_table(table);
        self.add_table(table);
    }

    pub(crate) fn add_chain(&mut self, table: Table, name: &str, base: Option<Base<'_>>) {
        let mut message = begin(table, NEWCHAIN, CREATE);
        message.text(1, table.name).text(3, name);
        if let Some(base) = base {
            let number = match base.hook {
                Hook::Prerouting | Hook::Ingress(_) => 0,
                Hook::Input => 1,
                Hook::Forward => 2,
                Hook::Output => 3,
            };
            message.nest(4, |m| {
                m.be32(1, number).attr(2, &base.priority.to_be_bytes());
                if let Hook::Ingress(device) = base.hook {
                    m.text(3, device);
                }
            });
            message.be32(5, u32::from(base.accept));
            message.text(7, if base.nat { "nat" } else { "filter" });
        }
        self.push(message, format!("cannot add chain `{name}`"));
    }

    pub(crate) fn delete_chain(&mut self, table: Table, name: &str) {
        let mut message = begin(table, DELCHAIN, 0);
        message.text(1, table.name).text(3, name);
        self.push(message, format!("cannot delete chain `{name}`"));
    }

    pub(crate) fn add_rule(&mut self, table: Table, chain: &str, rule: &Rule) {
        let mut message = begin(table, NEWRULE, CREATE | APPEND);
        message.text(1, table.name).text(2, chain).nest(4, |m| {
            m.append(rule.expressions());
        });
        let number = self.steps.len();
        self.push(
            message,
            format!("cannot add a rule to chain `{chain}` (step {number})"),
        );
    }

    pub(crate) fn add_set(&mut self, table: Table, name: &str, key: Key, value: Value) {
        let (kind, length) = key.kind();
        let number = u32::try_from(self.steps.len()).unwrap_or(0) + 1;
        let mut message = begin(table, NEWSET, CREATE);
        message
            .text(1, table.name)
            .text(2, name)
            .be32(4, kind)
            .be32(5, length)
            .be32(10, number);
        match value {
            Value::Nothing => message.be32(3, 0),
            Value::Mark => message.be32(3, SET_MAP).be32(6, 19).be32(7, 4),
            Value::Verdict => message.be32(3, SET_MAP).be32(6, TYPE_VERDICT).be32(7, 16),
        };
        self.push(message, format!("cannot add set `{name}`"));
    }

    pub(crate) fn add_elements(&mut self, table: Table, set: &str, elements: &[(Vec<u8>, Data)]) {
        self.elements(table, set, NEWSETELEM, CREATE, elements, "add to");
    }

    pub(crate) fn delete_element(&mut self, table: Table, set: &str, key: Vec<u8>) {
        let element = [(key, Data::Nothing)];
        self.elements(table, set, DELSETELEM, 0, &element, "delete from");
    }

    pub(crate) fn add_counter(&mut self, table: Table, name: &str) {
        let mut message = begin(table, NEWOBJ, CREATE);
        message
            .text(1, table.name)
            .text(2, name)
            .be32(3, OBJECT_COUNTER)
            .nest(4, |_| {});
        self.push(message, format!("cannot add counter `{name}`"));
    }

    /// Sends everything in the calling thread's network namespace.
    pub(crate) fn commit(self) -> Result<(), Error> {
        let mut socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
        let first = socket.next_sequence();
        let mut bytes = control(BATCH_BEGIN).finish(first)?;
        let mut names = Vec::with_capacity(self.steps.len());
        let total = self.steps.len();
        for (index, (mut message, name)) in self.steps.into_iter().enumerate() {
            // Errors come for every step; one acknowledgement, for the last, keeps answers few.
            if index + 1 == total {
                message.want_ack();
            }
            bytes.extend(message.finish(socket.next_sequence())?);
            names.push(name);
        }
        bytes.extend(control(BATCH_END).finish(socket.next_sequence())?);
        socket.reserve(bytes.len())?;
        let what = "cannot change nftables rules";
        socket.send(&bytes, what)?;
        outcome(&mut socket, first, &names)
    }

    fn elements(
        &mut self,
        table: Table,
        set: &str,
        kind: u16,
        flags: u16,
        elements: &[(Vec<u8>, Data)],
        verb: &str,
    ) {
        let mut rest = elements.iter().peekable();
        while rest.peek().is_some() {
            let mut message = begin(table, kind, flags);
            message.text(1, table.name).text(2, set);
            message.nest(3, |m| {
                while m.len() < MAX_ELEMENTS_BYTES {
                    let Some((key, data)) = rest.next() else {
                        break;
                    };
                    element(m, key, data);
                }
            });
            self.push(message, format!("cannot {verb} set `{set}`"));
        }
    }

    fn push(&mut self, message: Message, operation: String) {
        self.steps.push((message, operation));
    }
}

/// The named counters of a table: name, packets, bytes.
pub(crate) fn counters(table: Table) -> Result<Vec<(String, u64, u64)>, Error> {
    let mut socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
    let mut message = begin(table, GETOBJ, DUMP);
    message.text(1, table.name).be32(3, OBJECT_COUNTER);
    let mut counters = Vec::new();
    let what = format!("cannot read the counters of table `{}`", table.name);
    socket.request(message, &what, |_, body| {
        counters.extend(counter_of(body, table.name));
    })?;
    Ok(counters)
}

fn element(m: &mut Message, key: &[u8], data: &Data) {
    m.nest(1, |m| {
        m.nest(1, |m| {
            m.attr(1, key);
        });
        match data {
            Data::Nothing => {}
            Data::Mark(mark) => {
                m.nest(2, |m| {
                    m.u32(1, *mark);
                });
            }
            Data::Verdict(verdict) => {
                m.nest(2, |m| verdict.write(m));
            }
        }
    });
}

fn begin(table: Table, kind: u16, flags: u16) -> Message {
    let family = match table.family {
        TableFamily::Inet => 1,
        TableFamily::Netdev => 5,
    };
    let mut message = Message::new(SUBSYSTEM | kind, REQUEST | flags);
    message.raw(&[family, 0, 0, 0]);
    message
}

fn control(kind: u16) -> Message {
    let mut message = Message::new(kind, REQUEST);
    let [high, low] = (SUBSYSTEM >> 8).to_be_bytes();
    message.raw(&[0, 0, high, low]);
    message
}

/// Reads answers until the last step's, or one about the batch as a whole.
fn outcome(socket: &mut Socket, first: u32, names: &[String]) -> Result<(), Error> {
    let last = first.wrapping_add(u32::try_from(names.len()).unwrap_or(0));
    let mut errors: Vec<(String, Errno, String)> = Vec::new();
    let mut done = false;
    while !done {
        let bytes = socket
            .receive()
            .map_err(|e| Error::io("no answer about nftables rules", e))?;
        for answer in messages(bytes) {
            let index = answer.sequence.wrapping_sub(first).wrapping_sub(1);
            let name = usize::try_from(index).ok().and_then(|i| names.get(i));
            if let Some(Err((errno, text))) = verdict(&answer) {
                let name = name.map_or("cannot change nftables rules", |n| n);
                errors.push((name.to_owned(), errno, text));
            }
            done |= answer.sequence == last || name.is_none();
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    let errno = errors.first().map_or(Errno::EIO, |e| e.1);
    let message = errors.iter().map(|e| e.2.as_str()).find(|m| !m.is_empty());
    let message = message.unwrap_or_default().to_owned();
    errors.truncate(MAX_ERRORS_SHOWN);
    let names: Vec<_> = errors.into_iter().map(|e| e.0).collect();
    Err(Error::Netlink {
        operation: names.join("; "),
        errno,
        message,
    })
}

fn counter_of(body: &[u8], table: &str) -> Option<(String, u64, u64)> {
    let attrs = body.get(4..)?;
    // Old kernels list every table's.
    if text_of(attribute(attrs, 1)?)? != table {
        return None;
    }
    let name = text_of(attribute(attrs, 2)?)?.to_owned();
    let data = attribute(attrs, 4)?;
    let number = |kind| Some(u64::from_be_bytes(*attribute(data, kind)?.first_chunk()?));
    Some((name, number(2)?, number(1)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_counter_is_read_without_panic(body in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = counter_of(&body, "t");
        }
    }

    #[test]
    fn many_elements_are_split_over_messages() {
        let table = Table {
            family: TableFamily::Inet,
            name: "t",
        };
        let elements: Vec<_> = (0_u32..10_000)
            .map(|n| (n.to_be_bytes().to_vec(), Data::Mark(n)))
            .collect();
        let mut batch = Batch::default();
        batch.add_elements(table, "s", &elements);
        assert!(batch.steps.len() > 1);
        for (message, _) in batch.steps {
            message.finish(1).unwrap();
        }
    }
}
