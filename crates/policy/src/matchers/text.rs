//! The string forms of semantics 2.5: exact, prefix `v*`, suffix `*v`, presence `*`.

use super::Bias;

/// One value in its form. The order of the tests is upstream's, so that `*foo*` is a suffix (SM-07).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form<'a> {
    Presence,
    Suffix(&'a str),
    Prefix(&'a str),
    Exact(&'a str),
}

impl<'a> Form<'a> {
    pub(crate) fn of(value: &'a str) -> Self {
        if value == "*" {
            Self::Presence
        } else if let Some(suffix) = value.strip_prefix('*') {
            Self::Suffix(suffix)
        } else if let Some(prefix) = value.strip_suffix('*') {
            Self::Prefix(prefix)
        } else {
            Self::Exact(value)
        }
    }

    /// Case-sensitive, where presence asks for a character (SM-04).
    pub(crate) fn matches(self, text: &str) -> bool {
        match self {
            Self::Presence => !text.is_empty(),
            Self::Suffix(suffix) => text.ends_with(suffix),
            Self::Prefix(prefix) => text.starts_with(prefix),
            Self::Exact(exact) => text == exact,
        }
    }
}

/// What `*` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Presence {
    /// At least one character (SM-04).
    NonEmpty,
    /// That the attribute is there (SM-05).
    Present,
    /// A character where a match opens, being there where it closes (R23).
    Closed,
}

/// The values of one field.
#[derive(Debug)]
pub(crate) struct Texts {
    /// Sorted.
    exact: Box<[Box<str>]>,
    prefixes: Box<[Box<str>]>,
    suffixes: Box<[Box<str>]>,
    presence: Option<Presence>,
    /// Whether case is ignored; then the values are in lower case.
    fold: bool,
}

impl Texts {
    pub(crate) fn new<'a>(values: impl Iterator<Item = &'a str>, presence: Presence, fold: bool) -> Self {
        let (mut exact, mut prefixes, mut suffixes) = (Vec::new(), Vec::new(), Vec::new());
        let mut star = None;
        let keep = |text: &str| {
            let text = if fold {
                text.to_ascii_lowercase()
            } else {
                text.to_owned()
            };
            text.into_boxed_str()
        };
        for value in values {
            match Form::of(value) {
                Form::Presence => star = Some(presence),
                Form::Suffix(text) => suffixes.push(keep(text)),
                Form::Prefix(text) => prefixes.push(keep(text)),
                Form::Exact(text) => exact.push(keep(text)),
            }
        }
        exact.sort_unstable();
        exact.dedup();
        Self {
            exact: exact.into(),
            prefixes: prefixes.into(),
            suffixes: suffixes.into(),
            presence: star,
            fold,
        }
    }

    pub(crate) fn matches(&self, text: &[u8], bias: Bias) -> bool {
        self.present(text, bias)
            || if self.fold {
                self.folded(text)
            } else {
                self.plain(text)
            }
    }

    fn present(&self, text: &[u8], bias: Bias) -> bool {
        match self.presence {
            None => false,
            Some(Presence::Present) => true,
            Some(Presence::NonEmpty) => !text.is_empty(),
            Some(Presence::Closed) => bias == Bias::Wide || !text.is_empty(),
        }
    }

    fn plain(&self, text: &[u8]) -> bool {
        let find = self.exact.binary_search_by(|value| value.as_bytes().cmp(text));
        find.is_ok()
            || self.prefixes.iter().any(|p| text.starts_with(p.as_bytes()))
            || self.suffixes.iter().any(|s| text.ends_with(s.as_bytes()))
    }

    fn folded(&self, text: &[u8]) -> bool {
        let lower = || text.iter().map(u8::to_ascii_lowercase);
        let find = self.exact.binary_search_by(|value| value.bytes().cmp(lower()));
        let same = |part: Option<&[u8]>, value: &str| {
            part.is_some_and(|part| part.eq_ignore_ascii_case(value.as_bytes()))
        };
        find.is_ok()
            || self.prefixes.iter().any(|p| same(text.get(..p.len()), p))
            || self
                .suffixes
                .iter()
                .any(|s| same(text.len().checked_sub(s.len()).and_then(|at| text.get(at..)), s))
    }

    /// The values by form, for the index; `None` where presence is among them.
    pub(crate) fn forms(&self) -> Option<impl Iterator<Item = Form<'_>>> {
        let exact = self.exact.iter().map(|v| Form::Exact(v));
        let prefixes = self.prefixes.iter().map(|v| Form::Prefix(v));
        let suffixes = self.suffixes.iter().map(|v| Form::Suffix(v));
        self.presence
            .is_none()
            .then(|| exact.chain(prefixes).chain(suffixes))
    }
}

/// Whether `pattern`, in which each `*` stands for any run of bytes, covers the text of `length` bytes.
pub(crate) fn glob(pattern: &[u8], length: usize, at: impl Fn(usize) -> Option<u8>) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < length {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b) if at(t) == Some(*b) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((star_p, star_t)) => {
                    star = Some((star_p, star_t + 1));
                    p = star_p + 1;
                    t = star_t + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|b| *b == b'*')
}
