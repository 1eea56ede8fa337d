//! The strict profile (semantics 3.6).

use super::{PathError, cut_fragment, escape, split_query};

/// The strict profile, judged on the raw target: refuses what backends are known to read in more than one way.
///
/// The query may hold any ASCII text; what is judged of it is only that no codec would refuse it.
///
/// # Errors
/// What is ambiguous: answer 400.
pub fn strict_check(raw: &[u8]) -> Result<(), PathError> {
    if raw.contains(&0) {
        return Err(PathError::Nul);
    }
    if !raw.iter().all(u8::is_ascii_graphic) {
        return Err(PathError::NotAscii);
    }
    let (path, _) = split_query(cut_fragment(raw));
    let mut rest = path;
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        if b == b'\\' {
            return Err(PathError::Slash);
        }
        if b == b'%' {
            check_escape(tail)?;
            rest = tail.get(2..).unwrap_or_default();
        }
    }
    if path.split(|b| *b == b'/').any(is_dot_segment) {
        return Err(PathError::DotSegment);
    }
    Ok(())
}

/// `after` is what follows a `%`.
fn check_escape(after: &[u8]) -> Result<(), PathError> {
    let digits = after.get(..2).ok_or(PathError::Percent)?;
    let value = |digits: &[u8]| escape(&[b"%", digits].concat());
    match value(digits) {
        None => Err(PathError::Percent),
        Some(0) => Err(PathError::Nul),
        Some(b'/' | b'\\') => Err(PathError::Slash),
        // `%25` that makes an escape with what follows, encoded digits included.
        Some(b'%') if nested(after.get(2..).unwrap_or_default()) => Err(PathError::Percent),
        // Overlong UTF-8: some decoders make ASCII of it (N-018, N-032).
        Some(0xc0 | 0xc1) => Err(PathError::Percent),
        Some(_) => Ok(()),
    }
}

/// Whether two hex digits follow, each raw or encoded.
fn nested(mut rest: &[u8]) -> bool {
    for _ in 0..2 {
        let (digit, length) = match (escape(rest), rest.first()) {
            (Some(value), _) => (value, 3),
            (None, Some(raw)) => (*raw, 1),
            (None, None) => return false,
        };
        if !digit.is_ascii_hexdigit() {
            return false;
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    true
}

/// `.` or `..`, each dot plain or encoded, alone or with `;` parameters, whose `;` may be encoded too.
fn is_dot_segment(segment: &[u8]) -> bool {
    let mut rest = segment;
    let mut dots = 0;
    loop {
        match (escape(rest), rest.first()) {
            (Some(b'.'), _) => rest = rest.get(3..).unwrap_or_default(),
            (None, Some(b'.')) => rest = rest.get(1..).unwrap_or_default(),
            (Some(b';'), _) | (None, None | Some(b';')) => return (1..=2).contains(&dots),
            _ => return false,
        }
        dots += 1;
    }
}
