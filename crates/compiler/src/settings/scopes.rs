//! Sidecar: what of the registry a namespace knows, and what becomes of the rest (semantics 7.1, 7.5).

use std::collections::BTreeMap;

use api::{OutboundMode, Problem, Severity, Sidecar};
use snapshot::{Egress, Import, Scope};

use crate::pods::PodFacts;
use crate::report::{Report, code, tell_nothing_selected_of};
use crate::view::{Of, View, covers};

/// What Sidecars say.
#[derive(Debug, Default)]
pub(crate) struct Scopes<'a> {
    /// By namespace; the root namespace's stands for all that have none of their own, under the empty name.
    pub(crate) by_namespace: BTreeMap<String, Scope>,
    /// Those that are for some workloads of their namespace, oldest first.
    selective: Vec<(Of<'a, Sidecar>, Scope)>,
}

pub(crate) fn scopes<'a>(view: &View<'a>, report: &mut Report) -> Scopes<'a> {
    let mut scopes = Scopes::default();
    let mut used: BTreeMap<&str, Of<'_, Sidecar>> = BTreeMap::new();
    for of in &view.sidecars {
        let scope = Scope {
            egress: egress(*of, report),
            imports: imports(*of, report),
        };
        if let Some(labels) = labels(*of) {
            tell_nothing_selected_of(view, of.object, "spec.workloadSelector", labels, report);
            scopes.selective.push((*of, scope));
            continue;
        }
        // Oldest first.
        if let Some(older) = used.get(of.namespace()) {
            report.shadowed(of.object, older.object, "metadata.name", "for this namespace");
            continue;
        }
        used.insert(of.namespace(), *of);
        let all = &mut scopes.by_namespace;
        if of.namespace() == view.root_namespace() {
            all.insert(String::new(), scope.clone());
        }
        all.insert(of.namespace().to_owned(), scope);
    }
    scopes
}

/// Which workloads it is for; `None` for all of its namespace.
fn labels<'a>(of: Of<'a, Sidecar>) -> Option<&'a BTreeMap<String, String>> {
    let selector = of.body.workload_selector.as_ref();
    selector
        .map(|selector| &selector.labels)
        .filter(|l| !l.is_empty())
}

impl Scopes<'_> {
    /// What a pod knows, where a Sidecar is for it and not for its whole namespace: the oldest that is.
    pub(crate) fn of(&self, pod: &PodFacts, report: &mut Report) -> Option<Scope> {
        let mut found: Option<&(Of<'_, Sidecar>, Scope)> = None;
        for each in &self.selective {
            let of = each.0;
            let selects = labels(of).is_some_and(|labels| covers(labels, pod.labels()));
            if of.namespace() != pod.namespace() || !selects {
                continue;
            }
            match found {
                Some((older, _)) => {
                    report.shadowed(
                        of.object,
                        older.object,
                        "metadata.name",
                        "for some of its workloads",
                    );
                }
                None => {
                    report.applies(of.object, pod.place());
                    found = Some(each);
                }
            }
        }
        found.map(|(_, scope)| scope.clone())
    }
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
