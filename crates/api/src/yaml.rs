//! The YAML front: text to a tree in which every key and value knows its place.
//!
//! Scalars are read as `kubectl` reads them (YAML 1.1: `yes` is a boolean, `0755` is octal). JSON is YAML.
//! Work is bounded: by size of the text, by depth, and by the number of nodes after aliases are expanded.

mod build;
mod scalar;
#[cfg(test)]
mod tests;

use serde_json::{Map, Number, Value};

use crate::problem::Span;
pub(crate) use build::documents;

/// The largest file that is read, in bytes.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// How deep maps and lists may nest.
pub const MAX_DEPTH: usize = 128;
/// How many nodes a file may have, those that aliases stand for counted each time.
pub const MAX_NODES: usize = 1_000_000;

/// A value and its place.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// Where it starts; a map or list has the place of its first entry.
    pub span: Span,
    pub(crate) data: Data,
}

/// A key and its place.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) span: Span,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Data {
    /// Nothing, `~` or `null`.
    Null,
    /// With the text that was read so.
    Bool(bool, Box<str>),
    /// With the text that was read so.
    Number(Number, Box<str>),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A document of a file.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) root: Node,
    /// Why it must not be used although it could be read (a key twice).
    pub(crate) fault: Option<String>,
}

impl Node {
    /// The value under a key, if this is a map and has it.
    pub(crate) fn child(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|(_, node)| node)
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&(Key, Self)> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|(name, _)| name.text == key),
            _ => None,
        }
    }

    pub(crate) fn entries(&self) -> &[(Key, Self)] {
        match &self.data {
            Data::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(crate) fn items(&self) -> &[Self] {
        match &self.data {
            Data::List(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value under a key, if it is there and not null.
    pub(crate) fn set(&self, key: &str) -> Option<&Self> {
        self.child(key).filter(|node| !node.is_null())
    }

    pub(crate) fn flag(&self) -> Option<bool> {
        match &self.data {
            Data::Bool(value, _) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn whole(&self) -> Option<i64> {
        match &self.data {
            Data::Number(number, _) => number.as_i64().or_else(|| whole_float(number.as_f64()?)),
            _ => None,
        }
    }

    pub(crate) fn real(&self) -> Option<f64> {
        match &self.data {
            Data::Number(number, _) => number.as_f64(),
            _ => None,
        }
    }

    pub(crate) fn is_empty_list(&self) -> bool {
        matches!(&self.data, Data::List(items) if items.is_empty())
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.data, Data::Null)
    }

    /// What it is, for people: `text`, `a number`, ..
    pub(crate) fn what(&self) -> &'static str {
        match &self.data {
            Data::Null => "nothing",
            Data::Bool(..) => "a boolean",
            Data::Number(..) => "a number",
            Data::Text(_) => "text",
            Data::List(_) => "a list",
            Data::Map(_) => "a map",
        }
    }

    /// A scalar as it was written, without quotes.
    pub(crate) fn written(&self) -> Option<&str> {
        match &self.data {
            Data::Bool(_, raw) | Data::Number(_, raw) => Some(raw),
            Data::Text(text) => Some(text),
            Data::Null | Data::List(_) | Data::Map(_) => None,
        }
    }

    /// The value without places. `null` entries of maps are left out, as an API server does.
    pub(crate) fn to_json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(value, _) => Value::Bool(*value),
            Data::Number(value, _) => Value::Number(value.clone()),
            Data::Text(text) => Value::String(text.clone()),
            Data::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Data::Map(entries) => {
                let kept = entries.iter().filter(|(_, node)| !node.is_null());
                Value::Object(
                    kept.map(|(key, node)| (key.text.clone(), node.to_json()))
                        .collect::<Map<_, _>>(),
                )
            }
        }
    }

    /// Gives every key and value another place.
    pub(crate) fn relocate(&mut self, place: &impl Fn(Span) -> Span) {
        self.span = place(self.span);
        match &mut self.data {
            Data::List(items) => {
                for item in items {
                    item.relocate(place);
                }
            }
            Data::Map(entries) => {
                for (key, value) in entries {
                    key.span = place(key.span);
                    value.relocate(place);
                }
            }
            _ => {}
        }
    }

    /// The place of `spec.rules[0].from`, or of the nearest thing around it.
    pub(crate) fn span_at(&self, path: &str) -> Span {
        let (mut node, mut span, mut rest) = (self, self.span, path);
        while !rest.is_empty() {
            let step = match &node.data {
                Data::List(items) => list_step(items, rest).map(|(next, tail)| (next, next.span, tail)),
                Data::Map(entries) => map_step(entries, rest).map(|((key, next), tail)| {
                    let scalar = next.written().is_some() && next.span.length > 0;
                    (next, if scalar { next.span } else { key.span }, tail)
                }),
                _ => None,
            };
            let Some((next, at, tail)) = step else { break };
            (node, span, rest) = (next, at, tail);
        }
        span
    }
}

/// `5.0` is the whole number 5, as JSON has it.
fn whole_float(value: f64) -> Option<i64> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it has no fraction and lies where floats are exact"
    )]
    (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i64)
}

fn list_step<'n, 'p>(items: &'n [Node], path: &'p str) -> Option<(&'n Node, &'p str)> {
    let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
    Some((
        items.get(index.parse::<usize>().ok()?)?,
        rest.trim_start_matches('.'),
    ))
}

/// Keys may hold dots themselves (`app.kubernetes.io/name`): the longest key that fits is meant.
fn map_step<'n, 'p>(entries: &'n [(Key, Node)], path: &'p str) -> Option<(&'n (Key, Node), &'p str)> {
    entries
        .iter()
        .filter_map(|entry| {
            let rest = path.strip_prefix(entry.0.text.as_str())?;
            let ends = rest.is_empty() || rest.starts_with(['.', '[']);
            ends.then(|| (entry, rest.strip_prefix('.').unwrap_or(rest)))
        })
        .max_by_key(|(entry, _)| entry.0.text.len())
}
