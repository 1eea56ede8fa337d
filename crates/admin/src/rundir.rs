//! Where the parts of a mesh on one machine keep what they share: one directory a mesh, mode 0700.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The variable that moves the directory of all meshes.
pub const BASE_VARIABLE: &str = "MESHWARD_RUN_DIR";

/// The longest name of a mesh: it becomes part of socket paths (108 bytes at most) and of namespace names.
pub const MAX_NAME: usize = 20;

/// The directory of one mesh.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunDir {
    root: PathBuf,
}

/// Why a name cannot be a mesh's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` cannot name a mesh: up to {MAX_NAME} lower-case letters, digits and `-`, the first a letter")]
pub struct NameError(pub String);

impl RunDir {
    /// The directory of the mesh `name` of the user that runs this.
    ///
    /// # Errors
    /// The name is not one.
    pub fn of(name: &str) -> Result<Self, NameError> {
        let fits = (1..=MAX_NAME).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !fits {
            return Err(NameError(name.to_owned()));
        }
        Ok(Self {
            root: base().join(name),
        })
    }

    /// The directory at a path, as a part gets it in its configuration.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes it, and everything above it that is missing, for this user alone.
    ///
    /// # Errors
    /// It cannot be made, or is another user's.
    pub fn create(&self) -> io::Result<()> {
        private_dir(self.root.parent().unwrap_or_else(|| Path::new("/")))?;
        for dir in [
            self.root.clone(),
            self.logs(),
            self.root.join("nodes"),
            self.root.join("state"),
            self.root.join("tokens"),
        ] {
            private_dir(&dir)?;
        }
        Ok(())
    }

    /// The socket of whoever keeps the pods: `ps`, `exec`, `logs`, `down`.
    pub fn up_socket(&self) -> PathBuf {
        self.root.join("up.sock")
    }

    /// The socket of the control plane: `apply`, `delete`, `get`, `status`.
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// The socket of the certificate authority: `status`, `rotate`.
    pub fn ca_socket(&self) -> PathBuf {
        self.root.join("ca.sock")
    }

    /// The socket of a node's proxy: `access`, `proxy`, `metrics`.
    pub fn proxy_socket(&self, node: &str) -> PathBuf {
        self.root.join(format!("proxy-{node}.sock"))
    }

    /// The trust bundle, PEM, written by the CA.
    pub fn roots(&self) -> PathBuf {
        self.root.join("roots.pem")
    }

    /// The public keys of service account tokens, JWKS.
    pub fn token_keys(&self) -> PathBuf {
        self.root.join("token-keys.json")
    }

    /// A service account token: `name` is a node, `control`, or the uid of a pod.
    pub fn token(&self, name: &str) -> PathBuf {
        self.root.join("tokens").join(name)
    }

    /// Who the marks of a node stand for: one file `MARK.json` a workload.
    pub fn workloads(&self, node: &str) -> PathBuf {
        self.root.join("nodes").join(node).join("workloads")
    }

    /// What the control plane must not lose: objects that were applied.
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// What the parts and the pods print.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
}

/// Where the directories of all meshes of this user are.
pub fn base() -> PathBuf {
    if let Some(set) = std::env::var_os(BASE_VARIABLE).filter(|v| !v.is_empty()) {
        return PathBuf::from(set);
    }
    match rustix::process::geteuid().as_raw() {
        0 => PathBuf::from("/run/meshward"),
        uid => PathBuf::from(format!("/tmp/meshward-{uid}")),
    }
}

fn private_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    let found = std::fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        let text = format!("`{}` is not a directory of this user's", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    if found.permissions().mode() & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_directory_or_grow_too_long_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "A",
            "1a",
            "-a",
            "a b",
            "aaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(RunDir::of(name).is_err(), "{name:?}");
        }
        assert!(RunDir::of("default").unwrap().root().ends_with("default"));
    }

    #[test]
    fn a_directory_is_made_for_its_owner_alone() {
        let temp = tempfile::tempdir().unwrap();
        let dir = RunDir::at(temp.path().join("base/mesh"));
        dir.create().unwrap();
        std::fs::set_permissions(dir.root(), std::fs::Permissions::from_mode(0o755)).unwrap();
        dir.create().unwrap();
        let mode = std::fs::metadata(dir.root()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
