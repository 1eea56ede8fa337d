//! The rules of a node before any pod is there.  Everything that is not foreseen is dropped, and
//! every drop has a reason, a counter and a (rate-limited) report.
//!
//! Two layers that do not rely on each other: a guard on each pod's device (`pod`), and the tables
//! here.  Below both, routing by interface delivers what mesh pods send to the node itself, so that
//! even without any rule nothing of theirs is forwarded.

use std::net::IpAddr;

use super::{DropReason, NodeSetup};
use crate::nft::{Base, Batch, Direction, Family, Hook, Key, Rule, Table, TableFamily, Value};
use crate::{DNS_PORT, Error, INBOUND_PORT, NFLOG_GROUP, OUTBOUND_PORT, PROXY_MARK, plan};
use Direction::{In, Out};

/// The rules of the IP layer.
pub(super) const MESH: Table = Table {
    family: TableFamily::Inet,
    name: "meshward",
};
/// The guards of the pods' devices.
pub(super) const GUARD: Table = Table {
    family: TableFamily::Netdev,
    name: "meshward-guard",
};

/// Interfaces of mesh pods, with their marks.
pub(super) const MESH_LINKS: &str = "mesh_links";
/// Interfaces of plain pods, with their marks.
pub(super) const PLAIN_LINKS: &str = "plain_links";
/// Interfaces of mesh pods paired with their own marks: what may answer there.
pub(super) const MESH_ANSWERS: &str = "mesh_answers";
/// Addresses of this node's mesh pods, with their marks.
pub(super) const MESH_V4: &str = "mesh_v4";
/// See `MESH_V4`.
pub(super) const MESH_V6: &str = "mesh_v6";

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;
const DNS: u16 = 53;
const POD_LINKS: &str = "pod-";
const LOG_RATE: u64 = 200;
const LOG_BURST: u32 = 400;
/// Enough for the longest headers; contents are nobody's business.
const LOG_BYTES: u32 = 96;

const RAW: i32 = -300;
const MANGLE: i32 = -150;
/// After destination NAT (-100), so that what a cluster address stood for is what is captured.
const AFTER_DNAT: i32 = -90;
const FILTER: i32 = 0;

/// Replaces both tables by empty-handed ones.
pub(super) fn install(setup: &NodeSetup) -> Result<(), Error> {
    let mut batch = Batch::default();
    for table in [MESH, GUARD] {
        batch.replace_table(table);
        for reason in DropReason::ALL {
            reason_chain(&mut batch, table, reason);
        }
    }
    batch.add_set(MESH, MESH_LINKS, Key::Interface, Value::Mark);
    batch.add_set(MESH, PLAIN_LINKS, Key::Interface, Value::Mark);
    batch.add_set(MESH, MESH_ANSWERS, Key::InterfaceMark, Value::Nothing);
    batch.add_set(MESH, MESH_V4, Key::V4, Value::Mark);
    batch.add_set(MESH, MESH_V6, Key::V6, Value::Mark);
    for chain in ["from_mesh", "from_plain", "to_mesh", "to_mesh_link"] {
        batch.add_chain(MESH, chain, None);
    }
    let mut rules = Rules { batch };
    rules.tracking(setup);
    rules.capture_outbound(setup);
    rules.capture_inbound();
    rules.input(setup);
    rules.forward(setup);
    rules.output();
    rules.batch.commit()
}

/// Removes both tables.
pub(super) fn uninstall() -> Result<(), Error> {
    let mut batch = Batch::default();
    for table in [MESH, GUARD] {
        batch.add_table(table);
        batch.delete_table(table);
    }
    batch.commit()
}

/// The chain that reports, counts and drops for one reason.
pub(super) fn drop_chain(reason: DropReason) -> String {
    format!("drop_{}", reason.name())
}

fn reason_chain(batch: &mut Batch, table: Table, reason: DropReason) {
    let chain = drop_chain(reason);
    batch.add_counter(table, reason.name());
    batch.add_chain(table, &chain, None);
    let report = Rule::new()
        .at_most(LOG_RATE, LOG_BURST)
        .log(NFLOG_GROUP, reason.name(), LOG_BYTES);
    batch.add_rule(table, &chain, &report);
    batch.add_rule(table, &chain, &Rule::new().count(reason.name()).drop());
}

