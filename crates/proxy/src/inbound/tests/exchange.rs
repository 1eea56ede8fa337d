//! How requests end, and what goes along with them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use meshward_http::{HeaderName, Request, Sender, Version};
use model::{MtlsMode, Profile, Protocol, Reason};
use policy::{Action, ConditionSpec, SourceSpec};
use snapshot::Mesh;
use telemetry::{Decision, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::{Caller, request};
use super::http::{Answer, H1, H2, answer, application, get, paths, plain, proven, speak, world};
use super::world::{World, anybody, mesh, policy};

const UPGRADE: &[(&str, &str)] = &[("connection", "Upgrade"), ("upgrade", "websocket")];

/// A request's body that goes on: what is written to the other end of a stream comes as a request to a server of ours.
async fn endless(path: &str) -> (tokio::io::DuplexStream, Request) {
    use meshward_http::{Abort, Fault, Handler, Response, ServeOptions};
    struct Take(tokio::sync::mpsc::UnboundedSender<Request>);
    impl Handler for Take {
        async fn request(&self, request: Request) -> Result<Response, Abort> {
            let _ = self.0.send(request);
            std::future::pending().await
        }
        fn refused(&self, fault: Fault) {
            panic!("{fault}");
        }
    }
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    let (take, mut taken) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let http1 = meshward_http::Protocol::Http1;
        let options = ServeOptions::default();
        let _ = meshward_http::serve(far, http1, options, Arc::new(Take(take)), std::future::pending()).await;
    });
    let head = format!("POST {path} HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n");
    near.write_all(head.as_bytes()).await.unwrap();
    let mut request = taken.recv().await.unwrap();
    request.headers_mut().remove("transfer-encoding");
    (near, request)
}

#[tokio::test]
async fn paths_are_the_same_to_policies_events_and_applications() {
    let relaxed = Mesh {
        strict_paths: false,
        ..mesh()
    };
    let world = world(
        MtlsMode::Strict,
        vec![anybody(), paths("a", Action::Deny, "/secret")],
    )
    .await;
    world.change([relaxed.into()]).await;
    for path in ["//secret", "/x/../secret", "/%73ecret"] {
        assert_eq!(proven(&world, get(path, &[])).await.status, 403, "{path}");
        let event = world.only_event().await;
        let http = event.http.as_deref().unwrap();
        assert_eq!(
            (http.path.as_ref(), http.path_normalized.as_deref()),
            (path, Some("/secret"))
        );
    }
    let got = proven(&world, get("/a//./b?q=//", &[])).await;
    assert_eq!(got.seen("target"), "/a/b?q=//");
    let event = world.only_event().await;
    let http = event.http.as_deref().unwrap();
    assert_eq!(http.path_normalized.as_deref(), Some("/a/b?q=//"));
}

/// What the workload's annotation says reaches the decision, and the application still gets what was sent (3.6 OURS).
#[tokio::test]
async fn p_06_p_08_a_path_is_judged_as_the_application_reads_it() {
    let deny = paths("a", Action::Deny, "/secret");
    let world = world(MtlsMode::Strict, vec![anybody(), deny]).await;
    for (dialect, path, status) in [
        ("plain", "/SECRET", 200),
        ("case-insensitive", "/SECRET", 403),
        ("case-insensitive", "/Other", 200),
        ("80=case-insensitive", "/SECRET", 200),
        ("plain", "/s%65cret%3Aa", 200),
        ("strip-params", "/secret;a=b", 403),
        ("strip-params", "/other;a=b", 200),
    ] {
        world.dialects(dialect).await;
        let got = proven(&world, get(path, &[])).await;
        assert_eq!(got.status, status, "{dialect} {path}");
        if status == 200 && !path.contains('%') {
            assert_eq!(got.seen("target"), path, "{dialect}");
        }
    }
}

