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

/// Gives back the pages of the program, code and constants, that only starting needed: what runs later is read from its file
/// again when it does. Returns how many bytes were mapped.
///
/// Without it they count as resident until somebody else needs the memory.
///
/// # Errors
/// The process cannot read what it has mapped, or the kernel refuses.
pub fn release_code() -> io::Result<usize> {
    let maps = std::fs::read_to_string("/proc/self/smaps")?;
    let mut released = 0;
    for (start, end) in unchanged(&maps) {
        let Some(address) = std::ptr::NonNull::new(std::ptr::with_exposed_provenance_mut(start)) else {
            continue;
        };
        #[expect(unsafe_code, reason = "no wrapper can know what is mapped there")]
        // SAFETY: the range is one mapping of this process, private, of a file, and not writable, so that what it holds
        // cannot change meanwhile; no page of it is anonymous, so that none differs from the file, which cannot be written
        // while it runs. They come back as they were.
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

/// The ranges of `/proc/PID/smaps` that are code or constants of a file, and as they are there.
fn unchanged(smaps: &str) -> Vec<(usize, usize)> {
    let mut ranges = Vec::new();
    let mut last = None;
    for line in smaps.lines() {
        if let Some(anonymous) = line.strip_prefix("Anonymous:") {
            ranges.extend(last.take().filter(|_| anonymous.trim() == "0 kB"));
        } else if let Some(range) = mapping(line) {
            last = range;
        }
    }
    ranges
}

/// The first line of a mapping: its range, where it is of a file and cannot be written. `None` for other lines.
fn mapping(line: &str) -> Option<Option<(usize, usize)>> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    let (start, end) = range.split_once('-')?;
    let hex = |text| usize::from_str_radix(text, 16).ok();
    let range = (hex(start)?, hex(end)?);
    let of_file = words.nth(3).is_some_and(|path| path.starts_with('/'));
    Some((matches!(rights, "r-xp" | "r--p") && of_file).then_some(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_its_file_is_given_back() {
        let smaps = |rights: &str, path: &str, anonymous: &str| {
            unchanged(&format!(
                "1000-3000 {rights} 00000000 fe:00 77   {path}\nSize:  8 kB\nRss: 8 kB\nAnonymous:   {anonymous} kB\nVmFlags: rd mr\n"
            ))
        };
        for rights in ["r-xp", "r--p"] {
            assert_eq!(smaps(rights, "/bin/meshward", "0"), [(0x1000, 0x3000)]);
            // Relocated, and then made read-only.
            assert_eq!(smaps(rights, "/bin/meshward", "4"), []);
        }
        for (rights, path) in [
            ("rw-p", "/bin/meshward"),
            ("rwxp", "/bin/meshward"),
            ("r-xs", "/bin/meshward"),
            ("r-xp", "[vdso]"),
            ("r--p", ""),
        ] {
            assert_eq!(smaps(rights, path, "0"), [], "{rights} {path}");
        }
        assert_eq!(unchanged("1000-3000 r--p 0 fe:00 77 /a\nRss: 8 kB\n"), []);
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
    }
}
