//! The command line: words, tables, JSON. What starts a mesh or a part of one is handed back to the program.

#![warn(missing_docs)]

use std::path::PathBuf;

use model::Profile;

/// What the program is to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Start a mesh on this machine.
    Up(Up),
    /// End one, or clear the remains of one.
    Down(Down),
    /// Be a part of a mesh, by its configuration file.
    Part(Part, PathBuf),
    /// Be a built-in workload program.
    Workload(String, Vec<String>),
    /// Ask a running mesh, or work offline; [`run`] does it all.
    Ask(Ask),
}

/// A part of a mesh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The certificate authority.
    Ca,
    /// The control plane.
    Control,
    /// A node's proxy.
    Proxy,
}

/// `meshward up`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Up {
    /// The mesh's name.
    pub name: String,
    /// Files, directories, or `-`.
    pub sources: Vec<PathBuf>,
    /// `-R`.
    pub recursive: bool,
    /// `--nodes`, 2 by default, 1 to `capture::plan::MAX_NODES`.
    pub nodes: u8,
    /// `--profile`.
    pub profile: Profile,
    /// `--detach`.
    pub detach: bool,
    /// `--wait`, milliseconds, 60 s by default: how long until all must be ready.
    pub wait_ms: u64,
    /// `--local-tls`.
    pub local_tls: bool,
    /// `--log-format`: whether the access log is JSON (else text).
    pub json_log: bool,
    /// `--image NAME=COMMAND`, in order.
    pub images: Vec<(String, String)>,
    /// `-o json`: the table at the end as JSON.
    pub json: bool,
    /// `--leaf-lifetime`, seconds; 0 leaves it to the CA (an hour).
    pub leaf_lifetime_s: u64,
    /// `--quiet`: no progress lines.
    pub quiet: bool,
}

/// `meshward down`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Down {
    /// The mesh's name.
    pub name: String,
    /// `--all`: every mesh of this user.
    pub all: bool,
}

/// Everything else.
#[derive(Clone, Debug)]
pub struct Ask {}

/// Reads the words. Prints help, the version or what is wrong with them itself.
///
/// # Errors
/// The exit code: 0 after help, 64 for words that are not understood.
pub fn parse(_words: Vec<std::ffi::OsString>) -> Result<Command, u8> {
    Err(64)
}

/// Does what was asked; returns the exit code.
pub async fn run(_ask: Ask) -> u8 {
    2
}

/// Prints the table of `ps` for the mesh, as `meshward up` does when all is ready. Returns the exit code.
pub async fn ps(_mesh: &str, _json: bool) -> u8 {
    2
}
