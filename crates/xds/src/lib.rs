//! Delta xDS between the control plane and its proxies: both ends.
//!
//! One stream a proxy, one type of resource, one response in flight. A response is taken whole or not at all: a proxy
//! that refuses one keeps what it had and says why, and what it holds is never a mix of two versions. The version of a
//! resource is the hash of its bytes, so that a stream can be taken up again where another one ended, also with a
//! control plane that has been restarted.
//!
//! How the two ends know one another is given from outside: [`server::Authenticate`] and [`client::Connect`].

#![warn(missing_docs)]

pub mod client;
pub mod server;
mod wire;

pub use wire::{MAX_MESSAGE, MAX_RESOURCES, TYPE_URL};

#[cfg(test)]
mod tests;
