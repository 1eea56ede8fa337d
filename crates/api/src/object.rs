//! Objects, typed, and how a file becomes some.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::known::Class;
use crate::problem::{ObjectRef, Problem};
use crate::yaml::{Node, Span};
use crate::{
    AuthorizationPolicy, ConfigMap, DestinationRule, EndpointSlice, Endpoints, Job, MeshConfig, Namespace,
    PeerAuthentication, Pod, RequestAuthentication, Secret, Service, ServiceAccount, Workload,
};

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

/// `metadata`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// The name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The namespace; `default` where a kind that has one was written without, empty for kinds without one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Its identity over time, where somebody gave it one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// When it was first seen, in milliseconds since 1970; the holder sets it where the text does not say.
    #[serde(
        rename = "creationTimestamp",
        with = "creation",
        skip_serializing_if = "Option::is_none"
    )]
    pub creation: Option<u64>,
    /// Who made it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
}

/// `metadata.ownerReferences[]`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are Kubernetes', name by name")]
pub struct OwnerReference {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub controller: Option<bool>,
}

/// The typed bodies of the kinds that are acted on.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "the variants are the kinds")]
pub enum Kind {
    Namespace(Namespace),
    Pod(Box<Pod>),
    Deployment(Box<Workload>),
    StatefulSet(Box<Workload>),
    DaemonSet(Box<Workload>),
    Job(Box<Job>),
    Service(Box<Service>),
    ServiceAccount(ServiceAccount),
    Endpoints(Endpoints),
    EndpointSlice(EndpointSlice),
    /// ConfigMap; with the mesh configuration where it is `istio-system/istio` and that could be read.
    ConfigMap(ConfigMap, Option<Box<MeshConfig>>),
    Secret(Secret),
    PeerAuthentication(PeerAuthentication),
    AuthorizationPolicy(Box<AuthorizationPolicy>),
    RequestAuthentication(Box<RequestAuthentication>),
    DestinationRule(Box<DestinationRule>),
    /// A kind without a body of its own here: [`Object::json`] has all there is, [`Object::class`] says what becomes of it.
    Other,
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
            .any(|problem| problem.severity == crate::Severity::Error)
    }
}

/// Reads a file: YAML (several documents, `List` kinds) or JSON. Never panics; work is bounded by
/// [`MAX_BYTES`](crate::MAX_BYTES), [`MAX_DEPTH`](crate::MAX_DEPTH) and [`MAX_NODES`](crate::MAX_NODES).
pub fn parse(file: &str, text: &[u8]) -> Parsed {
    crate::read::file(file, text)
}

mod creation {
    //! `creationTimestamp`: RFC 3339 outside, milliseconds inside.

    use serde::{Deserialize, Deserializer, Serializer};
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(value: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        let text = value.and_then(|ms| {
            let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()?;
            at.format(&Rfc3339).ok()
        });
        match text {
            Some(text) => to.serialize_some(&text),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        let at = OffsetDateTime::parse(&text, &Rfc3339).map_err(serde::de::Error::custom)?;
        Ok(u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok())
    }
}
