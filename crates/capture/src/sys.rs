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

/// Gives back the pages of code that only starting needed: what runs later is read from the program's file again when it
/// does. Returns how many bytes were mapped.
///
/// Without it they count as resident until somebody else needs the memory.
///
/// # Errors
/// The process cannot read what it has mapped, or the kernel refuses.
pub fn release_code() -> io::Result<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut released = 0;
    for (start, end) in maps.lines().filter_map(code) {
        let Some(address) = std::ptr::NonNull::new(std::ptr::with_exposed_provenance_mut(start)) else {
            continue;
        };
        #[expect(unsafe_code, reason = "no wrapper can know what is mapped there")]
        // SAFETY: the range is one mapping of this process, private, of a file, and executable but not writable: none of its
        // pages differs from the file, which cannot be written while it runs. They come back as they were.
        unsafe {
            nix::sys::mman::madvise(
                address,
                end.saturating_sub(start),
                nix::sys::mman::MmapAdvise::MADV_DONTNEED,
            )?;
        }
        released += end.saturating_sub(start);
    }
    Ok(released)
}

/// The range of a line of `/proc/PID/maps`, where it is code of a file.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights, path) = (words.next()?, words.next()?, words.nth(3)?);
    let (start, end) = range.split_once('-')?;
    let hex = |text| usize::from_str_radix(text, 16).ok();
    (rights == "r-xp" && path.starts_with('/')).then_some((hex(start)?, hex(end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_given_back() {
        let line = |rights: &str, path: &str| format!("1000-3000 {rights} 00000000 fe:00 77 {path}");
        assert_eq!(code(&line("r-xp", "/bin/meshward")), Some((0x1000, 0x3000)));
        for (rights, path) in [
            ("rw-p", "/bin/meshward"),
            ("r--p", "/bin/meshward"),
            ("rwxp", "/bin/meshward"),
            ("r-xs", "/bin/meshward"),
            ("r-xp", "[vdso]"),
            ("r-xp", ""),
        ] {
            assert_eq!(code(&line(rights, path)), None, "{rights} {path}");
        }
    }

    #[test]
    fn code_that_was_given_back_runs_on() {
        let resident = || {
            let text = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = text.lines().find(|l| l.starts_with("RssFile")).unwrap();
            line.split_ascii_whitespace()
                .nth(1)
                .unwrap()
                .parse::<usize>()
                .unwrap()
        };
        let before = resident();
        assert!(release_code().unwrap() > 0);
        let after = resident();
        assert!(after < before, "{before} kB before, {after} kB after");
        assert_eq!(code("1-2 r-xp 0 0 0 /a"), Some((1, 2)));
    }
}
