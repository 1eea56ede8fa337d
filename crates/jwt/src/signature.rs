//! Signatures: algorithms by name, and one key that verifies by some of them (RFC 7518, RFC 8037).

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};

/// What `alg` may be. `none` is no algorithm (JW-39).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
    Hs256,
    Hs384,
    Hs512,
}

impl Algorithm {
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "EdDSA" => Self::EdDsa,
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            _ => return None,
        })
    }

    pub(crate) fn is_hmac(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

/// A curve with the algorithm that it is for and the length of a coordinate, bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Curve {
    algorithm: Algorithm,
    length: usize,
    parameters: &'static signature::EcdsaVerificationAlgorithm,
}

impl Curve {
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "P-256" => Self {
                algorithm: Algorithm::Es256,
                length: 32,
                parameters: &signature::ECDSA_P256_SHA256_FIXED,
            },
            "P-384" => Self {
                algorithm: Algorithm::Es384,
                length: 48,
                parameters: &signature::ECDSA_P384_SHA384_FIXED,
            },
            "P-521" => Self {
                algorithm: Algorithm::Es512,
                length: 66,
                parameters: &signature::ECDSA_P521_SHA512_FIXED,
            },
            _ => return None,
        })
    }

    /// The curve that a key has where only its algorithm is said.
    pub(crate) fn of_algorithm(algorithm: Option<Algorithm>) -> Option<Self> {
        Self::of_name(match algorithm {
            None | Some(Algorithm::Es256) => "P-256",
            Some(Algorithm::Es384) => "P-384",
            Some(Algorithm::Es512) => "P-521",
            Some(_) => return None,
        })
    }

    pub(crate) fn algorithm(self) -> Algorithm {
        self.algorithm
    }
}

/// The algorithms that a key verifies, each with what does it.
#[derive(Default)]
pub(crate) struct Verifier(Vec<(Algorithm, Way)>);

enum Way {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(a, _)| a)).finish()
    }
}

/// Moduli below this are refused in strict mode, bits (NIST SP 800-131A).
const MIN_RSA: usize = 2048;
/// Moduli below this, and beyond the other, are refused always, bits.
const LEAST_RSA: usize = 1024;
const MAX_RSA: usize = 8192;

impl Verifier {
    /// An RSA key, from its modulus and exponent, big-endian.
    ///
    /// # Errors
    /// It is no key, too small (2048 bits in strict mode, else 1024), larger than 8192 bits, or its exponent is neither
    /// 3 nor 65537 (all that Envoy takes).
    pub(crate) fn rsa(
        n: &[u8],
        e: &[u8],
        alg: Option<Algorithm>,
        strict: bool,
    ) -> Result<Self, &'static str> {
        use Algorithm as A;
        let (n, e) = (without_zeros(n), without_zeros(e));
        if e != [3] && e != [1, 0, 1] {
            return Err("has an exponent that is neither 3 nor 65537");
        }
        let first = n.first().map_or(0, |first| first.leading_zeros() as usize);
        let bits = (n.len() * 8).saturating_sub(first);
        if bits < if strict { MIN_RSA } else { LEAST_RSA } {
            return Err("has a modulus that is too small");
        }
        if bits > MAX_RSA || n.last().is_none_or(|last| last % 2 == 0) {
            return Err("has a modulus that is not one of an RSA key");
        }
        if strict && is_roca(n) {
            return Err("has a modulus whose factors can be found (CVE-2017-15361)");
        }
        let small = bits < MIN_RSA;
        let ways: &[(A, &'static RsaParameters)] = if small {
            &[
                (
                    A::Rs256,
                    &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
                ),
                (
                    A::Rs512,
                    &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
                ),
            ]
        } else {
            &[
                (A::Rs256, &signature::RSA_PKCS1_2048_8192_SHA256),
                (A::Rs384, &signature::RSA_PKCS1_2048_8192_SHA384),
                (A::Rs512, &signature::RSA_PKCS1_2048_8192_SHA512),
                (A::Ps256, &signature::RSA_PSS_2048_8192_SHA256),
                (A::Ps384, &signature::RSA_PSS_2048_8192_SHA384),
                (A::Ps512, &signature::RSA_PSS_2048_8192_SHA512),
            ]
        };
        let components = RsaPublicKeyComponents { n, e };
        let mut verifier = Self::default();
        for (algorithm, parameters) in ways {
            if alg.is_none_or(|alg| alg == *algorithm) {
                let key = components.to_parsed_public_key(parameters);
                let key = key.map_err(|_| "is not an RSA key")?;
                verifier.0.push((*algorithm, Way::Public(key)));
            }
        }
        verifier.some("has an `alg` that is not for an RSA key of its size")
    }

