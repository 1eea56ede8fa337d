//! The kinds that are acted on, as types: fields as Kubernetes and Istio name them.

mod egress;
mod extension;
mod guardrail;
mod mesh;
mod meta;
mod security;
mod services;
mod telemetry;
mod traffic;
mod workloads;

pub use egress::{
    EntryEndpoint, EntryPort, EntrySelector, Location, Resolution, ServiceEntry, Sidecar, SidecarEgress,
    SidecarPolicy,
};
pub(crate) use extension::check as check_extensions;
pub use extension::{ExtAuthz, ExtAuthzHttp, ExtensionFault, ExtensionKind, ExtensionProvider, RequestBody};
pub use guardrail::Guardrail;
pub use mesh::{
    AccessLogEncoding, CaCertificate, MeshConfig, MeshMtls, Mode, Normalization, OutboundMode,
    PathNormalization, ProtocolVersion,
};
pub use meta::{Meta, OwnerReference};
pub use security::{
    Action, AuthorizationPolicy, Condition, From, JwtHeader, JwtRule, MtlsMode, MutualTls, Operation,
    OutputClaim, PeerAuthentication, RequestAuthentication, Rule, Selector, Source, TargetRef, To,
};
pub(crate) use security::{DRY_RUN, go_bool};
pub use services::{
    ConfigMap, Endpoint, EndpointAddress, EndpointConditions, EndpointPort, EndpointSlice, EndpointSubset,
    Endpoints, IntOrString, Secret, Service, ServiceAccount, ServicePort, ServiceType, SlicePort, TargetPort,
};
pub use telemetry::{
    CustomTag, DefaultProviders, TagName, TagValue, Telemetry, TelemetryLogging, TelemetryMatch,
    TelemetryMode, TelemetryProvider, TelemetryTracing,
};
pub use traffic::{ClientTls, DestinationRule, PortPolicy, PortSelector, Subset, TlsMode, TrafficPolicy};
pub use workloads::{
    Capabilities, ConfigKeyRef, Container, ContainerPort, EnvFrom, EnvVar, EnvVarSource, FieldRef, Job,
    LabelSelector, LabelSelectorRequirement, NameRef, Namespace, Pod, PodIp, PodSpec, PodStatus, PodTemplate,
    SecurityContext, Workload,
};

/// The typed bodies of the kinds that are acted on.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "the variants are the kinds")]
pub enum Kind {
    Namespace(Namespace),
    Pod(Box<Pod>),
    Deployment(Box<Workload>),
    StatefulSet(Box<Workload>),
    DaemonSet(Box<Workload>),
    Job(Box<Job>),
    Service(Box<Service>),
    ServiceAccount(ServiceAccount),
    Endpoints(Endpoints),
    EndpointSlice(EndpointSlice),
    /// ConfigMap; with the mesh configuration where it is `istio-system/istio` and that could be read.
    ConfigMap(ConfigMap, Option<Box<MeshConfig>>),
    Secret(Secret),
    PeerAuthentication(PeerAuthentication),
    AuthorizationPolicy(Box<AuthorizationPolicy>),
    RequestAuthentication(Box<RequestAuthentication>),
    Guardrail(Box<Guardrail>),
    DestinationRule(Box<DestinationRule>),
    Telemetry(Box<Telemetry>),
    ServiceEntry(Box<ServiceEntry>),
    Sidecar(Box<Sidecar>),
    /// A kind without a body of its own here: [`json`](crate::Object::json) has all there is, [`class`](crate::Object::class) says what becomes of it.
    Other,
}
