//! One `jwtRules[]`, compiled: whose tokens it takes and by which keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use policy::PolicyId;

use crate::fault::Fault;
use crate::keys::Keys;
use crate::memory::{Digest, Memory, digest_of};
use crate::request::editable;
use crate::spec::{Jwks, KeySource, RuleSpec};
use crate::token::Token;

/// How far clocks may disagree, seconds; Envoy's.
pub const SKEW: u64 = 60;

/// Something that an operator ought to know: for status and metrics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The object.
    pub policy: PolicyId,
    /// The line that the rule starts on, 0 where unknown.
    pub line: u32,
    /// The rule's issuer.
    pub issuer: String,
    /// Where its keys are fetched; `None` where they are inline.
    pub source: Option<String>,
    /// What kind of problem.
    pub kind: ProblemKind,
    /// One sentence for people.
    pub why: String,
}

/// What a problem does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProblemKind {
    /// The rule has no usable key: every token of its issuer is refused (O-18).
    NoKeys,
    /// The last refresh failed; the keys from before are used.
    Stale,
    /// One key is left out.
    KeySkipped,
    /// One key is used and should not be as it is.
    KeyExposed,
    /// The issuer is empty, so that the rule takes no token (strict mode).
    Issuer,
    /// A header cannot be set or removed and stays as it is.
    Header,
}

/// A rule, ready to verify.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) issuer: String,
    pub(crate) fingerprint: Digest,
    pub(crate) forward: bool,
    /// Whether a request must carry a token that this rule takes.
    pub(crate) required: bool,
    pub(crate) payload_header: Option<String>,
    /// Header, and path of the claim.
    pub(crate) claim_headers: Vec<(String, String)>,
    pub(crate) delimited: Vec<String>,
    /// Whether an empty issuer takes any token: as Istio does.
    any_issuer: bool,
    audiences: BTreeSet<String>,
    keys: Result<Keys, Fault>,
    allow_hmac: bool,
    require_exp: bool,
}

impl Rule {
    /// Compiles a rule; what is wrong with it goes to `problems`.
    pub(crate) fn compile(
        policy: &PolicyId,
        spec: &RuleSpec,
        jwks: &dyn Fn(&str) -> Option<Arc<Jwks>>,
        strict: bool,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let source = match &spec.keys {
            KeySource::Inline(_) => None,
            KeySource::Fetched(source) => Some(source.clone()),
        };
        let mut problem = |kind, why| {
            problems.push(Problem {
                policy: policy.clone(),
                line: spec.line,
                issuer: spec.issuer.clone(),
                source: source.clone(),
                kind,
                why,
            });
        };
        if strict && spec.issuer.is_empty() {
            problem(
                ProblemKind::Issuer,
                "the issuer is empty, so that no token is taken".to_owned(),
            );
        }
        let mut header = |name: &str| {
            let name_found = editable(name);
            if name_found.is_none() {
                let shown: String = name.escape_debug().take(80).collect();
                problem(
                    ProblemKind::Header,
                    format!("`{shown}` is not a header that a claim may set"),
                );
            }
            name_found
        };
        let payload_header = spec
            .output_payload_to_header
            .as_deref()
            .filter(|name| !name.is_empty());
        let payload_header = payload_header.and_then(&mut header);
        let claim_headers = spec
            .output_claim_to_headers
            .iter()
            .filter_map(|output| Some((header(&output.header)?, output.claim.clone())))
            .collect();
        let (text, keys) = keys(spec, jwks, strict, &mut problem);
        Self {
            issuer: spec.issuer.clone(),
            fingerprint: fingerprint(spec, text.as_deref(), strict),
            forward: spec.forward_original_token,
            required: spec.required,
            payload_header,
            claim_headers,
            delimited: spec.space_delimited_claims.clone(),
            any_issuer: !strict && spec.issuer.is_empty(),
            audiences: spec.audiences.iter().map(|a| trimmed(a).to_owned()).collect(),
            keys,
            allow_hmac: spec.allow_hmac,
            require_exp: strict && !spec.allow_missing_exp,
        }
    }

    /// Whether tokens of the issuer are for this rule: byte by byte (JW-44).
    pub(crate) fn is_for(&self, issuer: &str) -> bool {
        self.any_issuer || (!self.issuer.is_empty() && self.issuer == issuer)
    }