fn addresses(family: Family) -> &'static str {
    match family {
        Family::V4 => MESH_V4,
        Family::V6 => MESH_V6,
    }
}

struct Rules {
    batch: Batch,
}

impl Rules {
    fn base(&mut self, name: &str, hook: Hook<'_>, priority: i32, accept: bool) {
        let base = Base {
            nat: false,
            hook,
            priority,
            accept,
        };
        self.batch.add_chain(MESH, name, Some(base));
    }

    fn rule(&mut self, chain: &str, rule: Rule) {
        self.batch.add_rule(MESH, chain, &rule);
    }

    fn refuse(&mut self, chain: &str, rule: Rule, reason: DropReason) {
        self.rule(chain, rule.goto(drop_chain(reason)));
    }

    /// What the proxy handles is not tracked: a flood of it cannot fill the table of connections,
    /// and destination NAT does not see it.
    fn tracking(&mut self, setup: &NodeSetup) {
        self.base("untracked_in", Hook::Prerouting, RAW, true);
        self.base("untracked_out", Hook::Output, RAW, true);
        let from_mesh = Rule::new().interface_in(In, MESH_LINKS).untracked();
        self.rule("untracked_in", from_mesh);
        let to_mesh = Rule::new().interface_in(Out, MESH_LINKS).untracked();
        self.rule("untracked_out", to_mesh);
        for family in Family::BOTH {
            let map = addresses(family);
            let captured = Rule::new()
                .interface(In, &setup.uplink)
                .destination_in(family, map);
            self.rule("untracked_in", captured.untracked());
            let answers = Rule::new().interface(Out, &setup.uplink).source_in(family, map);
            self.rule("untracked_out", answers.untracked());
        }
    }

    fn capture_outbound(&mut self, setup: &NodeSetup) {
        let chain = "from_pods";
        self.base(chain, Hook::Prerouting, MANGLE, true);
        let mesh = Rule::new().interface_in(In, MESH_LINKS).set_mark_found();
        self.rule(chain, mesh.goto("from_mesh"));
        let plain = Rule::new().interface_in(In, PLAIN_LINKS);
        self.rule(chain, plain.goto("from_plain"));
        let unknown = Rule::new().interface_prefix(In, POD_LINKS);
        self.refuse(chain, unknown, DropReason::UnknownInterface);

        let chain = "from_mesh";
        for protocol in [TCP, UDP] {
            for family in Family::BOTH {
                let dns = Rule::new().transport(protocol).destination_port(DNS);
                self.rule(chain, dns.tproxy(family, DNS_PORT).accept());
            }
        }
        for family in Family::BOTH {
            let tcp = Rule::new().transport(TCP);
            self.rule(chain, tcp.tproxy(family, OUTBOUND_PORT).accept());
        }
        let tcp = Rule::new().transport(TCP);
        self.refuse(chain, tcp, DropReason::ProxyAbsent);
        let dns = Rule::new().transport(UDP).destination_port(DNS);
        self.refuse(chain, dns, DropReason::ProxyAbsent);
        self.refuse(chain, Rule::new().transport(UDP), DropReason::Udp);
        self.refuse(chain, Rule::new(), DropReason::OtherProtocol);

        let chain = "from_plain";
        let (v4, v6) = setup.cluster_dns;
        for address in [IpAddr::V4(v4), IpAddr::V6(v6)] {
            for protocol in [TCP, UDP] {
                let dns = || {
                    Rule::new()
                        .destination(address)
                        .transport(protocol)
                        .destination_port(DNS)
                };
                let marked = dns().interface_in(In, PLAIN_LINKS).set_mark_found();
                let family = Family::of(address);
                self.rule(chain, marked.tproxy(family, DNS_PORT).accept());
                self.refuse(chain, dns(), DropReason::ProxyAbsent);
            }
        }
    }

