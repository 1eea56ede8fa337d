//! Resources, their names, and what differs between two sets of them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jwt::{AuthenticationSpec, Jwks};
use model::{ServiceName, WorkloadUid, canonical_ip};
use policy::{PolicyId, PolicySpec};
use serde::{Deserialize, Serialize};

use crate::{Mesh, Provider, Service, Workload};

/// The name of a resource on the wire: `mesh`, `service/NS/NAME`, `workload/UID`, `policy/NS/NAME`,
/// `authentication/NS/NAME`, `jwks/SOURCE`, `provider/NAME`, `roots`, `http-ports`, `address/IP`, `caller/IP`, `namespace/NS`.
///
/// Those of services, addresses, callers and namespaces are also what a proxy asks by.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceName(Arc<str>);

impl ResourceName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one [`Mesh`].
    pub fn mesh() -> Self {
        Self(Arc::from("mesh"))
    }

    /// The trust roots.
    pub fn roots() -> Self {
        Self(Arc::from("roots"))
    }

    /// A [`Service`].
    pub fn service(name: &ServiceName) -> Self {
        Self(Arc::from(format!("service/{name}")))
    }

    /// A [`Workload`].
    pub fn workload(uid: &WorkloadUid) -> Self {
        Self(Arc::from(format!("workload/{uid}")))
    }

    /// A policy.
    pub fn policy(id: &PolicyId) -> Self {
        Self(Arc::from(format!("policy/{id}")))
    }

    /// A RequestAuthentication.
    pub fn authentication(id: &PolicyId) -> Self {
        Self(Arc::from(format!("authentication/{id}")))
    }

    /// The keys of a source.
    pub fn jwks(source: &str) -> Self {
        Self(Arc::from(format!("jwks/{source}")))
    }

    /// An external authorizer.
    pub fn provider(name: &str) -> Self {
        Self(Arc::from(format!("provider/{name}")))
    }

    /// What is at an [`Address`].
    pub fn address(address: IpAddr) -> Self {
        Self(Arc::from(format!("address/{}", canonical_ip(address))))
    }

    /// Who is at an address that calls.
    pub fn caller(address: IpAddr) -> Self {
        Self(Arc::from(format!("caller/{}", canonical_ip(address))))
    }

    /// A namespace that has Services.
    pub fn namespace(name: &str) -> Self {
        Self(Arc::from(format!("namespace/{name}")))
    }

    /// Ports that some Service declares as HTTP.
    pub fn http_ports() -> Self {
        Self(Arc::from("http-ports"))
    }

    /// Whether a proxy asks for it when it is needed; all else is what its own workloads need, and comes unasked.
    pub fn is_asked_for(&self) -> bool {
        matches!(
            self.0.split_once('/'),
            Some(("service" | "address" | "caller" | "namespace", _))
        )
    }
}

