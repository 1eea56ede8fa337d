//! What a mesh leaves: found and taken away, whoever ended it and however.

mod down;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use admin::RunDir;
use capture::Netns;
use nix::fcntl::{Flock, FlockArg};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::process::with_source;
use crate::site::{hub_name, netns_names};

pub(crate) use down::down;

/// How long processes may take to be gone once they were killed.
const GONE: Duration = Duration::from_secs(5);
/// How often it is looked whether they are.
const POLL: Duration = Duration::from_millis(5);
/// How often a lock is tried that somebody takes away meanwhile.
const ATTEMPTS: usize = 100;

/// The right to be the mesh of that name; given back with its last handle, so also when the process is killed.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
    path: PathBuf,
    /// The same for the names of namespaces, which all meshes of the machine share, wherever their files are.
    hub: Option<Flock<File>>,
}

/// Why a lock cannot be had.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Somebody has it: this process, where it can be told.
    Held(Option<Holder>),
    Io(io::Error),
}

/// The process that has a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    /// When it was started, in the kernel's ticks: another process of that number has another.
    started: u64,
}

impl Lock {
    /// Takes it, for this process.
    ///
    /// # Errors
    /// Somebody has it, or the file cannot be made.
    pub(crate) fn take(run: &RunDir) -> Result<Self, LockError> {
        let path = run.root().join("lock");
        for _ in 0..ATTEMPTS {
            run.create().map_err(LockError::Io)?;
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path);
            let file = match file {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(LockError::Io)?,
            };
            let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((file, nix::errno::Errno::EWOULDBLOCK)) => return Err(LockError::Held(holder(file))),
                Err((_, error)) => return Err(LockError::Io(error.into())),
            };
            // Whoever had it before may have taken the file away with it.
            let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
            let (held, there) = (file.metadata(), fs::metadata(&path));
            if !matches!((&held, &there), (Ok(held), Ok(there)) if same(held, there)) {
                continue;
            }
            let own = Holder {
                pid: std::process::id(),
                started: started(std::process::id()).unwrap_or_default(),
            };
            file.set_len(0)
                .and_then(|()| writeln!(file, "{} {}", own.pid, own.started))
                .map_err(LockError::Io)?;
            return Ok(Self {
                _file: file,
                path,
                hub: None,
            });
        }
        Err(LockError::Io(io::Error::other(
            "the lock is taken and given back again and again",
        )))
    }
}

impl Lock {
    /// Takes the names of the namespaces too, once they are there.
    ///
    /// # Errors
    /// Another mesh has them.
    pub(crate) fn take_names(&mut self, mesh: &str) -> Result<(), String> {
        // Without root they are in a mount namespace of this mesh alone.
        let Ok(hub) = Netns::named(&hub_name(mesh)) else {
            return Ok(());
        };
        let file = File::open(hub.path())
            .map_err(|error| format!("cannot open `{}`: {error}", hub.path().display()))?;
        let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
            nix::errno::Errno::EWOULDBLOCK => format!(
                "a mesh `{mesh}` runs already, with its files elsewhere: `{}` was another when it was started",
                admin::BASE_VARIABLE
            ),
            error => format!("cannot lock `{}`: {error}", hub.path().display()),
        })?;
        self.hub = Some(locked);
        Ok(())
    }
}

fn holder(mut file: File) -> Option<Holder> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.read_to_string(&mut text).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    Some(Holder {
        pid: pid.parse().ok()?,
        started: started.parse().ok()?,
    })
}

impl Holder {
    /// Sends it a signal. Whether there was somebody to send it to.
    pub(crate) fn signal(self, signal: Signal) -> bool {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return false;
        };
        let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
            return false;
        };
        // From here on the handle is that of one process; whether it is the right one is what its start says.
        started(self.pid) == Some(self.started) && rustix::process::pidfd_send_signal(handle, signal).is_ok()
    }
}

/// When a process was started: field 22 of its `stat`, counted after the name, which may hold anything.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(19)?.parse().ok()
}

