//! Why a connection or request was not carried: one closed list for log, metric, status and console.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// A stable reason. The text is the same in access log, metrics and explanations; it never changes meaning.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        pub enum Reason {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
        }

        impl Reason {
            /// Every reason, for metrics that exist from the start and for documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable text.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// An explicit DENY rule matched.
    DenyExplicit = "DENY_EXPLICIT",
    /// ALLOW policies select the workload and none matched.
    DenyNoAllow = "DENY_NO_ALLOW",
    /// No ALLOW policy selects the workload and the default is deny (P3).
    DenyDefault = "DENY_DEFAULT",
    /// A policy that selects the workload is invalid, so that its targets are denied (P48, R15).
    DenyPolicyInvalid = "DENY_POLICY_INVALID",
    /// A policy is known by name but has not arrived (R34).
    DenyPolicyMissing = "DENY_POLICY_MISSING",
    /// An ALLOW matched, and grants more than a Guardrail's ceiling lets it.
    DenyCeiling = "DENY_CEILING",
    /// An external authorizer refused, or could not be asked.
    DenyCustom = "DENY_CUSTOM",
    /// A token of the request does not verify (semantics 4.3).
    JwtInvalid = "JWT_INVALID",
    /// A rule demands a token, and the request has none at its places (`presence: REQUIRED`).
    JwtMissing = "JWT_MISSING",
    /// A token of the request is for somebody else.
    JwtAudience = "JWT_AUDIENCE",
    /// Plaintext arrived where mutual TLS is demanded.
    PlaintextRefused = "PLAINTEXT_REFUSED",
    /// TLS arrived that no rule of the port takes (foreign ALPN on an HTTP port, say).
    NoFilterChain = "NO_FILTER_CHAIN",
    /// The TLS handshake failed, ours or the peer's doing.
    TlsHandshake = "TLS_HANDSHAKE",
    /// The peer's certificate does not prove an identity that is expected here.
    PeerIdentity = "PEER_IDENTITY",
    /// The proxy has no certificate or no configuration yet (fail closed).
    NotReady = "NOT_READY",
    /// The destination is not in the registry and the egress mode is REGISTRY_ONLY.
    EgressUnknown = "EGRESS_UNKNOWN",
    /// The dialled address and the Host header belong to different services (O-02).
    HostMismatch = "HOST_MISMATCH",
    /// No route for this host or path.
    NoRoute = "NO_ROUTE",
    /// The service has no ready endpoint.
    NoEndpoint = "NO_ENDPOINT",
    /// Connecting to the endpoint failed.
    ConnectFailed = "CONNECT_FAILED",
    /// The endpoint closed or broke the connection before an answer.
    UpstreamReset = "UPSTREAM_RESET",
    /// The client went away.
    DownstreamReset = "DOWNSTREAM_RESET",
    /// The message is not well-formed HTTP, or framed ambiguously.
    ProtocolError = "PROTOCOL_ERROR",
    /// The path is ambiguous and the strict profile refuses it (semantics 3.6).
    PathRefused = "PATH_REFUSED",
    /// A named limit was reached.
    LimitReached = "LIMIT_REACHED",
    /// A time limit passed.
    Timeout = "TIMEOUT",
    /// The connection was dialled to the proxy's own capture port (MT-24, MT-25).
    CapturePort = "CAPTURE_PORT",
    /// The interface is not one that a workload was registered for.
    UnknownWorkload = "UNKNOWN_WORKLOAD",
    /// A policy changed and no longer admits this open connection (P55).
    PolicyChanged = "POLICY_CHANGED",
    /// CONNECT, or an upgrade that is not allowed.
    MethodRefused = "METHOD_REFUSED",
    /// The destination is not held, and the control plane, who would know it, does not answer (fail closed).
    ControlPlaneAway = "CONTROL_PLANE_AWAY",
    /// The proxy is shutting down.
    Draining = "DRAINING",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
