//! Telemetry and ProxyConfig.

use super::common::{FILLED, SECONDS, SELECTOR, TARGET_REF, TARGET_REFS, TIME};
use crate::schema::rules::{REMOVE_HAS_NONE, Rule, UPSERT_HAS_VALUE};
use crate::schema::{Field, Shape, may, must};
use Rule::{AtMostOne, Length};
use Shape::{Any, Bound, Fields, Flag, List, Map, OneOf, Real, Text};

const MODE: Shape = OneOf(&["CLIENT_AND_SERVER", "CLIENT", "SERVER"]);
const PROVIDERS: Shape = List(&Fields(&[must("name", &FILLED)]));
const METRIC: Shape = OneOf(&[
    "ALL_METRICS",
    "REQUEST_COUNT",
    "REQUEST_DURATION",
    "REQUEST_SIZE",
    "RESPONSE_SIZE",
    "TCP_OPENED_CONNECTIONS",
    "TCP_CLOSED_CONNECTIONS",
    "TCP_SENT_BYTES",
    "TCP_RECEIVED_BYTES",
    "GRPC_REQUEST_MESSAGES",
    "GRPC_RESPONSE_MESSAGES",
]);
const OVERRIDE: Shape = Fields(&[
    may(
        "match",
        &Bound(
            &Fields(&[
                may("metric", &METRIC),
                may("customMetric", &FILLED),
                may("mode", &MODE),
            ]),
            &[AtMostOne(&["metric", "customMetric"])],
        ),
    ),
    may("disabled", &Flag),
    may(
        "tagOverrides",
        &Map(&Bound(
            &Fields(&[
                may("operation", &OneOf(&["UPSERT", "REMOVE"])),
                may("value", &Text),
            ]),
            &[UPSERT_HAS_VALUE, REMOVE_HAS_NONE],
        )),
    ),
]);
const NAMED: Shape = Fields(&[must("name", &FILLED), may("defaultValue", &Text)]);
const VALUED: Shape = Fields(&[must("value", &FILLED)]);
const CUSTOM_TAG: Shape = Bound(
    &Fields(&[
        may("literal", &VALUED),
        may("environment", &NAMED),
        may("header", &NAMED),
        may("formatter", &VALUED),
    ]),
    &[AtMostOne(&["literal", "environment", "header", "formatter"])],
);
const TRACING: Shape = Fields(&[
    may("match", &Fields(&[may("mode", &MODE)])),
    may("providers", &PROVIDERS),
    may("randomSamplingPercentage", &Real(0.0, 100.0)),
    may("disableSpanReporting", &Flag),
    may("disableContextPropagation", &Flag),
    may("customTags", &Map(&CUSTOM_TAG)),
    may("enableIstioTags", &Flag),
    may("useRequestIdForTraceSampling", &Flag),
]);

pub(super) const TELEMETRY: &[Field] = &[
    may(
        "spec",
        &Fields(&[
            may("selector", &SELECTOR),
            may("targetRef", &TARGET_REF),
            may("targetRefs", &TARGET_REFS),
            may("tracing", &List(&TRACING)),
            may(
                "metrics",
                &List(&Fields(&[
                    may("providers", &PROVIDERS),
                    may("overrides", &List(&OVERRIDE)),
                    may("reportingInterval", &TIME),
                ])),
            ),
            may(
                "accessLogging",
                &List(&Fields(&[
                    may("match", &Fields(&[may("mode", &MODE)])),
                    may("providers", &PROVIDERS),
                    may("disabled", &Flag),
                    may("filter", &Fields(&[may("expression", &Text)])),
                ])),
            ),
        ]),
    ),
    may("status", &Any),
];

pub(super) const PROXY_CONFIG: &[Field] = &[
    may(
        "spec",
        &Fields(&[
            may("selector", &SELECTOR),
            may("concurrency", &SECONDS),
            may("environmentVariables", &Map(&Bound(&Text, &[Length(0, 2048)]))),
            may("image", &Fields(&[may("imageType", &Text)])),
        ]),
    ),
    may("status", &Any),
];
