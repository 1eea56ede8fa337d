//! What makes a token good (semantics 4.3): JW-01 to JW-03, JW-15 to JW-20, JW-39 to JW-45.

use std::sync::Arc;

use jwt::{Authenticator, Fault, Jwks, KeySource, MAX_TOKEN, ProblemKind, RuleSpec};
use serde_json::json;

use crate::world::{
    FOREIGN, NOW, RSA, answer, ask, base64url, bearing, claims, compile, expired, get, good, no_keys, rule,
    spec, subject,
};

const MODES: [bool; 2] = [false, true];

fn refused(fault: Fault) -> (u16, &'static str) {
    (fault.status(), fault.text())
}

#[test]
fn jw_01_jw_03_jw_06_a_good_token_passes_an_expired_one_does_not_and_none_passes_without_identity() {
    for strict in MODES {
        let a = compile(&[rule("i1")], strict);
        assert_eq!(subject(&a, &bearing(&good("i1"))), "sub-1");
        assert_eq!(answer(&a, &bearing(&expired("i1"))), refused(Fault::Expired));
        assert_eq!(subject(&a, &get("/")), "-");
    }
}

#[test]
fn jw_11_where_no_rule_selects_the_workload_everything_passes() {
    let a = Authenticator::compile(&[], &[], &no_keys, true);
    assert!(a.is_empty() && Authenticator::default().is_empty());
    assert_eq!(subject(&a, &bearing("garbage")), "-");
    // An object without rules selects nothing to verify either.
    let a = Authenticator::compile(&[spec("ra", &[])], &[], &no_keys, true);
    assert!(a.is_empty());
}

#[test]
fn jw_02_jw_17_rules_of_all_objects_are_merged_and_each_takes_its_issuers_tokens() {
    for strict in MODES {
        let specs = [spec("ra", &[rule("i2")]), spec("rb", &[rule("i1")])];
        let a = Authenticator::compile(&specs, &[], &no_keys, strict);
        for issuer in ["i1", "i2"] {
            assert_eq!(answer(&a, &bearing(&good(issuer))), (200, ""));
        }
        assert_eq!(answer(&a, &bearing(&good("i3"))), refused(Fault::Issuer));
    }
}

#[test]
fn jw_15_jw_16_jw_45_the_audience_is_among_those_of_the_rule_and_a_fault_of_it_is_403() {
    let with = RuleSpec {
        audiences: vec!["foo".to_owned(), "https://qux/".to_owned()],
        ..rule("i1")
    };
    for strict in MODES {
        let a = compile(&[with.clone()], strict);
        let row =
            |aud: serde_json::Value| answer(&a, &bearing(&RSA.token(&claims("i1", json!({"aud": aud})))));
        assert_eq!(answer(&a, &bearing(&good("i1"))), refused(Fault::Audience));
        assert_eq!(
            refused(Fault::Audience),
            (403, "Audiences in Jwt are not allowed")
        );
        for aud in [
            json!("foo"),
            json!(["bar", "foo"]),
            json!("http://foo/"),
            json!("qux"),
            json!("https://qux"),
        ] {
            assert_eq!(row(aud.clone()), (200, ""), "{aud}");
        }
        for aud in [json!("baz"), json!([]), json!("Foo"), json!(""), json!("foo/bar")] {
            assert_eq!(row(aud.clone()).0, 403, "{aud}");
        }
    }
}

#[test]
fn jw_18_to_20_o_18_without_keys_every_token_fails_and_a_missing_one_passes() {
    let remote = RuleSpec {
        keys: KeySource::Fetched("https://i1/keys".to_owned()),
        ..rule("i1")
    };
    let failed = |_: &str| {
        Some(Arc::new(Jwks {
            source: "https://i1/keys".to_owned(),
            keys: None,
            why: Some("connection refused".to_owned()),
        }))
    };
    for strict in MODES {
        for (jwks, why) in [
            (&no_keys as &dyn Fn(&str) -> _, "its keys have not arrived"),
            (&failed, "connection refused"),
        ] {
            let a = Authenticator::compile(&[spec("ra", &[remote.clone()])], &[], jwks, strict);
            assert_eq!(
                answer(&a, &bearing(&good("i1"))),
                refused(Fault::Verification),
                "JW-18"
            );
            assert_eq!(
                answer(&a, &bearing(&expired("i1"))),
                refused(Fault::Expired),
                "JW-19"
            );
            assert_eq!(answer(&a, &bearing("garbage")), refused(Fault::Format));
            assert_eq!(answer(&a, &get("/")), (200, ""), "JW-20");
            let [problem] = a.problems() else {
                panic!("{:?}", a.problems());
            };
            assert_eq!((problem.kind, problem.why.as_str()), (ProblemKind::NoKeys, why));
            assert_eq!((problem.issuer.as_str(), problem.line), ("i1", 7));
            assert_eq!(problem.source.as_deref(), Some("https://i1/keys"));
        }
    }
}

