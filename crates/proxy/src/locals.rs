//! The workloads of this node: who a mark, and an address, stand for.

use std::net::IpAddr;
use std::sync::Arc;

use crate::Registration;

/// The workloads of this node.
#[derive(Debug, Default)]
pub(crate) struct Locals {}

impl Locals {
    /// Who the mark of a captured connection stands for. Reads the directory where it is not known yet: the file is
    /// there before the interface is.
    pub(crate) async fn by_mark(&self, _mark: u32) -> Option<Arc<Registration>> {
        None
    }

    /// The workload of this node that has the address.
    pub(crate) fn by_address(&self, _address: IpAddr) -> Option<Arc<Registration>> {
        None
    }
}
