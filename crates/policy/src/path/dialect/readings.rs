//! What a backend of some dialect may make of a path.

use super::Dialect;
use crate::path::canonical::escaped;
use crate::path::readings::{settle, strip_parameters};
use crate::path::{escape, merge_slashes, split_query};

/// How many readings of one path are judged, the path itself among them. One that has more is refused.
const MAX_READINGS: usize = 32;

/// Why what a backend reads cannot be judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unreadable {
    /// More than [`MAX_READINGS`].
    TooMany,
    /// A NUL comes out, where some backends end the path.
    Nul,
}

/// The readings of a target beside itself: each step of the dialect, in any order, and each left out, since it is not known
/// in which order a backend takes them. Case is not folded here.
///
/// # Errors
/// The request is refused.
pub(crate) fn readings(target: &str, dialect: Dialect) -> Result<Vec<String>, Unreadable> {
    let (path, query) = split_query(target.as_bytes());
    // Each with the number of decodings that may follow.
    let mut found = vec![(path.to_vec(), dialect.decode)];
    let mut at = 0;
    while let Some((path, left)) = found.get(at).cloned() {
        at += 1;
        for next in steps(&path, left, dialect)? {
            if !found.contains(&next) {
                if found.len() == MAX_READINGS {
                    return Err(Unreadable::TooMany);
                }
                found.push(next);
            }
        }
    }
    let mut readings: Vec<String> = Vec::new();
    for (path, _) in found {
        let reading = String::from_utf8_lossy(&[&path, query].concat()).into_owned();
        if reading != target && !readings.contains(&reading) {
            readings.push(reading);
        }
    }
    Ok(readings)
}

fn steps(path: &[u8], left: u8, dialect: Dialect) -> Result<Vec<(Vec<u8>, u8)>, Unreadable> {
    let mut next = Vec::new();
    if dialect.strip_params {
        next.extend(strip_parameters(path).into_iter().map(|path| (path, left)));
    }
    if let Some(left) = left.checked_sub(1) {
        next.push((decode(path)?, left));
    }
    if dialect.decode > 0 && path.contains(&b'\\') {
        let turned = path.iter().map(|b| if *b == b'\\' { b'/' } else { *b });
        next.push((turned.collect(), left));
    }
    if dialect.collapse {
        // Some merge slashes before they resolve dot segments, some after: of `/a//../b` they make different paths.
        next.push((merge_slashes(path).into_owned(), left));
        next.push((settle(path.to_vec()).map_err(|_| Unreadable::Nul)?, left));
    }
    next.retain(|(reading, _)| reading != path);
    Ok(next)
}

/// Decodes every escape once. What a path in normal form cannot hold stays as it is typed, so that policies name it so; an
/// escaped `?` or `#` does not end the path (semantics 3.6 point 6).
fn decode(path: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let mut out = Vec::with_capacity(path.len());
    let mut percents = Vec::new();
    let mut rest = path;
    while let Some((&b, tail)) = rest.split_first() {
        let value = escape(rest);
        match value {
            Some(0) => return Err(Unreadable::Nul),
            Some(b'%') => {
                percents.push(out.len());
                out.push(b'%');
            }
            Some(value) if !escaped(value) && !matches!(value, b'?' | b'#') => out.push(value),
            Some(_) => out.extend_from_slice(rest.get(..3).unwrap_or_default()),
            None => out.push(b),
        }
        rest = match value {
            Some(_) => rest.get(3..).unwrap_or_default(),
            None => tail,
        };
    }
    // A `%` that begins no escape is written as one, as in normal form.
    for at in percents.into_iter().rev() {
        if escape(out.get(at..).unwrap_or_default()).is_none() {
            out.splice(at + 1..at + 1, *b"25");
        }
    }
    Ok(out)
}
