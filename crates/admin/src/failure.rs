//! Why a call did not do what was asked.

use serde::{Deserialize, Serialize};

/// The exit code of the command line that goes with a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Exit {
    /// 1: no, denied, or not there.
    No,
    /// 2: it could not be decided or reached.
    Undecided,
    /// 64: it was asked for wrongly.
    Usage,
    /// 65: what was given is broken.
    Input,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::No => 1,
            Self::Undecided => 2,
            Self::Usage => 64,
            Self::Input => 65,
        }
    }
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        exit.code()
    }
}

impl TryFrom<u8> for Exit {
    type Error = String;

    fn try_from(code: u8) -> Result<Self, String> {
        match code {
            1 => Ok(Self::No),
            2 => Ok(Self::Undecided),
            64 => Ok(Self::Usage),
            65 => Ok(Self::Input),
            other => Err(format!("`{other}` is no exit code of a failure")),
        }
    }
}

/// What the other side says instead of an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For people: lower-case, no full stop.
    pub message: String,
    /// The exit code of the command.
    pub exit: Exit,
}

impl Failure {
    /// A failure with exit code 1.
    pub fn no(message: impl Into<String>) -> Self {
        Self::new(Exit::No, message)
    }

    /// A failure with exit code 2.
    pub fn undecided(message: impl Into<String>) -> Self {
        Self::new(Exit::Undecided, message)
    }

    /// A failure with exit code 64.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A failure with exit code 65.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Exit::Input, message)
    }

    /// A failure.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            exit,
        }
    }
}
