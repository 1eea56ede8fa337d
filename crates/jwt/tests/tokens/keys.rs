//! Algorithms and key sets (semantics 4.3): JW-43.

use aws_lc_rs::rsa::KeySize;
use jwt::{Fault, KeyProblem, Keys, MAX_JWKS, MAX_KEYS, MAX_TRIED, RuleSpec};
use serde_json::{Value, json};

use crate::world::{FOREIGN, RSA, Signer, answer, base64url, bearing, claims, compile, jwks, with_keys};

fn hmac(rule: RuleSpec) -> RuleSpec {
    RuleSpec {
        allow_hmac: true,
        ..rule
    }
}

fn all() -> Vec<Signer> {
    let secret: Vec<u8> = (0..64).collect();
    vec![
        Signer::rsa("RS256", KeySize::Rsa2048),
        Signer::rsa("RS384", KeySize::Rsa2048),
        Signer::rsa("RS512", KeySize::Rsa3072),
        Signer::rsa("PS256", KeySize::Rsa2048),
        Signer::rsa("PS384", KeySize::Rsa2048),
        Signer::rsa("PS512", KeySize::Rsa2048),
        Signer::ec("ES256"),
        Signer::ec("ES384"),
        Signer::ec("ES512"),
        Signer::ed25519(),
        Signer::secret("HS256", &secret),
        Signer::secret("HS384", &secret),
        Signer::secret("HS512", &secret),
    ]
}

#[test]
fn every_algorithm_verifies_its_own_tokens_and_no_key_anothers() {
    let signers = all();
    for strict in [false, true] {
        for key in &signers {
            let a = compile(&[hmac(with_keys("i1", &[key.jwk.clone()]))], strict);
            for signer in &signers {
                let own = std::ptr::eq(key, signer);
                // The same secret by another digest is the same key.
                let shared = key.jwk == signer.jwk;
                let status = answer(&a, &bearing(&signer.token(&claims("i1", json!({}))))).0;
                assert_eq!(status == 200, own || shared, "{} by {}", signer.alg, key.alg);
            }
        }
    }
}

#[test]
fn a_key_that_names_an_algorithm_is_for_that_one_alone() {
    let token = RSA.token(&claims("i1", json!({})));
    let row = |alg: &str| {
        let a = compile(&[with_keys("i1", &[RSA.jwk(json!({"alg": alg}))])], true);
        answer(&a, &bearing(&token)).1
    };
    assert_eq!(row("RS256"), "");
    assert_eq!(row("RS512"), Fault::NoMatchingKey.text());
    assert_eq!(row("PS256"), Fault::NoMatchingKey.text());
    assert_eq!(row("ES256"), Fault::NoValidKeys.text());
}

#[test]
fn jw_43_a_public_key_is_never_the_secret_of_a_symmetric_signature() {
    let ec = Signer::ec("ES256");
    let mut texts = Vec::new();
    for (kind, jwk) in [("RSA", &RSA.jwk), ("EC", &ec.jwk)] {
        // All that an attacker may take for the secret: the set, the key, its numbers as text and as bytes.
        let mut secrets = vec![jwks(&[jwk.clone()]).into_bytes(), jwk.to_string().into_bytes()];
        for name in ["n", "x", "y"] {
            if let Some(text) = jwk.get(name).and_then(Value::as_str) {
                secrets.push(text.as_bytes().to_vec());
            }
        }
        for secret in secrets {
            for alg in ["HS256", "HS384", "HS512"] {
                let token = Signer::secret(alg, &secret).token(&claims("i1", json!({})));
                for strict in [false, true] {
                    for rule in [
                        with_keys("i1", &[jwk.clone()]),
                        hmac(with_keys("i1", &[jwk.clone()])),
                    ] {
                        let (status, text) = answer(&compile(&[rule], strict), &bearing(&token));
                        assert_eq!(status, 401, "{kind} {alg}");
                        texts.push(text);
                    }
                }
            }
        }
    }
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts, [Fault::Algorithm.text(), Fault::Verification.text()]);
}

#[test]
fn symmetric_algorithms_are_refused_unless_the_rule_opts_in() {
    let signer = Signer::secret("HS256", &[7; 32]);
    let token = signer.token(&claims("i1", json!({})));
    for strict in [false, true] {
        let rule = with_keys("i1", &[signer.jwk.clone()]);
        let refused = answer(&compile(&[rule.clone()], strict), &bearing(&token));
        assert_eq!(refused, (401, Fault::Algorithm.text()));
        assert_eq!(
            answer(&compile(&[hmac(rule)], strict), &bearing(&token)),
            (200, "")
        );
    }
}

