//! Collects the problems of one file.

use crate::problem::{ObjectRef, Problem, Severity, Span};

/// How many problems of one file are kept.
const MAX_PROBLEMS: usize = 200;
/// How much of a long line is kept for the picture, in characters.
const MAX_SOURCE: usize = 400;
/// How much of an offending text is kept, in characters.
const MAX_VALUE: usize = 120;
/// How much of a key is kept in the path of what lies below it, in characters: a key may be as long as the file.
const MAX_STEP: usize = 200;

/// The problems of one file so far.
pub(crate) struct Report<'t> {
    file: &'t str,
    lines: Vec<&'t str>,
    pub(crate) object: Option<ObjectRef>,
    problems: Vec<Problem>,
    dropped: usize,
    errors: usize,
    verdict: Verdict,
}

/// What was found of one object, whether or not the problems are kept.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Why it cannot be accepted.
    pub(crate) invalid: Option<String>,
    /// Why the secure profile does not accept it.
    pub(crate) only_secure: Option<String>,
}

/// Errors that leave an object as it is: its kind is not enforced, it is written twice, or a provider of the mesh
/// configuration cannot be used, which is told of whoever names it.
const OF_NO_OBJECT: &[&str] = &["MW0106", "MW0107", "MW0115"];

/// A problem just reported, to be completed.
pub(crate) struct Draft<'r> {
    problem: Option<&'r mut Problem>,
}

impl<'t> Report<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Self {
        Self {
            file,
            lines: text.split('\n').collect(),
            object: None,
            problems: Vec::new(),
            dropped: 0,
            errors: 0,
            verdict: Verdict::default(),
        }
    }

    pub(crate) fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>) -> Draft<'_> {
        self.add(Severity::Error, code, span, message.into())
    }

    pub(crate) fn warning(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
    ) -> Draft<'_> {
        self.add(Severity::Warning, code, span, message.into())
    }

    pub(crate) fn info(&mut self, code: &'static str, span: Span, message: impl Into<String>) -> Draft<'_> {
        self.add(Severity::Info, code, span, message.into())
    }

    pub(crate) fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        span: Span,
        message: String,
    ) -> Draft<'_> {
        if severity == Severity::Error {
            self.errors += usize::from(!OF_NO_OBJECT.contains(&code));
            if code.starts_with("MW03") {
                self.verdict.only_secure.get_or_insert_with(|| message.clone());
            } else if !OF_NO_OBJECT.contains(&code) {
                self.verdict.invalid.get_or_insert_with(|| message.clone());
            }
        }
        if self.problems.len() >= MAX_PROBLEMS && severity != Severity::Error {
            self.dropped += 1;
            return Draft { problem: None };
        }
        if self.is_full() {
            self.dropped += 1;
            return Draft { problem: None };
        }
        let mut problem = Problem::new(severity, code, message);
        problem.file = self.file.to_owned();
        (problem.line, problem.column, problem.length) = (span.line, span.column, span.length);
        problem.object = self.object.clone();
        problem.source = self.line(span.line);
        self.problems.push(problem);
        Draft {
            problem: self.problems.last_mut(),
        }
    }

    /// Makes the problems after the first `from` an object's, where they are nobody's.
    pub(crate) fn claim(&mut self, from: usize, object: &ObjectRef) {
        for problem in self.problems.iter_mut().skip(from) {
            problem.object.get_or_insert_with(|| object.clone());
        }
    }

    /// Whether no more problems are kept.
    pub(crate) fn is_full(&self) -> bool {
        self.problems.len() >= 2 * MAX_PROBLEMS
    }

    /// How many errors were found that make an object invalid, those that are not kept among them.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// Where a text stands line by line in the file, if it does: how many lines come before it, and its indentation.
    /// Its first line that is not blank is looked for on the line given, and on the one below it.
    pub(crate) fn lines_of(&self, text: &str, line: u32) -> Option<(u32, u32)> {
        let blank = text.lines().take_while(|inner| inner.trim().is_empty()).count();
        let blank = u32::try_from(blank).ok()?;
        [line, line.saturating_add(1)].into_iter().find_map(|line| {
            let before = line.checked_sub(blank)?.checked_sub(1)?;
            let outer = self.lines.get(usize::try_from(before).ok()?..)?;
            let mut indent = None;
            for (index, inner) in text.lines().enumerate() {
                if inner.trim().is_empty() {
                    continue;
                }
                let line = outer.get(index)?.trim_end_matches('\r');
                let blanks = line.strip_suffix(inner)?;
                if !blanks.bytes().all(|b| b == b' ') || *indent.get_or_insert(blanks.len()) != blanks.len() {
                    return None;
                }
            }
            Some((before, u32::try_from(indent?).ok()?))
        })
    }

    /// What was found since this was asked last.
    pub(crate) fn verdict(&mut self) -> Verdict {
        std::mem::take(&mut self.verdict)
    }

    pub(crate) fn len(&self) -> usize {
        self.problems.len()
    }

    pub(crate) fn finish(mut self) -> Vec<Problem> {
        // Structure is looked at before meaning; a reader goes from the top.
        self.problems
            .sort_by_key(|problem| (problem.line, problem.column));
        if self.dropped > 0 {
            let message = format!("{} more problems of this file are not listed", self.dropped);
            let mut more = Problem::new(Severity::Info, "MW0012", message);
            more.file = self.file.to_owned();
            self.problems.push(more);
        }
        self.problems
    }

    fn line(&self, line: u32) -> Option<String> {
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        let text = self.lines.get(index)?.trim_end_matches('\r');
        Some(text.chars().take(MAX_SOURCE).collect())
    }
}

impl Draft<'_> {
    pub(crate) fn remedy(self, text: impl Into<String>) -> Self {
        if let Some(problem) = self.problem {
            problem.remedy = Some(text.into());
            return Self {
                problem: Some(problem),
            };
        }
        self
    }

    pub(crate) fn value(self, text: &str) -> Self {
        if let Some(problem) = self.problem {
            problem.value = Some(text.chars().take(MAX_VALUE).collect());
            return Self {
                problem: Some(problem),
            };
        }
        self
    }

    pub(crate) fn path(self, text: impl Into<String>) -> Self {
        if let Some(problem) = self.problem {
            problem.path = text.into();
            return Self {
                problem: Some(problem),
            };
        }
        self
    }
}

/// The path of what lies below a key.
pub(crate) fn join(path: &str, key: &str) -> String {
    let key = key
        .char_indices()
        .nth(MAX_STEP)
        .map_or(key, |(end, _)| key.get(..end).unwrap_or(key));
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
