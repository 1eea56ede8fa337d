//! Service account tokens: audience-bound, expiring, signed JWTs with Kubernetes' claims. The [`Issuer`] plays
//! Kubernetes' TokenRequest on a machine without Kubernetes; the [`Verifier`] judges either's.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// The audience of tokens for the CA and the control plane, Istio's default.
pub const AUDIENCE: &str = "istio-ca";

/// Who issues tokens, where nothing else is said: Kubernetes' usual name for itself.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The longest token that is looked at, bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// The most keys of a set.
const MAX_KEYS: usize = 64;

/// The least size of an RSA modulus, bytes.
const MIN_RSA: usize = 256;

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
pub enum TokenError {
    /// It is not a JWT with the claims of a service account.
    #[error("token refused: malformed")]
    Malformed,
    /// It is signed by `none`, a shared secret or another algorithm that is not taken.
    #[error("token refused: its algorithm is not taken")]
    Algorithm,
    /// It names no key, or one that is not in the set.
    #[error("token refused: its key is not known")]
    UnknownKey,
    /// The signature is not by the key that it names.
    #[error("token refused: its signature is wrong")]
    Signature,
    /// It was issued by another issuer.
    #[error("token refused: it is from another issuer")]
    Issuer,
    /// It was made for others.
    #[error("token refused: it is for another audience")]
    Audience,
    /// It is past its end.
    #[error("token refused: it has expired")]
    Expired,
    /// It is before its beginning.
    #[error("token refused: it is not yet valid")]
    NotYetValid,
    /// `sub` is not the service account that it speaks of.
    #[error("token refused: its subject is not its service account")]
    Subject,
    /// The key set cannot be used.
    #[error("token keys: {0}")]
    KeySet(String),
}

#[derive(Serialize, Deserialize)]
struct Body {
    iss: String,
    sub: String,
    aud: Audiences,
    exp: u64,
    nbf: Option<u64>,
    iat: u64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

/// RFC 7519, 4.1.3: one text or a list of them.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Audiences {
    Many(Vec<String>),
    One(String),
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

#[derive(Default, Serialize, Deserialize)]
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
    /// An issuer of that name (`iss`) with a new ECDSA P-256 key.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(name: &str) -> Result<Self, String> {
        let mut pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| e.to_string())?;
        // An uncompressed point: 04, x, y.
        let (x, y) = pair
            .der_bytes()
            .get(1..65)
            .map(|xy| xy.split_at(32))
            .ok_or("not a P-256 key")?;
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let key_id = x.chars().take(16).collect::<String>();
        let jwks = serde_json::json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": key_id, "x": x, "y": y,
        }]});
        let key = EncodingKey::from_ec_der(&Zeroizing::new(pair.serialize_der()));
        pair.zeroize();
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
            sub: subject(&claims.namespace, &claims.service_account),
            aud: Audiences::Many(vec![audience.to_owned()]),
            exp: now.saturating_add(lifetime.as_secs()),
            nbf: Some(now),
            iat: now,
            kubernetes: Kubernetes {
                namespace: claims.namespace.clone(),
                serviceaccount: named(&claims.service_account, "").unwrap_or_default(),
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
    keys: BTreeMap<String, (Algorithm, DecodingKey)>,
    issuer: String,
    audience: String,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("keys", &self.keys.keys())
            .finish()
    }
}

impl Verifier {
    /// A verifier for tokens of `issuer`, made for `audience`, signed by a key of the JWKS text: ES256, or RS256 as
    /// Kubernetes itself signs. Keys of other kinds, without a name or not for signing are left out.
    ///
    /// # Errors
    /// The text is not a JWKS, names a key twice, or holds no key that may sign tokens: then there is no verifier, and
    /// nothing that would stand for one.
    pub fn new(jwks: &str, issuer: &str, audience: &str) -> Result<Self, TokenError> {
        let refused = |why: &str| TokenError::KeySet(why.to_owned());
        let set: JwkSet = serde_json::from_str(jwks).map_err(|e| TokenError::KeySet(e.to_string()))?;
        if set.keys.len() > MAX_KEYS {
            return Err(refused("too many keys"));
        }
        let mut keys = BTreeMap::new();
        for jwk in &set.keys {
            let (Some(name), Some(algorithm)) = (&jwk.common.key_id, algorithm(jwk)) else {
                continue;
            };
            let key = DecodingKey::from_jwk(jwk).map_err(|_| refused("a key is malformed"))?;
            if keys.insert(name.clone(), (algorithm, key)).is_some() {
                return Err(refused("two keys have one name"));
            }
        }
        if keys.is_empty() {
            return Err(refused("there is no key that tokens may be signed by"));
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
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|e| match e.kind() {
            ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => TokenError::Algorithm,
            _ => TokenError::Malformed,
        })?;
        if !matches!(header.alg, Algorithm::ES256 | Algorithm::RS256) {
            return Err(TokenError::Algorithm);
        }
        // RFC 7515, 4.1.11: an extension that is not understood makes the token invalid.
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let (algorithm, key) = header
            .kid
            .and_then(|kid| self.keys.get(&kid))
            .ok_or(TokenError::UnknownKey)?;
        // INVARIANT: the key says which algorithm it is for; what the token says is not believed.
        if *algorithm != header.alg {
            return Err(TokenError::Algorithm);
        }
        let mut validation = Validation::new(*algorithm);
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        // Time is judged below, by the clock that the caller gives.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let body = jsonwebtoken::decode::<Body>(token, key, &validation)
            .map_err(|e| match e.kind() {
                ErrorKind::InvalidSignature => TokenError::Signature,
                ErrorKind::InvalidIssuer => TokenError::Issuer,
                ErrorKind::InvalidAudience => TokenError::Audience,
                _ => TokenError::Malformed,
            })?
            .claims;
        if now >= body.exp.saturating_add(SKEW) {
            return Err(TokenError::Expired);
        }
        if now.saturating_add(SKEW) < body.nbf.unwrap_or(body.iat) {
            return Err(TokenError::NotYetValid);
        }
        claims(body)
    }
}

/// What a key may sign with, if it may sign tokens at all.
fn algorithm(jwk: &Jwk) -> Option<Algorithm> {
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::RSA(rsa) if modulus(&rsa.n) >= MIN_RSA => {
            (Algorithm::RS256, KeyAlgorithm::RS256)
        }
        _ => return None,
    };
    jwk.common
        .key_algorithm
        .is_none_or(|said| said == named)
        .then_some(algorithm)
}

/// The size of an RSA modulus, bytes without leading zeros.
fn modulus(base64: &str) -> usize {
    let bytes = URL_SAFE_NO_PAD.decode(base64).unwrap_or_default();
    bytes.iter().skip_while(|b| **b == 0).count()
}

fn subject(namespace: &str, service_account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{service_account}")
}

fn claims(body: Body) -> Result<Claims, TokenError> {
    let (namespace, service_account) = (body.kubernetes.namespace, body.kubernetes.serviceaccount.name);
    if namespace.is_empty() || service_account.is_empty() || body.sub != subject(&namespace, &service_account)
    {
        return Err(TokenError::Subject);
    }
    let pod = body.kubernetes.pod.unwrap_or_default();
    let node = body.kubernetes.node.unwrap_or_default();
    Ok(Claims {
        namespace,
        service_account,
        pod_name: pod.name,
        pod_uid: pod.uid,
        node: node.name,
    })
}

#[cfg(test)]
mod tests;
