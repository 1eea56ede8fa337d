//! A tar archive (POSIX ustar), compressed by gzip, for its owner alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Bytes of a block: heads and contents are whole ones.
const BLOCK: usize = 512;

/// An archive while it is written.
pub(super) struct Archive {
    out: GzEncoder<File>,
    /// The directory that everything is in.
    root: String,
    time: i64,
}

impl Archive {
    /// Makes the file, mode 0600. One that is there already is an error.
    pub(super) fn create(path: &Path, root: &str, time: i64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Self {
            out: GzEncoder::new(file, Compression::default()),
            root: root.to_owned(),
            time,
        })
    }

    /// Adds a file.
    pub(super) fn add(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let head = head(&format!("{}/{name}", self.root), bytes.len(), self.time)
            .ok_or_else(|| io::Error::other(format!("`{name}` is too long a name, or too large")))?;
        self.out.write_all(&head)?;
        self.out.write_all(bytes)?;
        let rest = bytes.len().next_multiple_of(BLOCK) - bytes.len();
        self.out.write_all(&vec![0; rest])
    }

    /// Ends it; how many bytes it has.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        let file = self.out.finish()?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    }
}

fn head(name: &str, size: usize, time: i64) -> Option<[u8; BLOCK]> {
    let mut head = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        let place = head.get_mut(at..at + bytes.len())?;
        place.copy_from_slice(bytes);
        Some(())
    };
    if name.len() > 100 || size >= 0o777_7777_7777 {
        return None;
    }
    put(0, name.as_bytes())?;
    put(100, b"0000600\0")?;
    put(108, b"0000000\0")?;
    put(116, b"0000000\0")?;
    put(124, format!("{size:011o}\0").as_bytes())?;
    put(136, format!("{:011o}\0", time.max(0)).as_bytes())?;
    put(148, b"        ")?;
    put(156, b"0")?;
    put(257, b"ustar\x0000")?;
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    head.get_mut(148..156)?.copy_from_slice(sum.as_bytes());
    Some(head)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn tar_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz");
        let mut archive = Archive::create(&path, "root", 1_700_000_000).unwrap();
        archive.add("a/b.txt", b"hello\n").unwrap();
        archive.add("empty", b"").unwrap();
        archive.add("block", &[b'x'; BLOCK]).unwrap();
        assert!(archive.add(&"n".repeat(200), b"").is_err());
        archive.finish().unwrap();
        assert!(
            Archive::create(&path, "root", 0).is_err(),
            "nothing is written over"
        );
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let Ok(list) = Command::new("tar").arg("-tzf").arg(&path).output() else {
            println!("skipped: no tar");
            return;
        };
        assert!(list.status.success(), "{list:?}");
        assert_eq!(
            String::from_utf8_lossy(&list.stdout),
            "root/a/b.txt\nroot/empty\nroot/block\n"
        );
        let one = Command::new("tar")
            .args(["-xzO", "-f"])
            .arg(&path)
            .arg("root/a/b.txt")
            .output()
            .unwrap();
        assert_eq!(one.stdout, b"hello\n");
    }
}
