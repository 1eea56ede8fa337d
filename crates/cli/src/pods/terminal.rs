//! A terminal for a command elsewhere: a pair of which one end goes to the command, the other is relayed to the
//! terminal at hand, which is raw meanwhile.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use tokio::task::{JoinHandle, spawn_blocking};

/// How much is carried at once.
const CHUNK: usize = 16 * 1024;
/// How much is still carried after the command has ended: somebody in the background may go on for ever.
const MAX_REST: usize = 1024 * 1024;

/// The terminal at hand while it passes every key on. Dropping it restores what was.
pub(crate) struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    /// # Errors
    /// It is no terminal.
    pub(crate) fn enter(terminal: OwnedFd) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        // Keys that were typed ahead are for the command: nothing is flushed.
        tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Our end of the pair.
#[derive(Debug)]
pub(crate) struct Line {
    near: Arc<OwnedFd>,
}

impl Line {
    /// A pair of the size of the terminal at hand: our end, and the one that the command gets.
    ///
    /// # Errors
    /// The system has no more of them.
    pub(crate) fn open(like: BorrowedFd<'_>) -> io::Result<(Self, OwnedFd)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let near = openpt(flags)?;
        grantpt(&near)?;
        unlockpt(&near)?;
        let far = ioctl_tiocgptpeer(&near, flags)?;
        rustix::io::ioctl_fionbio(&near, true)?;
        let line = Self { near: Arc::new(near) };
        line.resize(like);
        Ok((line, far))
    }

    /// Takes the size of the terminal at hand; one without a size changes nothing.
    pub(crate) fn resize(&self, like: BorrowedFd<'_>) {
        if let Ok(size) = tcgetwinsize(like) {
            let _ = tcsetwinsize(&*self.near, size);
        }
    }

    /// Carries keys and answers on threads of their own until it is finished or dropped.
    ///
    /// # Errors
    /// The system has no more descriptors.
    pub(crate) fn relay(&self, input: OwnedFd, output: OwnedFd) -> io::Result<Relay> {
        let (stopped, stop) = io::pipe()?;
        let (near, seen) = (Arc::clone(&self.near), stopped.try_clone()?);
        let answers = spawn_blocking(move || answers(&near, &output, &seen));
        let near = Arc::clone(&self.near);
        let keys = spawn_blocking(move || keys(&input, &near, &stopped));
        Ok(Relay { stop, answers, keys })
    }
}

/// What is being carried. Dropping it lets the threads end by themselves.
#[derive(Debug)]
pub(crate) struct Relay {
    stop: PipeWriter,
    answers: JoinHandle<io::Result<()>>,
    keys: JoinHandle<io::Result<()>>,
}

impl Relay {
    /// Carries what the command said last, and ends.
    ///
    /// # Errors
    /// Something could not be carried.
    pub(crate) async fn finish(self) -> io::Result<()> {
        drop(self.stop);
        self.answers.await??;
        // Keys that the command did not want are nobody's.
        let _ = self.keys.await?;
        Ok(())
    }
}

/// From the command to the terminal at hand, to the end, or until told to stop and there is no more.
fn answers(near: &OwnedFd, output: &OwnedFd, stopped: &PipeReader) -> io::Result<()> {
    let mut rest = MAX_REST;
    loop {
        let [data, stop] = wait(near.as_fd(), PollFlags::IN, stopped.as_fd())?;
        if !data {
            return Ok(());
        }
        let bytes = match read(near) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            read => read?,
        };
        rest = if stop {
            rest.saturating_sub(bytes.len())
        } else {
            rest
        };
        if bytes.is_empty() || rest == 0 {
            return Ok(());
        }
        let mut left = bytes.as_slice();
        while !left.is_empty() {
            left = left.get(write(output, left)?..).unwrap_or_default();
        }
    }
}

/// From the terminal at hand to the command, until told to stop.
fn keys(input: &OwnedFd, near: &OwnedFd, stopped: &PipeReader) -> io::Result<()> {
    loop {
        let [_, stop] = wait(input.as_fd(), PollFlags::IN, stopped.as_fd())?;
        if stop {
            return Ok(());
        }
        let bytes = read(input)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let mut left = bytes.as_slice();
        while !left.is_empty() {
            let [_, stop] = wait(near.as_fd(), PollFlags::OUT, stopped.as_fd())?;
            if stop {
                return Ok(());
            }
            left = left.get(write(near, left)?..).unwrap_or_default();
        }
    }
}

/// Waits for the descriptor or the stop: which of them it is.
fn wait(on: BorrowedFd<'_>, flags: PollFlags, stopped: BorrowedFd<'_>) -> io::Result<[bool; 2]> {
    let mut both = [
        PollFd::from_borrowed_fd(on, flags),
        PollFd::from_borrowed_fd(stopped, PollFlags::IN),
    ];
    loop {
        match poll(&mut both, None) {
            Ok(_) => return Ok(both.map(|one| !one.revents().is_empty())),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Some bytes; none at the end, which a terminal whose other end is closed tells as an error.
fn read(from: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; CHUNK];
    match rustix::io::read(from, &mut bytes) {
        Ok(n) => {
            bytes.truncate(n);
            Ok(bytes)
        }
        Err(Errno::IO) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// How many bytes were taken; none where somebody has made the descriptor non-blocking and there is no room yet.
fn write(to: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    match rustix::io::write(to, bytes) {
        Ok(n) => Ok(n),
        Err(Errno::INTR) => Ok(0),
        Err(Errno::AGAIN) => {
            poll(&mut [PollFd::new(to, PollFlags::OUT)], None)?;
            Ok(0)
        }
        Err(error) => Err(error.into()),
    }
}
