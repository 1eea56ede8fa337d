//! The kinds that are known, and what becomes of each.

use Class::{ActedOn, NotActedOn, SecurityNotActedOn};

/// What becomes of an object of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// It has its effect.
    ActedOn,
    /// Accepted, not acted on: it has no meaning here yet.
    NotActedOn,
    /// It would protect something, and does not here: an error, so that nobody relies on it.
    SecurityNotActedOn,
}

/// One known kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownKind {
    /// The API group; empty for Kubernetes' core.
    pub group: &'static str,
    /// The versions, the preferred one first.
    pub versions: &'static [&'static str],
    /// The kind.
    pub kind: &'static str,
    /// The plural, as in URLs and `get`.
    pub plural: &'static str,
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
    /// What becomes of it.
    pub class: Class,
}

impl KnownKind {
    /// Whether it says who may do what: an object that cannot be accepted denies what it targets.
    pub fn is_security(&self) -> bool {
        self.group == SECURITY || self.group == OWN
    }
}

/// All known kinds.
pub fn known_kinds() -> &'static [KnownKind] {
    KINDS
}

/// The kind of that group and name.
pub(crate) fn find(group: &str, kind: &str) -> Option<&'static KnownKind> {
    KINDS
        .iter()
        .find(|known| known.group == group && known.kind == kind)
}

/// Whether all kinds of the group are known, so that another one is a mistake.
pub(crate) fn is_closed_group(group: &str) -> bool {
    matches!(group, "" | "apps" | "batch" | "discovery.k8s.io" | OWN) || group.ends_with(".istio.io")
}

/// Whether the kind is one of Istio's former ones.
pub(crate) fn is_removed(group: &str, kind: &str) -> bool {
    matches!(
        group,
        "rbac.istio.io" | "authentication.istio.io" | "config.istio.io"
    ) || (group == "security.istio.io" && matches!(kind, "Policy" | "MeshPolicy"))
}

const fn kind(
    group: &'static str,
    versions: &'static [&'static str],
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
    class: Class,
) -> KnownKind {
    KnownKind {
        group,
        versions,
        kind,
        plural,
        namespaced,
        class,
    }
}

const V1: &[&str] = &["v1"];
const SECURITY: &str = "security.istio.io";
const NETWORKING: &str = "networking.istio.io";
/// The group of our own kinds.
const OWN: &str = "meshward.dev";
const GATEWAY: &str = "gateway.networking.k8s.io";
const NETWORKING_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const GATEWAY_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3", "v1alpha2"];

