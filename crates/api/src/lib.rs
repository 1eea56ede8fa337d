//! What users write: Kubernetes and Istio objects, read strictly, each mistake with its place.
//!
//! [`parse`] takes the text of a file and gives typed objects and [`Problem`]s. Reading goes in four
//! steps: text to a tree with the place of every key and value (the YAML front), tree to a known kind,
//! structure (fields, types, what is required), meaning (what one object can say about itself; what
//! depends on other objects is the analysis' part). Nothing here does I/O, and no input makes it panic.

#![warn(missing_docs)]

mod check;
mod known;
mod mesh;
mod object;
mod problem;
mod read;
mod report;
mod schema;
mod security;
mod services;
mod suggest;
mod traffic;
mod workloads;
mod yaml;

pub use known::{Class, KnownKind, known_kinds};
pub use mesh::{
    AccessLogEncoding, MeshConfig, MeshMtls, Mode, Normalization, OutboundMode, PathNormalization,
    ProtocolVersion, duration_ms,
};
pub use object::{Kind, Meta, Object, Origin, OwnerReference, Parsed, parse};
pub use problem::{ObjectRef, Problem, Severity};
pub use security::{
    Action, AuthorizationPolicy, Condition, From, JwtHeader, JwtRule, MtlsMode, MutualTls, Operation,
    OutputClaim, PeerAuthentication, RequestAuthentication, Rule, Selector, Source, TargetRef, To,
};
pub use services::{
    ConfigMap, Endpoint, EndpointAddress, EndpointConditions, EndpointPort, EndpointSlice, EndpointSubset,
    Endpoints, IntOrString, Secret, Service, ServiceAccount, ServicePort, ServiceType, SlicePort, TargetPort,
};
pub use suggest::nearest;
pub use traffic::{ClientTls, DestinationRule, PortPolicy, PortSelector, Subset, TlsMode, TrafficPolicy};
pub use workloads::{
    Capabilities, ConfigKeyRef, Container, ContainerPort, EnvFrom, EnvVar, EnvVarSource, FieldRef, Job,
    LabelSelector, LabelSelectorRequirement, NameRef, Namespace, Pod, PodIp, PodSpec, PodStatus, PodTemplate,
    SecurityContext, Workload,
};
pub use yaml::{MAX_BYTES, MAX_DEPTH, MAX_NODES, Node, Span};
