use std::sync::atomic::AtomicUsize;

use http_body_util::BodyExt;
use meshward_http::{Abort, Body, Fault, Handler, HeaderValue, Protocol, Request, Response, ServeOptions};

use super::*;

fn key(account: &str, speak: Speak) -> Key {
    Key {
        caller: format!("spiffe://td/ns/n/sa/{account}").parse().unwrap(),
        leaf: [0; 32],
        from: From::Node,
        to: "10.0.0.1:80".parse().unwrap(),
        tls: None,
        speak,
    }
}

struct Hello;

impl Handler for Hello {
    async fn request(&self, request: Request) -> Result<Response, Abort> {
        if request.uri().path() == "/never" {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(Body::from("hello")))
    }

    fn refused(&self, _: Fault) {}
}

/// A server behind a pipe, and how often it was dialled.
#[derive(Clone, Default)]
struct Dialled(Arc<AtomicUsize>);

impl Dialled {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    async fn open(self, version: Version) -> Result<Opened, Failure> {
        self.0.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let (near, far) = tokio::io::duplex(4096);
        let never = std::future::pending();
        let options = ServeOptions::default();
        tokio::spawn(meshward_http::serve(
            far,
            Protocol::Detect,
            options,
            Arc::new(Hello),
            never,
        ));
        let mut sender = meshward_http::handshake(near, version).await.unwrap();
        sender.ready().await.unwrap();
        Ok(Opened {
            sender,
            peer: None,
            late: Late::default(),
        })
    }
}

async fn lease(
    pool: &Arc<Pool>,
    key: impl Into<SharedKey>,
    dialled: &Dialled,
    version: Version,
) -> Result<Lease, Failure> {
    let key = key.into();
    pool.lease(key, || dialled.clone().open(version)).await
}

async fn exchange(mut lease: Lease) {
    let mut request = Request::new(Body::empty());
    request
        .headers_mut()
        .insert("host", HeaderValue::from_static("a"));
    let response = lease.sender.send(request).await.unwrap();
    response.into_body().collect().await.unwrap();
    while !lease.sender.is_ready() {
        tokio::task::yield_now().await;
    }
    lease.release();
}

#[tokio::test]
async fn http1_is_used_again_when_an_exchange_is_over_and_not_before() {
    let (pool, dialled) = (Arc::new(Pool::default()), Dialled::default());
    let key = || key("a", Speak::Http1);
    let first = lease(&pool, key(), &dialled, Version::Http1).await.unwrap();
    let second = lease(&pool, key(), &dialled, Version::Http1).await.unwrap();
    assert_eq!(dialled.count(), 2);
    exchange(first).await;
    let again = lease(&pool, key(), &dialled, Version::Http1).await.unwrap();
    assert_eq!(dialled.count(), 2);
    // One that is dropped may be in the midst of anything.
    drop((second, again));
    lease(&pool, key(), &dialled, Version::Http1).await.unwrap();
    assert_eq!(dialled.count(), 3);
}

#[tokio::test]
async fn nothing_of_another_caller_is_used() {
    let (pool, dialled) = (Arc::new(Pool::default()), Dialled::default());
    let own = key("a", Speak::Http2);
    let _held = lease(&pool, own.clone(), &dialled, Version::Http2).await.unwrap();
    let from = From::Pod {
        address: "10.0.0.9".parse().unwrap(),
        mark: 0x100,
    };
    let tls = Tls {
        sni: Arc::from("a"),
        expected: Arc::from([own.caller.clone()]),
        hbone: false,
    };
    for other in [
        key("b", Speak::Http2),
        Key {
            leaf: [1; 32],
            ..own.clone()
        },
        Key { from, ..own.clone() },
        Key {
            tls: Some(tls),
            ..own.clone()
        },
        Key {
            to: "10.0.0.1:81".parse().unwrap(),
            ..own.clone()
        },
    ] {
        let before = dialled.count();
        lease(&pool, other, &dialled, Version::Http2).await.unwrap();
        assert_eq!(dialled.count(), before + 1);
    }
    lease(&pool, own, &dialled, Version::Http2).await.unwrap();
    assert_eq!(dialled.count(), 6);
}

