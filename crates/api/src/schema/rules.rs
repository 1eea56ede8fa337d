//! What must hold of a value besides its type: the bounds of Istio's schemas, and their CEL rules by name.
//!
//! Each rule of CEL that an object's structure carries is one function here, with the words that the API server would say.
//! What the webhook says as well, and better, stands in the module `check` alone, so that a mistake is told once.

mod cel;

use crate::problem::Span;
use crate::report::Report;
use crate::yaml::Node;
pub(super) use cel::*;

/// No upper bound.
pub(super) const MAX: usize = usize::MAX;

/// How much of a value a message quotes, in characters.
const MAX_QUOTED: usize = 80;

/// What must hold of a value.
#[derive(Debug)]
pub(crate) enum Rule {
    /// Text of at least and at most so many characters.
    Length(usize, usize),
    /// A list of so many items, or a map of so many entries.
    Count(usize, usize),
    /// At most one of these keys is there.
    AtMostOne(&'static [&'static str]),
    /// No two items are the same under this key.
    Unique(&'static str),
    /// A rule of its own.
    Holds(&'static Check),
}

/// A rule of its own.
#[derive(Debug)]
pub(crate) struct Check {
    /// Where it does not hold, and the text there.
    pub(super) fault: fn(&Node) -> Option<Fault>,
    /// What the schema says of it.
    pub(super) message: &'static str,
    pub(super) remedy: &'static str,
}

/// Where a rule does not hold.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(super) span: Span,
    pub(super) value: String,
}

impl Fault {
    /// At the value itself.
    pub(super) fn at(node: &Node) -> Self {
        Self {
            span: node.span,
            value: node.written().unwrap_or_default().to_owned(),
        }
    }
}

/// Reports where the rules do not hold.
pub(super) fn hold(rules: &[Rule], node: &Node, path: &str, report: &mut Report<'_>) {
    for rule in rules {
        match rule {
            Rule::Length(least, most) => length((*least, *most), node, path, report),
            Rule::Count(least, most) => count((*least, *most), node, path, report),
            Rule::AtMostOne(keys) => at_most_one(keys, node, path, report),
            Rule::Unique(key) => unique(key, node, path, report),
            Rule::Holds(check) => {
                if let Some(fault) = (check.fault)(node) {
                    let found = if fault.value.is_empty() {
                        String::new()
                    } else {
                        format!(
                            ", and this is `{}`",
                            fault.value.chars().take(MAX_QUOTED).collect::<String>()
                        )
                    };
                    report
                        .error(
                            "MW0120",
                            fault.span,
                            format!("`{path}`: {}{found}", check.message),
                        )
                        .path(path)
                        .value(&fault.value)
                        .remedy(check.remedy);
                }
            }
        }
    }
}

fn length((least, most): (usize, usize), node: &Node, path: &str, report: &mut Report<'_>) {
    let Some(text) = node.text() else { return };
    let count = text.chars().count();
    let (why, remedy) = if count < least {
        (
            "is empty".to_owned(),
            "give it a text, or leave it out".to_owned(),
        )
    } else if count > most {
        (
            format!("has {count} characters, and at most {most} are allowed"),
            "write less".to_owned(),
        )
    } else {
        return;
    };
    report
        .error("MW0120", node.span, format!("`{path}` {why}"))
        .path(path)
        .value(text)
        .remedy(remedy);
}

fn count((least, most): (usize, usize), node: &Node, path: &str, report: &mut Report<'_>) {
    let count = node.items().len().max(node.entries().len());
    if count < least {
        report
            .error("MW0120", node.span, format!("`{path}` is empty"))
            .path(path)
            .remedy("say what is meant, or leave it out");
    } else if count > most {
        report
            .error(
                "MW0120",
                node.span,
                format!("`{path}` has {count} entries, and at most {most} are allowed"),
            )
            .path(path)
            .remedy("divide it among several objects");
    }
}

fn at_most_one(keys: &[&str], node: &Node, path: &str, report: &mut Report<'_>) {
    let mut there = node
        .entries()
        .iter()
        .filter(|(key, value)| keys.contains(&key.text.as_str()) && !value.is_null());
    if let (Some((first, _)), Some((second, _))) = (there.next(), there.next()) {
        report
            .error(
                "MW0120",
                second.span,
                format!(
                    "`{path}`: `{}` and `{}` cannot both be set",
                    first.text, second.text
                ),
            )
            .path(path)
            .value(&second.text)
            .remedy(format!("keep one of {}", keys.join(", ")));
    }
}

fn unique(key: &str, node: &Node, path: &str, report: &mut Report<'_>) {
    let mut seen = std::collections::HashSet::new();
    for item in node.items() {
        let Some(value) = item.child(key) else { continue };
        let text = value.written().unwrap_or_default();
        if !seen.insert(text) {
            report
                .error(
                    "MW0120",
                    value.span,
                    format!("`{path}`: two entries have the {key} `{text}`"),
                )
                .path(path)
                .value(text)
                .remedy(format!("give each its own {key}"));
        }
    }
}
