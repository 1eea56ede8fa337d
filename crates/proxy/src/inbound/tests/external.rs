//! External authorizers: fakes of ours, asked by a whole proxy (semantics 2.13).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use meshward_http::{
    Abort, Body, Fault, Handler, HeaderMap, HeaderValue, Request, Response, ServeOptions, StatusCode, Version,
};
use model::{MtlsMode, Protocol, Reason, WorkloadUid};
use policy::{Action, ConditionSpec, OperationSpec, PolicySpec};
use prost::Message as _;
use proto::envoy::config::core::v3::{HeaderValue as Value, HeaderValueOption, QueryParameter};
use proto::envoy::service::auth::v3::check_response::HttpResponse;
use proto::envoy::service::auth::v3::{CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse};
use proto::envoy::r#type::v3::HttpStatus;
use proto::google::rpc::Status;
use snapshot::{
    CheckBody, Endpoint, HeaderPattern, HttpCheck, Provider, ProviderKind, Resource, Service, ServicePort,
};
use telemetry::{Decision, Event};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::external::Depth;
use super::http::{Answer, H1, answer, application, get, paths, plain, proven, speak};
use super::world::{World, anybody, policy};
use crate::outbound::Outbound;

const PORT: u16 = 9000;

type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// An authorizer: answers each question by `answer`.
struct Authorizer<F> {
    answer: F,
    asked: Arc<AtomicUsize>,
}

impl<F: Fn(Request) -> Answering + Send + Sync + 'static> Handler for Authorizer<F> {
    async fn request(&self, request: Request) -> Result<Response, Abort> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok((self.answer)(request).await)
    }

    fn refused(&self, fault: Fault) {
        panic!("the authorizer got {fault}");
    }
}

/// A world whose proxy can ask, and the count of questions.
struct Asking {
    world: World,
    asked: Arc<AtomicUsize>,
    _outbound: Arc<Outbound>,
}

fn provider(name: &str, kind: ProviderKind) -> Provider {
    Provider {
        name: name.to_owned(),
        service: "full/authz".parse().unwrap(),
        port: PORT,
        kind,
        timeout_ms: 2_000,
        fail_open: false,
        status_on_error: 403,
        body: None,
    }
}

fn opa() -> Provider {
    provider("opa", ProviderKind::Grpc)
}

fn over_http(check: HttpCheck) -> Provider {
    provider("opa", ProviderKind::Http(check))
}

fn ask(name: &str, provider: &str) -> PolicySpec {
    let action = Action::Custom {
        provider: provider.to_owned(),
    };
    policy(name, action, |_| {})
}

fn service(target: u16) -> Service {
    Service {
        name: "full/authz".parse().unwrap(),
        host: "authz.full.svc.mesh.example".parse().unwrap(),
        vips: vec!["10.96.0.9".parse().unwrap()],
        headless: false,
        external_name: None,
        external: None,
        ports: vec![ServicePort {
            name: "grpc".to_owned(),
            port: PORT,
            protocol: Protocol::Auto,
            tls: None,
            tls_by_namespace: BTreeMap::new(),
        }],
        endpoints: vec![Endpoint {
            uid: WorkloadUid::new("authz"),
            workload: None,
            addresses: vec!["192.0.2.9".parse().unwrap()],
            ports: [(PORT, target)].into(),
            ready: true,
            node: None,
            identity: None,
            plaintext_ports: vec![],
            mtls_ports: vec![],
            hbone: false,
            hostname: None,
        }],
        identities: vec![],
    }
}

impl Asking {
    /// The authorizer answers by `answer`; what it knows of the mesh's are `providers`.
    async fn new(
        protocol: Protocol,
        policies: Vec<PolicySpec>,
        providers: Vec<Provider>,
        answer: impl Fn(Request) -> Answering + Send + Sync + 'static,
    ) -> Self {
        let world = if protocol == Protocol::Tcp {
            World::serving(MtlsMode::Permissive, protocol, policies, echo).await
        } else {
            World::serving(MtlsMode::Permissive, protocol, policies, application).await
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().port();
        let asked: Arc<AtomicUsize> = Arc::default();
        let handler = Arc::new(Authorizer {
            answer,
            asked: Arc::clone(&asked),
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let handler = Arc::clone(&handler);
                tokio::spawn(async move {
                    let detect = meshward_http::Protocol::Detect;
                    let options = ServeOptions::default();
                    let _ =
                        meshward_http::serve(stream, detect, options, handler, std::future::pending()).await;
                });
            }
        });
        let resources = providers.into_iter().map(Resource::from);
        world.change(resources.chain([service(target).into()])).await;
        let outbound = Outbound::on_loopback(Arc::clone(&world.shared));
        world.shared.authorizers.reached_by(&outbound);
        Self {
            world,
            asked,
            _outbound: outbound,
        }
    }

