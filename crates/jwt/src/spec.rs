//! RequestAuthentications as users wrote them, and keys, in a form that travels from the control plane to a proxy.

use policy::{Invalid, Origin, PolicyId};
use serde::{Deserialize, Serialize};

/// One RequestAuthentication, values as typed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthenticationSpec {
    /// Its name.
    pub id: PolicyId,
    /// `jwtRules`, in order.
    #[serde(default)]
    pub rules: Vec<RuleSpec>,
    /// Why the object is not acceptable. Then every request to what it selects is refused.
    #[serde(default)]
    pub invalid: Option<Invalid>,
    /// Where the object starts.
    #[serde(default)]
    pub origin: Origin,
}

/// `jwtRules[]` (semantics 4.1).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// `issuer`: compared with `iss`, byte by byte.
    pub issuer: String,
    /// `audiences`: one of them must be among the token's; empty accepts any.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Where the keys are.
    pub keys: KeySource,
    /// `fromHeaders`.
    #[serde(default)]
    pub from_headers: Vec<HeaderLocation>,
    /// `fromParams`.
    #[serde(default)]
    pub from_params: Vec<String>,
    /// `fromCookies`.
    #[serde(default)]
    pub from_cookies: Vec<String>,
    /// `outputPayloadToHeader`.
    #[serde(default)]
    pub output_payload_to_header: Option<String>,
    /// `outputClaimToHeaders`.
    #[serde(default)]
    pub output_claim_to_headers: Vec<ClaimHeader>,
    /// `forwardOriginalToken`.
    #[serde(default)]
    pub forward_original_token: bool,
    /// `spaceDelimitedClaims`; `scope` and `permission` are split as well.
    #[serde(default)]
    pub space_delimited_claims: Vec<String>,
    /// `presence: REQUIRED`: a request without a good token of this rule at one of its places is refused (4.2).
    #[serde(default)]
    pub required: bool,
    /// Whether symmetric algorithms are accepted (HS256, HS384, HS512). Off unless opted in (semantics 4.3 OURS).
    #[serde(default)]
    pub allow_hmac: bool,
    /// Whether a token without `exp` is accepted. Off unless opted in (JW-42 OURS).
    #[serde(default)]
    pub allow_missing_exp: bool,
    /// The line that the rule starts on, 0 where unknown.
    #[serde(default)]
    pub line: u32,
}

/// `fromHeaders[]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderLocation {
    /// The header's name.
    pub name: String,
    /// What stands before the token; may be empty.
    #[serde(default)]
    pub prefix: String,
}

/// `outputClaimToHeaders[]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimHeader {
    /// The header that is set.
    pub header: String,
    /// The claim; nested ones with dots between.
    pub claim: String,
}

/// Where a rule's keys are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeySource {
    /// `jwks`: the set itself, as text.
    Inline(String),
    /// Somebody fetches them: the [`Jwks::source`] that they come under.
    Fetched(String),
}

/// The keys of one source, fetched by the control plane for all proxies.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwks {
    /// The `jwksUri`, or `discovery:` and the issuer.
    pub source: String,
    /// The last good set, as text; `None` where none was ever fetched, or it has grown too old.
    #[serde(default)]
    pub keys: Option<String>,
    /// Why there is none, or why the last refresh failed.
    #[serde(default)]
    pub why: Option<String>,
}
