//! What else a backend may make of a normalised path (semantics 3.5, 3.6 OURS).
//!
//! A decision that holds for one reading only is none: a DENY refuses on every reading, an ALLOW must admit all.

use super::canonical::{canonicalize, decode_slashes};
use super::{escape, merge_slashes, split_query};

/// How often an escape of an escape is decoded.
const DECODE_DEPTH: usize = 3;

/// The other readings of a target, without that of the target itself; no memory is taken where there are none.
///
/// A backend may decode slashes, decode twice, drop `;parameters`, resolve the dot segments that these leave, and
/// merge slashes.
pub fn readings(target: &str) -> Vec<String> {
    let (path, query) = split_query(target.as_bytes());
    if !is_ambiguous(path) {
        return Vec::new();
    }
    let once = |path: &[u8]| decode_slashes(path).into_owned();
    let mut nested = path.to_vec();
    for _ in 0..DECODE_DEPTH {
        nested = once(&unescape_percent(&nested));
    }
    let mut candidates = vec![path.to_vec(), once(path), nested];
    for at in 0..candidates.len() {
        let stripped = candidates.get(at).map(|path| strip_parameters(path));
        candidates.extend(stripped.into_iter().flatten());
    }
    let mut readings: Vec<String> = Vec::new();
    // Some merge slashes before they resolve dot segments, most after: of `/a//../b` they make different paths.
    let merged: Vec<Vec<u8>> = candidates.iter().map(|c| merge_slashes(c).into_owned()).collect();
    candidates.extend(merged);
    for candidate in candidates {
        let Ok(resolved) = settle(candidate) else {
            continue;
        };
        let Ok(reading) = String::from_utf8([&resolved, query].concat()) else {
            continue;
        };
        if reading != target && !readings.contains(&reading) {
            readings.push(reading);
        }
    }
    readings
}

/// Canonical form again and again until it stays, then merged slashes, of which a path alone keeps one.
pub(super) fn settle(mut path: Vec<u8>) -> Result<Vec<u8>, super::PathError> {
    for _ in 0..DECODE_DEPTH {
        let next = canonicalize(&path)?;
        if next == path {
            break;
        }
        path = next;
    }
    let merged = merge_slashes(&path).into_owned();
    Ok(if merged == b"//" { b"/".to_vec() } else { merged })
}

/// Whether there may be another reading: slashes that are encoded, turned or doubled, parameters, dot segments,
/// escapes of escapes.
fn is_ambiguous(path: &[u8]) -> bool {
    let mut before = 0;
    let mut rest = path;
    while let Some((&b, tail)) = rest.split_first() {
        match b {
            b';' | b'\\' => return true,
            b'/' if before == b'/' => return true,
            b'.' if before == b'/' && is_dots(tail) => return true,
            b'%' if matches!(escape(rest), None | Some(b'/' | b'\\' | b'.' | b';')) => return true,
            b'%' if nested(rest) => return true,
            _ => {}
        }
        before = b;
        rest = tail;
    }
    false
}

/// Whether what follows the first dot of a segment makes it a dot segment.
fn is_dots(tail: &[u8]) -> bool {
    let tail = tail.strip_prefix(b".").unwrap_or(tail);
    matches!(tail.first(), None | Some(b'/' | b'%'))
}

/// Whether the escape of a `%` stands before two hex digits.
fn nested(rest: &[u8]) -> bool {
    let inner = rest.get(2..).unwrap_or_default();
    escape(rest) == Some(b'%')
        && matches!(inner, [_, a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
}

/// `%25` becomes `%` where that makes an escape.
fn unescape_percent(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&b, tail)) = rest.split_first() {
        out.push(b);
        rest = match nested(rest) {
            true => rest.get(3..).unwrap_or_default(),
            false => tail,
        };
    }
    out
}

/// The path without the parameters of its segments, as those read it who drop them before decoding and those who decode
/// first, who take `\` for a slash and who do not. Only what differs from the path.
pub(super) fn strip_parameters(path: &[u8]) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    for (encoded, backslash) in [(false, true), (true, true), (false, false), (true, false)] {
        let stripped = strip(path, encoded, backslash);
        if stripped != path && !found.contains(&stripped) {
            found.push(stripped);
        }
    }
    found
}

/// `encoded` says whether `%3B` begins parameters too, `backslash` whether `\` ends a segment.
fn strip(path: &[u8], encoded: bool, backslash: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut inside = false;
    let mut rest = path;
    while let Some((&b, tail)) = rest.split_first() {
        match b {
            b'/' => inside = false,
            b'\\' if backslash => inside = false,
            b';' => inside = true,
            b'%' if encoded && escape(rest) == Some(b';') => inside = true,
            _ => {}
        }
        if !inside {
            out.push(b);
        }
        rest = tail;
    }
    out
}

#[cfg(test)]
mod tests;
