//! Workloads: who they are, and, for those that a proxy stands before, what may come in.

use std::net::IpAddr;

use model::{MtlsMode, Protocol, SpiffeId, WorkloadId, WorkloadUid};
use policy::PolicyId;
use policy::path::Dialects;
use serde::{Deserialize, Serialize};

use crate::service::{is_not, takes_mtls};
use crate::{Scope, Telemetry};

/// One pod.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Its id.
    pub uid: WorkloadUid,
    /// Namespace and name of the pod.
    pub pod: WorkloadId,
    /// What owns it (a Deployment, say), for logs and metrics: `destination_workload`.
    pub workload: WorkloadId,
    /// Labels that metrics name: `app` or `app.kubernetes.io/name` (`service.istio.io/canonical-name` first).
    pub canonical_name: String,
    /// `service.istio.io/canonical-revision`, `app.kubernetes.io/version` or `version`; `latest` where none is set.
    pub canonical_revision: String,
    /// The label `app`, `unknown` where missing (metrics).
    pub app: String,
    /// The label `version`, `unknown` where missing (metrics).
    pub version: String,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// The node it runs on.
    pub node: String,
    /// Its service account.
    pub service_account: String,
    /// Its identity, where it is in the mesh or brings a proxy of Istio's (CM-11); `None` for a plain pod.
    pub identity: Option<SpiffeId>,
    /// Whether it may receive new connections.
    pub ready: bool,
    /// Workload ports on which its effective mode is DISABLE, as in [`crate::Endpoint::plaintext_ports`]: for clients
    /// that dial its address (O-01).
    #[serde(default)]
    pub plaintext_ports: Vec<u16>,
    /// As [`crate::Endpoint::mtls_ports`].
    #[serde(default)]
    pub mtls_ports: Vec<u16>,
    /// As [`crate::Endpoint::hbone`].
    #[serde(default, skip_serializing_if = "is_not")]
    pub hbone: bool,
    /// What may come in, sent only to the proxy that stands before it.
    pub inbound: Option<Inbound>,
}

impl Workload {
    /// Whether it accepts mutual TLS of the mesh on the workload port (semantics 1.6 step 3).
    pub fn accepts_mtls(&self, workload_port: u16) -> bool {
        let takes = self.hbone || takes_mtls(&self.plaintext_ports, &self.mtls_ports, workload_port);
        self.identity.is_some() && takes
    }
}

/// What a proxy must know to let connections in to a workload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inbound {
    /// Ports that a Service or a PeerAuthentication names, by workload port, ascending.
    pub ports: Vec<InboundPort>,
    /// The mode of every other port (semantics 1.2 step 4; P17).
    pub default_mtls: MtlsMode,
    /// Names of the policies that select the workload, of all actions, ascending. A name that has no
    /// [`policy::PolicySpec`] beside it denies (R34).
    pub policies: Vec<PolicyId>,
    /// Names of the RequestAuthentications that select the workload, ascending: all count, none overrides another
    /// (semantics 4.1). A name that has no [`jwt::AuthenticationSpec`] beside it denies.
    #[serde(default)]
    pub authentications: Vec<PolicyId>,
    /// The object that decides, for explanations: `<namespace>/<name>` of a PeerAuthentication, or
    /// `Guardrail/<namespace>/<name>` where its floor does.
    pub mtls_decided_by: Option<String>,
    /// How the workload reads paths, by workload port; decisions look at every reading.
    #[serde(default, skip_serializing_if = "is_default")]
    pub path_dialects: Dialects,
    /// What it knows of the registry, where a Sidecar is for it and not for its whole namespace (semantics 7.5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// What is told of its traffic.
    #[serde(default, skip_serializing_if = "Telemetry::is_default")]
    pub telemetry: Telemetry,
}

/// One inbound port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InboundPort {
    /// The workload port.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its effective mode.
    pub mtls: MtlsMode,
    /// `<namespace>/<name>` of the Service that declares it, for logs and metrics (`destination_service`).
    pub service: Option<model::ServiceName>,
}

fn is_default(dialects: &Dialects) -> bool {
    *dialects == Dialects::default()
}

impl Inbound {
    /// The effective mode and protocol of a workload port, declared or not.
    pub fn port(&self, port: u16) -> (MtlsMode, Protocol) {
        match self
            .ports
            .binary_search_by_key(&port, |p| p.port)
            .ok()
            .and_then(|i| self.ports.get(i))
        {
            Some(found) => (found.mtls, found.protocol),
            None => (self.default_mtls, Protocol::Auto),
        }
    }
}
