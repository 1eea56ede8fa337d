//! External authorizers: MeshConfig `extensionProviders` of the kinds `envoyExtAuthzHttp` and `envoyExtAuthzGrpc`.

use std::time::Duration;

use model::ServiceName;
use serde::{Deserialize, Serialize};

/// An external authorizer that can be asked. One that is named by a policy and has no resource denies what the policy
/// matches.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Its name: a DNS label (semantics 2.13).
    pub name: String,
    /// The Service that it is reached at.
    pub service: ServiceName,
    /// The Service port.
    pub port: u16,
    /// How it is asked.
    pub kind: ProviderKind,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
    /// Whether what it gives no answer on is admitted (`failOpen`).
    pub fail_open: bool,
    /// What a caller gets where it gave no answer (`statusOnError`, 403 by default).
    pub status_on_error: u16,
    /// Whether it sees the body of requests, and how much of it.
    pub body: Option<CheckBody>,
}

impl Provider {
    /// How long it may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// How an external authorizer is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ProviderKind {
    /// By Envoy's `envoy.service.auth.v3.Authorization`.
    Grpc,
    /// By a request of the same method and path. Connections cannot be asked about (R17).
    Http(HttpCheck),
}

/// What an authorizer over HTTP is sent, and what of its answer counts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// Put before the path.
    pub path_prefix: String,
    /// Header fields of the request that are sent, besides Host, Method, Path, Content-Length and Authorization.
    pub headers: Vec<HeaderPattern>,
    /// Header fields that are sent in any case, over those of the request. Values in the order of their names.
    pub additional: Vec<(String, String)>,
    /// Header fields of an admitting answer that the application gets.
    pub to_upstream: Vec<HeaderPattern>,
    /// Header fields of a refusing answer that the caller gets; all where there are none.
    pub to_downstream_on_deny: Vec<HeaderPattern>,
    /// Header fields of an admitting answer that the caller gets.
    pub to_downstream_on_allow: Vec<HeaderPattern>,
}

/// `includeRequestBodyInCheck`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckBody {
    /// How much of the body, in bytes.
    pub max_bytes: u32,
    /// Whether of a longer body its beginning is sent; else the request is refused with 413.
    pub partial: bool,
    /// Whether gRPC gets it as bytes and not as text.
    pub as_bytes: bool,
}

/// The name of header fields: in lower case, whole, or with `*` at one end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HeaderPattern(String);

impl HeaderPattern {
    /// From how it is written in MeshConfig; case has no meaning.
    pub fn new(text: &str) -> Self {
        Self(text.to_ascii_lowercase())
    }

    /// Whether it takes the name, which is in lower case.
    pub fn takes(&self, name: &str) -> bool {
        match (self.0.strip_suffix('*'), self.0.strip_prefix('*')) {
            (Some(prefix), _) => name.starts_with(prefix),
            (None, Some(suffix)) => name.ends_with(suffix),
            (None, None) => name == self.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_header_fields_are_whole_or_open_at_one_end() {
        for (pattern, name, expect) in [
            ("X-Mine", "x-mine", true),
            ("x-mine", "x-mine-2", false),
            ("x-mine*", "x-mine-2", true),
            ("x-mine*", "y-x-mine", false),
            ("*-mine", "x-mine", true),
            ("*-mine", "x-mine-2", false),
        ] {
            assert_eq!(
                HeaderPattern::new(pattern).takes(name),
                expect,
                "{pattern} {name}"
            );
        }
    }
}
