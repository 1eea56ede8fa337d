//! Where tokens are looked for, and several of them (semantics 4.1, 4.2): JW-04, JW-05, JW-21 to JW-28, JW-37, JW-38,
//! JW-46.

use jwt::{Fault, HeaderLocation, MAX_TOKENS, RuleSpec};
use serde_json::json;

use crate::world::{
    FOREIGN, RSA, Request, answer, ask, bearing, claims, compile, expired, get, good, rule, subject,
};

const MODES: [bool; 2] = [false, true];

fn from_header(issuer: &str, name: &str, prefix: &str) -> RuleSpec {
    RuleSpec {
        from_headers: vec![HeaderLocation {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
        }],
        ..rule(issuer)
    }
}

fn from_params(issuer: &str, names: &[&str]) -> RuleSpec {
    RuleSpec {
        from_params: names.iter().map(|name| (*name).to_owned()).collect(),
        ..rule(issuer)
    }
}

fn named(subject: &str) -> String {
    RSA.token(&claims("i1", json!({"sub": subject})))
}

#[test]
fn jw_21_to_23_parameters_are_read_where_the_rule_names_them_and_nothing_else_then() {
    for strict in MODES {
        let a = compile(&[from_params("i1", &["token", "secondary_token"])], strict);
        for (row, path, who) in [
            ("JW-21", "/?token=", "sub-1"),
            ("JW-22", "/a?x=1&secondary_token=", "sub-1"),
            ("JW-23", "/?token_value=", "-"),
            ("JW-23", "/?Token=", "-"),
            ("JW-23", "/?access_token=", "-"),
        ] {
            assert_eq!(
                subject(&a, &get(&format!("{path}{}", good("i1")))),
                who,
                "{row} {path}"
            );
        }
        assert_eq!(
            subject(&a, &bearing("garbage")),
            "-",
            "the default places are not read"
        );
        assert_eq!(answer(&a, &get("/?token=")), (401, Fault::Format.text()));
        assert_eq!(answer(&a, &get("/?%74oken=abc")), (401, Fault::Format.text()));
    }
}

#[test]
fn jw_24_jw_25_of_several_tokens_each_must_be_good() {
    for strict in MODES {
        let a = compile(&[from_params("i1", &["token", "secondary_token"])], strict);
        let two = |first: &str, second: &str| get(&format!("/?token={first}&secondary_token={second}"));
        assert_eq!(answer(&a, &two(&good("i1"), &good("i1"))), (200, ""));
        assert_eq!(
            answer(&a, &two(&good("i1"), &expired("i1"))),
            (401, Fault::Expired.text())
        );
        assert_eq!(
            answer(&a, &two(&expired("i1"), &good("i1"))),
            (401, Fault::Expired.text())
        );
        // The claims are those of the first place: `secondary_token` sorts before `token`.
        assert_eq!(subject(&a, &two(&named("one"), &named("two"))), "two");
    }
}

#[test]
fn a_good_token_in_the_header_does_not_excuse_a_bad_one_in_the_query() {
    for strict in MODES {
        let a = compile(&[rule("i1")], strict);
        let bad = get("/?access_token=abc").with("authorization", &format!("Bearer {}", good("i1")));
        assert_eq!(answer(&a, &bad), (401, Fault::Format.text()));
        let bad = get(&format!("/?access_token={}", good("i1"))).with("authorization", "Bearer abc");
        assert_eq!(answer(&a, &bad), (401, Fault::Format.text()));
        // Envoy begins with the last: its text is told.
        let both = get(&format!("/?access_token={}", expired("i1"))).with("authorization", "Bearer abc");
        assert_eq!(answer(&a, &both), (401, Fault::Expired.text()));
    }
}

#[test]
fn each_line_of_a_header_is_a_token_of_its_own() {
    for strict in MODES {
        let a = compile(&[rule("i1")], strict);
        let two =
            |first: &str, second: &str| bearing(first).with("authorization", &format!("Bearer {second}"));
        assert_eq!(subject(&a, &two(&named("one"), &named("two"))), "one");
        assert_eq!(answer(&a, &two(&good("i1"), &expired("i1"))).0, 401);
        assert_eq!(answer(&a, &two(&expired("i1"), &good("i1"))).0, 401);
    }
}

