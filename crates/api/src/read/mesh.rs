//! The mesh's configuration: keys `mesh` and `meshNetworks` of ConfigMap `istio` in `istio-system`.

#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::kinds::{self, ConfigMap, MeshConfig, Meta};
use crate::known::KnownKind;
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

/// A mesh configuration in the file of Istio's installer: judged as one, and in force nowhere.
pub(super) fn of_installer(root: &Node, report: &mut Report<'_>) {
    let spec = root.child("spec");
    let places = [
        ("spec.meshConfig", spec.and_then(|spec| spec.child("meshConfig"))),
        (
            "spec.values.meshConfig",
            spec.and_then(|spec| spec.child("values")?.child("meshConfig")),
        ),
    ];
    for (path, tree) in places {
        let Some(tree) = tree.filter(|tree| !tree.is_null()) else {
            continue;
        };
        schema::walk_mesh(tree, path, report);
        check::mesh_config(tree, path, report);
        report
            .warning(
                "MW0116",
                root.span_at(path),
                format!("`{path}` is checked, and not in force: nothing here reads an IstioOperator"),
            )
            .path(path)
            .remedy("write it under `mesh` of the ConfigMap `istio` in `istio-system`");
    }
}

/// On a pod, or the template of one: the configuration of its own proxy, as YAML.
const PROXY_CONFIG: &str = "proxy.istio.io/config";

/// A proxy's configuration in an annotation: judged as Istio's injection does, and not acted on.
pub(super) fn of_proxy(known: &KnownKind, root: &Node, report: &mut Report<'_>) {
    let (place, metadata) = match (known.group, known.kind) {
        ("", "Pod") => ("metadata", root.child("metadata")),
        ("apps", _) | ("batch", "Job") => (
            "spec.template.metadata",
            root.child("spec")
                .and_then(|spec| spec.child("template")?.child("metadata")),
        ),
        _ => return,
    };
    let annotations = metadata.and_then(|metadata| metadata.child("annotations"));
    let Some((key, value)) = annotations.and_then(|annotations| annotations.entry(PROXY_CONFIG)) else {
        return;
    };
    let path = join(&format!("{place}.annotations"), PROXY_CONFIG);
    if let Some(tree) = value
        .text()
        .and_then(|text| tree(text, value.span, &path, report))
    {
        schema::walk_proxy(&tree, &path, report);
        check::proxy_config(&tree, &path, report);
    }
    report
        .info(
            "MW0117",
            key.span,
            format!("`{PROXY_CONFIG}` is checked, and not acted on: there is no proxy beside the pod"),
        )
        .path(path);
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
