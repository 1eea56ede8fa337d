//! The place where a mesh runs: its directory, its namespaces, its nodes and its tokens.

pub(crate) mod tokens;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use admin::RunDir;
use capture::node::NodeSetup;
use capture::{Netns, plan};
use model::{Cidr, Profile, TrustDomain};

use crate::process::with_source;
use tokens::Tokens;

/// Where the certificate service listens, in the hub.
pub(crate) const CA_PORT: u16 = 15012;
/// Where delta xDS is served, in the hub.
pub(crate) const CONTROL_PORT: u16 = 15011;
/// Where the certificate authority serves metrics and health, in the hub.
pub(crate) const CA_METRICS_PORT: u16 = 15016;
/// Where the control plane serves metrics and health, in the hub (Istio's port for it).
pub(crate) const CONTROL_METRICS_PORT: u16 = 15014;
/// Where a node's proxy serves metrics and health.
pub(crate) const METRICS_PORT: u16 = 15020;

/// The place where a mesh runs.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) mesh: String,
    pub(crate) run: RunDir,
    pub(crate) hub: Netns,
    pub(crate) nodes: Vec<Node>,
    pub(crate) tokens: Tokens,
    pub(crate) trust_domain: TrustDomain,
    /// Who may read metrics and health pages besides their own machine.
    pub(crate) readers: Vec<Cidr>,
    /// `--image`.
    pub(crate) images: Vec<(String, String)>,
    /// This program.
    pub(crate) exe: PathBuf,
    /// What processes can be given here.
    pub(crate) machine: Machine,
}

/// What the machine lets us do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// Whether a container can have a process namespace and `/proc` of its own.
    pub(crate) own_proc: bool,
    /// Whether there is one user alone, in a user namespace: `runAsUser` cannot be honoured then.
    pub(crate) one_user: bool,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) netns: Arc<Netns>,
    pub(crate) setup: NodeSetup,
}

impl Node {
    /// Its addresses, IPv4 first.
    pub(crate) fn ips(&self) -> [IpAddr; 2] {
        [IpAddr::V4(self.setup.v4.0), IpAddr::V6(self.setup.v6.0)]
    }
}

/// Who may read the pages of the parts, besides each part's own machine: the hub, where the operator stands, and the networks
/// that are named; everybody with Istio's defaults, as with Istio.
pub(crate) fn readers(up: &cli::Up) -> Vec<Cidr> {
    let everybody = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    let whole = |ip| Cidr::new(ip, 0).ok();
    let hub = [(IpAddr::V4(plan::HUB_V4), 32), (IpAddr::V6(plan::HUB_V6), 128)];
    match up.profile {
        Profile::Istio => everybody.into_iter().filter_map(whole).collect(),
        Profile::Secure => {
            let hub = hub.into_iter().filter_map(|(ip, len)| Cidr::new(ip, len).ok());
            hub.chain(up.metrics_allow.iter().copied()).collect()
        }
    }
}

/// The name of the hub's namespace.
pub(crate) fn hub_name(mesh: &str) -> String {
    format!("mw-{mesh}-hub")
}

/// The name of a node's namespace.
pub(crate) fn node_netns(mesh: &str, index: u8) -> String {
    format!("mw-{mesh}-n{index}")
}

/// The name of a pod's namespace.
pub(crate) fn pod_netns(mesh: &str, node: u8, mark: u32) -> String {
    format!("mw-{mesh}-p{node}-{mark:x}")
}

/// The names of all namespaces of a mesh that are there.
///
/// # Errors
/// They cannot be listed.
pub(crate) fn netns_names(mesh: &str) -> Result<Vec<String>, capture::Error> {
    let prefix = format!("mw-{mesh}-");
    let mut names = Netns::list(&prefix)?;
    // Another mesh's name may begin with this one's and a hyphen: what follows has to be one of the forms above.
    names.retain(|name| name.strip_prefix(&prefix).is_some_and(is_ours));
    Ok(names)
}

fn is_ours(rest: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    rest == "hub"
        || rest.strip_prefix('n').is_some_and(number)
        || rest
            .strip_prefix('p')
            .and_then(|rest| rest.split_once('-'))
            .is_some_and(|(node, mark)| number(node) && hex(mark))
}

/// The name of a node.
pub(crate) fn node_name(index: u8) -> String {
    format!("node-{index}")
}

/// Makes the hub and the nodes with their links, addresses and rules.
///
/// # Errors
/// What the kernel refuses.
pub(crate) fn build(mesh: &str, nodes: u8) -> Result<(Netns, Vec<Node>), String> {
    let fail = |error: capture::Error| with_source(&error);
    let hub = Netns::create(&hub_name(mesh)).map_err(fail)?;
    let mut spaces = Vec::new();
    for index in 0..nodes {
        spaces.push(Netns::create(&node_netns(mesh, index)).map_err(fail)?);
    }
    capture::hub::install(&hub, &spaces).map_err(fail)?;
    let mut made = Vec::new();
    for (index, netns) in (0..nodes).zip(spaces) {
        let setup = NodeSetup::planned(index, nodes);
        netns
            .run(|| {
                capture::node::install(&setup)?;
                capture::services::set(&[])
            })
            .and_then(|inner| inner)
            .map_err(fail)?;
        made.push(Node {
            name: node_name(index),
            netns: Arc::new(netns),
            setup,
        });
    }
    Ok((hub, made))
}

impl Site {
    /// A node by its index.
    pub(crate) fn node(&self, index: u8) -> Option<&Node> {
        self.nodes.get(usize::from(index))
    }

    /// The names of the nodes, in order.
    pub(crate) fn node_names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// Directories that no pod sees: sockets of the machine's services and of meshes, names of namespaces, tokens.
    pub(crate) fn hidden(&self) -> Vec<PathBuf> {
        let mut hidden = vec![PathBuf::from("/run")];
        let base = admin::base();
        for directory in [base.as_path(), self.run.root()] {
            if !hidden.iter().any(|above| directory.starts_with(above)) {
                hidden.push(directory.to_owned());
            }
        }
        hidden
    }

    /// The hub's address for a port.
    pub(crate) fn hub_address(port: u16) -> SocketAddr {
        SocketAddr::from((plan::HUB_V4, port))
    }

    /// The hub's addresses for a port, IPv4 first.
    pub(crate) fn hub_addresses(port: u16) -> [SocketAddr; 2] {
        [
            SocketAddr::from((plan::HUB_V4, port)),
            SocketAddr::from((plan::HUB_V6, port)),
        ]
    }

    /// The directory of a pod's own files.
    pub(crate) fn pod_dir(&self, node: &str, uid: &str) -> PathBuf {
        self.run.root().join("nodes").join(node).join("pods").join(uid)
    }
}

/// Writes a file whole, for this user alone: whoever reads it sees the old contents or the new ones.
///
/// # Errors
/// The system's.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_mesh_takes_anothers_namespaces_for_its_own() {
        for (mesh, other) in [
            ("a", "a-b"),
            ("a", "a-hub"),
            ("a", "a-n0"),
            ("a", "a-p0"),
            ("a", "a-p0-1"),
        ] {
            let rest = |name: String| name.strip_prefix(&format!("mw-{mesh}-")).map(is_ours);
            for name in [hub_name(mesh), node_netns(mesh, 12), pod_netns(mesh, 3, 0x1ff)] {
                assert_eq!(rest(name.clone()), Some(true), "{name}");
            }
            for name in [hub_name(other), node_netns(other, 12), pod_netns(other, 3, 0x1ff)] {
                assert_eq!(rest(name.clone()), Some(false), "{name}");
            }
        }
    }
}
