//! Cluster addresses for pods outside the mesh and processes of the node: destination NAT.
//!
//! Mesh pods never pass here: the proxy balances their connections itself.

use std::net::{IpAddr, SocketAddr};

use crate::Error;
use crate::nft::{Base, Batch, Data, Direction, Family, Hook, Key, Rule, Table, TableFamily, Value, Verdict};

/// The most service ports in one table.
pub const MAX_SERVICES: usize = 10_000;
/// The most backends of one service port.
pub const MAX_BACKENDS: usize = 1_000;

const TABLE: Table = Table {
    family: TableFamily::Inet,
    name: "meshward-services",
};
const SERVICES_V4: &str = "services_v4";
const SERVICES_V6: &str = "services_v6";
const DSTNAT: i32 = -100;
const POD_LINKS: &str = "pod-";

/// The transport of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One port of one cluster address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceDnat {
    /// The cluster address.
    pub vip: IpAddr,
    /// The service's port.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// Ready endpoints of the same family; none means unreachable.
    pub backends: Vec<SocketAddr>,
}

/// Replaces the whole table of the calling thread's namespace (a node's), atomically.
///
/// A connection keeps the backend that it was given; the choice is random and uniform.
///
/// # Errors
/// When a family is mixed, a port is there twice, there are too many, or the kernel refuses; the
/// old table stays then.
pub fn set(table: &[ServiceDnat]) -> Result<(), Error> {
    check(table)?;
    let mut batch = Batch::default();
    batch.replace_table(TABLE);
    batch.add_set(TABLE, SERVICES_V4, Key::ServiceV4, Value::Verdict);
    batch.add_set(TABLE, SERVICES_V6, Key::ServiceV6, Value::Verdict);
    for (name, hook) in [("pods", Hook::Prerouting), ("node", Hook::Output)] {
        let base = Base {
            nat: true,
            hook,
            priority: DSTNAT,
            accept: true,
        };
        batch.add_chain(TABLE, name, Some(base));
    }
    for (family, map) in [(Family::V4, SERVICES_V4), (Family::V6, SERVICES_V6)] {
        // A mark says that the packet is captured, or the proxy's own: neither is balanced here.
        let pods = Rule::new()
            .interface_prefix(Direction::In, POD_LINKS)
            .mark(0)
            .service_verdict(family, map);
        batch.add_rule(TABLE, "pods", &pods);
        let node = Rule::new().mark(0).service_verdict(family, map);
        batch.add_rule(TABLE, "node", &node);
    }
    let mut elements = [Vec::new(), Vec::new()];
    let balanced = table.iter().filter(|s| !s.backends.is_empty());
    for (number, service) in balanced.enumerate() {
        let chain = format!("service_{number}");
        batch.add_chain(TABLE, &chain, None);
        balance(&mut batch, &chain, &service.backends);
        let [v4, v6] = &mut elements;
        let list = if service.vip.is_ipv4() { v4 } else { v6 };
        list.push((key(service), Data::Verdict(Verdict::Goto(chain))));
    }
    let [v4, v6] = &elements;
    batch.add_elements(TABLE, SERVICES_V4, v4);
    batch.add_elements(TABLE, SERVICES_V6, v6);
    batch.commit()
}

/// Removes the table, if it is there.
pub(crate) fn remove() -> Result<(), Error> {
    let mut batch = Batch::default();
    batch.add_table(TABLE);
    batch.delete_table(TABLE);
    batch.commit()
}

fn check(table: &[ServiceDnat]) -> Result<(), Error> {
    if table.len() > MAX_SERVICES {
        return Err(Error::Invalid(format!(
            "{} service ports are more than {MAX_SERVICES}",
            table.len()
        )));
    }
    let mut seen = std::collections::BTreeSet::new();
    for service in table {
        let name = format!(
            "{} {:?}",
            SocketAddr::from((service.vip, service.port)),
            service.protocol
        );
        if !seen.insert((service.vip, service.port, service.protocol)) {
            return Err(Error::Invalid(format!("service {name} is there twice")));
        }
        if service.backends.len() > MAX_BACKENDS {
            return Err(Error::Invalid(format!(
                "service {name} has more than {MAX_BACKENDS} backends"
            )));
        }
        let v4 = service.vip.is_ipv4();
        if let Some(backend) = service.backends.iter().find(|b| b.is_ipv4() != v4) {
            return Err(Error::Invalid(format!(
                "service {name} has the backend {backend} of the other family"
            )));
        }
    }
    Ok(())
}

/// The first backend is taken with the chance 1 in n, else the second with 1 in n - 1, and so on.
fn balance(batch: &mut Batch, chain: &str, backends: &[SocketAddr]) {
    let mut left = u32::try_from(backends.len()).unwrap_or(0);
    for backend in backends {
        let rule = if left > 1 {
            Rule::new().one_in(left)
        } else {
            Rule::new()
        };
        left = left.saturating_sub(1);
        batch.add_rule(TABLE, chain, &rule.dnat(backend.ip(), backend.port()));
    }
}

/// Address, protocol and port, each padded to a register.
fn key(service: &ServiceDnat) -> Vec<u8> {
    let mut key = match service.vip {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let protocol = match service.protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    let [high, low] = service.port.to_be_bytes();
    key.extend_from_slice(&[protocol, 0, 0, 0, high, low, 0, 0]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(vip: &str, backends: &[&str]) -> ServiceDnat {
        ServiceDnat {
            vip: vip.parse().unwrap(),
            port: 80,
            protocol: Protocol::Tcp,
            backends: backends.iter().map(|b| b.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn families_do_not_mix_and_ports_are_unique() {
        let good = service("10.96.0.1", &["10.77.0.2:8080"]);
        assert!(check(std::slice::from_ref(&good)).is_ok());
        let mixed = check(&[service("10.96.0.1", &["[fd77::1]:8080"])]);
        assert!(mixed.unwrap_err().to_string().contains("other family"));
        let twice = check(&[good.clone(), good]);
        assert!(twice.unwrap_err().to_string().contains("twice"));
    }
}
