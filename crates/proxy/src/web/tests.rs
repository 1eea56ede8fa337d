use identity::{CertificateAuthority, IssueError, Signing, StoreOptions};
use model::WorkloadUid;
use snapshot::{Resource, Resources};
use telemetry::{Telemetry, TelemetryOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

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
    let (_, draining) = watch::channel(false);
    Arc::new(Shared {
        config,
        store: crate::store::Store::new(),
        locals,
        identities: identity::Store::new(Arc::new(Nobody), StoreOptions::default()),
        registry: crate::registry::Registry::default(),
        apps: crate::inbound::Apps::default(),
        requests: Arc::default(),
        denials: Arc::default(),
        tokens: Arc::default(),
        authorizers: crate::inbound::Authorizers::default(),
        telemetry: Telemetry::start(&TelemetryOptions::default()).unwrap(),
        standing: Arc::new(crate::shared::Standing::new()),
        draining,
    })
}

async fn ask(shared: &Arc<Shared>, request: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(accept(Arc::clone(shared), listener));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    serving.abort();
    String::from_utf8(answer).unwrap()
}

async fn get(shared: &Arc<Shared>, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    ask(shared, &request).await
}

fn resources() -> Resources {
    [Resource::from(crate::store::tests::mesh())]
        .into_iter()
        .collect()
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let shared = shared(Locals::default());
    shared.telemetry.drops(&[("udp", 3)]);
    for path in ["/metrics", "/stats/prometheus", "/metrics?x=1"] {
        let answer = get(&shared, path).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("content-type: application/openmetrics-text; version=1.0.0"),
            "{answer}"
        );
        assert!(
            answer.contains(r#"meshward_capture_dropped_packets_total{reason="udp"} 3"#),
            "{answer}"
        );
        assert!(answer.ends_with("# EOF\n"), "{answer}");
    }
}

#[tokio::test]
async fn ready_is_a_snapshot_and_all_certificates() {
    let without = shared(Locals::default());
    let answer = get(&without, "/healthz/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nno snapshot yet\n"), "{answer}");
    without.store.swap(&resources(), 1).unwrap();
    let answer = get(&without, "/healthz/ready").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

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
    let answer = get(&with, "/healthz/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.ends_with(&format!("\r\n\r\nno certificate yet: {id}\n")),
        "{answer}"
    );
    assert!(get(&with, "/healthz/live").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn nothing_else_answers() {
    let shared = shared(Locals::default());
    for path in [
        "/",
        "/config_dump",
        "/quitquitquit",
        "/stats",
        "/metrics/",
        "//metrics",
        "/debug/pprof",
    ] {
        let answer = get(&shared, path).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    let check = async |request: &str, status: &str| {
        let answer = ask(&shared, request).await;
        let got = answer.split_ascii_whitespace().nth(1);
        assert_eq!(got, Some(status), "{request}: {answer}");
        answer
    };
    let allow = check(
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "405",
    )
    .await;
    assert!(allow.contains("allow: GET, HEAD\r\n"));
    check("GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n", "426").await;
    check("GET /metrics HTTP/1.1\nHost: x\n\n", "400").await;
}

#[tokio::test]
async fn head_has_no_body() {
    let shared = shared(Locals::default());
    let request = "HEAD /healthz/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = ask(&shared, request).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-length: 5\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}
