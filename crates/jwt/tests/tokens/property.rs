//! What holds of every input: no panic, no mutated token accepted, no verdict changed by memory.

use jwt::{Authenticator, HeaderLocation, Keys, Memory, RuleSpec};
use proptest::prelude::*;
use serde_json::json;

use crate::world::{
    NOW, RSA, Request, Signer, ask, bearing, claims, compile, expired, get, good, rule, with_keys,
};

/// Rules over many places, of both modes.
fn crowded(strict: bool) -> Authenticator {
    let mut one = RuleSpec {
        from_params: vec!["t".to_owned()],
        from_cookies: vec!["c".to_owned()],
        output_payload_to_header: Some("x-out".to_owned()),
        ..rule("i1")
    };
    one.from_headers.push(HeaderLocation {
        name: "x-jwt".to_owned(),
        prefix: "Tok ".to_owned(),
    });
    let audience = RuleSpec {
        audiences: vec!["foo".to_owned()],
        ..rule("i2")
    };
    compile(&[one, rule("i2"), audience, rule("i3")], strict)
}

/// One of the texts that are near to being a token, or anything.
fn near() -> impl Strategy<Value = String> {
    let some = vec![
        good("i1"),
        good("i2"),
        good("i3"),
        good("i4"),
        expired("i1"),
        expired("i2"),
        "abc".to_owned(),
    ];
    prop_oneof![3 => proptest::sample::select(some), 1 => any::<String>(), 1 => "[A-Za-z0-9_.-]{0,40}"]
}

fn requests() -> impl Strategy<Value = Request> {
    let header = prop_oneof![
        (
            Just("authorization"),
            prop_oneof!["Bearer ", "bearer ", "Basic x, Bearer ", "", "Basic "]
        ),
        (Just("x-jwt"), prop_oneof!["Tok ", "tok ", "Tok", ""]),
        (Just("cookie"), prop_oneof!["c=", "a=1; c=", "c=x; c="]),
        (Just("origin"), Just(String::new())),
        (Just("access-control-request-method"), Just(String::new())),
    ];
    let headers = proptest::collection::vec((header, near()), 0..4);
    let path = proptest::collection::vec((prop_oneof!["t", "access_token", "b", "%74"], near()), 0..3);
    let method = proptest::sample::select(vec!["GET", "OPTIONS"]);
    (method, path, headers).prop_map(|(method, query, headers)| {
        let query: Vec<String> = query
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let path = if query.is_empty() {
            "/".to_owned()
        } else {
            format!("/?{}", query.join("&"))
        };
        let request = Request { method, ..get(&path) };
        headers
            .into_iter()
            .fold(request, |request, ((name, prefix), text)| {
                request.with(name, &format!("{prefix}{text}"))
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_in_a_request_makes_it_panic_and_headers_stay_safe(request in requests()) {
        for strict in [false, true] {
            if let Ok(answered) = ask(&crowded(strict), &request) {
                prop_assert!(answered.edits.remove.contains(&"x-out".to_owned()));
                for (_, value) in &answered.edits.set {
                    prop_assert!(value.bytes().all(|b| b >= b' ' && b != 0x7f));
                }
            }
        }
    }

    #[test]
    fn memory_never_changes_a_verdict(sequence in proptest::collection::vec((requests(), 0_u64..8000), 1..12)) {
        let memory = Memory::default();
        let authenticators = [crowded(false), crowded(true), compile(&[rule("i2")], true)];
        for (request, later) in &sequence {
            for a in &authenticators {
                let fresh = a.authenticate(request, NOW + later, &Memory::default());
                let known = a.authenticate(request, NOW + later, &memory);
                match (fresh, known) {
                    (Ok(fresh), Ok(known)) => {
                        prop_assert_eq!(fresh.claims, known.claims);
                        prop_assert_eq!(fresh.edits, known.edits);
                    }
                    (fresh, known) => prop_assert_eq!(fresh.err(), known.err()),
                }
            }
        }
    }

    #[test]
    fn strict_mode_proves_nothing_that_istio_would_have_refused(request in requests()) {
        let strict = ask(&crowded(true), &request);
        let istio = ask(&crowded(false), &request);
        if istio.is_err() {
            prop_assert!(strict.is_err());
        }
    }

    #[test]
    fn a_token_mutated_anywhere_is_refused(at in any::<proptest::sample::Index>(), to in any::<u8>(), insert in any::<bool>()) {
        let token = good("i1").into_bytes();
        let at = at.index(token.len());
        let mut mutated = token.clone();
        if insert {
            mutated.insert(at, to);
        } else {
            mutated[at] = to;
        }
        // Space after the scheme is none of the token.
        prop_assume!(mutated != token && mutated[0] != b' ' && !mutated.ends_with(b" ") && !mutated.ends_with(b"\t"));
        let mut request = get("/");
        request.headers.push(("authorization".to_owned(), [b"Bearer ".as_slice(), &mutated].concat()));
        // Envoy skips what no token can have before the first character of one.
        let skipped = !mutated[0].is_ascii_alphanumeric() && insert && at == 0;
        prop_assert!(ask(&compile(&[rule("i1")], true), &request).is_err());
        prop_assert!(skipped || ask(&compile(&[rule("i1")], false), &request).is_err());
    }

    #[test]
    fn no_text_makes_reading_keys_panic(text in any::<String>(), key in "[a-zA-Z0-9_-]{0,90}") {
        for strict in [false, true] {
            let _ = Keys::parse(&text, strict);
            for kty in ["RSA", "EC", "OKP", "oct"] {
                let jwk = json!({"kty": kty, "n": key, "e": "AQAB", "x": key, "y": key, "k": key, "crv": "Ed25519"});
                let keys = Keys::parse(&crate::world::jwks(&[jwk]), strict).unwrap();
                prop_assert!(keys.verify_jws(&text, true).is_err());
            }
        }
    }
}

#[test]
fn every_bit_flip_and_every_cut_of_a_token_is_refused_for_each_kind_of_key() {
    let secret: Vec<u8> = (0..64).collect();
    for signer in [
        Signer::ec("ES256"),
        Signer::ed25519(),
        Signer::secret("HS256", &secret),
    ] {
        let rule = RuleSpec {
            allow_hmac: true,
            ..with_keys("i1", &[signer.jwk.clone()])
        };
        let a = compile(&[rule], true);
        let token = signer.token(&claims("i1", json!({})));
        assert!(ask(&a, &bearing(&token)).is_ok());
        for at in 0..token.len() {
            assert!(ask(&a, &bearing(&token[..at])).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut bytes = token.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let mut request = get("/");
                request.headers.push((
                    "authorization".to_owned(),
                    [b"Bearer ".as_slice(), &bytes].concat(),
                ));
                assert!(ask(&a, &request).is_err(), "{} bit {bit} of {at}", signer.alg);
            }
        }
    }
    let _ = &*RSA;
}