#[test]
fn jw_13_fetched_keys_verify_and_a_failed_refresh_is_told_while_they_do() {
    let remote = RuleSpec {
        keys: KeySource::Fetched("uri".to_owned()),
        ..rule("i1")
    };
    let fetched = |source: &str| {
        Some(Arc::new(Jwks {
            source: source.to_owned(),
            keys: Some(crate::world::jwks(&[RSA.jwk.clone()])),
            why: Some("timed out".to_owned()),
        }))
    };
    let a = Authenticator::compile(&[spec("ra", &[remote])], &[], &fetched, true);
    assert_eq!(answer(&a, &bearing(&good("i1"))), (200, ""));
    assert_eq!(a.problems()[0].kind, ProblemKind::Stale);
    // What was fetched is no key set.
    let html = |_: &str| {
        Some(Arc::new(Jwks {
            source: "uri".to_owned(),
            keys: Some("<html>".to_owned()),
            why: None,
        }))
    };
    let remote = RuleSpec {
        keys: KeySource::Fetched("uri".to_owned()),
        ..rule("i1")
    };
    let a = Authenticator::compile(&[spec("ra", &[remote])], &[], &html, true);
    assert_eq!(answer(&a, &bearing(&good("i1"))), refused(Fault::NoValidKeys));
    assert_eq!(a.problems()[0].kind, ProblemKind::NoKeys);
}

#[test]
fn jw_39_alg_none_is_refused_in_every_spelling_and_with_any_signature() {
    for strict in MODES {
        let a = compile(&[rule("i1")], strict);
        let payload = base64url(claims("i1", json!({})).to_string());
        for alg in ["none", "None", "NONE", "nOnE", "RS257", ""] {
            let header = base64url(json!({"alg": alg}).to_string());
            assert_eq!(
                answer(&a, &bearing(&format!("{header}.{payload}."))),
                refused(Fault::Format)
            );
            let signed = answer(&a, &bearing(&format!("{header}.{payload}.c2ln")));
            assert_eq!(signed, refused(Fault::Algorithm), "{alg}");
        }
    }
}

#[test]
fn jw_40_a_key_is_found_by_its_kid_and_without_one_every_key_is_tried() {
    let keys = [FOREIGN.jwk(json!({"kid": "a"})), RSA.jwk(json!({"kid": "b"}))];
    for strict in MODES {
        let a = compile(&[crate::world::with_keys("i1", &keys)], strict);
        let token =
            |header: serde_json::Value| RSA.raw(&header.to_string(), &claims("i1", json!({})).to_string());
        let row = |header| answer(&a, &bearing(&token(header)));
        assert_eq!(row(json!({"alg": "RS256", "kid": "b"})), (200, ""));
        assert_eq!(row(json!({"alg": "RS256"})), (200, ""));
        assert_eq!(row(json!({"alg": "RS256", "kid": ""})), (200, ""));
        assert_eq!(
            row(json!({"alg": "RS256", "kid": "a"})),
            refused(Fault::Verification)
        );
        assert_eq!(
            row(json!({"alg": "RS256", "kid": "c"})),
            refused(Fault::NoMatchingKey)
        );
        assert_eq!(row(json!({"alg": "RS256", "kid": 1})), refused(Fault::HeaderKid));
    }
}

#[test]
fn jw_41_clocks_may_disagree_by_sixty_seconds_and_not_more() {
    for strict in MODES {
        let a = compile(&[rule("i1")], strict);
        let row = |more| answer(&a, &bearing(&RSA.token(&claims("i1", more))));
        assert_eq!(row(json!({"exp": NOW - 59})), (200, ""));
        assert_eq!(row(json!({"exp": NOW - 60})), (200, ""));
        assert_eq!(row(json!({"exp": NOW - 61})), refused(Fault::Expired));
        assert_eq!(row(json!({"nbf": NOW + 60})), (200, ""));
        assert_eq!(row(json!({"nbf": NOW + 61})), refused(Fault::NotYetValid));
        assert_eq!(
            row(json!({"nbf": NOW + 61, "exp": 1})),
            refused(Fault::NotYetValid)
        );
        assert_eq!(row(json!({"exp": 0})), refused(Fault::Expired));
        assert_eq!(row(json!({"exp": NOW as f64 - 60.5})), refused(Fault::Expired));
        assert_eq!(row(json!({"exp": u64::MAX})), (200, ""));
        assert_eq!(
            row(json!({"iat": NOW + 99_999, "jti": "x"})),
            (200, ""),
            "not looked at"
        );
    }
}

