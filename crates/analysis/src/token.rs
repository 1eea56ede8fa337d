//! The one place where the tokens of a question become the claims that rules see: by the very function that a proxy
//! verifies them with.

use std::sync::Arc;

use jwt::{Edits, Fault, Memory, ProblemKind, Rejection, RequestView};
use policy::{ClaimLookup, HeaderLookup};
use serde_json::Value;

use crate::facts::{Claims, Fields};
use crate::known::Found;
use crate::question::Question;

/// What the tokens of a question prove.
pub(crate) enum Proof<'q> {
    /// There is none, or the workload asks for none.
    Nothing,
    /// Given as such.
    Given(Claims<'q>),
    /// Of a token.
    Verified(Arc<jwt::Claims>),
}

impl Proof<'_> {
    pub(crate) fn lookup(&self) -> Option<&dyn ClaimLookup> {
        match self {
            Self::Nothing => None,
            Self::Given(claims) => Some(claims),
            Self::Verified(claims) => Some(&**claims),
        }
    }

    pub(crate) fn said(&self, shown: bool) -> String {
        match self {
            Self::Nothing if shown => {
                "nobody reads the token: no RequestAuthentication of the workload does".to_owned()
            }
            Self::Nothing => "no token".to_owned(),
            Self::Given(_) => "a verified token with the claims that were given".to_owned(),
            Self::Verified(claims) => format!("a verified token of `{}`", claims.issuer()),
        }
    }
}

/// Why there is no proof.
pub(crate) enum NoProof {
    /// The proxy refuses the request.
    Refused(Box<Rejection>),
    /// It cannot be judged here: a sentence. The answer is then unknown, never a guess.
    Unknown(String),
}

/// A request before its tokens were looked at.
pub(crate) struct Arrived<'a, 'q> {
    pub(crate) question: &'q Question<'q>,
    pub(crate) method: &'a str,
    /// Normalised, with its query.
    pub(crate) path: &'a str,
    pub(crate) host: &'a str,
    pub(crate) fields: &'a Fields<'a>,
}

impl RequestView for Arrived<'_, '_> {
    fn method(&self) -> &str {
        self.method
    }

    fn path(&self) -> &str {
        self.path
    }

    fn authority(&self) -> &str {
        self.host
    }

    fn header(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let token = self.question.token.as_ref().filter(|_| name == "authorization");
        token.is_some_and(|token| visit(format!("Bearer {}", &**token).as_bytes()))
            || self.fields.any(name, visit)
    }
}

/// What the request's tokens prove, and what they change in it.
pub(crate) fn prove<'q>(found: &Found, request: &Arrived<'_, 'q>) -> Result<(Proof<'q>, Edits), NoProof> {
    let nothing = |proof| Ok((proof, Edits::default()));
    if let Some(claims) = &request.question.claims {
        return nothing(Proof::Given(Claims(claims as &Value)));
    }
    let Some(by) = found.authentication.as_deref().map(|by| by.authenticator()) else {
        return nothing(Proof::Nothing);
    };
    if by.is_empty() {
        return nothing(Proof::Nothing);
    }
    let now = request.question.time;
    // Only a token needs to know when it is.
    match by.authenticate(request, now.unwrap_or_default(), &Memory::default()) {
        Ok(found) => match (found.claims, now) {
            (Some(_), None) => Err(NoProof::Unknown(
                "when the token is shown is not known: give `time`".to_owned(),
            )),
            (Some(claims), Some(_)) => Ok((Proof::Verified(claims), found.edits)),
            (None, _) => Ok((Proof::Nothing, found.edits)),
        },
        Err(rejection) => {
            let keyless =
                |problem: &&jwt::Problem| problem.kind == ProblemKind::NoKeys && problem.source.is_some();
            let missing = by.problems().iter().find(keyless);
            match missing.filter(|_| rejection.fault == Some(Fault::Verification)) {
                Some(problem) => Err(NoProof::Unknown(format!(
                    "the keys of `{}` are not known here, so that the token is not verified: give its `claims`",
                    problem.issuer
                ))),
                // That there is no token is so at any time.
                None if now.is_none() && rejection.fault.is_some_and(|fault| fault != Fault::Missing) => Err(
                    NoProof::Unknown("when the token is shown is not known: give `time`".to_owned()),
                ),
                None => Err(NoProof::Refused(Box::new(rejection))),
            }
        }
    }
}
