//! Tokens that are remembered: what a hit saves, and what it never does.

use std::sync::Arc;

use jwt::{Authenticator, Jwks, KeySource, Memory, RuleSpec};
use serde_json::json;

use crate::world::{FOREIGN, NOW, RSA, bearing, claims, compile, good, jwks, rule, spec};

#[test]
fn a_token_is_verified_once_and_then_remembered() {
    let a = compile(&[rule("i1")], true);
    let memory = Memory::default();
    let request = bearing(&good("i1"));
    let first = a.authenticate(&request, NOW, &memory).unwrap();
    assert_eq!((memory.signatures(), memory.hits(), memory.len()), (1, 0, 1));
    for _ in 0..10 {
        let again = a.authenticate(&request, NOW, &memory).unwrap();
        assert_eq!(again.claims, first.claims);
        assert_eq!(again.edits, first.edits);
    }
    assert_eq!((memory.signatures(), memory.hits(), memory.len()), (1, 10, 1));
}

#[test]
fn a_bad_token_is_not_remembered() {
    let a = compile(&[rule("i1")], true);
    let memory = Memory::default();
    let request = bearing(&FOREIGN.token(&claims("i1", json!({}))));
    for _ in 0..3 {
        assert!(a.authenticate(&request, NOW, &memory).is_err());
    }
    assert_eq!((memory.signatures(), memory.hits(), memory.len()), (3, 0, 0));
}

#[test]
fn a_remembered_token_expires_to_the_second_that_it_would_have() {
    let a = compile(&[rule("i1")], true);
    let memory = Memory::default();
    let request = bearing(&RSA.token(&claims("i1", json!({"exp": NOW + 10, "nbf": NOW}))));
    let rows = [
        (NOW, true),
        (NOW + 10, true),
        (NOW + 11, true),
        (NOW + 70, true),
        (NOW + 71, false),
    ];
    for (now, good) in rows {
        assert_eq!(a.authenticate(&request, now, &memory).is_ok(), good, "{now}");
    }
    assert!(memory.is_empty());
    // A clock that goes back.
    assert!(a.authenticate(&request, NOW, &memory).is_ok());
    assert!(a.authenticate(&request, NOW - 61, &memory).is_err());
}

#[test]
fn a_removed_key_or_a_changed_rule_finds_nothing() {
    let memory = Memory::default();
    let token = RSA.token(&claims("i1", json!({"aud": "foo"})));
    let request = bearing(&token);
    assert!(
        compile(&[rule("i1")], true)
            .authenticate(&request, NOW, &memory)
            .is_ok()
    );
    let changed = [
        RuleSpec {
            audiences: vec!["bar".to_owned()],
            ..rule("i1")
        },
        crate::world::with_keys("i1", &[FOREIGN.jwk.clone()]),
        crate::world::with_keys("i1", &[]),
        rule("i2"),
        RuleSpec {
            keys: KeySource::Fetched("gone".to_owned()),
            ..rule("i1")
        },
    ];
    for rule in changed {
        for strict in [false, true] {
            let a = compile(&[rule.clone()], strict);
            assert!(a.authenticate(&request, NOW, &memory).is_err(), "{rule:?}");
        }
    }
    assert_eq!(memory.hits(), 0);
}

#[test]
fn keys_of_a_source_that_rotate_are_noticed() {
    let memory = Memory::default();
    let remote = RuleSpec {
        keys: KeySource::Fetched("uri".to_owned()),
        ..rule("i1")
    };
    let with = |keys: String| {
        let jwks = Arc::new(Jwks {
            source: "uri".to_owned(),
            keys: Some(keys),
            why: None,
        });
        Authenticator::compile(
            &[spec("ra", &[remote.clone()])],
            &[],
            &|_| Some(Arc::clone(&jwks)),
            true,
        )
    };
    let request = bearing(&good("i1"));
    let before = with(jwks(&[RSA.jwk.clone()]));
    assert!(before.authenticate(&request, NOW, &memory).is_ok());
    assert!(
        with(jwks(&[FOREIGN.jwk.clone()]))
            .authenticate(&request, NOW, &memory)
            .is_err()
    );
    assert!(before.authenticate(&request, NOW, &memory).is_ok());
    assert_eq!(memory.hits(), 1);
}

#[test]
fn what_a_rule_makes_of_the_claims_is_never_anothers() {
    let memory = Memory::default();
    let spaced = RuleSpec {
        space_delimited_claims: vec!["groups".to_owned()],
        ..rule("i1")
    };
    let request = bearing(&RSA.token(&claims("i1", json!({"groups": "a b"}))));
    let plain = compile(&[rule("i1")], true)
        .authenticate(&request, NOW, &memory)
        .unwrap();
    let split = compile(&[spaced], true)
        .authenticate(&request, NOW, &memory)
        .unwrap();
    assert_ne!(plain.claims, split.claims);
    assert_eq!(memory.hits(), 0);
}

#[test]
fn nothing_of_the_token_is_in_what_is_printed_of_the_memory() {
    let memory = Memory::default();
    let token = good("i1");
    compile(&[rule("i1")], true)
        .authenticate(&bearing(&token), NOW, &memory)
        .unwrap();
    let shown = format!("{memory:?}");
    assert!(shown.contains("len: 1"));
    assert!(token.split('.').all(|part| !shown.contains(part)));
}
