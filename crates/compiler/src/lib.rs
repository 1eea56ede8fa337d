//! From objects to snapshots: what users wrote, and the pods that exist, become what each node's proxy knows.
//!
//! [`compile`] is one pure function. It does no I/O and reads no clock; it is deterministic and blind to the
//! order of its input. It never drops a security object silently: each has an [`Effect`], and one that is not in
//! force, or only in part, a [`Problem`] beside it (R38).

#![warn(missing_docs)]

mod addresses;
mod authn;
mod authz;
mod destination;
mod inbound;
mod pods;
mod report;
mod services;
mod settings;
mod space;
mod view;
mod whole;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use api::{Object, ObjectRef, Pod, Problem};
use jwt::Jwks;
use model::{Cidr, Profile, ServiceName, TrustDomain};
use serde::{Deserialize, Serialize};
use snapshot::Resources;

pub use pods::injection::{InjectionPolicy, PodLabels, injected};
pub use pods::outsider::{Outsider, outsider};
pub use space::{Space, Spaces};
pub use whole::{Compilation, Touched};

/// All that is compiled, frozen.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Objects, accepted ones and the security objects that are not (see [`Object::invalid`]).
    pub objects: Vec<Arc<Object>>,
    /// The pods that exist, with their status.
    pub pods: Vec<Arc<Pod>>,
    /// The nodes; each gets a snapshot.
    pub nodes: Vec<String>,
    /// PEM certificates that peers are verified against.
    pub roots: Vec<String>,
    /// Keys that tokens are verified by, as far as somebody has fetched them; by [`Jwks::source`].
    pub jwks: BTreeMap<String, Arc<Jwks>>,
    /// What the operator chose.
    pub options: Options,
}

/// What the operator chose, beside the objects.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which defaults are in force.
    pub profile: Profile,
    /// The trust domain that the CA issues in; it is in force whatever MeshConfig says. `None` leaves it to MeshConfig.
    pub trust_domain: Option<TrustDomain>,
    /// The DNS suffix of the cluster.
    pub cluster_domain: String,
    /// Addresses of the cluster's DNS; never given to another Service.
    pub dns_vips: Vec<IpAddr>,
    /// Where cluster addresses may lie. A Service that asks for one elsewhere could take another's traffic.
    pub service_ranges: Vec<Cidr>,
    /// Which pods are in the mesh, where labels leave it open.
    pub injection: InjectionPolicy,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: Profile::Secure,
            trust_domain: None,
            cluster_domain: "cluster.local".to_owned(),
            dns_vips: vec![
                Ipv4Addr::new(10, 96, 0, 10).into(),
                Ipv6Addr::new(0xfd77, 0x96, 0, 0, 0, 0, 0, 0xa).into(),
            ],
            service_ranges: addresses::ranges(),
            injection: InjectionPolicy::default(),
        }
    }
}

/// What comes out.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Compiled {
    /// Services and workloads, without what may come in to these: what a proxy may ask for.
    pub shared: Resources,
    /// What each node's proxy may know: all that is `shared`, and over it what belongs to the node
    /// ([`Resources::own`]), which its proxy has from the start.
    pub nodes: BTreeMap<String, Resources>,
    /// What is wrong, or not as it was most likely meant; ordered by place.
    pub problems: Vec<Problem>,
    /// What each security object does; ordered by object.
    pub effects: Vec<Effect>,
    /// Cluster addresses for pods outside the mesh; the same on every node.
    pub plain_services: Vec<PlainService>,
    /// The pods, for people; ordered by namespace and name.
    pub pods: Vec<PodView>,
    /// Where keys have to be fetched from ([`Jwks::source`]), and how long that may take, in milliseconds.
    pub key_sources: BTreeMap<String, u64>,
}

/// What a security object (PeerAuthentication, AuthorizationPolicy, RequestAuthentication, Guardrail, DestinationRule, and kinds
/// that are not acted on) does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Effect {
    /// The object.
    pub object: ObjectRef,
    /// Whether it is part of some snapshot, or would be as soon as what it selects exists.
    pub in_force: bool,
    /// Why it is not, or not as written: one sentence an entry.
    pub why: Vec<String>,
    /// Pods of the mesh (`namespace/name`) that it decides for; for a DestinationRule the Services.
    pub targets: Vec<String>,
    /// Nodes whose proxies must know it.
    pub nodes: Vec<String>,
    /// Older objects of the same scope that are used in its place.
    pub shadowed_by: Vec<ObjectRef>,
}

/// What a source of [`Compiled::key_sources`] begins with at which a SPIFFE bundle is published (`spiffeBundleUrl`); what is
/// handed in for it are its roots, PEM.
pub const BUNDLE_SOURCE: &str = settings::roots::SOURCE;

/// One cluster address and port, for the DNAT table of pods outside the mesh.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlainService {
    /// The Service.
    pub service: ServiceName,
    /// The cluster address.
    pub vip: IpAddr,
    /// The Service port.
    pub port: u16,
    /// Whether the port carries UDP.
    pub udp: bool,
    /// Ready endpoints of the address's family.
    pub endpoints: Vec<SocketAddr>,
}

/// A pod, for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The name of what owns it, or its own.
    pub workload: String,
    /// Its service account.
    pub service_account: String,
    /// Its addresses, IPv4 first.
    pub ips: Vec<IpAddr>,
    /// The node it runs on; empty where it has none yet.
    pub node: String,
    /// Its identity, in the mesh.
    pub identity: Option<String>,
    /// Whether a proxy stands before it.
    pub in_mesh: bool,
    /// `STRICT`, or `8080:PERMISSIVE,*:STRICT`; `None` outside the mesh.
    pub mtls: Option<String>,
    /// `deny by default`, `3 policies`, `invalid: ns/name`; `None` outside the mesh.
    pub policies: Option<String>,
    /// Whether it takes connections.
    pub ready: bool,
}

/// Compiles a world. Linear in pods times the Services and policies of their namespaces.
pub fn compile(world: &World) -> Compiled {
    let mut whole = Compilation::new();
    whole.update(Spaces::from(world));
    whole.flat()
}

#[cfg(test)]
mod tests;
