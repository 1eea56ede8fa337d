//! The namespaces that a container lives in, made on the thread that starts it and entered again for `exec`.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use capture::Netns;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::StartError;

/// How many links from one path to the next are followed.
const MAX_LINKS: usize = 8;

/// The namespaces of a container. They live as long as this, or a process in them, does.
#[derive(Debug)]
pub(crate) struct Inside {
    /// In the order in which they are entered; the file system last, for it hides the way to nothing else.
    entered: Vec<(CloneFlags, File)>,
}

/// The file system as a container sees it: the machine's, with some of it hidden and some files of the pod's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// Directories that are empty there.
    pub(crate) hidden: Vec<PathBuf>,
    /// Files, and where they are seen.
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
    pub(crate) hostname: String,
    /// Whether the container has a process namespace and `/proc` of its own.
    pub(crate) own_proc: bool,
}

/// Moves the calling thread into the network namespace and new namespaces of every other kind.
///
/// # Errors
/// What the kernel refuses, with the step.
pub(crate) fn make(netns: &Netns, view: &View) -> Result<(), StartError> {
    netns.enter()?;
    let step = |what: &str, error: &dyn std::fmt::Display| StartError::Place(format!("{what}: {error}"));
    let mut kinds =
        CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    if view.own_proc {
        kinds |= CloneFlags::CLONE_NEWPID;
    }
    unshare(kinds).map_err(|error| step("cannot make namespaces", &error))?;
    nix::unistd::sethostname(&view.hostname).map_err(|error| step("cannot set the host name", &error))?;
    arrange(view).map_err(|(what, error)| step(&what, &error))
}

impl Inside {
    /// Those of the calling thread. What is given finds the rest, once the thread has started its first process.
    ///
    /// # Errors
    /// `/proc` does not show them.
    pub(crate) fn current(own_proc: bool) -> Result<impl FnOnce() -> Result<Self, StartError>, StartError> {
        // The process mounts another `/proc`, in which this thread is not to be seen: what is open by then stays so.
        let dir = File::open("/proc/thread-self/ns").map_err(|error| fail("/proc/thread-self/ns", error))?;
        let own = [
            (CloneFlags::CLONE_NEWNET, "net"),
            (CloneFlags::CLONE_NEWUTS, "uts"),
            (CloneFlags::CLONE_NEWIPC, "ipc"),
        ];
        let mut entered = Vec::new();
        for (kind, name) in own {
            entered.push((kind, open_in(&dir, name)?));
        }
        Ok(move || {
            // Where it was not entered yet, it is found only when somebody lives in it.
            if own_proc {
                entered.push((CloneFlags::CLONE_NEWPID, open_in(&dir, "pid_for_children")?));
            }
            entered.push((CloneFlags::CLONE_NEWNS, open_in(&dir, "mnt")?));
            Ok(Self { entered })
        })
    }
}

fn open_in(dir: &File, name: &str) -> Result<File, StartError> {
    use rustix::fs::{Mode, OFlags, openat};
    let opened = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    opened.map(File::from).map_err(|error| fail(name, error.into()))
}

fn fail(what: &str, error: io::Error) -> StartError {
    StartError::Place(format!("cannot open namespace `{what}`: {error}"))
}

/// Moves the calling thread into the namespaces.
///
/// # Errors
/// What the kernel refuses.
pub(crate) fn enter(inside: &Inside) -> Result<(), StartError> {
    let step = |error: nix::Error| StartError::Place(format!("cannot enter the container: {error}"));
    unshare(CloneFlags::CLONE_FS).map_err(step)?;
    for (kind, file) in &inside.entered {
        setns(file.as_fd(), *kind).map_err(step)?;
    }
    Ok(())
}

/// Mounts what makes the view.
fn arrange(view: &View) -> Result<(), (String, io::Error)> {
    let none = None::<&str>;
    // What the machine unmounts is to disappear here too, or a network namespace that was deleted would live on.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
        .map_err(|e| ("cannot make `/` a mount of its own".to_owned(), e.into()))?;
    let mut sources = Vec::new();
    for (source, target) in &view.files {
        let file = rustix::fs::open(source, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())
            .map_err(|e| (format!("cannot open `{}`", source.display()), e.into()))?;
        sources.push((file, target));
    }
    for directory in &view.hidden {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some("tmpfs"),
            directory.as_path(),
            Some("tmpfs"),
            flags,
            Some("mode=755,size=16m"),
        )
        .map_err(|e| (format!("cannot hide `{}`", directory.display()), e.into()))?;
    }
    for (source, target) in sources {
        let target = behind_links(target);
        let what = || format!("cannot show `{}`", target.display());
        if view.hidden.iter().any(|directory| target.starts_with(directory)) {
            place(&target).map_err(|e| (what(), e))?;
        } else if !target.exists() {
            continue;
        }
        // The source may be hidden by now; an open file is found all the same.
        let source = format!("/proc/self/fd/{}", source.as_raw_fd());
        mount(Some(source.as_str()), &target, none, MsFlags::MS_BIND, none)
            .and_then(|()| read_only(&target))
            .map_err(|e| (what(), e.into()))?;
    }
    Ok(())
}

/// What is behind these files is not the pod's to change.
fn read_only(target: &Path) -> nix::Result<()> {
    let none = None::<&str>;
    let flags =
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    match mount(none, target, none, flags, none) {
        // In a user namespace what the machine's mount forbids must be forbidden here too.
        Err(nix::errno::Errno::EPERM) => mount(none, target, none, flags | MsFlags::MS_NOEXEC, none),
        other => other,
    }
}

fn place(target: &Path) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    File::options().create(true).append(true).open(target).map(drop)
}

/// Where a path leads, also where nothing is there: `/etc/resolv.conf` may be a link to what was just hidden.
fn behind_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(to) = fs::read_link(&path) else {
            break;
        };
        let base = path.parent().unwrap_or_else(|| Path::new("/"));
        let base = fs::canonicalize(base).unwrap_or_else(|_| base.to_owned());
        path = normal(&base.join(to));
    }
    path
}

/// Without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(out.pop()),
            std::path::Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}
