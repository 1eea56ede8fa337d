//! ServiceEntry, WorkloadEntry, WorkloadGroup: what is added to the registry by hand.

use super::common::{FEW_LABELS, FILLED_TEXTS, PORT, SECONDS, U32, WORKLOAD_SELECTOR};
use crate::schema::rules::{
    ADDRESS_OR_NETWORK, HEADER_NAME, NONE_HAS_NO_ENDPOINTS, NOT_EVERY_HOST, PORT_NAMES, PORTS_ONCE,
    PROBE_SCHEME, RANGES_UNRESOLVED, ROUND_ROBIN_HAS_ONE, Rule, SELECTOR_OR_ENDPOINTS, SOCKET_HAS_NO_PORTS,
    SOCKET_PATH,
};
use crate::schema::{Field, Shape, TEXTS, may, must};
use Rule::{AtMostOne, Count, Length, Unique};
use Shape::{Any, Bound, Fields, List, Map, OneOf, Text};

/// A workload, without what is demanded of its address.
const TEMPLATE: Shape = Bound(
    &Fields(&[
        may("address", &Bound(&Text, &[SOCKET_PATH, Length(0, 256)])),
        may("ports", &Bound(&Map(&PORT), &[PORT_NAMES, Count(0, 128)])),
        may("labels", &FEW_LABELS),
        may("network", &Bound(&Text, &[Length(0, 2048)])),
        may("locality", &Bound(&Text, &[Length(0, 2048)])),
        may("weight", &U32),
        may("serviceAccount", &Bound(&Text, &[Length(0, 253)])),
    ]),
    &[SOCKET_HAS_NO_PORTS],
);
const WORKLOAD: Shape = Bound(&TEMPLATE, &[ADDRESS_OR_NETWORK]);

const SERVICE: Shape = Fields(&[
    must(
        "hosts",
        &Bound(&List(&Bound(&Text, &[NOT_EVERY_HOST])), &[Count(1, 256)]),
    ),
    may(
        "addresses",
        &Bound(&List(&Bound(&Text, &[Length(0, 64)])), &[Count(0, 256)]),
    ),
    may(
        "ports",
        &Bound(
            &List(&Fields(&[
                must("number", &PORT),
                must("name", &Bound(&Text, &[Length(0, 256)])),
                may("protocol", &Bound(&Text, &[Length(0, 256)])),
                may("targetPort", &PORT),
            ])),
            &[PORTS_ONCE, Count(0, 256), Unique("name")],
        ),
    ),
    may("location", &OneOf(&["MESH_EXTERNAL", "MESH_INTERNAL"])),
    may(
        "resolution",
        &OneOf(&["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"]),
    ),
    may("endpoints", &Bound(&List(&WORKLOAD), &[Count(0, 4096)])),
    may("workloadSelector", &WORKLOAD_SELECTOR),
    may("exportTo", &TEXTS),
    may("subjectAltNames", &TEXTS),
]);

pub(super) const SERVICE_ENTRY: &[Field] = &[
    must(
        "spec",
        &Bound(
            &SERVICE,
            &[
                SELECTOR_OR_ENDPOINTS,
                RANGES_UNRESOLVED,
                NONE_HAS_NO_ENDPOINTS,
                ROUND_ROBIN_HAS_ONE,
            ],
        ),
    ),
    may("status", &Any),
];

pub(super) const WORKLOAD_ENTRY: &[Field] = &[must("spec", &WORKLOAD), may("status", &Any)];

const HTTP_GET: Shape = Fields(&[
    may("path", &Text),
    must("port", &PORT),
    may("host", &Text),
    may("scheme", &Bound(&Text, &[PROBE_SCHEME])),
    may(
        "httpHeaders",
        &List(&Fields(&[
            may("name", &Bound(&Text, &[HEADER_NAME])),
            may("value", &Text),
        ])),
    ),
]);
/// How the readiness of a workload is asked.
pub(super) const PROBE: Shape = Bound(
    &Fields(&[
        may("initialDelaySeconds", &SECONDS),
        may("timeoutSeconds", &SECONDS),
        may("periodSeconds", &SECONDS),
        may("successThreshold", &SECONDS),
        may("failureThreshold", &SECONDS),
        may("httpGet", &HTTP_GET),
        may("tcpSocket", &Fields(&[may("host", &Text), must("port", &PORT)])),
        may("exec", &Fields(&[must("command", &FILLED_TEXTS)])),
        may("grpc", &Fields(&[may("port", &PORT), may("service", &Text)])),
    ]),
    &[AtMostOne(&["httpGet", "tcpSocket", "exec", "grpc"])],
);

pub(super) const WORKLOAD_GROUP: &[Field] = &[
    must(
        "spec",
        &Fields(&[
            may(
                "metadata",
                &Fields(&[may("annotations", &FEW_LABELS), may("labels", &FEW_LABELS)]),
            ),
            must("template", &TEMPLATE),
            may("probe", &PROBE),
        ]),
    ),
    may("status", &Any),
];
