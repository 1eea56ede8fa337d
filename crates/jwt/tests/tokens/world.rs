//! Keys that sign, requests, and rules: what the tests are made of.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaSignatureEncoding};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwt::{
    Authenticated, AuthenticationSpec, Authenticator, Jwks, KeySource, Memory, Rejection, RequestView,
    RuleSpec,
};
use policy::{Claim, ClaimLookup, Origin, PolicyId};
use serde_json::{Value, json};

/// When the tests happen, seconds since 1970.
pub(crate) const NOW: u64 = 1_700_000_000;

pub(crate) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A private key, and the algorithm that it signs by.
pub(crate) struct Signer {
    pub(crate) alg: &'static str,
    pub(crate) jwk: Value,
    sign: Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>,
}

impl Signer {
    pub(crate) fn rsa(alg: &'static str, size: KeySize) -> Self {
        let pair = RsaKeyPair::generate(size).unwrap();
        // SEQUENCE { INTEGER n, INTEGER 65537 }, with a zero before n.
        let der = pair.public_key().as_ref().to_vec();
        let length = pair.public_modulus_len();
        let n = &der[der.len() - 5 - length..der.len() - 5];
        let padding: &'static RsaSignatureEncoding = match alg {
            "RS256" => &signature::RSA_PKCS1_SHA256,
            "RS384" => &signature::RSA_PKCS1_SHA384,
            "RS512" => &signature::RSA_PKCS1_SHA512,
            "PS256" => &signature::RSA_PSS_SHA256,
            "PS384" => &signature::RSA_PSS_SHA384,
            "PS512" => &signature::RSA_PSS_SHA512,
            _ => panic!("{alg}"),
        };
        let jwk = json!({"kty": "RSA", "n": base64url(n), "e": "AQAB"});
        let sign = move |message: &[u8]| {
            let mut signature = vec![0; length];
            pair.sign(padding, &SystemRandom::new(), message, &mut signature)
                .unwrap();
            signature
        };
        Self {
            alg,
            jwk,
            sign: Box::new(sign),
        }
    }

    pub(crate) fn ec(alg: &'static str) -> Self {
        let (parameters, crv) = match alg {
            "ES256" => (&signature::ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            "ES384" => (&signature::ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
            "ES512" => (&signature::ECDSA_P521_SHA512_FIXED_SIGNING, "P-521"),
            _ => panic!("{alg}"),
        };
        let pair = EcdsaKeyPair::generate(parameters).unwrap();
        let (x, y) = {
            let point = &pair.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            (base64url(x), base64url(y))
        };
        let jwk = json!({"kty": "EC", "crv": crv, "x": x, "y": y});
        let sign = move |message: &[u8]| {
            pair.sign(&SystemRandom::new(), message)
                .unwrap()
                .as_ref()
                .to_vec()
        };
        Self {
            alg,
            jwk,
            sign: Box::new(sign),
        }
    }

    pub(crate) fn ed25519() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key().as_ref())});
        let sign = move |message: &[u8]| pair.sign(message).as_ref().to_vec();
        Self {
            alg: "EdDSA",
            jwk,
            sign: Box::new(sign),
        }
    }

    pub(crate) fn secret(alg: &'static str, secret: &[u8]) -> Self {
        let digest = match alg {
            "HS256" => hmac::HMAC_SHA256,
            "HS384" => hmac::HMAC_SHA384,
            "HS512" => hmac::HMAC_SHA512,
            _ => panic!("{alg}"),
        };
        let jwk = json!({"kty": "oct", "k": base64url(secret)});
        let key = hmac::Key::new(digest, secret);
        let sign = move |message: &[u8]| hmac::sign(&key, message).as_ref().to_vec();
        Self {
            alg,
            jwk,
            sign: Box::new(sign),
        }
    }

    /// A token with that header and payload, as they stand.
    pub(crate) fn raw(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", base64url(header), base64url(payload));
        let signature = base64url((self.sign)(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// A token with that payload.
    pub(crate) fn token(&self, payload: &Value) -> String {
        self.raw(&json!({"alg": self.alg}).to_string(), &payload.to_string())
    }

    /// Its key with more members.
    pub(crate) fn jwk(&self, more: Value) -> Value {
        let mut jwk = self.jwk.clone();
        for (name, value) in more.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        jwk
    }
}

/// The key of issuers `i1` and `i2`.
pub(crate) static RSA: LazyLock<Signer> = LazyLock::new(|| Signer::rsa("RS256", KeySize::Rsa2048));
/// A key that nobody trusts.
pub(crate) static FOREIGN: LazyLock<Signer> = LazyLock::new(|| Signer::rsa("RS256", KeySize::Rsa2048));

/// A set of keys, as text.
pub(crate) fn jwks(keys: &[Value]) -> String {
    json!({"keys": keys}).to_string()
}

/// A claims set of that issuer, for an hour.
pub(crate) fn claims(issuer: &str, more: Value) -> Value {
    let mut claims = json!({"iss": issuer, "sub": "sub-1", "exp": NOW + 3600});
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

pub(crate) fn good(issuer: &str) -> String {
    RSA.token(&claims(issuer, json!({})))
}

pub(crate) fn expired(issuer: &str) -> String {
    RSA.token(&claims(issuer, json!({"exp": NOW - 3600})))
}

/// A rule with the tests' key.
pub(crate) fn rule(issuer: &str) -> RuleSpec {
    with_keys(issuer, &[RSA.jwk.clone()])
}

pub(crate) fn with_keys(issuer: &str, keys: &[Value]) -> RuleSpec {
    RuleSpec {
        issuer: issuer.to_owned(),
        audiences: Vec::new(),
        keys: KeySource::Inline(jwks(keys)),
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        output_payload_to_header: None,
        output_claim_to_headers: Vec::new(),
        forward_original_token: false,
        space_delimited_claims: Vec::new(),
        required: false,
        allow_hmac: false,
        allow_missing_exp: false,
        line: 7,
    }
}

pub(crate) fn id(name: &str) -> PolicyId {
    PolicyId {
        namespace: "ns".to_owned(),
        name: name.to_owned(),
    }
}

pub(crate) fn spec(name: &str, rules: &[RuleSpec]) -> Arc<AuthenticationSpec> {
    Arc::new(AuthenticationSpec {
        id: id(name),
        rules: rules.to_vec(),
        invalid: None,
        origin: Origin::default(),
    })
}

pub(crate) fn no_keys(_: &str) -> Option<Arc<Jwks>> {
    None
}

pub(crate) fn compile(rules: &[RuleSpec], strict: bool) -> Authenticator {
    Authenticator::compile(&[spec("ra", rules)], &[], &no_keys, strict)
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

pub(crate) fn get(path: &str) -> Request {
    Request {
        method: "GET",
        path: path.to_owned(),
        headers: Vec::new(),
    }
}

/// A request with a token where it is by default.
pub(crate) fn bearing(token: &str) -> Request {
    get("/").with("authorization", &format!("Bearer {token}"))
}

impl Request {
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }
}

impl RequestView for Request {
    fn method(&self) -> &str {
        self.method
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn authority(&self) -> &'static str {
        "server.foo:8080"
    }

    fn header(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        assert_eq!(name, name.to_lowercase(), "names are asked for in lower case");
        self.headers
            .iter()
            .filter(|(known, _)| known == name)
            .any(|(_, value)| visit(value))
    }
}

pub(crate) fn ask(authenticator: &Authenticator, request: &Request) -> Result<Authenticated, Rejection> {
    authenticator.authenticate(request, NOW, &Memory::default())
}

/// 200, or the status and text of the refusal.
pub(crate) fn answer(authenticator: &Authenticator, request: &Request) -> (u16, &'static str) {
    match ask(authenticator, request) {
        Ok(_) => (200, ""),
        Err(rejection) => (rejection.status, rejection.text),
    }
}

/// The subject that a request is accepted with; `-` where with none.
pub(crate) fn subject(authenticator: &Authenticator, request: &Request) -> String {
    let authenticated = ask(authenticator, request).unwrap();
    let Some(claims) = authenticated.claims else {
        return "-".to_owned();
    };
    let mut found = String::new();
    claims.any(&["sub".to_owned()], &mut |claim| {
        if let Claim::Text(text) = claim {
            text.clone_into(&mut found);
        }
        true
    });
    found
}
