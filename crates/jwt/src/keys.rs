//! Key sets (RFC 7517), read strictly: what cannot be used is left out and named, never guessed at.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::json;
use crate::signature::{Algorithm, Curve, Verifier};
use crate::token::{Jws, decode};

/// The longest text of a key set, bytes.
pub const MAX_JWKS: usize = 512 * 1024;

/// The most keys of a set.
pub const MAX_KEYS: usize = 100;

/// The most keys that one token is tried by; more than one only where it names none.
pub const MAX_TRIED: usize = 32;

/// The longest `kid` that a message quotes, characters.
const MAX_SHOWN: usize = 80;

/// A key set, ready to verify with.
#[derive(Debug, Default)]
pub struct Keys {
    keys: Vec<Key>,
    problems: Vec<KeyProblem>,
}

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    alg: Option<Algorithm>,
    verifier: Verifier,
}

/// A key that is not used, or that ought to be looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyProblem {
    /// Its place in `keys`, from 0.
    pub place: usize,
    /// Its `kid`, cut to 80 characters.
    pub kid: Option<String>,
    /// What is wrong, in words that follow "the key".
    pub why: &'static str,
    /// Whether the key is left out. Where not, it is used all the same.
    pub skipped: bool,
}

impl Keys {
    /// Reads a set. `strict` also demands RSA moduli of 2048 bits, symmetric keys as long as their digest and not beside
    /// public ones, and honours `use` and `key_ops`, which Istio does not look at (semantics 4.3).
    ///
    /// A set without one usable key is no error here: [`Self::is_empty`] says so and [`Self::problems`] why.
    ///
    /// # Errors
    /// It is too long, not JSON, or has no list `keys`.
    pub fn parse(text: &str, strict: bool) -> Result<Self, &'static str> {
        if text.len() > MAX_JWKS {
            return Err("the key set is too long");
        }
        let set =
            json::parse(text.as_bytes()).map_err(|_| "the key set is not JSON, or names a member twice")?;
        let list = set.get("keys").ok_or("the key set has no `keys`")?;
        let list = list.as_array().ok_or("`keys` of the key set is not a list")?;
        let mixed =
            strict && list.iter().any(|key| kty(key) == "oct") && list.iter().any(|key| kty(key) != "oct");
        let mut keys = Self::default();
        let mut seen = BTreeSet::new();
        for (place, jwk) in list.iter().enumerate() {
            let read = if place >= MAX_KEYS {
                Err("is beyond the most that a set may have")
            } else if !seen.insert(jwk.to_string()) {
                Err("is there twice")
            } else if mixed && kty(jwk) == "oct" {
                Err("is symmetric, in a set that has public keys")
            } else {
                read(jwk, strict)
            };
            let mut problem = |why, skipped| {
                keys.problems.push(KeyProblem {
                    place,
                    kid: jwk.get("kid").and_then(Value::as_str).map(shown),
                    why,
                    skipped,
                });
            };
            match read {
                Err(why) => problem(why, true),
                Ok(key) => {
                    if kty(jwk) != "oct" && jwk.get("d").is_some() {
                        problem("has its private half in the set", false);
                    }
                    keys.keys.push(key);
                }
            }
        }
        Ok(keys)
    }

    /// Whether no key can be used.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// What is wrong with single keys.
    pub fn problems(&self) -> &[KeyProblem] {
        &self.problems
    }

    /// Verifies a JWS in compact form by these keys: its header and signature, not what it says. Symmetric algorithms
    /// only with `allow_hmac`.
    ///
    /// # Errors
    /// It is not one, or no key verifies it.
    pub fn verify_jws(&self, text: &str, allow_hmac: bool) -> Result<(), Fault> {
        let jws = Jws::parse(text, false)?;
        jws.payload()?;
        let signature = jws.signature()?;
        self.verify(&jws, &signature, allow_hmac).0
    }

    /// Tries the keys that a token may be verified by, and says how many signatures were computed.
    pub(crate) fn verify(
        &self,
        jws: &Jws<'_>,
        signature: &[u8],
        allow_hmac: bool,
    ) -> (Result<(), Fault>, usize) {
        if jws.algorithm.is_hmac() && !allow_hmac {
            return (Err(Fault::Algorithm), 0);
        }
        if self.is_empty() {
            return (Err(Fault::NoValidKeys), 0);
        }
        let (mut matched, mut tried) = (false, 0);
        for key in &self.keys {
            let kid = jws.kid.is_none() || key.kid.is_none() || key.kid == jws.kid;
            if !kid || key.alg.is_some_and(|alg| alg != jws.algorithm) {
                continue;
            }
            matched = true;
            let Some(good) = key
                .verifier
                .verify(jws.algorithm, jws.signed.as_bytes(), signature)
            else {
                continue;
            };
            tried += 1;
            if good {
                return (Ok(()), tried);
            }
            if tried == MAX_TRIED {
                break;
            }
            if jws.algorithm == Algorithm::EdDsa && signature.len() != 64 {
                return (Err(Fault::Ed25519Length), tried);
            }
        }
        let fault = if matched {
            Fault::Verification
        } else {
            Fault::NoMatchingKey
        };
        (Err(fault), tried)
    }
}

