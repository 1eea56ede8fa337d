//! A file to objects: documents, `List` kinds, kinds, names, then each body.

mod body;
mod mesh;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::kinds::Meta;
use crate::known::{self, Class, KnownKind};
use crate::object::{Object, Origin, Parsed};
use crate::problem::{ObjectRef, Problem, Severity, Span};
use crate::report::Report;
use crate::yaml::{self, Data, Document, MAX_BYTES, Node};
use crate::{check, schema, suggest};

/// The namespace of an object that does not say.
const DEFAULT_NAMESPACE: &str = "default";
/// How deep `List` kinds may hold one another.
const MAX_LISTS: usize = 4;

/// Reads a file: YAML (several documents, `List` kinds) or JSON. Never panics; work is bounded by
/// [`MAX_BYTES`](crate::MAX_BYTES), [`MAX_DEPTH`](crate::MAX_DEPTH) and [`MAX_NODES`](crate::MAX_NODES).
pub fn parse(file: &str, text: &[u8]) -> Parsed {
    let text = match utf8(text) {
        Ok(text) => text,
        Err(mut problem) => {
            problem.file = file.to_owned();
            return Parsed {
                problems: vec![*problem],
                ..Parsed::default()
            };
        }
    };
    let mut report = Report::new(file, text);
    let documents = yaml::documents(text, &mut report);
    let empty = documents.is_empty() && report.len() == 0;
    if empty {
        report
            .warning(
                "MW0006",
                Span {
                    line: 1,
                    column: 1,
                    length: 0,
                },
                "the file holds no object",
            )
            .remedy("write one, or remove the file");
    }
    let mut reader = Reader {
        report,
        objects: Vec::new(),
        rejected: Vec::new(),
        file,
        seen: HashMap::new(),
        told: HashSet::new(),
    };
    for Document { root, fault } in documents {
        reader.document(root, fault, None, 0);
    }
    Parsed {
        objects: reader.objects,
        rejected: reader.rejected,
        problems: reader.report.finish(),
    }
}

/// The bytes as text, without a byte order mark.
fn utf8(bytes: &[u8]) -> Result<&str, Box<Problem>> {
    if bytes.len() > MAX_BYTES {
        let message = format!(
            "the file has {} bytes, and at most {MAX_BYTES} (8 MiB) are read",
            bytes.len()
        );
        return Err(Box::new(
            Problem::new(Severity::Error, "MW0001", message).remedy("split it into several files"),
        ));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        let problem = Problem::new(
            Severity::Error,
            "MW0005",
            "the file is UTF-16, and only UTF-8 is read",
        );
        return Err(Box::new(problem.remedy("save it as UTF-8")));
    }
    let good = match std::str::from_utf8(bytes) {
        Ok(text) => match text.find('\0') {
            None => return Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
            Some(at) => at,
        },
        Err(error) => error.valid_up_to(),
    };
    let before = String::from_utf8_lossy(bytes.get(..good).unwrap_or_default()).into_owned();
    let byte = bytes.get(good).copied().unwrap_or_default();
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let line = before.matches('\n').count() + 1;
    let mut problem = Problem::new(
        Severity::Error,
        "MW0005",
        format!("byte {good} of the file is {byte:#04x}, so this is not text in UTF-8"),
    );
    problem.line = u32::try_from(line).unwrap_or(u32::MAX);
    problem.column = u32::try_from(column).unwrap_or(u32::MAX);
    problem.length = 1;
    Err(Box::new(problem.remedy("give a YAML or JSON file")))
}

struct Reader<'t> {
    report: Report<'t>,
    objects: Vec<Object>,
    rejected: Vec<ObjectRef>,
    file: &'t str,
    /// Where each object was first written, and its place in `objects`.
    seen: HashMap<(&'static str, ObjectRef), u32>,
    /// Kinds that were reported as not acted on.
    told: HashSet<String>,
}

/// `apiVersion` and `kind` as written.
struct TypeName {
    api_version: String,
    kind: String,
}