#[test]
fn jw_42_a_token_without_end_is_refused_in_strict_mode_unless_the_rule_says_otherwise() {
    let endless = RSA.token(&json!({"iss": "i1", "sub": "sub-1"}));
    let opted = RuleSpec {
        allow_missing_exp: true,
        ..rule("i1")
    };
    let row = |rule: &RuleSpec, strict| answer(&compile(&[rule.clone()], strict), &bearing(&endless));
    assert_eq!(row(&rule("i1"), false), (200, ""));
    assert_eq!(row(&rule("i1"), true), refused(Fault::PayloadExpMissing));
    assert_eq!(row(&opted, true), (200, ""));
}

#[test]
fn jw_44_issuers_are_compared_byte_by_byte() {
    for strict in MODES {
        let a = compile(&[rule("https://i1")], strict);
        assert_eq!(answer(&a, &bearing(&good("https://i1"))), (200, ""));
        for issuer in ["https://i1/", "https://I1", "http://i1", " https://i1", ""] {
            assert_eq!(
                answer(&a, &bearing(&good(issuer))),
                refused(Fault::Issuer),
                "{issuer}"
            );
        }
        let nobody = RSA.token(&json!({"sub": "x", "exp": NOW + 9}));
        assert_eq!(answer(&a, &bearing(&nobody)), refused(Fault::Issuer));
    }
}

#[test]
fn an_empty_issuer_takes_any_token_in_istio_and_none_in_strict_mode() {
    let a = compile(&[rule("")], false);
    assert_eq!(answer(&a, &bearing(&good("anyone"))), (200, ""));
    let a = compile(&[rule("")], true);
    assert_eq!(answer(&a, &bearing(&good("anyone"))), refused(Fault::Issuer));
    assert_eq!(answer(&a, &bearing(&good(""))), refused(Fault::Issuer));
    assert_eq!(a.problems()[0].kind, ProblemKind::Issuer);
}

#[test]
fn two_rules_of_one_issuer_take_what_either_takes() {
    let with = |audience: &str| RuleSpec {
        audiences: vec![audience.to_owned()],
        ..rule("i1")
    };
    for strict in MODES {
        let a = compile(&[with("foo"), with("bar")], strict);
        for (aud, status) in [("foo", 200), ("bar", 200), ("baz", 403)] {
            let token = RSA.token(&claims("i1", json!({"aud": aud})));
            assert_eq!(answer(&a, &bearing(&token)).0, status, "{aud}");
        }
    }
}

#[test]
fn of_two_tokens_one_rule_must_take_both_and_its_claims_are_told() {
    let with = |audience: &str, spaced: &str| RuleSpec {
        audiences: vec![audience.to_owned()],
        space_delimited_claims: vec![spaced.to_owned()],
        ..rule("i1")
    };
    let token = |aud: serde_json::Value| RSA.token(&claims("i1", json!({"aud": aud, "b": "x y"})));
    let two = |first: &str, second: &str| {
        get(&format!("/?access_token={second}")).with("authorization", &format!("Bearer {first}"))
    };
    let (foo, bar, both) = (
        token(json!("foo")),
        token(json!("bar")),
        token(json!(["foo", "bar"])),
    );
    for strict in MODES {
        let a = compile(&[with("foo", "a"), with("bar", "b")], strict);
        assert_eq!(answer(&a, &two(&foo, &both)), (200, ""));
        assert_eq!(answer(&a, &two(&foo, &bar)), refused(Fault::Issuer));
        let by_second = ask(&a, &two(&both, &bar)).unwrap().claims.unwrap();
        let alone = ask(&compile(&[with("bar", "b")], strict), &bearing(&both)).unwrap();
        assert_eq!(Some(by_second), alone.claims);
    }
}

