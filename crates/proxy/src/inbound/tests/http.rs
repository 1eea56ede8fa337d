//! Requests.

use std::sync::Arc;

use http_body_util::BodyExt;
use meshward_http::{
    Abort, Body, Fault, Handler, HeaderMap, HeaderValue, Request, Response, Sender, ServeOptions, StatusCode,
    Version, version_of,
};
use model::{MtlsMode, Protocol, Reason};
use policy::{Action, OperationSpec, PolicySpec, SourceSpec};
use snapshot::{Mesh, XfccMode};
use telemetry::{Decision, EventKind, Wire};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::world::{Io, World, anybody, id, mesh, policy};

pub(super) const H1: &[&[u8]] = &[b"istio-http/1.1"];
pub(super) const H2: &[&[u8]] = &[b"istio-h2"];

/// The application: tells what it has seen.
struct Seen;

impl Handler for Seen {
    async fn request(&self, mut request: Request) -> Result<Response, Abort> {
        match request.uri().path() {
            "/break" => return Err(Abort),
            "/never" => std::future::pending().await,
            "/ws" | "/101" => return Ok(switched(&mut request)),
            // Begins to answer at once, and goes on for as long as the request does.
            "/echo" => return Ok(Response::new(request.into_body())),
            _ => {}
        }
        let mut response = Response::new(Body::from("hello"));
        let mut tell = |name: &str, value: &str| {
            let name: meshward_http::HeaderName = format!("seen-{name}").parse().unwrap();
            response
                .headers_mut()
                .append(name, HeaderValue::try_from(value).unwrap());
        };
        for (name, value) in request.headers() {
            tell(name.as_str(), value.to_str().unwrap());
        }
        tell("target", &request.uri().to_string());
        tell("version", version_of(&request).as_str());
        response
            .headers_mut()
            .insert("keep-alive", HeaderValue::from_static("timeout=9"));
        Ok(response)
    }

    fn refused(&self, fault: Fault) {
        panic!("the application got {fault}");
    }
}

/// Switches protocols, and then sends back what comes.
fn switched(request: &mut Request) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket")] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    if let Some(upgrade) = meshward_http::take_upgrade(request.extensions_mut()) {
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(upgrade.wait().await.unwrap());
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
    }
    response
}

pub(super) async fn application(stream: TcpStream) {
    let detect = meshward_http::Protocol::Detect;
    let options = ServeOptions::default();
    let _ = meshward_http::serve(stream, detect, options, Arc::new(Seen), std::future::pending()).await;
}

pub(super) async fn world(mode: MtlsMode, policies: Vec<PolicySpec>) -> World {
    World::serving(mode, Protocol::Http, policies, application).await
}

pub(super) fn get(path: &str, fields: &[(&'static str, &'static str)]) -> Request {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().unwrap();
    let headers = request.headers_mut();
    headers.insert("host", HeaderValue::from_static("web"));
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    request
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    /// What the application has seen under that name; empty where nothing.
    pub(super) fn seen(&self, name: &str) -> String {
        let values = self.headers.get_all(format!("seen-{name}"));
        let values: Vec<_> = values.iter().map(|v| v.to_str().unwrap()).collect();
        values.join("|")
    }
}

pub(super) async fn answer(response: Response) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

pub(super) async fn speak(stream: impl Io + 'static, version: Version) -> Sender {
    meshward_http::handshake(stream, version).await.unwrap()
}

/// Sends one request in the name of `client`.
pub(super) async fn proven(world: &World, request: Request) -> Answer {
    let mut sender = speak(world.mutual(H1).await, Version::Http1).await;
    answer(sender.send(request).await.unwrap()).await
}

/// Sends one request in plaintext.
pub(super) async fn plain(world: &World, request: Request) -> Answer {
    let mut sender = speak(world.plain().await, Version::Http1).await;
    answer(sender.send(request).await.unwrap()).await
}

/// A policy that admits or refuses paths.
pub(super) fn paths(name: &str, action: Action, path: &str) -> PolicySpec {
    policy(name, action, |rule| {
        rule.to.push(OperationSpec {
            paths: vec![path.to_owned()],
            ..OperationSpec::default()
        });
    })
}

