//! Processes: each is started by a thread of its own, which has entered the namespaces that the process is to live in, and
//! waits for its end. The kernel ends the process with that thread, and so with this program, however that ends.

mod inside;
pub(crate) mod logbook;

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::sync::{oneshot, watch};

pub(crate) use inside::{Inside, View, enter, make};

/// What a thread that starts and waits needs; the default is a hundred times that.
const STACK: usize = 256 * 1024;

/// A process that was started.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    handle: std::sync::Arc<OwnedFd>,
    end: watch::Receiver<Option<i32>>,
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// What it was to live in.
    #[error("{0}")]
    Place(String),
    /// The program itself.
    #[error("cannot run `{program}`: {source}")]
    Program { program: String, source: io::Error },
}

impl StartError {
    /// The exit code that a shell gives.
    pub(crate) fn code(&self) -> i32 {
        match self {
            Self::Program { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            _ => 126,
        }
    }
}

impl From<capture::Error> for StartError {
    fn from(error: capture::Error) -> Self {
        Self::Place(with_source(&error))
    }
}

/// An error with its cause.
pub(crate) fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Starts a process. `prepare` runs on the new thread: it enters what is to be entered and gives the command, and what
/// is to be looked at there once the process has begun.
///
/// # Errors
/// `prepare`'s and the look's, or the program cannot be run.
pub(crate) async fn start<T, L>(
    prepare: impl FnOnce() -> Result<(Command, L), StartError> + Send + 'static,
) -> Result<(Process, T), StartError>
where
    T: Send + 'static,
    L: FnOnce() -> Result<T, StartError>,
{
    let (told, hear) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("process".to_owned())
        .stack_size(STACK);
    let spawned = thread.spawn(move || {
        let launched = prepare().and_then(|(command, look)| Ok((launch(command)?, look)));
        let ((mut child, handle), look) = match launched {
            Ok(launched) => launched,
            Err(error) => return drop(told.send(Err(error))),
        };
        let looked = look();
        if looked.is_err() {
            let _ = child.kill();
        }
        let (ended, end) = watch::channel(None);
        let process = Process {
            pid: child.id(),
            handle: std::sync::Arc::new(handle),
            end,
        };
        drop(told.send(looked.map(|more| (process, more))));
        let code = child.wait().map_or(255, exit_code);
        ended.send_replace(Some(code));
    });
    let place = |why: String| StartError::Place(why);
    spawned.map_err(|error| place(format!("cannot start a thread: {error}")))?;
    hear.await.map_err(|_| place("the thread ended".to_owned()))?
}

/// Nothing to be looked at.
#[expect(clippy::unnecessary_wraps, reason = "it stands where a look may fail")]
pub(crate) fn nothing() -> Result<(), StartError> {
    Ok(())
}

fn launch(mut command: Command) -> Result<(std::process::Child, OwnedFd), StartError> {
    let program = |command: &Command| command.get_program().to_string_lossy().into_owned();
    let fail = |command: &Command, source| StartError::Program {
        program: program(command),
        source,
    };
    let mut child = command.spawn().map_err(|error| fail(&command, error))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let opened = pid
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()));
    match opened {
        Ok(handle) => Ok((child, handle)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(fail(&command, error.into()))
        }
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(255)
}

impl Process {
    /// Sends a signal; nothing happens where it has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&*self.handle, signal);
    }

    /// Ends it, and its session where it is the leader of one.
    pub(crate) fn kill(&self) {
        // While it has not ended, and so was not waited for, its number is its own.
        if self.end.borrow().is_none()
            && let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw)
        {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        self.signal(Signal::KILL);
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Its exit code, once it has ended; 128 and the number of the signal that ended it.
    pub(crate) async fn ended(&mut self) -> i32 {
        match self.end.wait_for(Option::is_some).await {
            Ok(code) => code.unwrap_or(255),
            Err(_) => 255,
        }
    }

    /// Whether SIGTERM means anything to it. The first process of a process namespace that has no handler for a signal
    /// does not get it: to wait would be to no purpose.
    pub(crate) fn catches_term(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let mask = caught.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        mask.is_none_or(|mask| mask & (1 << 14) != 0)
    }
}

/// A command with these words and this environment alone.
pub(crate) fn command<W: AsRef<OsStr>>(
    argv: &[W],
    env: &std::collections::BTreeMap<String, String>,
) -> Result<Command, StartError> {
    let (program, args) = argv
        .split_first()
        .ok_or_else(|| StartError::Place("there is no command".to_owned()))?;
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(env);
    Ok(command)
}

#[cfg(test)]
mod tests;