#[tokio::test]
async fn paths_that_two_could_read_in_two_ways_are_refused() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    for path in ["/a%2fb", "/a/../b", "/a%5cb"] {
        let got = proven(&world, get(path, &[])).await;
        assert_eq!((got.status, got.body.as_str()), (400, "Bad Request"), "{path}");
        let event = world.only_event().await;
        assert_eq!(
            (event.decision, event.reason, event.details.as_ref()),
            (
                Decision::Deny,
                Some(Reason::PathRefused),
                "path_normalization_failed"
            )
        );
        assert_eq!(event.http.as_deref().unwrap().code, 400);
        assert!(event.message.is_some());
    }
    assert_eq!(world.dialled().await, 0);
}

#[tokio::test]
async fn p_55_a_change_cuts_a_response_that_is_under_way() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    let (mut upload, request) = endless("/echo").await;
    let mut sender = speak(world.mutual(H2).await, Version::Http2).await;
    upload.write_all(b"5\r\nhello\r\n").await.unwrap();
    let mut response = sender.send(request).await.unwrap();
    let first = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), Bytes::from_static(b"hello"));
    world.policies(vec![]).await;
    let next = tokio::time::timeout(Duration::from_secs(5), response.body_mut().frame());
    next.await.unwrap().unwrap().unwrap_err();
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason, event.flags),
        (Decision::Deny, Some(Reason::PolicyChanged), "-")
    );
    assert_eq!((event.bytes_received, event.bytes_sent), (5, 5));
    assert_eq!(event.http.as_deref().unwrap().code, 200);
    // The next one on the same connection is decided anew.
    let got = answer(sender.send(get("/", &[])).await.unwrap()).await;
    assert_eq!(got.status, 403);
}

#[tokio::test]
async fn a_workload_that_leaves_denies_nothing_to_who_waits_for_its_answer() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    let mut sender = speak(world.mutual(H1).await, Version::Http1).await;
    let asking = tokio::spawn(async move { sender.send(get("/never", &[])).await });
    while world.dialled().await == 0 {}
    world.gone().await;
    let got = answer(asking.await.unwrap().unwrap()).await;
    assert_eq!(got.status, 503, "{}", got.body);
    assert_eq!(world.only_event().await.reason, Some(Reason::NotReady));
}

#[tokio::test]
async fn p_55_a_change_ends_a_request_that_waits_for_its_answer() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    let mut sender = speak(world.mutual(H1).await, Version::Http1).await;
    let asking = tokio::spawn(async move { sender.send(get("/never", &[])).await });
    while world.dialled().await == 0 {}
    world.policies(vec![]).await;
    let got = answer(asking.await.unwrap().unwrap()).await;
    assert_eq!((got.status, got.body.as_str()), (403, "RBAC: access denied"));
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason),
        (Decision::Deny, Some(Reason::PolicyChanged))
    );
}

#[tokio::test]
async fn an_application_that_is_down_is_503() {
    let (world, listener) = World::new(MtlsMode::Strict, Protocol::Http, vec![anybody()]).await;
    drop(listener);
    let got = proven(&world, get("/", &[])).await;
    assert_eq!(got.status, 503);
    assert!(got.body.ends_with("remote connection failure"), "{}", got.body);
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason, event.flags),
        (Decision::Allow, Some(Reason::ConnectFailed), "UF")
    );
}

#[tokio::test]
async fn an_application_that_breaks_off_is_503() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    assert_eq!(proven(&world, get("/break", &[])).await.status, 503);
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason, event.flags),
        (Decision::Allow, Some(Reason::UpstreamReset), "UC")
    );
    // No inbound retries (O-14).
    assert_eq!(world.dialled().await, 1);
}

#[tokio::test]
async fn a_caller_that_leaves_is_told_of() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    let mut sender = speak(world.mutual(H2).await, Version::Http2).await;
    let asking = tokio::spawn(async move { sender.send(get("/never", &[])).await });
    while world.dialled().await == 0 {}
    asking.abort();
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason, event.flags),
        (Decision::Allow, Some(Reason::DownstreamReset), "DC")
    );
}

#[tokio::test]
async fn what_is_no_request_is_answered_and_told_of_once() {
    let world = world(MtlsMode::Permissive, vec![anybody()]).await;
    let mut client = world.plain().await;
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n")
        .await
        .unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 400"), "{heard}");
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason, event.flags),
        (Decision::Deny, Some(Reason::ProtocolError), "DPE")
    );
    assert_eq!(world.dialled().await, 0);
}

