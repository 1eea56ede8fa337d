//! MeshConfig's `defaultConfig` (`mesh/v1alpha1/proxy.proto`).

use super::common::{CLIENT_TLS, I32, SPAN, TCP_KEEPALIVE, U32};
use super::entries::PROBE;
use crate::schema::rules::Rule;
use crate::schema::{LABELS, Shape, TEXTS, may};
use Rule::AtMostOne;
use Shape::{Bound, Fields, Flag, List, Map, OneOf, Real, Text, Whole};

const INT64: Shape = Whole(i64::MIN, i64::MAX);
const ADDRESS: Shape = Fields(&[may("address", &Text)]);
const DISABLED: Shape = Fields(&[may("disabled", &Flag)]);
const ENABLED: Shape = Fields(&[may("enabled", &Flag)]);
const REMOTE_SERVICE: Shape = Fields(&[
    may("address", &Text),
    may("tlsSettings", &CLIENT_TLS),
    may("tcpKeepalive", &TCP_KEEPALIVE),
]);
const CLIENT_CERTIFICATE: Shape = OneOf(&[
    "UNDEFINED",
    "SANITIZE",
    "FORWARD_ONLY",
    "APPEND_FORWARD",
    "SANITIZE_SET",
    "ALWAYS_FORWARD_ONLY",
]);
/// What Stackdriver takes, as a tracer and as a provider.
pub(super) const STACKDRIVER: Shape = Fields(&[
    may("debug", &Flag),
    may("maxNumberOfAttributes", &INT64),
    may("maxNumberOfAnnotations", &INT64),
    may("maxNumberOfMessageEvents", &INT64),
    may("maxTagLength", &U32),
    may("logging", &Fields(&[may("labels", &LABELS)])),
]);
/// The ways in which OpenCensus hands a trace on.
pub(super) const TRACE_CONTEXTS: Shape = List(&OneOf(&[
    "UNSPECIFIED",
    "W3C_TRACE_CONTEXT",
    "GRPC_BIN",
    "CLOUD_TRACE_CONTEXT",
    "B3",
]));

const NAMED_TAG: Shape = Fields(&[may("name", &Text), may("defaultValue", &Text)]);
const TRACING: Shape = Bound(
    &Fields(&[
        may("zipkin", &ADDRESS),
        may(
            "lightstep",
            &Fields(&[may("address", &Text), may("accessToken", &Text)]),
        ),
        may("datadog", &ADDRESS),
        may("stackdriver", &STACKDRIVER),
        may(
            "openCensusAgent",
            &Fields(&[may("address", &Text), may("context", &TRACE_CONTEXTS)]),
        ),
        may(
            "customTags",
            &Map(&Bound(
                &Fields(&[
                    may("literal", &Fields(&[may("value", &Text)])),
                    may("environment", &NAMED_TAG),
                    may("header", &NAMED_TAG),
                ]),
                &[AtMostOne(&["literal", "environment", "header"])],
            )),
        ),
        may("maxPathTagLength", &U32),
        may("sampling", &Real(f64::MIN, f64::MAX)),
        may("tlsSettings", &CLIENT_TLS),
        may("enableIstioTags", &Flag),
    ]),
    &[AtMostOne(&[
        "zipkin",
        "lightstep",
        "datadog",
        "stackdriver",
        "openCensusAgent",
    ])],
);

const KEY_PROVIDER: Shape = Fields(&[may("pollDelay", &SPAN), may("fallback", &Flag)]);

const PROXY_HEADERS: Shape = Fields(&[
    may("forwardedClientCert", &CLIENT_CERTIFICATE),
    may(
        "setCurrentClientCertDetails",
        &Fields(&[
            may("subject", &Flag),
            may("cert", &Flag),
            may("chain", &Flag),
            may("dns", &Flag),
            may("uri", &Flag),
        ]),
    ),
    may("requestId", &DISABLED),
    may("server", &Fields(&[may("disabled", &Flag), may("value", &Text)])),
    may("attemptCount", &DISABLED),
    may("envoyDebugHeaders", &DISABLED),
    may(
        "metadataExchangeHeaders",
        &Fields(&[may("mode", &OneOf(&["UNDEFINED", "IN_MESH"]))]),
    ),
    may("preserveHttp1HeaderCase", &Flag),
    may("xForwardedHost", &ENABLED),
    may("xForwardedPort", &ENABLED),
]);

