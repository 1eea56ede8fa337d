//! Fields of Kubernetes' kinds that are read (API v1.36). What has no meaning here is known by name and not looked into.

use super::{Field, LABELS, META, Shape, TEXTS, may, must};
use Shape::{Any, Fields, Flag, List, Map, OneOf, Scalar, Text, Whole};

/// The fields of a kind besides `apiVersion`, `kind` and `metadata`.
pub(super) fn of(group: &str, kind: &str) -> Option<&'static [Field]> {
    match (group, kind) {
        ("", "Namespace") => Some(const { &[may("spec", &Any), may("status", &Any)] }),
        ("", "Pod") => Some(const { &[must("spec", &POD_SPEC), may("status", &Any)] }),
        ("", "Service") => Some(SERVICE),
        ("", "ServiceAccount") => Some(
            const {
                &[
                    may("automountServiceAccountToken", &Flag),
                    may("secrets", &Any),
                    may("imagePullSecrets", &Any),
                ]
            },
        ),
        ("", "Endpoints") => Some(ENDPOINTS),
        ("discovery.k8s.io", "EndpointSlice") => Some(ENDPOINT_SLICE),
        ("", "ConfigMap") => Some(
            const {
                &[
                    may("data", &LABELS),
                    may("binaryData", &LABELS),
                    may("immutable", &Flag),
                ]
            },
        ),
        ("", "Secret") => Some(
            const {
                &[
                    may("data", &LABELS),
                    may("stringData", &LABELS),
                    may("type", &Text),
                    may("immutable", &Flag),
                ]
            },
        ),
        ("apps", "Deployment") => Some(const { &[must("spec", &DEPLOYMENT), may("status", &Any)] }),
        ("apps", "StatefulSet") => Some(const { &[must("spec", &STATEFUL_SET), may("status", &Any)] }),
        ("apps", "DaemonSet") => Some(const { &[must("spec", &DAEMON_SET), may("status", &Any)] }),
        ("batch", "Job") => Some(const { &[must("spec", &JOB), may("status", &Any)] }),
        _ => None,
    }
}

const COUNT: Shape = Whole(0, 2_147_483_647);
const PORT_NUMBER: Shape = Whole(1, 65_535);
const TRANSPORT: Shape = OneOf(&["TCP", "UDP", "SCTP"]);

const KEY_REF: Shape = Fields(&[may("name", &Text), must("key", &Text), may("optional", &Flag)]);
const NAME_REF: Shape = Fields(&[may("name", &Text), may("optional", &Flag)]);
const ENV: Shape = Fields(&[
    must("name", &Text),
    may("value", &Text),
    may(
        "valueFrom",
        &Fields(&[
            may("configMapKeyRef", &KEY_REF),
            may("secretKeyRef", &KEY_REF),
            may(
                "fieldRef",
                &Fields(&[may("apiVersion", &Text), must("fieldPath", &Text)]),
            ),
            may("resourceFieldRef", &Any),
            may("fileKeyRef", &Any),
        ]),
    ),
]);
const ENV_FROM: Shape = Fields(&[
    may("prefix", &Text),
    may("configMapRef", &NAME_REF),
    may("secretRef", &NAME_REF),
]);
const CONTAINER_PORT: Shape = Fields(&[
    may("name", &Text),
    must("containerPort", &PORT_NUMBER),
    may("protocol", &TRANSPORT),
    may("hostPort", &Whole(0, 65_535)),
    may("hostIP", &Text),
]);
const SECURITY_CONTEXT: Shape = Fields(&[
    may("runAsUser", &Whole(0, 4_294_967_294)),
    may("runAsGroup", &Whole(0, 4_294_967_294)),
    may("runAsNonRoot", &Flag),
    may("privileged", &Flag),
    may(
        "capabilities",
        &Fields(&[may("add", &TEXTS), may("drop", &TEXTS)]),
    ),
    may("allowPrivilegeEscalation", &Flag),
    may("readOnlyRootFilesystem", &Flag),
    may("procMount", &Text),
    may("seLinuxOptions", &Any),
    may("seccompProfile", &Any),
    may("appArmorProfile", &Any),
    may("windowsOptions", &Any),
]);
const POD_SECURITY_CONTEXT: Shape = Fields(&[
    may("runAsUser", &Whole(0, 4_294_967_294)),
    may("runAsGroup", &Whole(0, 4_294_967_294)),
    may("runAsNonRoot", &Flag),
    may("fsGroup", &Whole(0, 4_294_967_294)),
    may("fsGroupChangePolicy", &Text),
    may("supplementalGroups", &Any),
    may("supplementalGroupsPolicy", &Text),
    may("sysctls", &Any),
    may("seLinuxOptions", &Any),
    may("seLinuxChangePolicy", &Text),
    may("seccompProfile", &Any),
    may("appArmorProfile", &Any),
    may("windowsOptions", &Any),
]);
const CONTAINER: Shape = Fields(&[
    must("name", &Text),
    may("image", &Text),
    may("imagePullPolicy", &Text),
    may("command", &TEXTS),
    may("args", &TEXTS),
    may("workingDir", &Text),
    may("env", &List(&ENV)),
    may("envFrom", &List(&ENV_FROM)),
    may("ports", &List(&CONTAINER_PORT)),
    may("securityContext", &SECURITY_CONTEXT),
    may("readinessProbe", &Any),
    may("livenessProbe", &Any),
    may("startupProbe", &Any),
    may("restartPolicy", &Text),
    may("restartPolicyRules", &Any),
    may("volumeMounts", &List(&Any)),
    may("volumeDevices", &List(&Any)),
    may("resources", &Any),
    may("resizePolicy", &Any),
    may("lifecycle", &Any),
    may("terminationMessagePath", &Text),
    may("terminationMessagePolicy", &Text),
    may("stdin", &Flag),
    may("stdinOnce", &Flag),
    may("tty", &Flag),
]);
const CONTAINERS: Shape = List(&CONTAINER);

