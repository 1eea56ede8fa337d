//! What a CA is started with.

use std::net::SocketAddr;
use std::path::PathBuf;

use model::TrustDomain;
use serde::{Deserialize, Serialize};

/// A CA's configuration. It holds no secret: keys live in `dir` or in memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Where the certificate service listens, TLS.
    pub listen: Vec<SocketAddr>,
    /// The trust domain of the identities that it issues.
    pub trust_domain: TrustDomain,
    /// The directory of the root key (mode 0700, files 0600); `None` keeps it in memory.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// The directory of a CA that signs instead of a root of our own: Istio's `cacerts` (semantics 5.4). `dir` is not
    /// looked at then.
    #[serde(default)]
    pub cacerts: Option<PathBuf>,
    /// The lifetime of a leaf, seconds; 3600 by default. A request may ask for less.
    #[serde(default = "hour")]
    pub leaf_lifetime_s: u64,
    /// The public keys that tokens are signed by, JWKS.
    pub token_keys: PathBuf,
    /// `iss` of tokens; [`identity::token::ISSUER`] by default.
    #[serde(default = "issuer")]
    pub token_issuer: String,
    /// `aud` of tokens; `istio-ca` by default.
    #[serde(default = "audience")]
    pub token_audience: String,
    /// Where the root bundle is written, PEM, mode 0644; the root that signs comes first.
    pub root_out: PathBuf,
    /// Where the command line reaches us; nowhere where absent, and then the root is rotated by itself alone.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// Who is asked, while the root is rotated, what they trust and hold.
    #[serde(default)]
    pub holders: Vec<Holder>,
    /// Where metrics (`/metrics`) and health (`/healthz/ready`) are served, read-only.
    #[serde(default)]
    pub metrics: Vec<SocketAddr>,
    /// Networks that may read them besides the part's own machine; none where nothing is said.
    #[serde(default)]
    pub metrics_allow: Vec<model::Cidr>,
}

/// Whoever holds certificates and can be asked of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Holder {
    /// The node that its token names, or its service account where that names none.
    pub name: String,
    /// Its socket.
    pub socket: PathBuf,
}

fn hour() -> u64 {
    3600
}

fn issuer() -> String {
    identity::token::ISSUER.to_owned()
}

fn audience() -> String {
    identity::token::AUDIENCE.to_owned()
}

/// Why a CA does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file or directory.
    #[error("{what} `{path}`: {why}")]
    File {
        /// What it is for.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A setting.
    #[error("configuration: {0}")]
    Config(String),
    /// A port.
    #[error("listen on {address}: {why}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The system's words.
        why: String,
    },
    /// Making keys or certificates.
    #[error("certificates: {0}")]
    Crypto(String),
    /// The server stopped.
    #[error("serving: {0}")]
    Serve(String),
}

impl CaError {
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>, why: impl ToString) -> Self {
        Self::File {
            what,
            path: path.into(),
            why: why.to_string(),
        }
    }
}