    /// Whatever is addressed to a mesh pod of this node, from the wire or from a plain pod.
    fn capture_inbound(&mut self) {
        let chain = "to_pods";
        self.base(chain, Hook::Prerouting, AFTER_DNAT, true);
        // From a mesh pod: taken already, whatever its destination.
        let taken = Rule::new().interface_in(In, MESH_LINKS);
        self.rule(chain, taken.accept());
        for family in Family::BOTH {
            let pod = Rule::new().destination_in(family, addresses(family));
            self.rule(chain, pod.set_mark_found().goto("to_mesh"));
        }
        let chain = "to_mesh";
        for family in Family::BOTH {
            let tcp = Rule::new().transport(TCP);
            self.rule(chain, tcp.tproxy(family, INBOUND_PORT).accept());
        }
        let tcp = Rule::new().transport(TCP);
        self.refuse(chain, tcp, DropReason::ProxyAbsent);
        self.refuse(chain, Rule::new(), DropReason::ToPodNotTcp);
    }

    fn input(&mut self, setup: &NodeSetup) {
        let chain = "input";
        self.base(chain, Hook::Input, FILTER, false);
        let captured = Rule::new().pod_mark();
        self.rule(chain, captured.transparent_socket().accept());
        self.refuse(chain, Rule::new().pod_mark(), DropReason::ProxyAbsent);
        for port in [OUTBOUND_PORT, INBOUND_PORT, DNS_PORT] {
            for protocol in [TCP, UDP] {
                let direct = Rule::new().transport(protocol).destination_port(port);
                self.refuse(chain, direct, DropReason::CapturePortDirect);
            }
        }
        self.rule(chain, Rule::new().interface(In, "lo").accept());
        let discovery = Rule::new().interface(In, &setup.uplink).transport(ICMPV6);
        self.rule(chain, discovery.accept());
        for address in [IpAddr::V4(setup.v4.0), IpAddr::V6(setup.v6.0)] {
            let own = || Rule::new().destination(address);
            self.rule(chain, own().interface(In, &setup.uplink).accept());
            self.rule(chain, own().interface_in(In, PLAIN_LINKS).accept());
        }
        self.refuse(chain, Rule::new(), DropReason::ToNode);
    }

    fn forward(&mut self, setup: &NodeSetup) {
        let chain = "forward";
        self.base(chain, Hook::Forward, FILTER, false);
        let from_plain = || Rule::new().interface_in(In, PLAIN_LINKS);
        self.rule(chain, from_plain().interface_in(Out, PLAIN_LINKS).accept());
        self.rule(chain, from_plain().interface(Out, &setup.uplink).accept());
        let from_wire = Rule::new().interface(In, &setup.uplink);
        self.rule(chain, from_wire.interface_in(Out, PLAIN_LINKS).accept());
        self.refuse(chain, Rule::new(), DropReason::Forward);
    }

    /// Into a mesh pod go the proxy's own connections, and answers to what was captured from that
    /// very pod; nothing else that the node sends.
    fn output(&mut self) {
        self.base("output", Hook::Output, FILTER, true);
        let link = Rule::new().interface_in(Out, MESH_LINKS);
        self.rule("output", link.goto("to_mesh_link"));
        let chain = "to_mesh_link";
        for source in [IpAddr::V4(plan::APP_SOURCE_V4), IpAddr::V6(plan::APP_SOURCE_V6)] {
            let proxy = Rule::new().mark(PROXY_MARK).source(source).transport(TCP);
            self.rule(chain, proxy.accept());
        }
        let answer = || Rule::new().out_interface_and_mark_in(MESH_ANSWERS);
        self.rule(chain, answer().transport(TCP).not_opening().accept());
        let dns = answer().transport(UDP).source_port(DNS);
        self.rule(chain, dns.accept());
        // The kernel's own multicast about itself; of no use to a routed pod.
        let multicast = Rule::new()
            .family(Family::V6)
            .network_bytes(24, &[0xff], true)
            .transport(ICMPV6);
        self.refuse(chain, multicast, DropReason::Discovery);
        self.refuse(chain, Rule::new(), DropReason::NodeToPod);
    }
}
