//! Istio's kinds that say what lies outside the cluster, and what of it all a namespace knows: ServiceEntry, Sidecar.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::OutboundMode;

/// ServiceEntry (semantics 7.4).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntry {
    /// Full names, or `*.suffix`.
    pub hosts: Vec<String>,
    /// Addresses or blocks that clients dial.
    pub addresses: Vec<String>,
    /// The ports.
    pub ports: Vec<EntryPort>,
    /// Whether it is in the mesh.
    pub location: Location,
    /// How its addresses are found.
    pub resolution: Resolution,
    /// Where it is, with STATIC and DNS.
    pub endpoints: Vec<EntryEndpoint>,
    /// Workloads that are its endpoints.
    pub workload_selector: Option<EntrySelector>,
    /// Namespaces that see it: `.`, `*`, `~` for none, or a name. Empty: everyone.
    pub export_to: Vec<String>,
    /// Whom it proves to be.
    pub subject_alt_names: Vec<String>,
}

/// `ports[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Istio's, name by name")]
pub struct EntryPort {
    pub number: u16,
    pub name: String,
    pub protocol: String,
    pub target_port: Option<u16>,
}

/// `endpoints[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Istio's, name by name")]
pub struct EntryEndpoint {
    pub address: String,
    pub ports: BTreeMap<String, u16>,
    pub labels: BTreeMap<String, String>,
}

/// `location`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are Istio's")]
pub enum Location {
    #[default]
    MeshExternal,
    MeshInternal,
}

/// `resolution`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are Istio's")]
pub enum Resolution {
    #[default]
    None,
    Static,
    Dns,
    DnsRoundRobin,
    DynamicDns,
}

/// Sidecar (semantics 7.5), as far as its egress goes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sidecar {
    /// Which workloads it is for; none for all of the namespace.
    pub workload_selector: Option<EntrySelector>,
    /// What its workloads know.
    pub egress: Vec<SidecarEgress>,
    /// What becomes of destinations that are not known.
    pub outbound_traffic_policy: Option<SidecarPolicy>,
}

/// `workloadSelector`, which has `labels` where other kinds have `matchLabels`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EntrySelector {
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

/// `egress[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SidecarEgress {
    /// `NAMESPACE/HOST`, with `.`, `*` and `~` for namespaces.
    pub hosts: Vec<String>,
}

/// `outboundTrafficPolicy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SidecarPolicy {
    /// REGISTRY_ONLY where nothing is said, as upstream decodes it (R31).
    pub mode: Option<OutboundMode>,
}
