//! What may come in to each pod, and the pods as resources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Problem, Severity};
use model::{Protocol, ServiceName};
use snapshot::{Inbound, InboundPort, Resource, ResourceName, Workload};

mod dialects;

use crate::PodView;
use crate::authn::Effective;
use crate::authn::request::Requests;
use crate::authz::Authz;
use crate::pods::PodFacts;
use crate::report::{Report, code};
use crate::services::{Member, Population};
use crate::settings::scopes::Scopes;
use crate::settings::telemetry::Telemetries;
use crate::view::View;

/// What stands before the applications.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guards<'g, 'a> {
    pub(crate) authz: &'g Authz<'a>,
    pub(crate) requests: &'g Requests<'a>,
    pub(crate) telemetries: &'g Telemetries<'a>,
    pub(crate) scopes: &'g Scopes<'a>,
    pub(crate) deny_by_default: bool,
}

/// The inbound side of each pod; `None` where no proxy stands before it.
///
/// `members` are the Service ports that end at each, the oldest Service first.
pub(crate) fn all(
    view: &View<'_>,
    population: &Population,
    members: &[Vec<Member>],
    guards: Guards<'_, '_>,
    report: &mut Report,
) -> Vec<Option<Inbound>> {
    let each = population.pods.iter().zip(&population.modes).zip(members);
    each.map(|((pod, modes), members)| {
        pod.is_served().then(|| {
            let policies = guards.authz.select(pod, report);
            let needed = !guards
                .authz
                .admits_without_token(&policies, guards.deny_by_default);
            Inbound {
                ports: ports(members, modes, report),
                default_mtls: modes.default,
                authentications: guards.requests.select(pod, needed, report),
                policies,
                mtls_decided_by: modes.decided_by.clone(),
                path_dialects: dialects::of(view, pod, members, report),
                scope: guards.scopes.of(pod, report),
                telemetry: guards.telemetries.of(pod, report),
            }
        })
    })
    .collect()
}

/// Declared ports, by the oldest Service that ends there, and ports that only a PeerAuthentication names.
fn ports(members: &[Member], modes: &Effective, report: &mut Report) -> Vec<InboundPort> {
    let mut declared: BTreeMap<u16, &Member> = BTreeMap::new();
    for member in members {
        let held = declared.entry(member.target).or_insert(member);
        if held.protocol != member.protocol {
            conflict(held, member, report);
        }
    }
    let undeclared = modes
        .ports
        .keys()
        .filter(|port| !declared.contains_key(port))
        .map(|port| (*port, None));
    let mut ports: Vec<_> = declared
        .iter()
        .map(|(port, member)| (*port, Some(*member)))
        .chain(undeclared)
        .map(|(port, member)| InboundPort {
            port,
            protocol: member.map_or(Protocol::Auto, |member| member.protocol),
            mtls: modes.port(port),
            service: member.map(|m| {
                let meta = &m.service.meta;
                ServiceName::new(&meta.namespace, &meta.name)
            }),
        })
        .collect();
    ports.sort_by_key(|port| port.port);
    ports
}

fn conflict(held: &Member, loser: &Member, report: &mut Report) {
    let message = format!(
        "port {} of the pods is declared as {} by `{}`, which is older; {} has no effect for what comes in",
        loser.target,
        word(held.protocol),
        held.service.reference(),
        word(loser.protocol),
    );
    let problem = Problem::new(Severity::Warning, code::PORT_CONFLICT, message)
        .remedy("give both Service ports the same `appProtocol` or name");
    report.tell(&loser.service, &format!("spec.ports[{}]", loser.index), problem);
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "HTTP",
        Protocol::Http2 => "HTTP/2",
        Protocol::Grpc => "gRPC",
        Protocol::GrpcWeb => "gRPC-Web",
        Protocol::Tcp => "TCP",
        Protocol::Tls => "TLS",
        Protocol::Https => "HTTPS",
        Protocol::Udp => "UDP",
        Protocol::Auto => "undeclared",
    }
}

/// Resources by name.
pub(crate) type Named = Vec<(ResourceName, Arc<Resource>)>;

/// The pods of a namespace as resources.
#[derive(Debug, Default)]
pub(crate) struct Workloads {
    /// Without their inbound side, for whoever asks.
    pub(crate) shared: Named,
    /// With it, and with all that decides there, by node.
    pub(crate) nodes: BTreeMap<Arc<str>, Named>,
}

