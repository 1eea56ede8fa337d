//! Which roots there are and how far their rotation is: a value that is written down before anything is done by it. Pure.

use serde::{Deserialize, Serialize};

/// How many withdrawn roots are remembered.
const MAX_WITHDRAWN: usize = 16;

/// How far a rotation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Stage {
    /// There is one root, and no rotation.
    Steady,
    /// A new root is trusted beside the one that signs; nothing is signed by it.
    Distributing,
    /// The new root signs; the old one is trusted while certificates chain to it.
    Renewing,
}

impl Stage {
    /// Its word for people and machines.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Distributing => "distributing",
            Self::Renewing => "renewing",
        }
    }
}

/// What must outlive the process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) stage: Stage,
    /// The roots that are to be trusted, PEM each: the one that signs, then the other one of a rotation.
    pub(crate) roots: Vec<String>,
    /// When the stage began, Unix seconds.
    pub(crate) since: i64,
    /// While renewing: when the last certificate ends that can chain to the old root.
    #[serde(default)]
    pub(crate) old_leaves_end: Option<i64>,
    /// The longest lifetime of certificates that this CA was ever set to, seconds.
    pub(crate) longest_leaf_s: i64,
    /// Fingerprints of roots that were withdrawn, the newest last.
    #[serde(default)]
    pub(crate) withdrawn: Vec<String>,
}

impl State {
    /// One root.
    pub(crate) fn steady(root: String, longest_leaf_s: i64, now: i64) -> Self {
        Self {
            stage: Stage::Steady,
            roots: vec![root],
            since: now,
            old_leaves_end: None,
            longest_leaf_s,
            withdrawn: Vec::new(),
        }
    }

    /// The root that signs, PEM.
    pub(crate) fn signing(&self) -> Option<&String> {
        self.roots.first()
    }

    /// The other root of a rotation: the next one while distributing, the old one while renewing.
    pub(crate) fn other(&self) -> Option<&String> {
        self.roots.get(1)
    }

    /// Whether it is one that can be: a rotation has two roots, its absence one.
    pub(crate) fn is_sound(&self) -> bool {
        let roots = match self.stage {
            Stage::Steady => 1,
            Stage::Distributing | Stage::Renewing => 2,
        };
        self.roots.len() == roots && (self.stage == Stage::Renewing) == self.old_leaves_end.is_some()
    }

    /// What is to be trusted, PEM, the root that signs first.
    pub(crate) fn bundle(&self) -> String {
        let end = |root: &String| if root.ends_with('\n') { "" } else { "\n" };
        self.roots
            .iter()
            .map(|root| format!("{root}{}", end(root)))
            .collect()
    }

    /// A new root is trusted beside the one there is.
    pub(crate) fn begun(&self, next: String, now: i64) -> Self {
        let mut state = self.clone();
        state.stage = Stage::Distributing;
        state.roots.truncate(1);
        state.roots.push(next);
        state.since = now;
        state
    }

    /// The new root signs.
    pub(crate) fn switched(&self, now: i64) -> Self {
        let mut state = self.clone();
        state.stage = Stage::Renewing;
        state.roots.reverse();
        state.since = now;
        state.old_leaves_end = Some(now.saturating_add(self.longest_leaf_s));
        state
    }

    /// The old root, of this fingerprint, is not trusted any more.
    pub(crate) fn ended(&self, old: String, now: i64) -> Self {
        let mut state = self.clone();
        state.stage = Stage::Steady;
        state.roots.truncate(1);
        state.since = now;
        state.old_leaves_end = None;
        state.withdrawn.push(old);
        let over = state.withdrawn.len().saturating_sub(MAX_WITHDRAWN);
        state.withdrawn.drain(..over);
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_that_signs_is_the_first_of_the_bundle_in_every_stage() {
        let steady = State::steady("A".to_owned(), 60, 1000);
        let begun = steady.begun("B\n".to_owned(), 1010);
        let switched = begun.switched(1020);
        let ended = switched.ended("a".to_owned(), 1030);
        let bundles = [&steady, &begun, &switched, &ended].map(State::bundle);
        assert_eq!(bundles, ["A\n", "A\nB\n", "B\nA\n", "B\n"]);
        assert!([&steady, &begun, &switched, &ended].iter().all(|s| s.is_sound()));
        assert_eq!(switched.old_leaves_end, Some(1080));
        assert_eq!((ended.stage, ended.old_leaves_end), (Stage::Steady, None));
        assert_eq!(ended.withdrawn, ["a"]);
    }

    #[test]
    fn what_cannot_be_is_not_sound() {
        let steady = State::steady("A".to_owned(), 60, 1000);
        let mut half = steady.begun("B".to_owned(), 1010);
        half.roots.truncate(1);
        assert!(!half.is_sound());
        let mut endless = steady.begun("B".to_owned(), 1010).switched(1020);
        endless.old_leaves_end = None;
        assert!(!endless.is_sound());
    }

    #[test]
    fn withdrawn_roots_are_remembered_up_to_a_bound() {
        let mut state = State::steady("A".to_owned(), 60, 0);
        for n in 0..40 {
            state = state.begun("B".to_owned(), n).switched(n).ended(n.to_string(), n);
        }
        assert_eq!(state.withdrawn.len(), MAX_WITHDRAWN);
        assert_eq!(state.withdrawn.last().unwrap(), "39");
    }
}
