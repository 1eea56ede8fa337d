//! What becomes of a request: edits, refusals, problems. JW-07, JW-08, JW-12, O-09.

use jwt::{
    AuthenticationSpec, Authenticator, ClaimHeader, Edits, Fault, HeaderLocation, Memory, ProblemKind,
    RuleSpec,
};
use model::Reason;
use policy::Invalid;
use serde_json::json;

use crate::world::{
    NOW, RSA, Request, answer, ask, bearing, claims, compile, expired, get, good, id, no_keys, rule, spec,
};

const MODES: [bool; 2] = [false, true];

fn with_outputs() -> RuleSpec {
    let claim = |header: &str, claim: &str| ClaimHeader {
        header: header.to_owned(),
        claim: claim.to_owned(),
    };
    RuleSpec {
        output_payload_to_header: Some("X-Payload".to_owned()),
        output_claim_to_headers: vec![
            claim("x-sub", "sub"),
            claim("X-Nested", "nested.nested-2.key2"),
            claim("x-bad", "bad"),
        ],
        ..rule("i1")
    }
}

fn set(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn edits(authenticator: &Authenticator, request: &Request) -> Edits {
    ask(authenticator, request).unwrap().edits
}

#[test]
fn jw_07_headers_of_claims_are_removed_first_whatever_the_request_is() {
    for strict in MODES {
        let a = compile(&[with_outputs()], strict);
        let sanitised = ["x-payload", "x-sub", "x-nested", "x-bad"];
        let none = edits(&a, &get("/").with("x-sub", "evil"));
        assert_eq!(none.remove, sanitised);
        assert!(none.set.is_empty());
        let preflight = Request {
            method: "OPTIONS",
            ..get("/")
                .with("origin", "a")
                .with("access-control-request-method", "GET")
        };
        assert_eq!(edits(&a, &preflight).remove, sanitised);

        let token = RSA.token(&claims(
            "i1",
            json!({"nested": {"nested-2": {"key2": "valueC"}}, "bad": "a\r\nx-admin: yes"}),
        ));
        let good = edits(&a, &bearing(&token));
        assert_eq!(good.remove[..4], sanitised);
        let payload = token.split('.').nth(1).unwrap();
        let expected = [
            set("x-payload", payload),
            set("x-sub", "sub-1"),
            set("x-nested", "valueC"),
        ];
        assert_eq!(good.set, expected);
    }
}

#[test]
fn jw_08_the_token_is_taken_out_of_header_and_query() {
    for strict in MODES {
        let a = compile(&[rule("i1")], strict);
        assert_eq!(edits(&a, &bearing(&good("i1"))).remove, ["authorization"]);
        let query = edits(&a, &get(&format!("/a?b=1&access_token={}&c", good("i1"))));
        assert_eq!(query.path.as_deref(), Some("/a?b=1&c"));
        assert!(query.remove.is_empty());
        let only = edits(&a, &get(&format!("/?access_token={}", good("i1"))));
        assert_eq!(only.path.as_deref(), Some("/"));
        // Nothing is taken out of a request that carries none.
        let basic = get("/?b=1").with("authorization", "Basic abc");
        assert_eq!(edits(&a, &basic), Edits::default());
    }
}

#[test]
fn jw_12_the_token_goes_on_where_the_rule_says_so() {
    let forwarding = RuleSpec {
        forward_original_token: true,
        ..with_outputs()
    };
    for strict in MODES {
        let a = compile(&[forwarding.clone()], strict);
        let header = edits(&a, &bearing(&good("i1")));
        assert!(!header.remove.contains(&"authorization".to_owned()));
        assert!(header.set.iter().any(|(name, _)| name == "x-payload"));
        assert_eq!(
            edits(&a, &get(&format!("/?access_token={}", good("i1")))).path,
            None
        );
    }
}

/// `presence: REQUIRED`: every such rule has a good token of its own, whatever the other rules have.
#[test]
fn s4_2_a_rule_may_demand_its_token() {
    let missing = (401, "Jwt is missing");
    let demanding = |issuer: &str, header: &str| RuleSpec {
        from_headers: vec![HeaderLocation {
            name: header.to_owned(),
            prefix: String::new(),
        }],
        required: true,
        ..rule(issuer)
    };
    for strict in MODES {
        let one = compile(
            &[RuleSpec {
                required: true,
                ..rule("i1")
            }],
            strict,
        );
        assert_eq!(answer(&one, &get("/")), missing);
        assert_eq!(answer(&one, &bearing(&good("i1"))), (200, ""));
        assert_eq!(answer(&one, &bearing(&good("i2"))).0, 401);
        assert_eq!(answer(&one, &get("/").with("x-other", &good("i1"))), missing);
        // Who has shown none is told of no error (RFC 6750, 3.1).
        let refused = ask(&one, &get("/")).unwrap_err();
        assert_eq!(
            (refused.reason(), refused.issuer.as_deref()),
            (Reason::JwtMissing, Some("i1"))
        );
        let challenge = refused.www_authenticate("http", &get("/"));
        assert_eq!(
            challenge.as_deref(),
            Some("Bearer realm=\"http://server.foo:8080/\"")
        );
        // A CORS preflight is asked for none, as without.
        let preflight = Request {
            method: "OPTIONS",
            ..get("/")
                .with("origin", "a")
                .with("access-control-request-method", "GET")
        };
        assert_eq!(answer(&one, &preflight), (200, ""));

        let both = compile(&[demanding("i1", "x-one"), demanding("i2", "x-two")], strict);
        let two = get("/").with("x-one", &good("i1")).with("x-two", &good("i2"));
        assert_eq!(answer(&both, &two), (200, ""));
        assert_eq!(answer(&both, &get("/").with("x-one", &good("i1"))), missing);
        assert_eq!(answer(&both, &get("/").with("x-two", &good("i2"))), missing);
        let swapped = get("/").with("x-one", &good("i2")).with("x-two", &good("i1"));
        assert_eq!(answer(&both, &swapped).0, 401);

        // A token that another rule takes does not stand in for it.
        let mixed = compile(&[rule("i1"), demanding("i2", "x-two")], strict);
        assert_eq!(answer(&mixed, &bearing(&good("i1"))), missing);
        assert_eq!(answer(&mixed, &get("/").with("x-two", &good("i2"))), (200, ""));
        let bad = get("/")
            .with("x-two", &good("i2"))
            .with("authorization", &format!("Bearer {}", expired("i1")));
        assert_eq!(answer(&mixed, &bad), (401, "Jwt is expired"));
    }
}

#[test]
fn only_the_token_that_the_identity_is_from_sets_headers() {
    let place = |issuer: &str, header: &str, out: &str| RuleSpec {
        from_headers: vec![HeaderLocation {
            name: header.to_owned(),
            prefix: String::new(),
        }],
        output_payload_to_header: Some(out.to_owned()),
        ..rule(issuer)
    };
    let a = compile(
        &[place("i2", "x-two", "x-out-2"), place("i1", "x-one", "x-out-1")],
        true,
    );
    let request = get("/").with("x-one", &good("i1")).with("x-two", &good("i2"));
    let answered = ask(&a, &request).unwrap();
    assert_eq!(answered.claims.unwrap().issuer(), "i1");
    let names: Vec<&str> = answered.edits.set.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-out-1"]);
    // Both are taken out, and both outputs were removed first.
    assert_eq!(answered.edits.remove, ["x-out-1", "x-out-2", "x-one", "x-two"]);
}

#[test]
fn headers_that_frame_or_route_a_message_are_never_set_by_a_claim() {
    for name in [
        "Content-Length",
        "transfer-encoding",
        "host",
        "x-forwarded-client-cert",
        ":path",
        "a b",
        "",
    ] {
        let rule = RuleSpec {
            output_claim_to_headers: vec![ClaimHeader {
                header: name.to_owned(),
                claim: "sub".to_owned(),
            }],
            ..rule("i1")
        };
        let a = compile(&[rule], true);
        let edits = edits(&a, &bearing(&good("i1")));
        assert_eq!((edits.remove.len(), edits.set.len()), (1, 0), "{name}");
        assert_eq!(a.problems()[0].kind, ProblemKind::Header);
    }
}

#[test]
fn o_09_the_realm_has_the_query_in_istio_and_never_in_strict_mode() {
    let request = get(&format!("/a?access_token={}", expired("i1")));
    let value = |strict| {
        let rejection = ask(&compile(&[rule("i1")], strict), &request).unwrap_err();
        rejection.www_authenticate("http", &request).unwrap()
    };
    let strict = "Bearer realm=\"http://server.foo:8080/a\", error=\"invalid_token\"";
    assert_eq!(value(true), strict);
    assert!(value(false).starts_with("Bearer realm=\"http://server.foo:8080/a?access_token=eyJ"));
    assert!(value(false).ends_with("\", error=\"invalid_token\""));
    assert!(value(false).len() < 350, "cut like Envoy's");
}

#[test]
fn nothing_in_a_path_leaves_the_quotes_of_the_realm() {
    let request = get("/\"a\\\r\nb\u{e9}?access_token=x");
    let rejection = ask(&compile(&[rule("i1")], true), &request).unwrap_err();
    let value = rejection.www_authenticate("https", &request).unwrap();
    assert_eq!(
        value,
        "Bearer realm=\"https://server.foo:8080/\\\"a\\\\b\", error=\"invalid_token\""
    );
}

#[test]
fn the_log_is_told_the_text_without_spaces() {
    let rejection = ask(&compile(&[rule("i1")], true), &bearing(&expired("i1"))).unwrap_err();
    assert_eq!(rejection.details(), "jwt_authn_access_denied{Jwt_is_expired}");
    assert_eq!(rejection.issuer.as_deref(), Some("i1"));
    assert_eq!(rejection.fault, Some(Fault::Expired));
}

#[test]
fn an_object_that_is_invalid_or_missing_refuses_every_request() {
    let mut invalid = AuthenticationSpec::clone(&spec("bad", &[rule("i1")]));
    invalid.invalid = Some(Invalid {
        reason: Reason::DenyPolicyInvalid,
        why: "no".to_owned(),
    });
    let cases = [
        (
            vec![spec("ra", &[rule("i1")]), invalid.into()],
            vec![],
            "bad",
            Reason::DenyPolicyInvalid,
        ),
        (
            vec![spec("ra", &[rule("i1")])],
            vec![id("gone")],
            "gone",
            Reason::DenyPolicyMissing,
        ),
        (vec![], vec![id("gone")], "gone", Reason::DenyPolicyMissing),
    ];
    for (specs, missing, name, reason) in cases {
        for strict in MODES {
            let a = Authenticator::compile(&specs, &missing, &no_keys, strict);
            assert!(!a.is_empty());
            let preflight = Request {
                method: "OPTIONS",
                ..get("/")
                    .with("origin", "a")
                    .with("access-control-request-method", "GET")
            };
            for request in [get("/"), bearing(&good("i1")), preflight] {
                let rejection = a.authenticate(&request, NOW, &Memory::default()).unwrap_err();
                assert_eq!(rejection.status, 403);
                assert_eq!(rejection.policy, Some((id(name), reason)));
                assert_eq!(rejection.www_authenticate("http", &request), None);
            }
        }
    }
}

#[test]
fn problems_name_rule_key_and_reason() {
    let rule = crate::world::with_keys(
        "i1",
        &[json!({"kty": "DSA", "kid": "old\n"}), RSA.jwk(json!({"d": "AA"}))],
    );
    let a = compile(&[rule], true);
    let told: Vec<_> = a.problems().iter().map(|p| (p.kind, p.why.as_str())).collect();
    let expected = [
        (
            ProblemKind::KeySkipped,
            "key 0 (`old`) has a `kty` that is not supported",
        ),
        (ProblemKind::KeyExposed, "key 1 has its private half in the set"),
    ];
    assert_eq!(told, expected);
    let a = compile(&[crate::world::with_keys("i1", &[])], true);
    assert_eq!(a.problems()[0].kind, ProblemKind::NoKeys);
    assert_eq!(
        ask(&a, &bearing(&good("i1"))).unwrap_err().text,
        Fault::NoValidKeys.text()
    );
}
