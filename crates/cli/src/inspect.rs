//! How a mesh and its parts stand.

pub(crate) mod info;
pub(crate) mod proxies;
pub(crate) mod restart;
pub(crate) mod status;
