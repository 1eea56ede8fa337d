//! Cluster addresses for Services that were given none: the same for the same world, whatever the order of its
//! objects.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use api::Object;
use model::{Cidr, ServiceName};

use crate::space::age;

/// The blocks that addresses are chosen from.
pub(crate) fn ranges() -> Vec<Cidr> {
    let blocks = [Cidr::new(v4_of(0).into(), 16), Cidr::new(v6_of(0).into(), 112)];
    blocks.into_iter().flatten().collect()
}

/// What somebody asks for: the addresses that are written, which may be none, and the object that writes them.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) object: Arc<Object>,
    /// Within the ranges.
    pub(crate) wanted: Vec<IpAddr>,
}

/// The claims of a namespace.
pub(crate) type Claims = BTreeMap<ServiceName, Claim>;

/// What somebody gets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Share {
    /// IPv4 first; as many as could be found, at most one a family.
    pub(crate) addresses: Vec<IpAddr>,
    /// Addresses that an older one has, and that one.
    pub(crate) refused: Vec<(IpAddr, ServiceName)>,
    /// The place that was looked at first and the one that was taken, where those are two.
    steps: Option<(u16, u16)>,
}

/// The addresses of all Services: as they are written, the oldest first where two want the same, and completed to one address
/// of each family out of 10.96.0.0/16 and fd77:96::/112. The place is a hash of the Service's name; a taken place is followed by
/// the next, Services in the order of their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allotment {
    reserved: Vec<IpAddr>,
    shares: HashMap<ServiceName, Share>,
    taken: HashSet<IpAddr>,
    /// Who did not get the place that was looked at first.
    moved: BTreeMap<ServiceName, (u16, u16)>,
    refused: usize,
}

impl Allotment {
    /// Nobody has anything; `reserved` are never given.
    pub(crate) fn new(reserved: &[IpAddr]) -> Self {
        Self {
            reserved: reserved.to_vec(),
            taken: reserved.iter().copied().collect(),
            ..Self::default()
        }
    }

    /// What a Service has.
    pub(crate) fn of(&self, name: &ServiceName) -> Option<&Share> {
        self.shares.get(name)
    }

    /// Takes in that claims have become others; returns whose share is another one by it. What comes out is the same as if all
    /// of `all` had been looked at anew, which is done where somebody may have to move, or where more than `many` are new.
    pub(crate) fn change<'c>(
        &mut self,
        before: &Claims,
        now: &Claims,
        many: usize,
        all: impl Fn() -> Vec<(&'c ServiceName, &'c Claim)>,
    ) -> Vec<ServiceName> {
        let same = |name: &ServiceName, claim: &Claim, other: &Claims| {
            other.get(name).is_some_and(|other| other.wanted == claim.wanted)
        };
        let gone = before.iter().filter(|(name, claim)| !same(name, claim, now));
        let new: Vec<_> = now
            .iter()
            .filter(|(name, claim)| !same(name, claim, before))
            .collect();
        // Who is the older of two is another question when one of them is written anew.
        let stays_simple =
            self.refused == 0 && new.len() <= many && gone.clone().all(|(name, _)| self.remove(name));
        if stays_simple && new.iter().all(|(name, claim)| self.add(name, claim)) {
            return gone
                .map(|(name, _)| name)
                .chain(new.iter().map(|(name, _)| *name))
                .cloned()
                .collect();
        }
        let old = std::mem::replace(self, Self::new(&self.reserved));
        self.fill(all());
        let mut changed: Vec<_> = gone.map(|(name, _)| name.clone()).collect();
        changed.extend(new.iter().map(|(name, _)| (*name).clone()));
        let other = self
            .shares
            .iter()
            .filter(|(name, share)| old.shares.get(name) != Some(share));
        changed.extend(other.map(|(name, _)| name.clone()));
        changed
    }

    /// Takes a share back; whether nobody would have another one without it.
    fn remove(&mut self, name: &ServiceName) -> bool {
        let Some(share) = self.shares.remove(name) else {
            return true;
        };
        self.moved.remove(name);
        let mut free = share.addresses.iter().filter(|ip| !self.reserved.contains(ip));
        let passed =
            |(start, place): &(u16, u16), slot: u16| slot.wrapping_sub(*start) < place.wrapping_sub(*start);
        let simple = free.all(|ip| {
            let slot = slot_of(*ip);
            slot.is_none_or(|slot| !self.moved.values().any(|steps| passed(steps, slot)))
        });
        for ip in &share.addresses {
            if !self.reserved.contains(ip) {
                self.taken.remove(ip);
            }
        }
        simple
    }

    /// Gives a share; whether nobody else would have another one by it.
    fn add(&mut self, name: &ServiceName, claim: &Claim) -> bool {
        let mut own: Vec<IpAddr> = Vec::new();
        for ip in &claim.wanted {
            if self.taken.contains(ip) {
                return false;
            }
            if !own.iter().any(|held| held.is_ipv6() == ip.is_ipv6()) {
                own.push(*ip);
            }
        }
        self.taken.extend(own.iter().copied());
        let start = hash(name);
        let found = at(start, missing(&own), &self.taken);
        let Some(found) = found else {
            return false;
        };
        self.taken.extend(found.iter().copied());
        own.extend(found);
        own.sort_by_key(IpAddr::is_ipv6);
        let share = Share {
            addresses: own,
            ..Share::default()
        };
        self.shares.insert(name.clone(), share);
        true
    }

    fn fill(&mut self, mut claims: Vec<(&ServiceName, &Claim)>) {
        claims.sort_by(|a, b| age(&a.1.object, &b.1.object).then_with(|| a.0.cmp(b.0)));
        let mut owners: HashMap<IpAddr, &ServiceName> = HashMap::new();
        let mut given: BTreeMap<&ServiceName, Share> = BTreeMap::new();
        for (name, claim) in claims {
            let share = given.entry(name).or_default();
            for ip in &claim.wanted {
                let owner = *owners.entry(*ip).or_insert(name);
                if owner != name {
                    self.refused += 1;
                    share.refused.push((*ip, owner.clone()));
                } else if !share.addresses.iter().any(|held| held.is_ipv6() == ip.is_ipv6()) {
                    share.addresses.push(*ip);
                }
            }
        }
        self.taken
            .extend(given.values().flat_map(|share| &share.addresses));
        for (name, mut share) in given {
            let (found, steps) = place(name, missing(&share.addresses), &self.taken);
            self.taken.extend(found.iter().copied());
            share.addresses.extend(found);
            share.addresses.sort_by_key(IpAddr::is_ipv6);
            share.steps = steps;
            if let Some(steps) = steps {
                self.moved.insert(name.clone(), steps);
            }
            self.shares.insert(name.clone(), share);
        }
    }
}

