//! What a standalone proxy is started with.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use model::{SpiffeId, TrustDomain, WorkloadUid, canonical_ip};
use serde::Deserialize;

use crate::ConfigError;

/// The most listeners and workloads of one proxy.
const MAX_LISTENERS: usize = 1024;

/// The configuration of a proxy that is told everything by files. It holds no secret, but says where some are. Paths
/// that are relative begin at the directory of the file.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Standalone {
    /// The proxy's name.
    pub node: String,
    /// The trust domain, until the resources say it.
    pub trust_domain: TrustDomain,
    /// The roots that peers are verified against, PEM.
    pub roots: PathBuf,
    /// What the proxy knows of the mesh: a JSON array of resources, in the form that a control plane sends them in.
    pub resources: PathBuf,
    /// In whose place it stands.
    pub workloads: Vec<Place>,
    /// Where clients of these workloads connect to.
    #[serde(default)]
    pub outbound: Vec<Outbound>,
    /// Where callers of these workloads connect to.
    #[serde(default)]
    pub inbound: Vec<Inbound>,
    /// Where the access log goes; `None` writes none.
    #[serde(default)]
    pub access_log: Option<PathBuf>,
    /// `json`, the default, or `text`.
    #[serde(default)]
    pub log_format: telemetry::Format,
    /// Where metrics and health are served, read-only.
    #[serde(default)]
    pub metrics: Vec<SocketAddr>,
    /// Networks that may read them besides the part's own machine; none where nothing is said.
    #[serde(default)]
    pub metrics_allow: Vec<model::Cidr>,
    /// Threads that carry traffic, 1 to 64; 2 by default.
    #[serde(default = "two")]
    pub threads: usize,
}

/// A workload that the proxy stands for.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Place {
    /// Its uid, by which resources know it.
    pub uid: WorkloadUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its identity, which the certificate must prove.
    pub identity: SpiffeId,
    /// Its own addresses: where the application that callers mean is reached.
    pub addresses: Vec<IpAddr>,
    /// Its certificate, leaf first, then intermediates, PEM. Read again when it changes.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// A listener for what a workload sends.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outbound {
    /// Where to listen. Whoever reaches it speaks as the workload.
    pub listen: SocketAddr,
    /// The uid of the workload.
    pub workload: WorkloadUid,
    /// What connections count as having dialled, a Service's cluster address say; by default `listen` itself.
    #[serde(default)]
    pub dialled: Option<SocketAddr>,
    /// Whether connections of mutual TLS to other proxies of ours are kept for the next TCP connection; true by default.
    #[serde(default = "yes")]
    pub keep: bool,
}

/// A listener for what a workload receives.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inbound {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The uid of the workload.
    pub workload: WorkloadUid,
    /// The application: one of the workload's addresses, and a port.
    pub to: SocketAddr,
}

fn two() -> usize {
    2
}

fn yes() -> bool {
    true
}

impl Standalone {
    /// Reads one.
    ///
    /// # Errors
    /// The file cannot be read, is no configuration, or one that does not fit together.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let file = |why: String| ConfigError::File {
            path: path.to_owned(),
            why,
        };
        let text = std::fs::read(path).map_err(|e| file(e.to_string()))?;
        let mut config: Self = serde_json::from_slice(&text).map_err(|e| file(e.to_string()))?;
        config.check().map_err(file)?;
        config.below(path.parent().unwrap_or_else(|| Path::new("")));
        Ok(config)
    }

    /// The workload of that uid, and its place among them.
    pub(super) fn place(&self, uid: &WorkloadUid) -> Option<(usize, &Place)> {
        self.workloads
            .iter()
            .enumerate()
            .find(|(_, place)| place.uid == *uid)
    }

    /// All files that it names and that are read.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self
            .workloads
            .iter()
            .flat_map(|place| [&place.certificate, &place.key]);
        [&self.roots, &self.resources]
            .into_iter()
            .chain(pairs)
            .map(PathBuf::as_path)
    }

    fn check(&self) -> Result<(), String> {
        let listeners = self.outbound.len() + self.inbound.len();
        if listeners == 0 {
            return Err("it has no listener, `outbound` or `inbound`".to_owned());
        }
        if listeners > MAX_LISTENERS || self.workloads.len() > MAX_LISTENERS {
            return Err(format!("it has more than {MAX_LISTENERS} listeners or workloads"));
        }
        if !(1..=64).contains(&self.threads) {
            return Err(format!("`threads` is {}, and must be 1 to 64", self.threads));
        }
        let (mut uids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for place in &self.workloads {
            if !uids.insert(&place.uid) {
                return Err(format!("the workload `{}` is there twice", place.uid));
            }
            if let Some(twice) = place
                .addresses
                .iter()
                .find(|a| !addresses.insert(canonical_ip(**a)))
            {
                return Err(format!("the address `{twice}` is of two workloads"));
            }
        }
        let unknown =
            |uid: &WorkloadUid| format!("a listener is for the workload `{uid}`, which is not there");
        for listener in &self.outbound {
            self.place(&listener.workload)
                .ok_or_else(|| unknown(&listener.workload))?;
        }
        for listener in &self.inbound {
            let (_, place) = self
                .place(&listener.workload)
                .ok_or_else(|| unknown(&listener.workload))?;
            let own = |address: &IpAddr| canonical_ip(*address) == canonical_ip(listener.to.ip());
            if !place.addresses.iter().any(own) {
                return Err(format!(
                    "`{}` is no address of the workload `{}`",
                    listener.to.ip(),
                    place.uid
                ));
            }
        }
        Ok(())
    }

    /// Makes relative paths begin at `directory`.
    fn below(&mut self, directory: &Path) {
        let own = [&mut self.roots, &mut self.resources].into_iter();
        let theirs = self
            .workloads
            .iter_mut()
            .flat_map(|p| [&mut p.certificate, &mut p.key]);
        for path in own.chain(theirs).chain(&mut self.access_log) {
            *path = directory.join(&*path);
        }
    }
}
