//! TCP connections that follow one another on one connection of mutual TLS.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::{MtlsMode, Protocol, Reason};
use telemetry::{Decision, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::world::{CLIENT, Io, World, anybody, id};
use crate::relay::turn::{self, Turn};

const ALPN: [&[u8]; 2] = [turn::ALPN, b"istio"];

/// Sends back what comes, until it ends.
async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

async fn world() -> World {
    World::serving(MtlsMode::Strict, Protocol::Tcp, vec![anybody()], echo).await
}

/// One turn, to its end.
async fn talk<IO: Io>(io: IO, text: &[u8]) -> IO {
    let mut turn = Turn::new(io);
    turn.write_all(text).await.unwrap();
    turn.shutdown().await.unwrap();
    let mut heard = Vec::new();
    turn.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, text);
    turn.over().unwrap()
}

async fn is_taken(io: &mut impl Io) -> bool {
    let asked = tokio::time::timeout(Duration::from_secs(20), turn::ask(io));
    asked.await.expect("an answer should have come").is_ok()
}

#[tokio::test]
async fn each_turn_is_dialled_and_told_of_as_a_connection_of_its_own() {
    let world = world().await;
    let mut io = world.mutual(&ALPN).await;
    for (round, text) in [&b"one"[..], b"number two", b""].into_iter().enumerate() {
        assert!(round == 0 || is_taken(&mut io).await);
        io = talk(io, text).await;
        let event = world.event().await;
        let length = u64::try_from(text.len()).unwrap();
        assert_eq!((event.bytes_received, event.bytes_sent), (length, length));
        assert_eq!(
            (event.decision, event.reason, event.wire),
            (Decision::Allow, None, Wire::MutualTls)
        );
        assert_eq!(event.source.principal, Some(id("client")));
        assert_eq!(event.source.address, Some(CLIENT.parse().unwrap()));
        assert_eq!(event.sni.as_deref(), Some("outbound_.80_._.web"));
        assert_eq!(world.accepted.load(Ordering::SeqCst), round + 1);
    }
    drop(io);
    assert!(world.no_event().await);
}

#[tokio::test]
async fn p_55_who_is_no_longer_admitted_has_no_further_turn() {
    let world = world().await;
    let mut io = talk(world.mutual(&ALPN).await, b"one").await;
    assert_eq!(world.event().await.decision, Decision::Allow);
    world.policies(vec![]).await;
    assert!(is_taken(&mut io).await);
    let error = Turn::new(io).read_u8().await.unwrap_err();
    assert!(
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
        ),
        "{error}"
    );
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason),
        (Decision::Deny, Some(Reason::DenyDefault))
    );
    assert_eq!(world.dialled().await, 1);
}

#[tokio::test]
async fn p_55_a_turn_ends_when_it_is_no_longer_admitted() {
    let world = world().await;
    let mut io = talk(world.mutual(&ALPN).await, b"one").await;
    world.event().await;
    assert!(is_taken(&mut io).await);
    let mut turn = Turn::new(io);
    turn.write_all(b"x").await.unwrap();
    assert_eq!(turn.read_u8().await.unwrap(), b'x');
    world.policies(vec![]).await;
    turn.read_u8().await.unwrap_err();
    assert_eq!(world.only_event().await.reason, Some(Reason::PolicyChanged));
}

#[tokio::test]
async fn what_a_handshake_would_not_prove_again_now_has_no_further_turn() {
    for what in ["nothing", "trust", "own certificate", "mode", "workload"] {
        let world = world().await;
        let mut io = talk(world.mutual(&ALPN).await, b"one").await;
        world.event().await;
        let identities = &world.shared.identities;
        match what {
            "trust" => identities.set_trust_domains("cluster.local".parse().unwrap(), vec![]),
            "own certificate" => {
                identities.forget(&id("web"));
                while identities.ready(&id("web")) {
                    tokio::task::yield_now().await;
                }
            }
            "mode" => world.mode(MtlsMode::Disable).await,
            "workload" => world.gone().await,
            _ => {}
        }
        assert_eq!(is_taken(&mut io).await, what == "nothing", "{what}");
        if what == "nothing" {
            talk(io, b"two").await;
            world.event().await;
        }
        assert!(world.no_event().await, "{what}");
    }
}

#[tokio::test]
async fn a_proxy_that_takes_nothing_new_takes_no_turn_and_finishes_the_one_under_way() {
    let world = world().await;
    let mut idle = talk(world.mutual(&ALPN).await, b"one").await;
    world.event().await;
    let mut busy = Turn::new(world.mutual(&ALPN).await);
    busy.write_all(b"x").await.unwrap();
    assert_eq!(busy.read_u8().await.unwrap(), b'x');
    world.drain();
    // Closed at once, and not only when asked.
    assert!(!turn::asked(&mut idle).await.is_ok_and(|asked| asked));
    busy.write_all(b"y").await.unwrap();
    assert_eq!(busy.read_u8().await.unwrap(), b'y');
    busy.shutdown().await.unwrap();
    assert_eq!(busy.read(&mut [0]).await.unwrap(), 0);
    let mut io = busy.over().unwrap();
    assert!(!is_taken(&mut io).await);
    assert_eq!(world.event().await.bytes_received, 2);
}

/// Speaks first.
async fn greet(mut stream: TcpStream) {
    let _ = stream.write_all(b"220 hi").await;
    let _ = stream.read(&mut [0; 1]).await;
}

#[tokio::test]
async fn a_server_that_speaks_first_does_so_in_every_turn() {
    let world = World::serving(MtlsMode::Strict, Protocol::Tcp, vec![anybody()], greet).await;
    let mut io = world.mutual(&ALPN).await;
    for round in 0..3 {
        assert!(round == 0 || is_taken(&mut io).await);
        let mut turn = Turn::new(io);
        let mut heard = [0; 6];
        turn.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"220 hi");
        turn.shutdown().await.unwrap();
        assert_eq!(turn.read(&mut [0]).await.unwrap(), 0);
        io = turn.over().unwrap();
    }
}

#[tokio::test]
async fn what_is_no_frame_is_reset_and_told_of() {
    let world = world().await;
    let mut io = world.mutual(&ALPN).await;
    io.write_all(b"\xff\xfe").await.unwrap();
    io.read_u8().await.unwrap_err();
    assert_eq!(world.only_event().await.reason, Some(Reason::DownstreamReset));
    // Between turns as well.
    let mut io = talk(world.mutual(&ALPN).await, b"one").await;
    world.event().await;
    io.write_all(b"\x00\x05hello").await.unwrap();
    let mut rest = Vec::new();
    let _ = io.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    assert!(world.no_event().await);
    assert_eq!(world.dialled().await, 2);
}

#[tokio::test]
async fn an_application_that_breaks_off_takes_the_connection_with_it() {
    let world = World::serving(
        MtlsMode::Strict,
        Protocol::Tcp,
        vec![anybody()],
        async |mut stream| {
            let _ = stream.read(&mut [0; 1]).await;
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        },
    )
    .await;
    let mut turn = Turn::new(world.mutual(&ALPN).await);
    turn.write_all(b"x").await.unwrap();
    turn.read_u8().await.unwrap_err();
    assert_eq!(world.only_event().await.reason, Some(Reason::UpstreamReset));
}

#[tokio::test]
async fn who_does_not_offer_turns_is_carried_as_ever() {
    let world = world().await;
    let mut client = world.mutual(&[b"istio"]).await;
    client.write_all(b"\x00\x03raw").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"\x00\x03raw");
}
