//! The decoders of what strangers send, each as one function that takes any bytes.
//!
//! A target panics when its decoder does, or when it breaks a law that holds for all input.  Two
//! programs call them: the runner here, and `fuzz/coverage`, which is guided by coverage.
#![warn(missing_docs)]
#![expect(clippy::panic, reason = "a target that finds something says so by a panic")]

mod admin_line;
mod decisions;
mod ext_authz;
mod http2;
pub mod mutate;
mod targets;
mod tokens;
mod tunnels;

use std::io;
use std::path::{Path, PathBuf};

/// One decoder.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its directory below `fuzz/corpus`.
    pub name: &'static str,
    /// What takes the input.
    pub run: fn(&[u8]),
    /// Words that the decoder knows, for the mutations.
    pub words: &'static [&'static [u8]],
}

/// All targets.
pub const TARGETS: &[Target] = targets::ALL;

/// The target of that name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// The files of a target's corpus, sorted; none where there is no such directory.
///
/// # Errors
/// When a directory cannot be read.
pub fn corpus(target: &str) -> io::Result<Vec<PathBuf>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files = Vec::new();
    below(&dir, &mut files)?;
    files.sort();
    Ok(files)
}

/// All files below a directory, which need not be there.
///
/// # Errors
/// When it is there and cannot be read.
pub fn below(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !dir.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            below(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was found once stays in the corpus, and is not found again.
    #[test]
    fn every_target_takes_its_whole_corpus() {
        for target in TARGETS {
            let files = corpus(target.name).unwrap();
            assert!(!files.is_empty(), "{} has no seeds", target.name);
            for file in files {
                println!("{}", file.display());
                (target.run)(&std::fs::read(&file).unwrap());
            }
        }
    }

    #[test]
    fn no_corpus_is_orphaned() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for entry in std::fs::read_dir(root).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(find(&name).is_some(), "{name}");
        }
    }
}
