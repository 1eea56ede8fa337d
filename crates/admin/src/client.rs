//! The asking side.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::failure::Failure;
use crate::line::{Lines, send};

/// Why a request could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens at the path.
    #[error("nothing answers at `{}`", path.display())]
    NotThere {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection failed.
    #[error("cannot speak with `{}`", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// An answer while it comes.
#[derive(Debug)]
pub struct Answer {
    stream: UnixStream,
    lines: Lines,
    last: Option<Result<Value, Failure>>,
}

/// One line of an answer.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Reply {
    Item(Value),
    Ok(Value),
    Error(Failure),
}

/// Asks for something. Descriptors are passed on as copies; ours are closed when this returns.
///
/// # Errors
/// Nobody is there, or the request could not be sent whole.
pub async fn call(path: &Path, verb: &str, body: Value, fds: Vec<OwnedFd>) -> Result<Answer, CallError> {
    let io_error = |source| CallError::Io {
        path: path.to_owned(),
        source,
    };
    let stream = UnixStream::connect(path)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => CallError::NotThere {
                path: path.to_owned(),
                source,
            },
            _ => io_error(source),
        })?;
    let line = json!({"verb": verb, "body": body}).to_string().into_bytes();
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    match send(&stream, line, &borrowed).await {
        Ok(()) => {}
        // Whoever hangs up without listening may have said why.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) => {}
        Err(error) => return Err(io_error(error)),
    }
    Ok(Answer {
        stream,
        lines: Lines::default(),
        last: None,
    })
}

impl Answer {
    /// The descriptors that came with the items so far and were not taken yet, in order; closed on exec.
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        self.lines.take_fds()
    }

    /// The process at the other end, as our process namespace numbers it, where the kernel says.
    pub fn peer_pid(&self) -> Option<u32> {
        let pid = self.stream.peer_cred().ok()?.pid()?;
        u32::try_from(pid).ok()
    }

    /// The next item; `None` when there is no more, and [`Self::finish`] has the rest.
    pub async fn item(&mut self) -> Option<Value> {
        if self.last.is_some() {
            return None;
        }
        let broke = |why: String| Err(Failure::undecided(format!("the answer broke off: {why}")));
        let last = match self.lines.next(&self.stream).await {
            Ok(Some(line)) => match serde_json::from_slice(&line) {
                Ok(Reply::Item(item)) => return Some(item),
                Ok(Reply::Ok(value)) => Ok(value),
                Ok(Reply::Error(failure)) => Err(failure),
                Err(error) => broke(error.to_string()),
            },
            Ok(None) => broke("the other side hung up".to_owned()),
            Err(error) => broke(error.to_string()),
        };
        self.last = Some(last);
        None
    }

    /// The end of the answer; items that nobody read are passed over.
    ///
    /// # Errors
    /// What the other side says, or that it hung up.
    pub async fn finish(mut self) -> Result<Value, Failure> {
        while self.item().await.is_some() {}
        self.last
            .unwrap_or_else(|| Err(Failure::undecided("the other side hung up")))
    }
}
