use std::sync::Arc;
use std::time::Duration;

use identity::token::AUDIENCE;
use tokio::time::timeout;

use xds::server::Authenticate;

use super::bed::{Bed, Caller, NAMESPACE, id};
use crate::config::{NODE_ACCOUNT, OWN_ACCOUNT, SYSTEM_NAMESPACE};
use crate::tls::Gate;

#[tokio::test(flavor = "multi_thread")]
async fn r39_only_a_nodes_proxy_gets_a_snapshot_and_only_its_own() {
    let bed = Bed::start(&["a", "b"], &[("n.yaml", NAMESPACE)]).await;
    let token = |namespace: &str, account: &str, node: &str, audience: &str| {
        bed.token(namespace, account, node, audience)
    };
    let node = |name: &str| token(SYSTEM_NAMESPACE, NODE_ACCOUNT, name, AUDIENCE);
    let strangers = [
        ("id_14 another node's token", NODE_ACCOUNT, node("b")),
        ("another account's certificate", OWN_ACCOUNT, node("a")),
        (
            "a token of another account",
            NODE_ACCOUNT,
            token(SYSTEM_NAMESPACE, OWN_ACCOUNT, "a", AUDIENCE),
        ),
        (
            "a token of another namespace",
            NODE_ACCOUNT,
            token("n", NODE_ACCOUNT, "a", AUDIENCE),
        ),
        (
            "a token for another audience",
            NODE_ACCOUNT,
            token(SYSTEM_NAMESPACE, NODE_ACCOUNT, "a", "api"),
        ),
        ("a token that names no node", NODE_ACCOUNT, node("")),
        ("no token", NODE_ACCOUNT, "nonsense".to_owned()),
    ];
    let mut refused = Vec::new();
    for (name, account, token) in strangers {
        refused.push((name, bed.proxy_with("a", account, token).await));
    }
    let mut right = bed.proxy("b").await;
    assert!(
        timeout(Duration::from_secs(5), right.sets.recv())
            .await
            .unwrap()
            .is_some()
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    for (name, mut proxy) in refused {
        assert!(proxy.sets.try_recv().is_err(), "{name}");
    }
    let status = bed.status().await.unwrap();
    assert_eq!(
        (status.nodes[0].connected, status.nodes[0].acknowledged),
        (false, 0),
        "{:?}",
        status.nodes
    );
    assert!(status.nodes[1].connected && status.nodes[1].acknowledged > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_says_why() {
    let bed = Bed::start(&["a"], &[]).await;
    let taken = crate::run(bed.config.clone()).await.unwrap_err();
    assert!(taken.contains("cannot listen on 127.0.0.1"), "{taken}");
    let mut config = bed.config.clone();
    config.listen.clear();
    config.state = bed.config.roots.join("state");
    let state = crate::run(config.clone()).await.unwrap_err();
    assert!(state.contains("state directory"), "{state}");
    config.state = bed.dir.path().join("other");
    let socket = crate::run(config).await.unwrap_err();
    assert!(socket.contains("is taken"), "{socket}");
}

#[tokio::test]
async fn a_token_that_names_no_node_proves_none() {
    let bed = Bed::start(&["a"], &[]).await;
    let caller = Caller(Arc::clone(&bed.authority), id(OWN_ACCOUNT));
    let gate = Gate::new(&bed.config, Arc::new(caller)).unwrap();
    let node = async |name: &str| {
        let token = bed.token(SYSTEM_NAMESPACE, NODE_ACCOUNT, name, AUDIENCE);
        gate.node(&id(NODE_ACCOUNT), &token).await
    };
    assert_eq!(node("a").await, Ok("a".to_owned()));
    assert!(node("").await.is_err());
    std::fs::write(
        &bed.config.token_keys,
        identity::token::Issuer::new("other").unwrap().jwks(),
    )
    .unwrap();
    assert!(node("a").await.is_err(), "keys that were taken out do not count");
    std::fs::remove_file(&bed.config.token_keys).unwrap();
    assert!(node("a").await.is_err(), "without keys there is no node");
}
