//! HBONE: tunnels to port 15008 (MT-26, MT-27).

use std::net::SocketAddr;
use std::time::Duration;

use meshward_http::{
    Authority, Body, HeaderMap, HeaderValue, Request, StatusCode, Tunnel, TunnelError, Version, open_tunnel,
};
use model::{MtlsMode, Protocol, Reason};
use telemetry::{Decision, EventKind, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::world::{WEB, World, anybody, id};

/// Sends back what comes, until it ends.
async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

/// A tunnel of the service account `client`'s.
async fn tunnel(world: &World, to: &str) -> Result<Tunnel, TunnelError> {
    let stream = world.captured(capture::HBONE_PORT).await;
    let identities = &world.shared.identities;
    let connected = identities
        .connect(&id("client"), stream, "", &[id("web")], &[b"h2"])
        .await
        .unwrap();
    let mut fields = HeaderMap::new();
    fields.insert(
        "forwarded",
        HeaderValue::from_static("for=\"1.2.3.4:5\";host=other"),
    );
    fields.insert("baggage", HeaderValue::from_static("k8s.namespace.name=other"));
    open_tunnel(connected.stream, Authority::try_from(to).unwrap(), fields).await
}

fn own(world: &World) -> String {
    SocketAddr::new(WEB.parse().unwrap(), world.port).to_string()
}

#[tokio::test]
async fn mt_26_bytes_are_carried_in_every_mode() {
    for mode in [MtlsMode::Strict, MtlsMode::Permissive, MtlsMode::Disable] {
        let world = World::serving(mode, Protocol::Tcp, vec![anybody()], echo).await;
        let mut client = tunnel(&world, &own(&world)).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "hello");
        let event = world.only_event().await;
        assert_eq!((event.kind, event.wire), (EventKind::Connection, Wire::Hbone));
        assert_eq!((event.decision, event.reason), (Decision::Allow, None), "{mode}");
        // What the peer says of itself changes nothing.
        assert_eq!(event.source.principal, Some(id("client")));
        assert_eq!(event.source.address, Some(super::world::CLIENT.parse().unwrap()));
        assert_eq!(event.port, world.port);
        assert_eq!((event.bytes_received, event.bytes_sent), (5, 5));
    }
}

#[tokio::test]
async fn a_tunnel_that_is_not_admitted_is_refused_before_the_application_is_dialled() {
    let world = World::serving(MtlsMode::Permissive, Protocol::Tcp, vec![], echo).await;
    let refused = tunnel(&world, &own(&world)).await.unwrap_err();
    assert!(
        matches!(refused, TunnelError::Refused(StatusCode::UNAUTHORIZED)),
        "{refused}"
    );
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason),
        (Decision::Deny, Some(Reason::DenyDefault))
    );
    assert_eq!(world.dialled().await, 0);
}

#[tokio::test]
async fn a_tunnel_leads_to_the_workload_that_it_is_asked_of() {
    let world = World::serving(MtlsMode::Permissive, Protocol::Tcp, vec![anybody()], echo).await;
    let port = world.port;
    for (to, reason) in [
        (format!("10.77.0.4:{port}"), Reason::UnknownWorkload),
        (format!("127.0.0.1:{port}"), Reason::UnknownWorkload),
        (
            format!("web.full.svc.cluster.local:{port}"),
            Reason::UnknownWorkload,
        ),
        (WEB.to_owned(), Reason::UnknownWorkload),
        (format!("{WEB}:15001"), Reason::CapturePort),
        (format!("{WEB}:15006"), Reason::CapturePort),
        (format!("{WEB}:15008"), Reason::CapturePort),
        (format!("{WEB}:15053"), Reason::CapturePort),
    ] {
        let refused = tunnel(&world, &to).await.unwrap_err();
        assert!(
            matches!(refused, TunnelError::Refused(StatusCode::BAD_REQUEST)),
            "{to}: {refused}"
        );
        let event = world.only_event().await;
        assert_eq!(
            (event.decision, event.reason),
            (Decision::Deny, Some(reason)),
            "{to}"
        );
    }
    assert_eq!(world.dialled().await, 0);
    let mapped = tunnel(&world, &format!("[::ffff:{WEB}]:{port}")).await;
    assert!(mapped.is_ok());
}