#[tokio::test]
async fn http2_is_shared_up_to_its_streams() {
    let (pool, dialled) = (Arc::new(Pool::default()), Dialled::default());
    let mut held = Vec::new();
    for _ in 0..MAX_STREAMS {
        held.push(
            lease(&pool, key("a", Speak::Http2), &dialled, Version::Http2)
                .await
                .unwrap(),
        );
    }
    assert_eq!(dialled.count(), 1);
    held.push(
        lease(&pool, key("a", Speak::Http2), &dialled, Version::Http2)
            .await
            .unwrap(),
    );
    assert_eq!(dialled.count(), 2);
    drop(held);
    lease(&pool, key("a", Speak::Http2), &dialled, Version::Http2)
        .await
        .unwrap();
    assert_eq!(dialled.count(), 2);
}

#[tokio::test]
async fn those_who_miss_at_once_share_one_dial_and_its_failure() {
    let (pool, dialled) = (Arc::new(Pool::default()), Dialled::default());
    let ask = || lease(&pool, key("a", Speak::Either), &dialled, Version::Http2);
    let (a, b, c) = tokio::join!(ask(), ask(), ask());
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(dialled.count(), 1);

    let tries = Arc::new(AtomicUsize::new(0));
    let fail = || {
        let tries = Arc::clone(&tries);
        pool.lease(key("b", Speak::Http2).into(), move || {
            tries.fetch_add(1, Ordering::SeqCst);
            async {
                tokio::task::yield_now().await;
                Err(Failure::of(Reason::ConnectFailed))
            }
        })
    };
    let (a, b) = tokio::join!(fail(), fail());
    assert!(a.is_err() && b.is_err());
    assert_eq!(tries.load(Ordering::SeqCst), 1);
    // A failure is not kept.
    assert!(fail().await.is_err());
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn whoever_leaves_does_not_take_the_dial_with_it() {
    let (pool, dialled) = (Arc::new(Pool::default()), Dialled::default());
    let leaves = lease(&pool, key("a", Speak::Http2), &dialled, Version::Http2);
    let stays = lease(&pool, key("a", Speak::Http2), &dialled, Version::Http2);
    let leaves = async {
        tokio::select! {
            biased;
            _ = leaves => panic!("it was to leave first"),
            () = std::future::ready(()) => {}
        }
    };
    let ((), stayed) = tokio::join!(leaves, stays);
    assert!(stayed.is_ok());
    assert_eq!(dialled.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_is_closed_after_a_while() {
    let (pool, dialled) = (Arc::new(Pool::default()), Dialled::default());
    exchange(
        lease(&pool, key("a", Speak::Http1), &dialled, Version::Http1)
            .await
            .unwrap(),
    )
    .await;
    exchange(
        lease(&pool, key("a", Speak::Http2), &dialled, Version::Http2)
            .await
            .unwrap(),
    )
    .await;
    let total = || pool.total.load(Ordering::Relaxed);
    assert_eq!(total(), 2);
    tokio::time::advance(IDLE / 2).await;
    pool.sweep();
    assert_eq!(total(), 2);
    tokio::time::advance(IDLE).await;
    pool.sweep();
    assert_eq!(total(), 0);
    assert!(pool.with(|slots| slots.by_key.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn what_is_in_use_is_not_swept() {
    let (pool, dialled) = (Arc::new(Pool::default()), Dialled::default());
    let held = lease(&pool, key("a", Speak::Http2), &dialled, Version::Http2)
        .await
        .unwrap();
    tokio::time::advance(IDLE * 2).await;
    pool.sweep();
    lease(&pool, key("a", Speak::Http2), &dialled, Version::Http2)
        .await
        .unwrap();
    assert_eq!(dialled.count(), 1);
    drop(held);
}

#[tokio::test]
async fn there_is_a_limit_for_all_keys_together() {
    let (pool, dialled) = (Arc::new(Pool::default()), Dialled::default());
    pool.total.store(MAX_CONNECTIONS - 1, Ordering::Relaxed);
    let last = lease(&pool, key("a", Speak::Http1), &dialled, Version::Http1).await;
    for speak in [Speak::Http1, Speak::Http2] {
        let refused = lease(&pool, key("b", speak), &dialled, Version::Http1).await;
        assert_eq!(refused.err().map(|f| f.reason), Some(Reason::LimitReached));
    }
    assert!(last.is_ok());
    drop(last);
    assert!(
        lease(&pool, key("b", Speak::Http1), &dialled, Version::Http1)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn there_is_a_limit_for_each_key() {
    let (pool, dialled) = (Arc::new(Pool::default()), Dialled::default());
    let slot_count = pool.with(|slots| {
        let slot = slots.by_key.entry(key("a", Speak::Http1).into()).or_default();
        Arc::clone(&slot.count)
    });
    slot_count.store(MAX_PER_KEY, Ordering::Relaxed);
    let refused = lease(&pool, key("a", Speak::Http1), &dialled, Version::Http1).await;
    assert_eq!(refused.err().map(|f| f.reason), Some(Reason::LimitReached));
    assert!(
        lease(&pool, key("b", Speak::Http1), &dialled, Version::Http1)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn an_upgrade_is_nobody_elses() {
    let (pool, dialled) = (Arc::new(Pool::default()), Dialled::default());
    for _ in 0..2 {
        let opening = dialled.clone().open(Version::Http1);
        exchange(
            pool.apart(key("a", Speak::Upgrade).into(), opening)
                .await
                .unwrap(),
        )
        .await;
    }
    assert_eq!(dialled.count(), 2);
}

#[tokio::test]
async fn where_one_had_ended_the_others_are_not_tried() {
    let (pool, dialled) = (Arc::new(Pool::default()), Dialled::default());
    let ask = || lease(&pool, key("a", Speak::Http1), &dialled, Version::Http1);
    let (a, b) = (ask().await.unwrap(), ask().await.unwrap());
    exchange(a).await;
    exchange(b).await;
    ask().await.unwrap().distrust();
    assert_eq!(dialled.count(), 2);
    ask().await.unwrap();
    assert_eq!(dialled.count(), 3);
}

fn believing(root: &str) -> Index {
    use super::super::tests::world::mesh;
    use snapshot::{Egress, Resource, Resources};
    let resources: Resources = [
        Resource::from(mesh(Egress::RegistryOnly)),
        Resource::Roots(vec![root.to_owned()]),
    ]
    .into_iter()
    .collect();
    Index::build(&resources).unwrap()
}

#[tokio::test]
async fn what_was_opened_while_trust_changed_is_not_used() {
    let (pool, dialled) = (Arc::new(Pool::default()), Dialled::default());
    pool.follow(&believing("old"));
    let (open, opened) = watch::channel(false);
    let slow = pool.lease(key("a", Speak::Http2).into(), || {
        let (dialled, mut opened) = (dialled.clone(), opened.clone());
        async move {
            let _ = opened.wait_for(|told| *told).await;
            dialled.open(Version::Http2).await
        }
    });
    let change = async {
        tokio::task::yield_now().await;
        pool.follow(&believing("new"));
        open.send_replace(true);
    };
    let (held, ()) = tokio::join!(slow, change);
    assert!(held.is_ok());
    assert_eq!(dialled.count(), 2);
    // The same snapshot again changes nothing.
    pool.follow(&believing("new"));
    let _kept = lease(&pool, key("a", Speak::Http2), &dialled, Version::Http2)
        .await
        .unwrap();
    assert_eq!(dialled.count(), 2);
}