#[tokio::test]
async fn connections_to_the_application_are_kept() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    for _ in 0..3 {
        assert_eq!(proven(&world, get("/", &[])).await.status, 200);
    }
    assert_eq!(world.dialled().await, 1);
    // Not by one who speaks another version.
    let mut sender = speak(world.mutual(H2).await, Version::Http2).await;
    for _ in 0..3 {
        let got = answer(sender.send(get("/", &[])).await.unwrap()).await;
        assert_eq!(got.seen("version"), "HTTP/2");
    }
    assert_eq!(world.dialled().await, 2);
}

#[tokio::test]
async fn fields_of_a_connection_and_of_proxies_stay_behind() {
    let world = world(MtlsMode::Permissive, vec![anybody()]).await;
    let fields = [
        ("connection", "keep-alive, x-mine"),
        ("x-mine", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("x-envoy-original-path", "/other"),
        ("x_envoy_internal", "true"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "https"),
        ("x-yours", "2"),
    ];
    let got = plain(&world, get("/", &fields)).await;
    let mut seen: Vec<_> = got
        .headers
        .keys()
        .map(HeaderName::as_str)
        .filter_map(|name| name.strip_prefix("seen-"))
        .collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            "host",
            "target",
            "te",
            "version",
            "x-forwarded-proto",
            "x-request-id",
            "x-yours"
        ]
    );
    assert_eq!(got.seen("x-forwarded-proto"), "http");
    // And on the way back.
    assert!(!got.headers.contains_key("keep-alive"));
}

#[tokio::test]
async fn policies_see_no_field_that_the_application_does_not() {
    let spoofed = policy("by-field", Action::Allow, |rule| {
        rule.when.push(ConditionSpec {
            key: "request.headers[x-forwarded-client-cert]".to_owned(),
            values: vec!["*spiffe://x".to_owned()],
            ..ConditionSpec::default()
        });
    });
    let world = world(MtlsMode::Permissive, vec![spoofed]).await;
    let fields = [("x-forwarded-client-cert", "URI=spiffe://x")];
    assert_eq!(plain(&world, get("/", &fields)).await.status, 403);
    assert_eq!(proven(&world, get("/", &fields)).await.status, 403);
}

#[tokio::test]
async fn r10_what_is_forwarded_for_is_believed_as_upstream_does_and_no_further() {
    let remote = policy("remote", Action::Allow, |rule| {
        rule.from.push(SourceSpec {
            remote_ip_blocks: vec!["192.0.2.7".to_owned()],
            ..SourceSpec::default()
        });
    });
    let world = world(MtlsMode::Strict, vec![remote]).await;
    let name = "x-forwarded-for";
    let last: &[_] = &[(name, "192.0.2.8"), (name, "192.0.2.9, 192.0.2.7")];
    let first: &[_] = &[(name, "192.0.2.7, 192.0.2.9")];
    for (profile, strict_hosts, fields, expect) in [
        (Profile::Secure, true, last, 403),
        (Profile::Secure, false, last, 403),
        (Profile::Istio, false, last, 200),
        (Profile::Istio, false, first, 403),
        (Profile::Istio, false, &[], 403),
    ] {
        let mesh = Mesh {
            profile,
            strict_hosts,
            ..mesh()
        };
        world.change([mesh.into()]).await;
        let got = proven(&world, get("/", fields)).await;
        assert_eq!(got.status, expect, "{profile:?} {fields:?}");
    }
}

/// Says something by a connection that has stopped being HTTP, and hears it again.
async fn talk(sender: &mut Sender, request: Request) {
    let mut response = sender.send(request).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "websocket");
    let promise = meshward_http::take_upgrade(response.extensions_mut()).unwrap();
    let mut stream = promise.wait().await.unwrap();
    stream.write_all(b"frame").await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"frame");
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn an_upgrade_is_relayed_and_counted() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    let mut sender = speak(world.mutual(H1).await, Version::Http1).await;
    talk(&mut sender, get("/ws", UPGRADE)).await;
    let event = world.only_event().await;
    assert_eq!((event.decision, event.reason), (Decision::Allow, None));
    assert_eq!((event.bytes_received, event.bytes_sent), (5, 5));
    assert_eq!(event.http.as_deref().unwrap().code, 101);
}

