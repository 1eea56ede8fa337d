//! Gateway and Sidecar: what proxies listen to.

use super::common::{CONNECTION_POOL, DESTINATION, SERVER_TLS, U32, WORKLOAD_SELECTOR};
use crate::schema::{Field, LABELS, Shape, TEXTS, may, must};
use Shape::{Any, Fields, List, OneOf, Text};

const SERVER: Shape = Fields(&[
    may("name", &Text),
    must(
        "port",
        &Fields(&[
            must("number", &U32),
            must("protocol", &Text),
            must("name", &Text),
            may("targetPort", &U32),
        ]),
    ),
    must("hosts", &TEXTS),
    may("tls", &SERVER_TLS),
    may("bind", &Text),
    may("defaultEndpoint", &Text),
]);

pub(super) const GATEWAY: &[Field] = &[
    may(
        "spec",
        &Fields(&[may("selector", &LABELS), may("servers", &List(&SERVER))]),
    ),
    may("status", &Any),
];

const LISTENED_PORT: Shape = Fields(&[
    may("number", &U32),
    may("protocol", &Text),
    may("name", &Text),
    may("targetPort", &U32),
]);
const CAPTURE_MODE: Shape = OneOf(&["DEFAULT", "IPTABLES", "NONE"]);

pub(super) const SIDECAR: &[Field] = &[
    may(
        "spec",
        &Fields(&[
            may("workloadSelector", &WORKLOAD_SELECTOR),
            may(
                "ingress",
                &List(&Fields(&[
                    must("port", &LISTENED_PORT),
                    may("bind", &Text),
                    may("captureMode", &CAPTURE_MODE),
                    may("defaultEndpoint", &Text),
                    may("tls", &SERVER_TLS),
                    may("connectionPool", &CONNECTION_POOL),
                ])),
            ),
            may(
                "egress",
                &List(&Fields(&[
                    may("port", &LISTENED_PORT),
                    may("bind", &Text),
                    may("captureMode", &CAPTURE_MODE),
                    must("hosts", &TEXTS),
                ])),
            ),
            may(
                "outboundTrafficPolicy",
                &Fields(&[
                    may("mode", &OneOf(&["REGISTRY_ONLY", "ALLOW_ANY"])),
                    may("egressProxy", &DESTINATION),
                ]),
            ),
            may("inboundConnectionPool", &CONNECTION_POOL),
        ]),
    ),
    may("status", &Any),
];
