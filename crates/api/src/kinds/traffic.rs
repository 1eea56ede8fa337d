//! Istio's networking kinds that are acted on: DestinationRule, as far as its TLS goes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Selector;

/// DestinationRule (semantics 1.6, 6.5 to 6.7).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRule {
    /// The host, as written: short, full, or with a leading `*`.
    pub host: String,
    /// For the whole host.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named parts of the host.
    pub subsets: Vec<Subset>,
    /// Namespaces that see it: `.`, `*`, or a name. Empty: everyone.
    pub export_to: Vec<String>,
    /// Which clients it is for.
    pub workload_selector: Option<Selector>,
}

/// `trafficPolicy`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    /// TLS to the host.
    pub tls: Option<ClientTls>,
    /// By Service port; such a block replaces the whole of the above for its port (CM-09).
    pub port_level_settings: Vec<PortPolicy>,
}

/// `portLevelSettings[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortPolicy {
    /// Which port.
    pub port: PortSelector,
    /// TLS to it.
    pub tls: Option<ClientTls>,
}

/// `port.number`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortSelector {
    /// The Service port.
    pub number: u16,
}

/// `subsets[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// Its name.
    pub name: String,
    /// The labels of its endpoints.
    pub labels: BTreeMap<String, String>,
    /// Laid over the host's, field by field.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// `tls.mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are Istio's")]
pub enum TlsMode {
    #[default]
    Disable,
    Simple,
    Mutual,
    IstioMutual,
}

/// `tls`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Istio's, name by name")]
pub struct ClientTls {
    pub mode: TlsMode,
    pub client_certificate: String,
    pub private_key: String,
    pub ca_certificates: String,
    pub ca_crl: String,
    pub credential_name: String,
    pub subject_alt_names: Vec<String>,
    pub sni: String,
    pub insecure_skip_verify: Option<bool>,
}
