//! What is asked: one connection or request, as `meshward eval` reads it from a line of JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One connection or request. All but `to` may be left out.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Question {
    /// Comes back with the answer.
    pub id: Option<Value>,
    /// The caller's identity; `null` for a caller outside the mesh.
    pub from: Option<Caller>,
    /// Whether the caller sends plaintext although it has an identity.
    pub plaintext: bool,
    /// `source.ip`; an address that nothing is known of where it is left out.
    #[serde(rename = "sourceIP")]
    pub source_ip: Option<IpAddr>,
    /// `remote.ip`; the source's where it is left out.
    #[serde(rename = "remoteIP")]
    pub remote_ip: Option<IpAddr>,
    /// Who is called.
    pub to: Target,
    /// What the caller speaks; left out, what the port is declared as, or HTTP where a method, a path or a host is given.
    pub protocol: Option<Speaks>,
    /// The method, `GET` by default.
    pub method: Option<String>,
    /// Path and query, `/` by default.
    pub path: Option<String>,
    /// Host or `:authority`; the callee's name by default.
    pub host: Option<String>,
    /// Other header fields.
    pub headers: BTreeMap<String, Vec<String>>,
    /// Claims of a token that was verified.
    pub claims: Option<Value>,
    /// A token as it is sent.
    pub token: Option<String>,
    /// The SNI of the handshake; what a mesh client would send by default.
    pub sni: Option<String>,
    /// Seconds since 1970 at which a token is judged.
    pub time: Option<u64>,
}

/// An identity.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Caller {
    /// The namespace.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// The trust domain; the mesh's by default.
    #[serde(default)]
    pub trust_domain: Option<String>,
}

/// A workload: by its name, by a Service that it answers for, or by its labels.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Target {
    /// The namespace.
    pub namespace: String,
    /// A pod or the name of what owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// A Service; `port` is then the Service's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Labels of a workload that need not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// The workload port, or with `service` the Service port.
    pub port: u16,
}

/// What a caller speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaks {
    /// HTTP of any version, gRPC included.
    Http,
    /// Bytes.
    Tcp,
}

impl Question {
    /// Whether something is said that only a request has.
    pub(crate) fn looks_like_http(&self) -> bool {
        self.method.is_some() || self.path.is_some() || self.host.is_some() || !self.headers.is_empty()
    }
}