#[tokio::test]
async fn an_upgrade_that_is_handed_over_is_relayed_and_counted_and_cut_off() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    let hand_over = || request_of(&world, world.caller(), get("/ws", UPGRADE));
    let mut response = hand_over().await.unwrap();
    assert_eq!(response.status(), 101);
    let promise = meshward_http::take_upgrade(response.extensions_mut()).unwrap();
    let mut stream = promise.wait().await.unwrap();
    stream.write_all(b"frame").await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    world.policies(vec![]).await;
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
    let _ = end.await.unwrap();
    let event = world.only_event().await;
    assert_eq!(
        (event.wire, event.decision, event.reason),
        (Wire::Local, Decision::Deny, Some(Reason::PolicyChanged))
    );
    assert_eq!((event.bytes_received, event.bytes_sent), (5, 5));
    assert_eq!(answer(hand_over().await.unwrap()).await.status, 403);
    assert_eq!(world.only_event().await.reason, Some(Reason::DenyDefault));
}

async fn request_of(
    world: &World,
    caller: Caller,
    asked: Request,
) -> Result<meshward_http::Response, meshward_http::Abort> {
    request(&world.shared, &caller, &world.callee(), None, asked).await
}

#[tokio::test]
async fn a_switch_of_protocols_that_nobody_asked_for_is_no_answer() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    assert_eq!(proven(&world, get("/101", &[])).await.status, 503);
    let event = world.only_event().await;
    assert_eq!((event.reason, event.flags), (Some(Reason::UpstreamReset), "UC"));
}

/// Sends requests as they are written, one after the other, and returns the first lines of the answers.
async fn written(world: &World, requests: &[&str]) -> (TcpStream, Vec<String>) {
    let mut client = world.plain().await;
    let mut lines = Vec::new();
    for request in requests {
        client.write_all(request.as_bytes()).await.unwrap();
        let mut heard = vec![0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(5), client.read(&mut heard));
        let length = read.await.unwrap().unwrap();
        heard.truncate(length);
        let heard = String::from_utf8(heard).unwrap();
        lines.push(heard.lines().next().unwrap_or_default().to_owned());
    }
    (client, lines)
}

#[tokio::test]
async fn pd_17_an_upgrade_that_the_connection_does_not_ask_for_is_none() {
    let world = world(MtlsMode::Permissive, vec![anybody()]).await;
    let (_client, lines) = written(
        &world,
        &["GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"],
    )
    .await;
    assert_eq!(lines, ["HTTP/1.1 503 Service Unavailable"]);
    let event = world.only_event().await;
    assert_eq!(
        event.reason,
        Some(Reason::UpstreamReset),
        "our application switches all the same"
    );
}

#[tokio::test]
async fn pd_17_an_upgrade_after_one_that_was_none() {
    let world = world(MtlsMode::Permissive, vec![anybody()]).await;
    let none = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
    let asked = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (mut client, lines) = written(&world, &[none, asked]).await;
    assert_eq!(lines, ["HTTP/1.1 200 OK", "HTTP/1.1 101 Switching Protocols"]);
    client.write_all(b"\0frame").await.unwrap();
    let mut heard = [0; 6];
    let read = tokio::time::timeout(Duration::from_secs(5), client.read_exact(&mut heard));
    read.await.unwrap().unwrap();
    assert_eq!(&heard, b"\0frame");
}

#[tokio::test]
async fn other_upgrades_are_refused() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    let fields = [("connection", "Upgrade"), ("upgrade", "spdy/3.1")];
    assert_eq!(proven(&world, get("/ws", &fields)).await.status, 403);
    assert_eq!(world.only_event().await.reason, Some(Reason::MethodRefused));
}

#[tokio::test]
async fn a_request_that_is_handed_over_is_decided_as_from_the_wire() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    let got = answer(request_of(&world, world.caller(), get("/", &[])).await.unwrap()).await;
    assert!(got.seen("x-forwarded-client-cert").ends_with("/sa/client"));
    assert_eq!(world.only_event().await.wire, Wire::Local);
    let nobody = Caller {
        peer: None,
        wire: Wire::Plaintext,
        ..world.caller()
    };
    request_of(&world, nobody, get("/", &[])).await.unwrap_err();
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason),
        (Decision::Deny, Some(Reason::PlaintextRefused))
    );
}

