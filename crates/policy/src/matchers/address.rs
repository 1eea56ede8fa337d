//! Address blocks.

use std::net::IpAddr;

use model::Cidr;

/// Blocks of one field, none inside another, sorted by their first address: one search finds the only candidate.
#[derive(Debug)]
pub(crate) struct Blocks(Box<[Cidr]>);

impl Blocks {
    pub(crate) fn new(mut blocks: Vec<Cidr>) -> Self {
        blocks.sort_unstable();
        let mut kept: Vec<Cidr> = Vec::with_capacity(blocks.len());
        for block in blocks {
            let inside = |outer: &Cidr| outer.len() <= block.len() && outer.contains(block.base());
            if !kept.last().is_some_and(inside) {
                kept.push(block);
            }
        }
        Self(kept.into())
    }

    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let after = self.0.partition_point(|block| block.base() <= ip);
        after
            .checked_sub(1)
            .and_then(|at| self.0.get(at))
            .is_some_and(|block| block.contains(ip))
    }

    pub(crate) fn all(&self) -> &[Cidr] {
        &self.0
    }
}
