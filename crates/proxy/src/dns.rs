//! DNS.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::shared::Shared;

pub(crate) fn start(_shared: &Arc<Shared>, _tasks: &mut JoinSet<Result<(), String>>) -> Result<(), String> {
    Ok(())
}
