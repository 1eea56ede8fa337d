//! SPIFFE identities in the one form that the mesh issues.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A trust domain: the authority part of a SPIFFE id, lower case, 1 to 255 bytes of
/// `a-z 0-9 . - _`. (SPIFFE-ID section 2.1; an `@` in `meshConfig.trustDomain` is written as `.`.)
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(Arc<str>);

/// Why a text is not a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a trust domain: 1 to 255 characters of a-z, 0-9, `.`, `-`, `_` are allowed")]
pub struct TrustDomainError(pub String);

impl TrustDomain {
    /// The text, without scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    /// `cluster.local`, Istio's default.
    fn default() -> Self {
        Self(Arc::from("cluster.local"))
    }
}

impl FromStr for TrustDomain {
    type Err = TrustDomainError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plausible =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > 255 || !text.bytes().all(plausible) {
            return Err(TrustDomainError(text.to_owned()));
        }
        Ok(Self(Arc::from(text)))
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = TrustDomainError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(value: TrustDomain) -> Self {
        value.0.as_ref().to_owned()
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The longest SPIFFE id that is read, bytes (SPIFFE-ID section 2.3).
const MAX_SPIFFE_ID: usize = 2048;

/// Any SPIFFE id, of whatever path: `spiffe://TRUSTDOMAIN[/SEGMENT..]` (SPIFFE-ID section 2). That it is one says
/// nothing of the mesh; [`SpiffeId`] is the form that proves a workload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpiffeUri {
    trust_domain: TrustDomain,
    path: String,
}

impl SpiffeUri {
    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path, empty or beginning with `/`.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for SpiffeUri {
    type Err = SpiffeIdError;

    /// Scheme and trust domain are lower case; the path has no empty segment, none that is `.` or `..`, and nothing is
    /// percent-encoded.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_SPIFFE_ID {
            return Err(SpiffeIdError {
                text: "(too long)".to_owned(),
                why: "longer than 2048 bytes",
            });
        }
        let fail = |why| SpiffeIdError {
            text: text.to_owned(),
            why,
        };
        let rest = text
            .strip_prefix("spiffe://")
            .ok_or_else(|| fail("no spiffe:// scheme"))?;
        let mut parts = rest.split('/');
        let trust_domain = parts
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|_| fail("the trust domain is malformed"))?;
        let mut path = String::new();
        for part in parts {
            if !is_segment(part) {
                return Err(fail(
                    "a segment of the path is empty, a dot, or has a character that is not allowed",
                ));
            }
            path.push('/');
            path.push_str(part);
        }
        Ok(Self { trust_domain, path })
    }
}

impl fmt::Display for SpiffeUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}{}", self.trust_domain, self.path)
    }
}

/// `spiffe://TRUSTDOMAIN/ns/NAMESPACE/sa/SERVICEACCOUNT`, parsed into its components once.
///
/// Policy compares components and never text, so that no value can match more than it says
/// (semantics 2.6 OURS, 5.1, ID-01). Ordering is by trust domain, namespace, service account.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

/// Why a text is not an identity of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a workload identity: {why} (expected spiffe://TRUSTDOMAIN/ns/NAMESPACE/sa/SERVICEACCOUNT)"
)]
pub struct SpiffeIdError {
    text: String,
    why: &'static str,
}

impl SpiffeId {
    /// Builds an identity from its components.
    ///
    /// # Errors
    /// A component that is empty, or holds a character that cannot stand in one path segment.
    pub fn new(
        trust_domain: TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, SpiffeIdError> {
        for part in [namespace, service_account] {
            if !is_segment(part) {
                return Err(SpiffeIdError {
                    text: part.to_owned(),
                    why: "a component is empty or has a character that is not allowed",
                });
            }
        }
        Ok(Self {
            trust_domain,
            namespace: Arc::from(namespace),
            service_account: Arc::from(service_account),
        })
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Kubernetes service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

/// One path segment as SPIFFE allows it: letters, digits, `.`, `-`, `_`, but not `.` or `..`.
fn is_segment(part: &str) -> bool {
    let plausible = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !part.is_empty() && part != "." && part != ".." && part.bytes().all(plausible)
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: SpiffeUri = text.parse()?;
        let mut parts = uri.path.split('/');
        let (Some(""), Some("ns"), Some(ns), Some("sa"), Some(sa), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(SpiffeIdError {
                text: text.to_owned(),
                why: "the path is not /ns/NAMESPACE/sa/SERVICEACCOUNT",
            });
        };
        Self::new(uri.trust_domain, ns, sa)
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = SpiffeIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(value: SpiffeId) -> Self {
        value.to_string()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn id_01_parse() {
        let id: SpiffeId = "spiffe://td/ns/a/sa/b".parse().unwrap();
        assert_eq!(
            (id.trust_domain().as_str(), id.namespace(), id.service_account()),
            ("td", "a", "b")
        );
        for bad in [
            "spiffe://td/ns/a",
            "td/ns/a/sa/b",
            "spiffe://td/x/a/sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://td/ns//sa/b",
            "spiffe://td/ns/a/sa/",
            "spiffe://td/ns/a/sa/b/",
            "spiffe://td/ns/a/sa/b/c",
            "SPIFFE://td/ns/a/sa/b",
            "spiffe://TD/ns/a/sa/b",
            "spiffe://td:80/ns/a/sa/b",
            "spiffe://td/ns/a/sa/..",
            "spiffe://td/ns/a/sa/b?x",
            "spiffe://td/ns/a%2fb/sa/b",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn print_then_parse(td in "[a-z0-9._-]{1,20}", ns in "[a-z][a-z0-9-]{0,20}", sa in "[a-z][a-z0-9.-]{0,20}") {
            let id = SpiffeId::new(td.parse().unwrap(), &ns, &sa).unwrap();
            prop_assert_eq!(id.to_string().parse::<SpiffeId>().unwrap(), id);
        }

        #[test]
        fn parse_never_panics(text in ".{0,80}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
