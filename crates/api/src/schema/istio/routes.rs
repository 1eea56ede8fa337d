//! VirtualService.

use super::common::{DESTINATION, I32, PERCENT, RETRIES, TIME, U32};
use crate::schema::rules::Rule;
use crate::schema::{Field, LABELS, Shape, TEXTS, may, must};
use Rule::AtMostOne;
use Shape::{Any, Bound, Fields, Flag, List, Map, OneOf, Text};

const STRING_MATCH: Shape = Bound(
    &Fields(&[may("exact", &Text), may("prefix", &Text), may("regex", &Text)]),
    &[AtMostOne(&["exact", "prefix", "regex"])],
);
const MATCHES: Shape = Map(&STRING_MATCH);
const HTTP_MATCH: Shape = Fields(&[
    may("name", &Text),
    may("uri", &STRING_MATCH),
    may("scheme", &STRING_MATCH),
    may("method", &STRING_MATCH),
    may("authority", &STRING_MATCH),
    may("headers", &MATCHES),
    may("port", &U32),
    may("sourceLabels", &LABELS),
    may("gateways", &TEXTS),
    may("queryParams", &MATCHES),
    may("ignoreUriCase", &Flag),
    may("withoutHeaders", &MATCHES),
    may("sourceNamespace", &Text),
    may("statPrefix", &Text),
]);
const HEADER_OPERATIONS: Shape = Fields(&[may("add", &LABELS), may("remove", &TEXTS), may("set", &LABELS)]);
const HEADERS: Shape = Fields(&[
    may("request", &HEADER_OPERATIONS),
    may("response", &HEADER_OPERATIONS),
]);
const CORS: Shape = Fields(&[
    may("allowCredentials", &Flag),
    may("allowHeaders", &TEXTS),
    may("allowMethods", &TEXTS),
    may("allowOrigin", &TEXTS),
    may("allowOrigins", &List(&STRING_MATCH)),
    may("exposeHeaders", &TEXTS),
    may("maxAge", &TIME),
    may(
        "unmatchedPreflights",
        &OneOf(&["UNSPECIFIED", "FORWARD", "IGNORE"]),
    ),
]);
const FAULT: Shape = Fields(&[
    may(
        "abort",
        &Bound(
            &Fields(&[
                may("grpcStatus", &Text),
                may("http2Error", &Text),
                may("httpStatus", &I32),
                may("percentage", &PERCENT),
            ]),
            &[AtMostOne(&["httpStatus", "grpcStatus", "http2Error"])],
        ),
    ),
    may(
        "delay",
        &Bound(
            &Fields(&[
                may("exponentialDelay", &TIME),
                may("fixedDelay", &TIME),
                may("percent", &I32),
                may("percentage", &PERCENT),
            ]),
            &[AtMostOne(&["fixedDelay", "exponentialDelay"])],
        ),
    ),
]);
const REDIRECT: Shape = Bound(
    &Fields(&[
        may("uri", &Text),
        may("authority", &Text),
        may("port", &U32),
        may(
            "derivePort",
            &OneOf(&["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"]),
        ),
        may("prefixRewrite", &Text),
        may("scheme", &Text),
        may("redirectCode", &U32),
    ]),
    &[AtMostOne(&["port", "derivePort"])],
);
const DIRECT_RESPONSE: Shape = Fields(&[
    must("status", &U32),
    may(
        "body",
        &Bound(
            &Fields(&[may("string", &Text), may("bytes", &Text)]),
            &[AtMostOne(&["string", "bytes"])],
        ),
    ),
]);
const REWRITE: Shape = Fields(&[
    may("uri", &Text),
    may("authority", &Text),
    may(
        "uriRegexRewrite",
        &Fields(&[may("match", &Text), may("rewrite", &Text)]),
    ),
]);
const HTTP_ROUTE: Shape = Fields(&[
    may("name", &Text),
    may("match", &List(&HTTP_MATCH)),
    may(
        "route",
        &List(&Fields(&[
            must("destination", &DESTINATION),
            may("headers", &HEADERS),
            may("weight", &I32),
        ])),
    ),
    may("redirect", &REDIRECT),
    may("directResponse", &DIRECT_RESPONSE),
    may(
        "delegate",
        &Fields(&[may("name", &Text), may("namespace", &Text)]),
    ),
    may("rewrite", &REWRITE),
    may("timeout", &TIME),
    may("retries", &RETRIES),
    may("fault", &FAULT),
    may("mirror", &DESTINATION),
    may(
        "mirrors",
        &List(&Fields(&[
            must("destination", &DESTINATION),
            may("percentage", &PERCENT),
        ])),
    ),
    may("mirrorPercentage", &PERCENT),
    may("mirrorPercent", &U32),
    may("mirror_percent", &U32),
    may("corsPolicy", &CORS),
    may("headers", &HEADERS),
]);

const ROUTE: Shape = List(&Fields(&[must("destination", &DESTINATION), may("weight", &I32)]));
const TCP_ROUTE: Shape = Fields(&[
    may(
        "match",
        &List(&Fields(&[
            may("destinationSubnets", &TEXTS),
            may("port", &U32),
            may("sourceLabels", &LABELS),
            may("gateways", &TEXTS),
            may("sourceNamespace", &Text),
            may("sourceSubnet", &Text),
        ])),
    ),
    may("route", &ROUTE),
]);
const TLS_ROUTE: Shape = Fields(&[
    must(
        "match",
        &List(&Fields(&[
            must("sniHosts", &TEXTS),
            may("destinationSubnets", &TEXTS),
            may("port", &U32),
            may("sourceLabels", &LABELS),
            may("gateways", &TEXTS),
            may("sourceNamespace", &Text),
        ])),
    ),
    may("route", &ROUTE),
]);

pub(super) const VIRTUAL_SERVICE: &[Field] = &[
    may(
        "spec",
        &Fields(&[
            may("hosts", &TEXTS),
            may("gateways", &TEXTS),
            may("http", &List(&HTTP_ROUTE)),
            may("tls", &List(&TLS_ROUTE)),
            may("tcp", &List(&TCP_ROUTE)),
            may("exportTo", &TEXTS),
        ]),
    ),
    may("status", &Any),
];
