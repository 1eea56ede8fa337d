//! What may come in to each pod, and the pods as resources.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::{Problem, Severity};
use model::{Protocol, ServiceName};
use snapshot::{Inbound, InboundPort, Resource, Workload};

mod dialects;

use crate::PodView;
use crate::authn::Effective;
use crate::authn::request::Requests;
use crate::authz::Authz;
use crate::pods::PodFacts;
use crate::report::{Report, code};
use crate::services::{Member, Services};
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
pub(crate) fn all<'a>(
    view: &View<'a>,
    pods: &[PodFacts<'a>],
    modes: &[Effective],
    services: &Services<'a>,
    guards: Guards<'_, 'a>,
    report: &mut Report,
) -> Vec<Option<Inbound>> {
    let each = pods.iter().zip(modes).zip(&services.members);
    each.map(|((pod, modes), members)| {
        (pod.in_mesh && pod.live).then(|| {
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
fn ports(members: &[Member<'_>], modes: &Effective, report: &mut Report) -> Vec<InboundPort> {
    let mut declared: BTreeMap<u16, &Member<'_>> = BTreeMap::new();
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
            service: member.map(|m| ServiceName::new(m.service.namespace(), m.service.name())),
        })
        .collect();
    ports.sort_by_key(|port| port.port);
    ports
}

fn conflict(held: &Member<'_>, loser: &Member<'_>, report: &mut Report) {
    let message = format!(
        "port {} of the pods is declared as {} by `{}`, which is older; {} has no effect for what comes in",
        loser.target,
        word(held.protocol),
        held.service.object.reference(),
        word(loser.protocol),
    );
    let problem = Problem::new(Severity::Warning, code::PORT_CONFLICT, message)
        .remedy("give both Service ports the same `appProtocol` or name");
    report.tell_once(
        loser.service.object,
        &format!("spec.ports[{}]", loser.index),
        problem,
    );
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

/// The pods as resources: without their inbound side for whoever asks, and with it for their own node.
#[derive(Debug)]
pub(crate) struct Workloads {
    shared: Vec<Arc<Resource>>,
    own: HashMap<String, Vec<Arc<Resource>>>,
}

impl Workloads {
    /// All of them, without their inbound side.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.shared.iter()
    }

    /// Those of a node, with it.
    pub(crate) fn own(&self, node: &str) -> impl Iterator<Item = Arc<Resource>> {
        self.own.get(node).into_iter().flatten().cloned()
    }
}

pub(crate) fn workloads(
    pods: &[PodFacts<'_>],
    modes: &[Effective],
    inbounds: &[Option<Inbound>],
) -> Workloads {
    let mut out = Workloads {
        shared: Vec::new(),
        own: HashMap::new(),
    };
    for ((pod, modes), inbound) in pods.iter().zip(modes).zip(inbounds) {
        if !pod.live {
            continue;
        }
        let plain = workload(pod, modes);
        if let Some(inbound) = inbound {
            let own = Workload {
                inbound: Some(inbound.clone()),
                ..plain.clone()
            };
            out.own
                .entry(pod.node().to_owned())
                .or_default()
                .push(Arc::new(Resource::from(own)));
        }
        out.shared.push(Arc::new(Resource::from(plain)));
    }
    out
}

fn workload(pod: &PodFacts<'_>, modes: &Effective) -> Workload {
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

/// The pods for people.
pub(crate) fn views(
    pods: &[PodFacts<'_>],
    modes: &[Effective],
    inbounds: &[Option<Inbound>],
    guards: Guards<'_, '_>,
) -> Vec<PodView> {
    let each = pods.iter().zip(modes).zip(inbounds);
    each.map(|((pod, modes), inbound)| PodView {
        namespace: pod.namespace().to_owned(),
        name: pod.id.name().to_owned(),
        uid: pod.uid.to_string(),
        workload: pod.owner.name().to_owned(),
        service_account: pod.pod.spec.service_account().to_owned(),
        ips: pod.addresses.clone(),
        node: pod.node().to_owned(),
        identity: pod.identity.as_ref().map(ToString::to_string),
        in_mesh: pod.in_mesh,
        mtls: inbound.as_ref().map(|_| mtls_text(modes)),
        policies: inbound.as_ref().map(|i| guarded(i, guards)),
        ready: pod.ready,
    })
    .collect()
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
