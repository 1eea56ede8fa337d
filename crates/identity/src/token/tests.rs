use super::*;
use proptest::prelude::*;

const NOW: u64 = 1_000_000;

fn sample() -> Claims {
    Claims {
        namespace: "full".to_owned(),
        service_account: "sleep".to_owned(),
        pod_name: "sleep-1".to_owned(),
        pod_uid: "u".to_owned(),
        node: "node-0".to_owned(),
    }
}

fn pair() -> (Issuer, Verifier) {
    let issuer = Issuer::new(ISSUER).unwrap();
    let verifier = Verifier::new(issuer.jwks(), ISSUER, AUDIENCE).unwrap();
    (issuer, verifier)
}

/// Signs any claims with the issuer's own key.
fn forge(issuer: &Issuer, body: &serde_json::Value) -> String {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(issuer.key_id.clone());
    jsonwebtoken::encode(&header, body, &issuer.key).unwrap()
}

fn check(audience: &str, at: u64, expect: Result<Claims, TokenError>) {
    let (issuer, verifier) = pair();
    let token = issuer
        .issue(&sample(), audience, NOW, Duration::from_secs(600))
        .unwrap();
    assert_eq!(verifier.verify(&token, at), expect, "{audience} at {at}");
}

#[test]
fn id_04_tokens() {
    check(AUDIENCE, NOW, Ok(sample()));
    check(AUDIENCE, NOW + 609, Ok(sample()));
    check(AUDIENCE, NOW + 610, Err(TokenError::Expired));
    check(AUDIENCE, NOW - 10, Ok(sample()));
    check(AUDIENCE, NOW - 11, Err(TokenError::NotYetValid));
    check(ISSUER, NOW, Err(TokenError::Audience));
    check("", NOW, Err(TokenError::Audience));
}

#[test]
fn id_04_another_cluster() {
    let (ours, verifier) = pair();
    let theirs = Issuer::new(ISSUER).unwrap();
    let token = theirs
        .issue(&sample(), AUDIENCE, NOW, Duration::from_secs(600))
        .unwrap();
    assert_eq!(verifier.verify(&token, NOW), Err(TokenError::UnknownKey));
    // With our key's name on it, the signature is wrong.
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(ours.key_id.clone());
    let body: serde_json::Value = jsonwebtoken::dangerous::insecure_decode_claims(&token).unwrap();
    let renamed = jsonwebtoken::encode(&header, &body, &theirs.key).unwrap();
    assert_eq!(verifier.verify(&renamed, NOW), Err(TokenError::Signature));
    let elsewhere = Verifier::new(ours.jwks(), "https://other", AUDIENCE).unwrap();
    let token = ours
        .issue(&sample(), AUDIENCE, NOW, Duration::from_secs(600))
        .unwrap();
    assert_eq!(elsewhere.verify(&token, NOW), Err(TokenError::Issuer));
}

#[test]
fn id_04_algorithms() {
    let (issuer, verifier) = pair();
    let token = issuer
        .issue(&sample(), AUDIENCE, NOW, Duration::from_secs(600))
        .unwrap();
    let body = token.split('.').nth(1).unwrap();
    for (alg, expect) in [
        ("none", TokenError::Malformed),
        ("NONE", TokenError::Malformed),
        ("HS256", TokenError::Algorithm),
        ("HS512", TokenError::Algorithm),
        ("PS256", TokenError::Algorithm),
        ("ES384", TokenError::Algorithm),
        ("EdDSA", TokenError::Algorithm),
        // Ours is an ECDSA key: what the token says does not make it another.
        ("RS256", TokenError::Algorithm),
    ] {
        let header = serde_json::json!({"alg": alg, "kid": issuer.key_id}).to_string();
        let forged = format!("{}.{body}.AAAA", URL_SAFE_NO_PAD.encode(header));
        let refused = verifier.verify(&forged, NOW).unwrap_err();
        assert!(
            refused == expect || refused == TokenError::Algorithm,
            "{alg}: {refused:?}"
        );
    }
    // The public key as a shared secret: the classic confusion.
    let secret = EncodingKey::from_secret(issuer.jwks().as_bytes());
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(issuer.key_id.clone());
    let value: serde_json::Value = jsonwebtoken::dangerous::insecure_decode_claims(&token).unwrap();
    let forged = jsonwebtoken::encode(&header, &value, &secret).unwrap();
    assert_eq!(verifier.verify(&forged, NOW), Err(TokenError::Algorithm));
    // No key named, and an extension that must be understood.
    for header in [
        serde_json::json!({"alg": "ES256"}),
        serde_json::json!({"alg": "ES256", "kid": issuer.key_id, "crit": ["b64"], "b64": false}),
    ] {
        let rest = token.split_once('.').unwrap().1;
        let forged = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()));
        assert!(verifier.verify(&forged, NOW).is_err());
    }
}

