//! Refusals, explained afterwards.

use std::sync::Arc;

use admin::verbs::{Refused, Why};
use model::{MtlsMode, Reason};
use policy::{Action, ConditionSpec, Origin, PolicySpec, SourceSpec};
use telemetry::{Event, EventKind, HttpEvent, Peer, Reporter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::decide::{Asked, Subject};
use super::super::denials::{Decided, Denials};
use super::http::{get, paths, plain, proven, world};
use super::world::{World, anybody, policy};

fn asked(id: &str) -> Why {
    Why {
        id: Some(id.to_owned()),
        ..Why::default()
    }
}

fn only(world: &World, wanted: &Why) -> Refused {
    let mut found = world.shared.denials.explain(wanted, "node-0");
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn written(mut policy: PolicySpec) -> PolicySpec {
    policy.origin = Origin {
        file: "p.yaml".to_owned(),
        line: 1,
    };
    policy.rules[0].line = 7;
    policy
}

#[tokio::test]
async fn a_refusal_is_explained_by_the_policies_that_decided_it_and_not_by_those_of_today() {
    let other = policy("other", Action::Allow, |rule| {
        rule.from.push(SourceSpec {
            service_accounts: vec!["somebody".to_owned()],
            ..SourceSpec::default()
        });
    });
    let world = world(MtlsMode::Strict, vec![written(other)]).await;
    let got = proven(&world, get("/secret", &[])).await;
    let id = got.headers["x-meshward-decision"].to_str().unwrap();
    world.policies(vec![anybody()]).await;

    let refused = only(&world, &asked(id));
    assert_eq!((refused.id.as_str(), refused.node.as_str()), (id, "node-0"));
    assert_eq!((refused.code, refused.reason.as_str()), (403, "DENY_NO_ALLOW"));
    assert_eq!(
        refused.source["principal"],
        "spiffe://cluster.local/ns/full/sa/client"
    );
    assert_eq!(refused.destination["pod"], "web-1");
    let near = refused.near_miss.unwrap();
    assert_eq!(
        (near.name.as_str(), near.file.as_str(), near.line),
        ("other", "p.yaml", 7)
    );
    assert_eq!(
        near.failed,
        ["serviceAccounts: `full/client` of trust domain `cluster.local` is not among `full/somebody`"]
    );
    assert_eq!(refused.steps[0].at.as_deref(), Some("p.yaml:7"));
    let request = refused.request.unwrap();
    assert_eq!(
        (request.method.as_str(), request.received.as_str()),
        ("GET", "/secret")
    );

    let by_request = only(&world, &asked(&request.request_id));
    assert_eq!(by_request.id, id);
    let newest = |namespace: &str, workload: &str| Why {
        id: None,
        namespace: Some(namespace.to_owned()),
        workload: Some(workload.to_owned()),
    };
    assert_eq!(only(&world, &newest("full", "web")).id, id);
    assert!(
        world
            .shared
            .denials
            .explain(&newest("other", "web"), "n")
            .is_empty()
    );
    assert!(
        world
            .shared
            .denials
            .explain(&asked("nobody-was-told-this"), "n")
            .is_empty()
    );
    assert!(world.shared.denials.explain(&asked(""), "n").is_empty());
}

#[tokio::test]
async fn what_is_secret_in_a_request_never_leaves_the_proxy() {
    let condition = |header: &str| ConditionSpec {
        key: format!("request.headers[{header}]"),
        values: vec!["*".to_owned()],
        ..ConditionSpec::default()
    };
    let deny = policy("deny", Action::Deny, |rule| {
        rule.when = ["Authorization", "Cookie", "x-mine"].map(condition).to_vec();
    });
    let world = world(MtlsMode::Strict, vec![anybody(), deny]).await;
    let fields = [
        ("authorization", "Bearer SECRET-1"),
        ("cookie", "SECRET-2"),
        ("x-mine", "seen"),
        ("x-other", "SECRET-3"),
    ];
    let got = proven(&world, get("/", &fields)).await;
    let refused = only(
        &world,
        &asked(got.headers["x-meshward-decision"].to_str().unwrap()),
    );
    let text = serde_json::to_string(&refused).unwrap();
    assert!(!text.contains("SECRET"), "{text}");
    let shown = refused.request.unwrap().headers;
    let wanted = [
        ("authorization", "(not shown)"),
        ("cookie", "(not shown)"),
        ("x-mine", "seen"),
    ];
    assert_eq!(
        shown,
        wanted.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

#[tokio::test]
async fn connections_that_are_refused_have_an_id_in_the_log_and_are_explained_too() {
    let world = World::serving(
        MtlsMode::Permissive,
        model::Protocol::Tcp,
        vec![paths("a", Action::Deny, "/x")],
        |_| async {},
    )
    .await;
    let mut client = world.plain().await;
    client.write_all(b"hello").await.unwrap();
    client.read_u8().await.unwrap_err();
    let event = world.only_event().await;
    assert_eq!(event.reason, Some(Reason::DenyExplicit));
    let refused = only(&world, &asked(event.decision_id.as_deref().unwrap()));
    assert_eq!((refused.code, refused.request), (0, None));
    assert!(
        refused.steps[0].said.contains("the connection is not HTTP"),
        "{:?}",
        refused.steps
    );
    assert_eq!(refused.policy.unwrap().name, "a");
}

#[tokio::test]
async fn what_no_policy_was_asked_about_says_so() {
    let strict = World::serving(
        MtlsMode::Strict,
        model::Protocol::Tcp,
        vec![anybody()],
        |_| async {},
    )
    .await;
    let mut client = strict.plain().await;
    client.write_all(b"hello").await.unwrap();
    client.read_u8().await.unwrap_err();
    let event = strict.only_event().await;
    let refused = only(&strict, &asked(event.decision_id.as_deref().unwrap()));
    assert_eq!(refused.reason, "PLAINTEXT_REFUSED");
    assert_eq!(refused.steps.len(), 1);

    let ambiguous = world(MtlsMode::Strict, vec![anybody()]).await;
    assert_eq!(proven(&ambiguous, get("/a%2fb", &[])).await.status, 400);
    let event = ambiguous.only_event().await;
    let refused = only(&ambiguous, &asked(event.decision_id.as_deref().unwrap()));
    assert_eq!((refused.code, refused.reason.as_str()), (400, "PATH_REFUSED"));
    assert!(
        refused.steps[0].said.contains("encoded slash"),
        "{:?}",
        refused.steps
    );
}

#[tokio::test]
async fn what_is_carried_leaves_nothing() {
    let world = world(MtlsMode::Permissive, vec![anybody()]).await;
    assert_eq!(plain(&world, get("/", &[])).await.status, 200);
    assert!(world.only_event().await.decision_id.is_none());
    assert!(world.shared.denials.explain(&Why::default(), "n").is_empty());
}

fn refusal(number: usize, path: usize) -> Event {
    let peer = Arc::new(Peer::default());
    let time = std::time::SystemTime::UNIX_EPOCH;
    let mut event = Event::new(
        EventKind::Request,
        Reporter::Destination,
        time,
        Arc::clone(&peer),
        peer,
    );
    event.decision_id = Some(number.to_string().into());
    event.http = Some(Box::new(HttpEvent {
        path: "x".repeat(path).into(),
        ..HttpEvent::default()
    }));
    event
}

#[tokio::test]
async fn refusals_are_kept_by_number_by_size_and_by_the_policies_that_they_hold() {
    let kept =
        |denials: &Denials, number: usize| !denials.explain(&asked(&number.to_string()), "n").is_empty();
    let many = Denials::default();
    for number in 0..1_500 {
        many.keep(refusal(number, 0), None);
    }
    assert!(!kept(&many, 475) && kept(&many, 476) && kept(&many, 1_499));

    let large = Denials::default();
    for number in 0..100 {
        large.keep(refusal(number, 64 * 1024), None);
    }
    assert!(!kept(&large, 50) && kept(&large, 99));

    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    let subject = Subject::new(&world.caller(), &world.callee());
    let old = Denials::default();
    let mut first = None;
    for number in 0..20 {
        world
            .policies(vec![paths(&format!("p{number}"), Action::Deny, "/")])
            .await;
        let index = world.shared.store.current().unwrap();
        let asked: Option<&Arc<Asked>> = None;
        let decided: Decided = subject.decided(&index, asked).unwrap();
        first.get_or_insert_with(|| Arc::downgrade(&decided.policies));
        // Several share the policies of one time.
        old.keep(refusal(number, 0), Some(decided.clone()));
        old.keep(refusal(100 + number, 0), Some(decided));
    }
    assert!(!kept(&old, 3) && !kept(&old, 103) && kept(&old, 4) && kept(&old, 19));
    assert!(first.unwrap().upgrade().is_none(), "policies of old are let go");
}

#[test]
fn what_the_callers_own_proxy_refused_is_found_in_its_log() {
    let event = |id: &str, reason: Reason| {
        let mut event = refusal(0, 1);
        event.decision = telemetry::Decision::Deny;
        event.reason = Some(reason);
        event.http.as_deref_mut().unwrap().request_id = id.into();
        Arc::new(event)
    };
    let log = [
        event("a", Reason::EgressUnknown),
        event("b", Reason::HostMismatch),
    ];
    let found = Denials::of_log(log.iter(), &asked("b"), "node-0");
    assert_eq!((found.len(), found[0].reason.as_str()), (1, "HOST_MISMATCH"));
    assert!(
        found[0].steps[0].said.contains("different services"),
        "{:?}",
        found[0].steps
    );
    assert!(Denials::of_log(log.iter(), &Why::default(), "n").is_empty());
}