const POD_SPEC: Shape = Fields(&[
    must("containers", &CONTAINERS),
    may("initContainers", &CONTAINERS),
    may("ephemeralContainers", &Any),
    may("serviceAccountName", &Text),
    may("serviceAccount", &Text),
    may("automountServiceAccountToken", &Flag),
    may("hostNetwork", &Flag),
    may("hostPID", &Flag),
    may("hostIPC", &Flag),
    may("hostUsers", &Flag),
    may("shareProcessNamespace", &Flag),
    may("nodeName", &Text),
    may("nodeSelector", &LABELS),
    may("hostname", &Text),
    may("hostnameOverride", &Text),
    may("setHostnameAsFQDN", &Flag),
    may("subdomain", &Text),
    may("restartPolicy", &OneOf(&["Always", "OnFailure", "Never"])),
    may("terminationGracePeriodSeconds", &Whole(0, i64::MAX)),
    may("activeDeadlineSeconds", &Whole(0, i64::MAX)),
    may("securityContext", &POD_SECURITY_CONTEXT),
    may("volumes", &List(&Any)),
    may("affinity", &Any),
    may("tolerations", &Any),
    may("topologySpreadConstraints", &Any),
    may("schedulerName", &Text),
    may("priorityClassName", &Text),
    may("priority", &Any),
    may("preemptionPolicy", &Text),
    may("dnsPolicy", &Text),
    may("dnsConfig", &Any),
    may("hostAliases", &Any),
    may("imagePullSecrets", &Any),
    may("enableServiceLinks", &Flag),
    may("readinessGates", &Any),
    may("runtimeClassName", &Text),
    may("overhead", &Any),
    may("os", &Any),
    may("resources", &Any),
    may("resourceClaims", &Any),
    may("schedulingGates", &Any),
]);
const TEMPLATE: Shape = Fields(&[may("metadata", &META), must("spec", &POD_SPEC)]);
const LABEL_SELECTOR: Shape = Fields(&[
    may("matchLabels", &LABELS),
    may(
        "matchExpressions",
        &List(&Fields(&[
            must("key", &Text),
            must("operator", &OneOf(&["In", "NotIn", "Exists", "DoesNotExist"])),
            may("values", &TEXTS),
        ])),
    ),
]);

