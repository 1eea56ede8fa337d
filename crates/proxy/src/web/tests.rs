use std::time::Duration;

use identity::{CertificateAuthority, IssueError, Signing, StoreOptions};
use model::WorkloadUid;
use snapshot::{Resource, Resources};
use telemetry::{Telemetry, TelemetryOptions};

use super::*;
use crate::locals::Locals;
use crate::{Config, Registration};

struct Nobody;

impl CertificateAuthority for Nobody {
    fn sign<'a>(&'a self, _: &'a str, _: &'a str, _: Duration) -> Signing<'a> {
        Box::pin(async { Err(IssueError::Unreachable("down".to_owned())) })
    }
}

fn shared(locals: Locals) -> Arc<Shared> {
    let config = serde_json::json!({
        "node": "node-1", "trustDomain": "cluster.local", "control": "127.0.0.1:1", "ca": "127.0.0.1:2",
        "roots": "/r", "token": "/t", "workloads": "/w", "socket": "/s", "accessLog": null, "logFormat": "json",
    });
    let config: Config = serde_json::from_value(config).unwrap();
    Arc::new(Shared {
        config,
        store: crate::store::Store::new(),
        demand: crate::store::demand::Demand::default(),
        locals,
        identities: identity::Store::new(Arc::new(Nobody), StoreOptions::default()),
        registry: crate::registry::Registry::default(),
        apps: crate::inbound::Apps::default(),
        requests: Arc::default(),
        denials: Arc::default(),
        tokens: Arc::default(),
        authorizers: crate::inbound::Authorizers::default(),
        names: Arc::default(),
        telemetry: Telemetry::start(&TelemetryOptions::default()).unwrap(),
        ending: Default::default(),
        sockets: Default::default(),
        standing: Arc::new(crate::shared::Standing::new()),
    })
}

fn resources() -> Resources {
    [Resource::from(crate::store::tests::mesh())]
        .into_iter()
        .collect()
}

#[tokio::test]
async fn ready_is_a_snapshot_and_all_certificates() {
    let without = shared(Locals::default());
    assert_eq!(without.missing(), ["no snapshot yet"]);
    without.store.swap(&resources(), 1).unwrap();
    assert!(without.missing().is_empty());

    let id = "spiffe://cluster.local/ns/full/sa/web";
    let pod = |mark, identity: Option<&str>| Registration {
        mark,
        uid: WorkloadUid::new("u"),
        namespace: "full".to_owned(),
        pod: "web".to_owned(),
        identity: identity.map(|id| id.parse().unwrap()),
        addresses: vec![],
        token: "/t".into(),
    };
    let with = shared(Locals::of([
        pod(0x100, Some(id)),
        pod(0x101, Some(id)),
        pod(0x102, None),
    ]));
    with.store.swap(&resources(), 1).unwrap();
    assert_eq!(with.missing(), [format!("no certificate yet: {id}")]);
}

#[tokio::test]
async fn metrics_are_the_proxys() {
    let shared = shared(Locals::default());
    shared.telemetry.drops(&[("udp", 3)]);
    let text = shared.metrics();
    assert!(
        text.contains(r#"meshward_capture_dropped_packets_total{reason="udp"} 3"#),
        "{text}"
    );
}