#[test]
fn in_strict_mode_each_value_of_a_parameter_or_cookie_is_a_token_and_in_istio_the_first() {
    let params = from_params("i1", &["t"]);
    let cookies = RuleSpec {
        from_cookies: vec!["t".to_owned()],
        ..rule("i1")
    };
    let path = get(&format!("/?t={}&t=abc", good("i1")));
    let cookie = get("/").with("cookie", &format!("t={}; t=abc", good("i1")));
    for (strict, status) in [(false, 200), (true, 401)] {
        assert_eq!(answer(&compile(&[params.clone()], strict), &path).0, status);
        assert_eq!(answer(&compile(&[cookies.clone()], strict), &cookie).0, status);
    }
}

#[test]
fn jw_26_to_28_headers_are_read_with_the_prefix_that_the_rule_names() {
    let mut both = from_header("i1", "X-Jwt-Token", "Value ");
    both.from_headers.push(HeaderLocation {
        name: "auth-token".to_owned(),
        prefix: "Token ".to_owned(),
    });
    for strict in MODES {
        let a = compile(&[both.clone()], strict);
        let row =
            |name: &str, value: &str| subject(&a, &get("/").with(name, &format!("{value}{}", good("i1"))));
        assert_eq!(row("x-jwt-token", "Value "), "sub-1");
        assert_eq!(row("auth-token", "Token "), "sub-1");
        assert_eq!(row("auth-header-param", "Bearer "), "-");
        assert_eq!(row("authorization", "Bearer "), "-");
        let none = compile(&[from_header("i1", "x-jwt", "")], strict);
        assert_eq!(subject(&none, &get("/").with("x-jwt", &good("i1"))), "sub-1");
        assert_eq!(answer(&none, &get("/").with("x-jwt", "")).0, 401);
    }
}

#[test]
fn jw_37_jw_38_r24_r40_a_scheme_in_another_case_or_place_is_read_strictly_or_as_istio_does() {
    let t = good("i1");
    let lower = get("/").with("authorization", &format!("bearer {t}"));
    let smuggled = get("/").with("authorization", &format!("Basic x, Bearer {t}"));
    let empty = get("/").with("authorization", "Bearer");
    let basic = get("/").with("authorization", "Basic dXNlcjpwYXNz");
    let a = compile(&[rule("i1")], false);
    let found: Vec<String> = [&lower, &smuggled, &empty, &basic].map(|r| subject(&a, r)).into();
    assert_eq!(found, ["-", "sub-1", "-", "-"]);
    let a = compile(&[rule("i1")], true);
    assert_eq!(subject(&a, &lower), "sub-1");
    assert_eq!(answer(&a, &smuggled), (401, Fault::Format.text()));
    assert_eq!(answer(&a, &empty), (401, Fault::Format.text()));
    assert_eq!(subject(&a, &basic), "-");
    // A token without its prefix in a place for tokens.
    let bare = get("/").with("x-jwt", &t);
    assert_eq!(
        subject(&compile(&[from_header("i1", "x-jwt", "Tok ")], false), &bare),
        "-"
    );
    assert_eq!(
        answer(&compile(&[from_header("i1", "x-jwt", "Tok ")], true), &bare).0,
        401
    );
}

#[test]
fn jw_46_a_token_in_a_cookie_is_read_and_the_cookie_goes_on() {
    let cookies = RuleSpec {
        from_cookies: vec!["t".to_owned()],
        ..rule("i1")
    };
    for strict in MODES {
        let a = compile(&[cookies.clone()], strict);
        let request = get("/")
            .with("cookie", "a=1")
            .with("cookie", &format!("b=2; t={}; c=3", good("i1")));
        let answered = ask(&a, &request).unwrap();
        assert!(answered.claims.is_some());
        assert!(answered.edits.remove.is_empty() && answered.edits.path.is_none());
        assert_eq!(
            answer(&a, &get("/").with("cookie", "t=abc")),
            (401, Fault::Format.text())
        );
        assert_eq!(subject(&a, &get("/").with("cookie", "tt=abc; T=abc")), "-");
    }
}

