//! Resources and the algebra of their differences.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jwt::{AuthenticationSpec, Jwks};
use model::{ServiceName, WorkloadUid};
use policy::{PolicyId, PolicySpec};
use serde::{Deserialize, Serialize};

use crate::{Mesh, Provider, Service, Workload};

/// The name of a resource on the wire: `mesh`, `service/NS/NAME`, `workload/UID`, `policy/NS/NAME`,
/// `authentication/NS/NAME`, `jwks/SOURCE`, `provider/NAME`, `roots`.
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

/// A set of resources, by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Resources(BTreeMap<ResourceName, Arc<Resource>>);

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

impl Resources {
    /// Adds or replaces one resource under its own name.
    pub fn insert(&mut self, resource: Arc<Resource>) {
        self.0.insert(resource.name(), resource);
    }

    /// The resource of that name.
    pub fn get(&self, name: &ResourceName) -> Option<&Arc<Resource>> {
        self.0.get(name)
    }

    /// All, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ResourceName, &Arc<Resource>)> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What must change in `self` for it to become `newer`.
    pub fn diff(&self, newer: &Self) -> Delta {
        let updated = newer
            .0
            .iter()
            .filter(|(name, new)| {
                self.0
                    .get(*name)
                    .is_none_or(|old| !Arc::ptr_eq(old, new) && old != *new)
            })
            .map(|(_, new)| Arc::clone(new))
            .collect();
        let removed = self
            .0
            .keys()
            .filter(|name| !newer.0.contains_key(*name))
            .cloned()
            .collect();
        Delta { updated, removed }
    }

    /// `self` with the difference carried out.
    #[must_use]
    pub fn apply(&self, delta: &Delta) -> Self {
        let gone: BTreeSet<_> = delta.removed.iter().collect();
        let mut next: BTreeMap<_, _> = self
            .0
            .iter()
            .filter(|(name, _)| !gone.contains(name))
            .map(|(n, r)| (n.clone(), Arc::clone(r)))
            .collect();
        for resource in &delta.updated {
            next.insert(resource.name(), Arc::clone(resource));
        }
        Self(next)
    }
}

impl FromIterator<Arc<Resource>> for Resources {
    fn from_iter<T: IntoIterator<Item = Arc<Resource>>>(iter: T) -> Self {
        Self(iter.into_iter().map(|r| (r.name(), r)).collect())
    }
}

impl FromIterator<Resource> for Resources {
    fn from_iter<T: IntoIterator<Item = Resource>>(iter: T) -> Self {
        Self(iter.into_iter().map(|r| (r.name(), Arc::new(r))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
