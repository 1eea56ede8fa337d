//! The control plane: watches a source, holds the world, compiles, publishes, reports status.

#![warn(missing_docs)]

mod config;

pub use config::{Config, ConfigError, NODE_ACCOUNT, OWN_ACCOUNT, SYSTEM_NAMESPACE, Source};

/// Runs until told to stop (SIGTERM or SIGINT).
///
/// # Errors
/// It cannot start: one sentence.
pub async fn run(_config: Config) -> Result<(), String> {
    Ok(())
}
