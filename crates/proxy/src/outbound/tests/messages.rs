//! Messages on their way: bodies, trailers, upgrades, and what breaks off.

use meshward_http::{HeaderValue, Request, Version};
use model::{Protocol, Reason};
use telemetry::EventKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::{Kind, World};
use super::{HOST, VIP, get, web};

/// Writes a request byte for byte, and reads until the answer holds `until`.
async fn raw(world: &World, request: &[u8], until: &str) -> String {
    let mut near = world.open(VIP);
    near.write_all(request).await.unwrap();
    heard(&mut near, until).await
}

async fn heard(near: &mut tokio::io::DuplexStream, until: &str) -> String {
    let mut heard = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&heard).contains(until) {
            if near.read_buf(&mut heard).await.unwrap() == 0 {
                break;
            }
        }
    };
    let in_time = tokio::time::timeout(std::time::Duration::from_secs(5), reading).await;
    let heard = String::from_utf8_lossy(&heard).into_owned();
    assert!(in_time.is_ok() && heard.contains(until), "{heard}");
    heard
}

#[tokio::test]
async fn bodies_are_carried_in_both_versions_and_counted() {
    let body = "x".repeat(300_000);
    for protocol in [Protocol::Http, Protocol::Http2, Protocol::Auto] {
        for version in [Version::Http1, Version::Http2] {
            let world = web(protocol, Kind::MeshHttp("web")).await;
            let (mut parts, _) = get(HOST, "/echo").into_parts();
            parts.method = meshward_http::Method::POST;
            let request = Request::from_parts(parts, body.clone().into());
            let answer = world.ask(VIP, version, request).await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (200, body.len()));
            let event = world.event().await;
            let bytes = u64::try_from(body.len()).unwrap();
            assert_eq!((event.bytes_received, event.bytes_sent), (bytes, bytes));
        }
    }
}

#[tokio::test]
async fn a_body_of_a_get_is_not_lost() {
    let world = web(Protocol::Auto, Kind::MeshHttp("web")).await;
    let request =
        b"GET /echo HTTP/1.1\r\nhost: web.full\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert!(raw(&world, request, "hello").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_caller_that_expects_to_be_asked_for_its_body_is() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    let mut near = world.open(VIP);
    let head = b"POST /echo HTTP/1.1\r\nhost: web.full\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
    near.write_all(head).await.unwrap();
    heard(&mut near, "HTTP/1.1 100 Continue").await;
    near.write_all(b"hello").await.unwrap();
    heard(&mut near, "hello").await;
}

#[tokio::test]
async fn trailers_are_carried_and_the_status_of_a_call_is_noted() {
    let world = web(Protocol::Grpc, Kind::MeshHttp("web")).await;
    let request =
        b"POST /echo HTTP/1.1\r\nhost: web.full\r\ncontent-type: application/grpc\r\nte: trailers\r\n\
        trailer: grpc-status\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\ngrpc-status: 3\r\n\r\n";
    raw(&world, request, "grpc-status: 3").await;
    let event = world.event().await;
    assert_eq!(event.protocol, "grpc");
    assert_eq!(event.http.as_deref().unwrap().grpc_status, Some(3));
}

