//! Fields of Istio's kinds that are read (istio.io/api, `security/v1`, `networking/v1`).

use super::{Field, LABELS, Shape, TEXTS, may, must};
use Shape::{Any, Fields, Flag, List, Map, OneOf, Text, Whole};

/// The fields of a kind besides `apiVersion`, `kind` and `metadata`.
pub(super) fn of(group: &str, kind: &str) -> Option<&'static [Field]> {
    match (group, kind) {
        ("security.istio.io", "PeerAuthentication") => Some(PEER_AUTHENTICATION),
        ("security.istio.io", "AuthorizationPolicy") => Some(AUTHORIZATION_POLICY),
        ("security.istio.io", "RequestAuthentication") => Some(REQUEST_AUTHENTICATION),
        ("meshward.dev", "Guardrail") => Some(GUARDRAIL),
        ("networking.istio.io", "DestinationRule") => Some(DESTINATION_RULE),
        _ => None,
    }
}

const SELECTOR: Shape = Fields(&[may("matchLabels", &LABELS)]);
const TARGET_REF: Shape = Fields(&[
    may("group", &Text),
    must("kind", &Text),
    must("name", &Text),
    may("namespace", &Text),
]);
const TARGET_REFS: Shape = List(&TARGET_REF);
const MODE: Shape = OneOf(&["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]);
const MTLS: Shape = Fields(&[may("mode", &MODE)]);

const PEER_AUTHENTICATION: &[Field] = &[
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
    may("from", &List(&Fields(&[may("source", &SOURCE)]))),
    may("to", &List(&Fields(&[may("operation", &OPERATION)]))),
    may("when", &List(&CONDITION)),
]);

const AUTHORIZATION_POLICY: &[Field] = &[
    may(
        "spec",
        &Fields(&[
            may("selector", &SELECTOR),
            may("targetRef", &TARGET_REF),
            may("targetRefs", &TARGET_REFS),
            may("rules", &List(&RULE)),
            may("action", &OneOf(&["ALLOW", "DENY", "AUDIT", "CUSTOM"])),
            may("provider", &Fields(&[may("name", &Text)])),
        ]),
    ),
    may("status", &Any),
];

const GUARDRAIL: &[Field] = &[
    may(
        "spec",
        &Fields(&[
            may("namespaces", &TEXTS),
            may("notNamespaces", &TEXTS),
            may("mtls", &MTLS),
            may("deny", &List(&RULE)),
            may("ceiling", &List(&RULE)),
        ]),
    ),
    may("status", &Any),
];

const JWT_RULE: Shape = Fields(&[
    must("issuer", &Text),
    may("audiences", &TEXTS),
    may("jwksUri", &Text),
    may("jwks_uri", &Text),
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
    may("spaceDelimitedClaims", &TEXTS),
    may("presence", &OneOf(&["OPTIONAL", "REQUIRED"])),
]);

const REQUEST_AUTHENTICATION: &[Field] = &[
    may(
        "spec",
        &Fields(&[
            may("selector", &SELECTOR),
            may("targetRef", &TARGET_REF),
            may("targetRefs", &TARGET_REFS),
            may("jwtRules", &List(&JWT_RULE)),
        ]),
    ),
    may("status", &Any),
];

const CLIENT_TLS: Shape = Fields(&[
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
const PORT: Shape = Fields(&[may("number", &Whole(0, 65_535))]);
const PORT_POLICY: Shape = Fields(&[
    may("port", &PORT),
    may("loadBalancer", &Any),
    may("connectionPool", &Any),
    may("outlierDetection", &Any),
    may("tls", &CLIENT_TLS),
]);
const TRAFFIC_POLICY: Shape = Fields(&[
    may("loadBalancer", &Any),
    may("connectionPool", &Any),
    may("outlierDetection", &Any),
    may("tls", &CLIENT_TLS),
    may("portLevelSettings", &List(&PORT_POLICY)),
    may("tunnel", &Any),
    may("proxyProtocol", &Any),
    may("retryBudget", &Any),
]);

const DESTINATION_RULE: &[Field] = &[
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