    async fn grpc(policies: Vec<PolicySpec>, provider: Provider, said: CheckResponse) -> Self {
        let answer = move |_| {
            let said = said.clone();
            Box::pin(async move { message(&said) }) as Answering
        };
        Self::new(Protocol::Http, policies, vec![provider], answer).await
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn get(&self, fields: &[(&'static str, &'static str)]) -> (Answer, Arc<Event>) {
        let got = proven(&self.world, get("/a?b=c", fields)).await;
        (got, self.world.event().await)
    }
}

/// Waits for what comes about by itself.
async fn soon(so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), waiting)
        .await
        .expect("not in time");
}

async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

fn raw(body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    for (name, value) in [("content-type", "application/grpc"), ("grpc-status", "0")] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

fn message(said: &CheckResponse) -> Response {
    raw(extauthz::frame(&said.encode_to_vec()))
}

fn option(key: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(Value {
            key: key.to_owned(),
            value: value.to_owned(),
            raw_value: vec![],
        }),
        append: None,
        append_action: 0,
    }
}

fn yes(edit: impl FnOnce(&mut OkHttpResponse)) -> CheckResponse {
    let mut ok = OkHttpResponse::default();
    edit(&mut ok);
    CheckResponse {
        status: Some(Status::default()),
        http_response: Some(HttpResponse::OkResponse(ok)),
    }
}

fn no(code: i32, headers: &[(&str, &str)], body: &str) -> CheckResponse {
    CheckResponse {
        status: Some(Status {
            code: 7,
            ..Status::default()
        }),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code }),
            headers: headers.iter().map(|(name, value)| option(name, value)).collect(),
            body: body.to_owned(),
        })),
    }
}

fn by_header(name: &str, action: Action, key: &str, value: &str) -> PolicySpec {
    policy(name, action, |rule| {
        rule.when.push(ConditionSpec {
            key: format!("request.headers[{key}]"),
            values: vec![value.to_owned()],
            ..ConditionSpec::default()
        });
    })
}

#[tokio::test]
async fn az_071_what_is_admitted_goes_on_as_the_authorizer_changed_it() {
    let said = yes(|ok| {
        ok.headers = vec![
            option("x-user", "opa"),
            option("x-forwarded-client-cert", "By=forged"),
            option("x-envoy-internal", "true"),
        ];
        ok.headers_to_remove = vec!["x-secret".to_owned(), "x-forwarded-client-cert".to_owned()];
        ok.response_headers_to_add = vec![option("x-checked", "yes")];
        ok.query_parameters_to_set = vec![QueryParameter {
            key: "b".to_owned(),
            value: "d".to_owned(),
        }];
    });
    // The later steps see what it made of the request: before, nothing would have admitted it.
    let policies = vec![
        ask("ask", "opa"),
        by_header("user", Action::Allow, "x-user", "opa"),
    ];
    let asking = Asking::grpc(policies, opa(), said).await;
    let (got, event) = asking.get(&[("x-secret", "1"), ("x-user", "me")]).await;
    assert_eq!((got.status, got.body.as_str()), (200, "hello"), "{event:#?}");
    assert_eq!(
        (got.seen("x-user"), got.seen("x-secret")),
        ("opa".into(), String::new())
    );
    assert_eq!(got.seen("target"), "/a?b=d");
    let xfcc = got.seen("x-forwarded-client-cert");
    assert!(
        xfcc.contains("sa/client") && !xfcc.contains("forged"),
        "O-15: {xfcc}"
    );
    assert_eq!(got.seen("x-envoy-internal"), "");
    assert_eq!(got.headers["x-checked"], "yes");
    assert_eq!((event.decision, event.flags), (Decision::Allow, "-"));
    assert_eq!(event.ext_authz.len(), 1);
    assert_eq!(
        (event.ext_authz[0].provider.as_ref(), event.ext_authz[0].result),
        ("opa", "allowed")
    );
    assert!(
        event
            .message
            .as_ref()
            .unwrap()
            .contains("x-forwarded-client-cert")
    );
    assert_eq!(
        event.http.as_ref().unwrap().path_normalized.as_deref(),
        Some("/a?b=d")
    );
    assert_eq!(asking.asked(), 1);
}

