//! The world as one namespace sees it, sorted into kinds. Everything after this is blind to the order in which objects came.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::{
    AuthorizationPolicy, Class, EndpointSlice, Endpoints, Guardrail, Kind, MeshConfig, Object,
    PeerAuthentication, Pod, RequestAuthentication, Service, ServiceEntry, Sidecar, Telemetry,
};
use jwt::Jwks;
use model::Profile;

use crate::Options;
use crate::space::{Space, age, slice_of, template};

pub(crate) use crate::space::covers;

/// Where MeshConfig lives, and the root namespace where it does not name another.
pub(crate) const SYSTEM_NAMESPACE: &str = "istio-system";

/// An object with its typed body.
#[derive(Debug)]
pub(crate) struct Of<'a, T> {
    pub(crate) object: &'a Arc<Object>,
    pub(crate) body: &'a T,
}

impl<T> Clone for Of<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Of<'_, T> {}

impl<'a, T> Of<'a, T> {
    pub(crate) fn namespace(&self) -> &'a str {
        &self.object.meta.namespace
    }

    pub(crate) fn name(&self) -> &'a str {
        &self.object.meta.name
    }
}

/// A MeshConfig; of several of `istio-system` the youngest is used.
pub(crate) fn mesh_config(object: &Arc<Object>) -> Option<Of<'_, MeshConfig>> {
    match &object.kind {
        Kind::ConfigMap(_, Some(body)) if object.meta.namespace == SYSTEM_NAMESPACE => {
            Some(Of { object, body })
        }
        _ => None,
    }
}

/// `meshConfig.rootNamespace`.
pub(crate) fn root_namespace<'a>(config: Option<Of<'a, MeshConfig>>) -> &'a str {
    let configured = config.and_then(|config| config.body.root_namespace.as_deref());
    configured
        .filter(|name| !name.is_empty())
        .unwrap_or(SYSTEM_NAMESPACE)
}

/// Whether an object of the root namespace counts in the others.
pub(crate) fn counts_everywhere(object: &Object) -> bool {
    matches!(
        object.kind,
        Kind::PeerAuthentication(_)
            | Kind::AuthorizationPolicy(_)
            | Kind::RequestAuthentication(_)
            | Kind::Guardrail(_)
            | Kind::Telemetry(_)
    )
}

/// Addresses that somebody else gives a Service.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Backing<'a> {
    Endpoints(&'a Endpoints),
    Slice(&'a EndpointSlice),
}

/// What all namespaces see alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sky<'a> {
    pub(crate) options: &'a Options,
    /// By source.
    pub(crate) jwks: &'a BTreeMap<String, Arc<Jwks>>,
    pub(crate) mesh_config: Option<Of<'a, MeshConfig>>,
    /// Those of the root namespace that count in the others.
    pub(crate) root_objects: &'a [Arc<Object>],
    /// All namespaces, for selectors of the root one.
    pub(crate) spaces: &'a BTreeMap<Arc<str>, Arc<Space>>,
}

/// The objects of a namespace and of the root one by kind, oldest first, and the pods by name.
#[derive(Debug)]
pub(crate) struct View<'a> {
    /// The namespace whose view it is.
    pub(crate) own: &'a str,
    pub(crate) options: &'a Options,
    pub(crate) pods: &'a [Arc<Pod>],
    pub(crate) namespace: Option<&'a Arc<Object>>,
    /// Oldest first.
    pub(crate) services: Vec<Of<'a, Service>>,
    /// By Service.
    pub(crate) backing: HashMap<&'a str, Vec<Backing<'a>>>,
    pub(crate) peer_authentications: Vec<Of<'a, PeerAuthentication>>,
    pub(crate) authorization_policies: Vec<Of<'a, AuthorizationPolicy>>,
    pub(crate) guardrails: Vec<Of<'a, Guardrail>>,
    pub(crate) request_authentications: Vec<Of<'a, RequestAuthentication>>,
    pub(crate) destination_rules: Vec<&'a Arc<Object>>,
    pub(crate) telemetries: Vec<Of<'a, Telemetry>>,
    pub(crate) service_entries: Vec<Of<'a, ServiceEntry>>,
    pub(crate) sidecars: Vec<Of<'a, Sidecar>>,
    /// By source.
    pub(crate) jwks: &'a BTreeMap<String, Arc<Jwks>>,
    /// Of security kinds that are not acted on.
    pub(crate) unsupported: Vec<&'a Arc<Object>>,
    pub(crate) mesh_config: Option<Of<'a, MeshConfig>>,
    /// Objects of one kind and name, and the one that is used in their place.
    pub(crate) duplicates: &'a [(Arc<Object>, Arc<Object>)],
    /// The labels of every pod that exists or that a workload would make.
    templates: Vec<&'a BTreeMap<String, String>>,
    spaces: &'a BTreeMap<Arc<str>, Arc<Space>>,
}

