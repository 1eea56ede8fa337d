//! What users write: Kubernetes and Istio objects, read strictly, each mistake with its place.
//!
//! [`parse`] takes the text of a file and gives typed objects and [`Problem`]s. Reading goes in four
//! steps: text to a tree with the place of every key and value (the YAML front), tree to a known kind,
//! structure (fields, types, what is required), meaning (what one object can say about itself; what
//! depends on other objects is the analysis' part). Nothing here does I/O, and no input makes it panic.

#![warn(missing_docs)]

mod check;
mod forms;
mod kinds;
mod known;
mod object;
mod problem;
mod read;
mod report;
mod schema;
mod suggest;
mod yaml;

pub use forms::durations::duration_ms;
pub use kinds::{
    AccessLogEncoding, Action, AuthorizationPolicy, CaCertificate, Capabilities, ClientTls, Condition,
    ConfigKeyRef, ConfigMap, Container, ContainerPort, CustomTag, DefaultProviders, DestinationRule,
    Endpoint, EndpointAddress, EndpointConditions, EndpointPort, EndpointSlice, EndpointSubset, Endpoints,
    EntryEndpoint, EntryPort, EntrySelector, EnvFrom, EnvVar, EnvVarSource, ExtAuthz, ExtAuthzHttp,
    ExtensionFault, ExtensionKind, ExtensionProvider, FieldRef, From, Guardrail, IntOrString, Job, JwtHeader,
    JwtRule, Kind, LabelSelector, LabelSelectorRequirement, Location, MeshConfig, MeshMtls, Meta, Mode,
    MtlsMode, MutualTls, NameRef, Namespace, Normalization, Operation, OutboundMode, OutputClaim,
    OwnerReference, PathNormalization, PeerAuthentication, Pod, PodIp, PodSpec, PodStatus, PodTemplate,
    PortPolicy, PortSelector, ProtocolVersion, RequestAuthentication, RequestBody, Resolution, Rule, Secret,
    SecurityContext, Selector, Service, ServiceAccount, ServiceEntry, ServicePort, ServiceType, Sidecar,
    SidecarEgress, SidecarPolicy, SlicePort, Source, Subset, TagName, TagValue, TargetPort, TargetRef,
    Telemetry, TelemetryLogging, TelemetryMatch, TelemetryMode, TelemetryProvider, TelemetryTracing, TlsMode,
    To, TrafficPolicy, Workload,
};
pub use known::{Class, KnownKind, known_kinds};
pub use object::{Object, Origin, Parsed};
pub use problem::{ObjectRef, Problem, Severity, Span};
pub use read::parse;
pub use suggest::nearest;
pub use yaml::{MAX_BYTES, MAX_DEPTH, MAX_NODES, Node};
