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

    /// Where the claim is found.
    pub(crate) fn path(&self) -> &[String] {
        &self.path
    }

    pub(crate) fn texts(&self) -> &Texts {
        &self.texts
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
    value: Box<str>,
    /// Where a subject may hold slashes (R11).
    slashes: bool,
}

impl RequestPrincipal {
    /// Issuer and subject: split at the last slash, and of the two only the end that has the star is a pattern, so that
    /// `*/*` asks for the subject `*` (RP-01 to RP-11).
    fn halves(&self) -> (Form<'_>, Form<'_>) {
        let value = &*self.value;
        match value.rsplit_once('/') {
            Some((issuer, subject)) if value.starts_with('*') => (Form::of(issuer), Form::Exact(subject)),
            Some((issuer, subject)) => (Form::Exact(issuer), Form::of(subject)),
            None if value == "*" => (Form::Presence, Form::Presence),
            None if value.starts_with('*') => (Form::Presence, Form::of(value)),
            None if value.ends_with('*') => (Form::of(value), Form::Presence),
            None => (Form::Exact(value), Form::Exact("")),
        }
    }

    fn matches(&self, issuer: &str, subject: &str) -> bool {
        // The issuer is one that the mesh verifies tokens of, so that what follows it can only be the subject.
        let rest = || self.value.strip_prefix(issuer)?.strip_prefix('/');
        let (of_issuer, of_subject) = self.halves();
        (of_issuer.matches(issuer) && of_subject.matches(subject))
            || (self.slashes && rest().is_some_and(|rest| Form::of(rest).matches(subject)))
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
            values: values
                .map(|value| RequestPrincipal {
                    value: value.into(),
                    slashes,
                })
                .collect(),
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