impl<'a> View<'a> {
    pub(crate) fn new(own: &'a str, space: &'a Space, sky: Sky<'a>) -> Self {
        let mut view = Self {
            own,
            options: sky.options,
            pods: &space.pods,
            namespace: None,
            services: Vec::new(),
            backing: HashMap::new(),
            peer_authentications: Vec::new(),
            authorization_policies: Vec::new(),
            guardrails: Vec::new(),
            request_authentications: Vec::new(),
            destination_rules: Vec::new(),
            telemetries: Vec::new(),
            service_entries: Vec::new(),
            sidecars: Vec::new(),
            jwks: sky.jwks,
            unsupported: Vec::new(),
            mesh_config: sky.mesh_config,
            duplicates: &space.duplicates,
            templates: space.pods.iter().map(|pod| &pod.metadata.labels).collect(),
            spaces: sky.spaces,
        };
        let mut objects: Vec<&'a Arc<Object>> = space.objects.iter().collect();
        if own != view.root_namespace() {
            objects.extend(sky.root_objects);
            objects.sort_by(|a, b| age(a, b));
        }
        for object in objects {
            view.sort_in(object);
        }
        view
    }

    /// Of these Sidecars and what all see alike; of no namespace's own.
    pub(crate) fn of_sidecars(sidecars: &'a [Arc<Object>], sky: Sky<'a>, nothing: &'a Space) -> Self {
        let mut view = Self::new(
            "",
            nothing,
            Sky {
                root_objects: &[],
                ..sky
            },
        );
        sidecars.iter().for_each(|object| view.sort_in(object));
        view
    }

    fn sort_in(&mut self, object: &'a Arc<Object>) {
        self.templates.extend(template(object));
        match &object.kind {
            Kind::Namespace(_) => self.namespace = Some(object),
            Kind::Service(body) => self.services.push(Of { object, body }),
            Kind::Endpoints(body) => self.back(&object.meta.name, Backing::Endpoints(body)),
            Kind::EndpointSlice(body) => {
                if let Some(service) = slice_of(object) {
                    self.back(service, Backing::Slice(body));
                }
            }
            Kind::PeerAuthentication(body) => self.peer_authentications.push(Of { object, body }),
            Kind::AuthorizationPolicy(body) => self.authorization_policies.push(Of { object, body }),
            Kind::Guardrail(body) => self.guardrails.push(Of { object, body }),
            Kind::DestinationRule(_) => self.destination_rules.push(object),
            Kind::Telemetry(body) => self.telemetries.push(Of { object, body }),
            Kind::ServiceEntry(body) => self.service_entries.push(Of { object, body }),
            Kind::Sidecar(body) => self.sidecars.push(Of { object, body }),
            Kind::RequestAuthentication(body) => self.request_authentications.push(Of { object, body }),
            _ if object.class == Class::SecurityNotActedOn && template(object).is_none() => {
                self.unsupported.push(object);
            }
            _ => {}
        }
    }

    fn back(&mut self, service: &'a str, backing: Backing<'a>) {
        self.backing.entry(service).or_default().push(backing);
    }

    pub(crate) fn secure(&self) -> bool {
        self.options.profile == Profile::Secure
    }

    /// `meshConfig.rootNamespace`.
    pub(crate) fn root_namespace(&self) -> &'a str {
        root_namespace(self.mesh_config)
    }

    /// Whether a pod that exists, or that a workload would make, has the labels: in this namespace or, for what counts
    /// everywhere, in any.
    pub(crate) fn selects_something(&self, everywhere: bool, labels: &BTreeMap<String, String>) -> bool {
        self.templates.iter().any(|own| covers(labels, own))
            || (everywhere && self.spaces.values().any(|space| space.has(labels)))
    }
}
