//! Paths: normalisation as the mesh's mode says, and the strict profile (semantics 3).

mod canonical;
mod dialect;
mod readings;
mod strict;

use std::borrow::Cow;

pub(crate) use dialect::readings as dialect_readings;
pub use dialect::{Dialect, DialectError, Dialects, MAX_DECODE};
pub(crate) use readings::readings;
pub use strict::strict_check;

/// `meshConfig.pathNormalization.normalization`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Mode {
    /// Only the fragment is cut.
    None,
    /// RFC 3986 canonical form.
    #[default]
    Base,
    /// And runs of slashes become one.
    MergeSlashes,
    /// And encoded slashes and backslashes are decoded first.
    DecodeAndMergeSlashes,
}

/// Why a path is refused; the answer is 400 and nothing is contacted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum PathError {
    /// A NUL, raw or encoded.
    #[error("the path holds a NUL byte")]
    Nul,
    /// Bytes that no HTTP codec lets through: controls, spaces and what is not ASCII, where they cannot be escaped.
    #[error("the path is not ASCII text")]
    NotAscii,
    /// Strict: `%2F`, `%5C` or a raw backslash.
    #[error("the path holds an encoded slash or a backslash")]
    Slash,
    /// Strict: `.` or `..` segments, plain, encoded or with parameters.
    #[error("the path holds a dot segment")]
    DotSegment,
    /// Strict: `%` without two hex digits, or an escape of an escape.
    #[error("the path holds a malformed or nested percent escape")]
    Percent,
}

/// Brings a request target (path and query) into the form that routing, decisions and the backend see.
///
/// Each step runs once: the fragment is cut, slashes decoded, the path brought into canonical form, slashes merged,
/// as far as the mode asks for it. The query keeps its spelling. Nothing is copied where nothing changes.
///
/// # Errors
/// The path cannot be brought into the form: answer 400.
pub fn normalize(raw: &[u8], mode: Mode) -> Result<Cow<'_, str>, PathError> {
    let target = cut_fragment(raw);
    let (path, query) = split_query(target);
    let canonical = match mode {
        Mode::None => path.contains(&0).then_some(Err(PathError::Nul)),
        Mode::Base => (!canonical::is_canonical(path)).then(|| canonical::canonicalize(path)),
        Mode::MergeSlashes | Mode::DecodeAndMergeSlashes => {
            (!canonical::is_canonical(path) || has_double_slash(path)).then(|| {
                let decoded = match mode {
                    Mode::DecodeAndMergeSlashes => canonical::decode_slashes(path),
                    _ => Cow::Borrowed(path),
                };
                canonical::canonicalize(&decoded).map(|path| merge_slashes(&path).into_owned())
            })
        }
    };
    match canonical.transpose()? {
        None => std::str::from_utf8(target)
            .map(Cow::Borrowed)
            .map_err(|_| PathError::NotAscii),
        Some(mut path) => {
            path.extend_from_slice(query);
            String::from_utf8(path)
                .map(Cow::Owned)
                .map_err(|_| PathError::NotAscii)
        }
    }
}

/// Each step of [`normalize`] with its name and what it made of the path.
///
/// # Errors
/// As [`normalize`].
pub fn explain(raw: &[u8], mode: Mode) -> Result<Vec<(&'static str, String)>, PathError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut steps = vec![("received", text(raw))];
    let target = cut_fragment(raw);
    steps.push(("fragment cut", text(target)));
    let (path, query) = split_query(target);
    let mut path = Cow::Borrowed(path);
    if mode == Mode::DecodeAndMergeSlashes {
        path = Cow::Owned(canonical::decode_slashes(&path).into_owned());
        steps.push(("slashes decoded", text(&[&path, query].concat())));
    }
    if mode != Mode::None {
        path = Cow::Owned(canonical::canonicalize(&path)?);
        steps.push(("canonical", text(&[&path, query].concat())));
    }
    if matches!(mode, Mode::MergeSlashes | Mode::DecodeAndMergeSlashes) {
        path = Cow::Owned(merge_slashes(&path).into_owned());
        steps.push(("slashes merged", text(&[&path, query].concat())));
    }
    // The answer is the one of the function that routing calls, errors included.
    normalize(raw, mode).map(|_| steps)
}

/// The path alone: up to the first `?` or `#`.
pub fn without_query(target: &str) -> &str {
    let end = target.bytes().position(|b| matches!(b, b'?' | b'#'));
    end.and_then(|end| target.get(..end)).unwrap_or(target)
}

/// Runs of slashes become one. A leading and a trailing slash are each kept, so that `///` becomes `//` (N-093).
pub fn merge_slashes(path: &[u8]) -> Cow<'_, [u8]> {
    if !has_double_slash(path) {
        return Cow::Borrowed(path);
    }
    let mut out = Vec::with_capacity(path.len());
    if path.first() == Some(&b'/') {
        out.push(b'/');
    }
    let mut segments = path.split(|b| *b == b'/').filter(|s| !s.is_empty());
    if let Some(first) = segments.next() {
        out.extend_from_slice(first);
    }
    for segment in segments {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if path.last() == Some(&b'/') {
        out.push(b'/');
    }
    Cow::Owned(out)
}

fn has_double_slash(path: &[u8]) -> bool {
    path.windows(2).any(|pair| pair == b"//")
}

fn cut_fragment(raw: &[u8]) -> &[u8] {
    raw.split(|b| *b == b'#').next().unwrap_or_default()
}

/// The part before the first `?`, and the rest with its `?`.
fn split_query(target: &[u8]) -> (&[u8], &[u8]) {
    let at = target.iter().position(|b| *b == b'?').unwrap_or(target.len());
    target.split_at(at)
}

/// The value of an escape whose `%` is the first byte.
fn escape(bytes: &[u8]) -> Option<u8> {
    let &[b'%', high, low, ..] = bytes else {
        return None;
    };
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests;
