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
