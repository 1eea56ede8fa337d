//! Sidecar: what of the registry a namespace knows, and what becomes of the rest (semantics 7.1, 7.5).

use std::collections::BTreeMap;

use api::{OutboundMode, Problem, Severity, Sidecar};
use snapshot::{Egress, Import, Scope};

use crate::report::{Report, code};
use crate::view::{Of, View};

/// By namespace; the root namespace's stands for all that have none of their own, under the empty name.
pub(super) fn scopes(view: &View<'_>, report: &mut Report) -> BTreeMap<String, Scope> {
    let mut scopes = BTreeMap::new();
    let mut used: BTreeMap<&str, Of<'_, Sidecar>> = BTreeMap::new();
    for of in &view.sidecars {
        let selector = of.body.workload_selector.as_ref();
        if selector.is_some_and(|selector| !selector.labels.is_empty()) {
            let why = "a `workloadSelector` in a Sidecar is not acted on by this version";
            let remedy = "write it for the whole namespace";
            report.unheeded(of.object, "spec.workloadSelector", why, remedy);
            continue;
        }
        // Oldest first.
        if let Some(older) = used.get(of.namespace()) {
            report.shadowed(of.object, older.object, "metadata.name", "for this namespace");
            continue;
        }
        used.insert(of.namespace(), *of);
        let scope = Scope {
            egress: egress(*of, report),
            imports: imports(*of, report),
        };
        if of.namespace() == view.root_namespace() {
            scopes.insert(String::new(), scope.clone());
        }
        scopes.insert(of.namespace().to_owned(), scope);
    }
    scopes
}

fn egress(of: Of<'_, Sidecar>, report: &mut Report) -> Option<Egress> {
    let policy = of.body.outbound_traffic_policy?;
    Some(match policy.mode {
        Some(OutboundMode::AllowAny) => Egress::AllowAny,
        // Of the mesh configuration alone: the schema of a Sidecar has no such mode.
        Some(OutboundMode::RegistryOnly | OutboundMode::AllowAnyDynamicDns) => Egress::RegistryOnly,
        None => {
            // R31: upstream decodes it so; it is said, so that it is no surprise.
            let message = "`outboundTrafficPolicy` without a mode is REGISTRY_ONLY";
            let problem = Problem::new(Severity::Warning, code::MESH_CONFIG, message);
            report.tell(
                of.object,
                "spec.outboundTrafficPolicy",
                problem.remedy("write `mode: REGISTRY_ONLY` or `mode: ALLOW_ANY`"),
            );
            Egress::RegistryOnly
        }
    })
}

fn imports(of: Of<'_, Sidecar>, report: &mut Report) -> Option<Vec<Import>> {
    if of.body.egress.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    for (listener, egress) in of.body.egress.iter().enumerate() {
        for (index, written) in egress.hosts.iter().enumerate() {
            let parts = written
                .split_once('/')
                .and_then(|(namespace, host)| Some((namespace, host.parse().ok()?)));
            let path = format!("spec.egress[{listener}].hosts[{index}]");
            match parts {
                Some(("~", _)) => {}
                Some((namespace, host)) if !namespace.starts_with('~') => out.push(Import {
                    namespace: match namespace {
                        "*" => None,
                        "." | "" => Some(of.namespace().to_owned()),
                        other => Some(other.to_owned()),
                    },
                    host,
                }),
                _ => {
                    // Left out: less is known, never more.
                    let message = format!("`{written}` cannot be read; nothing is imported by it");
                    let problem = Problem::new(Severity::Error, code::MESH_CONFIG, message);
                    report.tell(
                        of.object,
                        &path,
                        problem.remedy("write `NAMESPACE/HOST`, with `.` or `*` for namespaces"),
                    );
                }
            }
        }
    }
    Some(out)
}