impl TypeName {
    fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    fn version(&self) -> &str {
        self.api_version
            .split_once('/')
            .map_or(&self.api_version, |(_, version)| version)
    }
}

impl Reader<'_> {
    fn document(&mut self, root: Node, fault: Option<String>, inherit: Option<&TypeName>, lists: usize) {
        self.report.object = None;
        if !matches!(root.data, Data::Map(_)) {
            self.report
                .error(
                    "MW0101",
                    root.span,
                    format!("an object must be a map, and this is {}", root.what()),
                )
                .remedy("start with `apiVersion:` and `kind:`");
            return;
        }
        let Some(type_name) = self.type_name(&root, inherit) else {
            return;
        };
        if let Some(items) = root.child("items").filter(|_| type_name.kind.ends_with("List")) {
            let inner = type_name
                .kind
                .strip_suffix("List")
                .filter(|kind| !kind.is_empty());
            let inherit = inner.map(|kind| TypeName {
                api_version: type_name.api_version.clone(),
                kind: kind.to_owned(),
            });
            if lists >= MAX_LISTS {
                self.report.error(
                    "MW0009",
                    root.span,
                    format!("lists nest more than {MAX_LISTS} deep"),
                );
                return;
            }
            for item in items.items() {
                self.document(item.clone(), fault.clone(), inherit.as_ref(), lists + 1);
            }
            return;
        }
        self.object(root, fault, type_name);
    }

    fn type_name(&mut self, root: &Node, inherit: Option<&TypeName>) -> Option<TypeName> {
        let mut read = |key: &str, inherited: Option<&str>| match root.entry(key) {
            Some((_, node)) if node.text().is_some_and(|text| !text.is_empty()) => {
                node.text().map(str::to_owned)
            }
            Some((_, node)) if !node.is_null() && node.text().is_none() => {
                let message = format!("`{key}` must be text, and this is {}", node.what());
                self.report.error("MW0102", node.span, message).path(key);
                None
            }
            _ => inherited.map(str::to_owned).or_else(|| {
                self.report
                    .error("MW0102", root.span, format!("the object has no `{key}`"))
                    .path(key)
                    .remedy(match key {
                        "kind" => "add for example `kind: Service`",
                        _ => "add for example `apiVersion: v1`",
                    });
                None
            }),
        };
        let api_version = read("apiVersion", inherit.map(|name| name.api_version.as_str()));
        let kind = read("kind", inherit.map(|name| name.kind.as_str()));
        Some(TypeName {
            api_version: api_version?,
            kind: kind?,
        })
    }

    fn object(&mut self, root: Node, fault: Option<String>, name: TypeName) {
        let before = self.report.len();
        let _ = self.report.verdict();
        let known = known::find(name.group(), &name.kind);
        let Some(class) = self.class(&root, &name, known) else {
            return;
        };
        let namespaced = known.is_none_or(|known| known.namespaced);
        let Some(meta) = self.meta(&root, &name, namespaced) else {
            return;
        };
        let reference = ObjectRef {
            kind: name.kind.clone(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
        };
        self.report.object = Some(reference.clone());
        // What was found before the name was known belongs to the object as well.
        self.report.claim(before, &reference);
        check::names(known, &meta, &root, &mut self.report);
        if let Some(known) = known {
            schema::walk(known, &root, &mut self.report);
            check::object(known, &meta, &root, &mut self.report);
            mesh::of_proxy(known, &root, &mut self.report);
            if known.kind == "IstioOperator" {
                mesh::of_installer(&root, &mut self.report);
            }
        }
        self.tell(class, &name, &root);
        self.twice(known, &reference, root.span);

        let verdict = self.report.verdict();
        let mut invalid = fault.or(verdict.invalid);
        let never_matches = verdict.only_secure;
        let security = known.is_some_and(KnownKind::is_security);
        if invalid.is_some() && !security {
            self.rejected.push(reference);
            return;
        }
        let mut kind = body::read(known, &meta, &root, invalid.is_some(), &mut self.report);
        if kind.is_none() && security {
            // What its types cannot hold, it cannot allow: it denies like what its schema refuses.
            invalid = self.report.verdict().invalid;
            kind = body::read(known, &meta, &root, true, &mut self.report);
        }
        let Some(kind) = kind else {
            self.rejected.push(reference);
            return;
        };
        let mut json = root.to_json();
        body::complete(&mut json, &name.api_version, &name.kind, &meta);
        self.objects.push(Object {
            api_version: name.api_version,
            kind_name: name.kind,
            kind,
            meta,
            origin: Origin {
                file: self.file.to_owned(),
                line: root.span.line,
                column: root.span.column,
            },
            class,
            json,
            invalid,
            never_matches,
            tree: Arc::new(root),
        });
    }

    /// What becomes of the kind; `None` where it is refused.
    fn class(&mut self, root: &Node, name: &TypeName, known: Option<&KnownKind>) -> Option<Class> {
        let (group, version) = (name.group(), name.version());
        let kind_span = root.span_at("kind");
        if let Some(known) = known {
            if known.versions.contains(&version) {
                return Some(known.class);
            }
            let served: Vec<String> = known.versions.iter().map(|v| join(group, v)).collect();
            self.report
                .error(
                    "MW0104",
                    root.span_at("apiVersion"),
                    format!("`{}` has no version `{version}`", known.kind),
                )
                .value(&name.api_version)
                .path("apiVersion")
                .remedy(format!("write `apiVersion: {}`", served.join("` or `")));
            return None;
        }
        let elsewhere = known::known_kinds().iter().find(|known| known.kind == name.kind);
        if known::is_removed(group, &name.kind) {
            self.report
                .error(
                    "MW0103",
                    kind_span,
                    format!("kind `{}` of `{group}` was removed from Istio", name.kind),
                )
                .value(&name.kind)
                .path("kind")
                .remedy("write PeerAuthentication, RequestAuthentication and AuthorizationPolicy instead");
            return None;
        }
        // Istio's kind in a group that is nearly Istio's: to pass it over would be to lose a policy to a slip of the pen.
        let misspelt = elsewhere.is_some_and(|right| {
            right.group.ends_with(".istio.io")
                && suggest::nearest(group, std::iter::once(right.group)).is_some()
        });
        if !known::is_closed_group(group) && !misspelt {
            // Somebody else's kind; nothing is known of it.
            return Some(Class::NotActedOn);
        }
        let siblings = known::known_kinds()
            .iter()
            .filter(|known| known.group == group)
            .map(|known| known.kind);
        if let Some(right) = elsewhere {
            self.report
                .error(
                    "MW0103",
                    root.span_at("apiVersion"),
                    format!("there is no kind `{}` in `{}`", name.kind, name.api_version),
                )
                .value(&name.api_version)
                .path("apiVersion")
                .remedy(format!(
                    "write `apiVersion: {}`",
                    join(right.group, right.versions.first().copied().unwrap_or("v1"))
                ));
            return None;
        }
        let everywhere = known::known_kinds().iter().map(|known| known.kind);
        let near =
            suggest::nearest(&name.kind, siblings).or_else(|| suggest::nearest(&name.kind, everywhere));
        let message = format!("there is no kind `{}` in `{}`", name.kind, name.api_version);
        let draft = self
            .report
            .error("MW0103", kind_span, message)
            .value(&name.kind)
            .path("kind");
        if let Some(near) = near {
            draft.remedy(format!("did you mean `{near}`?"));
        } else {
            draft.remedy("`meshward get` without arguments lists the kinds that are known");
        }
        None
    }

    fn meta(&mut self, root: &Node, name: &TypeName, namespaced: bool) -> Option<Meta> {
        let kind = &name.kind;
        // Istio's installer reads this one from a file, without a name; no API server ever sees it.
        if name.group() == "install.istio.io" && root.child("metadata").is_none() {
            return Some(Meta {
                name: "istio".to_owned(),
                namespace: DEFAULT_NAMESPACE.to_owned(),
                ..Meta::default()
            });
        }
        let Some(metadata) = root.child("metadata").filter(|node| !node.is_null()) else {
            self.report
                .error("MW0102", root.span, format!("the {kind} has no `metadata.name`"))
                .path("metadata.name")
                .remedy("add `metadata:` with a `name:`");
            return None;
        };
        let mut json = metadata.to_json();
        let Some(text) = metadata
            .child("name")
            .and_then(Node::text)
            .filter(|text| !text.is_empty())
        else {
            let (span, message) = match metadata.child("name").filter(|node| !node.is_null()) {
                Some(node) if node.text().is_none() => (
                    node.span,
                    format!("`metadata.name` must be text, and this is {}", node.what()),
                ),
                _ => (
                    root.span_at("metadata"),
                    format!("the {kind} has no `metadata.name`"),
                ),
            };
            let remedy = match metadata
                .child("name")
                .and_then(Node::written)
                .filter(|raw| !raw.is_empty())
            {
                Some(raw) => format!("write `name: \"{raw}\"`"),
                None => "add a `name:` under `metadata:`".to_owned(),
            };
            self.report
                .error("MW0102", span, message)
                .path("metadata.name")
                .remedy(remedy);
            return None;
        };
        let text = text.to_owned();
        let strings = |key: &str| -> BTreeMap<String, String> {
            let entries = metadata.child(key).map(Node::entries).unwrap_or_default();
            entries
                .iter()
                .filter_map(|(key, value)| Some((key.text.clone(), value.text()?.to_owned())))
                .collect()
        };
        let (labels, annotations) = (strings("labels"), strings("annotations"));
        let namespace = metadata
            .child("namespace")
            .and_then(Node::text)
            .unwrap_or_default();
        let namespace = match (namespaced, namespace) {
            (false, _) => String::new(),
            (true, "") => DEFAULT_NAMESPACE.to_owned(),
            (true, given) => given.to_owned(),
        };
        // Labels and annotations are read above: one of the wrong type must not cost the others.
        if let Some(map) = json.as_object_mut() {
            map.retain(|key, _| !matches!(key.as_str(), "labels" | "annotations" | "name" | "namespace"));
        }
        let rest: Meta = serde_json::from_value(json).unwrap_or_default();
        Some(Meta {
            name: text,
            namespace,
            labels,
            annotations,
            ..rest
        })
    }

    fn tell(&mut self, class: Class, name: &TypeName, root: &Node) {
        let span = root.span_at("kind");
        match class {
            Class::ActedOn => {}
            Class::NotActedOn => {
                if self.told.insert(format!("{}/{}", name.group(), name.kind)) {
                    let message = format!(
                        "{}: accepted, not acted on: the kind has no meaning here yet",
                        name.kind
                    );
                    self.report
                        .info("MW0105", span, message)
                        .path("kind")
                        .value(&name.kind);
                }
            }
            Class::SecurityNotActedOn => {
                let message = format!(
                    "{} is not enforced here yet: what it forbids is not refused",
                    name.kind
                );
                self.report
                    .error("MW0106", span, message)
                    .path("kind")
                    .value(&name.kind)
                    .remedy("say it with an AuthorizationPolicy, or take the object out");
            }
        }
    }

    fn twice(&mut self, known: Option<&KnownKind>, reference: &ObjectRef, span: Span) {
        let group = known.map_or("", |known| known.group);
        if let Some(line) = self.seen.insert((group, reference.clone()), span.line) {
            self.report
                .error(
                    "MW0107",
                    span,
                    format!("{reference} is written twice in this file, first on line {line}"),
                )
                .path("metadata.name")
                .value(&reference.name)
                .remedy("give one of the two another name, or remove it");
        }
    }
}

fn join(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}
