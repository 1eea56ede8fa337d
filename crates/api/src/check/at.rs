//! A place in an object: a node and the path to it, with what is wrong there said in one shape.

use crate::forms::Verdict;
use crate::report::{Report, join};
use crate::yaml::{Key, Node};

/// A node and its path.
#[derive(Clone)]
pub(super) struct At<'n> {
    pub(super) node: &'n Node,
    pub(super) path: String,
}

impl<'n> At<'n> {
    pub(super) fn new(node: &'n Node, path: impl Into<String>) -> Self {
        Self {
            node,
            path: path.into(),
        }
    }

    /// What lies below a key, if it is there and not null.
    pub(super) fn get(&self, key: &str) -> Option<Self> {
        Some(Self::new(self.node.set(key)?, join(&self.path, key)))
    }

    /// What lies below a key, or the place itself where there is no such thing: for messages.
    pub(super) fn near(&self, key: &str) -> Self {
        self.get(key).unwrap_or_else(|| self.clone())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.node.set(key).is_some()
    }

    /// The items of the list below a key; of those that are null the schema tells.
    pub(super) fn list(&self, key: &str) -> impl Iterator<Item = Self> + use<'n> {
        let path = join(&self.path, key);
        let items = self.node.child(key).map(Node::items).unwrap_or_default();
        items
            .iter()
            .enumerate()
            .filter(|(_, node)| !node.is_null())
            .map(move |(index, node)| Self::new(node, format!("{path}[{index}]")))
    }

    /// How many items the list below a key has.
    pub(super) fn count(&self, key: &str) -> usize {
        self.node.child(key).map_or(0, |node| node.items().len())
    }

    /// The entries of the map below a key.
    pub(super) fn map(&self, key: &str) -> impl Iterator<Item = (&'n Key, Self)> + use<'n> {
        let path = join(&self.path, key);
        let entries = self.node.child(key).map(Node::entries).unwrap_or_default();
        entries
            .iter()
            .map(move |(key, node)| (key, Self::new(node, join(&path, &key.text))))
    }

    /// The text below a key; empty where there is none.
    pub(super) fn text(&self, key: &str) -> &'n str {
        self.node.child(key).and_then(Node::text).unwrap_or_default()
    }

    /// The text here; empty where it is none.
    pub(super) fn own(&self) -> &'n str {
        self.node.text().unwrap_or_default()
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.node.child(key).and_then(Node::flag) == Some(true)
    }

    pub(super) fn whole(&self, key: &str) -> Option<i64> {
        self.node.child(key)?.whole()
    }

    pub(super) fn real(&self, key: &str) -> Option<f64> {
        self.node.child(key)?.real()
    }

    /// An error here.
    pub(super) fn refuse(&self, report: &mut Report<'_>, why: &str, remedy: &str) {
        report
            .error("MW0230", self.node.span, format!("`{}`: {why}", self.path))
            .path(&self.path)
            .value(self.node.written().unwrap_or_default())
            .remedy(remedy);
    }

    /// An error here that does not show what stands here.
    pub(super) fn refuse_secret(&self, report: &mut Report<'_>, why: &str, remedy: &str) {
        report
            .error("MW0230", self.node.span, format!("`{}`: {why}", self.path))
            .path(&self.path)
            .remedy(remedy);
    }

    /// An error here that leaves the object as it is, by its own code.
    pub(super) fn refuse_part(&self, report: &mut Report<'_>, why: &str, remedy: &str) {
        report
            .error("MW0115", self.node.span, format!("`{}`: {why}", self.path))
            .path(&self.path)
            .value(self.node.written().unwrap_or_default())
            .remedy(remedy);
    }

    /// A warning here.
    pub(super) fn warn(&self, report: &mut Report<'_>, why: &str, remedy: &str) {
        report
            .warning("MW0231", self.node.span, format!("`{}`: {why}", self.path))
            .path(&self.path)
            .value(self.node.written().unwrap_or_default())
            .remedy(remedy);
    }

    /// An error here at a key of the map.
    pub(super) fn refuse_key(&self, report: &mut Report<'_>, key: &Key, why: &str, remedy: &str) {
        report
            .error("MW0230", key.span, format!("`{}`: {why}", self.path))
            .path(&self.path)
            .value(&key.text)
            .remedy(remedy);
    }

    /// An error where the verdict says so.
    pub(super) fn demand(&self, report: &mut Report<'_>, verdict: Verdict, remedy: &str) {
        if let Err(why) = verdict {
            self.refuse(report, &why, remedy);
        }
    }

    /// An error for the text below a key that is there and not empty, where the verdict says so.
    pub(super) fn demand_text(
        &self,
        report: &mut Report<'_>,
        key: &str,
        verdict: fn(&str) -> Verdict,
        remedy: &str,
    ) {
        if let Some(at) = self.get(key)
            && !at.own().is_empty()
        {
            at.demand(report, verdict(at.own()), remedy);
        }
    }

    /// An error for the number below a key that is there, where it is no port.
    pub(super) fn demand_port(&self, report: &mut Report<'_>, key: &str) {
        if let Some(at) = self.get(key)
            && let Some(number) = at.node.whole()
        {
            at.demand(
                report,
                crate::forms::addresses::port(number),
                "write the number of a port",
            );
        }
    }

    /// An error for the number below a key that is there and negative.
    pub(super) fn demand_not_negative(&self, report: &mut Report<'_>, key: &str) {
        if self.whole(key).is_some_and(|number| number < 0) {
            let at = self.near(key);
            at.refuse(
                report,
                "it cannot be negative",
                "write 0 or more, or leave it out",
            );
        }
    }
}