#[tokio::test]
async fn a_web_socket_is_carried_on_a_connection_of_its_own() {
    for kind in [Kind::MeshHttp("web")] {
        let world = web(Protocol::Http, kind).await;
        for n in 1..=2 {
            let mut near = world.open(VIP);
            let head =
                b"GET /ws HTTP/1.1\r\nhost: web.full\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            near.write_all(head).await.unwrap();
            let answer = heard(&mut near, "\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
            near.write_all(b"anything").await.unwrap();
            heard(&mut near, "anything").await;
            near.shutdown().await.unwrap();
            let event = world.event().await;
            assert_eq!((event.kind, event.flags), (EventKind::Request, "-"));
            assert_eq!((event.bytes_received, event.bytes_sent), (8, 8));
            assert_eq!(event.http.as_deref().unwrap().code, 101);
            assert_eq!(world.sources().len(), n);
        }
    }
}

#[tokio::test]
async fn upgrades_to_anything_else_are_refused() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    let request = b"GET / HTTP/1.1\r\nhost: web.full\r\nconnection: upgrade\r\nupgrade: tunnel\r\n\r\n";
    assert!(raw(&world, request, "\r\n\r\n").await.starts_with("HTTP/1.1 403"));
    assert_eq!(world.event().await.reason, Some(Reason::MethodRefused));
    // HTTP/2 is an offer that need not be taken (PD-17).
    let request = b"GET / HTTP/1.1\r\nhost: web.full\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    assert!(raw(&world, request, "hello").await.starts_with("HTTP/1.1 200"));
    assert!(world.sources().len() == 1);
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_is_none() {
    let world = web(Protocol::Auto, Kind::MeshHttp("web")).await;
    let answer = raw(&world, b"GET /101 HTTP/1.1\r\nhost: web.full\r\n\r\n", "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}

#[tokio::test]
async fn http1_connections_are_kept_for_the_next_request() {
    let world = web(Protocol::Auto, Kind::MeshHttp("web")).await;
    for _ in 0..3 {
        assert_eq!(world.ask(VIP, Version::Http1, get(HOST, "/")).await.status, 200);
    }
    assert_eq!(world.sources().len(), 1);
}

#[tokio::test]
async fn connect_is_refused() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    let request = b"CONNECT web.full:80 HTTP/1.1\r\nhost: web.full:80\r\n\r\n";
    assert!(raw(&world, request, "\r\n\r\n").await.starts_with("HTTP/1.1 4"));
    assert!(world.sources().is_empty());
    let event = world.event().await;
    assert!(event.reason.is_some());
}

#[tokio::test]
async fn o_16_a_refusal_of_our_certificate_is_told_as_one() {
    let world = web(Protocol::Http, Kind::Distrustful).await;
    let answer = world.ask(VIP, Version::Http1, get(HOST, "/")).await;
    assert_eq!(answer.status, 503);
    let event = world.event().await;
    assert_eq!(
        (event.flags, event.reason),
        ("UF,URX", Some(Reason::TlsHandshake))
    );
    let message = event.message.as_deref().unwrap();
    assert!(message.contains("refused by the peer"), "{message}");
}

#[tokio::test]
async fn a_server_that_breaks_off_is_not_asked_again() {
    let world = web(Protocol::Auto, Kind::MeshHttp("web")).await;
    let answer = world.ask(VIP, Version::Http1, get(HOST, "/break")).await;
    let text =
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (503, text));
    let event = world.event().await;
    assert_eq!((event.flags, event.reason), ("UC", Some(Reason::UpstreamReset)));
    assert_eq!(world.sources().len(), 1);
}

#[tokio::test]
async fn the_path_that_is_decided_is_the_path_that_leaves() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    let mut request = get(HOST, "/a?b=c");
    request
        .headers_mut()
        .insert("x-request-id", HeaderValue::from_static("mine"));
    let answer = world.ask(VIP, Version::Http2, request).await;
    assert_eq!(answer.seen("target"), "/a?b=c");
    assert_eq!(answer.seen("x-request-id"), "mine");
    let event = world.event().await;
    let http = event.http.as_deref().unwrap();
    assert_eq!((http.path.as_ref(), http.request_id.as_ref()), ("/a?b=c", "mine"));
}

#[tokio::test]
async fn ambiguous_paths_do_not_leave() {
    let world = web(Protocol::Http, Kind::MeshHttp("web")).await;
    for path in ["/a/../b", "/a%2fb", "/a%00"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: web.full\r\n\r\n");
        let answer = raw(&world, request.as_bytes(), "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{path} {answer}");
        assert_eq!(world.event().await.reason, Some(Reason::PathRefused));
    }
    assert!(world.sources().is_empty());
}
