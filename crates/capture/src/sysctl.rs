//! Sysctls of the calling thread's network namespace.

use std::fs;
use std::io;

use crate::Error;

/// Writes `value` to `net/NAME`.
pub(crate) fn set(name: &str, value: &str) -> Result<(), Error> {
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).map_err(|e| Error::io(format!("cannot set sysctl `net/{name}` to {value}"), e))
}

/// As `set`, where the kernel may lack the sysctl or forbid it in a user namespace.
pub(crate) fn set_if_there(name: &str, value: &str) -> Result<(), Error> {
    match set(name, value) {
        Err(Error::Io { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Forwarding without source checks: what came in is judged by rules, not by routes.
pub(crate) fn forwarding() -> Result<(), Error> {
    set("ipv4/ip_forward", "1")?;
    set("ipv6/conf/all/forwarding", "1")?;
    for link in ["all", "default"] {
        quiet(link)?;
    }
    Ok(())
}

/// A link without autoconfiguration, redirects or reverse path filter.
pub(crate) fn quiet(link: &str) -> Result<(), Error> {
    for (name, value) in [
        ("rp_filter", "0"),
        ("send_redirects", "0"),
        ("accept_redirects", "0"),
        ("accept_source_route", "0"),
        // Addresses on `lo` are not for the neighbours on the fabric.
        ("arp_ignore", "1"),
    ] {
        set(&format!("ipv4/conf/{link}/{name}"), value)?;
    }
    for (name, value) in [
        ("disable_ipv6", "0"),
        ("accept_dad", "0"),
        ("accept_ra", "0"),
        ("accept_redirects", "0"),
        ("router_solicitations", "0"),
    ] {
        set(&format!("ipv6/conf/{link}/{name}"), value)?;
    }
    Ok(())
}

/// A link whose kernel end makes no link-local address, and so never speaks of itself.
pub(crate) fn unaddressed(link: &str) -> Result<(), Error> {
    set_if_there(&format!("ipv6/conf/{link}/addr_gen_mode"), "1")
}
