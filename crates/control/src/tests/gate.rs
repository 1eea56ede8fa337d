use std::time::Duration;

use identity::token::AUDIENCE;
use tokio::time::timeout;

use super::bed::{Bed, NAMESPACE};
use crate::config::{NODE_ACCOUNT, OWN_ACCOUNT, SYSTEM_NAMESPACE};

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