const DEPLOYMENT: Shape = Fields(&[
    may("replicas", &COUNT),
    must("selector", &LABEL_SELECTOR),
    must("template", &TEMPLATE),
    may("strategy", &Any),
    may("minReadySeconds", &COUNT),
    may("revisionHistoryLimit", &COUNT),
    may("paused", &Flag),
    may("progressDeadlineSeconds", &COUNT),
]);
const STATEFUL_SET: Shape = Fields(&[
    may("replicas", &COUNT),
    must("selector", &LABEL_SELECTOR),
    must("template", &TEMPLATE),
    may("serviceName", &Text),
    may("volumeClaimTemplates", &Any),
    may("podManagementPolicy", &Text),
    may("updateStrategy", &Any),
    may("revisionHistoryLimit", &COUNT),
    may("minReadySeconds", &COUNT),
    may("persistentVolumeClaimRetentionPolicy", &Any),
    may("ordinals", &Any),
]);
const DAEMON_SET: Shape = Fields(&[
    must("selector", &LABEL_SELECTOR),
    must("template", &TEMPLATE),
    may("updateStrategy", &Any),
    may("minReadySeconds", &COUNT),
    may("revisionHistoryLimit", &COUNT),
]);
const JOB: Shape = Fields(&[
    must("template", &TEMPLATE),
    may("completions", &COUNT),
    may("parallelism", &COUNT),
    may("backoffLimit", &COUNT),
    may("activeDeadlineSeconds", &COUNT),
    may("ttlSecondsAfterFinished", &COUNT),
    may("selector", &LABEL_SELECTOR),
    may("manualSelector", &Flag),
    may("completionMode", &Text),
    may("suspend", &Flag),
    may("podFailurePolicy", &Any),
    may("podReplacementPolicy", &Text),
    may("successPolicy", &Any),
    may("backoffLimitPerIndex", &COUNT),
    may("maxFailedIndexes", &COUNT),
    may("managedBy", &Text),
]);

const SERVICE_PORT: Shape = Fields(&[
    may("name", &Text),
    may("protocol", &TRANSPORT),
    may("appProtocol", &Text),
    must("port", &PORT_NUMBER),
    may("targetPort", &Scalar),
    may("nodePort", &Whole(0, 65_535)),
]);
const SERVICE: &[Field] = &[
    may(
        "spec",
        &Fields(&[
            may(
                "type",
                &OneOf(&["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]),
            ),
            may("clusterIP", &Text),
            may("clusterIPs", &TEXTS),
            may("ipFamilies", &List(&OneOf(&["IPv4", "IPv6"]))),
            may(
                "ipFamilyPolicy",
                &OneOf(&["SingleStack", "PreferDualStack", "RequireDualStack"]),
            ),
            may("ports", &List(&SERVICE_PORT)),
            may("selector", &LABELS),
            may("externalName", &Text),
            may("publishNotReadyAddresses", &Flag),
            may("internalTrafficPolicy", &Text),
            may("externalTrafficPolicy", &Text),
            may("sessionAffinity", &Text),
            may("sessionAffinityConfig", &Any),
            may("externalIPs", &TEXTS),
            may("loadBalancerIP", &Text),
            may("loadBalancerClass", &Text),
            may("loadBalancerSourceRanges", &TEXTS),
            may("allocateLoadBalancerNodePorts", &Flag),
            may("healthCheckNodePort", &COUNT),
            may("trafficDistribution", &Text),
        ]),
    ),
    may("status", &Any),
];

const ENDPOINT_ADDRESS: Shape = Fields(&[
    must("ip", &Text),
    may("hostname", &Text),
    may("nodeName", &Text),
    may("targetRef", &Any),
]);
const ENDPOINTS: &[Field] = &[may(
    "subsets",
    &List(&Fields(&[
        may("addresses", &List(&ENDPOINT_ADDRESS)),
        may("notReadyAddresses", &List(&ENDPOINT_ADDRESS)),
        may(
            "ports",
            &List(&Fields(&[
                may("name", &Text),
                must("port", &PORT_NUMBER),
                may("protocol", &TRANSPORT),
                may("appProtocol", &Text),
            ])),
        ),
    ])),
)];
const ENDPOINT_SLICE: &[Field] = &[
    must("addressType", &OneOf(&["IPv4", "IPv6", "FQDN"])),
    must(
        "endpoints",
        &List(&Fields(&[
            must("addresses", &TEXTS),
            may(
                "conditions",
                &Fields(&[
                    may("ready", &Flag),
                    may("serving", &Flag),
                    may("terminating", &Flag),
                ]),
            ),
            may("hostname", &Text),
            may("nodeName", &Text),
            may("targetRef", &Any),
            may("zone", &Text),
            may("hints", &Any),
            may("deprecatedTopology", &Map(&Text)),
        ])),
    ),
    may(
        "ports",
        &List(&Fields(&[
            may("name", &Text),
            may("port", &PORT_NUMBER),
            may("protocol", &TRANSPORT),
            may("appProtocol", &Text),
        ])),
    ),
];
