//! MeshConfig and MeshNetworks (`mesh/v1alpha1/config.proto`, `network.proto`), by their names in JSON.

use super::common::{
    CLIENT_TLS, CONNECTION_POOL, I32, LOCALITY, OUTLIER_DETECTION, RETRIES, SPAN, TCP_KEEPALIVE, U32, ZONES,
};
use super::providers::EXTENSION_PROVIDER;
use super::proxy::PROXY_CONFIG;
use crate::schema::rules::Rule;
use crate::schema::{LABELS, Shape, TEXTS, may};
use Rule::AtMostOne;
use Shape::{Bound, Fields, Flag, List, Map, OneOf, Text};

const LABEL_SELECTOR: Shape = Fields(&[
    may("matchLabels", &LABELS),
    may(
        "matchExpressions",
        &List(&Fields(&[
            may("key", &Text),
            may("operator", &Text),
            may("values", &TEXTS),
        ])),
    ),
]);
const TLS_CONFIG: Shape = Fields(&[
    may("minProtocolVersion", &OneOf(&["TLS_AUTO", "TLSV1_2", "TLSV1_3"])),
    may("ecdhCurves", &TEXTS),
    may("cipherSuites", &TEXTS),
]);
const VISIBILITY: Shape = OneOf(&["VISIBILITY_UNSPECIFIED", "NONE", "NAMESPACE", "PUBLIC"]);

pub(in crate::schema) const MESH_CONFIG: Shape = Fields(&[
    may("proxyListenPort", &I32),
    may("proxyInboundListenPort", &I32),
    may("proxyHttpPort", &I32),
    may("connectTimeout", &SPAN),
    may("hboneIdleTimeout", &SPAN),
    may("protocolDetectionTimeout", &SPAN),
    may("tcpKeepalive", &TCP_KEEPALIVE),
    may("ingressClass", &Text),
    may("ingressService", &Text),
    may(
        "ingressControllerMode",
        &OneOf(&["UNSPECIFIED", "OFF", "DEFAULT", "STRICT"]),
    ),
    may("ingressSelector", &Text),
    may("enableTracing", &Flag),
    may("accessLogFile", &Text),
    may("accessLogFormat", &Text),
    may("accessLogEncoding", &OneOf(&["TEXT", "JSON"])),
    may("enableEnvoyAccessLogService", &Flag),
    may("disableEnvoyListenerLog", &Flag),
    may("defaultConfig", &PROXY_CONFIG),
    may(
        "outboundTrafficPolicy",
        &Fields(&[
            may(
                "mode",
                &OneOf(&["REGISTRY_ONLY", "ALLOW_ANY", "ALLOW_ANY_DYNAMIC_DNS"]),
            ),
            may("tls", &CLIENT_TLS),
        ]),
    ),
    may(
        "inboundTrafficPolicy",
        &Fields(&[may("mode", &OneOf(&["PASSTHROUGH", "LOCALHOST"]))]),
    ),
    may(
        "configSources",
        &List(&Fields(&[
            may("address", &Text),
            may("tlsSettings", &CLIENT_TLS),
            may("subscribedResources", &List(&OneOf(&["SERVICE_REGISTRY"]))),
        ])),
    ),
    may("enableAutoMtls", &Flag),
    may("trustDomain", &Text),
    may("trustDomainAliases", &TEXTS),
    may(
        "caCertificates",
        &List(&Bound(
            &Fields(&[
                may("pem", &Text),
                may("spiffeBundleUrl", &Text),
                may("certSigners", &TEXTS),
                may("trustDomains", &TEXTS),
            ]),
            &[AtMostOne(&["pem", "spiffeBundleUrl"])],
        )),
    ),
    may("defaultServiceExportTo", &TEXTS),
    may("defaultVirtualServiceExportTo", &TEXTS),
    may("defaultDestinationRuleExportTo", &TEXTS),
    may("rootNamespace", &Text),
    may("localityLbSetting", &LOCALITY),
    may("zoneAwareLbSetting", &ZONES),
    may("dnsRefreshRate", &SPAN),
    may("h2UpgradePolicy", &OneOf(&["DO_NOT_UPGRADE", "UPGRADE"])),
    may("inboundClusterStatName", &Text),
    may("outboundClusterStatName", &Text),
    may(
        "certificates",
        &List(&Fields(&[may("secretName", &Text), may("dnsNames", &TEXTS)])),
    ),
    may(
        "serviceSettings",
        &List(&Fields(&[
            may("settings", &Fields(&[may("clusterLocal", &Flag)])),
            may("hosts", &TEXTS),
        ])),
    ),
    may(
        "serviceScopeConfigs",
        &List(&Fields(&[
            may("namespaceSelector", &LABEL_SELECTOR),
            may("servicesSelector", &LABEL_SELECTOR),
            may("scope", &OneOf(&["LOCAL", "GLOBAL"])),
        ])),
    ),
    may("enablePrometheusMerge", &Flag),
    may("verifyCertificateAtClient", &Flag),
    may(
        "ca",
        &Fields(&[
            may("address", &Text),
            may("tlsSettings", &CLIENT_TLS),
            may("requestTimeout", &SPAN),
            may("istiodSide", &Flag),
        ]),
    ),
    may("extensionProviders", &List(&EXTENSION_PROVIDER)),
    may(
        "defaultProviders",
        &Fields(&[
            may("tracing", &TEXTS),
            may("metrics", &TEXTS),
            may("accessLogging", &TEXTS),
        ]),
    ),
    may("discoverySelectors", &List(&LABEL_SELECTOR)),
    may(
        "pathNormalization",
        &Fields(&[may(
            "normalization",
            &OneOf(&[
                "DEFAULT",
                "NONE",
                "BASE",
                "MERGE_SLASHES",
                "DECODE_AND_MERGE_SLASHES",
            ]),
        )]),
    ),
    may("defaultHttpRetryPolicy", &RETRIES),
    may("defaultInboundHttpRetryPolicy", &RETRIES),
    may("meshMTLS", &TLS_CONFIG),
    may("tlsDefaults", &TLS_CONFIG),
    may(
        "defaultTrafficPolicy",
        &Fields(&[
            may("connectionPool", &CONNECTION_POOL),
            may("outlierDetection", &OUTLIER_DETECTION),
        ]),
    ),
    may(
        "serviceEntryVisibility",
        &Fields(&[
            may("defaultVisibility", &VISIBILITY),
            may("applyToSidecars", &Flag),
            may(
                "policies",
                &List(&Fields(&[
                    may("visibility", &VISIBILITY),
                    may(
                        "matchingRules",
                        &List(&Fields(&[may("namespaceSelector", &LABEL_SELECTOR)])),
                    ),
                ])),
            ),
        ]),
    ),
]);

pub(in crate::schema) const MESH_NETWORKS: Shape = Fields(&[may(
    "networks",
    &Map(&Fields(&[
        may(
            "endpoints",
            &List(&Bound(
                &Fields(&[may("fromCidr", &Text), may("fromRegistry", &Text)]),
                &[AtMostOne(&["fromCidr", "fromRegistry"])],
            )),
        ),
        may(
            "gateways",
            &List(&Bound(
                &Fields(&[
                    may("registryServiceName", &Text),
                    may("address", &Text),
                    may("port", &U32),
                    may("locality", &Text),
                ]),
                &[AtMostOne(&["registryServiceName", "address"])],
            )),
        ),
    ])),
)]);