#[test]
fn each_fault_of_form_has_the_text_that_envoy_answers_with() {
    let header = || base64url(r#"{"alg":"RS256"}"#);
    let payload = |json: &str| format!("{}.{}.c2ln", header(), base64url(json));
    let rows = [
        (String::new(), Fault::Format),
        ("abc".to_owned(), Fault::Format),
        ("a.b".to_owned(), Fault::Format),
        ("a.b.c.d".to_owned(), Fault::Format),
        ("a..b.c".to_owned(), Fault::Format),
        (format!("{}..c2ln", header()), Fault::Format),
        (good("i1") + ".", Fault::Format),
        (".".to_owned() + &good("i1"), Fault::Format),
        ("a".repeat(MAX_TOKEN + 1), Fault::Format),
        ("!.e30.c2ln".to_owned(), Fault::HeaderBase64),
        ("e30=.e30.c2ln".to_owned(), Fault::HeaderBase64),
        // Spare bits that are not zero.
        ("e31.e30.c2ln".to_owned(), Fault::HeaderBase64),
        (format!("{}.e30.c2ln", base64url("[]")), Fault::HeaderJson),
        (
            format!("{}.e30.c2ln", base64url(r#"{"alg":"RS256","alg":"RS256"}"#)),
            Fault::HeaderJson,
        ),
        (format!("{}.e30.c2ln", base64url("{}")), Fault::HeaderAlg),
        (
            format!("{}.e30.c2ln", base64url(r#"{"alg":1}"#)),
            Fault::HeaderAlg,
        ),
        (
            format!("{}.e30.c2ln", base64url(r#"{"alg":"RS256","kid":null}"#)),
            Fault::HeaderKid,
        ),
        (
            format!("{}.e30.c2ln", base64url(r#"{"alg":"RS256","crit":["exp"]}"#)),
            Fault::HeaderCrit,
        ),
        (format!("{}.!.c2ln", header()), Fault::PayloadBase64),
        (payload("x"), Fault::PayloadJson),
        (payload(r#"{"sub":"a","sub":"b"}"#), Fault::PayloadJson),
        (payload(r#"{"iss":1}"#), Fault::PayloadIss),
        (payload(r#"{"sub":null}"#), Fault::PayloadSub),
        (payload(r#"{"iat":"1"}"#), Fault::PayloadIat),
        (payload(r#"{"iat":-1}"#), Fault::PayloadIatRange),
        (payload(r#"{"nbf":[]}"#), Fault::PayloadNbf),
        (payload(r#"{"nbf":1e30}"#), Fault::PayloadNbfRange),
        (payload(r#"{"exp":"soon"}"#), Fault::PayloadExp),
        (payload(r#"{"exp":-0.5}"#), Fault::PayloadExpRange),
        (payload(r#"{"jti":7}"#), Fault::PayloadJti),
        (payload(r#"{"aud":["a",1]}"#), Fault::PayloadAud),
        (payload(r#"{"aud":7}"#), Fault::PayloadAud),
        (format!("{}.e30.!", header()), Fault::SignatureBase64),
        // The payload is looked at before the signature.
        (format!("{}.{}.!", header(), base64url("x")), Fault::PayloadJson),
        (payload("{}"), Fault::Issuer),
    ];
    for strict in MODES {
        let a = compile(&[rule("i1")], strict);
        for (token, fault) in &rows {
            assert_eq!(
                answer(&a, &get("/?access_token=").with("x", "y")),
                refused(Fault::Format)
            );
            let request = get(&format!("/?access_token={token}"));
            assert_eq!(answer(&a, &request), refused(*fault), "{token}");
        }
    }
}

#[test]
fn a_token_may_be_so_long_and_no_longer() {
    let token = |pad: usize| RSA.token(&claims("i1", json!({"pad": "x".repeat(pad)})));
    let full = (11_000..11_990)
        .rev()
        .map(token)
        .find(|token| token.len() <= MAX_TOKEN)
        .unwrap();
    let a = compile(&[rule("i1")], true);
    assert_eq!(answer(&a, &bearing(&full)), (200, ""));
    let longer = (11_500..12_990)
        .map(token)
        .find(|token| token.len() > MAX_TOKEN)
        .unwrap();
    assert_eq!(answer(&a, &bearing(&longer)), refused(Fault::Format));
}

#[test]
fn a_token_of_another_type_is_refused_in_strict_mode() {
    let body = claims("i1", json!({})).to_string();
    let row = |typ: serde_json::Value, strict| {
        let token = RSA.raw(&json!({"alg": "RS256", "typ": typ}).to_string(), &body);
        answer(&compile(&[rule("i1")], strict), &bearing(&token))
    };
    for typ in [
        "JWT",
        "jwt",
        "at+jwt",
        "application/at+jwt",
        "application/okta-internal-at+jwt",
    ] {
        assert_eq!(row(json!(typ), true), (200, ""), "{typ}");
    }
    for typ in [
        json!("dpop+jwt"),
        json!("logout+jwt"),
        json!("secevent+jwt"),
        json!("JOSE"),
        json!(1),
    ] {
        assert_eq!(row(typ.clone(), true), refused(Fault::HeaderTyp), "{typ}");
        assert_eq!(row(typ.clone(), false), (200, ""), "{typ}");
    }
}

#[test]
fn what_came_over_in_the_token_is_never_in_what_a_log_is_told() {
    let a = compile(&[rule("i1")], true);
    let rejection = ask(&a, &bearing(&FOREIGN.token(&claims("i1", json!({}))))).unwrap_err();
    assert_eq!(rejection.issuer.as_deref(), Some("i1"));
    let rejection = ask(&a, &bearing(&good("secret-issuer"))).unwrap_err();
    assert!(!format!("{rejection:?}").contains("secret-issuer"));
    assert_eq!(rejection.issuer, None);
}
