//! Paths: normalisation as the mesh's mode says, and the strict profile (semantics 3).

use std::borrow::Cow;

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
    /// Bytes that no HTTP codec lets through.
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
/// # Errors
/// The path cannot be brought into the form: answer 400.
pub fn normalize(raw: &[u8], _mode: Mode) -> Result<Cow<'_, str>, PathError> {
    std::str::from_utf8(raw)
        .map(Cow::Borrowed)
        .map_err(|_| PathError::NotAscii)
}

/// The strict profile, judged on the raw target: refuses what backends are known to read in more than one way.
///
/// # Errors
/// What is ambiguous: answer 400.
pub fn strict_check(_raw: &[u8]) -> Result<(), PathError> {
    Ok(())
}

/// Each step of [`normalize`] with its name and what it made of the path.
///
/// # Errors
/// As [`normalize`].
pub fn explain(raw: &[u8], mode: Mode) -> Result<Vec<(&'static str, String)>, PathError> {
    Ok(vec![("received", normalize(raw, mode)?.into_owned())])
}
