//! The control plane: watches a source, holds the world, compiles, publishes, reports status.
//!
//! A change goes one way: [`source`] sees it, or [`verbs`] brings it; [`plane`], the one writer, lays the layers
//! ([`layers`]), freezes the [`world`], compiles and publishes it and shows the result as a [`view`], from which every
//! answer is read. [`standing`] joins it with what the proxies say. [`state`] is what a restart must find again.

#![warn(missing_docs)]

mod config;
mod kinds;
mod layers;
mod plane;
mod run;
mod source;
mod standing;
mod state;
mod tls;
mod verbs;
mod view;
mod world;

pub use config::{Config, ConfigError, NODE_ACCOUNT, OWN_ACCOUNT, SYSTEM_NAMESPACE, Source};
pub use run::run;

#[cfg(test)]
mod tests;