/// Whether an IPv4 and an IPv6 address are wanted beside these.
fn missing(own: &[IpAddr]) -> (bool, bool) {
    let missing = |v6: bool| !own.iter().any(|ip| ip.is_ipv6() == v6);
    (missing(false), missing(true))
}

/// The first place whose addresses of the wanted families are all free, and the way there where it was not the first that was
/// looked at.
fn place(
    name: &ServiceName,
    wanted: (bool, bool),
    taken: &HashSet<IpAddr>,
) -> (Vec<IpAddr>, Option<(u16, u16)>) {
    let start = hash(name);
    if wanted == (false, false) {
        return (Vec::new(), None);
    }
    let found = (0..=u16::MAX).find_map(|step| Some((step, at(start.wrapping_add(step), wanted, taken)?)));
    match found {
        Some((0, addresses)) => (addresses, None),
        Some((step, addresses)) => (addresses, Some((start, start.wrapping_add(step)))),
        // Whatever is given back is looked at.
        None => (Vec::new(), Some((start, start.wrapping_sub(1)))),
    }
}

/// The addresses of a place, where all that are wanted are free.
fn at(slot: u16, (v4, v6): (bool, bool), taken: &HashSet<IpAddr>) -> Option<Vec<IpAddr>> {
    if !v4 && !v6 {
        return Some(Vec::new());
    }
    let addresses = [
        v4.then(|| IpAddr::V4(v4_of(slot))),
        v6.then(|| IpAddr::V6(v6_of(slot))),
    ];
    let addresses: Vec<IpAddr> = addresses.into_iter().flatten().collect();
    // The first and the last address of a block are nobody's.
    let free = slot != 0 && slot != u16::MAX && addresses.iter().all(|ip| !taken.contains(ip));
    free.then_some(addresses)
}

