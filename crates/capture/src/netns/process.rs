//! What a process gives up between `fork` and `exec`: the life of its own beside its parent, and rights.
//!
//! Namespaces are entered by the thread that starts it, before. What is here can only be done by the new process: to end
//! with its parent, to lead a session, to have a `/proc` that shows its own process namespace, to drop capabilities.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// The number after the last capability that any kernel of today knows; asking for more is no error, dropping more is.
const CAPABILITIES: u32 = 64;

/// What becomes of a new process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Confinement {
    /// Whether standard input is a terminal that is to control the new session.
    pub terminal: bool,
    /// Whether a new process namespace begins with this process, which then gets a `/proc` of its own.
    pub own_proc: bool,
    /// Whose rights it gets; those of its parent where nothing is said.
    pub rights: Option<Rights>,
}

/// A user with a set of capabilities. Nothing that the process runs can ever have more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The user.
    pub uid: u32,
    /// The group; there are no supplementary ones.
    pub gid: u32,
    /// What user 0 may do, and what a program may bring back at most; another user begins with none.
    pub capabilities: Capabilities,
}

/// A set of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(CapabilitySet);

impl Capabilities {
    /// What a container has where nothing is said, as every container runtime has it.
    pub fn container() -> Self {
        type Set = CapabilitySet;
        Self(
            Set::CHOWN
                | Set::DAC_OVERRIDE
                | Set::FSETID
                | Set::FOWNER
                | Set::MKNOD
                | Set::NET_RAW
                | Set::SETGID
                | Set::SETUID
                | Set::SETFCAP
                | Set::SETPCAP
                | Set::NET_BIND_SERVICE
                | Set::SYS_CHROOT
                | Set::KILL
                | Set::AUDIT_WRITE,
        )
    }

    /// All that there are.
    pub fn all() -> Self {
        Self(CapabilitySet::all())
    }

    /// One by its name, with or without `CAP_`, in any case; `None` for a name that is none.
    pub fn named(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        CapabilitySet::from_name(bare).map(Self)
    }

    /// This set and the other.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0.difference(other.0))
    }

    /// Whether all of the other are in this set.
    pub fn contains(self, other: Self) -> bool {
        self.0.contains(other.0)
    }
}

/// Has the process that `command` starts lead a session of its own, end when the *thread* that starts it does, and be
/// confined as said, before its program runs.
pub fn confine(command: &mut Command, how: Confinement) {
    #[expect(unsafe_code, reason = "what only the child can do has to run in it")]
    // SAFETY: between `fork` and `exec` of a process that may have other threads, only what is safe in a signal handler
    // may be done. `become_confined` makes system calls on values that it owns: it takes no lock and allocates nothing.
    unsafe {
        command.pre_exec(move || become_confined(how));
    }
}

fn become_confined(how: Confinement) -> io::Result<()> {
    // The thread that forked may have signals blocked; a program expects none to be.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    rustix::process::setsid()?;
    if how.terminal {
        #[expect(unsafe_code, reason = "the standard library's handle would take a lock")]
        // SAFETY: descriptor 0 is open: the standard library has put the child's standard input there.
        let stdin = unsafe { BorrowedFd::borrow_raw(0) };
        rustix::process::ioctl_tiocsctty(stdin)?;
    }
    if how.own_proc {
        own_proc()?;
    }
    if let Some(rights) = how.rights {
        give_up(rights)?;
    }
    // After the change of user, which would take it back.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    Ok(())
}

fn own_proc() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>)?;
    // The machine's settings are nobody's in a pod, whatever its user.
    let settings = "/proc/sys";
    mount(
        Some(settings),
        settings,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?;
    let again = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, settings, None::<&str>, again, None::<&str>)?;
    Ok(())
}

fn give_up(rights: Rights) -> io::Result<()> {
    let keep = rights.capabilities.0;
    for number in 0..CAPABILITIES {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if !keep.contains(one) && rustix::thread::capability_is_in_bounding_set(one).unwrap_or(false) {
            rustix::thread::remove_capability_from_bounding_set(one)?;
        }
    }
    rustix::thread::clear_ambient_capability_set()?;
    let own = (rustix::process::getuid(), rustix::process::getgid());
    let (uid, gid) = (
        rustix::thread::Uid::from_raw(rights.uid),
        rustix::thread::Gid::from_raw(rights.gid),
    );
    // A user namespace with one user in it allows no change of groups, and none is needed.
    match rustix::thread::set_thread_groups(&[]) {
        Err(error) if (own.0.as_raw(), own.1.as_raw()) != (rights.uid, rights.gid) => {
            return Err(error.into());
        }
        _ => {}
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    let kept = if rights.uid == 0 {
        keep
    } else {
        CapabilitySet::empty()
    };
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_kubernetes_names() {
        let raw = Capabilities::named("NET_RAW").unwrap();
        assert_eq!(Capabilities::named("cap_net_raw"), Some(raw));
        assert_eq!(Capabilities::named("NET"), None);
        assert!(Capabilities::container().contains(raw));
        assert!(!Capabilities::container().without(raw).contains(raw));
        let admin = Capabilities::named("NET_ADMIN").unwrap();
        assert!(!Capabilities::container().contains(admin));
        assert!(Capabilities::container().with(admin).contains(admin));
    }

    fn status(how: Confinement) -> Option<String> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        let mut command = Command::new("cat");
        command.arg("/proc/self/status");
        confine(&mut command, how);
        Some(String::from_utf8(command.output().unwrap().stdout).unwrap())
    }

    fn field<'a>(status: &'a str, name: &str) -> &'a str {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim_start_matches(':').trim()
    }

    #[test]
    fn user_0_keeps_what_is_listed_and_cannot_get_more() {
        let rights = Rights {
            uid: 0,
            gid: 0,
            capabilities: Capabilities::named("KILL").unwrap(),
        };
        let Some(status) = status(Confinement {
            rights: Some(rights),
            ..Confinement::default()
        }) else {
            return;
        };
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(
                u64::from_str_radix(field(&status, set), 16).unwrap(),
                1 << 5,
                "{set}"
            );
        }
        assert_eq!(field(&status, "NoNewPrivs"), "1");
    }

    #[test]
    fn another_user_begins_with_no_capability() {
        let rights = Rights {
            uid: 1337,
            gid: 1338,
            capabilities: Capabilities::container(),
        };
        let Some(status) = status(Confinement {
            rights: Some(rights),
            ..Confinement::default()
        }) else {
            return;
        };
        assert_eq!(field(&status, "Uid"), "1337\t1337\t1337\t1337");
        assert_eq!(field(&status, "Gid"), "1338\t1338\t1338\t1338");
        assert_eq!(field(&status, "Groups"), "");
        assert_eq!(u64::from_str_radix(field(&status, "CapEff"), 16).unwrap(), 0);
    }

    #[test]
    fn a_process_ends_with_the_thread_that_started_it() {
        let (pid, done) = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            command.arg("60");
            confine(&mut command, Confinement::default());
            let child = command.spawn().unwrap();
            (child.id(), child)
        })
        .join()
        .unwrap();
        let mut done = done;
        let status = done.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9),
            "{pid}"
        );
    }
}
