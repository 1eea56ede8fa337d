//! The canonical form of a path (semantics 3.3), one pass from left to right.

use std::borrow::Cow;

use super::{PathError, escape};

/// Whether [`canonicalize`] would return the path as it is; may say no where it would.
pub(super) fn is_canonical(path: &[u8]) -> bool {
    let mut before = 0;
    path.first() == Some(&b'/')
        && path.iter().all(|&b| {
            let plain = !(escaped(b) || b == b'%' || b == b'\\' || (before == b'/' && b == b'.'));
            before = b;
            plain
        })
}

/// Bytes that the canonical form writes as an escape.
pub(super) fn escaped(b: u8) -> bool {
    matches!(b, 0..=b' ' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x7f..)
}

fn unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'~')
}

fn is_slash(b: u8) -> bool {
    matches!(b, b'/' | b'\\')
}

/// `%2F` and `%5C` become what they stand for; nothing else changes.
pub(super) fn decode_slashes(path: &[u8]) -> Cow<'_, [u8]> {
    if !path.contains(&b'%') {
        return Cow::Borrowed(path);
    }
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&b, tail)) = rest.split_first() {
        match escape(rest) {
            Some(slash) if is_slash(slash) => {
                out.push(slash);
                rest = rest.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(b);
                rest = tail;
            }
        }
    }
    Cow::Owned(out)
}

/// # Errors
/// A NUL, raw or encoded.
pub(super) fn canonicalize(path: &[u8]) -> Result<Vec<u8>, PathError> {
    let mut out = Vec::with_capacity(path.len() + 8);
    // Where a `%` stands in `out` that began no escape.
    let mut bare = Vec::new();
    let mut rest = path;
    if !path.first().is_some_and(|b| is_slash(*b)) {
        out.push(b'/');
    }
    while let Some(&b) = rest.first() {
        if out.last() == Some(&b'/')
            && let Some((dots, length)) = dot_segment(rest)
        {
            if dots == 2 {
                pop(&mut out);
            }
            rest = rest.get(length..).unwrap_or_default();
            continue;
        }
        let mut length = 1;
        match (b, escape(rest)) {
            (b'\\', _) => out.push(b'/'),
            (0, _) | (_, Some(0)) => return Err(PathError::Nul),
            (_, Some(value)) => {
                length = 3;
                if unreserved(value) || value == b'.' {
                    out.push(value);
                } else {
                    out.extend_from_slice(rest.get(..3).unwrap_or_default());
                }
            }
            (b'%', None) => {
                bare.push(out.len());
                out.push(b);
            }
            _ if escaped(b) => push_escape(&mut out, b),
            _ => out.push(b),
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    guard_nested(&mut out, &bare);
    Ok(out)
}

/// A dot segment at the start: how many dots, and its length with the separator behind it.
///
/// Parameters are allowed behind raw dots only; N-131 and N-396 say so.
fn dot_segment(rest: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    let mut raw = true;
    for dots in 1..=2 {
        let tail = rest.get(length..)?;
        match (tail.first(), escape(tail)) {
            (Some(b'.'), _) => length += 1,
            (_, Some(b'.')) => {
                length += 3;
                raw = false;
            }
            _ => return None,
        }
        let tail = rest.get(length..)?;
        match tail.first() {
            None => return Some((dots, length)),
            Some(b) if is_slash(*b) => return Some((dots, length + 1)),
            Some(b';') if raw => {
                let parameters = tail.iter().position(|b| is_slash(*b));
                return Some((dots, parameters.map_or(rest.len(), |at| length + at + 1)));
            }
            Some(_) => {}
        }
    }
    None
}

/// Removes the last segment, but never the root.
fn pop(out: &mut Vec<u8>) {
    if out.len() > 1 {
        out.pop();
        let end = out.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
        out.truncate(end);
    }
}

fn push_escape(out: &mut Vec<u8>, b: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push(b'%');
    for digit in [b >> 4, b & 15] {
        out.extend(HEX.get(usize::from(digit)));
    }
}

/// A `%` that began no escape must not come to begin one because something behind it was decoded (N-132).
fn guard_nested(out: &mut Vec<u8>, bare: &[usize]) {
    for &at in bare.iter().rev() {
        let tail = out.get(at..).unwrap_or_default();
        if escape(tail).is_some() {
            let tail = out.split_off(at + 1);
            out.extend_from_slice(b"25");
            out.extend(tail);
        }
    }
}
