//! Keys of token issuers, from their server to the proxies.

use std::sync::{Arc, Mutex};

use serde_json::json;
use testkit::issuer::Issuer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::bed::{Bed, NAMESPACE, pod};

/// A server whose answer can be changed. Returns its address.
async fn server(answer: Arc<Mutex<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let body = answer.lock().unwrap().clone();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let text = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    format!("http://{address}/keys")
}

fn object(uri: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: ra, namespace: demo}}\n\
         spec: {{jwtRules: [{{issuer: i, jwksUri: '{uri}'}}]}}\n"
    )
}

/// A mesh with one pod, whose control plane fetches every second from this machine.
async fn bed(uri: &str) -> Bed {
    let mut bed = Bed::start(&["a"], &[("n.yaml", NAMESPACE), ("ra.yaml", &object(uri))]).await;
    bed.config.fetching = crate::Fetching {
        allow: vec!["127.0.0.1/32".parse().unwrap()],
        refresh_s: Some(1),
        ..crate::Fetching::default()
    };
    bed.restart().await;
    let (_, done) = bed
        .call("report", json!({"pods": [pod("web", "a", "10.77.0.2")]}))
        .await;
    done.unwrap();
    bed
}

fn why(status: &admin::verbs::Status) -> String {
    let object = status.objects.iter().find(|object| object.name == "ra");
    object.map(|object| object.why.join("; ")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_reach_the_proxies_rotate_and_survive_an_answer_that_is_none() {
    let (first, second) = (Issuer::new("1").jwks(), Issuer::new("2").jwks());
    let answer = Arc::new(Mutex::new("<html>not yet</html>".to_owned()));
    let uri = server(Arc::clone(&answer)).await;
    let set = |text: &str| text.clone_into(&mut answer.lock().unwrap());
    let bed = bed(&uri).await;
    let mut proxy = bed.proxy("a").await;
    let status = bed.until(|status| why(status).contains("is no key set")).await;
    let told = why(&status);
    assert!(
        told.contains("tokens of issuer `i` are refused") && told.contains("since 2"),
        "{told}"
    );
    assert!(
        status.problems.iter().any(|problem| problem.code == "MW0522"),
        "{status:?}"
    );
    proxy.until("authentication/demo/ra", true).await;
    assert_eq!(proxy.keys(&uri), None);

    set(&first);
    proxy.until_keys(&uri, Some(&first)).await;
    bed.until(|status| why(status).is_empty()).await;
    set(&second);
    proxy.until_keys(&uri, Some(&second)).await;
    set("<html>down</html>");
    bed.until(|status| why(status).contains("are the last good ones"))
        .await;
    assert_eq!(proxy.keys(&uri), Some(second), "R8");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_outlive_a_restart_while_their_server_does_not() {
    let keys = Issuer::new("1").jwks();
    let answer = Arc::new(Mutex::new(keys.clone()));
    let uri = server(Arc::clone(&answer)).await;
    let mut bed = bed(&uri).await;
    let mut proxy = bed.proxy("a").await;
    proxy.until_keys(&uri, Some(&keys)).await;
    drop(proxy);
    bed.stop().await;
    "<html>down</html>".clone_into(&mut answer.lock().unwrap());
    bed.restart().await;
    let mut proxy = bed.proxy("a").await;
    proxy.until("authentication/demo/ra", true).await;
    assert_eq!(
        proxy.keys(&uri),
        Some(keys),
        "the first set that it gets has them"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_are_not_dialled_are_told_with_the_object() {
    let answer = Arc::new(Mutex::new(Issuer::new("1").jwks()));
    let uri = server(answer).await;
    let mut bed = bed(&uri).await;
    bed.config.fetching = crate::Fetching::default();
    bed.stop().await;
    std::fs::remove_file(bed.config.state.join("keys.json")).unwrap();
    bed.restart().await;
    let status = bed
        .until(|status| why(status).contains("where keys are not fetched from"))
        .await;
    assert!(
        why(&status).contains("127.0.0.1, a loopback address"),
        "{}",
        why(&status)
    );
}

fn mesh_config(text: &str) -> String {
    let text = text.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    {text}\n"
    )
}

/// A root, its key identifier in no place: a mesh takes none that is version 3 and says nothing of what it is for.
fn root(edit: impl FnOnce(&mut rcgen::CertificateParams)) -> String {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    edit(&mut params);
    params
        .self_signed(&rcgen::KeyPair::generate().unwrap())
        .unwrap()
        .pem()
}

fn indented(pem: &str) -> String {
    pem.replace("\r\n", "\n").replace('\n', "\n    ")
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_that_cannot_be_used_are_told_with_the_place_of_what_names_them() {
    let bed = Bed::start(&["a"], &[]).await;
    let config = |pem: &str| {
        mesh_config(&format!(
            "caCertificates:\n- trustDomains: [partner.example]\n  pem: |\n    {}",
            indented(pem)
        ))
    };
    // What the text itself gives away is refused: nothing of it is in force.
    bed.write("m.yaml", &config("no certificate"));
    let status = bed
        .until(|status| {
            status
                .problems
                .iter()
                .any(|p| p.message.contains("holds no certificate"))
        })
        .await;
    let problem = status
        .problems
        .iter()
        .find(|p| p.message.contains("holds no certificate"))
        .unwrap();
    assert_eq!(
        (problem.file.ends_with("m.yaml"), problem.line),
        (true, 9),
        "{problem:?}"
    );
    assert!(problem.column > 1, "{problem:?}");
    // What only a verifier finds is told of the object, by the verifier.
    let odd = root(|params| {
        let mut unknown = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 99], vec![5, 0]);
        unknown.set_criticality(true);
        params.custom_extensions = vec![unknown];
    });
    bed.write("m.yaml", &config(&odd));
    let status = bed
        .until(|status| status.problems.iter().any(|p| p.code == "MW0608"))
        .await;
    let problem = status.problems.iter().find(|p| p.code == "MW0608").unwrap();
    assert!(
        problem.message.contains("caCertificates[0].pem") && problem.message.contains("2.5.29.99"),
        "{problem:?}"
    );
    assert!(
        problem.file.ends_with("m.yaml") && problem.line > 1,
        "{problem:?}"
    );
    bed.write("m.yaml", &config(&root(|_| {})));
    bed.until(|status| status.problems.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_cannot_be_fetched_is_told_and_nobody_is_believed_by_it() {
    let config = mesh_config(
        "caCertificates:\n- trustDomains: [partner.example]\n  spiffeBundleUrl: https://127.0.0.1:1/bundle",
    );
    let bed = Bed::start(&["a"], &[("m.yaml", &config)]).await;
    let status = bed
        .until(|status| {
            status
                .problems
                .iter()
                .any(|p| p.message.contains("a loopback address"))
        })
        .await;
    let problem = status
        .problems
        .iter()
        .find(|p| p.message.contains("a loopback address"))
        .unwrap();
    assert!(
        problem
            .message
            .contains("caCertificates[0].spiffeBundleUrl`: not in force"),
        "{problem:?}"
    );
}

/// A server of https whose answer can be changed, and the certificate that it is believed by.
async fn https(answer: Arc<Mutex<String>>) -> (u16, String) {
    use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(identity::crypto())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let body = answer.lock().unwrap().clone();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let text = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, cert.pem())
}

/// Roots follow their bundle: they come, they stay while the bundle is broken, and they go when it withdraws them.
#[tokio::test(flavor = "multi_thread")]
async fn the_roots_of_a_bundle_reach_the_proxies_and_leave_them() {
    let text: String = root(|_| {})
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let whole = json!({"keys": [{"kty": "EC", "use": "x509-svid", "x5c": [text]}]}).to_string();
    let answer = Arc::new(Mutex::new(whole.clone()));
    let set = |text: &str| text.clone_into(&mut answer.lock().unwrap());
    let (port, ca) = https(Arc::clone(&answer)).await;
    let config = mesh_config(&format!(
        "caCertificates:\n- trustDomains: [partner.example]\n  spiffeBundleUrl: https://localhost:{port}/bundle"
    ));
    let mut bed = Bed::start(&["a"], &[("m.yaml", &config)]).await;
    let path = bed.dir.path().join("web.pem");
    std::fs::write(&path, ca).unwrap();
    bed.config.fetching = crate::Fetching {
        allow: vec!["127.0.0.1/32".parse().unwrap(), "::1/128".parse().unwrap()],
        refresh_s: Some(1),
        ca: Some(path),
    };
    bed.restart().await;
    let mut proxy = bed.proxy("a").await;
    proxy.until_bundles(&["partner.example"]).await;
    bed.until(|status| status.problems.is_empty()).await;
    set("{\"keys\": []}");
    proxy.until_bundles(&[]).await;
    set(&whole);
    proxy.until_bundles(&["partner.example"]).await;
    set("<html>down</html>");
    bed.until(|status| {
        let told = |problem: &admin::verbs::ProblemLine| problem.message.contains("the last good ones");
        status.problems.iter().any(told)
    })
    .await;
    proxy.until_bundles(&["partner.example"]).await;
}
