//! Service account tokens: audience-bound, expiring, ES256. The [`Issuer`] plays Kubernetes' TokenRequest on a machine
//! without Kubernetes; the [`Verifier`] judges either's.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde::{Deserialize, Serialize};

/// The audience of tokens for the CA and the control plane, Istio's default.
pub const AUDIENCE: &str = "istio-ca";

/// The longest token that is looked at.
const TOKEN: usize = 16 * 1024;

/// How far clocks may disagree, seconds.
const SKEW: u64 = 10;

/// What a token says, once verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Namespace of the service account.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// Name of the pod that the token is bound to; empty where it is bound to none.
    pub pod_name: String,
    /// Its uid.
    pub pod_uid: String,
    /// The node that the pod runs on; empty where it is not said.
    pub node: String,
}

/// Why a token was refused. Says nothing of its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("token refused: {0}")]
pub struct TokenError(String);

#[derive(Serialize, Deserialize)]
struct Body {
    iss: String,
    sub: String,
    aud: Vec<String>,
    exp: u64,
    nbf: u64,
    iat: u64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Serialize, Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Named,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Named>,
}

#[derive(Serialize, Deserialize)]
struct Named {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uid: String,
}

/// Issues tokens. Its key never leaves it.
pub struct Issuer {
    key: EncodingKey,
    jwks: String,
    key_id: String,
    name: String,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Issuer {
    /// An issuer of that name (`iss`) with a new key.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(name: &str) -> Result<Self, String> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| e.to_string())?;
        // An uncompressed point: 04, x, y.
        let (x, y) = pair
            .der_bytes()
            .get(1..65)
            .map(|xy| xy.split_at(32))
            .ok_or("not a P-256 key")?;
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let key_id = x.chars().take(12).collect::<String>();
        let jwks = serde_json::json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": key_id, "x": x, "y": y,
        }]});
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        Ok(Self {
            key,
            jwks: jwks.to_string(),
            key_id,
            name: name.to_owned(),
        })
    }

    /// The public keys, for verifiers.
    pub fn jwks(&self) -> &str {
        &self.jwks
    }

    /// A token for `claims`, good from `now` (seconds since 1970) for `lifetime`.
    ///
    /// # Errors
    /// Signing failed.
    pub fn issue(
        &self,
        claims: &Claims,
        audience: &str,
        now: u64,
        lifetime: Duration,
    ) -> Result<String, String> {
        let named = |name: &str, uid: &str| {
            (!name.is_empty()).then(|| Named {
                name: name.to_owned(),
                uid: uid.to_owned(),
            })
        };
        let body = Body {
            iss: self.name.clone(),
            sub: format!(
                "system:serviceaccount:{}:{}",
                claims.namespace, claims.service_account
            ),
            aud: vec![audience.to_owned()],
            exp: now.saturating_add(lifetime.as_secs()),
            nbf: now,
            iat: now,
            kubernetes: Kubernetes {
                namespace: claims.namespace.clone(),
                serviceaccount: Named {
                    name: claims.service_account.clone(),
                    uid: String::new(),
                },
                pod: named(&claims.pod_name, &claims.pod_uid),
                node: named(&claims.node, ""),
            },
        };
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        jsonwebtoken::encode(&header, &body, &self.key).map_err(|e| e.to_string())
    }
}

/// Judges tokens.
#[derive(Clone)]
pub struct Verifier {
    keys: JwkSet,
    issuer: String,
    audience: String,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier for tokens of `issuer`, made for `audience`, signed by a key of the JWKS text.
    ///
    /// # Errors
    /// The text is not a JWKS, or holds no key that may sign tokens.
    pub fn new(jwks: &str, issuer: &str, audience: &str) -> Result<Self, TokenError> {
        let keys: JwkSet = serde_json::from_str(jwks).map_err(|e| TokenError(format!("key set: {e}")))?;
        if keys.keys.is_empty() {
            return Err(TokenError("the key set is empty".to_owned()));
        }
        Ok(Self {
            keys,
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
        })
    }

