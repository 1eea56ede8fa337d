//! What several of Istio's kinds have.

use crate::schema::rules::{DURATION, MAX, MILLISECONDS, NO_WILDCARD, PORT_NUMBER, Rule};
use crate::schema::{LABELS, Shape, TEXTS, may, must};
use Rule::{AtMostOne, Count, Length, Unique};
use Shape::{Any, Bound, Fields, Flag, List, Map, OneOf, Real, Text, Whole};

/// A map of anything: read by a proxy.
pub(super) const OBJECT: Shape = Map(&Any);
pub(super) const U32: Shape = Whole(0, 4_294_967_295);
pub(super) const I32: Shape = Whole(-2_147_483_648, 2_147_483_647);
/// A number that the schema bounds below alone.
pub(super) const COUNT: Shape = Whole(0, i64::MAX);
pub(super) const SECONDS: Shape = Whole(0, 2_147_483_647);
/// A duration of at least a millisecond.
pub(super) const TIME: Shape = Bound(&Text, &[MILLISECONDS]);
/// A duration.
pub(super) const SPAN: Shape = Bound(&Text, &[DURATION]);
pub(super) const PORT: Shape = Bound(&U32, &[PORT_NUMBER]);
pub(super) const FILLED: Shape = Bound(&Text, &[Length(1, MAX)]);
pub(super) const FILLED_TEXTS: Shape = List(&FILLED);
pub(super) const PERCENT: Shape = Fields(&[may("value", &Real(f64::MIN, f64::MAX))]);

/// `selector`: by `matchLabels`. Wildcards are told of by the check of the kind.
pub(super) const SELECTOR: Shape = Fields(&[may(
    "matchLabels",
    &Bound(&Map(&Bound(&Text, &[Length(0, 63)])), &[Count(0, 4096)]),
)]);
/// `workloadSelector`: by `labels`.
pub(super) const WORKLOAD_SELECTOR: Shape = Fields(&[may(
    "labels",
    &Bound(
        &Map(&Bound(&Text, &[NO_WILDCARD, Length(0, 63)])),
        &[Count(0, 256)],
    ),
)]);

pub(super) const TARGET_REF: Shape = Fields(&[
    may("group", &Bound(&Text, &[Length(0, 253)])),
    must("kind", &Text),
    must("name", &Bound(&Text, &[Length(0, 253)])),
    may("namespace", &Text),
]);
pub(super) const TARGET_REFS: Shape = Bound(&List(&TARGET_REF), &[Count(0, 16)]);

pub(super) const PORT_SELECTOR: Shape = Fields(&[may("number", &U32)]);
pub(super) const DESTINATION: Shape = Fields(&[
    must("host", &Text),
    may("port", &PORT_SELECTOR),
    may("subset", &Text),
]);

pub(super) const CLIENT_TLS: Shape = Fields(&[
    may("mode", &OneOf(&["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"])),
    may("clientCertificate", &Text),
    may("privateKey", &Text),
    may("caCertificates", &Text),
    may("caCrl", &Text),
    may("credentialName", &Text),
    may("subjectAltNames", &TEXTS),
    may("sni", &Text),
    may("insecureSkipVerify", &Flag),
]);

const TLS_VERSION: Shape = OneOf(&["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"]);
const TLS_CERTIFICATE: Shape = Fields(&[
    may("caCertificates", &Text),
    may("privateKey", &Text),
    may("serverCertificate", &Text),
]);
/// TLS of a Gateway's server or a Sidecar's listener.
pub(super) const SERVER_TLS: Shape = Bound(
    &Bound(
        &Fields(&[
            may("caCertCredentialName", &Text),
            may("caCertificates", &Text),
            may("caCrl", &Text),
            may("cipherSuites", &TEXTS),
            may("credentialName", &Text),
            may("credentialNames", &Bound(&TEXTS, &[Count(1, 2)])),
            may("ecdhCurves", &TEXTS),
            may("httpsRedirect", &Flag),
            may("insecureSkipVerify", &Flag),
            may("maxProtocolVersion", &TLS_VERSION),
            may("minProtocolVersion", &TLS_VERSION),
            may(
                "mode",
                &OneOf(&[
                    "PASSTHROUGH",
                    "SIMPLE",
                    "MUTUAL",
                    "AUTO_PASSTHROUGH",
                    "ISTIO_MUTUAL",
                    "OPTIONAL_MUTUAL",
                ]),
            ),
            may("privateKey", &Text),
            may("serverCertificate", &Text),
            may("subjectAltNames", &TEXTS),
            may("tlsCertificates", &Bound(&List(&TLS_CERTIFICATE), &[Count(1, 2)])),
            may("verifyCertificateHash", &TEXTS),
            may("verifyCertificateSpki", &TEXTS),
        ]),
        &[AtMostOne(&["credentialName", "credentialNames"])],
    ),
    &[AtMostOne(&["credentialNames", "tlsCertificates"])],
);

