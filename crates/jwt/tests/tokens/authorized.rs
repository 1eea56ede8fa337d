//! What tokens prove, as policy sees it: authenticated and then decided, row by row (semantics 4.6).

use std::net::IpAddr;
use std::sync::Arc;

use jwt::{Authenticator, HeaderLocation, RuleSpec};
use policy::{
    Action, ClaimLookup, Compat, ConditionSpec, Context, Facts, HeaderLookup, HttpFacts, OperationSpec,
    Origin, PolicySet, PolicySpec, SourceSpec, authorize,
};
use serde_json::{Value, json};

use crate::world::{NOW, RSA, Request, ask, claims, compile, expired, get, good, id, rule};

impl HeaderLookup for Request {
    fn any(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let own = self.headers.iter().filter(|(known, _)| known == name);
        own.map(|(_, value)| value).any(|value| visit(value))
    }
}

type Row = policy::RuleSpec;

fn path(path: &str) -> Row {
    let operation = OperationSpec {
        paths: vec![path.to_owned()],
        ..OperationSpec::default()
    };
    Row {
        to: vec![operation],
        ..Row::default()
    }
}

fn principal(at: &str, values: &[&str]) -> Row {
    let source = SourceSpec {
        request_principals: values.iter().map(|&v| v.to_owned()).collect(),
        ..SourceSpec::default()
    };
    Row {
        from: vec![source],
        ..path(at)
    }
}

fn when(at: &str, key: &str, values: &[&str]) -> Row {
    let condition = ConditionSpec {
        key: key.to_owned(),
        values: values.iter().map(|&v| v.to_owned()).collect(),
        ..ConditionSpec::default()
    };
    Row {
        when: vec![condition],
        ..path(at)
    }
}

fn not_principal(at: &str, value: &str) -> Row {
    let source = SourceSpec {
        not_request_principals: vec![value.to_owned()],
        ..SourceSpec::default()
    };
    Row {
        from: vec![source],
        ..path(at)
    }
}

fn allow(rules: Vec<Row>) -> PolicySet {
    let spec = PolicySpec {
        id: id("allow"),
        action: Action::Allow,
        dry_run: false,
        rules,
        invalid: None,
        origin: Origin::default(),
    };
    let context = Context {
        compat: Compat::Istio,
        ..Context::default()
    };
    PolicySet::compile(&[Arc::new(spec)], &[], &context)
}

/// The policy of semantics 4.6.
fn policies() -> PolicySet {
    let claim =
        |path: &str, name: &str, values: &[&str]| when(path, &format!("request.auth.claims{name}"), values);
    allow(vec![
        principal("/token1", &["i1/sub-1"]),
        claim("/token2", "[groups]", &["group-2"]),
        not_principal("/token3", "i1/sub-1"),
        principal("/tokenAny", &["*"]),
        claim("/permission", "[permission]", &["write", "append"]),
        claim("/scope", "[scope]", &["append", "write"]),
        claim("/otherscope", "[scope]", &["admin"]),
        claim("/custom-scope-admin", "[custom_scope]", &["admin"]),
        claim("/custom-scope-user", "[custom_scope]", &["user"]),
        claim("/nested-key1", "[nested][key1]", &["value1"]),
        claim("/nested-key2", "[nested][key1]", &["value2"]),
        claim("/nested-2-key1", "[nested][nested-2][key1]", &["value1"]),
        claim("/nested-non-exist", "[nested][other]", &["value1"]),
        claim("/number", "[n]", &["1"]),
        claim("/bool", "[b]", &["true"]),
        when("/presenter", "request.auth.presenter", &["bar"]),
        when("/audiences", "request.auth.audiences", &["foo"]),
    ])
}

/// The status that a caller gets.
fn status(authenticator: &Authenticator, set: &PolicySet, request: &Request) -> u16 {
    let authenticated = match ask(authenticator, request) {
        Ok(authenticated) => authenticated,
        Err(rejection) => return rejection.status,
    };
    let address = IpAddr::from([192, 0, 2, 1]);
    let path = authenticated.edits.path.as_deref().unwrap_or(&request.path);
    let facts = Facts {
        peer: None,
        source_ip: address,
        remote_ip: address,
        destination_ip: address,
        destination_port: 8080,
        sni: None,
        http: Some(HttpFacts {
            method: request.method,
            authority: "server.foo:8080",
            path,
            headers: request,
            claims: authenticated.claims.as_deref().map(|c| c as &dyn ClaimLookup),
        }),
    };
    if authorize(&facts, set).is_ok() { 200 } else { 403 }
}

