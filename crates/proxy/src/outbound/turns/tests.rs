//! Which connections are used again, and which are not.

use std::sync::Arc;

use model::{Protocol, Reason};
use snapshot::Workload;
use telemetry::Event;
use tokio::io::{AsyncWriteExt, duplex};

use super::super::tests::world::{CLIENT, Kind, Next, World, endpoint, pod, service};
use super::super::tests::{VIP, web};
use super::*;

async fn world(next: Next) -> World {
    web(Protocol::Tcp, Kind::MeshTurns("web", next)).await
}

/// Says something, hears it, and waits until it has been told of: then the connection is back.
async fn say(world: &World, text: &[u8]) -> Arc<Event> {
    assert_eq!(world.say(VIP, text).await, text);
    world.event().await
}

#[tokio::test]
async fn tcp_connections_of_one_caller_take_turns_on_one_connection_of_mutual_tls() {
    let world = world(Next::Taken).await;
    for text in [&b"one"[..], b"", &[b'x'; 40_000], b"four"] {
        let event = say(&world, text).await;
        let length = u64::try_from(text.len()).unwrap();
        assert_eq!(
            (event.bytes_received, event.bytes_sent, event.reason),
            (length, length, None)
        );
        let principal = event.destination.principal.as_ref().map(SpiffeId::to_string);
        assert_eq!(
            principal.as_deref(),
            Some("spiffe://cluster.local/ns/full/sa/web")
        );
        assert_eq!(event.wire, telemetry::Wire::MutualTls);
    }
    assert_eq!(world.sources(), [CLIENT.parse::<IpAddr>().ok()]);
}

#[tokio::test]
async fn two_at_once_have_a_connection_each() {
    let world = world(Next::Taken).await;
    let (near, other) = (world.open(VIP), world.open(VIP));
    assert_eq!(World::talk(other, b"other").await, b"other");
    assert_eq!(World::talk(near, b"near").await, b"near");
    assert_eq!(world.sources().len(), 2);
}

#[tokio::test]
async fn nothing_that_another_caller_has_opened_is_used() {
    let world = world(Next::Taken).await;
    say(&world, b"mine").await;
    for (account, address) in [("other", CLIENT), ("client", "10.77.0.9"), ("other", "10.77.0.9")] {
        let near = world.open_as(account, address, VIP);
        assert_eq!(World::talk(near, b"theirs").await, b"theirs");
        world.event().await;
    }
    assert_eq!(world.sources().len(), 4);
    say(&world, b"mine again").await;
    assert_eq!(world.sources().len(), 4);
}

#[tokio::test]
async fn a_stranger_is_carried_by_a_connection_for_each() {
    let world = web(Protocol::Tcp, Kind::MeshEcho("web")).await;
    say(&world, b"one").await;
    say(&world, b"two").await;
    assert_eq!(world.sources().len(), 2);
}

#[tokio::test]
async fn where_what_is_believed_has_changed_the_handshake_is_made_anew() {
    let world = world(Next::Taken).await;
    say(&world, b"one").await;
    let identities = &world.outbound().shared.identities;
    identities.set_trust_domains("cluster.local".parse().unwrap(), vec![]);
    say(&world, b"two").await;
    assert_eq!(world.sources().len(), 2);
    say(&world, b"three").await;
    assert_eq!(world.sources().len(), 2);
    // Who is not believed any more has no turn either.
    identities.set_trust_domains("elsewhere".parse().unwrap(), vec![]);
    assert_eq!(world.say(VIP, b"four").await, b"");
    assert_eq!(world.event().await.reason, Some(Reason::PeerIdentity));
}

#[tokio::test]
async fn where_the_callers_certificate_is_another_the_handshake_is_made_anew() {
    let world = world(Next::Taken).await;
    say(&world, b"one").await;
    world.renewed().await;
    say(&world, b"two").await;
    assert_eq!(world.sources().len(), 2);
}

#[tokio::test]
async fn where_trust_changes_within_a_turn_the_connection_is_not_kept() {
    let world = world(Next::Taken).await;
    let outbound = world.outbound();
    for changed in [false, true] {
        let mut near = world.open(VIP);
        // More than is held on the way: that it has been written says that the handshake is over.
        near.write_all(&[b'x'; 100_000]).await.unwrap();
        if changed {
            let identities = &outbound.shared.identities;
            identities.set_trust_domains("cluster.local".parse().unwrap(), vec![]);
        }
        assert_eq!(World::talk(near, b"and more").await.len(), 100_008);
        assert_eq!(world.event().await.reason, None);
        assert_eq!(outbound.turns.is_empty(), changed);
    }
}

