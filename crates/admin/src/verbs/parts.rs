//! What is done with the parts of a mesh, and the sockets that they listen on.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Something to do with a part of a mesh.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Part {
    /// Which: `ca`, `control`, `proxy-NODE`.
    pub name: String,
    /// What.
    pub order: PartOrder,
}

/// What becomes of a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartOrder {
    /// It ends as it would at any time, and is started again.
    Restart,
    /// A new process takes the place of the one that runs, and only then that one leaves. Of proxies alone.
    Replace,
    /// It ends, and is not started before [`PartOrder::Start`].
    Stop,
    /// It runs again.
    Start,
}

/// Whose listening sockets are wanted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sockets {
    /// The node.
    pub node: String,
}

/// What a descriptor is that comes beside it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listening {
    /// What for: `outbound`, `inbound`, `dns`, `dns-udp`, `metrics`.
    pub purpose: String,
    /// Where it listens.
    pub address: SocketAddr,
}
