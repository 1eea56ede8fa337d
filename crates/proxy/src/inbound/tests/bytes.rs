//! Connections that are not read.

use std::io::ErrorKind;
use std::time::Duration;

use model::{MtlsMode, Protocol, Reason};
use policy::Action;
use telemetry::{Decision, EventKind, Reporter, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::{Caller, stream};
use super::world::{World, anybody, id, policy};

/// Sends back what comes, until it ends.
pub(super) async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

async fn world(mode: MtlsMode) -> World {
    World::serving(mode, Protocol::Tcp, vec![anybody()], echo).await
}

#[tokio::test]
async fn bytes_are_carried_and_both_ends_are_told_of() {
    let world = world(MtlsMode::Strict).await;
    let mut client = world.mutual(&[b"istio"]).await;
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "hello");
    let event = world.only_event().await;
    assert_eq!(
        (event.kind, event.reporter, event.wire, event.protocol),
        (
            EventKind::Connection,
            Reporter::Destination,
            Wire::MutualTls,
            "tcp"
        )
    );
    assert_eq!(
        (event.decision, event.reason, event.flags),
        (Decision::Allow, None, "-")
    );
    assert_eq!((event.bytes_received, event.bytes_sent), (5, 5));
    assert_eq!(event.source.principal, Some(id("client")));
    assert_eq!(event.destination.principal, Some(id("web")));
    assert_eq!(event.service.as_deref(), Some("web.full.svc.mesh.example"));
    assert_eq!(event.sni.as_deref(), Some("outbound_.80_._.web"));
    assert_eq!(event.policy.as_ref().unwrap().name.as_ref(), "anybody");
    assert_eq!(event.upstream.unwrap().port(), world.port);
}

#[tokio::test]
async fn o_06_half_closes_are_carried_through_and_a_clean_end_is_no_reset() {
    const LENGTH: usize = 200_000;
    let world = World::serving(
        MtlsMode::Permissive,
        Protocol::Tcp,
        vec![anybody()],
        |mut stream| async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            stream.write_all(&vec![b'x'; LENGTH]).await.unwrap();
            stream.shutdown().await.unwrap();
        },
    )
    .await;
    let mut client = world.plain().await;
    rustix::net::sockopt::set_socket_recv_buffer_size(&client, 16 * 1024).unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    // By then the proxy has closed, and the most of it is still on the way: an end that resets would lose it.
    let event = world.only_event().await;
    assert_eq!((event.reason, event.bytes_sent), (None, 200_000));
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard.len(), LENGTH);
}

/// Reads until the end, which must be a reset.
async fn is_reset(client: &mut TcpStream) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), client.read_to_end(&mut rest));
    let error = read.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn o_04_who_is_denied_is_reset_before_the_application_is_dialled() {
    let deny = policy("nobody", Action::Deny, |_| {});
    let world = World::serving(MtlsMode::Permissive, Protocol::Tcp, vec![anybody(), deny], echo).await;
    let mut client = world.plain().await;
    client.write_all(b"x").await.unwrap();
    is_reset(&mut client).await;
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason),
        (Decision::Deny, Some(Reason::DenyExplicit))
    );
    assert_eq!(
        event.details,
        "rbac_access_denied_matched_policy[ns[full]-policy[nobody]-rule[0]]"
    );
    assert_eq!((event.upstream, world.dialled().await), (None, 0));
}

#[tokio::test]
async fn mt_01_plaintext_to_a_strict_port_is_reset() {
    let world = world(MtlsMode::Strict).await;
    let mut client = world.plain().await;
    client.write_all(b"x").await.unwrap();
    is_reset(&mut client).await;
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason, event.flags, event.details.as_ref()),
        (
            Decision::Deny,
            Some(Reason::PlaintextRefused),
            "NR",
            "filter_chain_not_found"
        )
    );
    assert_eq!(event.wire, Wire::Plaintext);
    assert_eq!(world.dialled().await, 0);
}

