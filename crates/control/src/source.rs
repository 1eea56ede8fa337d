//! Files and directories as a source of objects: what is in them now, told as changes.
//!
//! The kernel only says that something has happened; what has is found out by looking at every file's metadata and
//! reading those that differ. So a notice that was lost, a directory that was replaced or a mounted Secret whose link
//! was swapped costs at most the time to the next look.

mod scan;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::{Parsed, Problem};
use tokio::sync::mpsc;

pub(crate) use scan::Scanner;
use watch::Notices;

/// How many files are read of all sources; what is beyond is told and left out.
pub(crate) const MAX_FILES: usize = 20_000;
/// How deep directories are followed.
const MAX_DEPTH: usize = 32;
/// How many directories are watched.
const MAX_DIRECTORIES: usize = 4_096;
/// How long to wait for more after the first notice: a program that writes several files is met once.
const QUIET: Duration = Duration::from_millis(5);
/// How soon a file is looked at again that was not complete.
const AGAIN: Duration = Duration::from_millis(20);
/// How long a file that was changed in its place must be as it is before it is read.
const SETTLE: Duration = Duration::from_millis(5);
/// How often to look without a notice.
const POLL: Duration = Duration::from_secs(2);
/// The same, where the kernel gives no notices.
const POLL_ALONE: Duration = Duration::from_millis(250);

/// Something that is different now.
#[derive(Debug)]
pub(crate) struct Change {
    /// The file or directory.
    pub(crate) path: PathBuf,
    pub(crate) now: Now,
}

/// What there is now.
#[derive(Debug)]
pub(crate) enum Now {
    /// A file was read: what it is called, its text, and what that holds.
    File {
        shown: String,
        text: Arc<str>,
        parsed: Box<Parsed>,
    },
    /// A file or directory cannot be read; what it held stays.
    Unreadable(Box<Problem>),
    /// It is not there.
    Gone,
}

/// Follows the sources for ever; ends when nobody listens.
pub(crate) async fn follow(mut scanner: Scanner, to: mpsc::Sender<Vec<Change>>) {
    let notices = Notices::new();
    // The first look was before anything was watched.
    let mut again = Some(Duration::ZERO);
    loop {
        let poll = if notices.complete() { POLL } else { POLL_ALONE };
        let pause = again.unwrap_or(poll);
        let noticed = tokio::time::timeout(pause, notices.next()).await.is_ok();
        if noticed {
            tokio::time::sleep(QUIET).await;
        }
        let looking = {
            let notices = notices.clone();
            tokio::task::spawn_blocking(move || {
                let scan = scanner.scan(|path| notices.is_being_written(path));
                notices.watch(&scan.directories);
                (scanner, scan)
            })
        };
        let Ok((back, scan)) = looking.await else {
            tracing::error!("the sources are not followed any more");
            return;
        };
        scanner = back;
        again = scan.again;
        if !scan.changes.is_empty() && to.send(scan.changes).await.is_err() {
            return;
        }
    }
}
