//! Paths in policies: whether a request can have them (semantics 3.6 point 5, R50).

use super::field::Env;
use crate::matchers::{Form, is_template};
use crate::path::normalize;

/// Paths are compared in the mesh's normal form, and policies as they are written: upstream, a DENY of `/a//b` or
/// `/%61dmin` never matches and opens.
///
/// `query` says whether the value may have one, as those of `request.headers[:path]`.
///
/// # Errors
/// Secure: a sentence why no path matches the value.
pub(super) fn reachable(value: &str, query: bool, env: &Env<'_>) -> Result<(), String> {
    if !env.secure() {
        return Ok(());
    }
    if value.contains('#') || (!query && value.contains('?')) {
        return Err(format!(
            "path `{value}` never matches: paths are compared without {}",
            if query { "fragment" } else { "query and fragment" }
        ));
    }
    let Some(sample) = sample(value) else {
        return Ok(());
    };
    match normalize(sample.as_bytes(), env.paths) {
        Ok(normal) if normal == sample => Ok(()),
        Ok(normal) => Err(format!(
            "path `{value}` never matches: paths are compared in normal form, in which `{sample}` is `{normal}`"
        )),
        Err(why) => Err(format!("path `{value}` never matches: {why}")),
    }
}

/// A path that the value matches if it matches any in normal form; `None` where it matches all.
fn sample(value: &str) -> Option<String> {
    if is_template(value) {
        return Some(value.replace("{**}", "x").replace("{*}", "x"));
    }
    match Form::of(value) {
        Form::Presence => None,
        Form::Exact(text) => Some(text.to_owned()),
        Form::Prefix(text) => Some(format!("{text}x")),
        Form::Suffix(text) => Some(format!("/x{text}")),
    }
}
