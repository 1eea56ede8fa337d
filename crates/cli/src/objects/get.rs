//! `get`: objects, as tables, JSON or YAML.

use admin::verbs::Found;
use admin::{Failure, verbs};
use api::{Class, known_kinds};
use serde_json::{Value, json};

use super::outcome::word;
use crate::args::{Get, GetFormat};
use crate::mesh::{Mesh, items};
use crate::out::{Done, Out};
use crate::table::{Cell, Table};
use crate::yaml;

pub(crate) async fn get(mesh: &Mesh, asked: &Get, out: &mut Out) -> Done {
    let Some(word) = &asked.kind else {
        return kinds(asked, out);
    };
    let (kind, name) = match (word.split_once('/'), &asked.object) {
        (Some((kind, name)), None) => (kind, Some(name)),
        (Some(_), Some(_)) => {
            return Err(Failure::usage("write `KIND/NAME` or `KIND NAME`, not both").into());
        }
        (None, name) => (word.as_str(), name.as_deref()),
    };
    let namespace = match &asked.namespace {
        _ if asked.all_namespaces => None,
        Some(namespace) => Some(namespace.clone()),
        None => Some("default".to_owned()),
    };
    let body = verbs::Get {
        kind: kind.to_owned(),
        namespace: namespace.clone(),
        name: name.map(str::to_owned),
    };
    let found: Vec<Found> = items(mesh.control("get", &body).await?).await?;
    let single = name.is_some() && found.len() == 1;
    match asked.output {
        Some(GetFormat::Json) => out.json(&document(&found, single))?,
        Some(GetFormat::Yaml) => out.print(&yaml::print(&document(&found, single)))?,
        Some(GetFormat::Name) => {
            let names = found.iter().map(|found| Cell::from(qualified(&found.object)));
            let mut table = Table::bare();
            names.for_each(|name| table.row(vec![name]));
            out.table(&table, &nothing(kind, namespace.as_deref()))?;
        }
        format => {
            let wide = format == Some(GetFormat::Wide);
            let several = namespace.is_none();
            out.table(
                &table(&found, several, wide),
                &nothing(kind, namespace.as_deref()),
            )?;
        }
    }
    Ok(0)
}

fn nothing(kind: &str, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("no `{kind}` in namespace `{namespace}`; -A looks in all"),
        None => format!("no `{kind}` in any namespace"),
    }
}

/// One object, or a list that `apply` takes.
fn document(found: &[Found], single: bool) -> Value {
    match found {
        [one] if single => one.object.clone(),
        all => {
            let items: Vec<&Value> = all.iter().map(|found| &found.object).collect();
            json!({"apiVersion": "v1", "kind": "List", "items": items})
        }
    }
}

/// `kind.group/name`, as `kubectl` has it.
fn qualified(object: &Value) -> String {
    let kind = text(object, "/kind").to_lowercase();
    let group = match text(object, "/apiVersion").split_once('/') {
        Some((group, _)) => format!(".{group}"),
        None => String::new(),
    };
    format!("{kind}{group}/{}", text(object, "/metadata/name"))
}

fn table(found: &[Found], namespaces: bool, wide: bool) -> Table {
    let kinds: std::collections::BTreeSet<&str> =
        found.iter().map(|found| text(&found.object, "/kind")).collect();
    let one_kind = kinds.len() == 1;
    let own: &[Column] = kinds
        .first()
        .filter(|_| one_kind)
        .map_or(&[], |kind| columns(kind));
    let mut heads = Vec::new();
    heads.extend(namespaces.then_some("NAMESPACE"));
    heads.extend((!one_kind).then_some("KIND"));
    heads.push("NAME");
    heads.extend(own.iter().map(|(head, _)| *head));
    heads.push("STATE");
    if wide {
        heads.extend(["LABELS", "ORIGIN", "WHY"]);
    }
    let mut table = Table::new(heads);
    for Found {
        object,
        result,
        why,
        origin,
    } in found
    {
        let mut cells: Vec<Cell> = Vec::new();
        cells.extend(namespaces.then(|| text(object, "/metadata/namespace").into()));
        cells.extend((!one_kind).then(|| text(object, "/kind").into()));
        cells.push(text(object, "/metadata/name").into());
        cells.extend(own.iter().map(|(_, show)| Cell::from(show(object))));
        let (word, mood) = word(*result);
        cells.push(Cell::new(word, mood));
        if wide {
            cells.push(labels(object).into());
            cells.push(origin.into());
            cells.push(why.join("; ").into());
        }
        table.row(cells);
    }
    table
}

