//! Host names as people and clients write them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A host name in the one form in which hosts are compared: lower case, without a trailing dot,
/// without a port; at most 253 bytes. IP literals are hosts too (IPv6 without brackets). (O-03, P11)
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(Arc<str>);

/// Why a text is not a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a host name")]
pub struct HostError(pub String);

impl Host {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let plausible = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'*' | b':');
        // With a second dot at its end it would be another host each time it is written and read.
        if name.is_empty() || name.ends_with('.') || name.len() > 253 || !name.bytes().all(plausible) {
            return Err(HostError(text.chars().take(300).collect()));
        }
        Ok(Self(Arc::from(name.to_ascii_lowercase())))
    }
}

impl TryFrom<String> for Host {
    type Error = HostError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(value: Host) -> Self {
        value.0.as_ref().to_owned()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Splits an `:authority` or `Host` value into host and port: `a:80`, `a`, `[::1]:80`, `[::1]`.
/// The host keeps its spelling. `None` where the value is malformed.
pub fn split_authority(value: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = value.strip_prefix('[') {
        let (host, tail) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match tail.strip_prefix(':') {
            None if tail.is_empty() => Some((host, None)),
            None => None,
            Some(port) => Some((host, Some(parse_port(port)?))),
        };
    }
    match value.split_once(':') {
        None if value.is_empty() => None,
        None => Some((value, None)),
        Some((host, port)) if !host.is_empty() => Some((host, Some(parse_port(port)?))),
        Some(_) => None,
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o_03_case_and_one_trailing_dot() {
        assert_eq!("Reviews.FOO.".parse::<Host>().unwrap().as_str(), "reviews.foo");
        assert!("a..".parse::<Host>().is_err());
        assert!("".parse::<Host>().is_err());
        assert!(".".parse::<Host>().is_err());
        assert!("a b".parse::<Host>().is_err());
    }

    #[test]
    fn authority() {
        assert_eq!(split_authority("a:80"), Some(("a", Some(80))));
        assert_eq!(split_authority("a"), Some(("a", None)));
        assert_eq!(split_authority("[::1]:80"), Some(("::1", Some(80))));
        assert_eq!(split_authority("[::1]"), Some(("::1", None)));
        for bad in [
            "", ":80", "a:", "a:b", "a:80:90", "[::1", "[x]:1", "[::1]80", "a:123456", "a:+80",
        ] {
            assert_eq!(split_authority(bad), None, "{bad}");
        }
    }
}