/// Speaks first.
async fn greet(mut stream: TcpStream) {
    stream.write_all(b"220 hi").await.unwrap();
    let _ = stream.read(&mut [0; 1]).await;
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_in_plaintext() {
    for mode in [MtlsMode::Disable, MtlsMode::Permissive] {
        let world = World::serving(mode, Protocol::Tcp, vec![anybody()], greet).await;
        let mut client = world.plain().await;
        let mut heard = [0; 6];
        let read = tokio::time::timeout(Duration::from_secs(4), client.read_exact(&mut heard));
        read.await.unwrap().unwrap();
        assert_eq!(&heard, b"220 hi", "{mode}");
    }
}

#[tokio::test]
async fn pd_19_a_silent_client_is_refused_where_mutual_tls_is_demanded() {
    let world = World::serving(MtlsMode::Strict, Protocol::Tcp, vec![anybody()], greet).await;
    let mut mesh = super::world::mesh();
    mesh.protocol_detection_timeout_ms = Some(50);
    world.change([mesh.into()]).await;
    let mut client = world.plain().await;
    is_reset(&mut client).await;
    assert_eq!(world.only_event().await.reason, Some(Reason::PlaintextRefused));
    assert_eq!(world.dialled().await, 0);
}

#[tokio::test]
async fn before_its_certificate_nothing_is_carried() {
    for mode in [MtlsMode::Disable, MtlsMode::Permissive] {
        let (world, app) = World::certified(&["client"], mode, Protocol::Tcp, vec![anybody()]).await;
        let mut client = world.plain().await;
        client.write_all(b"x").await.unwrap();
        is_reset(&mut client).await;
        assert_eq!(world.only_event().await.reason, Some(Reason::NotReady), "{mode}");
        let dialled = tokio::time::timeout(Duration::from_millis(50), app.accept());
        assert!(dialled.await.is_err(), "{mode}");
    }
}

#[tokio::test]
async fn who_says_nothing_and_leaves_was_refused_nothing() {
    let world = world(MtlsMode::Strict).await;
    drop(world.plain().await);
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason),
        (Decision::NotDecided, Some(Reason::DownstreamReset))
    );
}

#[tokio::test]
async fn mt_24_to_25_ports_of_capture_are_not_dialled() {
    let world = world(MtlsMode::Permissive).await;
    for port in [capture::INBOUND_PORT, capture::OUTBOUND_PORT, capture::DNS_PORT] {
        is_reset(&mut world.captured(port).await).await;
        let event = world.only_event().await;
        assert_eq!(
            (event.decision, event.reason),
            (Decision::Deny, Some(Reason::CapturePort))
        );
    }
    assert_eq!(world.dialled().await, 0);
}

#[tokio::test]
async fn what_comes_by_an_interface_for_another_address_is_refused() {
    let world = world(MtlsMode::Permissive).await;
    let to = std::net::SocketAddr::new("10.77.0.4".parse().unwrap(), world.port);
    is_reset(&mut world.captured_at(to).await).await;
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason),
        (Decision::Deny, Some(Reason::UnknownWorkload))
    );
    assert_eq!(world.dialled().await, 0);
}

#[tokio::test]
async fn p_55_r45_under_mutual_tls_too_the_end_is_a_reset() {
    let world = world(MtlsMode::Strict).await;
    let mut client = world.mutual(&[b"istio"]).await;
    client.write_all(b"x").await.unwrap();
    client.read_u8().await.unwrap();
    world.policies(vec![]).await;
    let error = client.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(world.only_event().await.reason, Some(Reason::PolicyChanged));
}

#[tokio::test]
async fn p_55_a_change_resets_what_is_no_longer_admitted() {
    let world = world(MtlsMode::Permissive).await;
    let mut client = world.plain().await;
    client.write_all(b"x").await.unwrap();
    client.read_u8().await.unwrap();
    // One that changes nothing for it.
    world.policies(vec![anybody()]).await;
    client.write_all(b"y").await.unwrap();
    client.read_u8().await.unwrap();
    world.policies(vec![]).await;
    is_reset(&mut client).await;
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason, event.bytes_received),
        (Decision::Deny, Some(Reason::PolicyChanged), 2)
    );
}

