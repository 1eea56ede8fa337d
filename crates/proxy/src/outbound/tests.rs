//! Whole connections of a workload, through everything but the kernel: servers stand behind a dial of our own.

mod entries;
mod messages;
pub(super) mod world;

use std::time::Duration;

use meshward_http::{Body, HeaderValue, Request, StatusCode, Version};
use model::{Protocol, Reason};
use snapshot::{ClientTls, Egress};
use telemetry::{Decision, EventKind, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use world::{CLIENT, Kind, World, address, endpoint, mesh, plain, pod, service};

pub(super) const VIP: &str = "10.96.0.20:80";
const HOST: &str = "web.full.svc.cluster.local";

fn get(host: &str, path: &str) -> Request {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().unwrap();
    let host = HeaderValue::try_from(host).unwrap();
    request.headers_mut().insert("host", host);
    request
}

/// web: HTTP 80 on one workload of another node, in the mesh.
pub(super) async fn web(protocol: Protocol, kind: Kind) -> World {
    let server = pod("web-1", "10.77.1.2", Some("web"));
    let resources = vec![
        mesh(Egress::RegistryOnly).into(),
        pod("client", CLIENT, Some("client")).into(),
        service("full/web", VIP, protocol, vec![endpoint(&server, 80, 8080)]).into(),
        server.into(),
    ];
    World::new(resources, &[("10.77.1.2:8080", kind)]).await
}

#[tokio::test]
async fn a_request_goes_over_mutual_tls_in_the_callers_name_and_from_its_address() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    let answer = world.ask(VIP, Version::Http1, get(HOST, "/hello?x=1")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.seen("peer"), "spiffe://cluster.local/ns/full/sa/client");
    assert_eq!(answer.seen("sni"), "outbound_.80_._.web.full.svc.cluster.local");
    assert_eq!(answer.seen("target"), "/hello?x=1");
    assert_eq!(answer.seen("version"), "HTTP/2");
    assert_eq!(world.sources(), [CLIENT.parse::<std::net::IpAddr>().ok()]);
    let event = world.event().await;
    assert_eq!((event.kind, event.wire), (EventKind::Request, Wire::MutualTls));
    assert_eq!((event.flags, event.decision), ("-", Decision::NotDecided));
    assert_eq!(event.upstream, Some(address("10.77.1.2:8080")));
    assert_eq!(event.service.as_deref(), Some(HOST));
    let principal = event.destination.principal.as_ref().map(ToString::to_string);
    assert_eq!(
        principal.as_deref(),
        Some("spiffe://cluster.local/ns/full/sa/web")
    );
    let http = event.http.as_deref().unwrap();
    assert_eq!((http.code, http.version), (200, "HTTP/1.1"));
    assert_eq!(http.request_id.as_ref(), answer.seen("x-request-id"));
}

#[tokio::test]
async fn requests_of_one_caller_share_one_connection() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    for _ in 0..3 {
        assert_eq!(world.ask(VIP, Version::Http1, get(HOST, "/")).await.status, 200);
    }
    let (a, b) = tokio::join!(
        world.ask(VIP, Version::Http1, get(HOST, "/")),
        world.ask(VIP, Version::Http2, get(HOST, "/")),
    );
    assert_eq!((a.status.as_u16(), b.status.as_u16()), (200, 200));
    // HTTP/2's own: it must not be taken for one that may be spoken to in either.
    assert_eq!(world.sources().len(), 2);
}

#[tokio::test]
async fn concurrent_misses_share_one_dial() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    let ask = || world.ask(VIP, Version::Http1, get(HOST, "/"));
    let answers = tokio::join!(ask(), ask(), ask(), ask());
    for answer in [answers.0, answers.1, answers.2, answers.3] {
        assert_eq!(answer.status, 200);
    }
    assert_eq!(world.sources().len(), 1);
}

#[tokio::test]
async fn another_identity_at_the_other_end_is_refused() {
    let world = web(Protocol::Http, Kind::MeshHttp("other")).await;
    let answer = world.ask(VIP, Version::Http1, get(HOST, "/")).await;
    assert_eq!(answer.status, 503);
    let event = world.event().await;
    assert_eq!(
        (event.flags, event.reason),
        ("UF,URX", Some(Reason::PeerIdentity))
    );
}

