//! Looking at the sources: which files there are, and what those hold that have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use api::{MAX_BYTES, Problem, Severity};

use super::{AGAIN, Change, MAX_DEPTH, MAX_DIRECTORIES, MAX_FILES, Now, SETTLE};
use crate::config::Source;

/// Within this time after a change a file may change again without its metadata showing it, and one that was emptied
/// is not taken for empty.
const YOUNG: Duration = Duration::from_millis(100);
/// What is read of a directory.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// Where a source or a file of one cannot be read.
const UNREADABLE: &str = "MW0602";
/// Where there is more than is followed.
const TOO_MANY: &str = "MW0605";

/// Remembers what was seen last.
#[derive(Debug)]
pub(crate) struct Scanner {
    sources: Vec<Source>,
    recursive: bool,
    /// Files, as they were when they were read.
    seen: BTreeMap<PathBuf, Seen>,
    /// Files that were changed in place and not read since, as they were found and when that was.
    changing: BTreeMap<PathBuf, (Signature, Instant)>,
    /// What could not be looked at, and was told.
    told: BTreeSet<PathBuf>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    signature: Signature,
    /// Whether it was read so soon after a change that another one may have gone unnoticed.
    unsure: bool,
    content: Content,
}

/// What a file held.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Content {
    Text([u8; 32]),
    Unreadable(String),
}

/// Differs when a file was changed, or another one stands in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Signature {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What one look has found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) changes: Vec<Change>,
    /// Directories whose changes matter.
    pub(crate) directories: Vec<PathBuf>,
    /// How soon to look again, where something was not complete.
    pub(crate) again: Option<Duration>,
}

impl Scan {
    fn look_again(&mut self, within: Duration) {
        self.again = Some(self.again.map_or(within, |again| again.min(within)));
    }
}

/// What is to be read, gathered before anything is.
#[derive(Default)]
struct Listing {
    files: BTreeMap<PathBuf, String>,
    directories: Vec<PathBuf>,
    /// Device and inode of each: a link may lead back to where it comes from.
    visited: BTreeSet<(u64, u64)>,
    /// Directories that could not be read: what is known of them stays.
    unreadable: BTreeMap<PathBuf, Problem>,
}

