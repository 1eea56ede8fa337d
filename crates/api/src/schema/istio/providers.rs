//! MeshConfig's `extensionProviders`.

use super::common::{I32, OBJECT, SPAN, U32};
use super::proxy::{STACKDRIVER, TRACE_CONTEXTS};
use crate::schema::rules::Rule;
use crate::schema::{Shape, TEXTS, may};
use Rule::AtMostOne;
use Shape::{Any, Bound, Fields, Flag, List, OneOf, Text};

const HEADERS: Shape = List(&Bound(
    &Fields(&[may("name", &Text), may("value", &Text), may("envName", &Text)]),
    &[AtMostOne(&["value", "envName"])],
));
const HTTP_SERVICE: Shape = Fields(&[
    may("path", &Text),
    may("timeout", &SPAN),
    may("headers", &HEADERS),
]);
const LOG_FORMAT: Shape = Fields(&[may("text", &Text), may("labels", &OBJECT)]);

/// All but the two that are asked to decide (`envoyExtAuthz*`), which are typed where they are acted on.
pub(super) const EXTENSION_PROVIDER: Shape = Fields(&[
    may("name", &Text),
    may("envoyExtAuthzHttp", &Any),
    may("envoyExtAuthzGrpc", &Any),
    may(
        "zipkin",
        &Fields(&[
            may("service", &Text),
            may("port", &U32),
            may("maxTagLength", &U32),
            may("enable64bitTraceId", &Flag),
            may("path", &Text),
            may(
                "traceContextOption",
                &OneOf(&["USE_B3", "USE_B3_WITH_W3C_PROPAGATION"]),
            ),
            may("timeout", &SPAN),
            may("headers", &HEADERS),
        ]),
    ),
    may(
        "lightstep",
        &Fields(&[
            may("service", &Text),
            may("port", &U32),
            may("accessToken", &Text),
            may("maxTagLength", &U32),
        ]),
    ),
    may(
        "datadog",
        &Fields(&[
            may("service", &Text),
            may("port", &U32),
            may("maxTagLength", &U32),
        ]),
    ),
    may("stackdriver", &STACKDRIVER),
    may(
        "opencensus",
        &Fields(&[
            may("service", &Text),
            may("port", &U32),
            may("context", &TRACE_CONTEXTS),
            may("maxTagLength", &U32),
        ]),
    ),
    may(
        "skywalking",
        &Fields(&[
            may("service", &Text),
            may("port", &U32),
            may("accessToken", &Text),
        ]),
    ),
    may("opentelemetry", &OPEN_TELEMETRY),
    may("prometheus", &Fields(&[])),
    may(
        "envoyFileAccessLog",
        &Fields(&[
            may("path", &Text),
            may(
                "logFormat",
                &Bound(&LOG_FORMAT, &[AtMostOne(&["text", "labels"])]),
            ),
            may("omitEmptyValues", &Flag),
        ]),
    ),
    may(
        "envoyHttpAls",
        &Fields(&[
            may("service", &Text),
            may("port", &U32),
            may("logName", &Text),
            may("filterStateObjectsToLog", &TEXTS),
            may("additionalRequestHeadersToLog", &TEXTS),
            may("additionalResponseHeadersToLog", &TEXTS),
            may("additionalResponseTrailersToLog", &TEXTS),
        ]),
    ),
    may(
        "envoyTcpAls",
        &Fields(&[
            may("service", &Text),
            may("port", &U32),
            may("logName", &Text),
            may("filterStateObjectsToLog", &TEXTS),
        ]),
    ),
    may(
        "envoyOtelAls",
        &Fields(&[
            may("service", &Text),
            may("port", &U32),
            may("logName", &Text),
            may("logFormat", &LOG_FORMAT),
        ]),
    ),
    may(
        "sds",
        &Fields(&[may("name", &Text), may("service", &Text), may("port", &U32)]),
    ),
]);

const OPEN_TELEMETRY: Shape = Fields(&[
    may("service", &Text),
    may("port", &U32),
    may("maxTagLength", &U32),
    may("http", &HTTP_SERVICE),
    may(
        "grpc",
        &Fields(&[may("timeout", &SPAN), may("initialMetadata", &HEADERS)]),
    ),
    may(
        "resourceDetectors",
        &Fields(&[may("environment", &Fields(&[])), may("dynatrace", &Fields(&[]))]),
    ),
    may(
        "serviceAttributeEnrichment",
        &OneOf(&["ISTIO_CANONICAL", "OTEL_SEMANTIC_CONVENTIONS"]),
    ),
    may(
        "dynatraceSampler",
        &Fields(&[
            may("tenant", &Text),
            may("clusterId", &I32),
            may("rootSpansPerMinute", &U32),
            may(
                "httpService",
                &Fields(&[
                    may("service", &Text),
                    may("port", &U32),
                    may("http", &HTTP_SERVICE),
                ]),
            ),
        ]),
    ),
]);