#[tokio::test]
async fn az_072_a_refusal_is_the_authorizers_word() {
    let said = no(
        429,
        &[("x-why", "because"), ("content-length", "99")],
        "slow down",
    );
    let asking = Asking::grpc(vec![ask("ask", "opa"), anybody()], opa(), said).await;
    let (got, event) = asking.get(&[]).await;
    assert_eq!((got.status, got.body.as_str()), (429, "slow down"));
    assert_eq!(got.headers["x-why"], "because");
    assert_eq!(
        (event.reason, event.flags, event.details.as_ref(), event.decision),
        (
            Some(Reason::DenyCustom),
            "UAEX",
            "ext_authz_denied",
            Decision::Deny
        )
    );
    assert_eq!(event.policy.as_ref().unwrap().name.as_ref(), "ask");
    assert_eq!(asking.world.dialled().await, 0, "AZ-027");
    // gRPC hears it in its own words.
    let got = proven(&asking.world, get("/a", &[("content-type", "application/grpc")])).await;
    assert_eq!(
        (got.status, got.headers["grpc-status"].as_bytes()),
        (200, &b"14"[..])
    );
    assert_eq!(got.headers["grpc-message"], "slow down");
}

#[tokio::test]
async fn az_026_and_028_an_admission_skips_no_later_step() {
    for (name, later) in [
        ("AZ-026", paths("no", Action::Deny, "/a")),
        ("AZ-028", paths("other", Action::Allow, "/b")),
    ] {
        let policies = vec![ask("ask", "opa"), later];
        let asking = Asking::grpc(policies, opa(), yes(|_| {})).await;
        let (got, event) = asking.get(&[]).await;
        assert_eq!(
            (got.status, got.body.as_str()),
            (403, "RBAC: access denied"),
            "{name}"
        );
        assert_ne!(event.reason, Some(Reason::DenyCustom), "{name}");
        assert_eq!(asking.asked(), 1, "{name}");
    }
}

#[tokio::test]
async fn az_073_what_no_rule_matches_nobody_is_asked_about() {
    let mut only = ask("ask", "opa");
    only.rules[0].to.push(OperationSpec {
        not_paths: vec!["/health".to_owned()],
        ..OperationSpec::default()
    });
    let asking = Asking::grpc(vec![only, anybody()], opa(), no(403, &[], "")).await;
    assert_eq!(proven(&asking.world, get("/health", &[])).await.status, 200);
    assert_eq!(asking.asked(), 0);
    assert_eq!(proven(&asking.world, get("/a", &[])).await.status, 403);
    assert_eq!(asking.asked(), 1);
}

#[tokio::test]
async fn what_strict_refuses_never_reaches_an_authorizer() {
    let asking = Asking::grpc(vec![ask("ask", "opa"), anybody()], opa(), yes(|_| {})).await;
    assert_eq!(plain(&asking.world, get("/a", &[])).await.status, 200);
    let mut sender = speak(asking.world.plain().await, Version::Http1).await;
    let first = sender.send(get("/a", &[])).await.unwrap();
    assert_eq!(answer(first).await.status, 200);
    asking.world.mode(MtlsMode::Strict).await;
    let before = asking.asked();
    assert!(sender.send(get("/a", &[])).await.is_err());
    assert_eq!(asking.asked(), before);
}

/// What a caller gets of an authorizer that gives no answer, as asked for.
async fn unanswered(
    answer: impl Fn(Request) -> Answering + Send + Sync + Clone + 'static,
    provider: Provider,
) {
    for (fail_open, status_on_error, expect) in [(false, 403, 403), (false, 503, 503), (true, 403, 200)] {
        let provider = Provider {
            fail_open,
            status_on_error,
            timeout_ms: 200,
            ..provider.clone()
        };
        let policies = vec![ask("ask", "opa"), anybody()];
        let asking = Asking::new(Protocol::Http, policies, vec![provider], answer.clone()).await;
        let since = Instant::now();
        let (got, event) = asking.get(&[]).await;
        assert!(
            since.elapsed() < Duration::from_secs(2),
            "P59: {:?}",
            since.elapsed()
        );
        assert_eq!(got.status, expect, "{event:#?}");
        let result = event.ext_authz[0].result;
        assert!(
            event.message.as_ref().unwrap().contains("gave no answer"),
            "{event:#?}"
        );
        if fail_open {
            assert_eq!(
                (event.decision, result),
                (Decision::Allow, "failure_mode_allowed")
            );
        } else {
            assert_eq!(
                (event.reason, event.flags, event.details.as_ref(), result),
                (Some(Reason::DenyCustom), "UAEX", "ext_authz_error", "error")
            );
            assert_eq!(got.body, "");
        }
    }
}