impl Scanner {
    pub(crate) fn new(sources: Vec<Source>, recursive: bool) -> Self {
        Self {
            sources,
            recursive,
            seen: BTreeMap::new(),
            changing: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }

    /// Files that somebody knows something of already: where they are not there, that is told.
    pub(crate) fn expect(&mut self, paths: impl Iterator<Item = PathBuf>) {
        let unknown = Seen {
            signature: Signature::NONE,
            unsure: true,
            content: Content::Unreadable(String::new()),
        };
        self.seen.extend(paths.map(|path| (path, unknown.clone())));
    }

    /// Looks once. Files that `is_being_written` says so of are left for the next time.
    pub(crate) fn scan(&mut self, is_being_written: impl Fn(&Path) -> bool) -> Scan {
        let mut listing = Listing::default();
        for source in &self.sources {
            list_source(
                source,
                self.recursive,
                self.seen.contains_key(&source.path),
                &mut listing,
            );
        }
        let mut scan = Scan {
            directories: std::mem::take(&mut listing.directories),
            ..Scan::default()
        };
        self.tell(&mut listing, &mut scan);
        for (path, shown) in &listing.files {
            if is_being_written(path) {
                scan.look_again(AGAIN);
                continue;
            }
            self.file(path, shown, &mut scan);
        }
        let kept = |path: &Path| {
            path.ancestors()
                .any(|above| listing.unreadable.contains_key(above))
        };
        let gone: Vec<_> = self
            .seen
            .keys()
            .filter(|path| !listing.files.contains_key(*path) && !kept(path))
            .cloned()
            .collect();
        for path in gone {
            self.seen.remove(&path);
            self.changing.remove(&path);
            scan.changes.push(Change { path, now: Now::Gone });
        }
        scan
    }

    /// Directories that cannot be read now, and those that can be again.
    fn tell(&mut self, listing: &mut Listing, scan: &mut Scan) {
        self.told.retain(|path| {
            let still = listing.unreadable.contains_key(path);
            if !still {
                scan.changes.push(Change {
                    path: path.clone(),
                    now: Now::Gone,
                });
            }
            still
        });
        for (path, problem) in &listing.unreadable {
            if self.told.insert(path.clone()) {
                let now = Now::Unreadable(Box::new(problem.clone()));
                scan.changes.push(Change {
                    path: path.clone(),
                    now,
                });
            }
        }
    }

    fn file(&mut self, path: &Path, shown: &str, scan: &mut Scan) {
        let before = self.seen.get(path).cloned();
        let signature = match fs::metadata(path) {
            // Opening anything else may wait for ever.
            Ok(found) if !found.is_file() => return self.unreadable(path, shown, "it is no file", scan),
            Ok(found) => Signature::of(&found),
            // It went away since it was listed; the next look says so.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return scan.look_again(AGAIN),
            Err(error) => return self.unreadable(path, shown, &error.to_string(), scan),
        };
        if before
            .as_ref()
            .is_some_and(|seen| seen.signature == signature && !seen.unsure)
        {
            return;
        }
        let in_place = before
            .as_ref()
            .is_some_and(|seen| seen.signature.is_rewritten(&signature));
        if in_place && !self.has_settled(path, signature, SETTLE) {
            return scan.look_again(SETTLE);
        }
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            Err(why) => return self.unreadable(path, shown, &why, scan),
        };
        if fs::metadata(path).map(|found| Signature::of(&found)).ok() != Some(signature) {
            return scan.look_again(AGAIN);
        }
        let unsure = signature.is_young();
        if unsure {
            scan.look_again(AGAIN);
        }
        let is_empty = bytes.iter().all(u8::is_ascii_whitespace);
        if is_empty && before.is_some() && !self.has_settled(path, signature, YOUNG) {
            return scan.look_again(AGAIN);
        }
        self.changing.remove(path);
        let content = Content::Text(sha256(&bytes));
        let same = before.as_ref().is_some_and(|seen| seen.content == content);
        self.seen.insert(
            path.to_owned(),
            Seen {
                signature,
                unsure,
                content,
            },
        );
        if !same {
            let now = Now::File {
                shown: shown.to_owned(),
                parsed: Box::new(crate::world::parse(shown, &bytes)),
                text: String::from_utf8_lossy(&bytes).into(),
            };
            scan.changes.push(Change {
                path: path.to_owned(),
                now,
            });
        }
    }

    /// Whether a file that was changed in its place has been as it is for so long. Whoever writes to it may be in the middle
    /// of it, and its times may be those from before: it is our own clock that counts.
    fn has_settled(&mut self, path: &Path, signature: Signature, long: Duration) -> bool {
        let now = (signature, Instant::now());
        let first = self.changing.entry(path.to_owned()).or_insert(now);
        if first.0 != signature {
            *first = now;
        }
        first.1.elapsed() >= long
    }

    fn unreadable(&mut self, path: &Path, shown: &str, why: &str, scan: &mut Scan) {
        let content = Content::Unreadable(why.to_owned());
        if self.seen.get(path).is_some_and(|seen| seen.content == content) {
            return;
        }
        let seen = Seen {
            signature: Signature::NONE,
            unsure: true,
            content,
        };
        self.seen.insert(path.to_owned(), seen);
        let now = Now::Unreadable(Box::new(cannot(shown, why)));
        scan.changes.push(Change {
            path: path.to_owned(),
            now,
        });
    }
}

impl Signature {
    const NONE: Self = Self {
        device: 0,
        inode: 0,
        bytes: 0,
        modified: (0, 0),
        changed: (0, 0),
    };

    fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Whether it is the same file with another content: not one that was moved to its place, whole.
    fn is_rewritten(&self, now: &Self) -> bool {
        self != now && (self.device, self.inode) == (now.device, now.inode)
    }

