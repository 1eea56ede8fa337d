//! The files that `-f` names.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use admin::Failure;

use crate::out::Stop;

/// How many files are read.
const MAX_FILES: usize = 10_000;
/// How deep directories may lie; links to directories are not followed.
const MAX_DEPTH: usize = 32;
/// How much of a file is read: enough to say that it is too large.
const MAX_READ: u64 = 32 * 1024 * 1024;
/// Standard input as messages name it.
const STDIN: &str = "<stdin>";

/// A file as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct File {
    /// As the user named it.
    pub(crate) shown: String,
    pub(crate) bytes: Vec<u8>,
}

/// Reads files, the `.yaml`, `.yml` and `.json` of directories in the order of their names, and standard input for `-`.
///
/// # Errors
/// One cannot be read, a directory holds none, or there are too many.
pub(crate) async fn read(paths: &[PathBuf], recursive: bool) -> Result<Vec<File>, Stop> {
    let paths = paths.to_vec();
    // On a thread of its own, so that a terminal that says nothing does not keep signals from being heard.
    let read = tokio::task::spawn_blocking(move || read_all(&paths, recursive)).await;
    let files = read.map_err(|error| Failure::undecided(error.to_string()))??;
    Ok(files)
}

fn read_all(paths: &[PathBuf], recursive: bool) -> Result<Vec<File>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            if files.iter().any(|file: &File| file.shown == STDIN) {
                return Err(Failure::usage(
                    "standard input can be read once: `-` is given twice",
                ));
            }
            let bytes = bounded(std::io::stdin().lock()).map_err(|error| broken(Path::new(STDIN), &error))?;
            files.push(File {
                shown: STDIN.to_owned(),
                bytes,
            });
            continue;
        }
        let before = files.len();
        if path.is_dir() {
            directory(path, recursive, 0, &mut files)?;
            if files.len() == before {
                let also = if recursive {
                    ""
                } else {
                    "; -R reads the directories below too"
                };
                return Err(Failure::input(format!(
                    "`{}` holds no .yaml, .yml or .json file{also}",
                    path.display()
                )));
            }
        } else {
            files.push(file(path)?);
        }
    }
    Ok(files)
}

fn directory(path: &Path, recursive: bool, depth: usize, files: &mut Vec<File>) -> Result<(), Failure> {
    if depth > MAX_DEPTH {
        let message = format!("`{}`: directories lie more than {MAX_DEPTH} deep", path.display());
        return Err(Failure::input(message));
    }
    let listed = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut entries = listed.map_err(|error| broken(path, &error))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if hidden {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if recursive {
                directory(&path, recursive, depth + 1, files)?;
            }
        } else if path
            .extension()
            .is_some_and(|end| end == "yaml" || end == "yml" || end == "json")
        {
            if files.len() >= MAX_FILES {
                return Err(Failure::input(format!(
                    "more than {MAX_FILES} files are not read at once"
                )));
            }
            files.push(file(&path)?);
        }
    }
    Ok(())
}

fn file(path: &Path) -> Result<File, Failure> {
    let bytes = std::fs::File::open(path)
        .and_then(bounded)
        .map_err(|error| broken(path, &error))?;
    Ok(File {
        shown: path.display().to_string(),
        bytes,
    })
}

fn bounded(from: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_READ).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn broken(path: &Path, error: &std::io::Error) -> Failure {
    Failure::input(format!("cannot read `{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(read: Result<Vec<File>, Failure>, root: &Path) -> Vec<String> {
        let root = format!("{}/", root.display());
        read.unwrap()
            .iter()
            .map(|file| file.shown.replace(&root, ""))
            .collect()
    }

    #[test]
    fn directories_give_their_yaml_and_json_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("below")).unwrap();
        for name in [
            "b.yml",
            "a.yaml",
            "c.json",
            "d.txt",
            ".hidden.yaml",
            "below/e.yaml",
        ] {
            std::fs::write(root.join(name), name).unwrap();
        }
        let paths = [root.to_owned()];
        assert_eq!(
            names(read_all(&paths, false), root),
            ["a.yaml", "b.yml", "c.json"]
        );
        assert_eq!(
            names(read_all(&paths, true), root),
            ["a.yaml", "b.yml", "below/e.yaml", "c.json"]
        );
        let named = [root.join("d.txt")];
        assert_eq!(names(read_all(&named, false), root), ["d.txt"]);
    }

    #[test]
    fn what_cannot_be_read_is_bad_input() {
        let dir = tempfile::tempdir().unwrap();
        let none = read_all(&[dir.path().to_owned()], false).unwrap_err();
        assert!(none.message.contains("-R reads"), "{none}");
        assert_eq!(none.exit, admin::Exit::Input);
        let missing = read_all(&[dir.path().join("x.yaml")], false).unwrap_err();
        assert!(missing.message.contains("x.yaml"), "{missing}");
    }
}
