//! An issuer of tokens.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A key that is made anew for each issuer.
#[derive(Debug)]
pub struct Issuer {
    pair: EcdsaKeyPair,
    kid: String,
}

impl Issuer {
    /// An issuer whose key is called `kid`.
    ///
    /// # Panics
    /// No key can be made.
    pub fn new(kid: &str) -> Self {
        let Ok(pair) = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING) else {
            panic!("no key can be made");
        };
        Self {
            pair,
            kid: kid.to_owned(),
        }
    }

    /// Its public key (RFC 7517).
    pub fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = point
            .get(1..)
            .unwrap_or_default()
            .split_at(point.len().saturating_sub(1) / 2);
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": self.kid, "x": encode(x), "y": encode(y)})
    }

    /// A key set with its key alone.
    pub fn jwks(&self) -> String {
        json!({"keys": [self.jwk()]}).to_string()
    }

    /// A token that never ends in the lifetime of a test, with these claims besides.
    ///
    /// # Panics
    /// It cannot be signed.
    pub fn token(&self, issuer: &str, subject: &str, claims: &Value) -> String {
        let mut payload = json!({"iss": issuer, "sub": subject, "exp": 4_000_000_000_u64});
        if let (Some(payload), Some(claims)) = (payload.as_object_mut(), claims.as_object()) {
            payload.extend(claims.clone());
        }
        let head = json!({"alg": "ES256", "typ": "JWT", "kid": self.kid});
        let signed = format!("{}.{}", encode(head.to_string()), encode(payload.to_string()));
        let Ok(signature) = self.pair.sign(&SystemRandom::new(), signed.as_bytes()) else {
            panic!("a token cannot be signed");
        };
        format!("{signed}.{}", encode(signature))
    }
}

/// Base64 for URLs, without padding.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