type Column = (&'static str, fn(&Value) -> String);

/// What is worth a column, by kind: what `kubectl` shows where it fits.
fn columns(kind: &str) -> &'static [Column] {
    match kind {
        "Pod" => &[
            ("READY", |o| ready(o).to_owned()),
            ("PHASE", |o| text(o, "/status/phase").to_owned()),
            ("IP", |o| text(o, "/status/podIP").to_owned()),
            ("NODE", |o| text(o, "/spec/nodeName").to_owned()),
        ],
        "Deployment" | "StatefulSet" => &[("REPLICAS", |o| match o.pointer("/spec/replicas") {
            Some(replicas) => replicas.to_string(),
            None => "1".to_owned(),
        })],
        "Service" => &[
            ("TYPE", |o| match text(o, "/spec/type") {
                "" => "ClusterIP".to_owned(),
                kind => kind.to_owned(),
            }),
            ("CLUSTER-IP", |o| text(o, "/spec/clusterIP").to_owned()),
            ("PORTS", ports),
        ],
        "PeerAuthentication" => &[("MODE", |o| text(o, "/spec/mtls/mode").to_owned())],
        "AuthorizationPolicy" => &[("ACTION", |o| match text(o, "/spec/action") {
            "" => "ALLOW".to_owned(),
            action => action.to_owned(),
        })],
        "DestinationRule" => &[("HOST", |o| text(o, "/spec/host").to_owned())],
        _ => &[],
    }
}

fn ready(pod: &Value) -> &'static str {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let is = |one: &Value| text(one, "/type") == "Ready" && text(one, "/status") == "True";
    if conditions.is_some_and(|all| all.iter().any(is)) {
        "yes"
    } else {
        "no"
    }
}

fn ports(service: &Value) -> String {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let one = |port: &Value| {
        let number = port.get("port").map(ToString::to_string).unwrap_or_default();
        match text(port, "/protocol") {
            "" => format!("{number}/TCP"),
            protocol => format!("{number}/{protocol}"),
        }
    };
    let all: Vec<String> = ports.into_iter().flatten().map(one).collect();
    all.join(",")
}

fn labels(object: &Value) -> String {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let one = |(key, value): (&String, &Value)| format!("{key}={}", value.as_str().unwrap_or_default());
    let all: Vec<String> = labels.into_iter().flatten().map(one).collect();
    all.join(",")
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The kinds that are known, without a mesh.
fn kinds(asked: &Get, out: &mut Out) -> Done {
    let what = |class| match class {
        Class::ActedOn => "acted on",
        Class::NotActedOn => "accepted, not acted on",
        Class::SecurityNotActedOn => "not enforced yet: an error",
    };
    let version = |group: &str, version: &str| match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    if asked.output == Some(GetFormat::Json) {
        let all: Vec<Value> = known_kinds()
            .iter()
            .map(|kind| {
                let versions: Vec<String> = kind.versions.iter().map(|v| version(kind.group, v)).collect();
                json!({
                    "kind": kind.kind, "plural": kind.plural, "apiVersions": versions,
                    "namespaced": kind.namespaced, "state": what(kind.class),
                })
            })
            .collect();
        out.json(&all)?;
        return Ok(0);
    }
    let mut table = Table::new(["NAME", "APIVERSION", "NAMESPACED", "KIND", "STATE"]);
    for kind in known_kinds() {
        table.row(vec![
            kind.plural.into(),
            version(kind.group, kind.versions.first().unwrap_or(&"v1")).into(),
            if kind.namespaced { "true" } else { "false" }.into(),
            kind.kind.into(),
            what(kind.class).into(),
        ]);
    }
    out.table(&table, "no kinds")?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use admin::verbs::OutcomeKind;

    use super::*;

    fn found(object: Value, result: OutcomeKind) -> Found {
        Found {
            object,
            result,
            why: vec!["a.yaml:1:1: why".to_owned()],
            origin: "a.yaml:1:1".to_owned(),
        }
    }

    fn policy() -> Found {
        let object = json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "edit", "namespace": "full", "labels": {"a": "b"}}, "spec": {"action": "DENY"},
        });
        found(object, OutcomeKind::Rejected)
    }

    fn service() -> Found {
        let object = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "full"},
            "spec": {"clusterIP": "10.96.0.20", "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]},
        });
        found(object, OutcomeKind::Accepted)
    }

    #[test]
    fn one_kind_has_columns_of_its_own() {
        assert_eq!(
            table(&[policy()], false, false).render(false),
            "NAME  ACTION  STATE\nedit  DENY    rejected\n"
        );
        assert_eq!(
            table(&[service()], true, false).render(false),
            "NAMESPACE  NAME  TYPE       CLUSTER-IP  PORTS          STATE\nfull       web   ClusterIP  10.96.0.20  80/TCP,53/UDP  accepted\n"
        );
    }

    #[test]
    fn several_kinds_are_told_apart_and_wide_says_why() {
        let shown = table(&[policy(), service()], false, true).render(false);
        let wanted = "KIND                 NAME  STATE     LABELS  ORIGIN      WHY\n\
                      AuthorizationPolicy  edit  rejected  a=b     a.yaml:1:1  a.yaml:1:1: why\n\
                      Service              web   accepted  -       a.yaml:1:1  a.yaml:1:1: why\n";
        assert_eq!(shown, wanted);
    }

    #[test]
    fn one_object_by_name_stands_alone_and_several_are_a_list() {
        assert_eq!(document(&[policy()], true)["kind"], "AuthorizationPolicy");
        let list = document(&[policy(), service()], false);
        assert_eq!(list["kind"], "List");
        assert_eq!(list["items"].as_array().unwrap().len(), 2);
        assert_eq!(document(&[], true)["items"], json!([]));
        assert_eq!(
            qualified(&policy().object),
            "authorizationpolicy.security.istio.io/edit"
        );
        assert_eq!(qualified(&service().object), "service/web");
    }
}
