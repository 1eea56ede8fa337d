//! Cluster addresses for pods outside the mesh and processes of the node: destination NAT.
//!
//! Mesh pods never pass here: the proxy balances their connections itself.

use std::net::{IpAddr, SocketAddr};

use crate::Error;

/// The transport of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One port of one cluster address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceDnat {
    /// The cluster address.
    pub vip: IpAddr,
    /// The service's port.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// Ready endpoints of the same family; none means unreachable.
    pub backends: Vec<SocketAddr>,
}

/// Replaces the whole table of the calling thread's namespace (a node's), atomically.
///
/// # Errors
/// When a family is mixed or the kernel refuses; the old table stays then.
pub fn set(table: &[ServiceDnat]) -> Result<(), Error> {
    let _ = table;
    Err(Error::Invalid("not there yet".to_owned()))
}