fn kty(jwk: &Value) -> &str {
    jwk.get("kty").and_then(Value::as_str).unwrap_or_default()
}

fn shown(kid: &str) -> String {
    kid.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

fn read(jwk: &Value, strict: bool) -> Result<Key, &'static str> {
    let jwk = jwk.as_object().ok_or("is not an object")?;
    let kty = match jwk.get("kty") {
        None => return Err("has no `kty`"),
        Some(kty) => kty.as_str().ok_or("has a `kty` that is not a string")?,
    };
    let text = |name: &str| {
        jwk.get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let unusable = |name: &str| strict && jwk.get(name).is_some_and(|value| !value.is_string());
    if unusable("kid") || unusable("alg") {
        return Err("has a `kid` or `alg` that is not a string");
    }
    if strict && jwk.get("use").is_some_and(|usage| usage.as_str() != Some("sig")) {
        return Err("is not for signatures (`use`)");
    }
    if strict && jwk.get("key_ops").is_some_and(|ops| !verifies(ops)) {
        return Err("is not for verifying (`key_ops`)");
    }
    let alg = match text("alg") {
        None => None,
        Some(name) => Some(Algorithm::of_name(name).ok_or("has an `alg` that is not supported")?),
    };
    let verifier = match kty {
        "RSA" => Verifier::rsa(&bytes(jwk, "n", strict)?, &bytes(jwk, "e", strict)?, alg, strict),
        "EC" => ec(jwk, alg, strict),
        "OKP" => okp(jwk, alg, strict),
        "oct" => Verifier::secret(&bytes(jwk, "k", strict)?, alg, strict),
        _ => Err("has a `kty` that is not supported"),
    };
    Ok(Key {
        kid: text("kid").map(str::to_owned),
        alg,
        verifier: verifier?,
    })
}

fn verifies(ops: &Value) -> bool {
    ops.as_array()
        .is_some_and(|ops| ops.iter().any(|op| op.as_str() == Some("verify")))
}

fn ec(jwk: &Map<String, Value>, alg: Option<Algorithm>, strict: bool) -> Result<Verifier, &'static str> {
    let curve = match jwk.get("crv") {
        None => Curve::of_algorithm(alg),
        Some(name) => Curve::of_name(name.as_str().ok_or("has a `crv` that is not a string")?),
    };
    let curve = curve.ok_or("has a `crv` or `alg` that is not supported")?;
    if alg.is_some_and(|alg| alg != curve.algorithm()) {
        return Err("has a `crv` that is not the one of its `alg`");
    }
    Verifier::ec(curve, &bytes(jwk, "x", strict)?, &bytes(jwk, "y", strict)?)
}

fn okp(jwk: &Map<String, Value>, alg: Option<Algorithm>, strict: bool) -> Result<Verifier, &'static str> {
    if alg.is_some_and(|alg| alg != Algorithm::EdDsa) {
        return Err("has an `alg` that is not for its `kty`");
    }
    if jwk.get("crv").and_then(Value::as_str) != Some("Ed25519") {
        return Err("has a `crv` that is not supported");
    }
    Verifier::ed25519(&bytes(jwk, "x", strict)?)
}

/// A number of a key. Padding, which RFC 7518 forbids and some issuers write, is passed over without strict mode.
fn bytes(jwk: &Map<String, Value>, name: &str, strict: bool) -> Result<Vec<u8>, &'static str> {
    let text = jwk.get(name).and_then(Value::as_str);
    let text = text.ok_or("lacks a number of its `kty`, or it is not a string")?;
    let text = if strict { text } else { text.trim_end_matches('=') };
    decode(text).ok_or("has a number that is not base64url")
}
