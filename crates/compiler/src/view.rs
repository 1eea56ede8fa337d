//! The world, sorted into kinds. Everything after this is blind to the order in which objects came.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::{
    AuthorizationPolicy, DestinationRule, EndpointSlice, Endpoints, Guardrail, Kind, MeshConfig, Meta,
    Object, PeerAuthentication, Pod, RequestAuthentication, Service, ServiceEntry, Sidecar, Telemetry,
};
use jwt::Jwks;
use model::Profile;

use crate::{Options, World};

/// Where MeshConfig lives, and the root namespace where it does not name another.
pub(crate) const SYSTEM_NAMESPACE: &str = "istio-system";

/// The label that ties an EndpointSlice to its Service.
const SLICE_OF: &str = "kubernetes.io/service-name";

/// An object with its typed body.
#[derive(Debug)]
pub(crate) struct Of<'a, T> {
    pub(crate) object: &'a Object,
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

    pub(crate) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.object, other.object)
    }
}

/// Addresses that somebody else gives a Service.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Backing<'a> {
    Endpoints(&'a Endpoints),
    Slice(&'a EndpointSlice),
}

/// The objects by kind, oldest first, and the pods by name.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) options: &'a Options,
    pub(crate) nodes: BTreeSet<&'a str>,
    pub(crate) pods: Vec<&'a Pod>,
    pub(crate) namespaces: BTreeMap<&'a str, &'a Object>,
    /// Oldest first.
    pub(crate) services: Vec<Of<'a, Service>>,
    pub(crate) backing: HashMap<(&'a str, &'a str), Vec<Backing<'a>>>,
    pub(crate) peer_authentications: Vec<Of<'a, PeerAuthentication>>,
    pub(crate) authorization_policies: Vec<Of<'a, AuthorizationPolicy>>,
    pub(crate) guardrails: Vec<Of<'a, Guardrail>>,
    pub(crate) request_authentications: Vec<Of<'a, RequestAuthentication>>,
    pub(crate) destination_rules: Vec<Of<'a, DestinationRule>>,
    pub(crate) telemetries: Vec<Of<'a, Telemetry>>,
    pub(crate) service_entries: Vec<Of<'a, ServiceEntry>>,
    pub(crate) sidecars: Vec<Of<'a, Sidecar>>,
    /// By source.
    pub(crate) jwks: &'a BTreeMap<String, Arc<Jwks>>,
    /// Of security kinds that are not acted on.
    pub(crate) unsupported: Vec<&'a Object>,
    pub(crate) mesh_config: Option<Of<'a, MeshConfig>>,
    /// Objects of one kind and name, and the one that is used in their place.
    pub(crate) duplicates: Vec<(&'a Object, &'a Object)>,
    /// By namespace, the labels of every pod that exists or that a workload would make.
    templates: HashMap<&'a str, Vec<&'a BTreeMap<String, String>>>,
}

impl<'a> View<'a> {
    pub(crate) fn new(world: &'a World) -> Self {
        let mut objects: Vec<&Object> = world.objects.iter().map(AsRef::as_ref).collect();
        objects.sort_by(|a, b| age(a, b));
        let mut pods: Vec<&Pod> = world.pods.iter().map(AsRef::as_ref).collect();
        pods.sort_by_key(|pod| (&pod.metadata.namespace, &pod.metadata.name, &pod.metadata.uid));
        pods.dedup_by_key(|pod| (&pod.metadata.namespace, &pod.metadata.name, &pod.metadata.uid));
        let mut view = Self {
            options: &world.options,
            nodes: world.nodes.iter().map(String::as_str).collect(),
            templates: HashMap::new(),
            pods,
            namespaces: BTreeMap::new(),
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
            jwks: &world.jwks,
            unsupported: Vec::new(),
            mesh_config: None,
            duplicates: Vec::new(),
        };
        for pod in &view.pods {
            let of_namespace = view.templates.entry(&pod.metadata.namespace).or_default();
            of_namespace.push(&pod.metadata.labels);
        }
        let mut seen: HashMap<_, &Object> = HashMap::new();
        for object in objects {
            let group = object.api_version.split_once('/').map_or("", |(group, _)| group);
            let key = (
                group,
                object.kind_name.as_str(),
                object.meta.namespace.as_str(),
                object.meta.name.as_str(),
            );
            match seen.get(&key) {
                Some(used) => view.duplicates.push((object, used)),
                None => {
                    seen.insert(key, object);
                    view.sort_in(object);
                }
            }
        }
        view
    }

