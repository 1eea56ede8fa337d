//! The structure of each kind: its fields and their types.
//!
//! What a reader does not know it must not pass over: a field that is not in the table is an error, as it is for a
//! strict API server (semantics 2.17 R7; the lesson of fields that old clients ignore).

mod istio;
mod kubernetes;
mod rules;

use crate::known::KnownKind;
use crate::problem::Span;
use crate::report::{Draft, Report, join};
use crate::suggest;
use crate::yaml::{Data, Node};
use rules::Rule;

/// What may stand at a place.
#[derive(Debug)]
pub(crate) enum Shape {
    /// Anything: read by somebody else, or by nobody.
    Any,
    /// Text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number of the range.
    Whole(i64, i64),
    /// A number of the range, or above its lower end where that is left out.
    Real(f64, f64),
    /// A number or text.
    Scalar,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A list; its items are never null.
    List(&'static Self),
    /// A map with any keys.
    Map(&'static Self),
    /// A map with these keys and no others.
    Fields(&'static [Field]),
    /// What it is, and what must hold of it besides.
    Bound(&'static Self, &'static [Rule]),
}

/// A key of a map.
#[derive(Debug)]
pub(crate) struct Field {
    name: &'static str,
    shape: &'static Shape,
    required: bool,
}

/// A field that may be left out.
pub(crate) const fn may(name: &'static str, shape: &'static Shape) -> Field {
    Field {
        name,
        shape,
        required: false,
    }
}

/// A field that must be there.
pub(crate) const fn must(name: &'static str, shape: &'static Shape) -> Field {
    Field {
        name,
        shape,
        required: true,
    }
}

pub(crate) const TEXTS: Shape = Shape::List(&Shape::Text);
pub(crate) const LABELS: Shape = Shape::Map(&Shape::Text);

const METADATA: &[Field] = &[
    may("name", &Shape::Text),
    may("generateName", &Shape::Text),
    may("namespace", &Shape::Text),
    may("labels", &LABELS),
    may("annotations", &LABELS),
    may("uid", &Shape::Text),
    may("creationTimestamp", &Shape::Text),
    may("deletionTimestamp", &Shape::Text),
    may("deletionGracePeriodSeconds", &Shape::Whole(0, i64::MAX)),
    may("ownerReferences", &Shape::List(&Shape::Any)),
    may("finalizers", &TEXTS),
    may("resourceVersion", &Shape::Text),
    may("generation", &Shape::Whole(0, i64::MAX)),
    may("managedFields", &Shape::List(&Shape::Any)),
    may("selfLink", &Shape::Text),
];

pub(crate) const META: Shape = Shape::Fields(METADATA);

const HEAD: &[Field] = &[
    may("apiVersion", &Shape::Text),
    may("kind", &Shape::Text),
    may("metadata", &META),
];

/// Reports what a mesh configuration's structure cannot be.
pub(crate) fn walk_mesh(root: &Node, path: &str, report: &mut Report<'_>) {
    Walker { report }.shape(&istio::MESH_CONFIG, root, path);
}

/// Reports what the structure of the mesh's networks cannot be.
pub(crate) fn walk_networks(root: &Node, path: &str, report: &mut Report<'_>) {
    Walker { report }.shape(&istio::MESH_NETWORKS, root, path);
}

/// Reports what the structure of a proxy's configuration cannot be.
pub(crate) fn walk_proxy(root: &Node, path: &str, report: &mut Report<'_>) {
    Walker { report }.shape(&istio::PROXY_CONFIG, root, path);
}

/// Reports unknown fields, wrong types and what is missing. Kinds without a table are not looked into.
pub(crate) fn walk(known: &KnownKind, root: &Node, report: &mut Report<'_>) {
    let table = istio::of(known.group, known.kind).or_else(|| kubernetes::of(known.group, known.kind));
    let Some(body) = table else {
        let mut walker = Walker { report };
        if let Some(metadata) = root.child("metadata") {
            walker.shape(&META, metadata, "metadata");
        }
        return;
    };
    Walker { report }.fields(&[HEAD, body], root, root.span, "");
}

struct Walker<'r, 't> {
    report: &'r mut Report<'t>,
}

impl Walker<'_, '_> {
    fn shape(&mut self, shape: &Shape, node: &Node, path: &str) {
        match (shape, &node.data) {
            (Shape::Any, _) | (_, Data::Null) => {}
            (Shape::Text, Data::Text(_))
            | (Shape::Flag, Data::Bool(..))
            | (Shape::Scalar, Data::Text(_) | Data::Number(..)) => {}
            (Shape::Whole(least, most), Data::Number(_, raw)) => match node.whole() {
                Some(value) if (*least..=*most).contains(&value) => {}
                Some(_) => self.value(
                    (node, path, raw),
                    shape,
                    &format!("`{raw}` is not from {least} to {most}"),
                ),
                None => self.value(
                    (node, path, raw),
                    shape,
                    &format!("`{raw}` is not a whole number"),
                ),
            },
            (Shape::Real(least, most), Data::Number(number, raw)) => {
                if !number
                    .as_f64()
                    .is_some_and(|value| (*least..=*most).contains(&value))
                {
                    let why = if *most < f64::MAX {
                        format!("`{raw}` is not from {least} to {most}")
                    } else {
                        format!("`{raw}` is below {least}")
                    };
                    self.value((node, path, raw), shape, &why);
                }
            }
            (Shape::Bound(inner, rules), _) => {
                let before = self.report.errors();
                self.shape(inner, node, path);
                if self.report.errors() == before {
                    rules::hold(rules, node, path, self.report);
                }
            }
            (Shape::OneOf(words), Data::Text(text)) => self.one_of(words, text, node, path),
            (Shape::List(inner), Data::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    if item.is_null() {
                        self.wrong(node_or(item, node), &path, "nothing", "an entry")
                            .remedy("write what is meant behind the `-`, or take it out");
                    } else {
                        self.shape(inner, item, &path);
                    }
                }
            }
            (Shape::Map(inner), Data::Map(entries)) => {
                for (key, value) in entries {
                    self.shape(inner, value, &join(path, &key.text));
                }
            }
            (Shape::Fields(fields), Data::Map(_)) => self.fields(&[fields], node, node.span, path),
            (wanted, _) => {
                self.wrong(node.span, path, node.what(), wanted_words(wanted))
                    .value(node.written().unwrap_or_default())
                    .remedy(remedy(wanted, node));
            }
        }
    }

    fn fields(&mut self, tables: &[&[Field]], node: &Node, span: Span, path: &str) {
        let all = || tables.iter().flat_map(|t| t.iter());
        for (key, value) in node.entries() {
            let at = join(path, &key.text);
            match all().find(|f| f.name == key.text) {
                Some(field) => self.shape(field.shape, value, &at),
                None if self.report.is_full() => {
                    // Nobody reads it: it is counted, and no likely word is looked for.
                    self.report
                        .error("MW0108", key.span, format!("unknown field `{at}`"));
                }
                None => {
                    let near = suggest::nearest(&key.text, all().map(|f| f.name));
                    let known: Vec<_> = all().map(|f| f.name).take(12).collect();
                    let remedy =
                        near.map_or_else(|| known_here(&known), |near| format!("did you mean `{near}`?"));
                    self.report
                        .error("MW0108", key.span, format!("unknown field `{at}`"))
                        .path(at)
                        .value(&key.text)
                        .remedy(remedy);
                }
            }
        }
        for field in all().filter(|f| f.required) {
            if node.child(field.name).is_none_or(Node::is_null) {
                let at = join(path, field.name);
                self.report
                    .error("MW0102", span, format!("`{at}` is missing"))
                    .remedy(format!("add `{}:`", field.name))
                    .path(at);
            }
        }
    }

    fn one_of(&mut self, words: &[&'static str], text: &str, node: &Node, path: &str) {
        if words.contains(&text) {
            return;
        }
        let near = suggest::nearest(text, words.iter().copied());
        let remedy = near.map_or_else(
            || format!("write one of {}", words.join(", ")),
            |near| format!("did you mean `{near}`? (one of {})", words.join(", ")),
        );
        self.report
            .error("MW0110", node.span, format!("`{path}` cannot be `{text}`"))
            .path(path)
            .value(text)
            .remedy(remedy);
    }

    fn value(&mut self, (node, path, raw): (&Node, &str, &str), shape: &Shape, why: &str) {
        self.report
            .error("MW0110", node.span, format!("`{path}`: {why}"))
            .path(path)
            .value(raw)
            .remedy(remedy(shape, node));
    }

    fn wrong(&mut self, span: Span, path: &str, found: &str, wanted: &str) -> Draft<'_> {
        self.report
            .error(
                "MW0109",
                span,
                format!("`{path}` must be {wanted}, and this is {found}"),
            )
            .path(path)
    }
}

/// How to write a value that has the wrong type.
fn remedy(wanted: &Shape, node: &Node) -> String {
    match (wanted, node.written(), &node.data) {
        (Shape::Text | Shape::OneOf(_), Some(raw), _) => format!("write it in quotes: \"{raw}\""),
        (Shape::List(Shape::Text), Some(raw), _) => {
            format!("write it as a list: [\"{raw}\"]")
        }
        (Shape::List(_), Some(raw), _) => format!("write it as a list: [{raw}]"),
        (Shape::List(_), _, Data::Map(_)) => "begin each entry with `- `".to_owned(),
        (Shape::Map(_) | Shape::Fields(_), _, Data::List(_)) => {
            "write `key: value` lines, without `- ` or brackets".to_owned()
        }
        (Shape::Map(_) | Shape::Fields(_), ..) => "write `key: value` lines below it".to_owned(),
        (Shape::Flag, ..) => "write `true` or `false`, without quotes".to_owned(),
        (Shape::Whole(least, most), ..) if *most < i64::MAX => {
            format!("write a number from {least} to {most}, without quotes")
        }
        (Shape::Real(least, most), ..) if *most < f64::MAX => {
            format!("write a number from {least} to {most}, without quotes")
        }
        (Shape::Whole(..) | Shape::Real(..), ..) => "write a number without quotes".to_owned(),
        (wanted, ..) => format!("write {} here", wanted_words(wanted)),
    }
}

fn known_here(known: &[&str]) -> String {
    if known.is_empty() {
        return "leave it out: nothing is known here".to_owned();
    }
    format!("known here: {}", known.join(", "))
}

fn node_or(item: &Node, around: &Node) -> Span {
    if item.span.line > 0 {
        item.span
    } else {
        around.span
    }
}

fn wanted_words(shape: &Shape) -> &'static str {
    match shape {
        Shape::Any => "anything",
        Shape::Text | Shape::OneOf(_) => "text",
        Shape::Flag => "true or false",
        Shape::Whole(..) => "a whole number",
        Shape::Real(..) => "a number",
        Shape::Bound(inner, _) => wanted_words(inner),
        Shape::Scalar => "a number or text",
        Shape::List(_) => "a list",
        Shape::Map(_) | Shape::Fields(_) => "a map",
    }
}