#[test]
fn jw_04_jw_05_r26_a_preflight_is_not_looked_at_and_has_no_identity() {
    let preflight = Request {
        method: "OPTIONS",
        ..bearing("garbage")
            .with("origin", "https://a")
            .with("access-control-request-method", "GET")
    };
    for strict in MODES {
        let a = compile(&[rule("i1")], strict);
        assert_eq!(subject(&a, &preflight), "-");
        let good = Request {
            headers: bearing(&good("i1")).headers,
            ..preflight.clone()
        };
        let mut with_good = preflight.clone();
        with_good.headers[0] = good.headers[0].clone();
        assert_eq!(subject(&a, &with_good), "-", "nor with a good token");
        for missing in 1..3 {
            let mut part = preflight.clone();
            part.headers.remove(missing);
            assert_eq!(answer(&a, &part).0, 401);
            let mut empty = preflight.clone();
            empty.headers[missing].1.clear();
            assert_eq!(answer(&a, &empty).0, 401);
        }
        for method in ["GET", "options", "POST"] {
            let other = Request {
                method,
                ..preflight.clone()
            };
            assert_eq!(answer(&a, &other).0, 401, "{method}");
        }
    }
}

#[test]
fn rules_with_places_of_their_own_take_their_own_tokens_and_a_bad_one_is_refused_beside_a_good_one() {
    for strict in MODES {
        let a = compile(
            &[from_header("i1", "x-one", ""), from_header("i2", "x-two", "")],
            strict,
        );
        let request = |one: &str, two: &str| get("/").with("x-one", one).with("x-two", two);
        assert_eq!(answer(&a, &request(&good("i1"), &good("i2"))), (200, ""));
        assert_eq!(
            answer(&a, &request(&good("i1"), &expired("i2"))),
            (401, Fault::Expired.text())
        );
        assert_eq!(
            answer(&a, &request(&good("i1"), "abc")),
            (401, Fault::Format.text())
        );
        // Each in the other's place.
        assert_eq!(
            answer(&a, &request(&good("i2"), &good("i1"))),
            (401, Fault::Issuer.text())
        );
        assert_eq!(answer(&a, &get("/").with("x-two", &good("i2"))), (200, ""));
    }
}

#[test]
fn tokens_of_two_issuers_in_places_that_both_rules_read_are_refused() {
    for strict in MODES {
        let a = compile(&[rule("i1"), rule("i2")], strict);
        let both = get(&format!("/?access_token={}", good("i2")))
            .with("authorization", &format!("Bearer {}", good("i1")));
        assert_eq!(answer(&a, &both), (401, Fault::Issuer.text()));
        let same = get(&format!("/?access_token={}", good("i2")))
            .with("authorization", &format!("Bearer {}", good("i2")));
        assert_eq!(answer(&a, &same), (200, ""));
    }
}

#[test]
fn of_several_rules_istio_tells_why_the_first_refused_and_strict_mode_the_true_reason() {
    let rules = [rule("i1"), rule("i2")];
    let row = |strict, token: &str| answer(&compile(&rules, strict), &bearing(token)).1;
    assert_eq!(row(false, &expired("i1")), Fault::Expired.text());
    assert_eq!(row(false, &expired("i2")), Fault::Issuer.text());
    assert_eq!(row(true, &expired("i2")), Fault::Expired.text());
    let forged = FOREIGN.token(&claims("i2", json!({})));
    assert_eq!(row(true, &forged), Fault::Verification.text());
    for strict in MODES {
        assert_eq!(row(strict, "abc"), Fault::Format.text());
    }
}

#[test]
fn more_tokens_than_the_limit_are_refused_before_any_is_verified() {
    let names: Vec<String> = (0..=MAX_TOKENS).map(|i| format!("t{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let query = |count: usize| {
        let pairs: Vec<String> = names[..count]
            .iter()
            .map(|name| format!("{name}={}", good("i1")))
            .collect();
        get(&format!("/?{}", pairs.join("&")))
    };
    for strict in MODES {
        let a = compile(&[from_params("i1", &names)], strict);
        assert_eq!(answer(&a, &query(MAX_TOKENS)), (200, ""));
        assert_eq!(answer(&a, &query(MAX_TOKENS + 1)), (401, Fault::TooMany.text()));
        let lines = (0..100).fold(get("/"), |request, _| request.with("authorization", "Bearer x"));
        assert_eq!(
            answer(&compile(&[rule("i1")], strict), &lines),
            (401, Fault::TooMany.text())
        );
    }
}