fn delimited() -> Authenticator {
    let rule = RuleSpec {
        space_delimited_claims: vec!["custom_scope".to_owned()],
        ..rule("i1")
    };
    compile(&[rule], true)
}

fn rows(row: &str, token: Option<Value>, expect: &[(&str, u16)]) {
    let (authenticator, set) = (delimited(), policies());
    for (path, wanted) in expect {
        let request = match &token {
            Some(more) => {
                let token = RSA.token(&claims("i1", more.clone()));
                get(path).with("authorization", &format!("Bearer {token}"))
            }
            None => get(path),
        };
        assert_eq!(status(&authenticator, &set, &request), *wanted, "{row} {path}");
    }
}

#[test]
fn jw_47_no_token_meets_no_demand_for_one() {
    let closed = [
        "/token1",
        "/token2",
        "/tokenAny",
        "/custom-scope-admin",
        "/custom-scope-user",
    ];
    rows("JW-47", None, &closed.map(|path| (path, 403)));
}

#[test]
fn jw_48_jw_49_jw_57_principals_and_lists_of_groups() {
    let first = json!({"groups": ["group-1"]});
    rows(
        "JW-48",
        Some(first),
        &[
            ("/token1", 200),
            ("/token2", 403),
            ("/token3", 403),
            ("/tokenAny", 200),
            ("/permission", 403),
            ("/custom-scope-admin", 403),
            ("/custom-scope-user", 403),
        ],
    );
    let second = json!({"sub": "sub-2", "groups": ["group-1", "group-2"]});
    rows(
        "JW-49",
        Some(second),
        &[
            ("/token1", 403),
            ("/token2", 200),
            ("/token3", 200),
            ("/tokenAny", 200),
            ("/permission", 403),
        ],
    );
    rows("JW-57", None, &[("/token3", 200)]);
}

#[test]
fn jw_50_jw_51_jw_52_claims_with_spaces_are_lists() {
    rows(
        "JW-50",
        Some(json!({"permission": "read write"})),
        &[("/permission", 200)],
    );
    rows(
        "JW-51",
        Some(json!({"scope": "read write"})),
        &[("/scope", 200), ("/otherscope", 403)],
    );
    rows(
        "JW-52",
        Some(json!({"custom_scope": "admin user"})),
        &[("/custom-scope-admin", 200), ("/custom-scope-user", 200)],
    );
}

#[test]
fn jw_53_jw_54_claims_within_claims() {
    let first = json!({"nested": {"key1": "value1", "nested-2": {"key1": "value1"}}});
    rows(
        "JW-53",
        Some(first),
        &[
            ("/nested-key1", 200),
            ("/nested-key2", 403),
            ("/nested-2-key1", 200),
            ("/nested-non-exist", 403),
        ],
    );
    let second = json!({"nested": {"key1": "value2", "nested-2": {"key1": "value3"}}});
    rows(
        "JW-54",
        Some(second),
        &[
            ("/nested-key1", 403),
            ("/nested-key2", 200),
            ("/nested-2-key1", 403),
            ("/nested-non-exist", 403),
        ],
    );
}

#[test]
fn jw_55_jw_56_audiences_presenter_and_what_is_no_text() {
    rows("JW-55", Some(json!({"aud": "foo"})), &[("/audiences", 200)]);
    rows(
        "JW-55",
        Some(json!({"aud": ["other", "foo"], "azp": "bar"})),
        &[("/audiences", 200), ("/presenter", 200)],
    );
    // As upstream: under its profile a number or a boolean is no text (R25).
    rows(
        "JW-56",
        Some(json!({"n": 1, "b": true})),
        &[("/number", 403), ("/bool", 403)],
    );
}

#[test]
fn jw_09_jw_10_jw_19_jw_29_a_bad_token_is_401_whatever_policy_says() {
    let (authenticator, set) = (compile(&[rule("i1")], true), policies());
    let with = |token: &str| get("/token1").with("authorization", &format!("Bearer {token}"));
    assert_eq!(status(&authenticator, &set, &with(&expired("i1"))), 401, "JW-09");
    assert_eq!(status(&authenticator, &set, &get("/token1")), 403, "JW-10");
    assert_eq!(status(&authenticator, &set, &with(&good("i1"))), 200);
    // A rule without keys.
    let keyless = compile(
        &[RuleSpec {
            keys: jwt::KeySource::Fetched("https://i1/keys".to_owned()),
            ..rule("i1")
        }],
        true,
    );
    assert_eq!(status(&keyless, &set, &with(&expired("i1"))), 401, "JW-19");
    // A rule of the root namespace, and no policy.
    let open = allow(vec![Row::default()]);
    assert_eq!(status(&authenticator, &open, &with(&expired("i1"))), 401, "JW-29");
    assert_eq!(status(&authenticator, &open, &get("/")), 200, "JW-29");
}