#[tokio::test]
async fn a_request_is_carried_and_told_of() {
    let client = policy("client", Action::Allow, |rule| {
        rule.from.push(SourceSpec {
            principals: vec![id("client").to_string().replace("spiffe://", "")],
            ..SourceSpec::default()
        });
    });
    let world = world(MtlsMode::Strict, vec![client]).await;
    let got = proven(&world, get("/a?b", &[("user-agent", "test")])).await;
    assert_eq!((got.status, got.body.as_str()), (200, "hello"));
    assert_eq!(
        (got.seen("target"), got.seen("version")),
        ("/a?b".into(), "HTTP/1.1".into())
    );
    let event = world.only_event().await;
    assert_eq!(
        (event.kind, event.wire, event.protocol, event.decision),
        (EventKind::Request, Wire::MutualTls, "http", Decision::Allow)
    );
    assert_eq!(
        (event.flags, event.details.as_ref(), event.reason),
        ("-", "via_upstream", None)
    );
    assert_eq!((event.bytes_received, event.bytes_sent), (0, 5));
    assert_eq!(event.source.principal, Some(id("client")));
    assert_eq!(event.policy.as_ref().unwrap().name.as_ref(), "client");
    assert_eq!(event.upstream.unwrap().port(), world.port);
    let http = event.http.as_deref().unwrap();
    assert_eq!(
        (
            http.method.as_ref(),
            http.authority.as_ref(),
            http.path.as_ref(),
            http.code
        ),
        ("GET", "web", "/a?b", 200)
    );
    assert_eq!(http.user_agent.as_ref(), "test");
    assert_eq!(http.request_id.as_ref(), got.seen("x-request-id"));
}

#[tokio::test]
async fn who_is_denied_is_told_so_and_the_application_is_not_dialled() {
    let world = world(
        MtlsMode::Strict,
        vec![anybody(), paths("secret", Action::Deny, "/secret")],
    )
    .await;
    let got = proven(&world, get("/secret", &[])).await;
    assert_eq!((got.status, got.body.as_str()), (403, "RBAC: access denied"));
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason, event.flags),
        (Decision::Deny, Some(Reason::DenyExplicit), "-")
    );
    assert_eq!(
        event.details,
        "rbac_access_denied_matched_policy[ns[full]-policy[secret]-rule[0]]"
    );
    assert_eq!((event.http.as_deref().unwrap().code, event.bytes_sent), (403, 19));
    assert_eq!(
        event.decision_id.as_deref(),
        got.headers
            .get("x-meshward-decision")
            .map(|id| id.to_str().unwrap())
    );
    assert!(event.decision_id.is_some());
    assert_eq!(world.dialled().await, 0);
}

#[tokio::test]
async fn grpc_that_is_denied_gets_trailers_only() {
    let world = world(MtlsMode::Strict, vec![]).await;
    let mut sender = speak(world.mutual(H2).await, Version::Http2).await;
    let request = get("/a.B/C", &[("content-type", "application/grpc")]);
    let got = answer(sender.send(request).await.unwrap()).await;
    assert_eq!((got.status, got.body.as_str()), (200, ""));
    assert_eq!(got.headers["grpc-status"], "7");
    assert_eq!(got.headers["grpc-message"], "RBAC: access denied");
    assert_eq!(got.headers["content-type"], "application/grpc");
    let event = world.only_event().await;
    assert_eq!(
        (event.protocol, event.reason),
        ("grpc", Some(Reason::DenyDefault))
    );
    let http = event.http.as_deref().unwrap();
    assert_eq!((http.code, http.grpc_status, event.bytes_sent), (200, Some(7), 0));
}

#[tokio::test]
async fn mt_07_a_request_in_plaintext_to_a_strict_port_is_reset() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    let mut sender = speak(world.plain().await, Version::Http1).await;
    sender.send(get("/", &[])).await.unwrap_err();
    let event = world.only_event().await;
    assert_eq!(
        (event.kind, event.reason, event.flags),
        (EventKind::Connection, Some(Reason::PlaintextRefused), "NR")
    );
    assert_eq!(world.dialled().await, 0);
}