    fn is_young(&self) -> bool {
        let since = u64::try_from(self.changed.0).unwrap_or_default();
        let part = u32::try_from(self.changed.1).unwrap_or_default();
        let at = SystemTime::UNIX_EPOCH + Duration::new(since, part);
        // A file from the future never grows old: it is taken for settled, but for clocks that differ a little.
        match at.elapsed() {
            Ok(age) => age < YOUNG,
            Err(ahead) => ahead.duration() < YOUNG,
        }
    }
}

/// A directory that is missing is one that cannot be read: emptying a mesh takes more than a mount that is late. A file
/// that was there and is missing is gone.
fn list_source(source: &Source, recursive: bool, was_file: bool, listing: &mut Listing) {
    match fs::metadata(&source.path) {
        Ok(found) if found.is_dir() => {
            let depth = if recursive { MAX_DEPTH } else { 1 };
            list_directory(&source.path, &source.shown, depth, listing);
        }
        Ok(_) => {
            listing
                .directories
                .extend(source.path.parent().map(Path::to_path_buf));
            listing.files.insert(source.path.clone(), source.shown.clone());
        }
        Err(error) => {
            listing
                .directories
                .extend(source.path.parent().map(Path::to_path_buf));
            if !(was_file && error.kind() == io::ErrorKind::NotFound) {
                let problem = cannot(&source.shown, &error.to_string());
                listing.unreadable.insert(source.path.clone(), problem);
            }
        }
    }
}

fn list_directory(path: &Path, shown: &str, depth: usize, listing: &mut Listing) {
    if listing.directories.len() >= MAX_DIRECTORIES {
        listing
            .unreadable
            .insert(path.to_owned(), too_many(shown, MAX_DIRECTORIES, "directories"));
        return;
    }
    // One that cannot be asked cannot be read either, which is told below.
    let identity = fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    if identity.is_some_and(|identity| !listing.visited.insert(identity)) {
        return;
    }
    listing.directories.push(path.to_owned());
    let entries = fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            listing
                .unreadable
                .insert(path.to_owned(), cannot(shown, &error.to_string()));
            return;
        }
    };
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let (path, shown) = (entry.path(), join(shown, &name.to_string_lossy()));
        // Hidden ones are editors' and mounted volumes' own.
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let is_directory = fs::metadata(&path).is_ok_and(|found| found.is_dir());
        if is_directory {
            if depth > 1 {
                list_directory(&path, &shown, depth - 1, listing);
            }
        } else if is_text(&path) {
            if listing.files.len() >= MAX_FILES {
                listing
                    .unreadable
                    .insert(path, too_many(&shown, MAX_FILES, "files"));
                return;
            }
            listing.files.insert(path, shown);
        }
    }
}

fn is_text(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

fn join(shown: &str, name: &str) -> String {
    format!("{}/{name}", shown.trim_end_matches('/'))
}

/// A file that is too large is refused without being read whole.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let found = file.metadata().map_err(|error| error.to_string())?;
    let most = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() > MAX_BYTES || found.len() > most {
        let size = found.len().max(most.saturating_add(1));
        return Err(format!(
            "it has {size} bytes, and at most {MAX_BYTES} (8 MiB) are read"
        ));
    }
    Ok(bytes)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

fn cannot(shown: &str, why: &str) -> Problem {
    let mut problem = Problem::new(Severity::Error, UNREADABLE, format!("it cannot be read: {why}"))
        .remedy("make it readable for the control plane; what it held before stays in force");
    problem.file = shown.to_owned();
    problem
}

fn too_many(shown: &str, most: usize, what: &str) -> Problem {
    let message = format!("at most {most} {what} are followed; this and what comes after is left out");
    let mut problem = Problem::new(Severity::Error, TOO_MANY, message).remedy("give fewer");
    problem.file = shown.to_owned();
    problem
}

#[cfg(test)]
mod tests;
