//! The one place where a token becomes the claims that rules see.

use serde_json::Value;

use crate::question::Question;

/// The claims of the request's token; `None` where it carries none.
///
/// # Errors
/// The token cannot be judged here: a sentence. The answer is then unknown, never a guess.
pub(crate) fn claims<'q>(question: &'q Question<'_>) -> Result<Option<&'q Value>, &'static str> {
    match (&question.claims, &question.token) {
        (Some(claims), _) => Ok(Some(claims)),
        (None, None) => Ok(None),
        (None, Some(_)) => {
            Err("the token is not verified here, so that its claims are not known: give `claims`")
        }
    }
}
