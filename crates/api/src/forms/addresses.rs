//! Addresses: IP addresses and ranges, ports, `host:port`, Unix sockets, URLs.

use std::net::IpAddr;

use super::{Verdict, hosts};

/// What the address of a Unix socket begins with.
pub(crate) const UNIX: &str = "unix://";

/// An IPv4 or IPv6 address.
pub(crate) fn ip(text: &str) -> Verdict {
    if is_ip(text) {
        return Ok(());
    }
    Err(format!("`{text}` is not an IP address"))
}

/// Whether it is an address; an IPv6 address may have a zone (`fe80::1%eth0`).
pub(crate) fn is_ip(text: &str) -> bool {
    match text.split_once('%') {
        Some((address, zone)) => !zone.is_empty() && address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => text.parse::<IpAddr>().is_ok(),
    }
}

/// An address or a CIDR range (SM-26 to SM-29).
pub(crate) fn is_block(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return is_ip(text);
    };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    let plain = bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    plain && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

/// An address or a CIDR range.
pub(crate) fn block(text: &str) -> Verdict {
    if is_block(text) {
        return Ok(());
    }
    Err(format!("`{text}` is neither an address nor a CIDR range"))
}

/// From 1 to 65535.
pub(crate) fn port(number: i64) -> Verdict {
    if (1..=65_535).contains(&number) {
        return Ok(());
    }
    Err(format!("`{number}` is not a port from 1 to 65535"))
}

/// `HOST:PORT`, the host a full name or an address (in brackets where it is IPv6).
pub(crate) fn host_and_port(text: &str) -> Verdict {
    let (host, number) =
        split_host_port(text).ok_or_else(|| format!("`{text}` is not of the form HOST:PORT"))?;
    match number.parse::<i64>() {
        Ok(number) => port(number)?,
        Err(_) => return Err(format!("the port `{number}` of `{text}` is not a number")),
    }
    if is_ip(host) { Ok(()) } else { hosts::full(host) }
}

/// The two parts of `HOST:PORT`, `[IPV6]:PORT` or `:PORT`.
pub(crate) fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(inside) => Some((
            inside.strip_suffix(']').filter(|i| !i.contains(['[', ']']))?,
            port,
        )),
        None => (!host.contains([':', '[', ']'])).then_some((host, port)),
    }
}

/// What follows `unix://`: an absolute path to a file, or `@` and a name (an abstract socket).
pub(crate) fn unix(path: &str) -> Verdict {
    if path.starts_with('@') || path.starts_with('/') && !path.ends_with('/') {
        return Ok(());
    }
    Err(format!(
        "`{path}` is not an absolute path to a socket, or `@` and a name"
    ))
}

/// The scheme of a URL that has one, `""` for a path; `None` where it is neither.
pub(crate) fn scheme(text: &str) -> Option<&str> {
    if text.is_empty() || text.bytes().any(|b| b < b' ' || b == 0x7f) || !escapes_well(text) {
        return None;
    }
    if text.starts_with('/') {
        return Some("");
    }
    let (scheme, rest) = text.split_once(':')?;
    let mut letters = scheme.bytes();
    let named = letters.next().is_some_and(|b| b.is_ascii_alphabetic())
        && letters.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if !named {
        return None;
    }
    let fits = rest.strip_prefix("//").is_none_or(|rest| {
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        is_authority(authority)
    });
    fits.then_some(scheme)
}

/// `http://` or `https://`, a host, and a port that is a number where there is one.
pub(crate) fn is_web_address(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return false;
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if text.bytes().any(|b| b < b' ' || b == 0x7f) || authority.contains(' ') || !escapes_well(text) {
        return false;
    }
    model::split_authority(authority).is_some_and(|(host, _)| !host.is_empty())
}

fn is_authority(text: &str) -> bool {
    let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
    if host.starts_with('[') {
        return host.contains(']');
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    port.bytes().all(|b| b.is_ascii_digit())
        && !name.contains([
            '<', '>', '"', '\\', '^', '`', '{', '|', '}', '#', '%', '[', ']', ' ',
        ])
}

/// Whether every `%` before the query is followed by two hexadecimal digits.
fn escapes_well(text: &str) -> bool {
    let path = text.split('?').next().unwrap_or_default();
    path.split('%').skip(1).all(|rest| {
        let mut digits = rest.bytes();
        let mut hex = || digits.next().is_some_and(|b| b.is_ascii_hexdigit());
        hex() && hex()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_both_there() {
        for text in ["a.b:1", "1.2.3.4:80", "[::1]:80"] {
            assert_eq!(host_and_port(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "a.b",
            ":80",
            "a.b:",
            "a.b:0",
            "a.b:x",
            "::1:80",
            "[::1:80",
            "[[::1]]:80",
        ] {
            assert!(host_and_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_has_as_many_bits_as_its_address() {
        for text in ["1.2.3.4", "1.2.3.4/0", "::/128", "10.0.0.0/8"] {
            assert!(is_block(text), "{text}");
        }
        for text in [
            "",
            "1.2.3",
            "1.2.3.4/33",
            "1.2.3.4/+8",
            "1.2.3.4/08",
            "1.2.3.4/",
            "::/129",
            "a/8",
        ] {
            assert!(!is_block(text), "{text}");
        }
    }

    #[test]
    fn a_url_has_a_scheme_or_is_a_path() {
        assert_eq!(scheme("oci://ghcr.io/a:1"), Some("oci"));
        assert_eq!(scheme("fake://example.com"), Some("fake"));
        assert_eq!(scheme("/a/b"), Some(""));
        assert_eq!(scheme("localhost:5000/a"), Some("localhost"));
        for text in [
            "",
            "#%blah$#@",
            "a b",
            "http://a:b/",
            "http://a b/",
            "ghcr.io/a",
            "://a",
        ] {
            assert_eq!(scheme(text), None, "{text}");
        }
    }
}
