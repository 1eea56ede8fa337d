//! Paths: normalisation as the mesh's mode says, and the strict profile (semantics 3).

mod canonical;
mod dialect;
mod readings;
mod strict;

use std::borrow::Cow;

pub(crate) use dialect::readings as dialect_readings;
pub use dialect::{Dialect, DialectError, Dialects, MAX_DECODE};
pub use readings::readings;
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
    run(raw, mode, &mut ())
}

/// Each step of [`normalize`] with its name and what it made of the path: the same code, watched.
///
/// # Errors
/// As [`normalize`].
pub fn explain(raw: &[u8], mode: Mode) -> Result<Vec<(&'static str, String)>, PathError> {
    let mut steps = Vec::new();
    run(raw, mode, &mut steps).map(|_| steps)
}

/// [`explain`], where also a path that is refused shows how far it came.
pub fn trace(raw: &[u8], mode: Mode) -> (Vec<(&'static str, String)>, Option<PathError>) {
    let mut steps = Vec::new();
    let error = run(raw, mode, &mut steps).err();
    (steps, error)
}

/// Who looks on while a path is brought into its form.
trait Trace {
    fn step(&mut self, name: &'static str, path: &[u8], query: &[u8]);
}

/// Nobody: costs nothing.
impl Trace for () {
    fn step(&mut self, _: &'static str, _: &[u8], _: &[u8]) {}
}

impl Trace for Vec<(&'static str, String)> {
    fn step(&mut self, name: &'static str, path: &[u8], query: &[u8]) {
        let text = String::from_utf8_lossy(&[path, query].concat()).into_owned();
        self.push((name, text));
    }
}

const CUT: &str = "fragment cut";
const DECODED: &str = "slashes decoded";
const CANONICAL: &str = "canonical";
const MERGED: &str = "slashes merged";

impl Mode {
    /// The steps after the fragment is cut.
    fn steps(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Base => &[CANONICAL],
            Self::MergeSlashes => &[CANONICAL, MERGED],
            Self::DecodeAndMergeSlashes => &[DECODED, CANONICAL, MERGED],
        }
    }
}

fn run<'r>(raw: &'r [u8], mode: Mode, trace: &mut impl Trace) -> Result<Cow<'r, str>, PathError> {
    trace.step("received", raw, &[]);
    let target = cut_fragment(raw);
    let (path, query) = split_query(target);
    trace.step(CUT, path, query);
    let stays = match mode {
        Mode::None if path.contains(&0) => return Err(PathError::Nul),
        Mode::None => true,
        Mode::Base => canonical::is_canonical(path),
        Mode::MergeSlashes | Mode::DecodeAndMergeSlashes => {
            canonical::is_canonical(path) && !has_double_slash(path)
        }
    };
    if stays {
        for name in mode.steps() {
            trace.step(name, path, query);
        }
        return std::str::from_utf8(target)
            .map(Cow::Borrowed)
            .map_err(|_| PathError::NotAscii);
    }
    let mut path = Cow::Borrowed(path);
    for name in mode.steps() {
        let next = match *name {
            DECODED => canonical::decode_slashes(&path).into_owned(),
            CANONICAL => canonical::canonicalize(&path)?,
            _ => merge_slashes(&path).into_owned(),
        };
        trace.step(name, &next, query);
        path = Cow::Owned(next);
    }
    let whole = [&path, query].concat();
    String::from_utf8(whole)
        .map(Cow::Owned)
        .map_err(|_| PathError::NotAscii)
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
