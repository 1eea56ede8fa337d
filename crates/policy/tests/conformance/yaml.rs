//! The plain YAML of the data sets: maps, lists and scalars, as JSON.

use std::fs;
use std::path::Path;

use granit_parser::{Event, Parser, ScalarStyle};
use regex::Regex;
use serde_json::{Map, Value};

/// All documents of a file. Names of service accounts such as `rule[0]`, which no identity can have, lose their brackets.
pub(crate) fn file(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let text = Regex::new(r"\\?\[([0-9]+)\\?\]")
        .unwrap()
        .replace_all(&text, "$1")
        .into_owned();
    let mut events = Parser::new_from_str(&text).map(|event| event.unwrap().0);
    let mut documents = Vec::new();
    while let Some(event) = events.next() {
        if event.is_node() {
            documents.push(node(event, &mut events));
        }
    }
    documents.retain(|document| !document.is_null());
    documents
}

fn node<'a>(event: Event<'a>, events: &mut impl Iterator<Item = Event<'a>>) -> Value {
    match event {
        Event::Scalar(text, ScalarStyle::Plain, ..) => match text.as_ref() {
            "true" => true.into(),
            "false" => false.into(),
            "" | "null" | "~" => Value::Null,
            text => text.parse::<i64>().map_or_else(|_| text.into(), Into::into),
        },
        Event::Scalar(text, ..) => text.into_owned().into(),
        Event::SequenceStart(..) => {
            let mut list = Vec::new();
            while let Some(event) = next(events) {
                if matches!(event, Event::SequenceEnd) {
                    break;
                }
                list.push(node(event, events));
            }
            list.into()
        }
        Event::MappingStart(..) => {
            let mut map = Map::new();
            while let Some(event) = next(events) {
                if matches!(event, Event::MappingEnd) {
                    break;
                }
                let key = match node(event, events) {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                let value = next(events).unwrap();
                map.insert(key, node(value, events));
            }
            map.into()
        }
        other => panic!("{other:?} is not expected"),
    }
}

/// The next event that is not a comment.
fn next<'a>(events: &mut impl Iterator<Item = Event<'a>>) -> Option<Event<'a>> {
    events.find(|e| e.is_node() || matches!(e, Event::SequenceEnd | Event::MappingEnd))
}
