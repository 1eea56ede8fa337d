//! The configurations of the parts, as files without secrets.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use admin::RunDir;
use capture::plan;
use serde::Serialize;

use crate::site::{
    CA_METRICS_PORT, CA_PORT, CONTROL_METRICS_PORT, CONTROL_PORT, METRICS_PORT, Site, write_private,
};

/// The lifetime of a leaf where nothing is said, seconds.
const LEAF_LIFETIME: u64 = 3600;

/// Where a part's configuration is.
pub(super) fn path(run: &RunDir, part: &str) -> PathBuf {
    run.root().join("config").join(format!("{part}.json"))
}

/// Writes all of them.
///
/// # Errors
/// One sentence.
pub(crate) fn write(site: &Site, up: &cli::Up, sources: Vec<control::Source>) -> Result<(), String> {
    let run = &site.run;
    let listen = |port| {
        vec![
            SocketAddr::from((plan::HUB_V4, port)),
            SocketAddr::from((plan::HUB_V6, port)),
        ]
    };
    let ca = ca::Config {
        listen: listen(CA_PORT),
        trust_domain: site.trust_domain.clone(),
        dir: Some(run.root().join("ca")),
        cacerts: up.cacerts.as_deref().map(|dir| cacerts(site, dir)).transpose()?,
        leaf_lifetime_s: if up.leaf_lifetime_s == 0 {
            LEAF_LIFETIME
        } else {
            up.leaf_lifetime_s
        },
        token_keys: run.token_keys(),
        token_issuer: identity::token::ISSUER.to_owned(),
        token_audience: identity::token::AUDIENCE.to_owned(),
        root_out: run.roots(),
        socket: Some(run.ca_socket()),
        holders: holders(site),
        metrics: listen(CA_METRICS_PORT),
        metrics_allow: site.readers.clone(),
    };
    put(&path(run, "ca"), &ca)?;
    let control = control::Config {
        listen: listen(CONTROL_PORT),
        socket: run.control_socket(),
        sources,
        recursive: up.recursive,
        state: run.state(),
        nodes: site.node_names(),
        profile: up.profile,
        trust_domain: site.trust_domain.clone(),
        ca: Site::hub_address(CA_PORT),
        roots: run.roots(),
        token: run.token("control"),
        token_keys: run.token_keys(),
        fetching: control::Fetching {
            allow: up.jwks_allow.clone(),
            ..control::Fetching::default()
        },
        metrics: listen(CONTROL_METRICS_PORT),
        metrics_allow: site.readers.clone(),
    };
    put(&path(run, "control"), &control)?;
    for node in &site.nodes {
        let proxy = proxy::Config {
            node: node.name.clone(),
            trust_domain: site.trust_domain.clone(),
            control: Site::hub_address(CONTROL_PORT),
            ca: Site::hub_address(CA_PORT),
            roots: run.roots(),
            token: run.token(&node.name),
            workloads: run.workloads(&node.name),
            socket: run.proxy_socket(&node.name),
            // Whoever wants it asks the proxy: a file would grow without bound.
            access_log: None,
            log_format: if up.json_log { "json" } else { "text" }
                .parse()
                .unwrap_or_default(),
            local_tls: up.local_tls,
            metrics: node
                .ips()
                .into_iter()
                .map(|ip| SocketAddr::from((ip, METRICS_PORT)))
                .collect(),
            metrics_allow: site.readers.clone(),
            dns_upstreams: up.dns_upstreams.clone(),
            leaf_lifetime_s: up.leaf_lifetime_s,
            take_over: true,
            keeper: Some(run.up_socket()),
        };
        put(&path(run, &format!("proxy-{}", node.name)), &proxy)?;
    }
    Ok(())
}

/// The directory of a CA, which is looked into now: what is wrong with it is said where it was asked for.
fn cacerts(site: &Site, dir: &Path) -> Result<PathBuf, String> {
    let dir =
        std::fs::canonicalize(dir).map_err(|error| format!("--cacerts `{}`: {error}", dir.display()))?;
    ca::check(&dir, &site.trust_domain).map_err(|error| format!("--cacerts: {error}"))?;
    Ok(dir)
}

/// Who holds certificates, and can be asked of them.
fn holders(site: &Site) -> Vec<ca::Holder> {
    let proxies = site.nodes.iter().map(|node| ca::Holder {
        name: node.name.clone(),
        socket: site.run.proxy_socket(&node.name),
    });
    let control = ca::Holder {
        name: control::OWN_ACCOUNT.to_owned(),
        socket: site.run.control_socket(),
    };
    proxies.chain([control]).collect()
}

fn put(path: &Path, config: &impl Serialize) -> Result<(), String> {
    let text = serde_json::to_vec_pretty(config).map_err(|error| error.to_string())?;
    write_private(path, &text).map_err(|error| format!("cannot write `{}`: {error}", path.display()))
}
