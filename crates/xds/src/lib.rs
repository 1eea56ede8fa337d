//! Delta xDS between the control plane and its proxies: both ends.
//!
//! One stream a proxy, one type of resource, one response in flight. A response is taken whole or not at all: a proxy
//! that refuses one keeps what it had and says why, and what it holds is never a mix of two versions. The version of a
//! resource is the hash of its bytes, so that a stream can be taken up again where another one ended, also with a
//! control plane that has been restarted.
//!
//! What belongs to a node (`*`) is sent unasked: settings, its own workloads and all that decides what may come in to them.
//! Services and addresses are sent to those that ask for them by name, with all that is needed to use them; that there is
//! nothing of a name is an answer too. Who has asked is told of every change of the answer until it takes the question back.
//!
//! How the two ends know one another is given from outside: [`server::Authenticate`] and [`client::Connect`].

#![warn(missing_docs)]

pub mod client;
pub mod server;
mod wire;

pub use wire::{MAX_MESSAGE, MAX_QUESTIONS, MAX_RESOURCES, TYPE_URL};

#[cfg(test)]
mod tests;