/// The place that an address belongs to; `None` outside the blocks.
fn slot_of(ip: IpAddr) -> Option<u16> {
    let slot = match ip {
        IpAddr::V4(v4) => {
            let [_, _, high, low] = v4.octets();
            u16::from_be_bytes([high, low])
        }
        IpAddr::V6(v6) => {
            let [.., last] = v6.segments();
            last
        }
    };
    let own = [IpAddr::V4(v4_of(slot)), IpAddr::V6(v6_of(slot))];
    own.contains(&ip).then_some(slot)
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
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static OBJECT: LazyLock<Arc<Object>> = LazyLock::new(|| {
        let text =
            "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: n}, spec: {ports: [{port: 1}]}}";
        Arc::new(api::parse("a.yaml", text.as_bytes()).objects.remove(0))
    });

    fn claim(wanted: &[&str]) -> Claim {
        Claim {
            object: Arc::clone(&OBJECT),
            wanted: wanted.iter().map(|ip| ip.parse().unwrap()).collect(),
        }
    }

    fn names(count: usize) -> Claims {
        (0..count)
            .map(|i| (ServiceName::new("n", &format!("s{i}")), claim(&[])))
            .collect()
    }

    fn complete(claims: &Claims, reserved: &[IpAddr]) -> Allotment {
        let mut allotment = Allotment::new(reserved);
        allotment.fill(claims.iter().collect());
        allotment
    }

    #[test]
    fn both_families_share_a_place_and_nothing_is_given_twice() {
        let reserved = Vec::from(["10.96.0.10", "fd77:96::a"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        let out = complete(&names(5_000), &reserved);
        let mut seen: HashSet<IpAddr> = reserved.into_iter().collect();
        for (name, share) in &out.shares {
            let own = &share.addresses;
            assert!(
                own.len() == 2 && own[0].is_ipv4() && own[1].is_ipv6(),
                "{name} {own:?}"
            );
            assert!(own.iter().all(|ip| seen.insert(*ip)), "{name} {own:?}");
        }
        assert_eq!(out.shares.len(), 5_000);
    }

    #[test]
    fn what_was_given_stays_and_the_other_family_is_added() {
        let name = ServiceName::new("n", "a");
        let out = complete(&[(name.clone(), claim(&["10.96.1.1"]))].into(), &[]);
        let own = &out.shares[&name].addresses;
        assert_eq!(own[0], "10.96.1.1".parse::<IpAddr>().unwrap());
        assert!(own[1].is_ipv6());
    }

    #[test]
    fn chosen_addresses_lie_in_the_ranges() {
        assert_eq!(ranges().len(), 2);
        for share in complete(&names(100), &[]).shares.values() {
            assert!(
                share
                    .addresses
                    .iter()
                    .all(|ip| ranges().iter().any(|range| range.contains(*ip))),
                "{share:?}"
            );
        }
    }

    #[test]
    fn a_full_range_ends() {
        let mut taken: HashSet<IpAddr> = (0..=u16::MAX).map(|slot| IpAddr::V4(v4_of(slot))).collect();
        let name = ServiceName::new("n", "a");
        assert_eq!(place(&name, (true, true), &taken).0, Vec::<IpAddr>::new());
        let last = IpAddr::V4(v4_of(7));
        taken.remove(&last);
        assert_eq!(place(&name, (true, false), &taken).0, vec![last]);
    }

    /// Names whose places meet, so that somebody has to move.
    fn crowd() -> Vec<ServiceName> {
        let first = hash(&ServiceName::new("n", "s0"));
        let near = |name: &ServiceName| hash(name).wrapping_sub(first) < 6;
        let all = (0..200_000).map(|i| ServiceName::new("n", &format!("s{i}")));
        all.filter(near).take(12).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn changes_one_after_the_other_lead_where_all_at_once_does(
            steps in proptest::collection::vec(proptest::collection::vec((0_usize..12, 0_usize..8, any::<bool>()), 1..4), 1..12)
        ) {
            static CROWD: LazyLock<Vec<ServiceName>> = LazyLock::new(crowd);
            let first = hash(&ServiceName::new("n", "s0"));
            let reserved = [IpAddr::V4(v4_of(first.wrapping_add(2)))];
            let (mut allotment, mut claims) = (Allotment::new(&reserved), Claims::new());
            for step in steps {
                let before = claims.clone();
                let was = allotment.shares.clone();
                for (who, wanted, there) in step {
                    let name = &CROWD[who];
                    if !there {
                        claims.remove(name);
                        continue;
                    }
                    let slot = first.wrapping_add(u16::try_from(wanted).unwrap());
                    let wanted = match wanted {
                        0..4 => vec![],
                        6 => vec![v4_of(slot).to_string(), v6_of(slot).to_string()],
                        _ => vec![v4_of(slot).to_string()],
                    };
                    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
                    claims.insert(name.clone(), claim(&wanted));
                }
                let changed = allotment.change(&before, &claims, 100, || claims.iter().collect());
                let expect = complete(&claims, &reserved);
                prop_assert_eq!(&allotment.shares, &expect.shares);
                prop_assert_eq!(&allotment.taken, &expect.taken);
                for name in CROWD.iter().filter(|name| was.get(name) != allotment.shares.get(name)) {
                    prop_assert!(changed.contains(name), "{}", name);
                }
            }
        }
    }
}
