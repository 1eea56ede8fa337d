//! How a mesh and its parts stand.

pub(crate) mod ca;
pub(crate) mod dump;
pub(crate) mod info;
pub(crate) mod proxies;
pub(crate) mod restart;
mod samples;
pub(crate) mod staleness;
pub(crate) mod status;
pub(crate) mod top;