const CONNECTION_SETTINGS: Shape = Fields(&[
    may("profile", &OneOf(&["SIDECAR", "EDGE"])),
    may("listenerPerConnectionBufferLimitBytes", &I32),
    may("clusterPerConnectionBufferLimitBytes", &I32),
    may("httpIdleTimeout", &SPAN),
    may("httpMaxConnectionDuration", &SPAN),
    may("httpDrainTimeout", &SPAN),
    may("httpRequestTimeout", &SPAN),
    may("httpRequestHeadersTimeout", &SPAN),
    may("httpStreamIdleTimeout", &SPAN),
    may("httpMaxStreamDuration", &SPAN),
    may("httpMaxConcurrentStreams", &I32),
    may("http2InitialStreamWindowSize", &I32),
    may("http2InitialConnectionWindowSize", &I32),
    may(
        "httpHeadersWithUnderscoresAction",
        &OneOf(&[
            "HEADERS_WITH_UNDERSCORES_UNSPECIFIED",
            "HEADERS_WITH_UNDERSCORES_ALLOW",
            "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST",
            "HEADERS_WITH_UNDERSCORES_DROP_HEADER",
        ]),
    ),
    may("httpMergeSlashes", &Flag),
    may(
        "httpPathWithEscapedSlashesAction",
        &OneOf(&[
            "PATH_WITH_ESCAPED_SLASHES_UNSPECIFIED",
            "KEEP_UNCHANGED",
            "REJECT_REQUEST",
            "UNESCAPE_AND_REDIRECT",
            "UNESCAPE_AND_FORWARD",
        ]),
    ),
    may("listenerConnectionLimit", &I32),
    may("globalDownstreamConnectionLimit", &I32),
]);

pub(in crate::schema) const PROXY_CONFIG: Shape = Bound(
    &Fields(&[
        may("configPath", &Text),
        may("binaryPath", &Text),
        may("serviceCluster", &Text),
        may(
            "tracingServiceName",
            &OneOf(&[
                "APP_LABEL_AND_NAMESPACE",
                "CANONICAL_NAME_ONLY",
                "CANONICAL_NAME_AND_NAMESPACE",
            ]),
        ),
        may("drainDuration", &SPAN),
        may("discoveryAddress", &Text),
        may("discoveryRefreshDelay", &SPAN),
        may("zipkinAddress", &Text),
        may("statsdUdpAddress", &Text),
        may("envoyMetricsServiceAddress", &Text),
        may("proxyAdminPort", &I32),
        may("availabilityZone", &Text),
        may(
            "controlPlaneAuthPolicy",
            &OneOf(&["NONE", "MUTUAL_TLS", "INHERIT"]),
        ),
        may("customConfigFile", &Text),
        may("statNameLength", &I32),
        may("concurrency", &I32),
        may("proxyBootstrapTemplatePath", &Text),
        may("interceptionMode", &OneOf(&["REDIRECT", "TPROXY", "NONE"])),
        may("tracing", &TRACING),
        may(
            "sds",
            &Fields(&[may("enabled", &Flag), may("k8sSaJwtPath", &Text)]),
        ),
        may("envoyAccessLogService", &REMOTE_SERVICE),
        may("envoyMetricsService", &REMOTE_SERVICE),
        may("proxyMetadata", &LABELS),
        may("runtimeValues", &LABELS),
        may("statusPort", &I32),
        may("extraStatTags", &TEXTS),
        may(
            "gatewayTopology",
            &Fields(&[
                may("numTrustedProxies", &U32),
                may("forwardClientCertDetails", &CLIENT_CERTIFICATE),
                may("proxyProtocol", &Fields(&[])),
            ]),
        ),
        may("terminationDrainDuration", &SPAN),
        may("meshId", &Text),
        may("readinessProbe", &PROBE),
        may(
            "proxyStatsMatcher",
            &Fields(&[
                may("inclusionPrefixes", &TEXTS),
                may("inclusionSuffixes", &TEXTS),
                may("inclusionRegexps", &TEXTS),
            ]),
        ),
        may("holdApplicationUntilProxyStarts", &Flag),
        may("caCertificatesPem", &TEXTS),
        may("image", &Fields(&[may("imageType", &Text)])),
        may(
            "privateKeyProvider",
            &Bound(
                &Fields(&[may("cryptomb", &KEY_PROVIDER), may("qat", &KEY_PROVIDER)]),
                &[AtMostOne(&["cryptomb", "qat"])],
            ),
        ),
        may("proxyHeaders", &PROXY_HEADERS),
        may("fileFlushInterval", &SPAN),
        may("fileFlushMinSizeKb", &U32),
        may("statsCompression", &Flag),
        may("connectionSettings", &CONNECTION_SETTINGS),
    ]),
    &[AtMostOne(&["serviceCluster", "tracingServiceName"])],
);
