//! A user's mistake, with its place: what is wrong, where, and what to write instead.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How much a problem matters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing has to change.
    Info,
    /// Accepted, but most likely not what was meant.
    Warning,
    /// Not accepted.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A place on one line of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Span {
    /// The line from 1; 0 where unknown.
    pub line: u32,
    /// The column from 1, in characters.
    pub column: u32,
    /// How many characters, on that line.
    pub length: u32,
}

/// The name of an object, as far as it could be read.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct ObjectRef {
    /// The kind, as written.
    pub kind: String,
    /// The namespace; empty for kinds without one.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.kind, self.name)
        } else {
            write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// One finding about what a user wrote.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// A short stable identifier: Istio's where the finding is the same, else `MW` and four digits.
    pub code: Cow<'static, str>,
    /// How much it matters.
    pub severity: Severity,
    /// The object that it is about, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectRef>,
    /// The field, as in `spec.rules[0].from`; empty where it is about the whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The file as the user named it.
    pub file: String,
    /// The line from 1; 0 where it is about the whole file.
    pub line: u32,
    /// The column from 1, in characters.
    pub column: u32,
    /// How many characters are meant, on that line.
    pub length: u32,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// The offending text, as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The line of the file that it is about, for a picture of the place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl Problem {
    /// A problem without a place.
    pub fn new(severity: Severity, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code: Cow::Borrowed(code),
            severity,
            object: None,
            path: String::new(),
            file: String::new(),
            line: 0,
            column: 0,
            length: 0,
            message: message.into(),
            value: None,
            remedy: None,
            source: None,
        }
    }

    /// With what to do about it.
    #[must_use]
    pub fn remedy(mut self, text: impl Into<String>) -> Self {
        self.remedy = Some(text.into());
        self
    }

    /// Whether it is one of our own strictnesses (`MW03..`), which the profile `istio` takes as a warning.
    pub fn only_secure(&self) -> bool {
        self.code.starts_with("MW03")
    }

    /// `file:line:column: severity[code]: message; remedy`, without a line break.
    pub fn one_line(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", Visible(&self.file))?;
        }
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.file.is_empty() || self.line > 0 {
            f.write_str(" ")?;
        }
        write!(f, "{}[{}]: {}", self.severity, self.code, Visible(&self.message))?;
        if let Some(remedy) = &self.remedy {
            write!(f, "; {}", Visible(remedy))?;
        }
        Ok(())
    }
}

/// Messages quote what users wrote: line breaks and terminal sequences in it are shown, not obeyed.
struct Visible<'a>(&'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in self.0.split_inclusive(char::is_control) {
            let text = piece.trim_end_matches(char::is_control);
            f.write_str(text)?;
            for control in piece.chars().filter(|c| c.is_control()) {
                write!(f, "{}", control.escape_default())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_quotes_breaks_no_line_and_moves_no_cursor() {
        let mut problem = Problem::new(Severity::Error, "MW0103", "there is no kind `a\n\u{1b}[2Jb`");
        problem.file = "x\ry".to_owned();
        let line = problem.remedy("write `\tc`").one_line();
        assert_eq!(
            line,
            "x\\ry: error[MW0103]: there is no kind `a\\n\\u{1b}[2Jb`; write `\\tc`"
        );
    }
}
