//! The data plane: everything that carries, decides and reports a workload's traffic on a node.
//!
//! A connection comes in by [`capture`] with a mark, which says whose it is. [`outbound`] finds where it goes,
//! [`inbound`] decides whether it may, in one process where both workloads are of this node, over mutual TLS where they
//! are not. Before its first snapshot and certificate a proxy refuses. Each way out leaves exactly one event.

#![warn(missing_docs)]

mod admin;
mod config;
mod dns;
mod inbound;
mod locals;
mod outbound;
mod registry;
mod relay;
mod run;
mod shared;
mod store;
mod web;

pub use config::{Config, ConfigError, Registration};
#[doc(hidden)]
pub use dns::reply as dns_reply;
pub use run::{run, standalone};
