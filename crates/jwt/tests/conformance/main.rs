//! Tokens and keys that others wrote: Istio's own, jwt_verify_lib's (what Envoy verifies with), Wycheproof's, RFC 7520's.
//!
//! `MESHWARD_CONFORMANCE` names the directory of the data, `MESHWARD_CONFORMANCE_SETS` the sets to run.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test stops where it fails"
)]

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwt::{AuthenticationSpec, Authenticator, Fault, KeySource, Keys, Memory, RequestView, RuleSpec};
use policy::{Origin, PolicyId};
use serde_json::{Value, json};
use testkit::conformance::{self, Tally};

/// Where the data names no time: after all tokens were issued and before any good one expires.
const NOW: u64 = 1_700_000_000;

const PEM: &str = "keys in PEM, for which the API has no field";
const X509: &str = "certificates instead of `keys`, which Istio refuses where it fetches";
const EMPTY: &str = "an empty payload, which is no JWT";
const OTHER_ALG: &str = "a key that names another algorithm than the token, which Istio refuses";
const CANONICAL: &str = "a token that says of itself that it is padded, and is not as it is stored";
const SKIPPED_CHARACTER: &str = "base64url with characters in between, which is refused here";

/// A request with a token in the default place.
struct Bearer(String);

impl RequestView for Bearer {
    fn method(&self) -> &'static str {
        "GET"
    }

    fn path(&self) -> &'static str {
        "/"
    }

    fn authority(&self) -> &'static str {
        "a"
    }

    fn header(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        name == "authorization" && visit(format!("Bearer {}", self.0).as_bytes())
    }
}

/// The claims, without any proof; null where they cannot be read.
fn payload(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// An authenticator for the token's issuer and those keys.
fn authenticator(token: &str, keys: &str, strict: bool) -> Authenticator {
    let rule = json!({
        "issuer": payload(token)["iss"].as_str().unwrap_or_default(),
        "keys": {"inline": keys},
        "allow_hmac": true,
        "allow_missing_exp": true,
    });
    let mut rule: RuleSpec = serde_json::from_value(rule).unwrap();
    rule.keys = KeySource::Inline(keys.to_owned());
    let spec = AuthenticationSpec {
        id: PolicyId {
            namespace: "ns".to_owned(),
            name: "ra".to_owned(),
        },
        rules: vec![rule],
        invalid: None,
        origin: Origin::default(),
    };
    Authenticator::compile(&[Arc::new(spec)], &[], &|_| None, strict)
}

/// The text of the refusal; empty where it passes.
fn answer(authenticator: &Authenticator, token: &str, now: u64) -> &'static str {
    let answer = authenticator.authenticate(&Bearer(token.to_owned()), now, &Memory::default());
    answer.map_or_else(|rejection| rejection.text, |_| "")
}

/// Accepts nothing of a token that was changed: every bit of every byte, every cut, every doubled byte. With each change
/// a signature may be computed, so that of slow algorithms only each seventh byte of header and payload is changed.
fn mutations(token: &str, accepted: impl Fn(&str) -> bool) -> Result<usize, String> {
    let signature = token.rfind('.').unwrap_or_default();
    let mut tried = 0;
    for at in 0..token.len() {
        tried += 1;
        if accepted(&token[..at]) {
            return Err(format!("cut at {at}"));
        }
        if at < signature && at % 7 != 0 {
            continue;
        }
        for bit in 0..7 {
            let mut bytes = token.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            tried += 1;
            if std::str::from_utf8(&bytes).is_ok_and(&accepted) {
                return Err(format!("bit {bit} of {at}"));
            }
        }
        let mut doubled = token.to_owned();
        doubled.insert_str(at, &token[at..=at]);
        tried += 1;
        if accepted(&doubled) {
            return Err(format!("doubled at {at}"));
        }
    }
    Ok(tried)
}

fn text<'c>(case: &'c Value, name: &str) -> &'c str {
    case[name].as_str().unwrap_or_default()
}

fn verify(dir: &Path, case: &Value, tally: &mut Tally) {
    let (id, token) = (text(case, "id"), text(case, "token"));
    if case["jwks_type"] == "PEM" {
        return tally.not_applicable(PEM);
    }
    let keys = match case["keys_file"].as_str() {
        Some(file) => std::fs::read_to_string(dir.join(file)).unwrap(),
        None => text(case, "jwks").to_owned(),
    };
    if serde_json::from_str(&keys).is_ok_and(|set: Value| set.get("keys").is_none()) {
        return tally.not_applicable(X509);
    }
    let now = case["now"].as_u64().unwrap_or(NOW);
    let found = answer(&authenticator(token, &keys, false), token, now);
    let good = match (text(case, "result"), text(case, "status")) {
        ("valid", _) => found.is_empty(),
        ("expired", _) => found == Fault::Expired.text(),
        (_, "JwtVerificationFail") => found == Fault::Verification.text(),
        (_, "JwksKidAlgMismatch") => found == Fault::NoMatchingKey.text(),
        _ => !found.is_empty(),
    };
    if !good {
        return tally.fail(id, format!("`{found}`"));
    }
    if text(case, "result") == "valid" {
        let a = authenticator(token, &keys, false);
        if let Err(why) = mutations(token, |mutated| {
            // Envoy skips what no token can have before the first character of one.
            let same = mutated.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()) == token;
            !same && answer(&a, mutated, now).is_empty()
        }) {
            return tally.fail(id, format!("mutated and accepted: {why}"));
        }
    }
    tally.pass();
}