fn parse(keys: &[Value], strict: bool) -> Keys {
    Keys::parse(&jwks(keys), strict).unwrap()
}

/// Why the one key is left out; empty where it is used.
fn skipped(key: &Value, strict: bool) -> &'static str {
    let keys = parse(std::slice::from_ref(key), strict);
    assert_eq!(keys.is_empty(), keys.problems().iter().any(|p| p.skipped));
    match keys.problems() {
        [] => "",
        [problem] => problem.why,
        more => panic!("{more:?}"),
    }
}

#[test]
fn keys_that_cannot_be_used_are_left_out_and_say_why() {
    let ec = Signer::ec("ES256");
    let rows = [
        (json!(1), "is not an object"),
        (json!({}), "has no `kty`"),
        (json!({"kty": 1}), "has a `kty` that is not a string"),
        (json!({"kty": "DSA"}), "has a `kty` that is not supported"),
        (
            json!({"kty": "RSA", "e": "AQAB"}),
            "lacks a number of its `kty`, or it is not a string",
        ),
        (RSA.jwk(json!({"n": "!"})), "has a number that is not base64url"),
        (
            RSA.jwk(json!({"e": "Ag"})),
            "has an exponent that is neither 3 nor 65537",
        ),
        (
            RSA.jwk(json!({"e": "AQ"})),
            "has an exponent that is neither 3 nor 65537",
        ),
        (RSA.jwk(json!({"n": ""})), "has a modulus that is too small"),
        (
            RSA.jwk(json!({"n": base64url([254; 256])})),
            "has a modulus that is not one of an RSA key",
        ),
        (
            RSA.jwk(json!({"n": base64url([255; 2000])})),
            "has a modulus that is not one of an RSA key",
        ),
        (
            RSA.jwk(json!({"alg": "RSA-OAEP"})),
            "has an `alg` that is not supported",
        ),
        (
            RSA.jwk(json!({"alg": "ES256"})),
            "has an `alg` that is not for an RSA key of its size",
        ),
        (
            ec.jwk(json!({"crv": "P-384"})),
            "has coordinates that are no point of its curve",
        ),
        (
            ec.jwk(json!({"crv": "secp256k1"})),
            "has a `crv` or `alg` that is not supported",
        ),
        (
            ec.jwk(json!({"alg": "ES384"})),
            "has a `crv` that is not the one of its `alg`",
        ),
        (
            ec.jwk(json!({"x": base64url([1; 33])})),
            "has a coordinate that is too long",
        ),
        (
            ec.jwk(json!({"x": base64url([1; 32])})),
            "has coordinates that are no point of its curve",
        ),
        (
            json!({"kty": "OKP", "crv": "X25519", "x": "AA"}),
            "has a `crv` that is not supported",
        ),
        (
            json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"}),
            "is not an Ed25519 key",
        ),
        (
            json!({"kty": "OKP", "crv": "Ed25519", "alg": "ES256"}),
            "has an `alg` that is not for its `kty`",
        ),
        (json!({"kty": "oct", "k": ""}), "is empty"),
    ];
    for (key, why) in rows {
        for strict in [false, true] {
            assert_eq!(skipped(&key, strict), why, "{key}");
        }
    }
}

#[test]
fn in_strict_mode_weak_keys_and_keys_for_other_uses_are_left_out_too() {
    let small = Signer::rsa("RS256", KeySize::Rsa2048);
    let weak = json!({"kty": "RSA", "e": "AQAB", "n": base64url([255; 128])});
    let rows = [
        (weak, "has a modulus that is too small"),
        (small.jwk(json!({"use": "enc"})), "is not for signatures (`use`)"),
        (
            small.jwk(json!({"key_ops": ["encrypt"]})),
            "is not for verifying (`key_ops`)",
        ),
        (
            small.jwk(json!({"kid": 7})),
            "has a `kid` or `alg` that is not a string",
        ),
        (
            small.jwk(json!({"e": "AQAB="})),
            "has a number that is not base64url",
        ),
        (
            json!({"kty": "oct", "k": base64url([1; 31])}),
            "is too short, or has an `alg` that is not for its `kty`",
        ),
    ];
    for (key, why) in rows {
        assert_eq!(skipped(&key, true), why, "{key}");
        assert_eq!(skipped(&key, false), "", "{key}");
    }
    for key in [
        json!({"use": "sig"}),
        json!({"key_ops": ["sign", "verify"]}),
        json!({"alg": ""}),
    ] {
        assert_eq!(skipped(&small.jwk(key), true), "");
    }
}

