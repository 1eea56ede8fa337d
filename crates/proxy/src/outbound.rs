//! What workloads of this node open: where it goes, and by what means.

use std::sync::Arc;

use tokio::net::TcpListener;

use crate::shared::Shared;

/// Takes what was captured on its way from workloads of this node, until told to drain.
pub(crate) async fn serve(_shared: Arc<Shared>, _listener: TcpListener) {}
