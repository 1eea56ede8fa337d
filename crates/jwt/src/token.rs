//! A token taken apart: JWS compact form (RFC 7515, 7.1) and the claims that every token may have (RFC 7519, 4.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::json;
use crate::signature::Algorithm;

/// The longest token that is looked at, bytes.
pub const MAX_TOKEN: usize = 16 * 1024;

/// Three parts, of which the header is read.
#[derive(Debug)]
pub(crate) struct Jws<'a> {
    /// What the signature is over: the first two parts and their dot.
    pub(crate) signed: &'a str,
    pub(crate) algorithm: Algorithm,
    /// Never empty.
    pub(crate) kid: Option<String>,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Jws<'a> {
    /// Takes the parts and reads the header. `strict` also looks at `typ`.
    ///
    /// # Errors
    /// In Envoy's order: form, base64, JSON, `alg`, `kid`; then what Envoy does not look at: `crit`, `typ`.
    pub(crate) fn parse(text: &'a str, strict: bool) -> Result<Self, Fault> {
        if text.len() > MAX_TOKEN {
            return Err(Fault::Format);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Fault::Format)?;
        let (header, payload) = signed.split_once('.').ok_or(Fault::Format)?;
        if header.is_empty() || payload.is_empty() || signature.is_empty() || payload.contains('.') {
            return Err(Fault::Format);
        }
        let header = decode(header).ok_or(Fault::HeaderBase64)?;
        let Ok(Value::Object(header)) = json::parse(&header) else {
            return Err(Fault::HeaderJson);
        };
        let algorithm = header.get("alg").and_then(Value::as_str);
        let algorithm = Algorithm::of_name(algorithm.ok_or(Fault::HeaderAlg)?).ok_or(Fault::Algorithm)?;
        let kid = text_of(&header, "kid").map_err(|Kind| Fault::HeaderKid)?;
        if header.contains_key("crit") {
            return Err(Fault::HeaderCrit);
        }
        if strict && !header.get("typ").is_none_or(is_access_token) {
            return Err(Fault::HeaderTyp);
        }
        Ok(Self {
            signed,
            algorithm,
            kid: kid.filter(|kid| !kid.is_empty()).map(str::to_owned),
            payload,
            signature,
        })
    }

    /// The payload's bytes.
    pub(crate) fn payload(&self) -> Result<Vec<u8>, Fault> {
        decode(self.payload).ok_or(Fault::PayloadBase64)
    }

    /// The signature's bytes.
    pub(crate) fn signature(&self) -> Result<Vec<u8>, Fault> {
        decode(self.signature).ok_or(Fault::SignatureBase64)
    }
}

/// A JWS whose payload is a claims set.
#[derive(Debug)]
pub(crate) struct Token<'a> {
    pub(crate) jws: Jws<'a>,
    pub(crate) signature: Vec<u8>,
    pub(crate) payload: Map<String, Value>,
    /// Seconds since 1970, fractions cut off.
    pub(crate) not_before: Option<u64>,
    /// Seconds since 1970, fractions cut off.
    pub(crate) expires: Option<u64>,
}

impl<'a> Token<'a> {
    /// Reads a token. Nothing of it is proven yet.
    ///
    /// # Errors
    /// Those of [`Jws::parse`], then the payload and its claims, then the signature's form: Envoy's order.
    pub(crate) fn parse(text: &'a str, strict: bool) -> Result<Self, Fault> {
        let jws = Jws::parse(text, strict)?;
        let payload = jws.payload()?;
        let Ok(Value::Object(payload)) = json::parse(&payload) else {
            return Err(Fault::PayloadJson);
        };
        text_of(&payload, "iss").map_err(|Kind| Fault::PayloadIss)?;
        text_of(&payload, "sub").map_err(|Kind| Fault::PayloadSub)?;
        seconds(&payload, "iat", Fault::PayloadIat, Fault::PayloadIatRange)?;
        let not_before = seconds(&payload, "nbf", Fault::PayloadNbf, Fault::PayloadNbfRange)?;
        let expires = seconds(&payload, "exp", Fault::PayloadExp, Fault::PayloadExpRange)?;
        text_of(&payload, "jti").map_err(|Kind| Fault::PayloadJti)?;
        let audiences = match payload.get("aud") {
            None | Some(Value::String(_)) => true,
            Some(Value::Array(list)) => list.iter().all(Value::is_string),
            Some(_) => false,
        };
        if !audiences {
            return Err(Fault::PayloadAud);
        }
        let signature = jws.signature()?;
        Ok(Self {
            jws,
            signature,
            payload,
            not_before,
            expires,
        })
    }

    /// `iss`; empty where absent.
    pub(crate) fn issuer(&self) -> &str {
        self.payload
            .get("iss")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// `aud`, whether it is written as a string or as a list.
    pub(crate) fn audiences(&self) -> impl Iterator<Item = &str> {
        let (one, many) = match self.payload.get("aud") {
            Some(Value::String(one)) => (Some(one.as_str()), None),
            Some(Value::Array(many)) => (None, Some(many)),
            _ => (None, None),
        };
        one.into_iter()
            .chain(many.into_iter().flatten().filter_map(Value::as_str))
    }
}

/// The second of a token's parts, as it stands there.
pub(crate) fn payload_part(token: &str) -> &str {
    token.split('.').nth(1).unwrap_or_default()
}

/// Whether a text has the outer form of a token. Nothing is decoded.
pub(crate) fn looks_like_one(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.starts_with("eyJ") && text.split('.').count() == 3 && text.split('.').all(part)
}

/// A member that is there and not of the kind that it must be of.
struct Kind;

fn text_of<'m>(map: &'m Map<String, Value>, name: &str) -> Result<Option<&'m str>, Kind> {
    match map.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Kind),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "in range, and fractions of seconds are cut off"
)]
fn seconds(map: &Map<String, Value>, name: &str, kind: Fault, range: Fault) -> Result<Option<u64>, Fault> {
    let number = match map.get(name) {
        None => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err(kind),
    };
    if let Some(seconds) = number.as_u64() {
        return Ok(Some(seconds));
    }
    match number.as_f64() {
        // 2 to the power of 64.
        Some(seconds) if (0.0..18_446_744_073_709_551_616.0).contains(&seconds) => Ok(Some(seconds as u64)),
        _ => Err(range),
    }
}

/// `typ` of an access token: RFC 7519, 5.1; RFC 9068, 2.1; and issuers' own kinds of `at+jwt`.
fn is_access_token(typ: &Value) -> bool {
    let Some(typ) = typ.as_str() else {
        return false;
    };
    let typ = typ.to_ascii_lowercase();
    let typ = typ.strip_prefix("application/").unwrap_or(&typ);
    typ == "jwt" || typ == "at+jwt" || typ.ends_with("-at+jwt")
}

/// Base64url without padding, in its one canonical form: no spare bits, nothing else in between.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}