#[tokio::test]
async fn r_28_nobody_expected_is_nobody_accepted() {
    let server = pod("web-1", "10.77.1.2", Some("web"));
    let mut web = service("full/web", VIP, Protocol::Http, vec![endpoint(&server, 80, 8080)]);
    web.identities.clear();
    let resources = vec![mesh(Egress::RegistryOnly).into(), web.into(), server.into()];
    let world = World::new(resources, &[("10.77.1.2:8080", Kind::MeshHttp("web"))]).await;
    assert_eq!(world.ask(VIP, Version::Http1, get(HOST, "/")).await.status, 503);
    assert_eq!(world.event().await.reason, Some(Reason::PeerIdentity));
    assert!(world.sources().is_empty());
}

#[tokio::test]
async fn o_02_a_host_of_another_service_is_refused() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    world.with(service("full/other", "10.96.0.21:80", Protocol::Http, vec![]));
    let answer = world.ask(VIP, Version::Http1, get("other.full", "/")).await;
    assert_eq!(answer.status, 403);
    let event = world.event().await;
    assert_eq!(
        (event.reason, event.decision),
        (Some(Reason::HostMismatch), Decision::Deny)
    );
    assert!(world.sources().is_empty());
}

#[tokio::test]
async fn o_08_what_is_not_in_the_registry() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    let answer = world
        .ask("1.2.3.4:80", Version::Http1, get("example.com", "/"))
        .await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (502, ""));
    assert_eq!(world.event().await.reason, Some(Reason::EgressUnknown));
    let mut call = get("example.com", "/a.B/C");
    call.headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    let answer = world.ask("1.2.3.4:80", Version::Http2, call).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["grpc-status"], "14");
    // Anything else is closed without a word.
    assert_eq!(world.say("1.2.3.4:80", b"\0\0\0\0").await, b"");
    assert!(world.sources().is_empty());
}

#[tokio::test]
async fn eg_03_allow_any_passes_what_is_not_in_the_registry_from_the_nodes_address() {
    let resources = vec![
        mesh(Egress::AllowAny).into(),
        pod("client", CLIENT, Some("client")).into(),
    ];
    let world = World::new(resources, &[("1.2.3.4:443", Kind::Echo)]).await;
    assert_eq!(world.say("1.2.3.4:443", b"hello").await, b"hello");
    assert_eq!(world.sources(), [None]);
    let event = world.event().await;
    assert_eq!(
        (event.wire, event.bytes_received, event.bytes_sent),
        (Wire::Plaintext, 5, 5)
    );
}

#[tokio::test]
async fn no_endpoint() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    world.with(service("full/empty", "10.96.0.22:80", Protocol::Http, vec![]));
    let answer = world
        .ask("10.96.0.22:80", Version::Http1, get("empty.full", "/"))
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_str()),
        (503, "no healthy upstream")
    );
    assert_eq!(world.event().await.flags, "UH");
}

#[tokio::test]
async fn another_endpoint_is_tried_where_one_cannot_be_reached() {
    let (dead, alive) = (
        pod("web-0", "10.77.1.9", Some("web")),
        pod("web-1", "10.77.1.2", Some("web")),
    );
    let endpoints = vec![endpoint(&dead, 80, 8080), endpoint(&alive, 80, 8080)];
    for protocol in [Protocol::Http, Protocol::Tcp] {
        let resources = vec![
            mesh(Egress::RegistryOnly).into(),
            service("full/web", VIP, protocol, endpoints.clone()).into(),
            dead.clone().into(),
            alive.clone().into(),
        ];
        let kind = if protocol.is_http() {
            Kind::MeshHttp("web")
        } else {
            Kind::MeshEcho("web")
        };
        let world = World::new(resources, &[("10.77.1.2:8080", kind)]).await;
        for _ in 0..8 {
            if protocol.is_http() {
                assert_eq!(world.ask(VIP, Version::Http1, get(HOST, "/")).await.status, 200);
            } else {
                assert_eq!(world.say(VIP, b"hello").await, b"hello");
            }
        }
    }
}

