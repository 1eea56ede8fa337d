//! Requests with tokens (semantics 4).

use std::time::Duration;

use jwt::{AuthenticationSpec, ClaimHeader, Jwks, KeySource, RuleSpec};
use meshward_http::{HeaderValue, Request, Version};
use model::{MtlsMode, Reason};
use policy::{Action, Invalid, PolicyId, SourceSpec};
use serde_json::json;
use snapshot::Resource;
use telemetry::Decision;
use testkit::issuer::Issuer;

use super::http::{Answer, H1, get, proven, speak, world};
use super::world::{World, anybody, policy};

/// Long enough for what is cut off to be.
const LONG: Duration = Duration::from_millis(300);
const ISSUER: &str = "https://issuer.example.com";
const SOURCE: &str = "https://issuer.example.com/keys";

fn name() -> PolicyId {
    PolicyId {
        namespace: "full".to_owned(),
        name: "ra".to_owned(),
    }
}

fn rule() -> RuleSpec {
    RuleSpec {
        issuer: ISSUER.to_owned(),
        audiences: vec![],
        keys: KeySource::Fetched(SOURCE.to_owned()),
        from_headers: vec![],
        from_params: vec![],
        from_cookies: vec![],
        output_payload_to_header: None,
        output_claim_to_headers: vec![],
        forward_original_token: false,
        space_delimited_claims: vec![],
        required: false,
        allow_hmac: false,
        allow_missing_exp: false,
        line: 0,
    }
}

fn spec(rule: RuleSpec) -> AuthenticationSpec {
    AuthenticationSpec {
        id: name(),
        rules: vec![rule],
        invalid: None,
        origin: policy::Origin::default(),
    }
}

fn keys(issuer: Option<&Issuer>) -> Resource {
    Resource::from(Jwks {
        source: SOURCE.to_owned(),
        keys: issuer.map(Issuer::jwks),
        why: None,
    })
}

fn principal(subject: &str) -> policy::PolicySpec {
    policy("principal", Action::Allow, |rule| {
        rule.from.push(SourceSpec {
            request_principals: vec![subject.to_owned()],
            ..SourceSpec::default()
        });
    })
}

fn bearer(path: &str, token: &str) -> Request {
    let mut request = get(path, &[]);
    let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
    request.headers_mut().insert("authorization", value);
    request
}

async fn guarded(policies: Vec<policy::PolicySpec>, rule: RuleSpec, issuer: Option<&Issuer>) -> World {
    let world = world(MtlsMode::Strict, policies).await;
    world
        .authentications(vec![name()], [spec(rule).into(), keys(issuer)])
        .await;
    world
}