#[tokio::test]
async fn p_59_one_that_never_answers() {
    unanswered(|_| Box::pin(std::future::pending()), opa()).await;
    unanswered(
        |_| Box::pin(std::future::pending()),
        over_http(HttpCheck::default()),
    )
    .await;
}

#[tokio::test]
async fn p_59_one_that_says_what_is_no_answer() {
    let answers: [fn() -> Response; 7] = [
        || raw(Bytes::from_static(b"garbage")),
        || raw(Bytes::from_static(b"\0\0\0\0\x02\xff\xff")),
        || raw(Bytes::new()),
        || raw(extauthz::frame(&vec![0; extauthz::MAX_MESSAGE + 1])),
        || {
            let mut response = message(&yes(|_| {}));
            response
                .headers_mut()
                .insert("grpc-status", HeaderValue::from_static("14"));
            response
        },
        || {
            let mut response = message(&yes(|_| {}));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        },
        || message(&yes(|ok| ok.headers = vec![option(":path", "/elsewhere")])),
    ];
    for answer in answers {
        unanswered(move |_| Box::pin(async move { answer() }), opa()).await;
    }
    let long = |status: u16, length: usize| {
        move |_| {
            let mut response = Response::new(Body::from("x".repeat(length)));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Box::pin(async move { response }) as Answering
        }
    };
    unanswered(long(500, 0), over_http(HttpCheck::default())).await;
    unanswered(long(200, 1024 * 1024 + 1), over_http(HttpCheck::default())).await;
    // A refusal stays one, however long its body is: `failOpen` is for those that say nothing.
    let open = Provider {
        fail_open: true,
        ..over_http(HttpCheck::default())
    };
    let policies = vec![ask("ask", "opa"), anybody()];
    let asking = Asking::new(Protocol::Http, policies, vec![open], long(403, 1024 * 1024 + 1)).await;
    let (got, event) = asking.get(&[]).await;
    assert_eq!(
        (got.status, event.reason),
        (403, Some(Reason::DenyCustom)),
        "{event:#?}"
    );
}