#[tokio::test]
async fn o_14_nothing_can_be_reached() {
    let world = web(Protocol::Http, Kind::Closed).await;
    let answer = world.ask(VIP, Version::Http1, get(HOST, "/")).await;
    assert_eq!(answer.status, 503);
    let event = world.event().await;
    assert_eq!(
        (event.flags, event.reason),
        ("UF,URX", Some(Reason::TlsHandshake))
    );
    assert_eq!(world.sources().len(), 3);

    let server = pod("web-2", "10.77.1.7", Some("web"));
    world.with(service(
        "full/dead",
        "10.96.0.25:80",
        Protocol::Http,
        vec![endpoint(&server, 80, 8080)],
    ));
    world.with(server);
    let answer = world
        .ask("10.96.0.25:80", Version::Http1, get("dead.full", "/"))
        .await;
    let text = "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: \
        remote connection failure, transport failure reason: delayed connect error: connection refused";
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (503, text));
    let event = world.event().await;
    assert_eq!(
        (event.flags, event.reason),
        ("UF,URX", Some(Reason::ConnectFailed))
    );
}

#[tokio::test]
async fn cm_02_and_07_plain_endpoints_and_disable_get_plaintext() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    let server = plain("plain", "10.77.1.3");
    world.with(service(
        "full/plain",
        "10.96.0.23:80",
        Protocol::Http,
        vec![endpoint(&server, 80, 8080)],
    ));
    world.with(server);
    world.serve("10.77.1.3:8080", Kind::Http);
    let answer = world
        .ask("10.96.0.23:80", Version::Http1, get("plain.full", "/"))
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.seen("version")),
        (200, "HTTP/1.1")
    );
    assert_eq!(world.event().await.wire, Wire::Plaintext);

    let server = pod("shy-1", "10.77.1.4", Some("shy"));
    let mut shy = service(
        "full/shy",
        "10.96.0.24:80",
        Protocol::Http,
        vec![endpoint(&server, 80, 8080)],
    );
    shy.ports[0].tls = Some(ClientTls::Disable);
    world.with(shy);
    world.with(server);
    world.serve("10.77.1.4:8080", Kind::Http);
    let answer = world
        .ask("10.96.0.24:80", Version::Http1, get("shy.full", "/"))
        .await;
    assert_eq!((answer.status.as_u16(), answer.seen("peer")), (200, ""));
}

#[tokio::test]
async fn tcp_is_carried_over_mutual_tls_with_its_own_sni_noted() {
    let world = web(Protocol::Tcp, Kind::MeshEcho("web")).await;
    assert_eq!(world.say(VIP, b"hello").await, b"hello");
    let event = world.event().await;
    assert_eq!(
        (event.kind, event.wire, event.protocol),
        (EventKind::Connection, Wire::MutualTls, "tcp")
    );
    assert_eq!((event.bytes_received, event.bytes_sent, event.flags), (5, 5, "-"));
}

#[tokio::test]
async fn pd_18_tls_to_a_port_that_is_declared_http_is_refused_and_said() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    assert_eq!(world.say(VIP, b"\x16\x03\x01\x02\x00").await, b"");
    let event = world.event().await;
    assert_eq!(event.reason, Some(Reason::ProtocolError));
    assert!(event.message.as_deref().unwrap().contains("TLS"));
    let refused = world.say(VIP, b"get / HTTP/1.1\r\n\r\n").await;
    assert!(
        refused.starts_with(b"HTTP/1.1 400"),
        "{}",
        String::from_utf8_lossy(&refused)
    );
    assert_eq!(world.event().await.kind, EventKind::Request);
    assert!(world.sources().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_first_is_heard_after_the_detection_timeout() {
    let world = web(Protocol::Auto, Kind::MeshGreeting("web")).await;
    let mut near = world.open(VIP);
    let mut greeting = [0; 5];
    tokio::time::timeout(Duration::from_secs(20), near.read_exact(&mut greeting))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&greeting, b"ready");
}

#[tokio::test]
async fn undeclared_ports_are_what_they_speak() {
    let world = web(Protocol::Auto, Kind::MeshHttp("web")).await;
    let answer = world.ask(VIP, Version::Http1, get(HOST, "/")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.seen("version")),
        (200, "HTTP/1.1")
    );
    let answer = world.ask(VIP, Version::Http2, get(HOST, "/")).await;
    assert_eq!((answer.status.as_u16(), answer.seen("version")), (200, "HTTP/2"));
    let world = web(Protocol::Auto, Kind::MeshEcho("web")).await;
    assert_eq!(world.say(VIP, b"\x01binary").await, b"\x01binary");
}

