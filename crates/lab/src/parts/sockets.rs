//! The listening sockets of the nodes' proxies: held here, they outlive any proxy, and what comes while none runs waits.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use admin::verbs::Listening;
use serde_json::Value;
use tokio::time::Instant;

use super::keeper::pid_at;

/// How long a proxy may take until it hands out its sockets.
const LIMIT: Duration = Duration::from_secs(30);
/// How often it is asked.
const POLL: Duration = Duration::from_millis(20);

/// What is held of one node.
type Held = (Vec<Listening>, Vec<OwnedFd>);

/// What is held, by node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sockets(Arc<Mutex<BTreeMap<String, Held>>>);

impl Sockets {
    /// Copies of what is held of a node.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub(crate) fn of(&self, node: &str) -> std::io::Result<Held> {
        let held = self.held();
        let Some((labels, sockets)) = held.get(node) else {
            return Ok(Held::default());
        };
        let copies = sockets.iter().map(OwnedFd::try_clone).collect::<Result<_, _>>()?;
        Ok((labels.clone(), copies))
    }

    /// Asks a process for the sockets of its node, once it answers at the path.
    pub(super) async fn follow(self, node: String, path: PathBuf, pid: u32) {
        let since = Instant::now();
        while since.elapsed() < LIMIT {
            if pid_at(&path).await == Some(pid)
                && let Some(held) = ask(&path).await
            {
                self.held().insert(node, held);
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(path: &std::path::Path) -> Option<Held> {
    let mut answer = admin::call(path, "sockets", Value::Null, Vec::new()).await.ok()?;
    let labels: Vec<Listening> = serde_json::from_value(answer.item().await?).ok()?;
    let sockets = answer.take_fds();
    (labels.len() == sockets.len()).then_some((labels, sockets))
}
