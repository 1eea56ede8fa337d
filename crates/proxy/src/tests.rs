//! What several modules' tests need: a snapshot of nothing much, and a proxy that holds it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use identity::{CertificateAuthority, IssueError, Signing};
use snapshot::{Index, Mesh, Resource, Resources};
use tokio::sync::watch;

use crate::Config;
use crate::locals::Locals;
use crate::registry::Registry;
use crate::shared::Shared;
use crate::store::Store;

/// The secure profile's settings.
pub(crate) fn mesh() -> Mesh {
    serde_json::from_value(serde_json::json!({
        "profile": "secure", "trust_domain": "cluster.local", "trust_domain_aliases": [],
        "root_namespace": "istio-system", "cluster_domain": "cluster.local",
        "dns_vips": ["10.96.0.10"], "deny_by_default": true, "egress": "REGISTRY_ONLY",
        "path_normalization": "BASE", "strict_paths": true, "strict_hosts": true, "xfcc": "SANITIZE_SET",
        "auto_mtls": true, "protocol_detection_timeout_ms": null, "min_tls": "TLSV1_3", "http10": false,
        "connect_timeout_ms": 1000,
    }))
    .unwrap()
}

pub(crate) fn resources() -> Resources {
    [Resource::from(mesh())].into_iter().map(Arc::new).collect()
}

pub(crate) fn index() -> Index {
    Index::build(&resources()).unwrap()
}

struct Nobody;

impl CertificateAuthority for Nobody {
    fn sign<'a>(&'a self, _: &'a str, _: &'a str, _: std::time::Duration) -> Signing<'a> {
        Box::pin(async { Err(IssueError::GivenUp) })
    }
}

/// A proxy without workloads, certificates and snapshot. To be called within a runtime.
pub(crate) fn shared() -> Arc<Shared> {
    let here = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let config = Config {
        node: "n0".to_owned(),
        trust_domain: model::TrustDomain::default(),
        control: here(1),
        ca: here(2),
        roots: PathBuf::from("/nowhere/roots"),
        token: PathBuf::from("/nowhere/token"),
        workloads: PathBuf::from("/nowhere/workloads"),
        socket: PathBuf::from("/nowhere/socket"),
        access_log: None,
        log_format: telemetry::Format::Json,
        local_tls: false,
        metrics: Vec::new(),
        dns_upstreams: Vec::new(),
        leaf_lifetime_s: 0,
    };
    let (stop, draining) = watch::channel(false);
    // Whoever holds a receiver takes a sender that is gone for the end.
    std::mem::forget(stop);
    let telemetry = telemetry::Telemetry::start(&telemetry::TelemetryOptions::default()).unwrap();
    Arc::new(Shared {
        store: Store::new(),
        locals: Locals::new(&config.workloads),
        identities: identity::Store::new(Arc::new(Nobody), identity::StoreOptions::default()),
        registry: Registry::default(),
        telemetry,
        draining,
        dropped: Mutex::default(),
        config,
    })
}
