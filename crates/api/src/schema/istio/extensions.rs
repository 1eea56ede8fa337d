//! EnvoyFilter, WasmPlugin, TrafficExtension: what reaches into a proxy.

use super::common::{
    FILLED, I32, OBJECT, PORT, SELECTOR, TARGET_REFS, TRAFFIC_MATCH, U32, WORKLOAD_SELECTOR,
};
use crate::schema::rules::{
    MAX, MODULE_URL, Rule, SHA256, TARGET_GROUP, TARGET_KIND, VALUE_OF_HOST, WASM_OR_LUA, WAYPOINT_CONTEXT,
};
use crate::schema::{Field, LABELS, Shape, may, must};
use Rule::{AtMostOne, Count, Length, Unique};
use Shape::{Any, Bound, Fields, List, OneOf, Text};

const FILTER: Shape = Fields(&[
    may("name", &Text),
    may("subFilter", &Fields(&[may("name", &Text)])),
]);
const LISTENER: Shape = Fields(&[
    may(
        "filterChain",
        &Fields(&[
            may("applicationProtocols", &Text),
            may("destinationPort", &U32),
            may("filter", &FILTER),
            may("name", &Text),
            may("sni", &Text),
            may("transportProtocol", &Text),
            may("transportSocket", &Text),
        ]),
    ),
    may("listenerFilter", &Text),
    may("name", &Text),
    may("portName", &Text),
    may("portNumber", &U32),
]);
const ROUTE_CONFIGURATION: Shape = Fields(&[
    may("gateway", &Text),
    may("name", &Text),
    may("portName", &Text),
    may("portNumber", &U32),
    may(
        "vhost",
        &Fields(&[
            may("domainName", &Text),
            may("name", &Text),
            may(
                "route",
                &Fields(&[
                    may("action", &OneOf(&["ANY", "ROUTE", "REDIRECT", "DIRECT_RESPONSE"])),
                    may("name", &Text),
                ]),
            ),
        ]),
    ),
]);
const PATCH_MATCH: Shape = Bound(
    &Fields(&[
        may(
            "context",
            &OneOf(&[
                "ANY",
                "SIDECAR_INBOUND",
                "SIDECAR_OUTBOUND",
                "GATEWAY",
                "WAYPOINT",
            ]),
        ),
        may(
            "proxy",
            &Fields(&[may("metadata", &LABELS), may("proxyVersion", &Text)]),
        ),
        may("listener", &LISTENER),
        may("routeConfiguration", &ROUTE_CONFIGURATION),
        may(
            "cluster",
            &Fields(&[
                may("name", &Text),
                may("portNumber", &U32),
                may("service", &Text),
                may("subset", &Text),
            ]),
        ),
        may(
            "waypoint",
            &Fields(&[
                may("filter", &FILTER),
                may("portNumber", &PORT),
                may("route", &Fields(&[may("name", &Text)])),
            ]),
        ),
    ]),
    &[
        WAYPOINT_CONTEXT,
        AtMostOne(&["listener", "routeConfiguration", "cluster", "waypoint"]),
    ],
);
const PATCH: Shape = Fields(&[
    may(
        "applyTo",
        &OneOf(&[
            "INVALID",
            "LISTENER",
            "FILTER_CHAIN",
            "NETWORK_FILTER",
            "HTTP_FILTER",
            "ROUTE_CONFIGURATION",
            "VIRTUAL_HOST",
            "HTTP_ROUTE",
            "CLUSTER",
            "EXTENSION_CONFIG",
            "BOOTSTRAP",
            "LISTENER_FILTER",
        ]),
    ),
    may("match", &PATCH_MATCH),
    may(
        "patch",
        &Fields(&[
            may("filterClass", &OneOf(&["UNSPECIFIED", "AUTHN", "AUTHZ", "STATS"])),
            may(
                "operation",
                &OneOf(&[
                    "INVALID",
                    "MERGE",
                    "ADD",
                    "REMOVE",
                    "INSERT_BEFORE",
                    "INSERT_AFTER",
                    "INSERT_FIRST",
                    "REPLACE",
                    "MERGE_AND_REPLACE_LIST",
                ]),
            ),
            may("value", &OBJECT),
        ]),
    ),
]);
/// A target that no check of the kind looks at, so that the schema does.
const PATCHED_REF: Shape = Fields(&[
    may("group", &Bound(&Text, &[TARGET_GROUP, Length(0, 253)])),
    must("kind", &Bound(&Text, &[TARGET_KIND])),
    must("name", &Bound(&Text, &[Length(1, 253)])),
    may("namespace", &Bound(&Text, &[Length(0, 0)])),
]);

