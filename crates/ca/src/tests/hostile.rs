//! Signing requests that are cut, too long or none, and more connections than there may be.

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use testkit::hostile::{self, Answer};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::serve::{MAX_CONNECTIONS, MAX_MESSAGE};

const PATH: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// Field 1, a text of a length that the caller knows: `IstioCertificateRequest.csr`.
const CSR: u8 = 0x0a;

async fn dial(mesh: &Mesh) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    let root = mesh.root();
    roots
        .add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap())
        .unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(identity::crypto())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(mesh.address).await.unwrap();
    let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .unwrap()
}

/// A request that would be granted.
fn good() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let pem = request.pem().unwrap();
    let mut message = vec![CSR];
    // A length of two bytes.
    message.push(u8::try_from(pem.len() & 0x7f).unwrap() | 0x80);
    message.push(u8::try_from(pem.len() >> 7).unwrap());
    message.extend(pem.as_bytes());
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_requests_that_are_cut_or_too_long_or_none_get_no_certificate() {
    let mesh = Mesh::start("cluster.local", 60).await;
    let token = mesh.token("client", AUDIENCE).read().unwrap();
    let good = good();
    let answers = hostile::speak(async || dial(&mesh).await, PATH, &token, &good, MAX_MESSAGE).await;
    assert!(answers.len() > 60);
    let wrong: Vec<_> = answers
        .iter()
        .filter(|(what, answer)| match answer {
            Answer::Left => !what.starts_with("left"),
            Answer::Status(0) | Answer::Silence | Answer::Broken(_) => true,
            Answer::Status(_) | Answer::Reset => false,
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    // And who asks as one should gets one.
    mesh.store("cluster.local", "good").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_as_many_connections_as_there_may_be_the_next_waits_for_a_place() {
    let mesh = Mesh::start("cluster.local", 60).await;
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        held.push(TcpStream::connect(mesh.address).await.unwrap());
    }
    // All places are taken by those that say nothing, until their handshakes have taken too long.
    let store = mesh.empty_store("cluster.local");
    let (client, token) = (id("cluster.local", "late"), mesh.token("late", AUDIENCE));
    tokio::time::timeout(Duration::from_secs(60), async {
        while store.ensure(&client, token.clone()).await.is_err() {}
    })
    .await
    .expect("it gets its turn");
    drop(held);
}