    /// Verifies a token at the time `now` (seconds since 1970).
    ///
    /// # Errors
    /// It is malformed, not signed by a known key, for others, expired, or not yet valid.
    pub fn verify(&self, token: &str, now: u64) -> Result<Claims, TokenError> {
        let refused = |why: &str| TokenError(why.to_owned());
        if token.len() > TOKEN {
            return Err(refused("too long"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| refused("malformed"))?;
        let algorithm @ (Algorithm::ES256 | Algorithm::RS256) = header.alg else {
            return Err(refused("its algorithm is not taken"));
        };
        let key = self
            .key(header.kid.as_deref())
            .ok_or_else(|| refused("its key is not known"))?;
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        // Time is judged below, by the clock that the caller gives.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let key = DecodingKey::from_jwk(key).map_err(|_| refused("its key is not usable"))?;
        let body = jsonwebtoken::decode::<Body>(token, &key, &validation)
            .map_err(|e| TokenError(format!("{:?}", e.kind())))?
            .claims;
        if now >= body.exp.saturating_add(SKEW) {
            return Err(refused("expired"));
        }
        if now.saturating_add(SKEW) < body.nbf {
            return Err(refused("not yet valid"));
        }
        claims(body)
    }

    fn key(&self, kid: Option<&str>) -> Option<&Jwk> {
        match kid {
            Some(kid) => self.keys.find(kid),
            None => None,
        }
    }
}

fn claims(body: Body) -> Result<Claims, TokenError> {
    let (namespace, service_account) = (body.kubernetes.namespace, body.kubernetes.serviceaccount.name);
    if body.sub != format!("system:serviceaccount:{namespace}:{service_account}") {
        return Err(TokenError("subject and service account differ".to_owned()));
    }
    let pod = body.kubernetes.pod.unwrap_or(Named {
        name: String::new(),
        uid: String::new(),
    });
    let node = body.kubernetes.node.map(|n| n.name).unwrap_or_default();
    Ok(Claims {
        namespace,
        service_account,
        pod_name: pod.name,
        pod_uid: pod.uid,
        node,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Claims {
        Claims {
            namespace: "full".to_owned(),
            service_account: "sleep".to_owned(),
            pod_name: "sleep-1".to_owned(),
            pod_uid: "u".to_owned(),
            node: "node-0".to_owned(),
        }
    }

    fn check(audience: &str, age: u64, expect: &str) {
        let issuer = Issuer::new("https://mesh").unwrap();
        let verifier = Verifier::new(issuer.jwks(), "https://mesh", AUDIENCE).unwrap();
        let token = issuer
            .issue(&sample(), audience, 1_000_000, Duration::from_secs(600))
            .unwrap();
        match verifier.verify(&token, 1_000_000_u64.wrapping_add(age)) {
            Ok(claims) => assert_eq!((claims, expect), (sample(), "")),
            Err(error) => assert_eq!(error.to_string(), format!("token refused: {expect}")),
        }
    }

    #[test]
    fn id_04_tokens() {
        check(AUDIENCE, 0, "");
        check(AUDIENCE, 605, "");
        check(AUDIENCE, 610, "expired");
        check(AUDIENCE, 0_u64.wrapping_sub(11), "not yet valid");
        check("https://kubernetes.default.svc", 0, "InvalidAudience");
    }

    #[test]
    fn id_04_foreign_keys_and_algorithms() {
        let (ours, theirs) = (
            Issuer::new("https://mesh").unwrap(),
            Issuer::new("https://mesh").unwrap(),
        );
        let verifier = Verifier::new(ours.jwks(), "https://mesh", AUDIENCE).unwrap();
        let token = theirs
            .issue(&sample(), AUDIENCE, 1, Duration::from_secs(600))
            .unwrap();
        assert_eq!(
            verifier.verify(&token, 1).unwrap_err().to_string(),
            "token refused: its key is not known"
        );
        let other = Issuer::new("https://other").unwrap();
        let verifier = Verifier::new(other.jwks(), "https://mesh", AUDIENCE).unwrap();
        let token = other
            .issue(&sample(), AUDIENCE, 1, Duration::from_secs(600))
            .unwrap();
        assert_eq!(
            verifier.verify(&token, 1).unwrap_err().to_string(),
            "token refused: InvalidIssuer"
        );
        let body = token.split('.').nth(1).unwrap();
        for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS256","kid":"x"}"#] {
            let forged = format!("{}.{body}.", URL_SAFE_NO_PAD.encode(header));
            assert!(verifier.verify(&forged, 1).is_err());
        }
    }

    proptest! {
        #[test]
        fn verifying_never_panics(token in ".{0,200}") {
            let issuer = Issuer::new("i").unwrap();
            let verifier = Verifier::new(issuer.jwks(), "i", AUDIENCE).unwrap();
            prop_assert!(verifier.verify(&token, 0).is_err());
        }
    }
}
