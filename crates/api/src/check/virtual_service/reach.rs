//! Routes that no request ever takes, because those before them take all. Warnings alone.

use std::collections::HashMap;

use crate::check::at::At;
use crate::report::Report;
use crate::yaml::Node;

/// How many matches by prefix are compared with each other, so that a list costs what its length costs.
const MAX_COMPARED: usize = 100;

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
            if key == "http" && prefixes.len() < MAX_COMPARED {
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
    let Some(prefix) = prefix else {
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
    port: i64,
    method: String,
    authority: String,
    maps: [HashMap<&'n str, String>; 3],
}

impl<'n> Prefix<'n> {
    fn of(wanted: &At<'n>, route: usize) -> Option<Self> {
        let prefix = wanted.get("uri")?.text("prefix");
        if prefix.is_empty() {
            return None;
        }
        let one = |key: &str| wanted.get(key).map(|at| form(&at)).unwrap_or_default();
        let method = Some(one("method")).filter(|method| !method.is_empty());
        Some(Self {
            at: wanted.clone(),
            route,
            prefix,
            port: wanted.whole("port").unwrap_or(0),
            method: method.unwrap_or_else(|| "exact:GET".to_owned()),
            authority: one("authority"),
            maps: ["headers", "queryParams", "withoutHeaders"].map(|map| {
                let entries = wanted.map(map);
                entries
                    .map(|(key, value)| (key.text.as_str(), form(&value)))
                    .collect()
            }),
        })
    }

    /// Whether every request that the other one matches is matched by this one: Istio's comparison.
    fn covers(&self, other: &Self) -> bool {
        other.prefix != self.prefix
            && other.prefix.starts_with(self.prefix)
            && self.port == other.port
            && self.method.starts_with(&other.method)
            && self.authority.starts_with(&other.authority)
            && self.maps.iter().zip(&other.maps).all(|(ours, theirs)| {
                let wider = |(key, form): (&&str, &String)| {
                    let their = theirs.get(key);
                    their.is_some_and(|their| form.starts_with(their))
                };
                ours.len() == theirs.len() && ours.iter().all(wider)
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
