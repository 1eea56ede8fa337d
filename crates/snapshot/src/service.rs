//! Services and their endpoints, as a client's proxy sees them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::{Host, Protocol, ServiceName, SpiffeId, WorkloadId, WorkloadUid};
use serde::{Deserialize, Serialize};

use crate::External;

/// A Service with all that a client needs to reach it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// The fully qualified host, `httpbin.full.svc.cluster.local`. Shorter forms follow from it and the caller's namespace.
    pub host: Host,
    /// Cluster addresses, at most one a family; none for a headless Service.
    pub vips: Vec<IpAddr>,
    /// `clusterIP: None`: names resolve to the endpoints' addresses, and they are dialled as they are.
    pub headless: bool,
    /// ExternalName: the name that this one stands for. Then there are no endpoints.
    pub external_name: Option<Host>,
    /// The ports.
    pub ports: Vec<ServicePort>,
    /// Endpoints, ordered by uid. Those that are not ready are included and marked.
    pub endpoints: Vec<Endpoint>,
    /// Service accounts of the endpoints: who a client accepts at the other end (CM-14).
    pub identities: Vec<SpiffeId>,
    /// Set where a ServiceEntry declares it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

impl Service {
    /// Whether clients of the namespace may know it.
    pub fn is_exported_to(&self, namespace: &str) -> bool {
        let external = self.external.as_ref();
        external.is_none_or(|e| e.export_to.is_empty() || e.export_to.iter().any(|to| to == namespace))
    }
}

/// One port of a Service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicePort {
    /// Its name; empty where the Service gives none.
    pub name: String,
    /// The Service port.
    pub port: u16,
    /// What it speaks (semantics 9).
    pub protocol: Protocol,
    /// What clients must use towards it, from DestinationRules; `None` leaves it to auto-mTLS. The secure profile
    /// never turns an edge plaintext silently: what is in force is shown in status (P57).
    pub tls: Option<ClientTls>,
    /// Client namespaces whose own DestinationRule decides in place of `tls`, with what it says (semantics 6.6 step 1).
    #[serde(default)]
    pub tls_by_namespace: BTreeMap<String, Option<ClientTls>>,
}

impl ServicePort {
    /// What a DestinationRule demands of clients in the namespace; `None` leaves it to auto-mTLS.
    pub fn tls_for(&self, client_namespace: &str) -> Option<ClientTls> {
        self.tls_by_namespace
            .get(client_namespace)
            .unwrap_or(&self.tls)
            .clone()
    }
}

/// `DestinationRule.trafficPolicy.tls` (semantics 1.6).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientTls {
    /// Plaintext (CM-07).
    Disable,
    /// The workload's certificate, always (CM-06).
    IstioMutual,
    /// The same with names of the rule's own.
    Named(Arc<ClientNames>),
    /// TLS settings that cannot be acted on yet: refuse to connect, never fall back to plaintext (GW-44, R1).
    Unsupported,
}

/// Names that a DestinationRule with `mode: ISTIO_MUTUAL` gives in place of those that follow from the Service (CM-16).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientNames {
    /// `sni`; `None` leaves `outbound_.PORT_._.HOST`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<Arc<str>>,
    /// `subjectAltNames`: those of them that a certificate of a mesh can carry. `None` where the rule gives none: the Service's
    /// identities are expected. Empty where none of the given can be: nobody is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Arc<[SpiffeId]>>,
}

/// One address that answers for a Service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The pod, or for addresses that are no pod an id made from service and address.
    pub uid: WorkloadUid,
    /// The workload that owns it, where known, for logs and metrics.
    pub workload: Option<WorkloadId>,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Service port -> port on the workload. A port that is missing here is not served by this endpoint.
    pub ports: BTreeMap<u16, u16>,
    /// Whether it may receive new connections.
    pub ready: bool,
    /// The node it runs on, where known.
    pub node: Option<String>,
    /// Its identity, where it is in the mesh or brings a proxy of Istio's (CM-11). `None` is a plain endpoint (CM-02).
    pub identity: Option<SpiffeId>,
    /// Workload ports on which its effective mode is DISABLE, so that auto-mTLS must not be used (CM-03).
    /// `0` stands for every port that `mtls_ports` does not name.
    pub plaintext_ports: Vec<u16>,
    /// Workload ports that are not DISABLE although `plaintext_ports` holds `0`.
    pub mtls_ports: Vec<u16>,
    /// Whether it is reached by HBONE, at its port 15008: a pod behind a proxy of Istio's ambient mode. That takes mutual
    /// TLS for every port, whatever its modes (semantics 1.8).
    #[serde(default, skip_serializing_if = "is_not")]
    pub hbone: bool,
    /// The name by which a headless Service's DNS knows it: `HOSTNAME.SERVICE.NAMESPACE.svc…`.
    #[serde(default)]
    pub hostname: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
pub(crate) fn is_not(flag: &bool) -> bool {
    !flag
}

/// Whether a workload port takes mutual TLS of the mesh, from the two lists that endpoints and workloads carry.
pub(crate) fn takes_mtls(plaintext_ports: &[u16], mtls_ports: &[u16], port: u16) -> bool {
    !plaintext_ports.contains(&port) && (!plaintext_ports.contains(&0) || mtls_ports.contains(&port))
}

impl Endpoint {
    /// Whether the endpoint accepts mutual TLS of the mesh on the workload port (semantics 1.6 step 3).
    pub fn accepts_mtls(&self, workload_port: u16) -> bool {
        let takes = self.hbone || takes_mtls(&self.plaintext_ports, &self.mtls_ports, workload_port);
        self.identity.is_some() && takes
    }

    /// The address of the wished family, else any.
    pub fn address(&self, ipv6: bool) -> Option<IpAddr> {
        self.addresses
            .iter()
            .find(|a| a.is_ipv6() == ipv6)
            .or_else(|| self.addresses.first())
            .copied()
    }
}