pub(super) const ENVOY_FILTER: &[Field] = &[
    may(
        "spec",
        &Bound(
            &Fields(&[
                may("workloadSelector", &WORKLOAD_SELECTOR),
                may("targetRefs", &Bound(&List(&PATCHED_REF), &[Count(0, 16)])),
                may("configPatches", &List(&PATCH)),
                may("priority", &I32),
            ]),
            &[AtMostOne(&["workloadSelector", "targetRefs"])],
        ),
    ),
    may("status", &Any),
];

const ENVIRONMENT: Shape = Bound(
    &List(&Bound(
        &Fields(&[
            must("name", &Bound(&Text, &[Length(1, 256)])),
            may("value", &Bound(&Text, &[Length(0, 2048)])),
            may("valueFrom", &OneOf(&["INLINE", "HOST"])),
        ]),
        &[VALUE_OF_HOST],
    )),
    &[Count(0, 256), Unique("name")],
);
const URL: Shape = Bound(&Text, &[MODULE_URL, Length(1, MAX)]);
const CHECKSUM: Shape = Bound(&Text, &[SHA256]);
const PULL_POLICY: Shape = OneOf(&["UNSPECIFIED_POLICY", "IfNotPresent", "Always"]);
const PULL_SECRET: Shape = Bound(&Text, &[Length(1, 253)]);
const PLUGIN_NAME: Shape = Bound(&Text, &[Length(1, 256)]);
const FAIL_STRATEGY: Shape = OneOf(&["FAIL_CLOSE", "FAIL_OPEN", "FAIL_RELOAD"]);
const PLUGIN_TYPE: Shape = OneOf(&["UNSPECIFIED_PLUGIN_TYPE", "HTTP", "NETWORK"]);
const VM_CONFIG: Shape = Fields(&[may("env", &ENVIRONMENT)]);

pub(super) const WASM_PLUGIN: &[Field] = &[
    must(
        "spec",
        &Fields(&[
            may("selector", &SELECTOR),
            may("targetRef", &super::common::TARGET_REF),
            may("targetRefs", &TARGET_REFS),
            must("url", &URL),
            may("sha256", &CHECKSUM),
            may("imagePullPolicy", &PULL_POLICY),
            may("imagePullSecret", &PULL_SECRET),
            may("verificationKey", &Text),
            may("pluginConfig", &OBJECT),
            may("pluginName", &PLUGIN_NAME),
            may("phase", &OneOf(&["UNSPECIFIED_PHASE", "AUTHN", "AUTHZ", "STATS"])),
            may("priority", &I32),
            may("failStrategy", &FAIL_STRATEGY),
            may("vmConfig", &VM_CONFIG),
            may("match", &TRAFFIC_MATCH),
            may("type", &PLUGIN_TYPE),
        ]),
    ),
    may("status", &Any),
];

const WASM: Shape = Fields(&[
    must("url", &URL),
    may("sha256", &CHECKSUM),
    may("imagePullPolicy", &PULL_POLICY),
    may("imagePullSecret", &PULL_SECRET),
    may("verificationKey", &Text),
    may("pluginConfig", &OBJECT),
    may("pluginName", &PLUGIN_NAME),
    may("failStrategy", &FAIL_STRATEGY),
    may("vmConfig", &VM_CONFIG),
    may("type", &PLUGIN_TYPE),
]);

pub(super) const TRAFFIC_EXTENSION: &[Field] = &[
    must(
        "spec",
        &Bound(
            &Fields(&[
                may("selector", &SELECTOR),
                may("targetRefs", &TARGET_REFS),
                may("phase", &OneOf(&["UNSPECIFIED", "AUTHN", "AUTHZ", "STATS"])),
                may("priority", &I32),
                may("match", &TRAFFIC_MATCH),
                may("wasm", &WASM),
                may(
                    "lua",
                    &Fields(&[must("inlineCode", &Bound(&FILLED, &[Length(0, 65_536)]))]),
                ),
            ]),
            &[WASM_OR_LUA, AtMostOne(&["wasm", "lua"])],
        ),
    ),
    may("status", &Any),
];