    fn sort_in(&mut self, object: &'a Object) {
        let meta = &object.meta;
        match &object.kind {
            Kind::Namespace(_) => {
                self.namespaces.insert(&meta.name, object);
            }
            Kind::Service(body) => self.services.push(Of { object, body }),
            Kind::Endpoints(body) => {
                self.back(meta, &meta.name, Backing::Endpoints(body));
            }
            Kind::EndpointSlice(body) => {
                if let Some(service) = meta.labels.get(SLICE_OF) {
                    self.back(meta, service, Backing::Slice(body));
                }
            }
            Kind::PeerAuthentication(body) => self.peer_authentications.push(Of { object, body }),
            Kind::AuthorizationPolicy(body) => self.authorization_policies.push(Of { object, body }),
            Kind::Guardrail(body) => self.guardrails.push(Of { object, body }),
            Kind::DestinationRule(body) => self.destination_rules.push(Of { object, body }),
            Kind::Telemetry(body) => self.telemetries.push(Of { object, body }),
            Kind::ServiceEntry(body) => self.service_entries.push(Of { object, body }),
            Kind::Sidecar(body) => self.sidecars.push(Of { object, body }),
            Kind::ConfigMap(_, Some(body)) if meta.namespace == SYSTEM_NAMESPACE => {
                self.mesh_config = Some(Of { object, body });
            }
            Kind::Pod(body) => self.template(meta, &body.metadata),
            Kind::Deployment(body) | Kind::StatefulSet(body) | Kind::DaemonSet(body) => {
                self.template(meta, &body.template.metadata);
            }
            Kind::Job(body) => self.template(meta, &body.template.metadata),
            Kind::RequestAuthentication(body) => self.request_authentications.push(Of { object, body }),
            _ if object.class == api::Class::SecurityNotActedOn => self.unsupported.push(object),
            _ => {}
        }
    }

    fn back(&mut self, meta: &'a Meta, service: &'a str, backing: Backing<'a>) {
        self.backing
            .entry((&meta.namespace, service))
            .or_default()
            .push(backing);
    }

    fn template(&mut self, owner: &'a Meta, pod: &'a Meta) {
        let of_namespace = self.templates.entry(&owner.namespace).or_default();
        of_namespace.push(&pod.labels);
    }

    pub(crate) fn secure(&self) -> bool {
        self.options.profile == Profile::Secure
    }

    /// `meshConfig.rootNamespace`.
    pub(crate) fn root_namespace(&self) -> &'a str {
        let configured = self
            .mesh_config
            .and_then(|config| config.body.root_namespace.as_deref());
        configured
            .filter(|name| !name.is_empty())
            .unwrap_or(SYSTEM_NAMESPACE)
    }

    /// Whether a pod that exists, or that a workload would make, has the labels; in one namespace or in any.
    pub(crate) fn selects_something(
        &self,
        namespace: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        let selected = |own: &Vec<&BTreeMap<String, String>>| own.iter().any(|own| covers(labels, own));
        match namespace {
            Some(namespace) => self.templates.get(namespace).is_some_and(selected),
            None => self.templates.values().any(selected),
        }
    }
}

/// Whether a selector's labels are a subset of an object's.
pub(crate) fn covers(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Oldest first; of one age by name, then namespace (PA-13). An object of unknown age counts as the youngest. What
/// follows only keeps the order total, so that it does not depend on the input's.
fn age(a: &Object, b: &Object) -> Ordering {
    let key = |o: &'_ Object| (o.meta.creation.is_none(), o.meta.creation);
    key(a)
        .cmp(&key(b))
        .then_with(|| a.meta.name.cmp(&b.meta.name))
        .then_with(|| a.meta.namespace.cmp(&b.meta.namespace))
        .then_with(|| a.kind_name.cmp(&b.kind_name))
        .then_with(|| a.origin.file.cmp(&b.origin.file))
        .then_with(|| (a.origin.line, a.origin.column).cmp(&(b.origin.line, b.origin.column)))
        .then_with(|| a.json.to_string().cmp(&b.json.to_string()))
}
