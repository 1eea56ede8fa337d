//! A file that holds everything as it was once, and one that grows by a line for each change since.
//!
//! A change costs the line. When the lines are as long as what they change, everything is written anew, beside the way of a
//! change. Lines are played over what was written; playing them twice comes to the same, so that a crash between the two steps of
//! writing anew does no harm, and neither does one in the middle of a line, which is then left out.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// The lines are that long at least before everything is written anew, in bytes.
const MIN: u64 = 1024 * 1024;

/// Two files that are one state.
#[derive(Debug)]
pub(crate) struct Journal {
    whole: PathBuf,
    lines: PathBuf,
    file: Option<File>,
    /// Of the lines, and of the whole.
    bytes: u64,
    base: u64,
    /// Whether everything has to be written, as soon as it can be.
    stale: bool,
    /// Why something could not be written since.
    why: Option<String>,
    /// Whether lines are not on the disk yet.
    unsynced: bool,
}

impl Journal {
    /// Of `NAME.json` and `NAME.log` below a directory. Nothing is opened or made yet.
    pub(super) fn new(root: &std::path::Path, name: &str) -> Self {
        Self {
            whole: root.join(format!("{name}.json")),
            lines: root.join(format!("{name}.log")),
            file: None,
            bytes: 0,
            base: 0,
            stale: false,
            why: None,
            unsynced: false,
        }
    }

    /// What was written as a whole, and the lines since, in their order; the last line only where it is complete.
    ///
    /// # Errors
    /// What the system says; a file that is not there is empty.
    pub(super) fn read(&mut self) -> io::Result<(Vec<u8>, Vec<String>)> {
        let whole = or_empty(fs::read(&self.whole))?;
        let text = or_empty(fs::read(&self.lines))?;
        let complete = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        self.base = length(whole.len());
        self.bytes = length(complete);
        // What follows a torn line would be one with it.
        self.stale = complete < text.len();
        let text = String::from_utf8_lossy(text.get(..complete).unwrap_or_default()).into_owned();
        Ok((whole, text.lines().map(str::to_owned).collect()))
    }

    /// Adds lines. They outlive the process at once, and a power failure from the next [`Self::settle`] on.
    ///
    /// # Errors
    /// What the system says; everything is then written at the next [`Self::settle`].
    pub(crate) fn add(&mut self, lines: &str) -> io::Result<()> {
        if self.stale {
            let why = self.why.clone().map(io::Error::other);
            return why.map_or(Ok(()), Err);
        }
        let written = self.append(lines.as_bytes());
        self.failed(&written);
        self.unsynced = true;
        written
    }

    fn failed(&mut self, written: &io::Result<()>) {
        if let Err(error) = written {
            self.stale = true;
            self.why = Some(error.to_string());
        }
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let mut options = fs::OpenOptions::new();
                self.file
                    .insert(options.append(true).create(true).mode(0o600).open(&self.lines)?)
            }
        };
        file.write_all(lines)?;
        self.bytes += length(lines.len());
        Ok(())
    }

    /// Brings what was added to the disk, and writes everything anew where that is due: `whole` says how.
    ///
    /// # Errors
    /// What the system says; it is tried again at the next one.
    pub(crate) fn settle(&mut self, whole: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<()> {
        if !self.stale && self.bytes <= self.base.max(MIN) {
            let due = std::mem::take(&mut self.unsynced);
            return match self.file.as_ref().filter(|_| due) {
                Some(file) => file.sync_data(),
                None => Ok(()),
            };
        }
        let written = self.write(whole);
        self.failed(&written);
        written
    }

    fn write(&mut self, whole: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<()> {
        let bytes = whole()?;
        let (beside, place) = super::beside(&self.whole, &bytes)?;
        fs::rename(beside, place)?;
        self.file = None;
        super::remove(&self.lines)?;
        (self.base, self.bytes) = (length(bytes.len()), 0);
        (self.stale, self.why, self.unsynced) = (false, None, false);
        Ok(())
    }
}

fn or_empty(read: io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> impl FnOnce() -> io::Result<Vec<u8>> {
        let bytes = text.as_bytes().to_vec();
        move || Ok(bytes)
    }

    fn read(root: &std::path::Path) -> (String, Vec<String>) {
        let (whole, lines) = Journal::new(root, "a").read().unwrap();
        (String::from_utf8(whole).unwrap(), lines)
    }

    #[test]
    fn lines_are_found_again_and_everything_is_written_when_they_are_long() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(dir.path(), "a");
        assert_eq!(journal.read().unwrap(), (Vec::new(), Vec::new()));
        journal.add("1\n2\n").unwrap();
        assert_eq!(
            read(dir.path()),
            (String::new(), vec!["1".to_owned(), "2".to_owned()])
        );
        journal.settle(|| unreachable!("it is short")).unwrap();
        let long = format!("{}\n", "x".repeat(usize::try_from(MIN).unwrap()));
        journal.add(&long).unwrap();
        journal.settle(whole("all")).unwrap();
        assert_eq!(read(dir.path()), ("all".to_owned(), vec![]));
        journal.add("3\n").unwrap();
        assert_eq!(read(dir.path()), ("all".to_owned(), vec!["3".to_owned()]));
    }

    #[test]
    fn a_line_that_is_torn_is_left_out_and_nothing_is_written_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.json"), "old").unwrap();
        fs::write(dir.path().join("a.log"), "1\n{\"to").unwrap();
        let mut journal = Journal::new(dir.path(), "a");
        assert_eq!(journal.read().unwrap().1, ["1"]);
        journal.add("2\n").unwrap();
        journal.settle(whole("new")).unwrap();
        assert_eq!(read(dir.path()), ("new".to_owned(), vec![]));
    }

    #[test]
    fn what_could_not_be_written_is_written_with_everything_later() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("not-there");
        let mut journal = Journal::new(&root, "a");
        assert!(journal.add("1\n").is_err());
        assert!(journal.settle(whole("all")).is_err());
        fs::create_dir(&root).unwrap();
        journal.settle(whole("all")).unwrap();
        journal.add("2\n").unwrap();
        assert_eq!(read(&root), ("all".to_owned(), vec!["2".to_owned()]));
    }
}
