//! Collects the problems of one file.

use crate::problem::{ObjectRef, Problem, Severity, Span};

/// How many problems of one file are kept.
const MAX_PROBLEMS: usize = 200;
/// How much of a long line is kept for the picture, in characters.
const MAX_SOURCE: usize = 400;
/// How much of an offending text is kept, in characters.
const MAX_VALUE: usize = 120;

/// The problems of one file so far.
pub(crate) struct Report<'t> {
    file: &'t str,
    lines: Vec<&'t str>,
    pub(crate) object: Option<ObjectRef>,
    problems: Vec<Problem>,
    dropped: usize,
}

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
        if self.problems.len() >= MAX_PROBLEMS && severity != Severity::Error {
            self.dropped += 1;
            return Draft { problem: None };
        }
        if self.problems.len() >= 2 * MAX_PROBLEMS {
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

    /// The problems after the first `from`.
    pub(crate) fn since(&self, from: usize) -> &[Problem] {
        self.problems.get(from..).unwrap_or_default()
    }

    /// The problem that was reported last.
    pub(crate) fn last(&mut self) -> Option<Draft<'_>> {
        let problem = self.problems.last_mut();
        problem.map(|problem| Draft {
            problem: Some(problem),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.problems.len()
    }

    pub(crate) fn finish(mut self) -> Vec<Problem> {
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
