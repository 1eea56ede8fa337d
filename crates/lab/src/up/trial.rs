//! What the machine lets processes have, found out by trying.

use std::io;
use std::process::Command;

use capture::process::{Confinement, confine};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// A program that is nowhere: what fails before it is looked for fails for another reason.
const NOWHERE: &str = "/meshward/there-is-no-such-program";

/// Whether a container can have a process namespace with a `/proc` of its own. Inside another container, where parts of
/// `/proc` are covered, the kernel refuses that to anybody but root.
pub(super) fn own_proc() -> bool {
    let attempt = || -> io::Result<io::Error> {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_SLAVE,
            None::<&str>,
        )?;
        let mut command = Command::new(NOWHERE);
        let how = Confinement {
            own_proc: true,
            ..Confinement::default()
        };
        confine(&mut command, how);
        match command.spawn() {
            Err(error) => Ok(error),
            Ok(mut child) => child.wait().map(|_| io::Error::other("there is such a program")),
        }
    };
    // On a thread of its own, whose namespaces end with it.
    let tried = std::thread::spawn(attempt).join();
    matches!(tried, Ok(Ok(error)) if error.kind() == io::ErrorKind::NotFound)
}
