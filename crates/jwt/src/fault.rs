//! Why a request is refused here, in the words that Envoy answers with (semantics 4.7).

use model::Reason;
use policy::PolicyId;

use crate::request::RequestView;

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// What is wrong with a token, or with the keys that it is to be verified by.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Fault {
            $($(#[$doc])* $variant,)*
        }

        impl Fault {
            /// Every fault, for documentation and tests.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The body of the answer.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

faults! {
    /// A rule demands a token (`presence: REQUIRED`), and none stands at its places.
    Missing = "Jwt is missing",
    /// Not three parts, one of them empty, or longer than [`crate::MAX_TOKEN`]; also a scheme without a token (R24).
    Format = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
    /// The header is not base64url in its one canonical form.
    HeaderBase64 = "Jwt header is an invalid Base64url encoded",
    /// The header is not a JSON object, or names a member twice.
    HeaderJson = "Jwt header is an invalid JSON",
    /// No `alg`, or not a string.
    HeaderAlg = "Jwt header [alg] field is required and must be a string",
    /// An algorithm that is not taken: `none` (JW-39), an unknown one, or HMAC without opt-in.
    Algorithm = "Jwt header [alg] is not supported",
    /// `kid` is not a string.
    HeaderKid = "Jwt header [kid] field is not a string",
    /// `crit` is present: what it demands is not understood (RFC 7515, 4.1.11).
    HeaderCrit = "Jwt header [crit] is not supported",
    /// `typ` names another kind of JWT than an access token (RFC 8725, 3.11); strict mode alone.
    HeaderTyp = "Jwt header [typ] is not supported",
    /// The payload is not base64url in its one canonical form.
    PayloadBase64 = "Jwt payload is an invalid Base64url encoded",
    /// The payload is not a JSON object, or names a member twice.
    PayloadJson = "Jwt payload is an invalid JSON",
    /// `iss` is not a string.
    PayloadIss = "Jwt payload [iss] field is not a string",
    /// `sub` is not a string.
    PayloadSub = "Jwt payload [sub] field is not a string",
    /// `iat` is not a number.
    PayloadIat = "Jwt payload [iat] field is not an integer",
    /// `iat` is negative or too large.
    PayloadIatRange = "Jwt payload [iat] field is not a positive 64 bit integer",
    /// `nbf` is not a number.
    PayloadNbf = "Jwt payload [nbf] field is not an integer",
    /// `nbf` is negative or too large.
    PayloadNbfRange = "Jwt payload [nbf] field is not a positive 64 bit integer",
    /// `exp` is not a number.
    PayloadExp = "Jwt payload [exp] field is not an integer",
    /// `exp` is negative or too large.
    PayloadExpRange = "Jwt payload [exp] field is not a positive 64 bit integer",
    /// `exp` is absent and demanded (JW-42).
    PayloadExpMissing = "Jwt payload [exp] field is required",
    /// `jti` is not a string.
    PayloadJti = "Jwt payload [jti] field is not a string",
    /// `aud` is neither a string nor a list of strings.
    PayloadAud = "Jwt payload [aud] field is not a string or string list",
    /// The signature is not base64url in its one canonical form.
    SignatureBase64 = "Jwt signature is an invalid Base64url encoded",
    /// No rule that reads this place is for the token's issuer.
    Issuer = "Jwt issuer is not configured",
    /// Before `nbf`, by more than the skew.
    NotYetValid = "Jwt not yet valid",
    /// After `exp`, by more than the skew (JW-41).
    Expired = "Jwt is expired",
    /// None of the rule's audiences (JW-15): the one fault that is answered with 403.
    Audience = "Audiences in Jwt are not allowed",
    /// The rule has a key set with no usable key in it.
    NoValidKeys = "Jwks doesn't have any valid public key",
    /// No key of that `kid` and `alg` (JW-40).
    NoMatchingKey = "Jwks doesn't have key to match kid or alg from Jwt",
    /// An Ed25519 signature is 64 bytes.
    Ed25519Length = "Jwt ED25519 signature is wrong length",
    /// No key verifies the signature; also where no keys could be fetched (O-18).
    Verification = "Jwt verification fails",
    /// More than [`crate::MAX_TOKENS`] tokens in one request.
    TooMany = "Found multiple Jwt tokens",
}

impl Fault {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        if self == Self::Audience { 403 } else { 401 }
    }
}

/// The most of path and query that `WWW-Authenticate` shows, bytes; Envoy's.
const MAX_REALM: usize = 256;

/// A request that is refused here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// 401, or 403 for the audience (semantics 4.2) and where an object is not acceptable.
    pub status: u16,
    /// The body: a text of semantics 4.7.
    pub text: &'static str,
    /// What was wrong with the token; `None` where it is an object's fault.
    pub fault: Option<Fault>,
    /// The configured issuer whose rule refused the token; `None` where no rule did. Never a text of the sender's.
    pub issuer: Option<String>,
    /// The object at fault and why, where no token was looked at: it is invalid or has not arrived.
    pub policy: Option<(PolicyId, Reason)>,
    /// Whether `WWW-Authenticate` repeats the query, as Istio does (O-09).
    pub with_query: bool,
}

impl Rejection {
    pub(crate) fn token(fault: Fault, issuer: Option<String>, strict: bool) -> Self {
        Self {
            status: fault.status(),
            text: fault.text(),
            fault: Some(fault),
            issuer,
            policy: None,
            with_query: !strict,
        }
    }

    pub(crate) fn policy(id: PolicyId, reason: Reason) -> Self {
        Self {
            status: 403,
            text: "RBAC: access denied",
            fault: None,
            issuer: None,
            policy: Some((id, reason)),
            with_query: false,
        }
    }

    /// Why, in the closed list.
    pub fn reason(&self) -> Reason {
        match (&self.policy, self.fault) {
            (Some((_, reason)), _) => *reason,
            (None, Some(Fault::Audience)) => Reason::JwtAudience,
            (None, Some(Fault::Missing)) => Reason::JwtMissing,
            (None, _) => Reason::JwtInvalid,
        }
    }

    /// `WWW-Authenticate`, for a request that came by `scheme` (`http`, `https`); `None` where no token is at
    /// fault. Without the query in strict mode: it may hold the token (O-09).
    pub fn www_authenticate(&self, scheme: &str, request: &dyn RequestView) -> Option<String> {
        self.fault?;
        let path = request.path();
        let path = match path.split_once('?') {
            Some((path, _)) if !self.with_query => path,
            _ => path,
        };
        let mut value = String::from("Bearer realm=\"");
        let mut push = |text: &str, most: usize| {
            for c in text.chars().filter(|c| (' '..='~').contains(c)).take(most) {
                // RFC 9110, 5.6.4: what would end the quoted string is escaped.
                if matches!(c, '"' | '\\') {
                    value.push('\\');
                }
                value.push(c);
            }
        };
        push(scheme, MAX_REALM);
        push("://", MAX_REALM);
        push(request.authority(), MAX_REALM);
        push(path, MAX_REALM);
        value.push('"');
        // RFC 6750, 3.1: who has shown none is told of no error.
        if self.fault != Some(Fault::Missing) {
            value.push_str(", error=\"invalid_token\"");
        }
        Some(value)
    }

    /// What Istio's access log shows as response code details.
    pub fn details(&self) -> String {
        match &self.policy {
            None => format!("jwt_authn_access_denied{{{}}}", self.text.replace(' ', "_")),
            Some((id, reason)) => format!("jwt_authn_access_denied{{{reason},{id}}}"),
        }
    }
}