/// An answer whose body stands still after its first bytes.
async fn stalled(status: &'static str) -> Response {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let mut sender = meshward_http::handshake(ours, Version::Http1).await.unwrap();
    tokio::spawn(async move {
        let _ = theirs.read(&mut [0; 1024]).await;
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: 100\r\n\r\nhalf");
        theirs.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    sender.send(get("/", &[])).await.unwrap()
}

#[tokio::test]
async fn p_59_one_that_refuses_and_then_stands_still() {
    let still = |status| move |_: Request| Box::pin(stalled(status)) as Answering;
    unanswered(still("200 OK"), over_http(HttpCheck::default())).await;
    unanswered(still("503 Service Unavailable"), over_http(HttpCheck::default())).await;
    let open = Provider {
        fail_open: true,
        timeout_ms: 200,
        ..over_http(HttpCheck::default())
    };
    let policies = vec![ask("ask", "opa"), anybody()];
    let asking = Asking::new(Protocol::Http, policies, vec![open], still("401 Unauthorized")).await;
    let (got, event) = asking.get(&[]).await;
    assert_eq!(
        (got.status, event.reason),
        (401, Some(Reason::DenyCustom)),
        "{event:#?}"
    );
}

#[tokio::test]
async fn p_59_one_that_is_gone_is_left_alone_for_a_while() {
    let asking = Asking::grpc(vec![ask("ask", "opa"), anybody()], opa(), yes(|_| {})).await;
    asking.world.change([service(1).into()]).await;
    let mut why = String::new();
    for _ in 0..12 {
        let (got, event) = asking.get(&[]).await;
        assert_eq!(got.status, 403);
        why = event.message.as_ref().unwrap().to_string();
    }
    assert!(why.contains("not asked for a while"), "{why}");
}

#[tokio::test]
async fn s2_13_one_that_is_not_known_denies() {
    let asking = Asking::grpc(vec![ask("ask", "opa-2"), anybody()], opa(), yes(|_| {})).await;
    let (got, event) = asking.get(&[]).await;
    assert_eq!((got.status, got.body.as_str()), (403, "RBAC: access denied"));
    assert_eq!(
        event.details,
        "rbac_access_denied_matched_policy[istio-ext-authz-opa-2-ns[full]-policy[ask]-rule[0]-deny-due-to-bad-CUSTOM-action]"
    );
    assert_eq!((asking.asked(), event.ext_authz[0].result), (0, "unasked"), "R16");
}

#[tokio::test]
async fn several_are_asked_in_the_order_of_their_names_and_all_must_admit() {
    for (second, expect) in [(200, 200), (401, 401)] {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = Arc::clone(&seen);
        let answer = move |request: Request| {
            let path = request.uri().path().to_owned();
            let mine = request
                .headers()
                .get("x-user")
                .map(|v| v.to_str().unwrap().to_owned());
            told.lock()
                .unwrap()
                .push(format!("{path} {}", mine.unwrap_or_default()));
            let mut response = Response::new(Body::empty());
            response
                .headers_mut()
                .insert("x-user", HeaderValue::from_static("first"));
            if path.starts_with("/b") {
                *response.status_mut() = StatusCode::from_u16(second).unwrap();
            }
            Box::pin(async move { response }) as Answering
        };
        let of = |name: &str| {
            let check = HttpCheck {
                path_prefix: format!("/{name}"),
                headers: vec![HeaderPattern::new("x-user")],
                to_upstream: vec![HeaderPattern::new("x-user")],
                ..HttpCheck::default()
            };
            provider(name, ProviderKind::Http(check))
        };
        // The rule of the second speaks of what the first set.
        let mut late = by_header("b", Action::Deny, "x-user", "first");
        late.action = Action::Custom {
            provider: "b".to_owned(),
        };
        let policies = vec![ask("a-1", "a"), ask("a-2", "a"), late, anybody()];
        let asking = Asking::new(Protocol::Http, policies, vec![of("a"), of("b")], answer).await;
        let (got, event) = asking.get(&[]).await;
        assert_eq!(got.status, expect, "{event:#?}");
        assert_eq!(*seen.lock().unwrap(), ["/a/a ", "/b/a first"], "each once");
    }
}

#[tokio::test]
async fn s2_13_over_http_a_redirect_is_a_refusal_with_its_place() {
    let answer = |request: Request| {
        let mut response = Response::new(Body::from("go there"));
        let headers: &HeaderMap = request.headers();
        let seen: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        *response.status_mut() = StatusCode::FOUND;
        for (name, value) in [
            ("location", "/login".to_owned()),
            ("set-cookie", "a=1".to_owned()),
            ("x-seen", seen.join(" ")),
            ("x-target", request.uri().to_string()),
        ] {
            response
                .headers_mut()
                .append(name, HeaderValue::try_from(value).unwrap());
        }
        Box::pin(async move { response }) as Answering
    };
    let check = HttpCheck {
        path_prefix: "/check".to_owned(),
        headers: vec![HeaderPattern::new("cookie")],
        ..HttpCheck::default()
    };
    let policies = vec![ask("ask", "opa"), anybody()];
    let asking = Asking::new(Protocol::Http, policies, vec![over_http(check)], answer).await;
    let (got, _) = asking
        .get(&[("cookie", "c=1"), ("x-mine", "1"), ("authorization", "Basic x")])
        .await;
    assert_eq!((got.status, got.body.as_str()), (302, "go there"));
    assert_eq!(
        (
            got.headers["location"].as_bytes(),
            got.headers["set-cookie"].as_bytes()
        ),
        (&b"/login"[..], &b"a=1"[..])
    );
    assert_eq!(got.headers["x-target"], "/check/a?b=c");
    let mut seen: Vec<_> = got.headers["x-seen"].to_str().unwrap().split(' ').collect();
    seen.sort_unstable();
    assert_eq!(seen, ["authorization", "content-length", "cookie", "host"]);
}

/// An authorizer that admits, and says how much of a body it has seen.
fn tells_body(request: Request) -> Answering {
    Box::pin(async move {
        use http_body_util::BodyExt as _;
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let asked = CheckRequest::decode(extauthz::unframe(&body).unwrap()).unwrap();
        let http = asked.attributes.unwrap().request.unwrap().http.unwrap();
        let partial = http.headers.get("x-envoy-auth-partial-body").cloned();
        let seen = format!(
            "{} {} {}",
            http.body,
            http.raw_body.len(),
            partial.unwrap_or_default()
        );
        message(&yes(|ok| {
            ok.response_headers_to_add = vec![option("x-body", &seen)]
        }))
    })
}

fn post(body: impl Into<Body>) -> Request {
    let mut request = get("/echo", &[]);
    *request.method_mut() = meshward_http::Method::POST;
    *request.body_mut() = body.into();
    request
}

async fn with_body(body: CheckBody) -> Asking {
    let provider = Provider {
        body: Some(body),
        ..opa()
    };
    Asking::new(
        Protocol::Http,
        vec![ask("ask", "opa"), anybody()],
        vec![provider],
        tells_body,
    )
    .await
}

#[tokio::test]
async fn s2_13_a_body_is_seen_and_goes_on_untouched() {
    let whole = CheckBody {
        max_bytes: 10,
        partial: false,
        as_bytes: false,
    };
    let asking = with_body(whole).await;
    let got = proven(&asking.world, post("let me in")).await;
    assert_eq!((got.status, got.body.as_str()), (200, "let me in"));
    assert_eq!(got.headers["x-body"], "let me in 0 false");
    let got = proven(&asking.world, post("0123456789a")).await;
    assert_eq!(got.status, 413);
    assert_eq!(asking.asked(), 1, "whoever may not see all of it is not asked");
    // With and without a length.
    let long = "x".repeat(300_000);
    let asking = with_body(CheckBody {
        partial: true,
        as_bytes: true,
        ..whole
    })
    .await;
    let got = proven(&asking.world, post(long.clone())).await;
    assert_eq!((got.status, got.body == long), (200, true));
    assert_eq!(got.headers["x-body"], "10 true");
    let mut request = post(long.clone());
    request
        .headers_mut()
        .insert("transfer-encoding", HeaderValue::from_static("chunked"));
    let got = proven(&asking.world, request).await;
    assert_eq!((got.status, got.body == long), (200, true));
    let got = proven(&asking.world, get("/a", &[])).await;
    assert_eq!(
        (got.status, got.headers["x-body"].as_bytes()),
        (200, &b"0 false"[..])
    );
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let asking = with_body(CheckBody {
        max_bytes: 10,
        partial: true,
        as_bytes: false,
    })
    .await;
    let mut stream = asking.world.mutual(H1).await;
    let head = b"POST /a HTTP/1.1\r\nhost: web\r\ncontent-length: 5\r\n\r\nab";
    stream.write_all(head).await.unwrap();
    let mut heard = [0; 12];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"HTTP/1.1 408");
    assert_eq!(
        (asking.asked(), asking.world.event().await.reason),
        (0, Some(Reason::Timeout))
    );
}

#[tokio::test]
async fn whoever_leaves_takes_his_question_along() {
    struct Left(Arc<AtomicUsize>);
    impl Drop for Left {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let left: Arc<AtomicUsize> = Arc::default();
    let told = Arc::clone(&left);
    let answer = move |_| {
        let left = Left(Arc::clone(&told));
        Box::pin(async move {
            let _left = left;
            std::future::pending().await
        }) as Answering
    };
    let provider = Provider {
        timeout_ms: 600_000,
        ..opa()
    };
    let asking = Asking::new(
        Protocol::Http,
        vec![ask("ask", "opa"), anybody()],
        vec![provider],
        answer,
    )
    .await;
    let mut stream = asking.world.mutual(H1).await;
    stream
        .write_all(b"GET /a HTTP/1.1\r\nhost: web\r\n\r\n")
        .await
        .unwrap();
    soon(|| asking.asked() > 0).await;
    drop(stream);
    soon(|| left.load(Ordering::SeqCst) > 0).await;
    assert_eq!(asking.world.event().await.reason, Some(Reason::DownstreamReset));
}

#[tokio::test]
async fn one_that_would_be_asked_about_itself_denies() {
    let asking = Asking::grpc(vec![ask("ask", "opa"), anybody()], opa(), yes(|_| {})).await;
    let mut own = service(asking.world.port);
    own.endpoints[0].addresses = vec![super::world::WEB.parse().unwrap()];
    asking.world.change([own.into()]).await;
    let (got, event) = asking.get(&[]).await;
    assert_eq!(got.status, 403);
    assert!(event.message.as_ref().unwrap().contains("itself"), "{event:#?}");
}

#[tokio::test]
async fn those_that_would_be_asked_about_one_another_deny() {
    let asking = Asking::grpc(vec![ask("ask", "opa"), anybody()], opa(), yes(|_| {})).await;
    let world = &asking.world;
    for (depth, expect) in [(3, 200), (4, 403)] {
        let mut request = get("/a", &[]);
        request.extensions_mut().insert(Depth(depth));
        let response =
            super::super::request(&world.shared, &world.caller(), &world.callee(), None, request).await;
        assert_eq!(answer(response.unwrap()).await.status, expect);
    }
    assert_eq!(asking.asked(), 1);
}

#[tokio::test]
async fn p_55_a_change_is_decided_with_the_answers_that_were_given() {
    let asking = Asking::grpc(vec![ask("ask", "opa"), anybody()], opa(), yes(|_| {})).await;
    let mut sender = speak(asking.world.mutual(H1).await, Version::Http1).await;
    let open = tokio::spawn(async move { answer(sender.send(get("/never", &[])).await.unwrap()).await });
    soon(|| asking.world.accepted.load(Ordering::SeqCst) > 0).await;
    // Of an unrelated change nothing is heard, and nobody is asked again.
    asking
        .world
        .policies(vec![ask("ask", "opa"), anybody(), paths("b", Action::Deny, "/b")])
        .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!open.is_finished());
    // Whoever was not asked has not admitted.
    asking
        .world
        .policies(vec![ask("ask", "opa"), ask("more", "opa-2"), anybody()])
        .await;
    let got = open.await.unwrap();
    assert_eq!((got.status, asking.asked()), (403, 1));
    assert_eq!(asking.world.event().await.reason, Some(Reason::PolicyChanged));
}

/// An authorizer of connections: by who calls.
fn by_account(request: Request) -> Answering {
    Box::pin(async move {
        use http_body_util::BodyExt as _;
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let asked = CheckRequest::decode(extauthz::unframe(&body).unwrap()).unwrap();
        let attributes = asked.attributes.unwrap();
        assert!(attributes.request.is_none());
        let admits = attributes.source.unwrap().principal.ends_with("/sa/client");
        message(&if admits { yes(|_| {}) } else { no(403, &[], "") })
    })
}

#[tokio::test]
async fn az_074_a_connection_is_asked_about_once() {
    let only = paths("ask", Action::Allow, "/x");
    let only = PolicySpec {
        action: Action::Custom {
            provider: "opa".to_owned(),
        },
        ..only
    };
    let asking = Asking::new(Protocol::Tcp, vec![only, anybody()], vec![opa()], by_account).await;
    let mut stream = asking.world.mutual(&[b"istio"]).await;
    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!((&heard, asking.asked()), (b"hello", 1), "AZ-067");
    let mut stream = asking.world.plain().await;
    stream.write_all(b"hello").await.unwrap();
    assert!(matches!(stream.read(&mut heard).await, Ok(0) | Err(_)));
    drop(stream);
    let event = asking.world.event().await;
    assert_eq!(
        (event.reason, event.details.as_ref(), event.flags),
        (Some(Reason::DenyCustom), "ext_authz_denied", "UAEX"),
        "AZ-075"
    );
}

#[tokio::test]
async fn r17_and_az_068_one_over_http_denies_connections() {
    let provider = Provider {
        fail_open: true,
        ..over_http(HttpCheck::default())
    };
    let policies = vec![ask("ask", "opa"), anybody()];
    let answer = |_| Box::pin(async { Response::new(Body::empty()) }) as Answering;
    let asking = Asking::new(Protocol::Tcp, policies, vec![provider], answer).await;
    let mut stream = asking.world.mutual(&[b"istio"]).await;
    let _ = stream.write_all(b"hello").await;
    let mut heard = [0; 5];
    assert!(matches!(stream.read(&mut heard).await, Ok(0) | Err(_)));
    let event = asking.world.event().await;
    assert_eq!((event.reason, asking.asked()), (Some(Reason::DenyCustom), 0));
    assert!(
        event.message.as_ref().unwrap().contains("connections"),
        "{event:#?}"
    );
}
