//! Objects, typed, with the tree that they were read from.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kinds::{Kind, Meta};
use crate::known::Class;
use crate::problem::{ObjectRef, Problem, Severity, Span};
use crate::yaml::Node;

/// Where an object starts.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The file as the user named it.
    pub file: String,
    /// The line from 1.
    pub line: u32,
    /// The column from 1.
    pub column: u32,
}

/// One object as a user wrote it.
#[derive(Clone, PartialEq, Debug)]
pub struct Object {
    /// `apiVersion`, as written.
    pub api_version: String,
    /// `kind`, as written.
    pub kind_name: String,
    /// The typed body.
    pub kind: Kind,
    /// Name, namespace, labels, annotations.
    pub meta: Meta,
    /// Where it starts.
    pub origin: Origin,
    /// What becomes of its kind.
    pub class: Class,
    /// The whole object, as Kubernetes would store it.
    pub json: Value,
    /// Why it cannot be accepted. Only security kinds are kept in spite of that: they deny what they target.
    /// The body then holds what could be read of the selector, and nothing else.
    pub invalid: Option<String>,
    /// Why the secure profile does not accept it (something in it can never match); Istio would take it.
    pub never_matches: Option<String>,
    /// The tree that it was read from, for the place of each field.
    pub tree: Arc<Node>,
}

impl Object {
    /// Its name.
    pub fn reference(&self) -> ObjectRef {
        ObjectRef {
            kind: self.kind_name.clone(),
            namespace: self.meta.namespace.clone(),
            name: self.meta.name.clone(),
        }
    }

    /// Why it is refused under a profile, if it is.
    pub fn refused(&self, profile: model::Profile) -> Option<&str> {
        let strict = match profile {
            model::Profile::Secure => self.never_matches.as_deref(),
            model::Profile::Istio => None,
        };
        self.invalid.as_deref().or(strict)
    }

    /// The place of a field as in `spec.rules[0].from`; of the nearest thing around it where it is not written.
    pub fn span(&self, path: &str) -> Span {
        self.tree.span_at(path)
    }

    /// A problem with this object, placed at a field (see [`Self::span`]).
    pub fn problem(&self, problem: Problem, path: &str) -> Problem {
        let span = self.span(path);
        Problem {
            object: Some(self.reference()),
            path: path.to_owned(),
            file: self.origin.file.clone(),
            line: span.line,
            column: span.column,
            length: span.length,
            ..problem
        }
    }
}

/// What a file held.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// The objects that may be used, and the security objects that may not (see [`Object::invalid`]).
    pub objects: Vec<Object>,
    /// The objects that were refused and left out, as far as they have a name.
    pub rejected: Vec<ObjectRef>,
    /// What is wrong, in the order of the text.
    pub problems: Vec<Problem>,
}

impl Parsed {
    /// Whether a problem is an error.
    pub fn has_errors(&self) -> bool {
        self.problems
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }
}
