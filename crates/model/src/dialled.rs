//! Addresses that no part of a mesh dials because an object or somebody's DNS says so: there it would be asked as one that it is not.
//!
//! Whoever may write a RequestAuthentication names an address that the control plane then dials, and whoever owns the zone of a
//! ServiceEntry's host one that a proxy does (SSRF). The judgement is of the address that is dialled, not of a name, and of
//! each hop of a redirect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Cidr;

/// Clouds tell machines who they are at these, besides the link-local ones.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254)),
];

/// Judges an address; `allow` are networks that are dialled although they would be refused.
///
/// # Errors
/// What it is.
pub fn may_dial(address: IpAddr, allow: &[Cidr]) -> Result<(), &'static str> {
    let address = address.to_canonical();
    if allow.iter().any(|network| network.contains(address)) {
        return Ok(());
    }
    match address {
        IpAddr::V4(v4) => judge_v4(v4),
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => judge_v4(v4).and_then(|()| judge_v6(v6)),
            None => judge_v6(v6),
        },
    }
}

fn judge_v4(address: Ipv4Addr) -> Result<(), &'static str> {
    let [first, ..] = address.octets();
    if METADATA.contains(&IpAddr::V4(address)) {
        Err("a cloud's metadata service")
    } else if first == 0 {
        Err("an unspecified address")
    } else if address.is_loopback() {
        Err("a loopback address")
    } else if address.is_link_local() {
        Err("a link-local address")
    } else if address.is_multicast() {
        Err("a multicast address")
    } else if first >= 240 {
        Err("a reserved address")
    } else {
        Ok(())
    }
}

fn judge_v6(address: Ipv6Addr) -> Result<(), &'static str> {
    if METADATA.contains(&IpAddr::V6(address)) {
        Err("a cloud's metadata service")
    } else if address.is_unspecified() {
        Err("an unspecified address")
    } else if address.is_loopback() {
        Err("a loopback address")
    } else if address.is_unicast_link_local() {
        Err("a link-local address")
    } else if address.is_multicast() {
        Err("a multicast address")
    } else {
        Ok(())
    }
}

/// The IPv4 address that a translator or a tunnel would make of it: `::a.b.c.d`, NAT64 (RFC 6052, RFC 8215), 6to4 (RFC
/// 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([w, x], [y, z]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(w, x, y, z)
    };
    match (a, b) {
        (0, 0) if (c, d, e, f) == (0, 0, 0, 0) && (g, h) > (0, 1) => Some(v4(g, h)),
        (0x64, 0xff9b) => Some(v4(g, h)),
        (0x2002, _) => Some(v4(b, c)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(address: &str, allow: &[&str]) -> Result<(), &'static str> {
        let allow: Vec<Cidr> = allow.iter().map(|network| network.parse().unwrap()).collect();
        may_dial(address.parse().unwrap(), &allow)
    }

    #[test]
    fn what_is_not_dialled_in_every_spelling() {
        for (address, what) in [
            ("127.0.0.1", "loopback"),
            ("127.255.0.9", "loopback"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::127.0.0.1", "loopback"),
            ("64:ff9b::127.0.0.1", "loopback"),
            ("2002:7f00:1::", "loopback"),
            ("169.254.169.254", "link-local"),
            ("::ffff:169.254.169.254", "link-local"),
            ("64:ff9b::a9fe:a9fe", "link-local"),
            ("64:ff9b:1::a9fe:a9fe", "link-local"),
            ("2002:a9fe:a9fe::1", "link-local"),
            ("fe80::1", "link-local"),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("::", "unspecified"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("240.0.0.1", "reserved"),
            ("168.63.129.16", "metadata"),
            ("100.100.100.200", "metadata"),
            ("192.0.0.192", "metadata"),
            ("fd00:ec2::254", "metadata"),
            ("fd20:ce::254", "metadata"),
        ] {
            let judged = judge(address, &[]).unwrap_err();
            assert!(judged.contains(what), "{address}: {judged}");
        }
    }

    #[test]
    fn others_are_and_so_is_what_is_allowed() {
        for address in [
            "10.77.0.2",
            "192.168.77.1",
            "93.184.216.34",
            "2606:4700::1",
            "fd77:1::2",
        ] {
            assert_eq!(judge(address, &[]), Ok(()), "{address}");
        }
        assert_eq!(judge("127.0.0.1", &["127.0.0.0/8"]), Ok(()));
        assert_eq!(judge("::ffff:127.0.0.1", &["127.0.0.1/32"]), Ok(()));
        assert!(judge("169.254.169.254", &["127.0.0.0/8"]).is_err());
    }
}