    /// Whether some token might be for both rules.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.any_issuer || other.any_issuer || self.issuer == other.issuer
    }

    /// Verifies a token of its issuer.
    ///
    /// # Errors
    /// In Envoy's order: `nbf`, `exp`, audience, keys, signature.
    pub(crate) fn verify(&self, token: &Token<'_>, now: u64, memory: &Memory) -> Result<(), Fault> {
        if token
            .not_before
            .is_some_and(|begin| now.saturating_add(SKEW) < begin)
        {
            return Err(Fault::NotYetValid);
        }
        match token.expires {
            Some(end) if now > end.saturating_add(SKEW) => return Err(Fault::Expired),
            None if self.require_exp => return Err(Fault::PayloadExpMissing),
            _ => {}
        }
        let audience = |audience| self.audiences.contains(trimmed(audience));
        if !self.audiences.is_empty() && !token.audiences().any(audience) {
            return Err(Fault::Audience);
        }
        let keys = self.keys.as_ref().map_err(|fault| *fault)?;
        let (verdict, signatures) = keys.verify(&token.jws, &token.signature, self.allow_hmac);
        memory.count_signatures(signatures);
        verdict
    }
}

/// The keys' text and what was made of it.
fn keys(
    spec: &RuleSpec,
    jwks: &dyn Fn(&str) -> Option<Arc<Jwks>>,
    strict: bool,
    problem: &mut dyn FnMut(ProblemKind, String),
) -> (Option<String>, Result<Keys, Fault>) {
    let text = match &spec.keys {
        KeySource::Inline(text) => text.clone(),
        KeySource::Fetched(source) => {
            let fetched = jwks(source);
            let why = fetched.as_ref().and_then(|jwks| jwks.why.clone());
            let Some(text) = fetched.as_ref().and_then(|jwks| jwks.keys.clone()) else {
                let why = why.unwrap_or_else(|| "its keys have not arrived".to_owned());
                problem(ProblemKind::NoKeys, why);
                return (None, Err(Fault::Verification));
            };
            if let Some(why) = why {
                problem(ProblemKind::Stale, why);
            }
            text
        }
    };
    let keys = match Keys::parse(&text, strict) {
        Ok(keys) => keys,
        Err(why) => {
            problem(ProblemKind::NoKeys, why.to_owned());
            return (Some(text), Err(Fault::NoValidKeys));
        }
    };
    for key in keys.problems() {
        let kind = if key.skipped {
            ProblemKind::KeySkipped
        } else {
            ProblemKind::KeyExposed
        };
        let name = key
            .kid
            .as_ref()
            .map(|kid| format!(" (`{kid}`)"))
            .unwrap_or_default();
        problem(kind, format!("key {}{name} {}", key.place, key.why));
    }
    if keys.is_empty() {
        problem(ProblemKind::NoKeys, "the key set has no usable key".to_owned());
    }
    (Some(text), Ok(keys))
}

/// Stands for all that a verdict on a token depends on, and for what is kept of the token.
fn fingerprint(spec: &RuleSpec, keys: Option<&str>, strict: bool) -> Digest {
    let list = |list: &[String]| {
        let parts: Vec<&[u8]> = list.iter().map(String::as_bytes).collect();
        digest_of(&parts)
    };
    let flags = [
        u8::from(strict),
        u8::from(spec.allow_hmac),
        u8::from(spec.allow_missing_exp),
        u8::from(keys.is_some()),
    ];
    digest_of(&[
        b"rule",
        &flags,
        spec.issuer.as_bytes(),
        keys.unwrap_or_default().as_bytes(),
        &list(&spec.audiences),
        &list(&spec.space_delimited_claims),
    ])
}

/// An audience without its scheme and its last slash (JW-45).
fn trimmed(audience: &str) -> &str {
    let rest = audience
        .strip_prefix("http://")
        .or_else(|| audience.strip_prefix("https://"))
        .unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jw_45_audiences_are_compared_without_scheme_and_last_slash() {
        let rows = [
            ("https://foo/", "foo"),
            ("http://foo", "foo"),
            ("foo/", "foo"),
            ("foo//", "foo/"),
            ("ftp://foo", "ftp://foo"),
            ("HTTPS://foo", "HTTPS://foo"),
            ("/", ""),
            ("", ""),
        ];
        for (audience, plain) in rows {
            assert_eq!(trimmed(audience), plain, "{audience}");
        }
    }
}
