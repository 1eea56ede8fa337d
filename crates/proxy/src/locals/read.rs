//! Registrations from their files.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file;
use crate::Registration;

/// The largest file, bytes.
const MAX_FILE: u64 = 64 * 1024;

/// The most files of one directory.
const MAX_FILES: usize = 4096;

/// The most addresses of one workload.
const MAX_ADDRESSES: usize = 16;

/// Why a file stands for nobody.
#[derive(Debug, thiserror::Error)]
#[error("registration `{}`: {why}; its workload is refused", path.display())]
pub(super) struct Unusable {
    path: PathBuf,
    why: String,
}

/// All that can be used; what cannot is logged.
pub(super) fn directory(directory: &Path) -> Result<Vec<Arc<Registration>>, String> {
    let unread = |e: std::io::Error| format!("cannot read `{}`: {e}", directory.display());
    let mut found = Vec::new();
    for (count, entry) in std::fs::read_dir(directory).map_err(unread)?.enumerate() {
        if count >= MAX_FILES {
            return Err(format!(
                "`{}` holds more than {MAX_FILES} files",
                directory.display()
            ));
        }
        let path = entry.map_err(unread)?.path();
        // What is not named so is not finished: it becomes a registration by rename.
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        match one(&path) {
            Ok(registration) => found.push(Arc::new(registration)),
            Err(error) if !path.exists() => tracing::debug!("gone while it was read: {error}"),
            Err(error) => tracing::error!("{error}"),
        }
    }
    Ok(found)
}

/// One, whole and consistent.
pub(super) fn one(path: &Path) -> Result<Registration, Unusable> {
    let unusable = |why: String| Unusable {
        path: path.to_owned(),
        why,
    };
    let text = text(path).map_err(|e| unusable(e.to_string()))?;
    let registration: Registration = serde_json::from_slice(&text).map_err(|e| unusable(e.to_string()))?;
    match problem(path, &registration) {
        Some(why) => Err(unusable(why)),
        None => Ok(registration),
    }
}

fn text(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut file = std::fs::File::open(path)?.take(MAX_FILE + 1);
    file.read_to_end(&mut text)?;
    if file.limit() == 0 {
        return Err(std::io::Error::other(format!("larger than {MAX_FILE} bytes")));
    }
    Ok(text)
}

fn problem(path: &Path, registration: &Registration) -> Option<String> {
    let mark = registration.mark;
    if mark < capture::FIRST_POD_MARK {
        return Some(format!("the mark `{mark}` is not one of a workload"));
    }
    if path.file_name() != file(Path::new(""), mark).file_name() {
        return Some(format!("the mark `{mark}` is not that of the file's name"));
    }
    if registration.addresses.is_empty() || registration.addresses.len() > MAX_ADDRESSES {
        return Some(format!("it has not 1 to {MAX_ADDRESSES} addresses"));
    }
    let of_another = |id: &model::SpiffeId| id.namespace() != registration.namespace;
    registration
        .identity
        .as_ref()
        .filter(|id| of_another(id))
        .map(|id| {
            format!(
                "the identity `{id}` is not of the namespace `{}`",
                registration.namespace
            )
        })
}
