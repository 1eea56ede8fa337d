//! Ports for listeners to come.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Up to what `net.ipv4.ip_local_port_range` begins with by default.
const RANGE: Range<u32> = 10_000..32_768;

/// A port that nobody listens on, that the kernel gives to no connection as its own, and that nobody else in this program gets:
/// also where it takes minutes until it is listened on. Panics where all are taken.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Another program at the same time begins elsewhere.
    let first = std::process::id().wrapping_mul(1_009);
    loop {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        assert!(given < RANGE.end - RANGE.start, "all ports are taken");
        let port = RANGE.start + first.wrapping_add(given) % (RANGE.end - RANGE.start);
        if let Ok(port) = u16::try_from(port)
            && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
        {
            return port;
        }
    }
}