/// Takes away all that is left of the mesh but the lock: processes, namespaces with their links, rules and routes, files.
/// Each step is told to `step`. The caller holds the lock.
///
/// # Errors
/// What could not be taken away: one sentence.
pub(crate) fn clear(
    mesh: &str,
    run: &RunDir,
    lock: &mut Lock,
    mut step: impl FnMut(String),
) -> Result<(), String> {
    let names = namespaces(mesh)?;
    if !names.is_empty() && lock.hub.is_none() {
        lock.take_names(mesh)?;
    }
    let killed = kill_inside(&names)?;
    if killed > 0 {
        step(format!("ended {killed} processes"));
    }
    for name in &names {
        Netns::delete(name).map_err(|error| with_source(&error))?;
    }
    lock.hub = None;
    if !names.is_empty() {
        step(format!("removed {} network namespaces", names.len()));
    }
    let removed = empty(run.root(), &lock.path)
        .map_err(|error| format!("cannot clear `{}`: {error}", run.root().display()))?;
    if removed {
        step(format!("removed `{}`", run.root().display()));
    }
    Ok(())
}

/// The names of the mesh's namespaces. Without root they were in a mount namespace that ended with the mesh; those that
/// can be seen are another user's.
fn namespaces(mesh: &str) -> Result<Vec<String>, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Vec::new());
    }
    netns_names(mesh).map_err(|error| with_source(&error))
}

/// Gives the lock back, with the directory that it is in.
pub(crate) fn finish(run: &RunDir, lock: Lock) {
    let _ = fs::remove_file(&lock.path);
    let _ = fs::remove_dir(run.root());
    // The directory of all meshes goes with the last.
    let _ = run.root().parent().map(fs::remove_dir);
    drop(lock);
}

fn empty(dir: &Path, but: &Path) -> io::Result<bool> {
    let mut removed = false;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if path == but {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
            removed = true;
        }
    }
    Ok(removed)
}

/// Kills every process that lives in one of the namespaces, and waits for its end. How many there were.
fn kill_inside(names: &[String]) -> Result<usize, String> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let spaces: Vec<(u64, u64)> = names
        .iter()
        .filter_map(|name| identity(Netns::named(name).ok()?.path()))
        .collect();
    if spaces.is_empty() {
        return Ok(0);
    }
    let own = std::process::id();
    let until = Instant::now() + GONE;
    let mut most = 0;
    loop {
        let found: Vec<Pid> = processes()
            .filter(|pid| *pid != own)
            .filter(|pid| {
                identity(Path::new(&format!("/proc/{pid}/ns/net"))).is_some_and(|id| spaces.contains(&id))
            })
            .filter_map(|pid| i32::try_from(pid).ok().and_then(Pid::from_raw))
            .collect();
        if found.is_empty() {
            return Ok(most);
        }
        most = most.max(found.len());
        if Instant::now() > until {
            let numbers: Vec<String> = found.iter().map(|pid| pid.as_raw_nonzero().to_string()).collect();
            return Err(format!(
                "processes of the mesh do not end: {}",
                numbers.join(", ")
            ));
        }
        for pid in found {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(POLL);
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_has_the_lock_and_the_next_is_told_which() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::at(dir.path().join("base/mesh"));
        let mut lock = Lock::take(&run).unwrap();
        let Err(LockError::Held(Some(holder))) = Lock::take(&run) else {
            panic!("taken twice");
        };
        assert_eq!(holder.pid, std::process::id());
        assert_eq!(Some(holder.started), started(holder.pid));
        let stale = Holder {
            started: holder.started + 1,
            ..holder
        };
        assert!(
            !stale.signal(Signal::TERM),
            "a process of the same number is another"
        );
        fs::write(run.root().join("roots.pem"), "x").unwrap();
        let mut steps = Vec::new();
        clear("no-such-mesh", &run, &mut lock, |step| steps.push(step)).unwrap();
        assert_eq!(steps.len(), 1);
        finish(&run, lock);
        assert!(!run.root().exists());
        drop(Lock::take(&run).unwrap());
    }
}