#[tokio::test]
async fn upstreams_profile_gives_no_decision_id() {
    let istio = Mesh {
        profile: Profile::Istio,
        ..mesh()
    };
    let world = world(MtlsMode::Strict, vec![]).await;
    world.change([istio.into()]).await;
    let got: Answer = proven(&world, get("/", &[])).await;
    assert_eq!(got.status, 403);
    assert!(!got.headers.contains_key("x-meshward-decision"));
}

#[tokio::test]
async fn the_application_gets_the_version_that_its_port_declares() {
    let world = World::serving(MtlsMode::Strict, Protocol::Grpc, vec![anybody()], application).await;
    let got = proven(&world, get("/", &[])).await;
    assert_eq!(got.seen("version"), "HTTP/2");
    let world = World::serving(MtlsMode::Strict, Protocol::Auto, vec![anybody()], application).await;
    // Multiplexed on the way, but its caller's application speaks HTTP/1.1.
    let either: &[&[u8]] = &[b"istio-h2", b"istio-http/1.1"];
    let mut sender = speak(world.mutual(either).await, Version::Http2).await;
    let got = answer(sender.send(get("/", &[])).await.unwrap()).await;
    assert_eq!(got.seen("version"), "HTTP/1.1");
}

#[tokio::test]
async fn p_55_a_change_cuts_a_request_whose_response_nobody_reads() {
    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let world = World::serving(
        MtlsMode::Strict,
        Protocol::Http,
        vec![anybody()],
        move |mut stream| {
            let told = told.clone();
            async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(head).await.unwrap();
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                told.send(()).unwrap();
            }
        },
    )
    .await;
    let (_upload, asked) = endless("/").await;
    let unread = request_of(&world, world.caller(), asked).await.unwrap();
    world.policies(vec![]).await;
    tokio::time::timeout(Duration::from_secs(5), ended.recv())
        .await
        .unwrap();
    drop(unread);
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason),
        (Decision::Deny, Some(Reason::PolicyChanged))
    );
}

#[tokio::test]
async fn connections_that_nobody_needs_are_closed() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    assert_eq!(proven(&world, get("/", &[])).await.status, 200);
    assert_eq!(world.dialled().await, 1);
    assert_eq!(world.shared.apps.idle(), 1);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.shared.apps.idle(), 0);
}

#[tokio::test]
async fn an_application_that_closes_after_each_answer_is_dialled_anew() {
    let world = World::serving(
        MtlsMode::Strict,
        Protocol::Http,
        vec![anybody()],
        |mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            let _ = stream.write_all(answer).await;
        },
    )
    .await;
    for _ in 0..10 {
        let got = proven(&world, get("/", &[])).await;
        assert_eq!((got.status, got.body.as_str()), (200, "ok"));
    }
    assert_eq!(world.dialled().await, 10);
}

#[tokio::test]
async fn the_status_of_grpc_is_told_of_where_it_comes_last() {
    let world = World::serving(MtlsMode::Strict, Protocol::Grpc, vec![anybody()], application).await;
    let (mut upload, mut asked) = endless("/echo").await;
    let grpc = meshward_http::HeaderValue::from_static("application/grpc");
    asked.headers_mut().insert("content-type", grpc);
    let said = b"5\r\nhello\r\n0\r\ngrpc-status: 9\r\n\r\n";
    upload.write_all(said).await.unwrap();
    let mut sender = speak(world.mutual(H2).await, Version::Http2).await;
    let response = sender.send(asked).await.unwrap();
    let whole = response.into_body().collect().await.unwrap();
    assert_eq!(whole.trailers().unwrap()["grpc-status"], "9");
    let event = world.only_event().await;
    assert_eq!((event.protocol, event.reason), ("grpc", None));
    let http = event.http.as_deref().unwrap();
    assert_eq!((http.code, http.grpc_status, event.bytes_sent), (200, Some(9), 5));
}