#[test]
fn jw_14_keys_that_did_not_come_in_time_are_no_keys() {
    let slow = RuleSpec {
        keys: jwt::KeySource::Fetched("https://i1/slow".to_owned()),
        ..rule("i1")
    };
    let source = |name: &str| {
        Some(Arc::new(jwt::Jwks {
            source: name.to_owned(),
            keys: None,
            why: Some("no answer in 5s".to_owned()),
        }))
    };
    let authenticator = Authenticator::compile(&[crate::world::spec("ra", &[slow])], &[], &source, true);
    let request = get("/").with("authorization", &format!("Bearer {}", good("i1")));
    assert_eq!(ask(&authenticator, &request).unwrap_err().status, 401, "JW-14");
}

#[test]
fn jw_22_jw_23_jw_26_jw_27_other_places_and_the_policy_behind_them() {
    let set = allow(vec![principal("/", &["i1/sub-1"])]);
    let params = RuleSpec {
        from_params: vec!["token".to_owned(), "secondary_token".to_owned()],
        ..rule("i1")
    };
    let authenticator = compile(&[params], true);
    let with = |name: &str| get(&format!("/?{name}={}", good("i1")));
    assert_eq!(
        status(&authenticator, &set, &with("secondary_token")),
        200,
        "JW-22"
    );
    assert_eq!(status(&authenticator, &set, &with("token_value")), 403, "JW-23");
    let place = |name: &str, prefix: &str| HeaderLocation {
        name: name.to_owned(),
        prefix: prefix.to_owned(),
    };
    let headers = RuleSpec {
        from_headers: vec![place("x-jwt-token", "Value "), place("auth-token", "Token ")],
        ..rule("i1")
    };
    let authenticator = compile(&[headers], true);
    let with = |name: &str, prefix: &str| get("/").with(name, &format!("{prefix}{}", good("i1")));
    assert_eq!(
        status(&authenticator, &set, &with("x-jwt-token", "Value ")),
        200,
        "JW-26"
    );
    assert_eq!(
        status(&authenticator, &set, &with("auth-token", "Token ")),
        200,
        "JW-27"
    );
    assert_eq!(
        status(&authenticator, &set, &with("auth-header-param", "Bearer ")),
        403,
        "JW-28"
    );
}

/// The rows of an ingress, decided by the same two functions.
#[test]
fn jw_30_jw_31_jw_32_jw_33_jw_34_jw_35_jw_36_one_path_open_and_the_rest_for_one_subject() {
    let authenticator = compile(&[rule("i1")], true);
    let set = allow(vec![path("/healthz"), principal("/*", &["i1/sub-1"])]);
    let with = |at: &str, subject: &str| {
        let token = RSA.token(&claims("i1", json!({"sub": subject, "exp": NOW + 60})));
        get(at).with("authorization", &format!("Bearer {token}"))
    };
    let late = get("/").with("authorization", &format!("Bearer {}", expired("i1")));
    for (row, request, wanted) in [
        ("JW-30", get("/healthz"), 200),
        ("JW-31", get("/"), 403),
        ("JW-32", with("/", "sub-1"), 200),
        ("JW-33", with("/", "sub-2"), 403),
        ("JW-34", late, 401),
    ] {
        assert_eq!(status(&authenticator, &set, &request), wanted, "{row}");
    }
    let any = allow(vec![principal("/", &["*"])]);
    for (request, wanted) in [
        (with("/", "sub-1"), 200),
        (with("/", "sub-2"), 200),
        (get("/"), 403),
    ] {
        assert_eq!(status(&authenticator, &any, &request), wanted, "JW-35");
    }
    let other = OperationSpec {
        hosts: vec!["other.example".to_owned()],
        ..OperationSpec::default()
    };
    let other = allow(vec![Row {
        to: vec![other],
        ..Row::default()
    }]);
    assert_eq!(status(&authenticator, &other, &with("/", "sub-1")), 403, "JW-36");
}