#[tokio::test]
async fn mt_25_capture_ports_are_not_dialled() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    assert_eq!(
        world
            .say("1.2.3.4:15001", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await,
        b""
    );
    assert_eq!(world.event().await.reason, Some(Reason::CapturePort));
}

#[tokio::test]
async fn before_the_first_snapshot_everything_is_refused() {
    let world = World::empty().await;
    assert_eq!(world.say(VIP, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await, b"");
    let event = world.event().await;
    assert_eq!(
        (event.reason, event.decision),
        (Some(Reason::NotReady), Decision::Deny)
    );
}

#[tokio::test]
async fn what_a_workload_says_for_its_proxy_is_removed() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    let mut request = get(HOST, "/");
    for (name, value) in [
        (
            "x-forwarded-client-cert",
            "By=spiffe://cluster.local/ns/full/sa/admin",
        ),
        ("connection", "x-private"),
        ("x-private", "1"),
    ] {
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    let answer = world.ask(VIP, Version::Http1, request).await;
    assert_eq!(answer.seen("x-forwarded-client-cert"), "");
    assert_eq!(answer.seen("x-private"), "");
    assert_eq!(answer.seen("x-forwarded-proto"), "http");
}

#[tokio::test]
async fn a_changed_trust_ends_the_use_of_what_was_opened_before() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    assert_eq!(world.ask(VIP, Version::Http1, get(HOST, "/")).await.status, 200);
    world.with_roots(vec!["another".to_owned()]);
    assert_eq!(world.ask(VIP, Version::Http1, get(HOST, "/")).await.status, 200);
    assert_eq!(world.sources().len(), 2);
}

#[tokio::test]
async fn a_caller_that_leaves_is_told_of() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    let mut near = world.open(VIP);
    near.write_all(b"GET /never HTTP/1.1\r\nhost: web.full\r\n\r\n")
        .await
        .unwrap();
    world.reached("10.77.1.2:8080").await;
    drop(near);
    let event = world.event().await;
    assert_eq!((event.flags, event.reason), ("DC", Some(Reason::DownstreamReset)));
}

#[tokio::test]
async fn one_workload_cannot_use_up_what_all_may_have_open() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    let outbound = world.outbound();
    let client = world.client();
    let held: Vec<_> = (0..super::MAX_OPEN_OF_ONE)
        .map(|_| outbound.share(&client).unwrap())
        .collect();
    assert_eq!(world.say(VIP, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await, b"");
    assert_eq!(world.event().await.reason, Some(Reason::LimitReached));
    drop(held);
    assert_eq!(world.ask(VIP, Version::Http1, get(HOST, "/")).await.status, 200);
}

#[tokio::test]
async fn p_55_what_left_the_registry_is_closed_when_nothing_may_leave_it_any_more() {
    let resources = vec![
        mesh(Egress::AllowAny).into(),
        // So that port 80 is read as HTTP outside too.
        service("full/web", VIP, Protocol::Http, vec![]).into(),
    ];
    let world = World::new(
        resources,
        &[("1.2.3.4:443", Kind::Echo), ("1.2.3.4:80", Kind::Http)],
    )
    .await;
    let mut tcp = world.open("1.2.3.4:443");
    tcp.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    tcp.read_exact(&mut heard).await.unwrap();
    let mut http = world.open("1.2.3.4:80");
    http.write_all(b"GET /never HTTP/1.1\r\nhost: example.com\r\n\r\n")
        .await
        .unwrap();
    world.reached("1.2.3.4:80").await;

    world.change(mesh(Egress::AllowAny)).await;
    assert!(
        tokio::time::timeout(Duration::from_millis(50), tcp.read(&mut heard))
            .await
            .is_err()
    );

    world.change(mesh(Egress::RegistryOnly)).await;
    assert_eq!(tcp.read(&mut heard).await.unwrap(), 0);
    let mut answer = vec![0; 12];
    http.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 502");
    for _ in 0..2 {
        let event = world.event().await;
        assert_eq!(
            (event.reason, event.decision),
            (Some(Reason::EgressUnknown), Decision::Deny)
        );
    }
}
