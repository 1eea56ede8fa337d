//! Two proxies from files, an application behind them, and files that cannot be used.

use meshward_http::{Abort, Body, Fault, Handler, Protocol, Request, Response, ServeOptions, serve};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

/// A directory with certificates for `client` and `server`.
struct Files {
    directory: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

struct Running {
    shared: Arc<Shared>,
    _tasks: Tasks,
    _taking: JoinSet<()>,
}

fn id(account: &str) -> String {
    format!("spiffe://cluster.local/ns/full/sa/{account}")
}

fn free() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, testkit::ports::free_port()).into()
}

impl Files {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let files = Self {
            directory: tempfile::tempdir().unwrap(),
            ca,
        };
        files.write("roots.pem", &files.ca.pem());
        for account in ["client", "server"] {
            files.certificate(account, account);
        }
        files
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    /// The certificate of an account, in the files of `name`.
    fn certificate(&self, name: &str, account: &str) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id(account).try_into().unwrap())];
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.ca).unwrap();
        self.write(&format!("{name}.pem"), &leaf.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn config(&self, name: &str, text: &Value) -> Result<Standalone, String> {
        self.write("config.json", &text.to_string());
        let path = self.directory.path().join("config.json");
        Standalone::read(&path).map_err(|e| format!("{name}: {e}"))
    }

    fn client(&self, listen: SocketAddr, server: SocketAddr) -> Standalone {
        let service = json!({"service": {
            "name": "full/web", "host": "web.full.svc.cluster.local", "vips": [listen.ip()], "headless": false,
            "external_name": null, "identities": [id("server")],
            "ports": [{"name": "http", "port": listen.port(), "protocol": "http", "tls": null}],
            "endpoints": [{"uid": "s", "workload": null, "addresses": [server.ip()],
                "ports": {listen.port().to_string(): server.port()}, "ready": true, "node": null,
                "identity": id("server"), "plaintext_ports": [], "mtls_ports": []}],
        }});
        self.write(
            "client.json",
            &json!([mesh(), workload("client", &Value::Null), service]).to_string(),
        );
        let outbound = json!({"outbound": [{"listen": listen, "workload": "uid-client"}]});
        self.config("client", &config("client", &outbound)).unwrap()
    }

    fn server(&self, listen: SocketAddr, application: SocketAddr) -> Standalone {
        self.admit(&["cluster.local/ns/full/sa/client"], application);
        let inbound = json!({"inbound": [{"listen": listen, "workload": "uid-server", "to": application}]});
        self.config("server", &config("server", &inbound)).unwrap()
    }

    /// Writes the server's resources: these may call it.
    fn admit(&self, principals: &[&str], application: SocketAddr) {
        let inbound = json!({
            "ports": [{"port": application.port(), "protocol": "http", "mtls": "STRICT", "service": null}],
            "default_mtls": "STRICT", "mtls_decided_by": null, "policies": [{"namespace": "full", "name": "a"}],
        });
        let policy = json!({"policy": {
            "id": {"namespace": "full", "name": "a"}, "action": "ALLOW",
            "rules": [{"from": [{"principals": principals}], "to": [], "when": [], "line": 1}],
        }});
        self.write(
            "server.json",
            &json!([mesh(), workload("server", &inbound), policy]).to_string(),
        );
    }
}

fn mesh() -> Value {
    serde_json::to_value(Resource::from(crate::store::tests::mesh())).unwrap()
}

fn workload(name: &str, inbound: &Value) -> Value {
    json!({"workload": {
        "uid": format!("uid-{name}"), "pod": format!("full/{name}"), "workload": format!("full/{name}"),
        "canonical_name": "", "canonical_revision": "", "app": "", "version": "", "addresses": ["127.0.0.1"],
        "node": "n", "service_account": name, "identity": id(name), "ready": true, "inbound": inbound,
    }})
}

fn config(name: &str, listeners: &Value) -> Value {
    let mut config = json!({
        "node": name, "trustDomain": "cluster.local", "roots": "roots.pem", "resources": format!("{name}.json"),
        "workloads": [{"uid": format!("uid-{name}"), "namespace": "full", "name": name, "identity": id(name),
            "addresses": ["127.0.0.1"], "certificate": format!("{name}.pem"), "key": format!("{name}.key")}],
    });
    let all = config.as_object_mut().unwrap();
    all.extend(listeners.as_object().unwrap().clone());
    config
}

