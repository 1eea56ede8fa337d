//! What a verified token says (semantics 2.7, 2.10, 4.4).

use crate::facts::{Claim, ClaimLookup};

use super::Bias;
use super::text::{Form, Texts};

/// The values of one claim.
#[derive(Debug)]
pub(crate) struct ClaimValues {
    path: Box<[String]>,
    texts: Texts,
    /// Whether numbers and booleans count by their JSON spelling (R25).
    scalars: bool,
}

impl ClaimValues {
    pub(crate) fn new(path: Vec<String>, texts: Texts, scalars: bool) -> Self {
        Self {
            path: path.into(),
            texts,
            scalars,
        }
    }

    pub(crate) fn matches(&self, claims: &dyn ClaimLookup, bias: Bias) -> bool {
        claims.any(&self.path, &mut |claim| match claim {
            Claim::Text(text) => self.texts.matches(text.as_bytes(), bias),
            Claim::Scalar(text) => self.scalars && self.texts.matches(text.as_bytes(), bias),
        })
    }
}

/// One value of `requestPrincipals`.
#[derive(Debug)]
struct RequestPrincipal {
    issuer: Box<str>,
    subject: Box<str>,
    /// The value as it stands, where a subject may hold slashes (R11).
    whole: Option<Box<str>>,
}

impl RequestPrincipal {
    /// Split at the last slash (RP-01 to RP-11).
    fn parse(value: &str, slashes: bool) -> Self {
        let (issuer, subject) = match value.rsplit_once('/') {
            Some(halves) => halves,
            None if value == "*" => ("*", "*"),
            None if value.starts_with('*') => ("*", value),
            None if value.ends_with('*') => (value, "*"),
            None => (value, ""),
        };
        Self {
            issuer: issuer.into(),
            subject: subject.into(),
            whole: (slashes && !value.starts_with('*')).then(|| value.into()),
        }
    }

    fn matches(&self, issuer: &str, subject: &str) -> bool {
        // The issuer is one that the mesh verifies tokens of, so that what follows it can only be the subject.
        let rest = || self.whole.as_deref()?.strip_prefix(issuer)?.strip_prefix('/');
        (Form::of(&self.issuer).matches(issuer) && Form::of(&self.subject).matches(subject))
            || rest().is_some_and(|rest| Form::of(rest).matches(subject))
    }
}

/// The values of `requestPrincipals`.
#[derive(Debug)]
pub(crate) struct RequestPrincipals {
    values: Box<[RequestPrincipal]>,
    issuer: [String; 1],
    subject: [String; 1],
}

impl RequestPrincipals {
    pub(crate) fn new<'a>(values: impl Iterator<Item = &'a str>, slashes: bool) -> Self {
        Self {
            values: values.map(|v| RequestPrincipal::parse(v, slashes)).collect(),
            issuer: ["iss".to_owned()],
            subject: ["sub".to_owned()],
        }
    }

    pub(crate) fn matches(&self, claims: &dyn ClaimLookup) -> bool {
        claims.any(&self.issuer, &mut |issuer| {
            let Claim::Text(issuer) = issuer else {
                return false;
            };
            claims.any(&self.subject, &mut |subject| match subject {
                Claim::Text(subject) => self.values.iter().any(|v| v.matches(issuer, subject)),
                Claim::Scalar(_) => false,
            })
        })
    }
}
