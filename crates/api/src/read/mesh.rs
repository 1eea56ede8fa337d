//! The mesh's configuration: keys `mesh` and `meshNetworks` of ConfigMap `istio` in `istio-system`.

use serde_json::Value;

use crate::kinds::{ConfigMap, MeshConfig, Meta};
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
        Ok(config) => Some(Some(config)),
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

#[cfg(test)]
mod tests {
    fn read(data: &str) -> Vec<String> {
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n{data}"
        );
        let parsed = crate::parse("mesh.yaml", text.as_bytes());
        let broken = parsed.has_errors();
        assert_eq!(parsed.objects.is_empty(), broken, "{:#?}", parsed.problems);
        assert_eq!(parsed.rejected.is_empty(), !broken);
        parsed
            .problems
            .into_iter()
            .map(|p| {
                format!(
                    "{}:{}: {} ({})",
                    p.line,
                    p.column,
                    p.message,
                    p.remedy.unwrap_or_default()
                )
            })
            .collect()
    }

    #[test]
    fn a_mesh_configuration_that_cannot_be_read_is_not_silent() {
        assert_eq!(
            read("  mesh: |\n    trustDomain: a.example\n"),
            Vec::<String>::new()
        );
        let said = read(
            "  mesh: |-\n\n    trustDomain: a.example\n    outboundTrafficPolicy: {mode: NOTHING}\n    trustDomainAliases: 3\n",
        );
        assert_eq!(said.len(), 2, "{said:#?}");
        assert!(
            said[0].starts_with("8:35: `data.mesh.outboundTrafficPolicy.mode` cannot be `NOTHING`"),
            "{said:#?}"
        );
        assert!(
            said[1].starts_with("9:25: `data.mesh.trustDomainAliases` must be a list"),
            "{said:#?}"
        );
        let said = read("  mesh: |\n    trustDomain: [\n");
        assert!(said[0].starts_with("6:"), "{said:#?}");
    }

    #[test]
    fn a_key_of_the_mesh_configuration_that_is_not_known_is_told_with_its_place() {
        let said =
            read("  mesh: |\n    # a comment\n    trustDomian: a\n    defaultConfig:\n      tracin: {}\n");
        assert_eq!(
            said,
            [
                "7:5: unknown field `data.mesh.trustDomian` (did you mean `trustDomain`?)",
                "9:7: unknown field `data.mesh.defaultConfig.tracin` (did you mean `tracing`?)"
            ]
        );
    }

    #[test]
    fn a_mesh_configuration_in_quotes_is_placed_where_it_stands() {
        let said = read("  mesh: \"trustDomain: -a\\nrootNamespace: b\"\n");
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(
            said[0].starts_with("5:9: `data.mesh.trustDomain`: `-a` is not"),
            "{said:#?}"
        );
    }

    #[test]
    fn networks_are_read_beside_the_mesh_configuration() {
        let networks = |gateway: &str| {
            read(&format!(
                "  meshNetworks: |\n    networks:\n      n1:\n        gateways:\n        - {{{gateway}}}\n"
            ))
        };
        assert_eq!(networks("address: 1.2.3.4, port: 80"), Vec::<String>::new());
        for wrong in [
            "address: 1nv@lid, port: 80",
            "address: 1.2.3.4",
            "port: 0",
            "prt: 1",
        ] {
            assert!(!networks(wrong).is_empty(), "{wrong}");
        }
    }
}
