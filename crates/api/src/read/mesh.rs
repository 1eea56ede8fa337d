//! The mesh's configuration: keys `mesh` and `meshNetworks` of ConfigMap `istio` in `istio-system`.

#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::kinds::{self, ConfigMap, MeshConfig, Meta};
use crate::problem::{Severity, Span};
use crate::report::{Report, join};
use crate::yaml::{self, Node};
use crate::{check, schema};

/// The mesh configuration in a ConfigMap, if it is that one. `None` outside where it is broken, which is reported.
#[expect(clippy::option_option, reason = "absent and broken differ")]
pub(super) fn read(
    meta: &Meta,
    config: &ConfigMap,
    root: &Node,
    report: &mut Report<'_>,
) -> Option<Option<MeshConfig>> {
    if (meta.namespace.as_str(), meta.name.as_str()) != ("istio-system", "istio") {
        return Some(None);
    }
    let before = report.errors();
    if let Some(text) = config.data.get("meshNetworks")
        && let Some(tree) = tree(
            text,
            root.span_at("data.meshNetworks"),
            "data.meshNetworks",
            report,
        )
    {
        schema::walk_networks(&tree, "data.meshNetworks", report);
        if report.errors() == before {
            check::mesh_networks(&tree, "data.meshNetworks", report);
        }
    }
    let Some(text) = config.data.get("mesh") else {
        return (report.errors() == before).then_some(None);
    };
    let Some(tree) = tree(text, root.span_at("data.mesh"), "data.mesh", report) else {
        return (report.errors() == before).then(|| Some(MeshConfig::default()));
    };
    schema::walk_mesh(&tree, "data.mesh", report);
    check::mesh_config(&tree, "data.mesh", report);
    if report.errors() > before {
        return None;
    }
    match serde_json::from_value(tree.to_json()) {
        Ok(config) => {
            kinds::check_extensions(&config, &tree, root.span_at("data.mesh"), report);
            Some(Some(config))
        }
        Err(whole) => {
            unread(&tree, &whole, report);
            None
        }
    }
}

/// The tree of a text inside of the file, each node with its place in the file. Where the text is not written line by
/// line (as with `mesh: |`), all of it has the place of the whole. `None` where there is nothing, or it is broken.
fn tree(text: &str, whole: Span, path: &str, report: &mut Report<'_>) -> Option<Node> {
    let lines = report.lines_of(text, whole.line);
    let place = |span: Span| match lines {
        Some((line, indent)) if span.line > 0 => Span {
            line: line + span.line,
            column: span.column + indent,
            length: span.length,
        },
        _ => whole,
    };
    let mut inner = Report::new("", text);
    let documents = yaml::documents(text, &mut inner);
    for problem in inner.finish() {
        let span = Span {
            line: problem.line,
            column: problem.column,
            length: problem.length,
        };
        let mut draft = report
            .add(problem.severity, "MW0113", place(span), problem.message)
            .path(path);
        if let Some(remedy) = problem.remedy {
            draft = draft.remedy(remedy);
        }
        let _ = draft;
        if problem.severity == Severity::Error {
            return None;
        }
    }
    let mut root = documents.into_iter().next()?.root;
    root.relocate(&place);
    Some(root)
}

/// Reports the fields that do not fit their types; the whole where no field is to blame.
fn unread(root: &Node, whole: &serde_json::Error, report: &mut Report<'_>) {
    let remedy = "write it as Istio's MeshConfig has it; nothing of this one is in force";
    let mut any = false;
    for (key, value) in root.entries() {
        let field = serde_json::Map::from_iter([(key.text.clone(), value.to_json())]);
        if let Err(why) = serde_json::from_value::<MeshConfig>(Value::Object(field)) {
            any = true;
            let path = join("data.mesh", &key.text);
            report
                .error("MW0113", key.span, format!("`{path}`: {why}"))
                .path(path)
                .remedy(remedy);
        }
    }
    if !any {
        report
            .error("MW0113", root.span, format!("the mesh configuration: {whole}"))
            .path("data.mesh")
            .remedy(remedy);
    }
}
