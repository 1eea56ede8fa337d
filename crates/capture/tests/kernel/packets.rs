//! Packets and frames of one's own making, and the ways to send them.

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr};

use capture::{Netns, plan};
use nix::libc;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, SockAddr, Socket, Type};

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;

/// A whole IP packet of either family.
pub(crate) fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => v4(source, destination, protocol, &[], 0, payload),
        _ => v6(source, destination, protocol, payload),
    }
}

/// An IPv4 packet with options (a multiple of 4 bytes) and the field for fragments.
pub(crate) fn v4(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    options: &[u8],
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let words = u8::try_from(header / 4).unwrap();
    let [l0, l1] = u16::try_from(header + payload.len()).unwrap().to_be_bytes();
    let [f0, f1] = fragment.to_be_bytes();
    let mut packet = vec![0x40 | words, 0, l0, l1, 0x12, 0x34, f0, f1, 64, protocol, 0, 0];
    packet.extend(octets(source));
    packet.extend(octets(destination));
    packet.extend_from_slice(options);
    let sum: u32 = packet
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    packet[10..12].copy_from_slice(&(!folded).to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

fn v6(source: IpAddr, destination: IpAddr, next: u8, payload: &[u8]) -> Vec<u8> {
    let [l0, l1] = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, l0, l1, next, 64];
    packet.extend(octets(source));
    packet.extend(octets(destination));
    packet.extend_from_slice(payload);
    packet
}

/// An extension header of 8 bytes (`kind`: its number) before UDP.
pub(crate) fn extension(kind: u8, payload: &[u8]) -> Vec<u8> {
    const UDP: u8 = 17;
    const NONE: u8 = 59;
    let mut bytes = match kind {
        // A first fragment.
        44 => vec![UDP, 0, 0, 1, 0, 0, 0, 7],
        // Authentication: its length counts 4-byte words, less two.
        51 => vec![UDP, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
        // Routing of an experimental type, with no segment left.
        43 => vec![UDP, 0, 253, 0, 0, 0, 0, 0],
        135 | 139 | 140 => vec![NONE, 0, 0, 0, 0, 0, 0, 0],
        // Options: padding.
        _ => vec![UDP, 0, 1, 4, 0, 0, 0, 0],
    };
    bytes.extend(udp(4000, 9999, payload));
    bytes
}

/// UDP without a checksum, which routers do not look at.
pub(crate) fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut bytes = [from, to, length, 0].map(u16::to_be_bytes).concat();
    bytes.extend_from_slice(payload);
    bytes
}

pub(crate) fn frame(destination: [u8; 6], source: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [destination, source].concat();
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A packet in a frame from `mac` to the node, as a well-behaved pod would send it.
pub(crate) fn to_node(mac: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { IPV4 } else { IPV6 };
    frame(plan::NODE_MAC, mac, ethertype, packet)
}

/// The MAC address to which IPv6 multicast goes.
pub(crate) fn multicast_mac(group: Ipv6Addr) -> [u8; 6] {
    let octets = group.octets();
    [0x33, 0x33, octets[12], octets[13], octets[14], octets[15]]
}

/// Sends a whole frame out of a link, past the namespace's own IP layer and rules.
pub(crate) fn send_frame(ns: &Netns, link: &str, frame: &[u8]) {
    ns.run(|| {
        let index = if_nametoindex(link).unwrap();
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
        socket.send_to(frame, &link_address(index)).unwrap();
    })
    .unwrap();
}

fn link_address(index: u32) -> SockAddr {
    let mut address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap(),
        sll_protocol: 0,
        sll_ifindex: i32::try_from(index).unwrap(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    address.sll_addr[..6].copy_from_slice(&plan::NODE_MAC);
    let init = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
        #[expect(unsafe_code, reason = "socket2 has no safe constructor for link addresses")]
        // SAFETY: the storage is larger than, and aligned for, every kind of address.
        unsafe {
            storage.cast::<libc::sockaddr_ll>().write(address);
            *length = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap();
        }
        Ok(())
    };
    #[expect(unsafe_code, reason = "as above")]
    // SAFETY: the closure has written a whole address and its length.
    let ((), address) = unsafe { SockAddr::try_init(init) }.unwrap();
    address
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// Bytes that a socket has filled.
pub(crate) fn filled(buffer: &[MaybeUninit<u8>]) -> Vec<u8> {
    let read = |b: &MaybeUninit<u8>| {
        #[expect(unsafe_code, reason = "socket2 receives into uninitialised memory")]
        // SAFETY: the caller hands over only what the kernel has written.
        unsafe {
            b.assume_init()
        }
    };
    buffer.iter().map(read).collect()
}