const KINDS: &[KnownKind] = &[
    // Kubernetes, acted on.
    kind("", V1, "Namespace", "namespaces", false, ActedOn),
    kind("", V1, "Pod", "pods", true, ActedOn),
    kind("", V1, "Service", "services", true, ActedOn),
    kind("", V1, "ServiceAccount", "serviceaccounts", true, ActedOn),
    kind("", V1, "Endpoints", "endpoints", true, ActedOn),
    kind("", V1, "ConfigMap", "configmaps", true, ActedOn),
    kind("", V1, "Secret", "secrets", true, ActedOn),
    kind("apps", V1, "Deployment", "deployments", true, ActedOn),
    kind("apps", V1, "StatefulSet", "statefulsets", true, ActedOn),
    kind("apps", V1, "DaemonSet", "daemonsets", true, ActedOn),
    kind("batch", V1, "Job", "jobs", true, ActedOn),
    kind(
        "discovery.k8s.io",
        V1,
        "EndpointSlice",
        "endpointslices",
        true,
        ActedOn,
    ),
    // Kubernetes, without a meaning here.
    kind("apps", V1, "ReplicaSet", "replicasets", true, NotActedOn),
    kind("batch", V1, "CronJob", "cronjobs", true, NotActedOn),
    kind(
        "",
        V1,
        "ReplicationController",
        "replicationcontrollers",
        true,
        NotActedOn,
    ),
    kind("", V1, "PodTemplate", "podtemplates", true, NotActedOn),
    kind("", V1, "Node", "nodes", false, NotActedOn),
    kind("", V1, "Event", "events", true, NotActedOn),
    kind("", V1, "LimitRange", "limitranges", true, NotActedOn),
    kind("", V1, "ResourceQuota", "resourcequotas", true, NotActedOn),
    kind("", V1, "PersistentVolume", "persistentvolumes", false, NotActedOn),
    kind(
        "",
        V1,
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        true,
        NotActedOn,
    ),
    kind("networking.k8s.io", V1, "Ingress", "ingresses", true, NotActedOn),
    kind(
        "networking.k8s.io",
        V1,
        "IngressClass",
        "ingressclasses",
        false,
        NotActedOn,
    ),
    kind(
        "networking.k8s.io",
        V1,
        "NetworkPolicy",
        "networkpolicies",
        true,
        SecurityNotActedOn,
    ),
    // Istio.
    kind(
        SECURITY,
        &["v1", "v1beta1"],
        "PeerAuthentication",
        "peerauthentications",
        true,
        ActedOn,
    ),
    kind(
        SECURITY,
        &["v1", "v1beta1"],
        "AuthorizationPolicy",
        "authorizationpolicies",
        true,
        ActedOn,
    ),
    kind(
        SECURITY,
        &["v1", "v1beta1"],
        "RequestAuthentication",
        "requestauthentications",
        true,
        ActedOn,
    ),
    kind(
        NETWORKING,
        NETWORKING_VERSIONS,
        "DestinationRule",
        "destinationrules",
        true,
        ActedOn,
    ),
    kind(
        NETWORKING,
        NETWORKING_VERSIONS,
        "Gateway",
        "gateways",
        true,
        NotActedOn,
    ),
    kind(
        NETWORKING,
        NETWORKING_VERSIONS,
        "ServiceEntry",
        "serviceentries",
        true,
        ActedOn,
    ),
    kind(
        NETWORKING,
        NETWORKING_VERSIONS,
        "Sidecar",
        "sidecars",
        true,
        ActedOn,
    ),
    kind(
        NETWORKING,
        NETWORKING_VERSIONS,
        "VirtualService",
        "virtualservices",
        true,
        NotActedOn,
    ),
    kind(
        NETWORKING,
        NETWORKING_VERSIONS,
        "WorkloadEntry",
        "workloadentries",
        true,
        NotActedOn,
    ),
    kind(
        NETWORKING,
        NETWORKING_VERSIONS,
        "WorkloadGroup",
        "workloadgroups",
        true,
        NotActedOn,
    ),
    kind(
        NETWORKING,
        &["v1alpha3"],
        "EnvoyFilter",
        "envoyfilters",
        true,
        NotActedOn,
    ),
    kind(
        NETWORKING,
        &["v1beta1"],
        "ProxyConfig",
        "proxyconfigs",
        true,
        NotActedOn,
    ),
    kind(
        "telemetry.istio.io",
        &["v1", "v1alpha1"],
        "Telemetry",
        "telemetries",
        true,
        ActedOn,
    ),
    kind(
        "extensions.istio.io",
        &["v1alpha1"],
        "WasmPlugin",
        "wasmplugins",
        true,
        NotActedOn,
    ),
    kind(
        "extensions.istio.io",
        &["v1alpha1"],
        "TrafficExtension",
        "trafficextensions",
        true,
        NotActedOn,
    ),
    kind(
        "install.istio.io",
        &["v1alpha1"],
        "IstioOperator",
        "istiooperators",
        true,
        NotActedOn,
    ),
    // Our own.
    kind(OWN, &["v1alpha1"], "Guardrail", "guardrails", true, ActedOn),
    // Gateway API.
    kind(
        GATEWAY,
        GATEWAY_VERSIONS,
        "GatewayClass",
        "gatewayclasses",
        false,
        NotActedOn,
    ),
    kind(GATEWAY, GATEWAY_VERSIONS, "Gateway", "gateways", true, NotActedOn),
    kind(
        GATEWAY,
        GATEWAY_VERSIONS,
        "HTTPRoute",
        "httproutes",
        true,
        NotActedOn,
    ),
    kind(
        GATEWAY,
        GATEWAY_VERSIONS,
        "GRPCRoute",
        "grpcroutes",
        true,
        NotActedOn,
    ),
    kind(
        GATEWAY,
        GATEWAY_VERSIONS,
        "TCPRoute",
        "tcproutes",
        true,
        NotActedOn,
    ),
    kind(
        GATEWAY,
        GATEWAY_VERSIONS,
        "TLSRoute",
        "tlsroutes",
        true,
        NotActedOn,
    ),
    kind(
        GATEWAY,
        GATEWAY_VERSIONS,
        "UDPRoute",
        "udproutes",
        true,
        NotActedOn,
    ),
    kind(
        GATEWAY,
        GATEWAY_VERSIONS,
        "ReferenceGrant",
        "referencegrants",
        true,
        NotActedOn,
    ),
    kind(
        GATEWAY,
        GATEWAY_VERSIONS,
        "ListenerSet",
        "listenersets",
        true,
        NotActedOn,
    ),
    kind(
        GATEWAY,
        GATEWAY_VERSIONS,
        "BackendTLSPolicy",
        "backendtlspolicies",
        true,
        SecurityNotActedOn,
    ),
];
