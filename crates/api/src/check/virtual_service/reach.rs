//! Routes that no request ever takes, because those before them take all. Warnings alone.

use std::collections::HashMap;

use crate::check::at::At;
use crate::report::Report;
use crate::yaml::Node;

/// How many matches by prefix are compared with each other, so that a list costs what its length costs.
const MAX_COMPARED: usize = 200;

/// The routes below `http`, `tls` or `tcp`.
pub(super) fn routes(spec: &At<'_>, key: &str, report: &mut Report<'_>) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut takes_all: Option<usize> = None;
    let mut prefixes: Vec<Prefix<'_>> = Vec::new();
    for (index, route) in spec.list(key).enumerate() {
        if let Some(before) = takes_all {
            route.warn(
                report,
                &format!("no request takes it: route {before} takes all that come so far"),
                "put the route without `match` last",
            );
        }
        if route.count("match") == 0 {
            takes_all.get_or_insert(index);
            continue;
        }
        if takes_all.is_some() {
            continue;
        }
        let mut twice = 0;
        for wanted in route.list("match") {
            let words = words(wanted.node);
            if let Some(before) = seen.get(&words) {
                twice += 1;
                wanted.warn(
                    report,
                    &format!("no request is matched by it: route {before} matches the same"),
                    "take it out",
                );
                continue;
            }
            seen.insert(words, index);
            if key == "http" {
                compare(Prefix::of(&wanted, index), &mut prefixes, report);
            }
        }
        if twice == route.count("match") {
            route.warn(
                report,
                "no request takes it: all that it matches is taken before",
                "take it out, or put it first",
            );
        }
    }
}

/// The match as a text, without its name.
fn words(wanted: &Node) -> String {
    let mut json = wanted.to_json();
    if let Some(map) = json.as_object_mut() {
        map.remove("name");
    }
    json.to_string()
}

fn compare<'n>(prefix: Option<Prefix<'n>>, before: &mut Vec<Prefix<'n>>, report: &mut Report<'_>) {
    let Some(prefix) = prefix.filter(|_| before.len() < MAX_COMPARED) else {
        return;
    };
    if let Some(wider) = before.iter().find(|wider| wider.covers(&prefix)) {
        prefix.at.warn(
            report,
            &format!(
                "no request is matched by it: route {} matches the prefix `{}`",
                wider.route, wider.prefix
            ),
            "put the longer prefix first",
        );
    }
    before.push(prefix);
}

/// A match by prefix, with what else it wants.
struct Prefix<'n> {
    at: At<'n>,
    route: usize,
    prefix: &'n str,
}

impl<'n> Prefix<'n> {
    fn of(wanted: &At<'n>, route: usize) -> Option<Self> {
        let prefix = wanted.get("uri")?.text("prefix");
        (!prefix.is_empty()).then(|| Self {
            at: wanted.clone(),
            route,
            prefix,
        })
    }

    /// Whether every request that the other one matches is matched by this one: Istio's comparison.
    fn covers(&self, other: &Self) -> bool {
        let maps = ["headers", "queryParams", "withoutHeaders"];
        other.prefix != self.prefix
            && other.prefix.starts_with(self.prefix)
            && self.at.whole("port").unwrap_or(0) == other.at.whole("port").unwrap_or(0)
            && self
                .one("method", "exact:GET")
                .starts_with(&other.one("method", "exact:GET"))
            && self.one("authority", "").starts_with(&other.one("authority", ""))
            && maps.iter().all(|map| self.same(other, map))
    }

    fn one(&self, key: &str, default: &str) -> String {
        let text = self.at.get(key).map(|at| form(&at)).unwrap_or_default();
        if text.is_empty() { default.to_owned() } else { text }
    }

    fn same(&self, other: &Self, map: &str) -> bool {
        let theirs: HashMap<&str, String> = other
            .at
            .map(map)
            .map(|(key, value)| (key.text.as_str(), form(&value)))
            .collect();
        self.at.map(map).count() == theirs.len()
            && self.at.map(map).all(|(key, value)| {
                let their = theirs.get(key.text.as_str());
                their.is_some_and(|their| form(&value).starts_with(their))
            })
    }
}

/// `exact:TEXT`, `prefix:TEXT`, or nothing.
fn form(at: &At<'_>) -> String {
    ["exact", "prefix"]
        .into_iter()
        .find(|key| !at.text(key).is_empty())
        .map(|key| format!("{key}:{}", at.text(key)))
        .unwrap_or_default()
}
