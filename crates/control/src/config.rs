//! What a control plane is started with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use model::{Cidr, Profile, TrustDomain};
use serde::{Deserialize, Serialize};

/// The namespace of the mesh's own identities.
pub const SYSTEM_NAMESPACE: &str = "meshward-system";
/// The control plane's service account.
pub const OWN_ACCOUNT: &str = "control";
/// The service account of every node's proxy; its token names the node.
pub const NODE_ACCOUNT: &str = "node";

/// A control plane's configuration. It holds no secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Where delta xDS is served, mutual TLS and token.
    pub listen: Vec<SocketAddr>,
    /// Where the command line reaches us.
    pub socket: PathBuf,
    /// Files and directories that are followed.
    pub sources: Vec<Source>,
    /// Whether directories below directories are followed too.
    #[serde(default)]
    pub recursive: bool,
    /// Where objects that were applied are kept (0700).
    pub state: PathBuf,
    /// The nodes; each gets a snapshot.
    pub nodes: Vec<String>,
    /// Which defaults are in force.
    pub profile: Profile,
    /// The trust domain of all identities, as the CA has it. A MeshConfig that says another is an error that is shown.
    pub trust_domain: TrustDomain,
    /// The certificate service, for our own certificate.
    pub ca: SocketAddr,
    /// The trust bundle, PEM.
    pub roots: PathBuf,
    /// Our own service account token, read anew each time.
    pub token: PathBuf,
    /// The public keys that the nodes' tokens are verified by, JWKS.
    pub token_keys: PathBuf,
    /// Where metrics (`/metrics`) and health (`/healthz/ready`) are served, read-only.
    #[serde(default)]
    pub metrics: Vec<SocketAddr>,
    /// Networks that may read them besides the part's own machine; none where nothing is said.
    #[serde(default)]
    pub metrics_allow: Vec<Cidr>,
    /// How the keys of token issuers are fetched.
    #[serde(default)]
    pub fetching: Fetching,
}

/// How the keys of token issuers are fetched (semantics 4.5).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fetching {
    /// Networks that keys are fetched from although they are loopback, link-local or another that is refused. None by
    /// default.
    pub allow: Vec<Cidr>,
    /// Certificate authorities, PEM, that issuers' servers are believed by besides the system's.
    pub ca: Option<PathBuf>,
    /// Seconds after which keys are fetched again (Istio's `PILOT_JWT_PUB_KEY_REFRESH_INTERVAL`); 20 minutes where absent,
    /// never less than one second.
    pub refresh_s: Option<u64>,
}

/// A file or directory that is followed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// Where it is, absolute.
    pub path: PathBuf,
    /// What the user called it: what messages name. Files of a directory are `SHOWN/NAME`.
    pub shown: String,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("configuration `{}`: {why}", path.display())]
pub struct ConfigError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl Config {
    /// Reads one.
    ///
    /// # Errors
    /// The file cannot be read, or is not a configuration.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let broken = |why: String| ConfigError {
            path: path.to_owned(),
            why,
        };
        let text = std::fs::read(path).map_err(|e| broken(e.to_string()))?;
        serde_json::from_slice(&text).map_err(|e| broken(e.to_string()))
    }
}
