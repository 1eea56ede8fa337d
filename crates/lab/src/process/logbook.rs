//! What a process prints: kept in two files of bounded size, and told to those who follow.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;

/// How large a file becomes before it is put aside; the one that was put aside before is lost then.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// How much is read at once.
const CHUNK: usize = 16 * 1024;

/// The book of one process, over all its restarts.
#[derive(Debug)]
pub(crate) struct Logbook {
    path: PathBuf,
    inner: Mutex<Inner>,
    /// How many bytes were written since the beginning.
    total: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    file: Option<File>,
    /// Where the file that was put aside begins, counted from the beginning of all.
    older: u64,
    /// Where the current one does.
    current: u64,
}

impl Logbook {
    /// A book at the path; an older one is overwritten.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(crate) fn new(path: PathBuf) -> io::Result<Arc<Self>> {
        let file = File::create(&path)?;
        Ok(Arc::new(Self {
            path,
            inner: Mutex::new(Inner {
                file: Some(file),
                older: 0,
                current: 0,
            }),
            total: watch::Sender::new(0),
        }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is kept.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of bytes so far, and each time there are more.
    pub(crate) fn total(&self) -> watch::Receiver<u64> {
        self.total.subscribe()
    }

    /// A pipe whose contents go into the book: the writing end.
    ///
    /// # Errors
    /// There is no pipe to be had.
    pub(crate) fn pipe(self: &Arc<Self>) -> io::Result<OwnedFd> {
        let (read, write) = io::pipe()?;
        let mut read = pipe::Receiver::from_owned_fd(OwnedFd::from(read))?;
        let book = Arc::clone(self);
        tokio::spawn(async move {
            let mut chunk = vec![0; CHUNK];
            while let Ok(length @ 1..) = read.read(&mut chunk).await {
                book.write(chunk.get(..length).unwrap_or_default());
            }
        });
        Ok(OwnedFd::from(write))
    }

    /// Adds to it. What the disk does not take is lost.
    pub(crate) fn write(&self, bytes: &[u8]) {
        let mut inner = self.inner();
        let total = *self.total.borrow();
        if total.saturating_sub(inner.current) >= MAX_FILE {
            let _ = fs::rename(&self.path, self.aside());
            inner.file = File::create(&self.path).ok();
            inner.older = inner.current;
            inner.current = total;
        }
        if let Some(file) = &mut inner.file {
            let _ = file.write_all(bytes);
        }
        let length = u64::try_from(bytes.len()).unwrap_or_default();
        self.total
            .send_modify(|total| *total = total.saturating_add(length));
    }

    fn aside(&self) -> PathBuf {
        self.path.with_extension("log.1")
    }

    /// Up to a chunk from a place in all that was written; from the oldest that is still there, where that is later.
    /// Gives the place after it.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn read(&self, from: u64) -> io::Result<(Vec<u8>, u64)> {
        let inner = self.inner();
        let from = from.max(inner.older);
        let (path, start, most) = if from < inner.current {
            (self.aside(), inner.older, inner.current.saturating_sub(from))
        } else {
            (self.path.clone(), inner.current, u64::MAX)
        };
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from.saturating_sub(start)))?;
        let mut bytes = Vec::new();
        let chunk = u64::try_from(CHUNK).unwrap_or(u64::MAX);
        file.take(most.min(chunk)).read_to_end(&mut bytes)?;
        let length = u64::try_from(bytes.len()).unwrap_or_default();
        Ok((bytes, from.saturating_add(length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(book: &Logbook) -> Vec<u8> {
        let (mut out, mut from) = (Vec::new(), 0);
        loop {
            let (bytes, next) = book.read(from).unwrap();
            if bytes.is_empty() {
                return out;
            }
            out.extend(bytes);
            from = next;
        }
    }

    #[test]
    fn a_book_keeps_the_newest_and_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let book = Logbook::new(dir.path().join("a.log")).unwrap();
        let line = |n: u32| format!("{n:01023}\n");
        let lines = 10 * 1024;
        for n in 0..lines {
            book.write(line(n).as_bytes());
        }
        let kept = String::from_utf8(all(&book)).unwrap();
        assert!(kept.ends_with(&line(lines - 1)));
        let bound = usize::try_from(2 * MAX_FILE).unwrap() + CHUNK;
        assert!(kept.len() <= bound && kept.len() >= bound / 3, "{}", kept.len());
        let on_disk: u64 = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .sum();
        assert_eq!(on_disk, u64::try_from(kept.len()).unwrap());
        // One line after the other, none twice and none missing.
        let first: u32 = kept.lines().next().unwrap().parse().unwrap();
        for (expect, line) in (first..).zip(kept.lines()) {
            assert_eq!(line.parse::<u32>().unwrap(), expect);
        }
    }

    #[tokio::test]
    async fn what_comes_by_a_pipe_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let book = Logbook::new(dir.path().join("a.log")).unwrap();
        let mut total = book.total();
        let mut pipe = File::from(book.pipe().unwrap());
        pipe.write_all(b"hello\n").unwrap();
        total.wait_for(|total| *total == 6).await.unwrap();
        assert_eq!(all(&book), b"hello\n");
    }
}
