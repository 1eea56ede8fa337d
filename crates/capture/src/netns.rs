//! Named network namespaces, as `ip netns` keeps them: a bind mount on `/run/netns/NAME`.

pub mod process;

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::Error;

const DIR: &str = "/run/netns";
const OWN: &str = "/proc/thread-self/ns/net";
/// A name becomes a file name; the kernel's limit for one is 255.
const MAX_NAME: usize = 200;

/// An open network namespace.  Dropping it closes the handle; the namespace stays until `delete`.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    file: File,
}

impl Netns {
    /// Makes a new namespace called `name`, with `lo` up, and keeps it by a bind mount.
    ///
    /// # Errors
    /// When the name is taken or unusable, or the kernel refuses (CAP_SYS_ADMIN is needed).
    pub fn create(name: &str) -> Result<Self, Error> {
        let path = path_of(name)?;
        prepare_dir()?;
        let what = || format!("cannot create network namespace `{name}`");
        File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| Error::io(what(), e))?;
        let mounted = on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some(OWN), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(())
        });
        if let Err(error) = mounted {
            let _ = fs::remove_file(&path);
            return Err(Error::io(what(), error));
        }
        Self::open(&path)
    }

    /// Opens the namespace behind `path` (also `/proc/PID/ns/net`).
    ///
    /// # Errors
    /// When it is not there.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path)
            .map_err(|e| Error::io(format!("cannot open network namespace `{}`", path.display()), e))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Opens the namespace called `name`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn named(name: &str) -> Result<Self, Error> {
        Self::open(&path_of(name)?)
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> Result<Self, Error> {
        Self::open(Path::new(OWN))
    }

    /// The names of all kept namespaces that start with `prefix`, sorted.
    ///
    /// # Errors
    /// When the directory is there but cannot be read.
    pub fn list(prefix: &str) -> Result<Vec<String>, Error> {
        let entries = match fs::read_dir(DIR) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io(format!("cannot list `{DIR}`"), e)),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Removes the name `name`.  The namespace itself ends with its last process and handle.
    /// A name that is not there is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete(name: &str) -> Result<(), Error> {
        let path = path_of(name)?;
        // A leftover file without a mount answers EINVAL, a missing one ENOENT: both are fine.
        let _ = umount2(&path, MntFlags::MNT_DETACH);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("cannot delete network namespace `{name}`"), e))
            }
            _ => Ok(()),
        }
    }

    /// Where the namespace is found; for `setns` in another process.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` inside the namespace, on a thread of its own, and waits for it.
    /// Sockets that it opens stay in the namespace wherever they are used.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        on_own_thread(|| {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
        .map_err(|e| Error::io(format!("cannot run in `{}`", self.path.display()), e))
    }

    /// Moves the calling thread into the namespace for good: for a process about to start another.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter(&self) -> Result<(), Error> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|e| Error::io(format!("cannot enter `{}`", self.path.display()), e))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)?;
        match worker.join() {
            Ok(result) => result,
            // The caller's closure panicked: hand it on, as a direct call would have.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn path_of(name: &str) -> Result<PathBuf, Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || name.starts_with('.') || !name.chars().all(fine) {
        return Err(Error::Invalid(format!(
            "`{name}` cannot name a network namespace"
        )));
    }
    Ok(Path::new(DIR).join(name))
}

/// Makes the directory a shared mount, so that namespaces made here are seen, and their removal is
/// noticed, in mount namespaces that others have cloned meanwhile.
fn prepare_dir() -> Result<(), Error> {
    let what = || format!("cannot prepare `{DIR}`");
    fs::create_dir_all(DIR).map_err(|e| Error::io(what(), e))?;
    // Two processes that both find no mount would hide each other's names: one at a time.
    let dir = File::open(DIR).map_err(|e| Error::io(what(), e))?;
    let _lock = Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, e)| Error::io(what(), e))?;
    if share(DIR).is_err() {
        // Not a mount yet.  (The list of mounts would not tell: it also has those that lie hidden
        // under a later mount on a parent directory.)
        mount(
            Some(DIR),
            DIR,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .and_then(|()| share(DIR))
        .map_err(|e| Error::io(what(), e))?;
    }
    Ok(())
}

fn share(dir: &str) -> nix::Result<()> {
    let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
    mount(None::<&str>, dir, None::<&str>, flags, None::<&str>)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for name in ["", ".", "..", "a/b", ".hidden", "a\0b", "a b"] {
            assert!(path_of(name).is_err(), "{name:?}");
        }
        assert_eq!(path_of("mw-x.y").unwrap(), Path::new("/run/netns/mw-x.y"));
    }
}
