//! Why streams and connections end.

use std::fmt;
use std::io::ErrorKind;

/// An error code (RFC 9113, 7). Codes that nobody knows are kept as they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

impl Code {
    /// A clean end.
    pub const NO_ERROR: Self = Self(0);
    /// The other side has broken the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// This side cannot go on.
    pub const INTERNAL_ERROR: Self = Self(2);
    /// More bytes came than a window has.
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    /// A frame came on a stream that is closed.
    pub const STREAM_CLOSED: Self = Self(5);
    /// A frame has a length that it cannot have.
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    /// The stream was not looked at, and may be opened again.
    pub const REFUSED_STREAM: Self = Self(7);
    /// Nobody wants the stream any more.
    pub const CANCEL: Self = Self(8);
    /// A header block cannot be decoded, so that none after it can.
    pub const COMPRESSION_ERROR: Self = Self(9);
    /// The other side makes work without use.
    pub const ENHANCE_YOUR_CALM: Self = Self(11);

    fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        NAMES.get(usize::try_from(self.0).ok()?).copied()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error code {}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The other side did what ends a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{why} ({code})")]
pub struct Violation {
    /// What it is told.
    pub code: Code,
    /// What it did.
    pub why: &'static str,
}

impl Violation {
    pub(crate) fn new(code: Code, why: &'static str) -> Self {
        Self { code, why }
    }

    pub(crate) fn protocol(why: &'static str) -> Self {
        Self::new(Code::PROTOCOL_ERROR, why)
    }

    pub(crate) fn calm(why: &'static str) -> Self {
        Self::new(Code::ENHANCE_YOUR_CALM, why)
    }
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Gone {
    /// The other side closed it, or this side did in peace.
    #[error("it was closed")]
    Closed,
    /// The stream of bytes below failed.
    #[error("it broke: {0}")]
    Broken(ErrorKind),
    /// The other side left a ping unanswered.
    #[error("the other side did not answer in time")]
    Silent,
    /// The other side broke the protocol.
    #[error("the other side broke the protocol: {0}")]
    Violation(#[from] Violation),
}

/// How a stream ended other than by its messages' ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StreamError {
    /// The other side reset it.
    #[error("the other side reset the stream: {0}")]
    Reset(Code),
    /// The other side has said that it did not look at it, and will not (RFC 9113, 8.7).
    #[error("the other side did not look at the request")]
    Unseen,
    /// A message of the other side is malformed (RFC 9113, 8.1.1).
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// This side has given it up.
    #[error("given up: {0}")]
    Cancelled(Code),
    /// The connection ended.
    #[error("the connection ended: {0}")]
    Gone(#[from] Gone),
}

impl StreamError {
    /// The code that says the same to somebody else: never that all is well, since something is missing.
    pub fn code(self) -> Code {
        match self {
            Self::Reset(Code::NO_ERROR) | Self::Cancelled(Code::NO_ERROR) => Code::INTERNAL_ERROR,
            Self::Reset(code) | Self::Cancelled(code) => code,
            Self::Unseen => Code::REFUSED_STREAM,
            Self::Malformed(_) | Self::Gone(_) => Code::INTERNAL_ERROR,
        }
    }
}