#[tokio::test]
async fn p_55_plaintext_ends_where_mutual_tls_comes_to_be_demanded() {
    let world = world(MtlsMode::Permissive).await;
    let mut client = world.plain().await;
    client.write_all(b"x").await.unwrap();
    client.read_u8().await.unwrap();
    let mut proven = world.mutual(&[b"istio"]).await;
    proven.write_all(b"x").await.unwrap();
    proven.read_u8().await.unwrap();
    world.mode(MtlsMode::Strict).await;
    is_reset(&mut client).await;
    assert_eq!(world.only_event().await.reason, Some(Reason::PolicyChanged));
}

#[tokio::test]
async fn who_resets_is_told_of_and_the_application_is_reset_too() {
    let (told, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let world = World::serving(
        MtlsMode::Permissive,
        Protocol::Tcp,
        vec![anybody()],
        move |mut stream| {
            let told = told.clone();
            async move {
                let mut all = Vec::new();
                told.send(stream.read_to_end(&mut all).await.map_err(|e| e.kind()))
                    .unwrap();
            }
        },
    )
    .await;
    let mut client = world.plain().await;
    client.write_all(b"half a wo").await.unwrap();
    while world.dialled().await == 0 {}
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(ends.recv().await.unwrap(), Err(ErrorKind::ConnectionReset));
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason, event.flags),
        (Decision::Allow, Some(Reason::DownstreamReset), "DC")
    );
}

#[tokio::test]
async fn an_application_that_resets_is_told_of_and_its_caller_is_reset_too() {
    let world = World::serving(
        MtlsMode::Permissive,
        Protocol::Tcp,
        vec![anybody()],
        |stream| async move {
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        },
    )
    .await;
    let mut client = world.plain().await;
    client.write_all(b"x").await.unwrap();
    is_reset(&mut client).await;
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason, event.flags),
        (Decision::Allow, Some(Reason::UpstreamReset), "UC")
    );
}

#[tokio::test]
async fn an_application_that_is_down_is_told_of() {
    let (world, listener) = World::new(MtlsMode::Permissive, Protocol::Tcp, vec![anybody()]).await;
    drop(listener);
    let mut client = world.plain().await;
    client.write_all(b"x").await.unwrap();
    is_reset(&mut client).await;
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason, event.flags),
        (Decision::Allow, Some(Reason::ConnectFailed), "UF")
    );
}

#[tokio::test]
async fn a_hand_over_is_decided_as_what_comes_over_the_wire() {
    let world = world(MtlsMode::Strict).await;
    let (mut near, mut far) = tokio::io::duplex(1024);
    near.write_all(b"hello").await.unwrap();
    near.shutdown().await.unwrap();
    let relayed = stream(&world.shared, &world.caller(), &world.callee(), &mut far).await;
    assert_eq!((relayed.sent, relayed.received, relayed.reason), (5, 5, None));
    let event = world.only_event().await;
    assert_eq!((event.wire, event.decision), (Wire::Local, Decision::Allow));

    let (_near, mut far) = tokio::io::duplex(1024);
    let nobody = Caller {
        peer: None,
        ..world.caller()
    };
    let relayed = stream(&world.shared, &nobody, &world.callee(), &mut far).await;
    assert_eq!(relayed.reason, Some(Reason::PlaintextRefused));
    assert_eq!(world.only_event().await.reason, Some(Reason::PlaintextRefused));
    assert_eq!(world.dialled().await, 1);
}

#[tokio::test]
async fn a_proxy_that_ends_waits_for_no_first_byte() {
    let world = World::serving(MtlsMode::Strict, Protocol::Tcp, vec![anybody()], echo).await;
    let _client = world.plain().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.drain();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(world.no_event().await, "what was taken may still begin");
    world.shared.ending.advance(crate::shared::Stage::Over);
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason),
        (Decision::NotDecided, Some(Reason::Draining))
    );
}
