//! What objects change about metrics: which there are, and with which labels.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{Metric, MetricChanges, TAGS};
use serde_json::Value;

/// The provider whose metrics these are.
const PROMETHEUS: &str = "prometheus";
/// The metrics that are meant where none is named.
const ALL: &str = "ALL_METRICS";
/// Labels that may be added.
const MAX_TAGS: usize = 32;

/// The changes of both sides.
#[derive(Debug, Default)]
pub(super) struct Sides {
    client: MetricChanges,
    server: MetricChanges,
}

/// One entry of `overrides`, read.
struct Change {
    client: bool,
    server: bool,
    metrics: BTreeSet<Metric>,
    disabled: Option<bool>,
    tags: Vec<(String, Option<String>)>,
}

impl Sides {
    /// The entries of one object, over what wider ones say.
    pub(super) fn add(&mut self, written: &[Value]) {
        for change in written.iter().filter(|entry| is_ours(entry)).flat_map(overrides) {
            let change = read(change, &mut |_| {});
            let sides = [
                (change.client, &mut self.client),
                (change.server, &mut self.server),
            ];
            for (_, side) in sides.into_iter().filter(|(is, _)| *is) {
                match change.disabled {
                    Some(true) => side.off.extend(&change.metrics),
                    Some(false) => side.off.retain(|metric| !change.metrics.contains(metric)),
                    None => {}
                }
                for (tag, value) in &change.tags {
                    if side.tags.len() < MAX_TAGS || side.tags.contains_key(tag) {
                        side.tags.insert(tag.clone(), value.clone());
                    }
                }
            }
        }
    }

    /// Of calls that are made, and of those that are taken.
    pub(super) fn finish(self) -> (Option<Arc<MetricChanges>>, Option<Arc<MetricChanges>>) {
        let some = |changes: MetricChanges| (!changes.is_none()).then(|| Arc::new(changes));
        (some(self.client), some(self.server))
    }
}

/// What of `metrics` is not acted on, a sentence each.
pub(super) fn unheeded(written: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in written {
        if !is_ours(entry) {
            found
                .push("`metrics` of other providers than `prometheus` are accepted, not in force".to_owned());
            continue;
        }
        if entry.get("reportingInterval").is_some() {
            found.push(
                "`metrics.reportingInterval` has no effect: bytes of open connections count whenever somebody looks".to_owned(),
            );
        }
        for change in overrides(entry) {
            read(change, &mut |why| found.push(why));
        }
    }
    found.sort();
    found.dedup();
    found
}

fn is_ours(entry: &Value) -> bool {
    let named = entry.get("providers").and_then(Value::as_array);
    let name = |provider: &Value| provider.get("name").and_then(Value::as_str) == Some(PROMETHEUS);
    named.is_none_or(|named| named.is_empty() || named.iter().any(name))
}

fn overrides(entry: &Value) -> impl Iterator<Item = &Value> {
    entry
        .get("overrides")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn read(written: &Value, tell: &mut dyn FnMut(String)) -> Change {
    let matched = |field: &str| {
        written
            .pointer(&format!("/match/{field}"))
            .and_then(Value::as_str)
    };
    let mode = matched("mode").unwrap_or("CLIENT_AND_SERVER");
    let named = matched("metric").unwrap_or(ALL);
    let metrics: BTreeSet<Metric> = match matched("customMetric") {
        Some(custom) => {
            tell(format!(
                "`metrics` of `customMetric: {custom}` are accepted, not in force: there is no such metric"
            ));
            BTreeSet::new()
        }
        None if named == ALL => Metric::ALL.into(),
        None => serde_json::from_value(named.into()).into_iter().collect(),
    };
    let disabled = match written.get("disabled") {
        Some(Value::Bool(disabled)) => Some(*disabled),
        _ => None,
    };
    let tags = written.get("tagOverrides").and_then(Value::as_object);
    let tags: Vec<_> = tags
        .into_iter()
        .flatten()
        .filter_map(|(tag, change)| match one_tag(tag, change) {
            Ok(value) if metrics.len() == Metric::ALL.len() => Some((tag.clone(), value)),
            Ok(_) => {
                tell(format!(
                    "`tagOverrides` of one metric are accepted, not in force (`{tag}`): a label is the same of all metrics"
                ));
                None
            }
            Err(why) => {
                tell(format!("`tagOverrides` of `{tag}` is accepted, not in force: {why}"));
                None
            }
        })
        .collect();
    Change {
        client: mode != "SERVER",
        server: mode != "CLIENT",
        metrics,
        disabled,
        tags,
    }
}

/// What becomes of a label: another value, or none.
fn one_tag(tag: &str, change: &Value) -> Result<Option<String>, &'static str> {
    let text = |field: &str| change.get(field).and_then(Value::as_str);
    if matches!(tag, "reporter" | "request_protocol") {
        return Err("it says which of two counts it is");
    }
    if text("operation") == Some("REMOVE") {
        return match TAGS.contains(&tag) {
            true => Ok(None),
            false => Err("there is no such label"),
        };
    }
    let value = text("value").unwrap_or_default();
    let quoted = ['\'', '"']
        .iter()
        .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    let literal = quoted.filter(|inner| !inner.contains(['\'', '"', '\\']) && inner.len() <= 128);
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !tag.chars().all(name) || tag.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("it is no name of a label");
    }
    let literal = literal
        .ok_or("only a text in quotes is acted on: what a caller can choose would make series without end")?;
    Ok(Some(literal.to_owned()))
}
