//! The system calls for which no safe wrapper is at hand.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

/// Sets an integer socket option.
pub(crate) fn set_int(
    socket: &impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
    #[expect(unsafe_code, reason = "no wrapper at hand knows these options")]
    // SAFETY: the descriptor is open while borrowed; the kernel reads `size` bytes from `value`,
    // which is an initialised c_int of that size that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
