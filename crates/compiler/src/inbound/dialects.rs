//! How workloads read paths: the annotation `meshward.dev/path-dialect` (semantics 3.6 OURS, P6, P8, P10).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Object, Problem, Severity};
use policy::path::{DialectError, Dialects};

use crate::pods::PodFacts;
use crate::report::{Report, code};
use crate::services::Member;
use crate::view::View;

/// On the workload's pod template, on a Service that ends there, or on the namespace.
const ANNOTATION: &str = "meshward.dev/path-dialect";

/// What the pod, its Services and its namespace say together: a port reads in every way that one of them names.
///
/// What cannot be read is told, and the workload is judged by all dialects.
pub(super) fn of(view: &View<'_>, pod: &PodFacts, members: &[Member], report: &mut Report) -> Dialects {
    let mut said = Dialects::default();
    let mut add = |read: Option<Result<Dialects, DialectError>>, tell: &mut dyn FnMut(Problem)| match read {
        None => {}
        Some(Ok(dialects)) => said = said.union(&dialects),
        Some(Err(why)) => {
            said = Dialects::all();
            tell(problem(&why));
        }
    };
    add(read(&pod.pod.metadata.annotations), &mut |problem| {
        let problem = Problem {
            message: format!("{}: {}", pod.owner, problem.message),
            ..problem
        };
        report.tell_all(problem);
    });
    let services = members.iter().map(|member| &member.service);
    let objects: Vec<&Arc<Object>> = services.chain(view.namespace).collect();
    for object in objects {
        add(read(&object.meta.annotations), &mut |problem| {
            report.tell(object, &format!("metadata.annotations.{ANNOTATION}"), problem);
        });
    }
    if said.is_plain() {
        Dialects::default()
    } else {
        said
    }
}

fn read(annotations: &BTreeMap<String, String>) -> Option<Result<Dialects, DialectError>> {
    annotations.get(ANNOTATION).map(|text| text.parse())
}

fn problem(why: &DialectError) -> Problem {
    let message = format!("`{ANNOTATION}`: {why}; the workload is judged under all dialects");
    let remedy = "write for example \"case-insensitive,decode=2\" or \"8080=strip-params; *=collapse\"";
    Problem::new(Severity::Error, code::PATH_DIALECT, message).remedy(remedy)
}
