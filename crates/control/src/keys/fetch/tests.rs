//! Against real servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use testkit::issuer::Issuer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;

const SOON: Duration = Duration::from_secs(5);

/// A server; `answer` gets the head of a request, and gives the bytes of the answer. One that gives none keeps silent.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Server {
    async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", None, answer).await
    }

    async fn at(
        address: &str,
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let (counted, answer) = (Arc::clone(&asked), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (tls, answer) = (tls.clone(), Arc::clone(&answer));
                tokio::spawn(async move {
                    match tls {
                        None => speak(stream, answer.as_ref()).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                speak(stream, answer.as_ref()).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, asked }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn speak(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &(dyn Fn(&str) -> String + Send + Sync),
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let text = answer(std::str::from_utf8(&head).unwrap());
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.flush().await;
    // A server that has not said everything keeps the connection.
    let mut rest = [0; 1];
    let _ = tokio::time::timeout(SOON, stream.read(&mut rest)).await;
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn to(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

/// One that may dial this very address of the machine.
fn fetcher() -> Fetcher {
    Fetcher {
        config: Fetching {
            allow: vec!["127.0.0.1/32".parse().unwrap()],
            ..Fetching::default()
        },
        index: None,
        strict: true,
    }
}

async fn refused(source: &str) -> String {
    fetcher().fetch(source, SOON).await.unwrap_err()
}

#[tokio::test]
async fn jw_13_keys_are_fetched_from_their_address() {
    let keys = Issuer::new("a").jwks();
    let body = keys.clone();
    let server = Server::start(move |head| {
        assert!(head.starts_with("GET /keys?v=1 HTTP/1.1\r\n"), "{head}");
        assert!(
            head.contains("host: 127.0.0.1:") && !head.contains("authorization"),
            "{head}"
        );
        ok(&body)
    })
    .await;
    assert_eq!(fetcher().fetch(&server.url("/keys?v=1"), SOON).await, Ok(keys));
}

#[tokio::test]
async fn an_issuers_discovery_document_says_where_its_keys_are() {
    let keys = Issuer::new("a").jwks();
    let body = keys.clone();
    let server = Server::start(move |head| {
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        match head.split(' ').nth(1).unwrap() {
            "/realm/.well-known/openid-configuration" => {
                ok(&format!("{{\"jwks_uri\": \"http://{host}/jwks\"}}"))
            }
            "/none/.well-known/openid-configuration" => ok("{}"),
            "/jwks" => ok(&body),
            other => panic!("{other}"),
        }
    })
    .await;
    let source = |path: &str| format!("{DISCOVERY}{}", server.url(path));
    for path in ["/realm", "/realm/"] {
        assert_eq!(
            fetcher().fetch(&source(path), SOON).await,
            Ok(keys.clone()),
            "{path}"
        );
    }
    assert!(refused(&source("/none")).await.contains("has no `jwks_uri`"));
    assert!(
        refused("discovery:someone@example.com")
            .await
            .contains("is no address")
    );
}

#[tokio::test]
async fn what_is_not_to_be_dialled_is_not() {
    let server = Server::start(|_| ok("{\"keys\":[]}")).await;
    let closed = Fetcher {
        config: Fetching::default(),
        ..fetcher()
    };
    let port = server.address.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f.1",
        "0.0.0.0",
    ] {
        let why = closed
            .fetch(&format!("http://{host}:{port}/"), SOON)
            .await
            .unwrap_err();
        assert!(why.contains("where keys are not fetched from"), "{host}: {why}");
    }
    let metadata = closed
        .fetch("http://169.254.169.254/latest", SOON)
        .await
        .unwrap_err();
    assert!(metadata.contains("link-local"), "{metadata}");
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn each_hop_of_a_redirect_is_judged() {
    let keys = Issuer::new("a").jwks();
    let body = keys.clone();
    let last = Server::start(move |_| ok(&body)).await;
    let inner = Server::at("127.0.0.2:0", None, |_| ok("{\"keys\":[]}")).await;
    let (good, bad) = (last.url("/keys"), inner.url("/keys"));
    let server = Server::start(move |head| match head.split(' ').nth(1).unwrap() {
        "/good" => to(&good),
        "/relative" => to("/good"),
        "/bad" => to(&bad),
        "/metadata" => to("http://169.254.169.254/latest/meta-data"),
        "/file" => to("file:///etc/passwd"),
        "/nowhere" => "HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
        _ => to("/loop"),
    })
    .await;
    for path in ["/good", "/relative"] {
        assert_eq!(
            fetcher().fetch(&server.url(path), SOON).await,
            Ok(keys.clone()),
            "{path}"
        );
    }
    for (path, expect) in [
        (
            "/bad",
            "127.0.0.2, a loopback address, where keys are not fetched from",
        ),
        ("/metadata", "a link-local address"),
        ("/file", "which is not followed"),
        ("/nowhere", "does not say where to"),
        ("/loop", "redirects more than 5 times"),
    ] {
        let why = refused(&server.url(path)).await;
        assert!(why.contains(expect), "{path}: {why}");
    }
    assert_eq!(inner.asked(), 0);
}

#[tokio::test]
async fn jw_14_a_slow_server_is_not_waited_for() {
    let short = Duration::from_millis(200);
    for begun in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"keys\":"] {
        let server = Server::start(move |_| begun.to_owned()).await;
        let why = fetcher().fetch(&server.url("/"), short).await.unwrap_err();
        assert_eq!(why, "no answer within 200 ms");
    }
}

#[tokio::test]
async fn what_is_too_long_is_not_read_to_its_end() {
    let large = "x".repeat(MAX_BODY + 1);
    let server = Server::start(move |_| ok(&large)).await;
    assert!(refused(&server.url("/")).await.contains("longer than"));
}

#[tokio::test]
async fn r8_what_is_no_key_set_is_none() {
    let server = Server::start(|head| match head.split(' ').nth(1).unwrap() {
        "/html" => ok("<html>we are down</html>"),
        "/object" => ok("{\"error\": \"down\"}"),
        _ => "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned(),
    })
    .await;
    for (path, expect) in [
        ("/html", "is no key set"),
        ("/object", "is no key set"),
        ("/", "answers 503"),
    ] {
        let why = refused(&server.url(path)).await;
        assert!(why.contains(expect), "{path}: {why}");
    }
}

#[tokio::test]
async fn addresses_that_are_none_are_refused() {
    for (address, expect) in [
        ("ftp://example.com/", "neither https nor http"),
        ("http://user:secret@example.com/", "holds a name and password"),
        ("keys", "neither https nor http"),
    ] {
        let why = refused(address).await;
        assert!(why.contains(expect), "{address}: {why}");
    }
}

fn tls(name: &str) -> (TlsAcceptor, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), cert.pem())
}

#[tokio::test]
async fn https_is_believed_by_the_authorities_that_are_named_and_no_others() {
    let keys = Issuer::new("a").jwks();
    let body = keys.clone();
    let (acceptor, pem) = tls("localhost");
    let server = Server::at("127.0.0.1:0", Some(acceptor), move |head| {
        match head.split(' ').nth(1).unwrap() {
            "/down" => to("http://127.0.0.1/keys"),
            _ => ok(&body),
        }
    })
    .await;
    let port = server.address.port();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, pem).unwrap();
    let mut believing = fetcher();
    believing.config.ca = Some(path.clone());
    let url = |host: &str, path: &str| format!("https://{host}:{port}{path}");
    assert_eq!(believing.fetch(&url("localhost", "/keys"), SOON).await, Ok(keys));
    let stranger = fetcher()
        .fetch(&url("localhost", "/keys"), SOON)
        .await
        .unwrap_err();
    assert!(
        stranger.contains("UnknownIssuer") || stranger.contains("certificate"),
        "{stranger}"
    );
    let other = believing
        .fetch(&url("127.0.0.1", "/keys"), SOON)
        .await
        .unwrap_err();
    assert!(
        other.contains("certificate"),
        "another name than the certificate's: {other}"
    );
    let down = believing
        .fetch(&url("localhost", "/down"), SOON)
        .await
        .unwrap_err();
    assert!(down.contains("from https to"), "{down}");
    std::fs::write(&path, "nothing").unwrap();
    let broken = believing
        .fetch(&url("localhost", "/keys"), SOON)
        .await
        .unwrap_err();
    assert!(broken.contains("certificate authorities"), "{broken}");
}

/// Who answers for a bundle makes identities believed: by https, at an address that may be dialled, and no further than that.
#[tokio::test]
async fn bundles_are_fetched_by_https_alone_and_read_whole() {
    let root = {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap()
    };
    let pem = root.pem().replace("\r\n", "\n");
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let document = format!(
        "{{\"spiffe_refresh_hint\": 120, \"keys\": [{{\"kty\": \"EC\", \"use\": \"x509-svid\", \"x5c\": [\"{text}\"]}}]}}"
    );
    let (acceptor, ca) = tls("localhost");
    let large = "x".repeat(MAX_BODY + 1);
    let server = Server::at("127.0.0.1:0", Some(acceptor), move |head| {
        match head.split(' ').nth(1).unwrap() {
            "/bundle" => ok(&document),
            "/large" => ok(&large),
            "/down" => to("http://127.0.0.1/bundle"),
            "/inside" => to("https://169.254.169.254/bundle"),
            "/empty" => ok("{\"keys\": []}"),
            _ => ok("<html>"),
        }
    })
    .await;
    let port = server.address.port();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, ca).unwrap();
    let mut believing = fetcher();
    believing.config.ca = Some(path);
    let get = async |path: &str| {
        believing
            .bundle(&format!("https://localhost:{port}{path}"), SOON)
            .await
    };
    let bundle = get("/bundle").await.unwrap();
    assert_eq!(bundle.roots, pem);
    assert_eq!(bundle.refresh, Some(Duration::from_secs(120)));
    assert_eq!(get("/empty").await.unwrap().roots, "");
    for (path, expect) in [
        ("/large", "longer than"),
        ("/down", "from https to"),
        ("/inside", "a link-local address"),
        ("/html", "is no bundle"),
    ] {
        let why = get(path).await.unwrap_err();
        assert!(why.contains(expect), "{path}: {why}");
    }
    let plain = format!("http://localhost:{port}/bundle");
    let why = believing.bundle(&plain, SOON).await.unwrap_err();
    assert!(why.contains("no address of https"), "{why}");
    let mut guarded = believing.clone();
    guarded.config.allow.clear();
    let why = guarded
        .bundle(&format!("https://localhost:{port}/bundle"), SOON)
        .await
        .unwrap_err();
    assert!(why.contains("a loopback address"), "{why}");
    let silent = Server::start(|_| String::new()).await;
    let address = format!("https://{}/", silent.address);
    let why = believing
        .bundle(&address, Duration::from_millis(200))
        .await
        .unwrap_err();
    assert_eq!(why, "no answer within 200 ms");
}

/// A mesh with the Service `keys` of `istio-system`, whose port 8000 is `target` of the machine, and one without endpoints.
fn mesh(target: u16) -> Arc<Index> {
    let service = |name: &str, vip: &str, addresses: &[&str]| snapshot::Service {
        name: model::ServiceName::new("istio-system", name),
        host: format!("{name}.istio-system.svc.cluster.local").parse().unwrap(),
        vips: vec![vip.parse().unwrap()],
        headless: false,
        external_name: None,
        external: None,
        ports: vec![snapshot::ServicePort {
            name: "http".to_owned(),
            port: 8000,
            protocol: model::Protocol::Http,
            tls: None,
            tls_by_namespace: std::collections::BTreeMap::new(),
        }],
        endpoints: addresses
            .iter()
            .map(|address| snapshot::Endpoint {
                uid: model::WorkloadUid::new("keys"),
                workload: None,
                addresses: vec![address.parse().unwrap()],
                ports: [(8000, target)].into(),
                ready: true,
                node: None,
                identity: None,
                plaintext_ports: vec![],
                mtls_ports: vec![],
                hbone: false,
                hostname: None,
            })
            .collect(),
        identities: vec![],
    };
    let compiled = compiler::compile(&compiler::World {
        nodes: vec!["node-0".to_owned()],
        ..compiler::World::default()
    });
    let mut resources = compiled.nodes["node-0"].clone();
    resources.insert(Arc::new(service("keys", "10.96.0.20", &["127.0.0.1"]).into()));
    resources.insert(Arc::new(service("inner", "10.96.0.22", &["127.0.0.2"]).into()));
    resources.insert(Arc::new(service("empty", "10.96.0.21", &[]).into()));
    Arc::new(Index::build(&resources).unwrap())
}

#[tokio::test]
async fn services_of_the_mesh_are_reached_at_their_endpoints() {
    let keys = Issuer::new("a").jwks();
    let body = keys.clone();
    let server = Server::start(move |_| ok(&body)).await;
    let inside = Fetcher {
        index: Some(mesh(server.address.port())),
        ..fetcher()
    };
    for host in [
        "keys",
        "keys.istio-system",
        "Keys.istio-system.svc.cluster.local",
        "10.96.0.20",
    ] {
        let fetched = inside.fetch(&format!("http://{host}:8000/jwks"), SOON).await;
        assert_eq!(fetched, Ok(keys.clone()), "{host}");
    }
    for (address, expect) in [
        (
            "http://keys.istio-system:8001/",
            "no ready endpoint for port 8001",
        ),
        ("http://empty.istio-system:8000/", "no ready endpoint"),
        ("http://none.istio-system.svc.cluster.local/", "no such Service"),
        (
            "http://inner.istio-system:8000/",
            "where keys are not fetched from",
        ),
    ] {
        let why = inside.fetch(address, SOON).await.unwrap_err();
        assert!(why.contains(expect), "{address}: {why}");
    }
}
