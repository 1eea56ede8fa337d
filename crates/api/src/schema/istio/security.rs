//! PeerAuthentication, AuthorizationPolicy, RequestAuthentication, and our Guardrail, which speaks as they do.

use super::common::{SELECTOR, TARGET_REF, TARGET_REFS};
use crate::schema::rules::Rule;
use crate::schema::{Field, Shape, TEXTS, may, must};
use Rule::{Count, Length};
use Shape::{Any, Bound, Fields, Flag, List, Map, OneOf, Text};

const MODE: Shape = OneOf(&["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]);
const MTLS: Shape = Fields(&[may("mode", &MODE)]);

pub(super) const PEER_AUTHENTICATION: &[Field] = &[
    may(
        "spec",
        &Fields(&[
            may("selector", &SELECTOR),
            may("mtls", &MTLS),
            may("portLevelMtls", &Map(&MTLS)),
        ]),
    ),
    may("status", &Any),
];

const SOURCE: Shape = Fields(&[
    may("principals", &TEXTS),
    may("notPrincipals", &TEXTS),
    may("requestPrincipals", &TEXTS),
    may("notRequestPrincipals", &TEXTS),
    may("namespaces", &TEXTS),
    may("notNamespaces", &TEXTS),
    may("serviceAccounts", &TEXTS),
    may("notServiceAccounts", &TEXTS),
    may("trustDomains", &TEXTS),
    may("notTrustDomains", &TEXTS),
    may("ipBlocks", &TEXTS),
    may("notIpBlocks", &TEXTS),
    may("remoteIpBlocks", &TEXTS),
    may("notRemoteIpBlocks", &TEXTS),
]);
const OPERATION: Shape = Fields(&[
    may("hosts", &TEXTS),
    may("notHosts", &TEXTS),
    may("ports", &TEXTS),
    may("notPorts", &TEXTS),
    may("methods", &TEXTS),
    may("notMethods", &TEXTS),
    may("paths", &TEXTS),
    may("notPaths", &TEXTS),
]);
const CONDITION: Shape = Fields(&[
    must("key", &Text),
    may("values", &TEXTS),
    may("notValues", &TEXTS),
]);
const RULE: Shape = Fields(&[
    may(
        "from",
        &Bound(&List(&Fields(&[may("source", &SOURCE)])), &[Count(0, 512)]),
    ),
    may("to", &List(&Fields(&[may("operation", &OPERATION)]))),
    may("when", &List(&CONDITION)),
]);
const RULES: Shape = Bound(&List(&RULE), &[Count(0, 512)]);

pub(super) const AUTHORIZATION_POLICY: &[Field] = &[
    may(
        "spec",
        &Fields(&[
            may("selector", &SELECTOR),
            may("targetRef", &TARGET_REF),
            may("targetRefs", &TARGET_REFS),
            may("rules", &RULES),
            may("action", &OneOf(&["ALLOW", "DENY", "AUDIT", "CUSTOM"])),
            may("provider", &Fields(&[may("name", &Text)])),
        ]),
    ),
    may("status", &Any),
];

pub(super) const GUARDRAIL: &[Field] = &[
    may(
        "spec",
        &Fields(&[
            may("namespaces", &TEXTS),
            may("notNamespaces", &TEXTS),
            may("mtls", &MTLS),
            may("deny", &RULES),
            may("ceiling", &RULES),
        ]),
    ),
    may("status", &Any),
];

const JWT_RULE: Shape = Fields(&[
    may("issuer", &Text),
    may("audiences", &TEXTS),
    may("jwksUri", &Bound(&Text, &[Length(1, 2048)])),
    may("jwks_uri", &Bound(&Text, &[Length(1, 2048)])),
    may("jwks", &Text),
    may(
        "fromHeaders",
        &List(&Fields(&[must("name", &Text), may("prefix", &Text)])),
    ),
    may("fromParams", &TEXTS),
    may("fromCookies", &TEXTS),
    may("outputPayloadToHeader", &Text),
    may(
        "outputClaimToHeaders",
        &List(&Fields(&[must("header", &Text), must("claim", &Text)])),
    ),
    may("forwardOriginalToken", &Flag),
    may("timeout", &Text),
    may("spaceDelimitedClaims", &Bound(&TEXTS, &[Count(0, 64)])),
    may("presence", &OneOf(&["OPTIONAL", "REQUIRED"])),
]);

pub(super) const REQUEST_AUTHENTICATION: &[Field] = &[
    may(
        "spec",
        &Fields(&[
            may("selector", &SELECTOR),
            may("targetRef", &TARGET_REF),
            may("targetRefs", &TARGET_REFS),
            may("jwtRules", &Bound(&List(&JWT_RULE), &[Count(0, 4096)])),
        ]),
    ),
    may("status", &Any),
];