#[tokio::test]
async fn whoever_is_expected_or_asked_for_otherwise_has_another_connection() {
    let world = world(Next::Taken).await;
    say(&world, b"one").await;
    let (web, other) = (
        pod("web-1", "10.77.1.2", Some("web")),
        pod("other-1", "10.77.1.3", Some("other")),
    );
    let endpoints = |pods: &[&Workload]| pods.iter().map(|pod| endpoint(pod, 80, 8080)).collect();
    let mut wider = service("full/web", VIP, Protocol::Tcp, endpoints(&[&web]));
    wider.identities.extend(other.identity.clone());
    world.with(wider);
    say(&world, b"two").await;
    assert_eq!(world.sources().len(), 2);
    // By another Service: another name.
    let own = service("full/own", "10.96.0.21:80", Protocol::Tcp, endpoints(&[&web]));
    world.with(own);
    assert_eq!(world.say("10.96.0.21:80", b"three").await, b"three");
    assert_eq!(world.sources().len(), 3);
}

#[tokio::test]
async fn what_the_other_end_has_closed_loses_nobody_a_byte() {
    for next in [Next::Closed, Next::Refused] {
        let world = world(next).await;
        for text in [&b"one"[..], b"two", b"three"] {
            let event = say(&world, text).await;
            assert_eq!((event.reason, event.flags), (None, "-"), "{next:?}");
        }
        assert_eq!(world.sources().len(), 3, "{next:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_take_the_turn_in_time_is_left() {
    let world = world(Next::Silence).await;
    say(&world, b"one").await;
    let begin = Instant::now();
    say(&world, b"two").await;
    assert_eq!(world.sources().len(), 2);
    assert!(begin.elapsed() >= TAKEN);
}

#[tokio::test]
async fn a_turn_that_breaks_takes_the_connection_with_it() {
    let world = world(Next::Broken).await;
    for round in 1..=2 {
        assert_eq!(world.say(VIP, b"one").await, b"one");
        let event = world.event().await;
        assert_eq!(event.reason, Some(Reason::UpstreamReset));
        assert_eq!(world.sources().len(), round);
        assert!(world.outbound().turns.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_or_is_old_is_closed() {
    let world = world(Next::Taken).await;
    let outbound = world.outbound();
    say(&world, b"one").await;
    tokio::time::advance(IDLE / 2).await;
    outbound.sweep_turns();
    assert!(!outbound.turns.is_empty());
    tokio::time::advance(IDLE / 2).await;
    outbound.sweep_turns();
    assert!(outbound.turns.is_empty());
    // In use all the time, and yet not for ever.
    let dialled = world.sources().len();
    let begin = Instant::now();
    while world.sources().len() < dialled + 2 {
        say(&world, b"more").await;
        tokio::time::advance(IDLE / 2).await;
        assert!(begin.elapsed() < MAX_AGE * 2, "a connection is never too old");
    }
    assert!(begin.elapsed() >= MAX_AGE);
}

#[tokio::test]
async fn what_has_ended_or_leads_to_nobody_is_dropped() {
    let closed = world(Next::Closed).await;
    say(&closed, b"one").await;
    let outbound = closed.outbound();
    while !outbound.turns.is_empty() {
        tokio::task::yield_now().await;
        outbound.sweep_turns();
    }
    let world = world(Next::Taken).await;
    say(&world, b"one").await;
    let outbound = world.outbound();
    assert!(!outbound.turns.is_empty());
    world.with(service("full/web", VIP, Protocol::Tcp, vec![]));
    assert!(!outbound.turns.is_empty(), "the pod is there still");
    world.with(pod("web-1", "10.77.1.3", Some("web")));
    assert!(outbound.turns.is_empty());
}

#[tokio::test]
async fn there_are_no_more_than_are_bounded() {
    let world = world(Next::Taken).await;
    let outbound = world.outbound();
    say(&world, b"one").await;
    let client = world.client();
    let to = "10.77.1.2:8080".parse().unwrap();
    let key = outbound
        .turns
        .with(|slots| slots.by_key.keys().next().cloned())
        .unwrap();
    let first = outbound.turns.take(&key).unwrap().ticket;
    assert_eq!((&first.key.caller, first.key.to), (&client.id, to));
    let ticket = |key: &Key| Ticket {
        key: key.clone(),
        standing: first.standing.clone(),
        opened: Instant::now(),
        peer: None,
        late: Late::default(),
    };
    let count = || outbound.turns.with(|slots| slots.count);
    for _ in 0..=MAX_KEPT_OF_ONE {
        outbound.keep(ticket(&key), Box::new(duplex(1).0));
    }
    assert_eq!(count(), MAX_KEPT_OF_ONE);
    for port in 0..u16::try_from(MAX_KEPT).unwrap() {
        let to = SocketAddr::new(key.to.ip(), port);
        outbound.keep(ticket(&Key { to, ..key.clone() }), Box::new(duplex(1).0));
    }
    assert_eq!(count(), MAX_KEPT);
    outbound.turns.forget(&key);
    assert_eq!(count(), MAX_KEPT - MAX_KEPT_OF_ONE);
}

#[tokio::test]
async fn a_proxy_that_keeps_none_makes_a_handshake_for_each() {
    let mut world = world(Next::Taken).await;
    world.keep_none();
    say(&world, b"one").await;
    say(&world, b"two").await;
    assert_eq!(world.sources().len(), 2);
}
