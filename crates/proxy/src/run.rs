//! The life of a proxy.

use crate::Config;

/// Runs until told to stop (SIGTERM or SIGINT: drain, then end).
///
/// # Errors
/// It cannot start: one sentence.
pub async fn run(_config: Config) -> Result<(), String> {
    Ok(())
}
