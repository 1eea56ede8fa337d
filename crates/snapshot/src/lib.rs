//! What one proxy knows: the contract between the two planes.
//!
//! The control plane compiles a world into [`Resource`]s; a proxy holds a set of them. The transport moves
//! differences: [`Resources::diff`] and [`Resources::apply`] are its whole algebra, and
//! `a.apply(a.diff(b)) == b` is a property test. Unknown fields are refused whole when a resource is decoded,
//! so that a proxy older than its control plane fails closed and never drops half a rule (semantics 2.17, R7).

#![warn(missing_docs)]

mod egress;
mod index;
mod mesh;
mod provider;
mod resources;
mod service;
mod set;
mod telemetry;
mod workload;

pub use egress::{External, Import, NamedEndpoint, Resolution, Scope};
pub use index::{
    Answer, Asker, Authentication, Claim, Destination, Index, IndexError, Lacks, ServiceTarget, Transport,
};
pub use mesh::{Bundle, Egress, Mesh, MeshTls, PathNormalization, TLS12_SUITES, TlsVersion, XfccMode};
pub use provider::{CheckBody, HeaderPattern, HttpCheck, Provider, ProviderKind};
pub use resources::{Address, Delta, Resource, ResourceName};
pub use service::{ClientNames, ClientTls, Endpoint, Service, ServicePort};
pub use set::Resources;
pub use telemetry::{Tag, Telemetry, TraceProvider, Tracing, WHOLE};
pub use workload::{Inbound, InboundPort, Workload};
