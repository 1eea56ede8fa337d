//! DestinationRule.

use super::common::{
    CLIENT_TLS, CONNECTION_POOL, COUNT, LOCALITY, OUTLIER_DETECTION, PORT_SELECTOR, SELECTOR, SPAN, TIME,
    U32, ZONES,
};
use crate::schema::rules::Rule;
use crate::schema::{Field, LABELS, Shape, TEXTS, may, must};
use Rule::{AtMostOne, Count};
use Shape::{Any, Bound, Fields, Flag, List, OneOf, Real, Text};

const HTTP_COOKIE: Shape = Fields(&[
    may(
        "attributes",
        &List(&Fields(&[must("name", &Text), may("value", &Text)])),
    ),
    must("name", &Text),
    may("path", &Text),
    may("ttl", &SPAN),
]);
const CONSISTENT_HASH: Shape = Bound(
    &Bound(
        &Fields(&[
            may("httpCookie", &HTTP_COOKIE),
            may("httpHeaderName", &Text),
            may("httpQueryParameterName", &Text),
            may("maglev", &Fields(&[may("tableSize", &COUNT)])),
            may("minimumRingSize", &COUNT),
            may("ringHash", &Fields(&[may("minimumRingSize", &COUNT)])),
            may("useSourceIp", &Flag),
        ]),
        &[AtMostOne(&["ringHash", "maglev"])],
    ),
    &[AtMostOne(&[
        "httpHeaderName",
        "httpCookie",
        "useSourceIp",
        "httpQueryParameterName",
    ])],
);
const LOAD_BALANCER: Shape = Bound(
    &Fields(&[
        may(
            "backendUtilization",
            &Fields(&[
                may("errorUtilizationPenaltyPercent", &U32),
                may("metricNamesForComputingUtilization", &TEXTS),
                may("weightExpirationPeriod", &SPAN),
                may("weightStabilizationPeriod", &SPAN),
                may("weightUpdatePeriod", &SPAN),
            ]),
        ),
        may("consistentHash", &CONSISTENT_HASH),
        may("localityLbSetting", &LOCALITY),
        may(
            "simple",
            &OneOf(&[
                "UNSPECIFIED",
                "LEAST_CONN",
                "RANDOM",
                "PASSTHROUGH",
                "ROUND_ROBIN",
                "LEAST_REQUEST",
            ]),
        ),
        may(
            "warmup",
            &Fields(&[
                may("aggression", &Real(0.0, f64::MAX)),
                must("duration", &TIME),
                may("minimumPercent", &Real(0.0, 100.0)),
            ]),
        ),
        may("warmupDurationSecs", &TIME),
        may("zoneAwareLbSetting", &ZONES),
    ]),
    &[AtMostOne(&["simple", "consistentHash", "backendUtilization"])],
);
const PORT_POLICY: Shape = Fields(&[
    may("port", &PORT_SELECTOR),
    may("loadBalancer", &LOAD_BALANCER),
    may("connectionPool", &CONNECTION_POOL),
    may("outlierDetection", &OUTLIER_DETECTION),
    may("tls", &CLIENT_TLS),
]);
const TRAFFIC_POLICY: Shape = Fields(&[
    may("loadBalancer", &LOAD_BALANCER),
    may("connectionPool", &CONNECTION_POOL),
    may("outlierDetection", &OUTLIER_DETECTION),
    may("tls", &CLIENT_TLS),
    may(
        "portLevelSettings",
        &Bound(&List(&PORT_POLICY), &[Count(0, 4096)]),
    ),
    may(
        "tunnel",
        &Fields(&[
            may("protocol", &Text),
            must("targetHost", &Text),
            must("targetPort", &U32),
        ]),
    ),
    may("proxyProtocol", &Fields(&[may("version", &OneOf(&["V1", "V2"]))])),
    may(
        "retryBudget",
        &Fields(&[
            may("budgetInterval", &SPAN),
            may("minRetryConcurrency", &U32),
            may("percent", &Real(0.0, 100.0)),
        ]),
    ),
]);

pub(super) const DESTINATION_RULE: &[Field] = &[
    must(
        "spec",
        &Fields(&[
            must("host", &Text),
            may("trafficPolicy", &TRAFFIC_POLICY),
            may(
                "subsets",
                &List(&Fields(&[
                    must("name", &Text),
                    may("labels", &LABELS),
                    may("trafficPolicy", &TRAFFIC_POLICY),
                ])),
            ),
            may("exportTo", &TEXTS),
            may("workloadSelector", &SELECTOR),
        ]),
    ),
    may("status", &Any),
];
