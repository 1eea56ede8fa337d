//! How a mesh and its parts stand.

pub(crate) mod ca;
pub(crate) mod info;
pub(crate) mod proxies;
pub(crate) mod staleness;
pub(crate) mod status;
