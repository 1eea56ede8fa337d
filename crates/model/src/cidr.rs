//! Address blocks.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A v4-mapped IPv6 address as the IPv4 address that it stands for; any other unchanged.
///
/// Every address is brought into this form before it is compared (SM-27).
pub fn canonical_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// An address block of either family, host bits masked off. A bare address is a block of one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    base: IpAddr,
    len: u8,
}

/// Why a text is not an address or a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither an IP address nor a block such as 10.0.0.0/8 or fd00::/8")]
pub struct CidrError(pub String);

impl Cidr {
    /// Builds a block; host bits of `ip` are masked off (SM-28). A v4-mapped base becomes IPv4.
    ///
    /// # Errors
    /// `len` is larger than the family has bits.
    pub fn new(ip: IpAddr, len: u8) -> Result<Self, CidrError> {
        let (ip, len) = match (ip, ip.to_canonical()) {
            (IpAddr::V6(_), v4 @ IpAddr::V4(_)) if len >= 96 => (v4, len - 96),
            (ip, _) => (ip, len),
        };
        let base = mask(ip, len).ok_or_else(|| CidrError(format!("{ip}/{len}")))?;
        Ok(Self { base, len })
    }

    /// The first address.
    pub fn base(&self) -> IpAddr {
        self.base
    }

    /// The length of the prefix in bits.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a prefix length is not a collection's"
    )]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether the block holds the address; a v4-mapped address counts as IPv4 (SM-27).
    pub fn contains(&self, ip: IpAddr) -> bool {
        mask(ip.to_canonical(), self.len) == Some(self.base)
            && ip.to_canonical().is_ipv4() == self.base.is_ipv4()
    }
}

fn mask(ip: IpAddr, len: u8) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(v4) if len <= 32 => {
            let keep = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            Some(IpAddr::V4((u32::from(v4) & keep).into()))
        }
        IpAddr::V6(v6) if len <= 128 => {
            let keep = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            Some(IpAddr::V6((u128::from(v6) & keep).into()))
        }
        _ => None,
    }
}

impl From<IpAddr> for Cidr {
    fn from(ip: IpAddr) -> Self {
        let base = ip.to_canonical();
        Self {
            base,
            len: if base.is_ipv4() { 32 } else { 128 },
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || CidrError(text.to_owned());
        match text.split_once('/') {
            None => text.parse::<IpAddr>().map(Self::from).map_err(|_| fail()),
            Some((ip, len)) => {
                let plain = !len.is_empty() && len.len() <= 3 && len.bytes().all(|b| b.is_ascii_digit());
                let ip = ip.parse::<IpAddr>().map_err(|_| fail())?;
                let len = len.parse::<u8>().ok().filter(|_| plain).ok_or_else(fail)?;
                Self::new(ip, len).map_err(|_| fail())
            }
        }
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(value: Cidr) -> Self {
        value.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.len)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(block: &str, ip: &str, expect: bool) {
        assert_eq!(
            block.parse::<Cidr>().unwrap().contains(ip.parse().unwrap()),
            expect,
            "{block} {ip}"
        );
    }

    #[test]
    fn sm_26_to_28() {
        check("10.0.0.1", "10.0.0.1", true);
        check("10.0.0.1", "10.0.0.2", false);
        check("10.0.0.0/8", "::ffff:10.1.1.1", true);
        check("10.0.0.5/8", "10.200.0.1", true);
        check("::/0", "10.0.0.1", false);
        check("0.0.0.0/0", "fd00::1", false);
        check("0.0.0.0/0", "::ffff:1.2.3.4", true);
        check("fd00::/8", "fd77::1", true);
        check("::ffff:10.0.0.0/104", "10.9.9.9", true);
    }

    #[test]
    fn sm_29_refused() {
        for bad in [
            "10.0.0/8",
            "1.2.3",
            "",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "fd00::/129",
            "10.0.0.0/",
            "a/8",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