#[tokio::test]
async fn id_08_the_application_is_told_who_calls_and_by_nobody_else() {
    let world = world(MtlsMode::Permissive, vec![anybody()]).await;
    let spoofed = [
        ("x-forwarded-client-cert", "URI=spiffe://x"),
        ("x_forwarded_client_cert", "URI=spiffe://y"),
    ];
    let got = proven(&world, get("/", &spoofed)).await;
    let seen = got.seen("x-forwarded-client-cert");
    assert!(
        seen.starts_with("By=spiffe://cluster.local/ns/full/sa/web;Hash="),
        "{seen}"
    );
    assert!(
        seen.ends_with(";URI=spiffe://cluster.local/ns/full/sa/client"),
        "{seen}"
    );
    assert!(!seen.contains("spiffe://x"));
    assert_eq!(got.seen("x_forwarded_client_cert"), "");
}

#[tokio::test]
async fn before_its_certificate_no_request_is_carried() {
    let mode = MtlsMode::Permissive;
    let (world, app) = World::certified(&["client"], mode, Protocol::Http, vec![anybody()]).await;
    let limit = std::time::Duration::from_secs(5);
    let answered = tokio::time::timeout(limit, plain(&world, get("/", &[]))).await;
    assert_eq!(answered.unwrap().status, 503);
    assert_eq!(world.only_event().await.reason, Some(Reason::NotReady));
    let dialled = tokio::time::timeout(std::time::Duration::from_millis(50), app.accept());
    assert!(dialled.await.is_err());
}

#[tokio::test]
async fn id_08_upstreams_profile_keeps_what_the_caller_says_in_front() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    let append = Mesh {
        xfcc: XfccMode::AppendForward,
        ..mesh()
    };
    world.change([append.into()]).await;
    let name = "x-forwarded-client-cert";
    let fields = [(name, "URI=spiffe://x"), (name, "URI=spiffe://y")];
    let seen = proven(&world, get("/", &fields)).await.seen(name);
    let own = format!("URI=spiffe://x,URI=spiffe://y,By={};Hash=", id("web"));
    assert!(seen.starts_with(&own), "{seen}");
    assert!(seen.ends_with(&format!(";URI={}", id("client"))), "{seen}");
}

#[tokio::test]
async fn id_09_plaintext_says_nothing_of_who_calls() {
    let world = world(MtlsMode::Permissive, vec![anybody()]).await;
    let spoofed = [
        ("x-forwarded-client-cert", "URI=spiffe://x"),
        ("x_forwarded_client_cert", "URI=spiffe://y"),
    ];
    let got = plain(&world, get("/", &spoofed)).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.seen("x-forwarded-client-cert"), "");
    assert_eq!(got.seen("x_forwarded_client_cert"), "");
}

#[tokio::test]
async fn who_proves_nothing_that_is_believed_is_refused() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    world.stranger(H1).await;
    let event = world.only_event().await;
    assert_eq!(
        (event.kind, event.decision, event.sni.as_deref()),
        (EventKind::Connection, Decision::Deny, Some("outbound_.80_._.web"))
    );
    assert!(
        matches!(event.reason, Some(Reason::TlsHandshake | Reason::PeerIdentity)),
        "{:?}",
        event.reason
    );
    assert_eq!(event.source.principal, None);
    assert!(event.message.is_some());
    assert_eq!(world.dialled().await, 0);
}

#[tokio::test]
async fn mt_08_what_is_not_http_is_refused_by_the_codec() {
    let world = world(MtlsMode::Disable, vec![anybody()]).await;
    let mut client = world.plain().await;
    client
        .write_all(b"\x16\x03\x01\x00\x05hello\r\n\r\n")
        .await
        .unwrap();
    client.shutdown().await.unwrap();
    let event = world.only_event().await;
    assert_eq!((event.reason, event.flags), (Some(Reason::ProtocolError), "DPE"));
    assert_eq!(world.dialled().await, 0);
}

#[tokio::test]
async fn plaintext_is_carried_where_it_is_permitted_and_proves_nothing() {
    let world = World::serving(MtlsMode::Permissive, Protocol::Auto, vec![anybody()], application).await;
    assert_eq!(plain(&world, get("/", &[])).await.status, 200);
    let event = world.only_event().await;
    assert_eq!(
        (event.kind, event.wire, event.decision),
        (EventKind::Request, Wire::Plaintext, Decision::Allow)
    );
    assert_eq!(
        (event.source.principal.as_ref(), event.sni.as_deref()),
        (None, None)
    );
}