#[tokio::test]
async fn requests_within_a_tunnel_are_decided_one_by_one() {
    for protocol in [Protocol::Http, Protocol::Auto] {
        let answer = |mut stream: TcpStream| async move {
            let mut head = [0; 1024];
            let read = stream.read(&mut head).await.unwrap();
            let seen = String::from_utf8_lossy(&head[..read]).into_owned();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{seen}", seen.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let world = World::serving(MtlsMode::Permissive, protocol, vec![anybody()], answer).await;
        let client = tunnel(&world, &own(&world)).await.unwrap();
        let mut sender = meshward_http::handshake(client, Version::Http1).await.unwrap();
        let request = || {
            let mut request = Request::new(Body::empty());
            request
                .headers_mut()
                .insert("host", HeaderValue::from_static("web"));
            let forged = HeaderValue::from_static("URI=spiffe://cluster.local/ns/full/sa/forged");
            request.headers_mut().insert("x-forwarded-client-cert", forged);
            request
        };
        let response = sender.send(request()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body = http_body_util::BodyExt::collect(response.into_body())
            .await
            .unwrap()
            .to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(body.contains(&format!("URI={}", id("client"))), "{body}");
        assert!(!body.contains("forged"), "{body}");
        let event = world.event().await;
        assert_eq!((event.kind, event.wire), (EventKind::Request, Wire::Hbone));
        assert_eq!(event.http.as_ref().unwrap().code, 200);
        world.policies(vec![]).await;
        sender.ready().await.unwrap();
        let response = sender.send(request()).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(world.only_event().await.reason, Some(Reason::DenyDefault));
    }
}

#[tokio::test]
async fn a_policy_that_no_longer_admits_breaks_an_open_tunnel() {
    let world = World::serving(MtlsMode::Permissive, Protocol::Tcp, vec![anybody()], echo).await;
    let mut client = tunnel(&world, &own(&world)).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    client.read_exact(&mut heard).await.unwrap();
    world.policies(vec![]).await;
    let error = tokio::time::timeout(Duration::from_secs(5), client.read_u8())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(world.only_event().await.reason, Some(Reason::PolicyChanged));
}

#[tokio::test]
async fn mt_27_what_is_no_tunnel_within_mutual_tls_is_refused() {
    let world = World::serving(MtlsMode::Disable, Protocol::Tcp, vec![anybody()], echo).await;
    let mut plain = world.captured(capture::HBONE_PORT).await;
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    assert!(plain.read_u8().await.is_err());
    assert_eq!(world.only_event().await.reason, Some(Reason::PlaintextRefused));

    let stream = world.captured(capture::HBONE_PORT).await;
    let identities = &world.shared.identities;
    let other = identities
        .connect(&id("client"), stream, "", &[id("web")], &[b"istio"])
        .await;
    assert!(other.is_err());
    assert_eq!(world.only_event().await.reason, Some(Reason::TlsHandshake));

    let stream = world.captured(capture::HBONE_PORT).await;
    let connected = identities
        .connect(&id("client"), stream, "", &[id("web")], &[])
        .await;
    let mut none = connected.unwrap().stream;
    assert!(none.read_u8().await.is_err());
    assert_eq!(world.only_event().await.reason, Some(Reason::ProtocolError));
    assert_eq!(world.dialled().await, 0);
}

#[tokio::test]
async fn tunnels_go_on_while_a_proxy_drains_and_no_more_are_taken() {
    let world = World::serving(MtlsMode::Permissive, Protocol::Tcp, vec![anybody()], echo).await;
    let mut client = tunnel(&world, &own(&world)).await.unwrap();
    client.write_all(b"a").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'a');
    world.drain();
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.write_all(b"b").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'b');
}
