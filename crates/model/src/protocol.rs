//! Protocols of ports, mutual TLS modes and the two profiles.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a Service port says it speaks (semantics 9).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1, or HTTP/2 with prior knowledge where the client starts with it.
    Http,
    /// HTTP/2.
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
    /// gRPC-Web over HTTP/1.1 or HTTP/2.
    GrpcWeb,
    /// Bytes, not looked at.
    Tcp,
    /// TLS of the application's own, routed by SNI at most.
    Tls,
    /// HTTPS of the application's own, opaque like [`Protocol::Tls`].
    Https,
    /// UDP: not carried.
    Udp,
    /// Not declared: found out from the first bytes (PD-06).
    #[default]
    Auto,
}

impl Protocol {
    /// Whether requests of this port are read as HTTP by declaration.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether the port is declared as bytes that are not looked at.
    pub fn is_opaque(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls | Self::Https)
    }

    /// The protocol that `appProtocol`, or else the port's name, or else the number says (PD-01..13).
    /// `transport_udp` is true for a Service port with `protocol: UDP`.
    pub fn select(transport_udp: bool, app_protocol: Option<&str>, name: Option<&str>, number: u16) -> Self {
        if transport_udp {
            return Self::Udp;
        }
        if let Some(app) = app_protocol {
            return Self::from_app_protocol(app);
        }
        if let Some(found) = name.and_then(Self::from_word) {
            return found;
        }
        match number {
            25 | 53 | 3306 | 27017 => Self::Tcp,
            _ => Self::Auto,
        }
    }

    fn from_app_protocol(text: &str) -> Self {
        match text {
            "kubernetes.io/h2c" => Self::Http2,
            "kubernetes.io/ws" => Self::Http,
            "kubernetes.io/wss" => Self::Https,
            other => Self::from_word(other).unwrap_or(Self::Auto),
        }
    }

    /// The word before the first `-`, in any case; `grpc-web` is a plain prefix (PD-03).
    fn from_word(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("grpc-web") {
            return Some(Self::GrpcWeb);
        }
        match lower.split('-').next().unwrap_or_default() {
            "http" => Some(Self::Http),
            "http2" => Some(Self::Http2),
            "grpc" => Some(Self::Grpc),
            "https" => Some(Self::Https),
            "tls" => Some(Self::Tls),
            "tcp" | "mongo" | "redis" | "mysql" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            _ => None,
        }
    }
}

/// How inbound connections to a port must come (PeerAuthentication `mtls.mode`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MtlsMode {
    /// Plaintext only; TLS of the application's own passes untouched.
    Disable,
    /// Mutual TLS or plaintext.
    Permissive,
    /// Mutual TLS only.
    Strict,
}

impl fmt::Display for MtlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disable => "DISABLE",
            Self::Permissive => "PERMISSIVE",
            Self::Strict => "STRICT",
        })
    }
}

/// Which defaults are in force where no object says otherwise (semantics 14).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Ours: STRICT, deny until an ALLOW allows, REGISTRY_ONLY, strict paths.
    #[default]
    Secure,
    /// Istio's defaults exactly: PERMISSIVE, allow until an ALLOW exists, ALLOW_ANY, BASE paths.
    Istio,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secure => "secure",
            Self::Istio => "istio",
        })
    }
}

impl std::str::FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "secure" => Ok(Self::Secure),
            "istio" => Ok(Self::Istio),
            other => Err(format!("`{other}` is not a profile: secure or istio")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pd_01_to_13() {
        use Protocol::*;
        let by_name = |name, number| Protocol::select(false, None, name, number);
        for (name, expect) in [
            ("http", Http),
            ("HTTP", Http),
            ("http-api", Http),
            ("http2", Http2),
            ("grpc", Grpc),
            ("grpc-x", Grpc),
            ("grpc-web", GrpcWeb),
            ("grpc-web-x", GrpcWeb),
            ("grpc-webfoo", GrpcWeb),
            ("https", Https),
            ("tls", Tls),
            ("tcp", Tcp),
            ("mongo", Tcp),
            ("redis", Tcp),
            ("mysql", Tcp),
            ("httpfoo", Auto),
            ("web", Auto),
            ("", Auto),
            ("udp", Udp),
        ] {
            assert_eq!(by_name(Some(name), 80), expect, "{name}");
        }
        for (app, expect) in [
            ("kubernetes.io/h2c", Http2),
            ("kubernetes.io/ws", Http),
            ("kubernetes.io/wss", Https),
            ("http", Http),
            ("http-alt", Http),
            ("example.com/custom", Auto),
        ] {
            assert_eq!(
                Protocol::select(false, Some(app), Some("http"), 80),
                expect,
                "{app}"
            );
        }
        assert_eq!(Protocol::select(false, Some("http"), Some("tcp-x"), 80), Http);
        assert_eq!(by_name(None, 3306), Tcp);
        assert_eq!(by_name(Some("web"), 3306), Tcp);
        assert_eq!(by_name(None, 80), Auto);
        assert_eq!(Protocol::select(true, Some("http"), Some("http"), 80), Udp);
    }
}
