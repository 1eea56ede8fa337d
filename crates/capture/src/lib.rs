//! Capture: network namespaces, links, routes, nftables and sockets.
//!
//! A pod in the mesh has one way in and out: a routed veth whose node end is guarded.  What passes
//! the guard is taken by TPROXY into the node proxy or dropped and counted with a reason.  All of
//! it is programmed over netlink, by encoders of our own; no other program is run.
//!
//! This is the only crate of the workspace in which `unsafe` may occur.  It decides nothing about
//! who may talk to whom: it makes sure that whoever does decide is asked.
#![warn(missing_docs)]

mod error;
pub mod hub;
mod netlink;
mod netns;
pub mod nflog;
mod nft;
pub mod node;
pub mod plan;
pub mod services;
pub mod socket;
mod sys;
mod sysctl;

pub use error::Error;
pub use netns::{Netns, process};
pub use sys::release_code;

/// Where TCP connections that a mesh pod opens are delivered (on loopback, both families).
pub const OUTBOUND_PORT: u16 = 15001;
/// Where TCP connections to a mesh pod's address are delivered (on loopback, both families).
pub const INBOUND_PORT: u16 = 15006;
/// The port that other meshes use for HBONE; reserved here.
pub const HBONE_PORT: u16 = 15008;
/// Where DNS, over UDP and TCP, is delivered (on loopback, both families).
pub const DNS_PORT: u16 = 15053;
/// The mark of the node proxy's own sockets towards a local application.  Below every pod's mark.
pub const PROXY_MARK: u32 = 0x80;
/// The smallest mark that a pod's interface may have.
pub const FIRST_POD_MARK: u32 = 0x100;
/// The nflog group to which dropped packets are reported (rate-limited).
pub const NFLOG_GROUP: u16 = 77;