fn jws(case: &Value, tally: &mut Tally) {
    let (id, token, comment) = (text(case, "id"), text(case, "token"), text(case, "comment"));
    let key = &case["key"];
    let set = if key.get("keys").is_some() {
        key.clone()
    } else {
        json!({"keys": [key]})
    };
    let keys = Keys::parse(&set.to_string(), true);
    let accepted = |token: &str| {
        keys.as_ref()
            .is_ok_and(|keys| keys.verify_jws(token, true).is_ok())
    };
    let found = accepted(token);
    match text(case, "result") {
        "valid" if found => {
            if let Err(why) = mutations(token, accepted) {
                return tally.fail(id, format!("mutated and accepted: {why}"));
            }
        }
        "valid" if token.contains("..") => return tally.not_applicable(EMPTY),
        "valid" if names_another_algorithm(token, key) => return tally.not_applicable(OTHER_ALG),
        "valid" if case["policy"] == true => return tally.not_applicable(SKIPPED_CHARACTER),
        "invalid" if found && comment == "invalidBase64PaddingInPayload" => {
            return tally.not_applicable(CANONICAL);
        }
        "invalid" if !found => {}
        other => return tally.fail(id, format!("{comment}: {other} and {found}")),
    }
    // Unless a rule opts in, symmetric keys verify nothing.
    let symmetric = set["keys"]
        .as_array()
        .unwrap()
        .iter()
        .all(|key| key["kty"] == "oct");
    if symmetric && keys.is_ok_and(|keys| keys.verify_jws(token, false).is_ok()) {
        return tally.fail(id, "a symmetric signature without opt-in");
    }
    tally.pass();
}

fn names_another_algorithm(token: &str, key: &Value) -> bool {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap_or_default());
    let header: Value = serde_json::from_slice(&header.unwrap_or_default()).unwrap_or_default();
    key["alg"].is_string() && key["alg"] != header["alg"]
}

/// The text that Envoy has for a status of the library.
fn text_of_status(status: &str) -> Option<&'static str> {
    Some(match status {
        "JwtBadFormat" => Fault::Format.text(),
        "JwtHeaderParseErrorBadJson" => Fault::HeaderJson.text(),
        "JwtHeaderBadAlg" => Fault::HeaderAlg.text(),
        "JwtHeaderBadKid" => Fault::HeaderKid.text(),
        "JwtPayloadParseErrorBadBase64" => Fault::PayloadBase64.text(),
        "JwtPayloadParseErrorIatOutOfRange" => Fault::PayloadIatRange.text(),
        "JwtPayloadParseErrorNbfOutOfRange" => Fault::PayloadNbfRange.text(),
        "JwtPayloadParseErrorExpNotInteger" => Fault::PayloadExp.text(),
        "JwtPayloadParseErrorExpOutOfRange" => Fault::PayloadExpRange.text(),
        "JwtPayloadParseErrorAudNotString" => Fault::PayloadAud.text(),
        "JwtSignatureParseErrorBadBase64" => Fault::SignatureBase64.text(),
        _ => return None,
    })
}

/// What parses gets as far as the keys; what does not is answered with the library's own words.
fn parse_token(case: &Value, tally: &mut Tally) {
    let (id, token) = (text(case, "id"), text(case, "token"));
    let a = authenticator(token, r#"{"keys":[]}"#, false);
    // Within the lives of these tokens.
    let now = payload(token)["exp"].as_u64().unwrap_or(NOW);
    let found = answer(&a, token, now);
    let expected = match text(case, "result") {
        "valid" => Fault::NoValidKeys.text(),
        _ => text_of_status(text(case, "status")).unwrap_or_else(|| panic!("{id}: an unknown status")),
    };
    if found == expected {
        tally.pass();
    } else {
        tally.fail(id, format!("`{found}` instead of `{expected}`"));
    }
}

fn parse_jwks(case: &Value, tally: &mut Tally) {
    if case["jwks_type"] == "PEM" {
        return tally.not_applicable(PEM);
    }
    let usable = Keys::parse(text(case, "jwks"), false).is_ok_and(|keys| !keys.is_empty());
    match (text(case, "result"), usable) {
        ("valid", true) | ("invalid", false) => tally.pass(),
        ("valid", false) if text(case, "jwks").contains("BEGIN CERTIFICATE") => tally.not_applicable(X509),
        (expected, _) => tally.fail(text(case, "id"), format!("{expected}, and usable: {usable}")),
    }
}

#[test]
fn jwt() {
    let Some(dir) = conformance::set("jwt") else {
        return;
    };
    let data = conformance::json(&dir.join("cases.json"));
    let mut tally = Tally::default();
    for case in data["cases"].as_array().unwrap() {
        match text(case, "kind") {
            "verify" => verify(&dir, case, &mut tally),
            "jws" => jws(case, &mut tally),
            "parse-token" => parse_token(case, &mut tally),
            "parse-jwks" => parse_jwks(case, &mut tally),
            other => panic!("an unknown kind: {other}"),
        }
    }
    tally.finish("jwt");
}
