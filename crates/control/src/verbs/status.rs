//! `status`: how the mesh stands.

use std::collections::{BTreeMap, BTreeSet};

use admin::Failure;
use admin::verbs::{NodeState, ObjectState, Status};
use api::{Class, ObjectRef, Severity};
use compiler::Effect;
use identity::{Clock as _, SystemClock};
use model::Profile;
use serde_json::Value;
use snapshot::{Egress, Mesh, PathNormalization, TlsVersion, XfccMode};
use xds::server::NodeStatus;

use super::lists::lists;
use super::{Desk, encode};
use crate::layers::Held;
use crate::standing::{is_unheeded, standing, verdict};
use crate::view::{NOT_ACTED_ON, View};

pub(super) fn status(desk: &Desk) -> Result<Value, Failure> {
    let said = desk.server.nodes().borrow().clone();
    let now = i64::try_from(SystemClock.now().as_secs()).unwrap_or(i64::MAX);
    encode(&compute(&desk.view(), &said, now))
}

fn compute(view: &View, said: &BTreeMap<String, NodeStatus>, now: i64) -> Status {
    let found = view.whole.problems();
    let spoken_of: BTreeSet<&ObjectRef> = found
        .iter()
        .filter(|problem| problem.severity >= Severity::Warning)
        .filter_map(|problem| problem.object.as_ref())
        .collect();
    let effects: BTreeMap<ObjectRef, Effect> = view
        .whole
        .effects()
        .into_iter()
        .map(|effect| (effect.object.clone(), effect))
        .collect();
    let held = view.frozen.sorted();
    let shown = |held: &&&std::sync::Arc<Held>| {
        let reference = held.key.reference();
        effects.contains_key(&reference)
            || held.object.refused(view.frozen.profile).is_some()
            || spoken_of.contains(&reference)
            || held.problems.iter().any(is_unheeded)
    };
    Status {
        profile: view.frozen.profile.to_string(),
        defaults: view.mesh().map(|mesh| defaults(mesh)).unwrap_or_default(),
        nodes: view
            .frozen
            .nodes
            .iter()
            .map(|node| node_state(node, view, said))
            .collect(),
        objects: held
            .iter()
            .filter(shown)
            .map(|held| object_state(held, effects.get(&held.key.reference()), view, said))
            .collect(),
        problems: view
            .problems()
            .iter()
            .filter(|problem| problem.code != NOT_ACTED_ON)
            .map(|problem| view.line(problem))
            .collect(),
        not_acted_on: not_acted_on(&held),
        revocation_lists: lists(view, now),
    }
}

fn node_state(node: &str, view: &View, said: &BTreeMap<String, NodeStatus>) -> NodeState {
    let status = said.get(node).cloned().unwrap_or_default();
    NodeState {
        node: node.to_owned(),
        connected: status.connected,
        published: view.versions.get(node).copied().unwrap_or(status.published),
        acknowledged: status.acked,
        refused: status.nacked.map(|(_, why)| why),
    }
}

fn object_state(
    held: &Held,
    effect: Option<&Effect>,
    view: &View,
    said: &BTreeMap<String, NodeStatus>,
) -> ObjectState {
    let nodes = effect.map(|effect| effect.nodes.as_slice()).unwrap_or_default();
    let standing = standing(nodes.iter().map(String::as_str), &view.versions, said);
    let (result, why) = verdict(held, view.frozen.profile, effect, &view.findings(held), &standing);
    ObjectState {
        kind: held.key.kind.clone(),
        namespace: held.key.namespace.clone(),
        name: held.key.name.clone(),
        result,
        why,
        nodes: standing.nodes,
        acknowledged: standing.acknowledged,
        targets: effect.map(|effect| effect.targets.clone()).unwrap_or_default(),
        shadowed_by: effect
            .map(|effect| effect.shadowed_by.iter().map(shadow).collect())
            .unwrap_or_default(),
        origin: held.origin(),
    }
}

fn shadow(reference: &ObjectRef) -> String {
    format!("{} {}/{}", reference.kind, reference.namespace, reference.name)
}

/// Each kind once, with how many there are.
fn not_acted_on(held: &[&std::sync::Arc<Held>]) -> Vec<String> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for held in held.iter().filter(|held| held.object.class == Class::NotActedOn) {
        *counts.entry((&held.key.kind, &held.key.group)).or_default() += 1;
    }
    let line = |((kind, group), count): ((&str, &str), usize)| match group {
        "" => format!("{kind}: {count} accepted, not acted on"),
        _ => format!("{kind}.{group}: {count} accepted, not acted on"),
    };
    counts.into_iter().map(line).collect()
}

/// The settings of the mesh in words.
fn defaults(mesh: &Mesh) -> Vec<String> {
    let mut words = vec![
        match mesh.profile {
            Profile::Secure => "mTLS STRICT where no PeerAuthentication says otherwise".to_owned(),
            Profile::Istio => "mTLS PERMISSIVE where no PeerAuthentication says otherwise".to_owned(),
        },
        if mesh.deny_by_default {
            "deny until an ALLOW allows".to_owned()
        } else {
            "allow where no ALLOW policy selects the workload".to_owned()
        },
        match mesh.egress {
            Egress::RegistryOnly => "REGISTRY_ONLY: unknown destinations are refused".to_owned(),
            Egress::AllowAny => "ALLOW_ANY: unknown destinations are passed on".to_owned(),
        },
        format!("paths {}", normalization(mesh.path_normalization)),
    ];
    if mesh.strict_paths {
        words.push("ambiguous paths are refused".to_owned());
    }
    if mesh.strict_hosts {
        words.push("Host and address must belong to one Service".to_owned());
    }
    if mesh.jwt_strict {
        words.push("tokens are read strictly".to_owned());
    }
    words.push(match mesh.xfcc {
        XfccMode::SanitizeSet => "X-Forwarded-Client-Cert SANITIZE_SET".to_owned(),
        XfccMode::AppendForward => "X-Forwarded-Client-Cert APPEND_FORWARD".to_owned(),
    });
    words.push(format!("auto mTLS {}", if mesh.auto_mtls { "on" } else { "off" }));
    words.push(match mesh.min_tls {
        TlsVersion::V1_2 => "TLS 1.2 or later".to_owned(),
        TlsVersion::V1_3 => "TLS 1.3".to_owned(),
    });
    words.push(match mesh.protocol_detection_timeout_ms {
        Some(ms) => format!("protocol detection within {ms} ms"),
        None => "protocol detection without a limit".to_owned(),
    });
    words.push(format!("trust domain {}", mesh.trust_domain));
    if !mesh.trust_domain_aliases.is_empty() {
        let aliases: Vec<_> = mesh
            .trust_domain_aliases
            .iter()
            .map(ToString::to_string)
            .collect();
        words.push(format!("trust domain aliases {}", aliases.join(", ")));
    }
    words.push(format!("root namespace {}", mesh.root_namespace));
    words
}

fn normalization(mode: PathNormalization) -> &'static str {
    match mode {
        PathNormalization::None => "NONE",
        PathNormalization::Base => "BASE",
        PathNormalization::MergeSlashes => "MERGE_SLASHES",
        PathNormalization::DecodeAndMergeSlashes => "DECODE_AND_MERGE_SLASHES",
    }
}