#[test]
fn one_bad_key_takes_no_other_with_it_and_problems_name_the_key() {
    let keys = parse(
        &[
            json!({"kty": "DSA", "kid": "old"}),
            RSA.jwk.clone(),
            RSA.jwk.clone(),
        ],
        true,
    );
    assert_eq!(keys.len(), 1);
    let problem = |place, kid: Option<&str>, why| KeyProblem {
        place,
        kid: kid.map(str::to_owned),
        why,
        skipped: true,
    };
    let told = [
        problem(0, Some("old"), "has a `kty` that is not supported"),
        problem(2, None, "is there twice"),
    ];
    assert_eq!(keys.problems(), told);
}

#[test]
fn a_private_half_is_told_and_does_not_hinder() {
    let keys = parse(&[RSA.jwk(json!({"d": "AQAB"}))], true);
    assert_eq!(keys.len(), 1);
    assert_eq!(keys.problems()[0].why, "has its private half in the set");
    assert!(!keys.problems()[0].skipped);
    assert!(!format!("{keys:?}").contains("AQAB"));
}

#[test]
fn two_keys_of_one_kid_are_both_tried() {
    let keys = [FOREIGN.jwk(json!({"kid": "a"})), RSA.jwk(json!({"kid": "a"}))];
    let a = compile(&[with_keys("i1", &keys)], true);
    let token = RSA.raw(
        r#"{"alg":"RS256","kid":"a"}"#,
        &claims("i1", json!({})).to_string(),
    );
    assert_eq!(answer(&a, &bearing(&token)), (200, ""));
}

#[test]
fn a_secret_beside_public_keys_is_left_out_in_strict_mode() {
    let secret = Signer::secret("HS256", &[7; 32]);
    let both = [secret.jwk.clone(), RSA.jwk.clone()];
    assert_eq!(parse(&both, false).len(), 2);
    let keys = parse(&both, true);
    assert_eq!(keys.len(), 1);
    assert_eq!(
        keys.problems()[0].why,
        "is symmetric, in a set that has public keys"
    );
    assert_eq!(parse(&both[..1], true).len(), 1);
}

#[test]
fn a_set_is_bounded_and_read_strictly() {
    for text in [
        "",
        "[]",
        "{}",
        r#"{"keys":1}"#,
        r#"{"keys":[],"keys":[]}"#,
        "<html>",
    ] {
        assert!(Keys::parse(text, false).is_err(), "{text}");
    }
    let long = " ".repeat(MAX_JWKS) + r#"{"keys":[]}"#;
    assert!(Keys::parse(&long, false).is_err());
    assert!(Keys::parse(r#"{"keys":[]}"#, true).unwrap().is_empty());
    let many: Vec<Value> = (0..=MAX_KEYS)
        .map(|i| RSA.jwk(json!({"kid": i.to_string()})))
        .collect();
    let keys = parse(&many, true);
    assert_eq!(keys.len(), MAX_KEYS);
    assert_eq!(keys.problems()[0].place, MAX_KEYS);
}

#[test]
fn an_ed25519_signature_of_another_length_has_its_own_text() {
    let signer = Signer::ed25519();
    let a = compile(&[with_keys("i1", &[signer.jwk.clone()])], true);
    let token = signer.token(&claims("i1", json!({})));
    let (signed, _) = token.rsplit_once('.').unwrap();
    let short = format!("{signed}.{}", base64url([1; 63]));
    assert_eq!(answer(&a, &bearing(&short)), (401, Fault::Ed25519Length.text()));
    let wrong = format!("{signed}.{}", base64url([1; 64]));
    assert_eq!(answer(&a, &bearing(&wrong)), (401, Fault::Verification.text()));
}

#[test]
fn a_token_that_names_no_key_is_tried_by_so_many_and_no_more() {
    let row = |before: usize, header: &str| {
        let mut keys: Vec<Value> = (0..before)
            .map(|i| FOREIGN.jwk(json!({"kid": i.to_string()})))
            .collect();
        keys.push(RSA.jwk(json!({"kid": "last"})));
        let token = RSA.raw(header, &claims("i1", json!({})).to_string());
        let memory = jwt::Memory::default();
        let a = compile(&[with_keys("i1", &keys)], true);
        let good = a
            .authenticate(&bearing(&token), crate::world::NOW, &memory)
            .is_ok();
        (good, memory.signatures())
    };
    let most = MAX_TRIED as u64;
    assert_eq!(row(MAX_TRIED - 1, r#"{"alg":"RS256"}"#), (true, most));
    assert_eq!(row(MAX_TRIED, r#"{"alg":"RS256"}"#), (false, most));
    assert_eq!(row(MAX_TRIED, r#"{"alg":"RS256","kid":"last"}"#), (true, 1));
}