pub(super) const TCP_KEEPALIVE: Shape =
    Fields(&[may("interval", &TIME), may("probes", &U32), may("time", &TIME)]);
pub(super) const CONNECTION_POOL: Shape = Fields(&[
    may(
        "http",
        &Fields(&[
            may(
                "h2UpgradePolicy",
                &OneOf(&["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"]),
            ),
            may("http1MaxPendingRequests", &I32),
            may(
                "http2KeepAlive",
                &Fields(&[may("interval", &TIME), may("timeout", &TIME)]),
            ),
            may("http2MaxRequests", &I32),
            may("idleTimeout", &TIME),
            may("maxConcurrentStreams", &I32),
            may("maxRequestsPerConnection", &I32),
            may("maxRetries", &I32),
            may("useClientProtocol", &Flag),
        ]),
    ),
    may(
        "tcp",
        &Fields(&[
            may("connectTimeout", &TIME),
            may("idleTimeout", &SPAN),
            may("maxConnectionDuration", &TIME),
            may("maxConnections", &I32),
            may("tcpKeepalive", &TCP_KEEPALIVE),
        ]),
    ),
]);

pub(super) const OUTLIER_DETECTION: Shape = Fields(&[
    may("baseEjectionTime", &TIME),
    may("consecutive5xxErrors", &U32),
    may("consecutiveErrors", &I32),
    may("consecutiveGatewayErrors", &U32),
    may("consecutiveLocalOriginFailures", &U32),
    may("interval", &TIME),
    may("maxEjectionPercent", &I32),
    may("minHealthPercent", &I32),
    may("outlierDetectionHttpErrorCodes", &List(&Whole(100, 599))),
    may("splitExternalLocalOriginErrors", &Flag),
]);

const FAILOVER: Shape = List(&Fields(&[may("from", &Text), may("to", &Text)]));
pub(super) const LOCALITY: Shape = Fields(&[
    may(
        "distribute",
        &List(&Fields(&[may("from", &Text), may("to", &Map(&U32))])),
    ),
    may("enabled", &Flag),
    may("failover", &FAILOVER),
    may("failoverPriority", &TEXTS),
]);
pub(super) const ZONES: Shape = Fields(&[
    may("enabled", &Flag),
    may("failover", &FAILOVER),
    may("failoverPriority", &TEXTS),
    may("minClusterSize", &Whole(1, 4_294_967_295)),
]);

pub(super) const RETRIES: Shape = Fields(&[
    may("attempts", &I32),
    may("backoff", &TIME),
    may("perTryTimeout", &TIME),
    may("retryIgnorePreviousHosts", &Flag),
    may("retryOn", &Text),
    may("retryRemoteLocalities", &Flag),
]);

/// The numbers of ports, each once.
pub(super) const TRAFFIC_MATCH: Shape = List(&Fields(&[
    may(
        "mode",
        &OneOf(&["UNDEFINED", "CLIENT", "SERVER", "CLIENT_AND_SERVER"]),
    ),
    may(
        "ports",
        &Bound(
            &List(&Fields(&[must("number", &Whole(1, 65_535))])),
            &[Unique("number")],
        ),
    ),
]));

/// Labels that are bounded in number.
pub(super) const FEW_LABELS: Shape = Bound(&LABELS, &[Count(0, 256)]);
