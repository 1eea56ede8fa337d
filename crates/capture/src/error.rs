//! What can go wrong here, and in which operation.

use std::io;

/// A failed operation on the kernel's networking.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a netlink request.
    #[error("{operation}: {errno}{}", hint(.message))]
    Netlink {
        /// What was asked for, in words.
        operation: String,
        /// The kernel's answer.
        errno: nix::errno::Errno,
        /// The kernel's own explanation; often empty.
        message: String,
    },
    /// An answer of the kernel could not be read.
    #[error("{operation}: unreadable answer from the kernel")]
    Answer {
        /// What was asked for, in words.
        operation: String,
    },
    /// A system call failed.
    #[error("{operation}")]
    Io {
        /// What was attempted, in words.
        operation: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A name, mark or table that cannot be used.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    pub(crate) fn io(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            operation: operation.into(),
            source: source.into(),
        }
    }
}

fn hint(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" ({message})")
    }
}
