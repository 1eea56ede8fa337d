//! What a proxy is started with, and what tells it of a workload.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use model::{SpiffeId, TrustDomain, WorkloadUid};
use serde::{Deserialize, Serialize};

/// A proxy's configuration. It holds no secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The node's name.
    pub node: String,
    /// The trust domain, until the first snapshot says it.
    pub trust_domain: TrustDomain,
    /// The control plane's delta xDS.
    pub control: SocketAddr,
    /// The certificate service.
    pub ca: SocketAddr,
    /// The trust bundle with which both are verified at first, PEM.
    pub roots: PathBuf,
    /// The node's own service account token (audience `istio-ca`), read anew each time.
    pub token: PathBuf,
    /// The directory of [`Registration`]s.
    pub workloads: PathBuf,
    /// Where the command line reaches us.
    pub socket: PathBuf,
    /// Where the access log goes; `None` keeps it to those who ask.
    pub access_log: Option<PathBuf>,
    /// `json` or `text`.
    pub log_format: telemetry::Format,
    /// Mutual TLS also between two workloads of this node.
    #[serde(default)]
    pub local_tls: bool,
    /// Where metrics (`/metrics`, `/stats/prometheus`) and health (`/healthz/ready`) are served, read-only.
    #[serde(default)]
    pub metrics: Vec<SocketAddr>,
    /// Networks that may read them besides the part's own machine; none where nothing is said.
    #[serde(default)]
    pub metrics_allow: Vec<model::Cidr>,
    /// Where DNS questions about other names go; none refuses them.
    #[serde(default)]
    pub dns_upstreams: Vec<SocketAddr>,
    /// The lifetime of leaves to ask for, in seconds; 0 leaves it to the CA.
    #[serde(default)]
    pub leaf_lifetime_s: u64,
    /// Whether to take the place of a proxy that runs, found by `socket`; without one, it begins anew.
    #[serde(default)]
    pub take_over: bool,
    /// The socket of whoever keeps the listening sockets of this node's proxy while none runs.
    #[serde(default)]
    pub keeper: Option<PathBuf>,
}

/// A workload of this node: a file `MARK.json`, written by whoever attaches the pod before its link comes up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Registration {
    /// The mark of its interface.
    pub mark: u32,
    /// The pod's uid.
    pub uid: WorkloadUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its identity; `None` for a pod outside the mesh, which is only answered DNS.
    pub identity: Option<SpiffeId>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The file of its service account token.
    pub token: PathBuf,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error("configuration `{}`: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl Config {
    /// Reads one.
    ///
    /// # Errors
    /// The file cannot be read, or is not a configuration.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let file = |why: String| ConfigError::File {
            path: path.to_owned(),
            why,
        };
        let text = std::fs::read(path).map_err(|e| file(e.to_string()))?;
        serde_json::from_slice(&text).map_err(|e| file(e.to_string()))
    }
}
