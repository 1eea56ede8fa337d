//! When a connection is no longer what a handshake would make it.

use super::*;

async fn ready(store: &Store, root: &Signer, token: &TokenFile) {
    store.set_roots(std::slice::from_ref(&root.pem)).unwrap();
    store.ensure(&id(), token.clone()).await.unwrap();
}

/// What a connection from one store to another rests on, at both ends.
async fn connected(caller: &Store, callee: &Store) -> (Standing, Standing) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (own, expected) = (id(), [id()]);
    let (connected, accepted) = tokio::join!(
        caller.connect(&own, near, "x", &expected, &[]),
        callee.accept(&own, far, &[])
    );
    (connected.unwrap().standing, accepted.unwrap().standing)
}

#[tokio::test(start_paused = true)]
async fn it_stands_until_what_is_believed_changes_in_any_way() {
    let (a, b) = (signer("a"), signer("b"));
    let bench = Bench::new(&a, Duration::from_secs(3600));
    let (store, (_dir, token)) = (store(&bench), token());
    ready(&store, &a, &token).await;
    let changes: [&dyn Fn(&Store); 5] = [
        &|store| store.set_roots(&[a.pem.clone(), b.pem.clone()]).unwrap(),
        &|store| store.set_trust_domains(TrustDomain::default(), vec!["old".parse().unwrap()]),
        &|store| store.set_min_tls(false),
        &|store| store.set_suites(&["ECDHE-ECDSA-AES128-GCM-SHA256".to_owned()]),
        &|store| drop(store.set_bundles(&[("other".parse().unwrap(), b.pem.clone())])),
    ];
    for (number, change) in changes.iter().enumerate() {
        let (near, far) = connected(&store, &store).await;
        assert!(store.stands(&near) && store.stands(&far), "{number}");
        change(&store);
        assert!(!store.stands(&near) && !store.stands(&far), "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_stands_until_the_own_certificate_is_another_or_gone() {
    let root = signer("a");
    let bench = Bench::new(&root, Duration::from_secs(100));
    let (store, (_dir, token)) = (store(&bench), token());
    ready(&store, &root, &token).await;
    let (near, far) = connected(&store, &store).await;
    pass(40).await;
    assert!(store.stands(&near) && store.stands(&far));
    pass(20).await;
    assert_eq!(bench.asked(), 2);
    assert!(!store.stands(&near) && !store.stands(&far));
    let (near, far) = connected(&store, &store).await;
    assert!(store.stands(&near) && store.stands(&far));
    store.forget(&id());
    pass(1).await;
    assert!(!store.stands(&near) && !store.stands(&far));
}

#[tokio::test(start_paused = true)]
async fn it_stands_no_longer_than_the_peers_certificate_is_good() {
    let root = signer("a");
    let (lasting, short) = (
        Bench::new(&root, Duration::from_secs(3600)),
        Bench::new(&root, Duration::from_secs(20)),
    );
    let (one, other) = (store(&lasting), store(&short));
    let (_dir, token) = token();
    ready(&one, &root, &token).await;
    ready(&other, &root, &token).await;
    let (near, _) = connected(&one, &other).await;
    let (_, far) = connected(&other, &one).await;
    pass(18).await;
    assert!(one.stands(&near) && one.stands(&far));
    pass(4).await;
    assert!(!one.stands(&near) && !one.stands(&far));
}