pub(crate) fn workloads(
    population: &Population,
    inbounds: &[Option<Inbound>],
    guards: Guards<'_, '_>,
) -> Workloads {
    let mut out = Workloads::default();
    let mut needed: BTreeMap<&Arc<str>, Vec<&Inbound>> = BTreeMap::new();
    for ((pod, modes), inbound) in population.pods.iter().zip(&population.modes).zip(inbounds) {
        if !pod.live {
            continue;
        }
        let plain = workload(pod, modes);
        let name = ResourceName::workload(&pod.uid);
        if let Some(inbound) = inbound {
            let own = Workload {
                inbound: Some(inbound.clone()),
                ..plain.clone()
            };
            let of_node = out.nodes.entry(Arc::clone(&pod.node)).or_default();
            of_node.push((name.clone(), Arc::new(Resource::from(own))));
            needed.entry(&pod.node).or_default().push(inbound);
        }
        out.shared.push((name, Arc::new(Resource::from(plain))));
    }
    let mut made: BTreeMap<ResourceName, Arc<Resource>> = BTreeMap::new();
    for (node, inbounds) in needed {
        let policies: BTreeSet<_> = inbounds.iter().flat_map(|inbound| &inbound.policies).collect();
        let others: BTreeSet<_> = inbounds
            .iter()
            .flat_map(|inbound| &inbound.authentications)
            .collect();
        let policies = guards.authz.resources(&policies);
        let others = guards.requests.resources(&others).into_iter().map(Arc::new);
        let of_node = out.nodes.entry(Arc::clone(node)).or_default();
        // What several nodes need is held once.
        for resource in policies.into_iter().chain(others) {
            let name = resource.name();
            let resource = made.entry(name.clone()).or_insert(resource);
            of_node.push((name, Arc::clone(resource)));
        }
    }
    out
}

fn workload(pod: &PodFacts, modes: &Effective) -> Workload {
    let (plaintext_ports, mtls_ports) = if pod.identity.is_some() {
        modes.for_clients()
    } else {
        (Vec::new(), Vec::new())
    };
    let named = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
    let versioned = [
        "service.istio.io/canonical-revision",
        "app.kubernetes.io/version",
        "version",
    ];
    Workload {
        uid: pod.uid.clone(),
        pod: pod.id.clone(),
        workload: pod.owner.clone(),
        canonical_name: pod.label(&named).unwrap_or_else(|| pod.owner.name()).to_owned(),
        canonical_revision: pod.label(&versioned).unwrap_or("latest").to_owned(),
        app: pod.label(&["app"]).unwrap_or("unknown").to_owned(),
        version: pod.label(&["version"]).unwrap_or("unknown").to_owned(),
        addresses: pod.addresses.clone(),
        node: pod.node().to_owned(),
        service_account: pod.pod.spec.service_account().to_owned(),
        identity: pod.identity.clone(),
        ready: pod.ready,
        plaintext_ports,
        mtls_ports,
        hbone: pod.is_hbone(),
        inbound: None,
    }
}

/// What people are told of what stands before a pod.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    mtls: Arc<str>,
    policies: Arc<str>,
}

/// Of each pod; `None` outside the mesh.
pub(crate) fn told(
    population: &Population,
    inbounds: &[Option<Inbound>],
    guards: Guards<'_, '_>,
) -> Vec<Option<Told>> {
    let mut texts: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut once = |text: String| match texts.get(text.as_str()) {
        Some(text) => Arc::clone(text),
        None => {
            let text: Arc<str> = Arc::from(text);
            texts.insert(Arc::clone(&text));
            text
        }
    };
    let each = population.modes.iter().zip(inbounds);
    each.map(|(modes, inbound)| {
        let inbound = inbound.as_ref()?;
        Some(Told {
            mtls: once(mtls_text(modes)),
            policies: once(guarded(inbound, guards)),
        })
    })
    .collect()
}

/// A pod for people.
pub(crate) fn view(pod: &PodFacts, told: Option<&Told>) -> PodView {
    PodView {
        namespace: pod.namespace().to_owned(),
        name: pod.id.name().to_owned(),
        uid: pod.uid.to_string(),
        workload: pod.owner.name().to_owned(),
        service_account: pod.pod.spec.service_account().to_owned(),
        ips: pod.addresses.clone(),
        node: pod.node().to_owned(),
        identity: pod.identity.as_ref().map(ToString::to_string),
        in_mesh: pod.in_mesh,
        mtls: told.map(|told| told.mtls.as_ref().to_owned()),
        policies: told.map(|told| told.policies.as_ref().to_owned()),
        ready: pod.ready,
    }
}

fn guarded(inbound: &Inbound, guards: Guards<'_, '_>) -> String {
    let policies = guards.authz.describe(&inbound.policies, guards.deny_by_default);
    match guards.requests.describe(&inbound.authentications) {
        Some(broken) if broken.starts_with("invalid") => broken,
        Some(_) if policies.starts_with("invalid") => policies,
        Some(more) => format!("{policies}, {more}"),
        None => policies,
    }
}

/// `STRICT`, or the ports that differ before it: `8080:PERMISSIVE,*:STRICT`.
fn mtls_text(modes: &Effective) -> String {
    let differing = modes.ports.iter().filter(|(_, mode)| **mode != modes.default);
    let mut parts: Vec<_> = differing.map(|(port, mode)| format!("{port}:{mode}")).collect();
    if parts.is_empty() {
        return modes.default.to_string();
    }
    parts.push(format!("*:{}", modes.default));
    parts.join(",")
}
