//! Cluster addresses for Services that were given none: the same for the same world, whatever the order of its
//! objects.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::{Cidr, ServiceName};

/// The addresses of one Service, IPv4 first; as many as could be found.
pub(crate) type Addresses = BTreeMap<ServiceName, Vec<IpAddr>>;

/// The blocks that addresses are chosen from.
pub(crate) fn ranges() -> Vec<Cidr> {
    let blocks = [Cidr::new(v4_of(0).into(), 16), Cidr::new(v6_of(0).into(), 112)];
    blocks.into_iter().flatten().collect()
}

/// Completes what was `given` to one address of each family, out of 10.96.0.0/16 and fd77:96::/112. The place is
/// a hash of the Service's name; a taken place is followed by the next, Services in the order of their names.
pub(crate) fn complete(given: Addresses, reserved: &[IpAddr]) -> Addresses {
    let mut taken: HashSet<IpAddr> = reserved.iter().copied().collect();
    taken.extend(given.values().flatten());
    let complete = |(name, mut own): (ServiceName, Vec<IpAddr>)| {
        let missing = |v6: bool| !own.iter().any(|ip| ip.is_ipv6() == v6);
        let wanted = (missing(false), missing(true));
        let found = place(&name, wanted, &taken);
        taken.extend(found.iter().copied());
        own.extend(found);
        own.sort_by_key(IpAddr::is_ipv6);
        (name, own)
    };
    given.into_iter().map(complete).collect()
}

/// The first place whose addresses of the wanted families are all free.
fn place(name: &ServiceName, (v4, v6): (bool, bool), taken: &HashSet<IpAddr>) -> Vec<IpAddr> {
    let start = hash(name);
    let at = |step: u16| {
        let slot = start.wrapping_add(step);
        let addresses = [
            v4.then(|| IpAddr::V4(v4_of(slot))),
            v6.then(|| IpAddr::V6(v6_of(slot))),
        ];
        let addresses: Vec<IpAddr> = addresses.into_iter().flatten().collect();
        // The first and the last address of a block are nobody's.
        let free = slot != 0 && slot != u16::MAX && addresses.iter().all(|ip| !taken.contains(ip));
        free.then_some(addresses)
    };
    (0..=u16::MAX).find_map(at).unwrap_or_default()
}

fn v4_of(slot: u16) -> Ipv4Addr {
    let [high, low] = slot.to_be_bytes();
    Ipv4Addr::new(10, 96, high, low)
}

fn v6_of(slot: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0x96, 0, 0, 0, 0, 0, slot)
}

/// FNV-1a over `namespace/name`, folded to 16 bits: stable over versions of the compiler and of Rust.
fn hash(name: &ServiceName) -> u16 {
    let text = name.to_string();
    let wide = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let [a, b, c, d] = wide.to_be_bytes();
    u16::from_be_bytes([a ^ c, b ^ d])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Addresses {
        (0..count)
            .map(|i| (ServiceName::new("n", &format!("s{i}")), Vec::new()))
            .collect()
    }

    #[test]
    fn both_families_share_a_place_and_nothing_is_given_twice() {
        let reserved = Vec::from(["10.96.0.10", "fd77:96::a"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        let out = complete(names(5_000), &reserved);
        let mut seen: HashSet<IpAddr> = reserved.into_iter().collect();
        for (name, own) in &out {
            assert!(
                own.len() == 2 && own[0].is_ipv4() && own[1].is_ipv6(),
                "{name} {own:?}"
            );
            assert!(own.iter().all(|ip| seen.insert(*ip)), "{name} {own:?}");
        }
    }

    #[test]
    fn what_was_given_stays_and_the_other_family_is_added() {
        let name = ServiceName::new("n", "a");
        let given: IpAddr = "10.96.1.1".parse().unwrap();
        let out = complete([(name.clone(), vec![given])].into(), &[]);
        assert_eq!(out[&name][0], given);
        assert!(out[&name][1].is_ipv6());
    }

    #[test]
    fn chosen_addresses_lie_in_the_ranges() {
        assert_eq!(ranges().len(), 2);
        for own in complete(names(100), &[]).values() {
            assert!(
                own.iter()
                    .all(|ip| ranges().iter().any(|range| range.contains(*ip))),
                "{own:?}"
            );
        }
    }

    #[test]
    fn a_full_range_ends() {
        let mut taken: HashSet<IpAddr> = (0..=u16::MAX).map(|slot| IpAddr::V4(v4_of(slot))).collect();
        let name = ServiceName::new("n", "a");
        assert_eq!(place(&name, (true, true), &taken), Vec::<IpAddr>::new());
        let last = IpAddr::V4(v4_of(7));
        taken.remove(&last);
        assert_eq!(place(&name, (true, false), &taken), vec![last]);
    }
}