async fn begin(config: Standalone) -> Result<Running, String> {
    let (shared, before) = made(&config)?;
    let shared = Arc::new(shared);
    let (mut tasks, mut taking) = (Tasks::new(), JoinSet::new());
    start(config, &shared, &mut tasks, &mut taking).await?;
    before.ready(&shared).await?;
    shared.ending.advance(Stage::Running);
    Ok(Running {
        shared,
        _tasks: tasks,
        _taking: taking,
    })
}

struct Hello;

impl Handler for Hello {
    async fn request(&self, request: Request) -> Result<Response, Abort> {
        let xfcc = request.headers().get("x-forwarded-client-cert");
        let seen = xfcc.map(|v| v.to_str().unwrap().to_owned());
        Ok(Response::new(Body::from(seen.unwrap_or_default())))
    }

    fn refused(&self, _: Fault) {}
}

async fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let pending = std::future::pending();
            tokio::spawn(serve(
                stream,
                Protocol::Detect,
                ServeOptions::default(),
                Arc::new(Hello),
                pending,
            ));
        }
    });
    address
}

/// What one request is answered with; empty where the connection breaks.
async fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn two_proxies_from_files_carry_and_decide_as_those_of_nodes_do() {
    let files = Files::new();
    let (out, inn, application) = (free(), free(), application().await);
    let server = begin(files.server(inn, application)).await.unwrap();
    let client = begin(files.client(out, inn)).await.unwrap();
    let answer = get(out).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains(&format!("URI={}", id("client"))), "{answer}");
    // STRICT holds at an ordinary listener too.
    assert_eq!(get(inn).await, "");
    for (shared, principal) in [(&server.shared, "client"), (&client.shared, "server")] {
        let text = shared.telemetry.metrics_text();
        assert!(text.contains(&format!("sa/{principal}\"")), "{text}");
    }
}

#[tokio::test]
async fn files_that_change_are_taken_over_and_broken_ones_leave_what_was() {
    let files = Files::new();
    let (inn, application) = (free(), application().await);
    let config = files.server(inn, application);
    let (shared, _) = made(&config).unwrap();
    let trust = Trust::new(shared.identities.clone());
    let mut held = super::Files::new(config);
    held.take(&shared, &trust).await.unwrap();
    let first = shared.store.current().unwrap();
    held.take(&shared, &trust).await.unwrap();
    assert!(Arc::ptr_eq(&first, &shared.store.current().unwrap()));
    files.admit(&[], application);
    held.take(&shared, &trust).await.unwrap();
    let second = shared.store.current().unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    for (name, text, why) in [
        ("server.json", "[", "EOF"),
        ("server.json", "[]", "no mesh settings"),
        (
            "server.json",
            r#"[{"roots": []}, {"roots": []}]"#,
            "two have the same name",
        ),
        ("server.key", "-----BEGIN", "not PEM"),
        ("roots.pem", "", "roots"),
    ] {
        let before = std::fs::read_to_string(files.directory.path().join(name)).unwrap();
        files.write(name, text);
        let refused = held.take(&shared, &trust).await.unwrap_err();
        assert!(refused.contains(why), "{name}: {refused}");
        assert!(Arc::ptr_eq(&second, &shared.store.current().unwrap()));
        files.write(name, &before);
    }
    let serial = shared.identities.status()[0].serial.clone();
    files.certificate("server", "server");
    held.take(&shared, &trust).await.unwrap();
    assert_ne!(shared.identities.status()[0].serial, serial);
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_not_used() {
    let files = Files::new();
    files.certificate("server", "client");
    let refused = begin(files.server(free(), free())).await.map(|_| ());
    assert!(refused.unwrap_err().contains("it is for"));
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let files = Files::new();
    let address = "127.0.0.1:1";
    for (listeners, why) in [
        (json!({}), "no listener"),
        (
            json!({"outbound": [{"listen": address, "workload": "who"}]}),
            "`who`, which is not there",
        ),
        (
            json!({"inbound": [{"listen": address, "workload": "uid-server", "to": "10.0.0.1:80"}]}),
            "no address of the workload",
        ),
        (
            json!({"outbound": [{"listen": address, "workload": "uid-server"}], "threads": 0}),
            "1 to 64",
        ),
        (json!({"outbound": [], "newField": 1}), "unknown field"),
    ] {
        let refused = files.config("server", &config("server", &listeners)).unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
}
