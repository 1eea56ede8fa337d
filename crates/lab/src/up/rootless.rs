//! Without root: the same inside user, network and mount namespaces, in which the user is root.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// Set for the program inside.
const INSIDE: &str = "MESHWARD_UP_ROOTLESS";

/// Whether this is the program inside.
pub(super) fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Starts this program anew inside. Returns only where that is not possible: why, and what can be done.
pub(super) fn enter() -> String {
    // Outside it is found by the user's number; inside every user is 0.
    let base = admin::base();
    let Err(refused) = make();
    match refused {
        Refused::Step(what, errno) => format!("{what}: {errno}; {}", remedy(errno)),
        Refused::Ready => {
            let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
            let error = Command::new(&program)
                .args(super::own_words())
                .env(admin::BASE_VARIABLE, base)
                .env(INSIDE, "1")
                .exec();
            format!("cannot run `{}`: {error}", program.display())
        }
    }
}

enum Refused {
    Step(&'static str, Errno),
    /// Nothing was.
    Ready,
}

fn make() -> Result<Infallible, Refused> {
    let (uid, gid) = (geteuid(), getegid());
    let kinds = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    let step = |what| move |errno| Refused::Step(what, errno);
    unshare(kinds).map_err(step(
        "without root `meshward up` needs user namespaces, and they are refused",
    ))?;
    let write = |path: &str, text: String| {
        fs::write(path, text).map_err(|error: io::Error| {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
            Refused::Step("the user cannot be made root of a user namespace", errno)
        })
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .and_then(|()| {
            mount(
                Some("tmpfs"),
                "/run",
                Some("tmpfs"),
                MsFlags::empty(),
                Some("mode=755"),
            )
        })
        .map_err(step("nothing can be mounted in a user namespace"))?;
    Err(Refused::Ready)
}

/// What has to be changed, as far as it can be told.
fn remedy(errno: Errno) -> String {
    if errno == Errno::EINVAL {
        return "the process has several threads already; this is an error in meshward".to_owned();
    }
    let read =
        |name: &str| fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).unwrap_or_default();
    for (name, bad, good) in [
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ] {
        if read(name).trim() == bad {
            return format!("`sudo sysctl -w {name}={good}` allows it, or run it as root");
        }
    }
    "a container or a security policy may forbid it; allow user namespaces there, or run it as root"
        .to_owned()
}