fn challenge(answer: &Answer) -> &str {
    answer
        .headers
        .get("www-authenticate")
        .map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn jw_08_a_good_token_is_who_the_request_is_and_does_not_reach_the_application() {
    let issuer = Issuer::new("a");
    let world = guarded(vec![principal(&format!("{ISSUER}/sub-1"))], rule(), Some(&issuer)).await;
    let token = issuer.token(ISSUER, "sub-1", &json!({}));
    let got = proven(&world, bearer("/", &token)).await;
    assert_eq!((got.status, got.seen("authorization")), (200, String::new()));
    let other = issuer.token(ISSUER, "sub-2", &json!({}));
    assert_eq!(proven(&world, bearer("/", &other)).await.status, 403);
    assert_eq!(proven(&world, get("/", &[])).await.status, 403, "JW-10");
}

#[tokio::test]
async fn jw_06_without_a_token_nothing_is_proven_and_policy_decides() {
    let issuer = Issuer::new("a");
    let world = guarded(vec![anybody()], rule(), Some(&issuer)).await;
    assert_eq!(proven(&world, get("/", &[])).await.status, 200);
}

#[tokio::test]
async fn a_bad_token_is_answered_as_envoy_does_and_told_of() {
    let (issuer, other) = (Issuer::new("a"), Issuer::new("a"));
    let world = guarded(vec![anybody()], rule(), Some(&issuer)).await;
    let forged = other.token(ISSUER, "sub-1", &json!({}));
    let got = proven(&world, bearer("/a?access_token=x", &forged)).await;
    assert_eq!(got.status, 401);
    assert_eq!(
        challenge(&got),
        "Bearer realm=\"http://web/a\", error=\"invalid_token\"",
        "O-09"
    );
    assert_eq!(got.headers["content-type"], "text/plain");
    let event = world.only_event().await;
    assert_eq!(
        (event.decision, event.reason),
        (Decision::Deny, Some(Reason::JwtInvalid))
    );
    assert!(
        event.details.starts_with("jwt_authn_access_denied{"),
        "O-18: {event:?}"
    );
    let http = event.http.as_deref().unwrap();
    assert_eq!((http.code, http.path.as_ref()), (401, "/a"), "no token is logged");
    assert_eq!(world.dialled().await, 0, "the application was not dialled");
}

#[tokio::test]
async fn s4_2_a_token_that_a_rule_demands_and_that_is_not_there_is_401() {
    let issuer = Issuer::new("a");
    let rule = RuleSpec {
        required: true,
        ..rule()
    };
    let world = guarded(vec![anybody()], rule, Some(&issuer)).await;
    let got = proven(&world, get("/a", &[])).await;
    assert_eq!((got.status, got.body.as_str()), (401, "Jwt is missing"));
    assert_eq!(challenge(&got), "Bearer realm=\"http://web/a\"");
    assert_eq!(world.only_event().await.reason, Some(Reason::JwtMissing));
    assert_eq!(world.dialled().await, 0, "the application was not dialled");
    let token = issuer.token(ISSUER, "sub-1", &json!({}));
    assert_eq!(proven(&world, bearer("/a", &token)).await.status, 200);
}

#[tokio::test]
async fn jw_15_a_token_for_somebody_else_is_403() {
    let issuer = Issuer::new("a");
    let rule = RuleSpec {
        audiences: vec!["foo".to_owned()],
        ..rule()
    };
    let world = guarded(vec![anybody()], rule, Some(&issuer)).await;
    let token = issuer.token(ISSUER, "sub-1", &json!({"aud": "bar"}));
    let got = proven(&world, bearer("/", &token)).await;
    assert_eq!(
        (got.status, got.body.as_str()),
        (403, "Audiences in Jwt are not allowed")
    );
    assert!(!challenge(&got).is_empty());
    assert_eq!(world.only_event().await.reason, Some(Reason::JwtAudience));
}

#[tokio::test]
async fn grpc_is_told_in_its_own_form() {
    let issuer = Issuer::new("a");
    let world = guarded(vec![anybody()], rule(), Some(&issuer)).await;
    let mut request = bearer("/", "no.token.atall");
    let grpc = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", grpc);
    let got = proven(&world, request).await;
    assert_eq!((got.status, got.body.as_str()), (200, ""));
    assert_eq!(got.headers["grpc-status"], "16");
}

#[tokio::test]
async fn jw_07_a_forged_claim_is_replaced_and_without_a_token_removed() {
    let issuer = Issuer::new("a");
    let rule = RuleSpec {
        output_claim_to_headers: vec![ClaimHeader {
            header: "x-group".to_owned(),
            claim: "group".to_owned(),
        }],
        ..rule()
    };
    let world = guarded(vec![anybody()], rule, Some(&issuer)).await;
    let token = issuer.token(ISSUER, "sub-1", &json!({"group": "users"}));
    let mut request = bearer("/", &token);
    for name in ["x-group", "x_group"] {
        let forged = HeaderValue::from_static("admins");
        request.headers_mut().insert(name, forged);
    }
    let got = proven(&world, request).await;
    assert_eq!(
        (got.seen("x-group"), got.seen("x_group")),
        ("users".into(), "".into())
    );
    let got = proven(&world, get("/", &[("x-group", "admins")])).await;
    assert_eq!((got.status, got.seen("x-group")), (200, String::new()));
}

#[tokio::test]
async fn policy_sees_the_request_as_the_application_does() {
    let issuer = Issuer::new("a");
    let deny = policy("deny", Action::Deny, |rule| {
        rule.when.push(policy::ConditionSpec {
            key: "request.headers[authorization]".to_owned(),
            values: vec!["*".to_owned()],
            ..policy::ConditionSpec::default()
        });
    });
    let world = guarded(vec![anybody(), deny], rule(), Some(&issuer)).await;
    let token = issuer.token(ISSUER, "sub-1", &json!({}));
    assert_eq!(proven(&world, bearer("/", &token)).await.status, 200);
    let query = format!("/x?a=1&access_token={token}&b=2");
    let got = proven(&world, get(&query, &[])).await;
    assert_eq!((got.status, got.seen("target")), (200, "/x?a=1&b=2".into()));
    let mut events = vec![world.event().await, world.event().await];
    let http = events.pop().unwrap().http.clone().unwrap();
    assert_eq!(http.path.as_ref(), "/x?a=1&b=2", "no token is logged");
}

#[tokio::test]
async fn jw_18_to_20_without_keys_tokens_are_refused_and_who_shows_none_passes() {
    let issuer = Issuer::new("a");
    let world = guarded(vec![anybody()], rule(), None).await;
    let token = issuer.token(ISSUER, "sub-1", &json!({}));
    let got = proven(&world, bearer("/", &token)).await;
    assert_eq!((got.status, got.body.as_str()), (401, "Jwt verification fails"));
    assert_eq!(proven(&world, get("/", &[])).await.status, 200);
}

#[tokio::test]
async fn r34_an_object_that_is_invalid_or_missing_refuses_every_request() {
    let world = world(MtlsMode::Strict, vec![anybody()]).await;
    world.authentications(vec![name()], []).await;
    let got = proven(&world, get("/", &[])).await;
    assert_eq!((got.status, got.body.as_str()), (403, "RBAC: access denied"));
    assert_eq!(challenge(&got), "");
    assert_eq!(world.event().await.reason, Some(Reason::DenyPolicyMissing));
    let invalid = AuthenticationSpec {
        rules: vec![],
        invalid: Some(Invalid {
            reason: Reason::DenyPolicyInvalid,
            why: "because".to_owned(),
        }),
        ..spec(rule())
    };
    world.authentications(vec![name()], [invalid.into()]).await;
    assert_eq!(proven(&world, get("/", &[])).await.status, 403);
    let event = world.event().await;
    assert_eq!(event.reason, Some(Reason::DenyPolicyInvalid));
    assert_eq!(event.policy.as_ref().unwrap().name.as_ref(), "ra");
}

/// Opens a request that stays open, makes the change, and says whether it is still there.
async fn survives(world: &World, request: Request, change: impl AsyncFnOnce(&World)) -> bool {
    let mut sender = speak(world.mutual(H1).await, Version::Http1).await;
    let before = world.dialled().await;
    let asking = tokio::spawn(async move { sender.send(request).await });
    while world.dialled().await == before {
        tokio::task::yield_now().await;
    }
    change(world).await;
    tokio::time::timeout(LONG, asking).await.is_err()
}

#[tokio::test]
async fn p55_a_key_that_is_taken_away_cuts_off_what_it_let_in() {
    let (issuer, next) = (Issuer::new("a"), Issuer::new("b"));
    let world = guarded(vec![principal("*")], rule(), Some(&issuer)).await;
    let token = issuer.token(ISSUER, "sub-1", &json!({}));
    let open = || bearer("/never", &token);
    assert!(
        survives(&world, open(), async |world: &World| {
            world.policies(vec![principal("*"), anybody()]).await;
            world.policies(vec![principal("*")]).await;
        })
        .await,
        "nothing of it has changed"
    );
    let both = json!({"keys": [issuer.jwk(), next.jwk()]}).to_string();
    let more = Resource::from(Jwks {
        source: SOURCE.to_owned(),
        keys: Some(both),
        why: None,
    });
    assert!(
        survives(&world, open(), async |world: &World| world.change([more]).await).await,
        "a key was added"
    );
    assert!(
        !survives(&world, open(), async |world: &World| world
            .change([keys(Some(&next))])
            .await)
        .await,
        "its key is gone"
    );
}

#[tokio::test]
async fn p55_a_request_authentication_that_is_taken_away_takes_the_claims_with_it() {
    let issuer = Issuer::new("a");
    let world = guarded(vec![principal("*")], rule(), Some(&issuer)).await;
    let token = issuer.token(ISSUER, "sub-1", &json!({}));
    let gone = async |world: &World| world.authentications(vec![], []).await;
    assert!(!survives(&world, bearer("/never", &token), gone).await);
}

#[tokio::test]
async fn a_token_in_the_query_is_in_no_event_whatever_comes_of_it() {
    let issuer = Issuer::new("a");
    let world = guarded(vec![principal("nobody/else")], rule(), Some(&issuer)).await;
    let token = issuer.token(ISSUER, "sub-1", &json!({}));
    for (path, status, logged) in [
        (format!("/a//b?x=1&access_token={token}"), 403, "/a/b?x=1"),
        (format!("/a//b?x=1&access_token={token}A"), 401, "/a/b"),
    ] {
        assert_eq!(proven(&world, get(&path, &[])).await.status, status);
        let event = world.event().await;
        let http = event.http.as_deref().unwrap();
        assert_eq!((http.path.as_ref(), &http.path_normalized), (logged, &None));
        assert!(!format!("{event:?}").contains(&token), "{event:?}");
    }
}