    /// A key on a curve, from its coordinates, big-endian; shorter ones are filled up with zeros.
    ///
    /// # Errors
    /// A coordinate is too long, or the point is not on the curve.
    pub(crate) fn ec(curve: Curve, x: &[u8], y: &[u8]) -> Result<Self, &'static str> {
        // SEC 1, 2.3.3: an uncompressed point.
        let mut point = vec![4];
        for part in [x, y] {
            let missing = curve.length.checked_sub(part.len());
            point.resize(
                point.len() + missing.ok_or("has a coordinate that is too long")?,
                0,
            );
            point.extend_from_slice(part);
        }
        let key = ParsedPublicKey::new(curve.parameters, &point);
        let key = key.map_err(|_| "has coordinates that are no point of its curve")?;
        Ok(Self(vec![(curve.algorithm, Way::Public(key))]))
    }

    /// An Ed25519 key.
    ///
    /// # Errors
    /// It is not 32 bytes of one.
    pub(crate) fn ed25519(x: &[u8]) -> Result<Self, &'static str> {
        let key = ParsedPublicKey::new(&signature::ED25519, x);
        let key = key.map_err(|_| "is not an Ed25519 key")?;
        Ok(Self(vec![(Algorithm::EdDsa, Way::Public(key))]))
    }

    /// A symmetric key. In strict mode it is as long as the digest (RFC 7518, 3.2).
    ///
    /// # Errors
    /// It is empty or too short.
    pub(crate) fn secret(k: &[u8], alg: Option<Algorithm>, strict: bool) -> Result<Self, &'static str> {
        let ways = [
            (Algorithm::Hs256, hmac::HMAC_SHA256, 32),
            (Algorithm::Hs384, hmac::HMAC_SHA384, 48),
            (Algorithm::Hs512, hmac::HMAC_SHA512, 64),
        ];
        if k.is_empty() {
            return Err("is empty");
        }
        let mut verifier = Self::default();
        for (algorithm, digest, least) in ways {
            if alg.is_none_or(|alg| alg == algorithm) && (!strict || k.len() >= least) {
                verifier
                    .0
                    .push((algorithm, Way::Secret(Box::new(hmac::Key::new(digest, k)))));
            }
        }
        verifier.some("is too short, or has an `alg` that is not for its `kty`")
    }

    fn some(self, why: &'static str) -> Result<Self, &'static str> {
        if self.0.is_empty() { Err(why) } else { Ok(self) }
    }

    /// Whether `signature` is one of `message`; `None` where the key is not for the algorithm, so that nothing is tried.
    pub(crate) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Option<bool> {
        let (_, way) = self.0.iter().find(|(known, _)| *known == algorithm)?;
        Some(match way {
            Way::Public(key) => key.verify_sig(message, signature).is_ok(),
            Way::Secret(key) => hmac::verify(key, message, signature).is_ok(),
        })
    }
}

/// Whether a modulus bears the mark of the generator of CVE-2017-15361 ("ROCA"): modulo each of these primes it is a power
/// of 65537. Of other moduli fewer than one in a hundred million does.
fn is_roca(n: &[u8]) -> bool {
    const PRIMES: [u32; 17] = [
        11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157,
    ];
    PRIMES.iter().all(|prime| {
        let rest = n
            .iter()
            .fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let powers = std::iter::successors(Some(1), |power| Some(power * 65_537 % prime));
        powers.take(*prime as usize).any(|power| power == rest)
    })
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}