#[test]
fn what_a_signed_token_must_say() {
    let (issuer, verifier) = pair();
    let good = serde_json::json!({
        "iss": ISSUER, "sub": "system:serviceaccount:full:sleep", "aud": [AUDIENCE, "x"], "exp": NOW + 60, "iat": NOW,
        "kubernetes.io": {"namespace": "full", "serviceaccount": {"name": "sleep", "uid": "1"}, "warnafter": 1},
    });
    let claims = verifier.verify(&forge(&issuer, &good), NOW).unwrap();
    assert_eq!((claims.node.as_str(), claims.pod_name.as_str()), ("", ""));
    let mut one = good.clone();
    one["aud"] = AUDIENCE.into();
    assert!(verifier.verify(&forge(&issuer, &one), NOW).is_ok());
    for (path, value, expect) in [
        (
            "sub",
            serde_json::json!("system:serviceaccount:full:admin"),
            TokenError::Subject,
        ),
        ("aud", serde_json::json!([]), TokenError::Audience),
        ("exp", serde_json::Value::Null, TokenError::Malformed),
        ("exp", serde_json::json!("never"), TokenError::Malformed),
        ("nbf", serde_json::json!(NOW + 3600), TokenError::NotYetValid),
        ("iss", serde_json::Value::Null, TokenError::Malformed),
        ("kubernetes.io", serde_json::json!({}), TokenError::Malformed),
    ] {
        let mut bad = good.clone();
        bad[path] = value.clone();
        let refused = verifier.verify(&forge(&issuer, &bad), NOW).unwrap_err();
        assert_eq!(refused, expect, "{path} = {value}");
    }
}

#[test]
fn key_sets_without_a_key_that_signs() {
    for set in [
        "",
        "{}",
        r#"{"keys":[]}"#,
        r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"a","alg":"HS256"}]}"#,
        r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"a","alg":"RS256"}]}"#,
    ] {
        assert!(
            matches!(Verifier::new(set, ISSUER, AUDIENCE), Err(TokenError::KeySet(_))),
            "{set}"
        );
    }
    let issuer = Issuer::new(ISSUER).unwrap();
    let unnamed = issuer.jwks().replace("kid", "kidd");
    assert!(Verifier::new(&unnamed, ISSUER, AUDIENCE).is_err());
    let for_encryption = issuer.jwks().replace("\"sig\"", "\"enc\"");
    assert!(Verifier::new(&for_encryption, ISSUER, AUDIENCE).is_err());
}

#[test]
fn the_public_set_holds_nothing_private() {
    let issuer = Issuer::new(ISSUER).unwrap();
    let set: serde_json::Value = serde_json::from_str(issuer.jwks()).unwrap();
    assert!(set["keys"][0].get("d").is_none());
    assert!(!format!("{issuer:?}").contains("key"));
}

proptest! {
    #[test]
    fn verifying_never_panics(token in ".{0,200}") {
        let (_, verifier) = pair();
        prop_assert!(verifier.verify(&token, NOW).is_err());
    }

    #[test]
    fn a_damaged_token_is_refused(at in 0_usize..600, with in any::<u8>()) {
        let (issuer, verifier) = pair();
        let token = issuer.issue(&sample(), AUDIENCE, NOW, Duration::from_secs(600)).unwrap();
        let mut bytes = token.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] = with;
        if let Ok(damaged) = String::from_utf8(bytes) && damaged != token {
            prop_assert!(verifier.verify(&damaged, NOW).is_err());
        }
    }
}