impl From<&str> for ResourceName {
    fn from(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One thing that a proxy knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Resource {
    /// Settings of the mesh.
    Mesh(Arc<Mesh>),
    /// PEM certificates that peers are verified against.
    Roots(Vec<String>),
    /// A Service.
    Service(Arc<Service>),
    /// A workload.
    Workload(Arc<Workload>),
    /// A policy.
    Policy(Arc<PolicySpec>),
    /// A RequestAuthentication.
    Authentication(Arc<AuthenticationSpec>),
    /// Keys that tokens are verified by.
    Jwks(Arc<Jwks>),
    /// An external authorizer.
    Provider(Arc<Provider>),
    /// What is at an address; an answer to the question.
    Address(Arc<Address>),
    /// Who is at an address that calls, which needs no Services; an answer to the question.
    Caller(Arc<Address>),
    /// The namespace has Services; an answer to the question.
    Namespace(String),
    /// Ports that some Service of the mesh declares as HTTP, ascending.
    HttpPorts(Vec<u16>),
    /// There is nothing of this name; an answer to the question.
    Absent(ResourceName),
}

/// Who is at an address: what the answer to a question by address is made of. All that it names comes with it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// The Service whose cluster address it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// Workloads that have it, by uid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<WorkloadUid>,
    /// Services that have it among their endpoints, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serving: Vec<ServiceName>,
}

impl Resource {
    /// The name that belongs to the content; a transport refuses a resource that comes under another.
    pub fn name(&self) -> ResourceName {
        match self {
            Self::Mesh(_) => ResourceName::mesh(),
            Self::Roots(_) => ResourceName::roots(),
            Self::Service(s) => ResourceName::service(&s.name),
            Self::Workload(w) => ResourceName::workload(&w.uid),
            Self::Policy(p) => ResourceName::policy(&p.id),
            Self::Authentication(a) => ResourceName::authentication(&a.id),
            Self::Jwks(j) => ResourceName::jwks(&j.source),
            Self::Provider(p) => ResourceName::provider(&p.name),
            Self::Address(a) => ResourceName::address(a.address),
            Self::Caller(a) => ResourceName::caller(a.address),
            Self::Namespace(name) => ResourceName::namespace(name),
            Self::HttpPorts(_) => ResourceName::http_ports(),
            Self::Absent(name) => name.clone(),
        }
    }
}

impl From<Mesh> for Resource {
    fn from(value: Mesh) -> Self {
        Self::Mesh(Arc::new(value))
    }
}

impl From<Service> for Resource {
    fn from(value: Service) -> Self {
        Self::Service(Arc::new(value))
    }
}

impl From<Workload> for Resource {
    fn from(value: Workload) -> Self {
        Self::Workload(Arc::new(value))
    }
}

impl From<Provider> for Resource {
    fn from(value: Provider) -> Self {
        Self::Provider(Arc::new(value))
    }
}

impl From<PolicySpec> for Resource {
    fn from(value: PolicySpec) -> Self {
        Self::Policy(Arc::new(value))
    }
}

impl From<AuthenticationSpec> for Resource {
    fn from(value: AuthenticationSpec) -> Self {
        Self::Authentication(Arc::new(value))
    }
}

impl From<Jwks> for Resource {
    fn from(value: Jwks) -> Self {
        Self::Jwks(Arc::new(value))
    }
}

/// The difference between two sets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Delta {
    /// New or changed.
    pub updated: Vec<Arc<Resource>>,
    /// Gone.
    pub removed: Vec<ResourceName>,
}

impl Delta {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.updated.is_empty() && self.removed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resources;
    use proptest::prelude::*;

    fn roots_or_policy(seed: &(u8, u8)) -> Resource {
        match seed.0 % 5 {
            0 => Resource::Roots(vec![seed.1.to_string()]),
            n => Resource::from(PolicySpec {
                id: PolicyId {
                    namespace: "n".to_owned(),
                    name: n.to_string(),
                },
                action: policy::Action::Deny,
                dry_run: seed.1.is_multiple_of(2),
                rules: vec![],
                invalid: None,
                origin: policy::Origin {
                    file: String::new(),
                    line: u32::from(seed.1),
                },
            }),
        }
    }

    proptest! {
        #[test]
        fn apply_of_diff_is_the_other(a in proptest::collection::vec(any::<(u8, u8)>(), 0..8),
                                      b in proptest::collection::vec(any::<(u8, u8)>(), 0..8)) {
            let a: Resources = a.iter().map(roots_or_policy).collect();
            let b: Resources = b.iter().map(roots_or_policy).collect();
            prop_assert_eq!(a.apply(&a.diff(&b)), b.clone());
            prop_assert!(b.diff(&b).is_empty());
        }
    }

    #[test]
    fn unknown_fields_are_refused() {
        let text = r#"{"policy":{"id":{"namespace":"n","name":"a"},"action":"DENY","newSecurityField":1}}"#;
        assert!(serde_json::from_str::<Resource>(text).is_err());
    }
}
